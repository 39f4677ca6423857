"""Hugging Face Hub: push, pull, names, and a small server of our own (``dp_hub.hub.server``)."""

from typing import TYPE_CHECKING, Any

from dp_hub.hub.names import is_hub_name, parse_name
from dp_hub.hub.origin import verify_folder
from dp_hub.hub.pulling import Pulled, pull
from dp_hub.hub.pushing import Pushed, push
from dp_hub.hub.versions import History, VersionEntry, history, log

__all__ = [
    "History",
    "LocalHub",
    "Pulled",
    "Pushed",
    "VersionEntry",
    "history",
    "is_hub_name",
    "log",
    "parse_name",
    "pull",
    "push",
    "verify_folder",
]

if TYPE_CHECKING:
    from dp_hub.hub.server.run import LocalHub


def __getattr__(name: str) -> Any:
    # The server's libraries are loaded only by who runs one.
    if name == "LocalHub":
        from dp_hub.hub.server.run import LocalHub

        return LocalHub
    raise AttributeError(f"module 'dp_hub.hub' has no attribute {name!r}")
