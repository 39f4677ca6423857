"""Arms of Universal Robots (CB3 and e-Series) through ur_rtde: the arm follows a stream of targets.

Tried against a stand-in that speaks the controller's protocols to the real ur_rtde; not on a robot.

Its clock's stamps are translated (`DeviceClock`), so readings are as old as they say however late
they came. Nothing here waits for the robot but `open` and `close`.
"""

import ctypes
import logging
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices import ur_modes
from dp_hub.robot.devices.device_clock import DeviceClock
from dp_hub.robot.devices.libraries import library
from dp_hub.robot.devices.protocols import Reading
from dp_hub.robot.devices.ur_sender import Sender
from dp_hub.robot.fields import Field
from dp_hub.robot.space import POSE, joints

log = logging.getLogger(__name__)

_PORTS = {29999: "dashboard", 30003: "script", 30004: "RTDE"}
_VARIABLES = ["timestamp", "actual_q", "actual_qd", "actual_TCP_pose", "actual_TCP_speed"]
_VARIABLES += ["actual_TCP_force", "robot_mode", "safety_mode", "runtime_state"]
_VARIABLES += ["robot_status_bits", "safety_status_bits"]
_AS_THEIR_PROCESS = -1
"""On a real-time kernel ur_rtde runs the thread that opens it at SCHED_FIFO 90, if not told so."""
_STOP_S = 0.25
"""A stop that is not confirmed by then is told to the dashboard too."""


