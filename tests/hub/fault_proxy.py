"""A proxy in front of a Hub that breaks what passes through it, as networks and servers do.

It carries one request per connection, by plain bytes: what the client sends reaches the Hub as it
is, but for the faults that a test asks for.
"""

import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO
from urllib.parse import urlsplit

PIECE = 1 << 16


@dataclass
class Fault:
    """What to do to the next ``times`` requests whose ``METHOD path`` matches ``where``.

    Attributes:
        answer: a status given without asking the Hub.
        cut_request: close after so many bytes of the request's body.
        lose_answer: let the Hub do it, then close without a word.
        cut_answer: close after so many bytes of the answer's body.
        flip: invert a bit of this byte of the answer's body.
        wait_s: wait before anything is answered.
        headers: sent with ``answer``.
    """

    where: str
    times: int = 1
    answer: int | None = None
    cut_request: int | None = None
    lose_answer: bool = False
    cut_answer: int | None = None
    flip: int | None = None
    wait_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A request that came by. ``sent`` counts the bytes of its body that got here."""

    line: str
    sent: int


class FaultProxy:
    """A Hub's address that can be told to misbehave.

    >>> with FaultProxy(hub.endpoint) as proxy:
    ...     proxy.add(Fault("POST .*/commit/", answer=503))
    """

    def __init__(self, upstream: str, *, bytes_per_s: float | None = None) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None and parts.port is not None
        self.upstream = (parts.hostname, parts.port)
        self.bytes_per_s = bytes_per_s
        self.started: list[str] = []
        self.seen: list[Seen] = []
        self._faults: list[Fault] = []
        self._hits = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultProxy":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """No faults from here on."""
        with self._lock:
            self._faults.clear()

    def take(self, line: str) -> Fault | None:
        """The fault that this request is to meet."""
        with self._lock:
            self.started.append(line)
            for fault in self._faults:
                if fault.times > 0 and re.search(fault.where, line):
                    fault.times -= 1
                    self._hits += 1
                    return fault
        return None

    def record(self, seen: Seen) -> None:
        with self._lock:
            self.seen.append(seen)

    def hit(self) -> int:
        """How many requests have met a fault."""
        with self._lock:
            return self._hits


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: FaultProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is no news."""


class _Cut(Exception):
    """The connection ends here."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server
    connection: socket.socket

    def handle(self) -> None:
        head = _read_head(self.rfile)
        if not head:
            return
        line = " ".join(head[0].decode("latin-1").split()[:2])
        fault = self.server.proxy.take(line)
        sent = [0]
        try:
            if fault is not None and fault.answer is not None:
                self._answer(fault, head)
            else:
                self._pass_on(head, fault, sent)
        except (_Cut, OSError):
            _reset(self.connection)
        finally:
            self.server.proxy.record(Seen(line, sent[0]))

    def _answer(self, fault: Fault, head: list[bytes]) -> None:
        time.sleep(fault.wait_s)
        for _ in _body(self.rfile, head):
            pass
        rows = "".join(f"{key}: {value}\r\n" for key, value in fault.headers.items())
        text = (
            f"HTTP/1.1 {fault.answer} Fault\r\n{rows}Connection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.connection.sendall(text.encode())

    def _pass_on(self, head: list[bytes], fault: Fault | None, sent: list[int]) -> None:
        with socket.create_connection(self.server.proxy.upstream) as hub:
            hub.sendall(_with_close(head))
            for raw, size in _body(self.rfile, head):
                sent[0] += size
                self._throttle(size)
                if sent[0] > _limit(fault.cut_request if fault else None):
                    raise _Cut
                hub.sendall(raw)
            self._pass_back(hub.makefile("rb"), fault)

    def _pass_back(self, answer: BinaryIO, fault: Fault | None) -> None:
        head = _read_head(answer)
        if fault is not None:
            time.sleep(fault.wait_s)
            if fault.lose_answer:
                raise _Cut
        self.connection.sendall(_with_close(head))
        done = 0
        while piece := answer.read1(PIECE):
            self._throttle(len(piece))
            if fault is not None and fault.flip is not None:
                piece = _flipped(piece, fault.flip - done)
            limit = _limit(fault.cut_answer if fault else None)
            if done + len(piece) >= limit:
                self.connection.sendall(piece[: int(limit) - done])
                raise _Cut
            self.connection.sendall(piece)
            done += len(piece)

    def _throttle(self, n_bytes: int) -> None:
        if self.server.proxy.bytes_per_s is not None:
            time.sleep(n_bytes / self.server.proxy.bytes_per_s)


def _limit(n_bytes: int | None) -> float:
    return float("inf") if n_bytes is None else n_bytes


def _read_head(stream: BinaryIO) -> list[bytes]:
    """The lines of a request's or an answer's head, without the empty one."""
    lines = []
    while (line := stream.readline(PIECE)) not in (b"\r\n", b""):
        lines.append(line)
    return lines


def _with_close(head: list[bytes]) -> bytes:
    kept = [line for line in head if not line.lower().startswith(b"connection:")]
    return b"".join([*kept, b"Connection: close\r\n", b"\r\n"])


def _body(stream: BinaryIO, head: list[bytes]) -> Iterator[tuple[bytes, int]]:
    """The body as it lies on the wire, in pieces, each with its number of content bytes."""
    fields = {
        key.strip().lower(): value.strip().lower()
        for key, _, value in (line.partition(b":") for line in head[1:])
    }
    if fields.get(b"transfer-encoding") == b"chunked":
        while True:
            start = stream.readline(PIECE)
            size = int(start.split(b";")[0], 16)
            yield start + stream.read(size + 2), size
            if size == 0:
                return
    left = int(fields.get(b"content-length", b"0"))
    while left > 0:
        piece = stream.read(min(PIECE, left))
        if not piece:
            raise _Cut
        left -= len(piece)
        yield piece, len(piece)


def _flipped(piece: bytes, at: int) -> bytes:
    if not 0 <= at < len(piece):
        return piece
    return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]


def _reset(connection: socket.socket) -> None:
    """Close so that the other side sees a broken connection rather than an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
