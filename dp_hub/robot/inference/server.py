"""A policy for other machines: a WebSocket server in front of an `Inference`.

Who does not have the token is refused before anything of theirs is read. Each connection has one
question looked at at a time, and the next is read when that is answered: a client that floods waits
at its own end, and one that is slow or gone keeps nobody from their turn.
"""

import asyncio
import hashlib
import hmac
import logging
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from dp_hub.errors import RobotError
from dp_hub.robot.inference import wire
from dp_hub.robot.inference.client import PING_S, PONG_WITHIN_S, TRY_AGAIN_LATER
from dp_hub.robot.inference.extra import library
from dp_hub.robot.inference.hello import pack_hello
from dp_hub.robot.inference.messages import (
    most_bytes,
    number_of,
    pack_answer,
    pack_error,
    read_question,
)
from dp_hub.robot.inference.protocol import Inference
from dp_hub.robot.inference.turns import Turns

log = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.websockets")
_quiet.setLevel(logging.CRITICAL)  # it would print a traceback for everybody who knocks wrongly
_OPEN_WITHIN_S, _SEND_WITHIN_S = 5.0, 5.0


class PolicyServer:
    """Answers clients until told to end.

    Args:
        inference: ready to be asked; it is started again when it fails, but not closed.
        token: that clients must have.
        clients: as many may be connected at once; they are answered in turn.
    """

    def __init__(self, inference: Inference, *, token: str, clients: int = 1) -> None:
        self._websockets, self._errors = library("websockets.asyncio.server"), _errors()
        wire.msgpack()
        self._inference, self._info = inference, inference.info
        self._hello = pack_hello(self._info)
        self._digest = _digest(token)
        self._most_clients = clients
        self._clients: set[Any] = set()
        self._turns: Turns | None = None

    async def run(
        self,
        listener: socket.socket,
        ending: asyncio.Event,
        *,
        tls: ssl.SSLContext | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve at ``listener`` until ``ending`` is set, then close all connections."""
        self._turns = Turns(self._inference)
        server = await self._websockets.serve(
            self._talk,
            sock=listener,
            ssl=tls,
            process_request=self._check_token,
            compression=None,  # pictures do not get smaller, and a small message could unpack large
            server_header=None,
            open_timeout=_OPEN_WITHIN_S,
            close_timeout=1.0,
            ping_interval=PING_S,
            ping_timeout=PONG_WITHIN_S,
            max_size=most_bytes(self._info),
            max_queue=1,
            logger=_quiet,
        )
        on_ready()
        try:
            await ending.wait()
        finally:
            await self._turns.end()
            server.close()
            await server.wait_closed()

    def _check_token(self, connection: Any, request: Any) -> Any:
        """None lets a connection through; anything else is its refusal."""
        given = request.headers.get_all("Authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        known = hmac.compare_digest(_digest(token.strip()), self._digest)
        if scheme.lower() == "bearer" and known:
            return None
        log.warning("refused a client without the right token: %s", _who(connection))
        refusal = connection.respond(HTTPStatus.UNAUTHORIZED, "this needs the server's token\n")
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    async def _talk(self, connection: Any) -> None:
        if len(self._clients) >= self._most_clients:
            await connection.close(TRY_AGAIN_LATER, f"{len(self._clients)} connected already")
            return
        self._clients.add(connection)
        log.info("a client is connected: %s", _who(connection))
        try:
            await connection.send(self._hello)
            async for data in connection:
                reply = await self._reply(connection, data)
                async with asyncio.timeout(_SEND_WITHIN_S):
                    await connection.send(reply)
        except (self._errors.ConnectionClosed, TimeoutError):
            pass  # an answer that nobody takes
        finally:
            self._clients.discard(connection)
            log.info("a client is gone: %s", _who(connection))

    async def _reply(self, connection: Any, data: bytes | str) -> bytes:
        number: int | None = None
        try:
            asked = read_question(data, self._info)
            number = asked.number
            assert self._turns is not None
            answer, waited_s = await self._turns.ask(
                asked.obs,
                seed=asked.seed,
                prefix=asked.prefix,
                wanted=lambda: connection.state.name == "OPEN",
            )
        except RobotError as error:
            return pack_error(number_of(data) if number is None else number, error)
        return pack_answer(number, answer, waited_s)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _who(connection: Any) -> str:
    address = connection.remote_address
    return f"{address[0]} port {address[1]}" if address else "an unknown address"


def _errors() -> Any:
    return library("websockets.exceptions")
