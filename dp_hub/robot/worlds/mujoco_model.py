"""MuJoCo and the model of its world: the arm's physics and the cameras' pictures share them."""

import ctypes
import os
import sys
from importlib import resources
from typing import Any

from dp_hub.robot.devices.libraries import library

N_JOINTS = 6
HOME = (0.0, -0.7704, 2.25438, -1.48398, 0.0, 0.0)
"""Joints, rad, with the stick's end at (0.32, 0, 0.02) m."""
CAMERAS = ("front", "wrist")


def load_mujoco() -> Any:
    """The module. Raises RobotError: it is not installed."""
    if sys.platform == "linux":  # MuJoCo asks only while it is imported
        os.environ.setdefault("MUJOCO_GL", _offscreen())
    return library("mujoco", extra="mujoco")


def load_model(mujoco: Any) -> Any:
    """The arm's ``mujoco.MjModel``."""
    text = resources.files("dp_hub.robot.worlds").joinpath("mujoco_arm.xml").read_text("utf-8")
    return mujoco.MjModel.from_xml_string(text)


def _offscreen() -> str:
    """What draws without a display here."""
    for way, name in (("egl", "libEGL.so.1"), ("osmesa", "libOSMesa.so.8")):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return way
    return "disable"