class UrArm:
    """A UR arm.

    Args:
        host: address of the robot.
        control: targets are the tool's ``pose`` (servoL: base frame, m and rotation vector) or the
            ``joints`` (servoJ, rad).
        rate_hz: at which targets come and readings are asked for: the controller's; at most 125
            on a CB3 and 500 on an e-Series.
        lookahead_s: smooths the path, 0.03 to 0.2.
        gain: of following the target, 100 to 2000.
        tcp: the tool in the flange's frame, m and rotation vector; None: as set on the pendant.
        payload_kg: of the tool; None: as set on the pendant.
        payload_m: its centre of gravity in the flange's frame; only with ``payload_kg``.
        silent_s: the robot counts as gone if no message came, or it took no target, for so long.
        watchdog_hz: the robot stops itself (a protective stop) if nothing came for longer than a
            period of this, as when this process is killed; None: it would stay at the last target.
        connect_s: how long to wait for the robot's ports.
    """

    summary = "arm of Universal Robots, CB3 or e-Series; not tried on hardware"

    def __init__(
        self,
        *,
        host: str,
        control: Literal["pose", "joints"] = "pose",
        rate_hz: float = 125.0,
        lookahead_s: float = 0.1,
        gain: float = 300.0,
        tcp: tuple[float, float, float, float, float, float] | None = None,
        payload_kg: float | None = None,
        payload_m: tuple[float, float, float] = (0.0, 0.0, 0.0),
        silent_s: float = 0.5,
        watchdog_hz: float | None = 5.0,
        connect_s: float = 5.0,
    ) -> None:
        _check("rate_hz", rate_hz, 10, 500)
        _check("lookahead_s", lookahead_s, 0.03, 0.2)
        _check("gain", gain, 100, 2000)
        self.space = POSE if control == "pose" else joints(6)
        six = joints(6)
        self.fields = (
            Field("position", (6,), units=self.space.units, names=self.space.names),
            Field("joints", (6,), units=six.units, names=six.names),
            Field("joint_velocity", (6,), units=("rad/s",) * 6, names=six.names),
            Field("pose", (6,), units=POSE.units, names=POSE.names),
            Field("velocity", (6,), units=("m/s",) * 3 + ("rad/s",) * 3, names=POSE.names),
            Field("force", (6,), units=("N",) * 3 + ("N m",) * 3, names=POSE.names),
        )
        self._host, self._control, self._rate_hz = host, control, rate_hz
        self._lookahead_s, self._gain = lookahead_s, gain
        self._tcp, self._payload = tcp, (payload_kg, payload_m)
        self._silent_s, self._watchdog_hz, self._connect_s = silent_s, watchdog_hz, connect_s
        self._receive: Any = None
        self._rtde: Any = None
        self._sender: Sender | None = None
        self._dashboard: socket.socket | None = None
        self._stopped = False

    def open(self) -> None:
        """Connect, set tool and payload, and start the control program. Raises RobotError."""
        receiving = library("rtde_receive", extra="ur").RTDEReceiveInterface
        controlling = library("rtde_control", extra="ur").RTDEControlInterface
        self._find_ports()
        self._clock = DeviceClock(f"the UR arm at {self._host}")
        self._heard_s, self._stamp_s, self._stopped = time.monotonic(), float("nan"), False
        self._was_lost = self._told_dashboard = False
        try:
            self._receive = receiving(
                self._host, self._rate_hz, _VARIABLES, rt_priority=_AS_THEIR_PROCESS
            )
            self._check_ready()
            self._rtde = controlling(self._host, self._rate_hz, rt_priority=_AS_THEIR_PROCESS)
            self._set_tool()
        except (RuntimeError, ValueError) as error:
            self.close()
            raise RobotError(
                f"the UR arm at {self._host} cannot be controlled: {error}",
                hint="is it in remote control, powered on, and free of other programs?",
            ) from error
        except RobotError:
            self.close()
            raise
        self._sender = Sender(
            self._rtde,
            self._servo,
            connected=self._receive.isConnected,
            watchdog_hz=self._watchdog_hz,
        )

    def read(self) -> Reading:
        """The newest reading. Raises RobotError: the arm is gone, or has stopped itself."""
        now_s = time.monotonic()
        stamp_s, values = self._values()
        if self._sender is not None:
            self._sender.owner_is_alive()
        if self._stopped:
            self._see_to_stop(now_s)
        self._check_health(now_s)
        return Reading(self._clock.monotonic_s(stamp_s, now_s), values)

    def send(self, target: np.ndarray) -> None:
        """Follow ``target``, float64 (6,), until the next one. Raises RobotError: not finite."""
        if not np.isfinite(target).all():
            raise RobotError(f"a target for the UR arm at {self._host} is not finite: {target}")
        if self._sender is not None and not self._stopped:
            self._sender.give([float(number) for number in target])

    def hold(self) -> None:
        """Stay where it is: the present position becomes the target."""
        _, values = self._values()
        self.send(values["position"])

    def stop(self) -> None:
        """Brake and end the program on the robot; the dashboard is told to if it does not answer.

        It comes back at once; `read` sees to the rest.
        """
        if not self._stopped:
            self._stopped, self._stopped_s = True, time.monotonic()
        self._see_to_stop(self._stopped_s)

    def close(self) -> None:
        """Brake, end the program on the robot, and let go."""
        if self._sender is not None:
            gone = self._gone(time.monotonic())
            if not self._sender.end(wait_s=0.0 if gone else 2.0, gone=gone):
                self._stop_by_dashboard()
            if not self._sender.join(3.0):
                log.warning("the UR arm at %s does not answer; its thread is left", self._host)
            if gone:
                _keep_for_ever(self._rtde)
        self._sender = self._rtde = self._receive = None  # they disconnect as they go
        if self._dashboard is not None:
            self._dashboard.close()
            self._dashboard = None

    def _find_ports(self) -> None:
        """Raises RobotError: ur_rtde itself would wait minutes for an address nobody has."""
        for port, what in _PORTS.items():
            try:
                found = socket.create_connection((self._host, port), timeout=self._connect_s)
            except OSError as error:
                raise RobotError(
                    f"no UR arm at {self._host}: its {what} port {port} gives: {error}",
                    hint="is the address right, the robot on, and its network cable in?",
                ) from error
            if what == "dashboard":
                found.setblocking(False)
                self._dashboard = found
            else:
                found.close()

    def _check_ready(self) -> None:
        mode = self._receive.getRobotMode()
        self._check_safety()
        if mode != ur_modes.RUNNING:
            raise RobotError(
                f"the UR arm at {self._host} is {ur_modes.ROBOT.get(mode, f'in mode {mode}')}",
                hint="power it on and release its brakes on the pendant",
            )

    def _set_tool(self) -> None:
        mass_kg, centre_m = self._payload
        done = {
            "tcp": self._tcp is None or self._rtde.setTcp(list(self._tcp)),
            "payload": mass_kg is None or self._rtde.setPayload(mass_kg, list(centre_m)),
        }
        for name, well in done.items():
            if not well:
                raise RobotError(f"the UR arm at {self._host} did not take its {name}")

    def _values(self) -> tuple[float, dict[str, np.ndarray]]:
        """The robot's time and what it measured then."""
        receive = self._receive
        assert receive is not None, "open it first"
        for _ in range(3):  # ur_rtde's thread may put a new message between two calls
            stamp_s = receive.getTimestamp()
            angles, angular = receive.getActualQ(), receive.getActualQd()
            pose, speed = receive.getActualTCPPose(), receive.getActualTCPSpeed()
            force = receive.getActualTCPForce()
            if receive.getTimestamp() == stamp_s:
                break
        position = pose if self._control == "pose" else angles
        numbers = (position, angles, angular, pose, speed, force)
        arrays = [np.array(one, dtype=np.float64) for one in numbers]
        return stamp_s, {f.name: one for f, one in zip(self.fields, arrays, strict=True)}

    def _check_health(self, now_s: float) -> None:
        if self._gone(now_s):
            silent_s = now_s - self._heard_s
            raise RobotError(
                f"the UR arm at {self._host} is gone: its last message is {silent_s:.2f} s old",
                hint="see its network cable and whether it is on, then start again",
            )
        if self._stopped or self._sender is None:
            return
        self._check_safety()
        waits_s = max(self._sender.refused_for_s(), self._sender.stuck_s())
        program = self._receive.getRuntimeState()
        if program not in ur_modes.PLAYING or waits_s > self._silent_s:
            state = ur_modes.PROGRAM.get(program, f"in state {program}")
            raise RobotError(
                f"the UR arm at {self._host} has taken no targets for {waits_s:.2f} s: its control "
                f"program is {state}, its safety mode {self._safety()}",
                hint="was it stopped on the pendant, or a pose out of reach? see its log",
            )

    def _gone(self, now_s: float) -> bool:
        stamp_s = self._receive.getTimestamp()
        if stamp_s != self._stamp_s:
            self._stamp_s, self._heard_s = stamp_s, now_s
        # Once it is gone it stays so: ur_rtde connects again behind one's back, with a new program.
        silent = now_s - self._heard_s > self._silent_s
        self._was_lost = self._was_lost or silent or not self._receive.isConnected()
        return self._was_lost

    def _safety(self) -> str:
        return ur_modes.safety(self._receive.getSafetyMode())

    def _check_safety(self) -> None:
        mode = self._receive.getSafetyMode()
        if mode not in ur_modes.MOVES:
            raise RobotError(
                f"the UR arm at {self._host} has stopped itself: {ur_modes.safety(mode)}",
                hint=ur_modes.way_out(mode),
            )

    def _servo(self, target: Sequence[float]) -> bool:
        call = self._rtde.servoL if self._control == "pose" else self._rtde.servoJ
        # Speed and acceleration (the zeros) are ignored by the robot.
        return bool(call(target, 0.0, 0.0, 1 / self._rate_hz, self._lookahead_s, self._gain))

    def _see_to_stop(self, now_s: float) -> None:
        if self._sender is None or self._told_dashboard:
            return
        gone = self._gone(now_s)
        if not self._sender.end(wait_s=0, gone=gone) and (
            gone or now_s - self._stopped_s > _STOP_S
        ):
            self._stop_by_dashboard()

    def _stop_by_dashboard(self) -> None:
        # Not beside a program that is ending itself: ur_rtde would wait 3 s for its answer.
        self._told_dashboard = True
        if self._dashboard is not None:
            with suppress(OSError):
                self._dashboard.send(b"stop\n")


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} of a UR arm is {value:g}: from {low:g} to {high:g} is possible")


def _keep_for_ever(lost: Any) -> None:
    """A control interface that lost its robot crashes the process when it goes (ur_rtde 1.6.5).

    It connects again from a thread that its destructor does not know of.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(lost))
