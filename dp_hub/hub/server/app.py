"""The Hub server as an ASGI application."""

import logging
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dp_hub.hub.server import api_content, api_repos, faults, files, lfs, pages
from dp_hub.hub.server.request import Hub
from dp_hub.hub.server.store import Store
from dp_hub.hub.server.tokens import Tokens

log = logging.getLogger(__name__)
MAX_OBJECT_BYTES = 50 << 30  # as the Hub's own limit over plain HTTP


def build_app(folder: Path, tokens: Tokens, *, max_object_bytes: int = MAX_OBJECT_BYTES) -> ASGIApp:
    """The application that serves ``folder``. One at a time per folder (``run.py`` sees to it)."""
    store = Store(folder)
    store.sweep()
    # Order matters: the pages' /{user}/{name} would swallow /api/models.
    modules = (api_repos, api_content, lfs, files, pages)
    app = Starlette(
        routes=[route for module in modules for route in module.routes],
        exception_handlers={
            faults.Fault: faults.answer,
            OSError: faults.disk_answer,
            ClientDisconnect: _gone,
        },
    )
    app.router.redirect_slashes = False
    app.state.hub = Hub(store, tokens, max_object_bytes)
    return _outermost(app)


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # nobody is there to read it; for the log


def _outermost(app: ASGIApp) -> ASGIApp:
    """Route by the undecoded path, and log a line per request without query or headers."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started, status = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # A branch named a/b arrives as a%2Fb: decoding before routing would tear it apart.
        path = scope["raw_path"].decode("ascii", "replace")
        try:
            await app({**scope, "path": path}, receive, watched)
        finally:
            took_ms = (time.monotonic() - started) * 1000
            log.info("%s %s %d %.0f ms", scope["method"], path, status, took_ms)

    return handle
