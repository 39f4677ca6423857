"""Hardware's libraries are imported when a device is opened, not before."""

import importlib
from types import ModuleType

from dp_hub.errors import RobotError


def library(module: str, *, extra: str) -> ModuleType:
    """A module of an optional library. Raises RobotError with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RobotError(
            f"{module} is not installed, or does not load here: {error}",
            hint=f'pip install "dp_hub[{extra}]"',
        ) from error
