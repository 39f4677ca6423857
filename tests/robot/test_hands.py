"""What a person asks for through a 3-D mouse, a keyboard, or a gamepad."""

import ctypes
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices.gamepad import Gamepad, Pad
from dp_hub.robot.devices.keyboard import Keyboard
from dp_hub.robot.devices.spacemouse import Cap, SpaceMouse, after_report, velocity

FORWARD, LEFT, UP = np.eye(3)


def reports(*axes: int) -> list[bytes]:
    """Of an older model: translation, then rotation."""
    return [b"\x01" + struct.pack("<3h", *axes[:3]), b"\x02" + struct.pack("<3h", *axes[3:])]


def taken(*all_reports: bytes) -> Cap:
    cap = Cap()
    for report in all_reports:
        cap = after_report(cap, report)
    return cap


def test_old_and_new_models_say_the_same_in_one_and_in_two_reports():
    axes = (350, -350, 175, 10, -20, 30)
    new = taken(b"\x01" + struct.pack("<6h", *axes))
    assert new == taken(*reports(*axes)) == Cap(axes)


@pytest.mark.parametrize(
    ("pushed", "wanted"),
    [
        ((0, -350, 0), FORWARD),  # away from the person
        ((-350, 0, 0), LEFT),
        ((0, 0, -350), UP),  # pulled up
        ((0, 350, 0), -FORWARD),
    ],
)
def test_the_tool_goes_the_way_the_cap_is_pushed(pushed, wanted):
    cap = taken(*reports(*pushed, 0, 0, 0))
    np.testing.assert_allclose(velocity(cap, dead_zone=0.1), [*wanted, 0, 0, 0], atol=1e-12)
    turned = taken(*reports(0, 0, 0, *pushed))
    np.testing.assert_allclose(velocity(turned, dead_zone=0.1), [0, 0, 0, *wanted], atol=1e-12)


def test_a_dead_zone_hides_drift_and_speed_grows_from_its_edge():
    shares = [
        velocity(taken(*reports(0, -deflection, 0, 0, 0, 0)), dead_zone=0.2)[0]
        for deflection in (0, 30, 70, 71, 210, 350, 500)
    ]
    np.testing.assert_allclose(shares, [0, 0, 0, 1 / 280, 0.5, 1, 1], atol=1e-9)


def test_buttons_of_a_spacemouse_have_names_and_may_grip():
    cap = taken(b"\x03\x02\x00", b"\x17\x01\x02\x03")  # a battery's report says nothing
    hand = SpaceMouse(opens="right").hand(cap, 5.0)
    assert hand.buttons == {"right"} and hand.gripper == 1.0 and hand.time_s == 5.0
    assert SpaceMouse(opens="left").hand(cap, 5.0).gripper == -1.0
    assert SpaceMouse().hand(cap, 5.0).gripper == 0.0
    assert SpaceMouse().hand(taken(b"\x03\x00\x10\x00\x00"), 0).buttons == {"button_13"}
    assert taken(b"\x03\x01\x00", b"\x03\x00\x00").buttons == set()


def test_a_cap_that_falls_silent_while_deflected_counts_as_let_go(monkeypatch):
    waiting = reports(0, -350, 0, 0, 0, 0)

    def read(_: int) -> list[int]:
        return list(waiting.pop(0)) if waiting else []

    device = SimpleNamespace(
        open_path=lambda _: None, set_nonblocking=lambda _: None, close=lambda: None, read=read
    )
    found = [{"vendor_id": 0x256F, "product_id": 0xC635, "path": b"hidraw0"}]
    fake = SimpleNamespace(enumerate=lambda: found, device=lambda: device)
    monkeypatch.setitem(sys.modules, "hid", fake)
    mouse = SpaceMouse()
    mouse.open()
    assert mouse.read().velocity[0] == 1.0
    assert mouse.read().velocity[0] == 1.0
    time.sleep(0.6)
    assert mouse.read().velocity.tolist() == [0] * 6

    def unplugged(_: int) -> list[int]:
        raise OSError("read error")

    device.read = unplugged
    with pytest.raises(RobotError, match="the SpaceMouse is gone: read error"):
        mouse.read()
    mouse.close()


def test_without_a_spacemouse_opening_says_so():
    pytest.importorskip("hid")
    with pytest.raises(RobotError, match="no SpaceMouse is connected"):
        SpaceMouse().open()


def test_held_keys_move_and_turn_and_shift_slows():
    keyboard = Keyboard(share=0.5, slow_share=0.1)
    assert keyboard.hand([], 1.0).velocity.tolist() == [0] * 6
    hand = keyboard.hand(["w", "d", "j", "e"], 1.0)
    assert hand.velocity.tolist() == [0.5, -0.5, 0, 0, 0, 0.5]
    assert hand.gripper == 0.5 and hand.time_s == 1.0 and "w" in hand.buttons
    assert keyboard.hand(["w", "s", "r"], 1.0).velocity.tolist() == [0, 0, 0.5, 0, 0, 0]
    assert keyboard.hand(["w", "left shift"], 1.0).velocity[0] == 0.1
    other = Keyboard(keys={"+x": "up"})
    assert other.hand(["up"]).velocity[0] == 0.5 and other.hand(["w"]).velocity[0] == 0


