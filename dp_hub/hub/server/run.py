"""Running the server: the folder's lock, its users, the socket."""

import fcntl
import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

import uvicorn

from dp_hub.errors import ConfigError, HubError
from dp_hub.hub.server.app import build_app
from dp_hub.hub.server.tokens import Tokens


@dataclass(frozen=True)
class Prepared:
    """A server with its port open, not yet answering. ``token_files`` holds None for a user whose
    token file has been taken away."""

    endpoint: str
    token_files: dict[str, Path | None]
    server: uvicorn.Server
    listener: socket.socket
    lock: TextIO

    def run(self) -> None:
        """Answer until told to stop (a signal, or ``server.should_exit``)."""
        try:
            self.server.run(sockets=[self.listener])
        finally:
            self.listener.close()
            self.lock.close()


def prepare(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8400,
    users: Sequence[str] = (),
    token_file: Path | None = None,
    new_token: bool = False,
) -> Prepared:
    """Open ``folder`` as a Hub: made if missing, users given tokens, the port bound.

    Args:
        folder: where everything is kept.
        host: address to listen at.
        port: 0 takes a free one.
        users: who should have a token; without any, those who have one, or else ``me``.
        token_file: where the token goes, with one user; otherwise ``folder/tokens/<user>``.
        new_token: replace the tokens that these users have.
    Raises:
        ConfigError: an impossible user name, folder or port.
        HubError: another server has the folder open, or the port is taken.
    """
    lock = _lock(folder)
    try:
        tokens = Tokens(folder)
        files = _token_files(tokens, folder, users, token_file, new_token)
        listener = _listen(host, port)
        app = build_app(folder, tokens)
    except BaseException:
        lock.close()
        raise
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", server_header=False,
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    endpoint = f"http://{_reachable(host)}:{listener.getsockname()[1]}"
    return Prepared(endpoint, files, uvicorn.Server(config), listener, lock)


class LocalHub:
    """A Hub in a thread of this process, for demos and tests.

    >>> with LocalHub(folder) as hub:
    ...     subprocess.run(["dp-hub", "pull", "me/pusht"], env={**os.environ, **hub.env})
    """

    def __init__(self, folder: Path, *, users: Sequence[str] = ("me",), port: int = 0) -> None:
        self._prepared = prepare(folder, port=port, users=users)
        self.endpoint = self._prepared.endpoint
        self.tokens = {
            user: file.read_text() for user, file in self._prepared.token_files.items() if file
        }
        """By user; ``token`` and ``env`` are the first one's."""
        self._thread = threading.Thread(target=self._prepared.run, name="dp-hub", daemon=True)

    @property
    def token(self) -> str:
        return next(iter(self.tokens.values()))

    @property
    def env(self) -> dict[str, str]:
        """What a client's environment needs. Set it before anything of Hugging Face is imported."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        }

    def __enter__(self) -> "LocalHub":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._prepared.server.should_exit = True
        self._thread.join()


def _lock(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a")
    except OSError as error:
        raise ConfigError(f"can't keep a Hub in {folder}: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise HubError(
            f"another server is serving {folder}", hint="stop it first, or serve another folder"
        ) from None
    return file


def _token_files(
    tokens: Tokens, folder: Path, users: Sequence[str], token_file: Path | None, new_token: bool
) -> dict[str, Path | None]:
    wanted = list(users) or tokens.users or ["me"]
    if token_file is not None and len(wanted) != 1:
        raise ConfigError(f"one token file for {len(wanted)} users: {', '.join(wanted)}")
    files: dict[str, Path | None] = {}
    for user in wanted:
        file = token_file or folder.resolve() / "tokens" / user
        if new_token or user not in tokens.users:
            tokens.issue(user, file)
        files[user] = file if file.is_file() else None
    return files


def _reachable(host: str) -> str:
    """How clients call this machine; 0.0.0.0 and :: mean "all of its addresses"."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio sets TCP_NODELAY; without, each answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise HubError(
            f"can't listen at {host}:{port}: {reason}", hint="choose another --port or --host"
        ) from None
    return listener
