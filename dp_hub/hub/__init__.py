"""Hugging Face Hub: push, pull, names, and a small server of our own (``dp_hub.hub.server``)."""

from typing import TYPE_CHECKING, Any

from dp_hub.hub.names import is_hub_name, parse_name
from dp_hub.hub.pulling import Pulled, pull
from dp_hub.hub.pushing import Pushed, push

__all__ = ["LocalHub", "Pulled", "Pushed", "is_hub_name", "parse_name", "pull", "push"]

if TYPE_CHECKING:
    from dp_hub.hub.server.run import LocalHub


def __getattr__(name: str) -> Any:
    # The server's libraries are loaded only by who runs one.
    if name == "LocalHub":
        from dp_hub.hub.server.run import LocalHub

        return LocalHub
    raise AttributeError(f"module 'dp_hub.hub' has no attribute {name!r}")