def test_a_keyboards_window_opens_reads_and_ends_where_it_is_closed():
    import pygame

    keyboard = Keyboard()
    keyboard.open()
    try:
        assert keyboard.read().velocity.tolist() == [0] * 6
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        with pytest.raises(RobotError, match="window was closed"):
            keyboard.read()
    finally:
        keyboard.close()
    with pytest.raises(RobotError, match="no keyboard: unknown key name"):
        Keyboard(keys={"+x": "nokey"}).open()
    keyboard.close()


def test_sticks_crosses_and_bumpers_of_a_pad_become_directions():
    pad = Gamepad(dead_zone=0.2, buttons={"takeover": 7})
    axes = (0.1, -1.0, -1.0, 0.6, 0.0, -1.0)
    down = [at in (5, 7, 2) for at in range(8)]
    hand = pad.hand(Pad(axes, down, [(1, -1)]), 3.0)
    np.testing.assert_allclose(hand.velocity, [1, 0, 0, 1, -1, -0.5])
    assert hand.gripper == 1.0 and hand.time_s == 3.0
    assert hand.buttons == {"takeover", "button_5", "button_2"}
    assert pad.hand(Pad(), 3.0).velocity.tolist() == [0] * 6


def test_a_layout_of_ones_own_is_a_sum_of_sources():
    pad = Gamepad(dead_zone=0, layout={"z": "+b3-b0", "x": "a1", "rz": "", "gripper": "-h1x+a2"})
    moved = Pad((0, 0.25, 0.5, 1.0), [True, False], [(0, 0), (1, 0)])
    hand = pad.hand(moved, 0.0)
    assert hand.velocity.tolist() == [0.25, 0, -1, 0, 0, 0]
    assert hand.gripper == -0.5
    for layout, message in (({"z": "b3+"}, "cannot be"), ({"up": "a1"}, "no direction 'up'")):
        with pytest.raises(ConfigError, match=message):
            Gamepad(layout=layout)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Keyboard(keys={"forward": "w"}),
        lambda: Keyboard(share=2.0),
        lambda: Gamepad(dead_zone=1.0),
        lambda: SpaceMouse(dead_zone=1.0),
    ],
)
def test_impossible_options_are_refused(make):
    with pytest.raises(ConfigError):
        make()


@pytest.fixture
def virtual_pad() -> Iterator[tuple[Any, int]]:
    """SDL's library and the number of a pad that only exists in it."""
    import pygame

    found = sorted((Path(pygame.__file__).parents[1] / "pygame.libs").glob("libSDL2-2*"))
    if not found:
        pytest.skip("this pygame does not bring its own SDL, which makes virtual pads")
    sdl = ctypes.CDLL(str(found[0]))
    sdl.SDL_JoystickFromInstanceID.restype = ctypes.c_void_p
    sdl.SDL_JoystickSetVirtualAxis.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int16]
    sdl.SDL_JoystickSetVirtualButton.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint8]
    pygame.display.init()
    pygame.joystick.init()
    number = sdl.SDL_JoystickAttachVirtual(0, 6, 8, 1)
    if number < 0:
        pytest.skip("this SDL makes no virtual pads")
    yield sdl, number
    sdl.SDL_JoystickDetachVirtual(number)
    pygame.joystick.quit()
    pygame.display.quit()


def test_a_virtual_pad_is_read_through_pygame_and_its_end_is_told(virtual_pad):
    import pygame

    sdl, number = virtual_pad
    pad = Gamepad(number=number)
    pad.open()
    stick = sdl.SDL_JoystickFromInstanceID(pygame.joystick.Joystick(number).get_instance_id())
    sdl.SDL_JoystickSetVirtualAxis(stick, 1, -32768)
    sdl.SDL_JoystickSetVirtualButton(stick, 5, 1)
    pad.read()
    hand = pad.read()
    assert hand.velocity.tolist() == [1, 0, 0, 0, 0, 0]
    assert hand.gripper == 1.0 and hand.buttons == {"button_5"}
    sdl.SDL_JoystickSetVirtualAxis(stick, 1, 0)
    pad.read()
    assert pad.read().velocity.tolist() == [0] * 6
    sdl.SDL_JoystickDetachVirtual(number)
    with pytest.raises(RobotError, match="the gamepad is gone"):
        pad.read()
    pad.close()


def test_without_a_gamepad_opening_says_so():
    import pygame

    with pytest.raises(RobotError, match="there is no gamepad 7; connected: "):
        Gamepad(number=7).open()
    pygame.joystick.quit()
    pygame.display.quit()
