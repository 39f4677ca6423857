"""3Dconnexion's 3-D mice, read from their HID reports through hidapi. Not tried on hardware.

Reports: 1 holds x, y, z (and, in newer models, rx, ry, rz behind them), 2 holds rx, ry, rz, 3 the
buttons as bits; each axis is an int16 of about 350 at full deflection. The cap's axes are x to the
right, y towards the person, z down; a person who looks along the robot's x has theirs forward,
left, up.
"""

import struct
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices.libraries import library
from dp_hub.robot.devices.protocols import Hand

MODELS = {
    (0x046D, 0xC625): "SpacePilot",
    (0x046D, 0xC626): "SpaceNavigator",
    (0x046D, 0xC627): "SpaceExplorer",
    (0x046D, 0xC629): "SpacePilot Pro",
    (0x046D, 0xC62B): "SpaceMouse Pro",
    (0x256F, 0xC62E): "SpaceMouse Wireless",
    (0x256F, 0xC632): "SpaceMouse Pro Wireless",
    (0x256F, 0xC633): "SpaceMouse Enterprise",
    (0x256F, 0xC635): "SpaceMouse Compact",
    (0x256F, 0xC638): "SpaceMouse Pro Wireless (Bluetooth)",
    (0x256F, 0xC63A): "SpaceMouse Wireless (Bluetooth)",
    (0x256F, 0xC641): "SpaceMouse",
    (0x256F, 0xC652): "3Dconnexion Universal Receiver",
}
"""Vendor and product numbers of what is looked for."""

FULL = 350.0
SILENT_S = 0.5
"""A deflected cap reports many times a second: without reports for so long it counts as let go."""

_TO_ROBOT = np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, -1]])
_HANDS = {"right": 1, "left": 0}


@dataclass(frozen=True)
class Cap:
    """What the reports so far say.

    Args:
        axes: x, y, z, rx, ry, rz as the cap counts them.
        buttons: numbers of those that are down, from 0.
    """

    axes: tuple[int, ...] = (0,) * 6
    buttons: frozenset[int] = field(default_factory=frozenset)


def after_report(cap: Cap, report: bytes) -> Cap:
    """``cap`` with one HID report taken in; reports of other kinds change nothing."""
    kind, body = report[0], report[1:]
    if kind == 1 and len(body) >= 12:
        return replace(cap, axes=struct.unpack("<6h", body[:12]))
    if kind == 1 and len(body) >= 6:
        return replace(cap, axes=struct.unpack("<3h", body[:6]) + cap.axes[3:])
    if kind == 2 and len(body) >= 6:
        return replace(cap, axes=cap.axes[:3] + struct.unpack("<3h", body[:6]))
    if kind == 3:
        bits = int.from_bytes(body[:6], "little")
        return replace(cap, buttons=frozenset(n for n in range(48) if bits >> n & 1))
    return cap


def velocity(cap: Cap, *, dead_zone: float, full: float = FULL) -> np.ndarray:
    """Shares of full speed in the robot's frame, float64 (6,), in [-1, 1].

    Args:
        cap: the deflection.
        dead_zone: share of ``full`` below which an axis counts as 0; it grows from there.
        full: what an axis says at full deflection.
    """
    shares = np.clip(np.array(cap.axes, dtype=np.float64) / full, -1, 1)
    size = np.maximum(np.abs(shares) - dead_zone, 0) / (1 - dead_zone)
    return (np.copysign(size, shares).reshape(2, 3) @ _TO_ROBOT.T).ravel()


class SpaceMouse:
    """A 3-D mouse.

    Args:
        dead_zone: share of full deflection that counts as none, from 0 to 0.9.
        full: what an axis says at full deflection.
        opens: the button that opens a gripper while it is down; the other one closes it. None:
            both are only buttons.
    """

    summary = "3-D mouse of 3Dconnexion; not tried on hardware"

    def __init__(
        self,
        *,
        dead_zone: float = 0.1,
        full: float = FULL,
        opens: Literal["left", "right"] | None = None,
    ) -> None:
        if not 0 <= dead_zone <= 0.9 or full <= 0:
            raise ConfigError(
                f"a SpaceMouse's dead_zone and full are {dead_zone:g} and {full:g}",
                hint="dead_zone is from 0 to 0.9, full more than 0",
            )
        self._dead_zone, self._full, self._opens = dead_zone, full, opens
        self._device: Any = None
        self._cap, self._heard_s = Cap(), 0.0

    def open(self) -> None:
        """Connect to the first one found. Raises RobotError."""
        hid = library("hid", extra="spacemouse")
        found = [one for one in hid.enumerate() if (one["vendor_id"], one["product_id"]) in MODELS]
        # Some models show several interfaces; the one of a multi-axis controller is wanted.
        found.sort(key=lambda one: (one.get("usage_page"), one.get("usage")) != (1, 8))
        if not found:
            raise RobotError(
                "no SpaceMouse is connected",
                hint="is it plugged in? on Linux see also that /dev/hidraw* may be read (udev)",
            )
        device = hid.device()
        try:
            device.open_path(found[0]["path"])
            device.set_nonblocking(True)
        except OSError as error:
            raise RobotError(
                f"the SpaceMouse cannot be opened: {error}",
                hint="on Linux: may /dev/hidraw* be read by you? 3Dconnexion's own driver ended?",
            ) from error
        self._device, self._cap = device, Cap()

    def read(self) -> Hand:
        """What is asked for now. Raises RobotError: it is gone."""
        assert self._device is not None, "open it first"
        now_s = time.monotonic()
        try:
            while report := self._device.read(64):
                self._cap, self._heard_s = after_report(self._cap, bytes(report)), now_s
        except (OSError, ValueError) as error:
            raise RobotError(f"the SpaceMouse is gone: {error}") from error
        if now_s - self._heard_s > SILENT_S:
            self._cap = replace(self._cap, axes=(0,) * 6)
        return self.hand(self._cap, now_s)

    def hand(self, cap: Cap, now_s: float) -> Hand:
        """What a cap asks for."""
        names = {number: name for name, number in _HANDS.items()}
        down = frozenset(names.get(number, f"button_{number + 1}") for number in cap.buttons)
        gripper = 0.0
        if self._opens is not None:
            closes = "left" if self._opens == "right" else "right"
            gripper = float((self._opens in down) - (closes in down))
        speed = velocity(cap, dead_zone=self._dead_zone, full=self._full)
        return Hand(now_s, velocity=speed, gripper=gripper, buttons=down)

    def close(self) -> None:
        """Let go of it."""
        if self._device is not None:
            self._device.close()
        self._device = None
