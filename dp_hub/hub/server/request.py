"""What handlers ask of a request: the caller, the repository, the body within bounds."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, unquote

from starlette.requests import Request

from dp_hub.hub.server.faults import Fault, repo_not_found
from dp_hub.hub.server.repository import Repository
from dp_hub.hub.server.store import KINDS, Store
from dp_hub.hub.server.tokens import Tokens

MAX_JSON_BYTES = 16 << 20
MAX_LINE_BYTES = 32 << 20
MAX_COMMIT_BYTES = 1 << 30


@dataclass(frozen=True)
class Hub:
    """What every handler works on."""

    store: Store
    tokens: Tokens
    max_object_bytes: int


def hub(request: Request) -> Hub:
    return cast(Hub, request.app.state.hub)


def param(request: Request, name: str, default: str = "") -> str:
    """A part of the path, decoded. Routes match the raw path, so that %2F stays within a part."""
    return unquote(str(request.path_params.get(name, default)))


def caller(request: Request) -> str | None:
    """The user whose token came along; None without one.

    Raises:
        Fault: 401, the token is nobody's.
    """
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    user = hub(request).tokens.user(token.strip()) if scheme.lower() == "bearer" else None
    if user is None:
        # These very words make the client say "bad token" and not "no such repository".
        raise Fault(401, "Invalid credentials in Authorization header")
    return user


def repo_kinds(request: Request) -> str:
    """ "datasets" or "models", from the path; file addresses of models have no prefix."""
    return str(request.path_params.get("kinds", "models"))


def readable(request: Request) -> Repository:
    """The repository that the path names. Raises Fault: missing, or private and foreign."""
    kinds, user, name = repo_kinds(request), param(request, "user"), param(request, "name")
    who = caller(request)
    repo = hub(request).store.find(kinds, user, name)
    if repo is None or (repo.private and who != repo.namespace):
        kind = KINDS.get(kinds, "repository")
        raise repo_not_found(kind, f"{user}/{name}", anonymous=who is None)
    return repo


def writable(request: Request) -> tuple[Repository, str]:
    """The repository and the caller, its owner. Raises Fault: 401 or 403 for anyone else."""
    repo, who = readable(request), caller(request)
    return repo, require_owner(who, repo.namespace)


def require_owner(who: str | None, namespace: str) -> str:
    """``who`` if the namespace is theirs."""
    if who is None:
        raise Fault(401, "a token is needed to write: set HF_TOKEN")
    if who != namespace:
        raise Fault(403, f"{who} may not write to {namespace}/, only to {who}/")
    return who


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object in the body. Raises Fault: 400, or 413 when it is too long."""
    body = await read_body(request, MAX_JSON_BYTES)
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise Fault(400, "the body is not JSON, or too deep") from None
    if not isinstance(value, dict):
        raise Fault(400, f"the body is a JSON {type(value).__name__}, not an object")
    return value


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises Fault: 413, longer than ``limit``."""
    announced = whole_number(request.headers.get("content-length"))
    if announced is not None and announced > limit:
        raise Fault(413, f"a body of {announced} bytes; the limit is {limit}")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise Fault(413, f"the body is longer than {limit} bytes")
    return bytes(body)


async def read_lines(request: Request) -> AsyncIterator[dict[str, Any]]:
    """The objects of an ndjson body, one at a time; only one line is in memory.

    Raises:
        Fault: 400 for what isn't JSON, 413 for a line or a body that is too long.
    """
    buffer, looked_at, total = bytearray(), 0, 0
    async for piece in request.stream():
        buffer += piece
        total += len(piece)
        if total > MAX_COMMIT_BYTES:
            raise Fault(413, f"a commit may be {MAX_COMMIT_BYTES} bytes long; use LFS for more")
        while (end := buffer.find(b"\n", looked_at)) >= 0:
            _refuse_long_line(end)
            line, looked_at = bytes(buffer[:end]), 0
            del buffer[: end + 1]
            if line.strip():
                yield _line(line)
        looked_at = len(buffer)
        _refuse_long_line(looked_at)
    if buffer.strip():
        yield _line(bytes(buffer))


def _refuse_long_line(length: int) -> None:
    if length > MAX_LINE_BYTES:
        raise Fault(413, f"a line of a commit may be {MAX_LINE_BYTES} bytes; use LFS for more")


def _line(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Fault(400, "a line of the commit is not JSON, or too deep") from None
    if not isinstance(value, dict) or not isinstance(value.get("value"), dict):
        raise Fault(400, "a line of the commit is not {key, value}")
    return value


def whole_number(text: str | None) -> int | None:
    """The number that ``text`` spells, or None."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text) else None


def text_field(value: dict[str, Any], key: str, default: str | None = None) -> str:
    """A string of a JSON object. Raises Fault: 400, missing or another type."""
    found = value.get(key, default)
    if not isinstance(found, str):
        raise Fault(400, f"{key!r} must be a string, it is {found!r:.80}")
    try:
        found.encode()
    except UnicodeEncodeError:  # no answer could say it again
        raise Fault(400, f"{key!r} holds half a character") from None
    return found


def repo_url(request: Request, repo: Repository) -> str:
    """The address of a repository, as its clients reach it."""
    prefix = "datasets/" if repo.kind == "dataset" else ""
    return f"{request.base_url}{prefix}{quote(repo.repo_id)}"
