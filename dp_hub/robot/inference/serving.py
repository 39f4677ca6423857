"""Running a policy server: its token, its certificate, its port, its end."""

import asyncio
import os
import secrets
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dp_hub.errors import ConfigError, RobotError
from dp_hub.files import cache_root, write_atomic
from dp_hub.robot.inference.address import read_token
from dp_hub.robot.inference.extra import library
from dp_hub.robot.inference.protocol import Inference
from dp_hub.robot.inference.server import PolicyServer


@dataclass(frozen=True)
class Door:
    """Where a server can be reached, and by whom; its port is taken, but it does not answer yet.

    Args:
        url: for clients.
        token_file: what they must know is in there.
        listener: bound.
        tls: None: unencrypted.
    """

    url: str
    token_file: Path
    listener: socket.socket
    tls: ssl.SSLContext | None

    @property
    def is_exposed(self) -> bool:
        """Whether what other machines send here can be read on the way."""
        return self.tls is None and self.listener.getsockname()[0] not in ("127.0.0.1", "::1")


def open_door(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token_file: Path | None = None,
    new_token: bool = False,
    certificate: Path | None = None,
    key: Path | None = None,
) -> Door:
    """Take a port and see to a token.

    Args:
        host: address to listen at.
        port: 0 takes a free one.
        token_file: kept if it is there; None: in the user's cache folder.
        new_token: replace it.
        certificate, key: files, PEM; both or none.
    Raises:
        ConfigError: others can read the token's file, or there is a certificate without a key.
        RobotError: the port is taken, or a file cannot be read.
    """
    file = (token_file or cache_root() / "policy-server" / "token").expanduser().absolute()
    tls = _tls(certificate, key)
    listener = _bind(host, port)
    try:
        see_to_token(file, new=new_token)
    except BaseException:
        listener.close()
        raise
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    shown = f"[{shown}]" if ":" in shown else shown
    scheme = "ws" if tls is None else "wss"
    return Door(f"{scheme}://{shown}:{listener.getsockname()[1]}", file, listener, tls)


def check_extra() -> None:
    """Raises RobotError: websockets or msgpack is not installed."""
    for name in ("websockets.asyncio.server", "msgpack"):
        library(name)


def see_to_token(file: Path, *, new: bool = False) -> None:
    """Write a token into ``file``, readable by its owner only, unless there is one.

    Raises:
        ConfigError: others can read what is there, or it cannot be written.
        RobotError: there is something else in it.
    """
    try:
        if new or not file.exists():
            write_atomic(file, f"{secrets.token_urlsafe(32)}\n".encode(), mode=0o600)
        elif file.stat().st_mode & 0o077:
            raise ConfigError(
                f"others can read the token in {file}",
                hint="--new-token makes another; or `chmod 600` if nobody has seen it",
            )
    except OSError as error:
        raise ConfigError(f"can't keep a token in {file}: {error.strerror}") from None
    if len(read_token(file)) < 16:
        raise ConfigError(f"the token in {file} can be guessed", hint="--new-token makes another")


def serve(
    inference: Inference,
    door: Door,
    *,
    clients: int = 1,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Answer until Ctrl-C or SIGTERM; then let everybody go and return. In the main thread.

    Args:
        inference: ready; it is not closed.
        door: of `open_door`; it is closed.
        clients: as many may be connected at once.
        on_ready: called when it answers.
    Raises:
        RobotError: websockets or msgpack is not installed, or the port was taken meanwhile.
    """

    async def main() -> None:
        ending = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ending.set)
        await _run(server, door, ending, on_ready)

    with door.listener:
        server = PolicyServer(inference, token=read_token(door.token_file), clients=clients)
        asyncio.run(main())


@dataclass
class ServerThread:
    """A server in a thread of this process, for tests and demos.

    >>> with ServerThread(inference, open_door()) as server:
    ...     PolicyClient(server.url, token_file=server.token_file)
    """

    inference: Inference
    door: Door
    clients: int = 1
    _ready: threading.Event = field(default_factory=threading.Event)
    _loop: asyncio.AbstractEventLoop | None = None
    _ending: asyncio.Event | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return self.door.url

    @property
    def token_file(self) -> Path:
        return self.door.token_file

    def __enter__(self) -> "ServerThread":
        token = read_token(self.door.token_file)
        server = PolicyServer(self.inference, token=token, clients=self.clients)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(server)))
        self._thread.start()
        if not self._ready.wait(10):
            self.__exit__()
            raise RobotError(f"the server at {self.url} did not begin within 10 s")
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._ending is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._ending.set)
        if self._thread is not None:
            self._thread.join()
        self.door.listener.close()

    async def _main(self, server: PolicyServer) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        await _run(server, self.door, self._ending, self._ready.set)


async def _run(
    server: PolicyServer, door: Door, ending: asyncio.Event, on_ready: Callable[[], None]
) -> None:
    try:
        await server.run(door.listener, ending, tls=door.tls, on_ready=on_ready)
    except OSError as error:
        raise RobotError(f"can't listen at {door.url}: {error.strerror}") from None


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise RobotError(
            f"can't listen at {host}:{port}: {reason}", hint="choose another --port or --host"
        ) from None
    return listener


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("a certificate needs its key, and a key its certificate")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise RobotError(f"can't use certificate {certificate} with key {key}: {error}") from None
    return context
