"""Large files: the LFS batch call, and uploads streamed to the disk."""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dp_hub.hub.server.faults import Fault
from dp_hub.hub.server.paths import PREFIXES
from dp_hub.hub.server.repository import Repository
from dp_hub.hub.server.request import (
    hub,
    param,
    read_json,
    repo_kinds,
    repo_url,
    text_field,
    whole_number,
    writable,
)

PIECE_BYTES = 1 << 20
SHA256_LETTERS = set("0123456789abcdef")


async def batch(request: Request) -> Response:
    """Where to send each object; no ``actions`` for those already here."""
    repo, _ = writable(request)
    body = await read_json(request)
    if body.get("operation") != "upload":
        raise Fault(400, "only uploads go through LFS here; files are read at /resolve/")
    objects = body.get("objects")
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise Fault(400, "'objects' must be a list of objects")
    answers = [_answer(request, repo, item) for item in objects]
    return JSONResponse({"transfer": "basic", "objects": answers})


async def upload(request: Request) -> Response:
    """A body, streamed to the disk; kept if it is the announced one. The link is the permission."""
    repo = _repo_of_link(request)
    sha256, size = param(request, "oid"), int(param(request, "size"))
    announced = whole_number(request.headers.get("content-length"))
    if announced not in (None, size):
        raise Fault(413, f"{announced} bytes announced for an object of {size}")
    with repo.objects.receive() as incoming:
        pending = bytearray()
        async for piece in request.stream():
            pending += piece
            if incoming.size + len(pending) > size:
                raise Fault(413, f"more bytes than the {size} announced")
            if len(pending) >= PIECE_BYTES:
                await run_in_threadpool(incoming.write, bytes(pending))
                pending.clear()
        await run_in_threadpool(incoming.write, bytes(pending))
        await run_in_threadpool(incoming.keep, sha256=sha256, size=size)
    return Response(headers={"ETag": f'"{sha256}"'})


async def verify(request: Request) -> Response:
    repo, _ = writable(request)
    body = await read_json(request)
    sha256 = text_field(body, "oid")
    if not _is_sha256(sha256) or repo.objects.size(sha256) != body.get("size"):
        raise Fault(404, f"{sha256!r:.80} has not arrived whole", code="EntryNotFound")
    return JSONResponse({})


def _answer(request: Request, repo: Repository, item: dict[str, Any]) -> dict[str, Any]:
    sha256, size = text_field(item, "oid"), item.get("size")
    if not _is_sha256(sha256) or not isinstance(size, int) or size < 0:
        raise Fault(400, "each object needs a sha256 'oid' and a 'size'")
    answer: dict[str, Any] = {"oid": sha256, "size": size}
    limit = hub(request).max_object_bytes
    if size > limit:
        error = {"code": 413, "message": f"{size} bytes; the limit of this Hub is {limit}"}
        return {**answer, "error": error}
    if repo.objects.size(sha256) == size:
        return answer
    root = f"{repo_url(request, repo)}.git/info/lfs/objects"
    signature = hub(request).tokens.sign(_permission(repo.kind, repo.repo_id, sha256, size))
    answer["actions"] = {
        "upload": {"href": f"{root}/{sha256}/{size}?signature={signature}"},
        "verify": {"href": f"{root}/verify"},
    }
    return answer


def _repo_of_link(request: Request) -> Repository:
    kinds, user, name = repo_kinds(request), param(request, "user"), param(request, "name")
    text = _permission(kinds[:-1], f"{user}/{name}", param(request, "oid"), param(request, "size"))
    if not hub(request).tokens.signed(text, request.query_params.get("signature", "")):
        raise Fault(403, "this upload link is not valid, or no longer: push again")
    repo = hub(request).store.find(kinds, user, name)
    if repo is None:
        raise Fault(404, f"{user}/{name} is gone", code="RepoNotFound")
    return repo


def _permission(kind: str, repo_id: str, sha256: str, size: int | str) -> str:
    return f"upload {kind} {repo_id} {sha256} {size}"


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and SHA256_LETTERS.issuperset(text)


def _both(path: str, endpoint: Any, method: str) -> list[Route]:
    return [Route(prefix + path, endpoint, methods=[method]) for prefix in PREFIXES]


OBJECTS = "/{user}/{name:hub_git}/info/lfs/objects"
routes = [
    *_both(f"{OBJECTS}/batch", batch, "POST"),
    *_both(f"{OBJECTS}/verify", verify, "POST"),
    *_both(f"{OBJECTS}/{{oid}}/{{size:int}}", upload, "PUT"),
]
