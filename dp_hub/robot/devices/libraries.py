"""Hardware's libraries are imported when a device is opened, not before."""

import importlib
import os
from types import ModuleType

from dp_hub.errors import RobotError


def library(module: str, *, extra: str) -> ModuleType:
    """A module of an optional library. Raises RobotError with what to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise RobotError(
            f"a library is not installed: {error}", hint=f'pip install "dp_hub[{extra}]"'
        ) from error
    except ImportError as error:
        raise RobotError(
            f"{module} is installed but does not load: {error}",
            hint="install the system's library that it names, such as libusb-1.0-0",
        ) from error


def pygame() -> ModuleType:
    """pygame, without its greeting: stdout is for data."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    return importlib.import_module("pygame")
