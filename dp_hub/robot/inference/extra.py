"""The libraries of the ``serve`` extra, or a sentence that says how to get them."""

import importlib
from types import ModuleType

from dp_hub.errors import RobotError


def msgpack() -> ModuleType:
    """Raises RobotError if it is not installed."""
    return library("msgpack")


def library(name: str) -> ModuleType:
    """A module of the extra. Raises RobotError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise RobotError(
            f"a policy on another machine needs {error.name}, which is not installed",
            hint='pip install "dp_hub[serve]", or on the robot `pip install websockets msgpack`',
        ) from None
