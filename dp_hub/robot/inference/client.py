"""A policy on another machine: the thin client. Needs numpy, websockets, msgpack, nothing else.

>>> client = PolicyClient("ws://gpu-box:8470", token_file="policy.token")
>>> client.info.features
>>> chunk = client.predict({"observation.state": state}).chunk  # float32 (Tp, Da)
"""

import logging
import math
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from dp_hub.errors import RobotError
from dp_hub.robot.inference import wire
from dp_hub.robot.inference.address import TOKEN_HINT, read_token, split_address, tls_of
from dp_hub.robot.inference.extra import library
from dp_hub.robot.inference.hello import unpack_hello
from dp_hub.robot.inference.info import Answer, Observed, PolicyInfo, Prefix
from dp_hub.robot.inference.messages import pack_question, read_answer

TRY_AGAIN_LATER = 1013  # a close code registered for WebSocket
_quiet = logging.getLogger(f"{__name__}.websockets")
_quiet.setLevel(logging.CRITICAL)  # at its most talkative it would write down the token
_SEND_WITHIN_S = 30.0
PING_S, PONG_WITHIN_S = 2.0, 8.0
"""How often each side asks whether the other is there, and how long it waits for the answer."""


class PolicyClient:
    """Asks a server that `dp-hub serve-policy` runs. For one thread.

    It connects when it is first needed, and again after the connection was lost: a question lost
    with it is an error, the next one connects. The policy keeps nothing between questions.

    Args:
        url: ``ws://host:port``, or ``wss://`` where the server has a certificate.
        token: the server's; None: from ``token_file``, or from $DP_HUB_POLICY_TOKEN.
        token_file: holds the token.
        certificate: file of the certificate (or of its authority) to trust, for ``wss://``.
        connect_within_s: to open a connection.
        answer_within_s: to answer a question; None for as long as it takes.
    Raises:
        RobotError: not such an address, no token, or websockets or msgpack is not installed.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        token_file: str | Path | None = None,
        certificate: str | Path | None = None,
        connect_within_s: float = 5.0,
        answer_within_s: float | None = 30.0,
    ) -> None:
        self._url, self._host, self._port = split_address(url)
        self._token = token if token is not None else read_token(token_file)
        self._tls = tls_of(url, certificate)
        self._connect_within_s, self._answer_within_s = connect_within_s, answer_within_s
        self._websockets = library("websockets.sync.client")
        self._errors = library("websockets.exceptions")
        wire.msgpack()
        self._connection: Any = None
        self._info: PolicyInfo | None = None
        self._number = 0

    @property
    def info(self) -> PolicyInfo:
        """Of the server's policy. Connects if it must. Raises RobotError."""
        if self._info is None:
            self.connect()
        assert self._info is not None
        return self._info

    def connect(self) -> None:
        """Open a connection if none is open. Raises RobotError: the reason why it cannot be."""
        if self._connection is not None:
            if self._connection.protocol.state.name == "OPEN":
                return
            self.close()
        connection = self._open()
        try:
            self._greet(connection)
        except RobotError:
            connection.close()
            raise
        self._connection = connection

    def predict(
        self, obs: Observed, *, seed: int | None = None, prefix: Prefix | None = None
    ) -> Answer:
        """A chunk of actions; waits for it.

        Args:
            obs: what the policy observes, numbers float (To, D) and pictures uint8 (To, H, W, 3).
            seed: of the policy's noise: the same gives the same chunk. None: noise of its own.
            prefix: for real-time chunking.
        Raises:
            RobotError: no server, a wrong token, observations that do not fit, a connection lost on
                the way, no answer in time, or an answer that makes no sense.
        """
        asked_s = time.monotonic()
        self.connect()
        self._number += 1
        question = pack_question(self._number, obs, self.info, seed, prefix)
        connection = self._connection
        try:
            connection.send(question)
        except (self._errors.ConnectionClosed, OSError) as error:
            raise self._lost(error) from None
        try:
            return self._answer(connection, asked_s)
        except wire.Malformed as error:
            self.close()  # whatever comes next cannot be trusted either
            raise RobotError(
                f"the server at {self._url} sent an answer that makes no sense: {error}"
            ) from None

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def abort(self) -> None:
        """Drop the connection at once, from any thread: whoever waits there waits no more."""
        connection = self._connection
        if connection is not None:
            with suppress(OSError):  # not that of TLS, which another thread may be reading from
                socket.socket.shutdown(connection.socket, socket.SHUT_RDWR)

    def _greet(self, connection: Any) -> None:
        try:
            info = unpack_hello(self._receive(connection, self._connect_within_s))
        except TimeoutError:
            raise RobotError(f"the policy server at {self._url} does not say hello") from None
        except wire.Malformed as error:
            raise RobotError(
                f"what answers at {self._url} is no policy server: {error.message}"
            ) from None
        if self._info is not None and self._info != info:
            raise RobotError(
                f"the server at {self._url} has another policy than before: {info.name}",
                hint="make a new client for it",
            )
        self._info = info

    def _answer(self, connection: Any, asked_s: float) -> Answer:
        until = None if self._answer_within_s is None else asked_s + self._answer_within_s
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                data = self._receive(connection, left)
            except TimeoutError:
                raise RobotError(
                    f"the policy server at {self._url} did not answer within "
                    f"{self._answer_within_s:.1f} s"
                ) from None
            answer = read_answer(data, self._number, self.info, asked_s)
            if answer is not None:  # one to an earlier question came too late
                return answer

    def _receive(self, connection: Any, timeout_s: float | None) -> bytes | str:
        try:
            return connection.recv(timeout=timeout_s)
        except TimeoutError:
            raise
        except (self._errors.ConnectionClosed, OSError) as error:
            raise self._lost(error) from None

    def _lost(self, error: Exception) -> RobotError:
        received = getattr(error, "rcvd", None)
        if received is not None and received.code == TRY_AGAIN_LATER:
            return RobotError(f"the policy server at {self._url} is not free: {received.reason}")
        reason = str(error)[:200]
        return RobotError(
            f"the connection to the policy server at {self._url} was lost: {reason}",
            hint="is it still running? The next question tries to connect again",
        )

    def _open(self) -> Any:
        errors = self._errors
        plain = self._plain_socket()
        try:
            connecting = self._websockets.connect(
                self._url,
                sock=plain,  # our own: no proxy and no redirect ever sees the token
                ssl=self._tls,
                server_hostname=self._host if self._tls else None,
                additional_headers={"Authorization": f"Bearer {self._token}"},
                compression=None,
                proxy=None,
                open_timeout=self._connect_within_s,
                close_timeout=1.0,
                ping_interval=PING_S,
                ping_timeout=PONG_WITHIN_S,
                max_size=wire.MOST_ANSWER_BYTES,
                max_queue=4,
                logger=_quiet,
            )
            return connecting.__enter__()  # the only way to a connection that every version has
        except errors.InvalidStatus as error:
            plain.close()
            raise _refused(error.response, self._url) from None
        except (errors.InvalidHandshake, errors.InvalidMessage, OSError, EOFError) as error:
            plain.close()
            reason = str(error)[:200] or type(error).__name__
            raise RobotError(
                f"no policy server answers at {self._url}: {reason}",
                hint="is it `dp-hub serve-policy` that listens there, and ws:// or wss:// right?",
            ) from None

    def _plain_socket(self) -> socket.socket:
        try:
            plain = socket.create_connection((self._host, self._port), self._connect_within_s)
        except OSError as error:
            raise RobotError(
                f"no policy server at {self._url}: {error}",
                hint="start one with `dp-hub serve-policy POLICY`, and compare host and port",
            ) from None
        plain.settimeout(None)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Or sending to a machine that is gone would wait for many minutes, and closing with it.
        patience = struct.pack("ll", math.ceil(self._answer_within_s or _SEND_WITHIN_S), 0)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        return plain

    def __enter__(self) -> "PolicyClient":
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _refused(response: Any, url: str) -> RobotError:
    """What an answer other than `yes` to the opening of a connection means."""
    body = bytes(response.body or b"")[:300].decode("utf-8", "replace").strip()
    if response.status_code == 401:
        return RobotError(f"the policy server at {url} does not know this token", hint=TOKEN_HINT)
    return RobotError(
        f"what answers at {url} is no policy server: HTTP {response.status_code} {body}"
    )
