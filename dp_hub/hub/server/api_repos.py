"""Endpoints about whole repositories: who am I, create, delete, describe, list."""

from typing import Any

import yaml
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dp_hub.hub.server.faults import Fault, repo_not_found
from dp_hub.hub.server.paths import KINDS, REPO
from dp_hub.hub.server.repository import Repository, Tree, lfs_pointer
from dp_hub.hub.server.request import (
    caller,
    hub,
    param,
    read_json,
    readable,
    repo_kinds,
    repo_url,
    require_owner,
    text_field,
    writable,
)


async def whoami(request: Request) -> Response:
    who = caller(request)
    if who is None:
        raise Fault(401, "a token is needed: set HF_TOKEN")
    access = {"displayName": who, "role": "write"}
    user = {"type": "user", "id": who, "name": who, "fullname": who, "orgs": [], "isPro": False}
    return JSONResponse({**user, "auth": {"type": "access_token", "accessToken": access}})


async def create(request: Request) -> Response:
    body = await read_json(request)
    kinds, user, name = _named(request, body)
    require_owner(caller(request), user)
    private = body.get("visibility") == "private" or body.get("private") is True
    try:
        repo = await run_in_threadpool(
            hub(request).store.create, kinds, user, name, private=private
        )
    except Fault as fault:
        if fault.status != 409:
            raise
        # exist_ok reads the address from the refusal.
        prefix = "datasets/" if kinds == "datasets" else ""
        url = f"{request.base_url}{prefix}{user}/{name}"
        return JSONResponse({"error": fault.message, "url": url}, 409)
    return JSONResponse({"url": repo_url(request, repo), "name": repo.repo_id, "id": repo.repo_id})


async def delete(request: Request) -> Response:
    kinds, user, name = _named(request, await read_json(request))
    who = require_owner(caller(request), user)
    repo = hub(request).store.find(kinds, user, name)
    if repo is None:
        raise repo_not_found(kinds, f"{who}/{name}", anonymous=False)
    await run_in_threadpool(hub(request).store.delete, repo)
    return JSONResponse({})


async def settings(request: Request) -> Response:
    repo, _ = writable(request)
    body = await read_json(request)
    if "visibility" in body or "private" in body:
        private = body.get("visibility") == "private" or body.get("private") is True
        await run_in_threadpool(repo.set_private, private)
    return JSONResponse({"private": repo.private})


async def describe(request: Request) -> Response:
    repo = readable(request)
    return JSONResponse(await run_in_threadpool(_facts, request, repo))


async def listing(request: Request) -> Response:
    who, author = caller(request), request.query_params.get("author")
    found = await run_in_threadpool(hub(request).store.all, repo_kinds(request))
    shown = [
        {"id": repo.repo_id, "author": repo.namespace, "private": repo.private}
        for repo in found
        if author in (None, repo.namespace) and (not repo.private or who == repo.namespace)
    ]
    return JSONResponse(shown)


async def validate_yaml(request: Request) -> Response:
    text = text_field(await read_json(request), "content")
    if not text.startswith("---\n"):
        return JSONResponse({"errors": [], "warnings": []})
    try:
        front = yaml.safe_load(text[4:].partition("\n---")[0])
        problem = None if isinstance(front, dict | None) else "the front matter is not a mapping"
    except yaml.YAMLError as error:
        problem = str(error)
    except RecursionError:
        problem = "the front matter is too deep"
    errors = [] if problem is None else [{"message": problem}]
    return JSONResponse({"errors": errors, "warnings": []}, 400 if errors else 200)


def _named(request: Request, body: dict[str, Any]) -> tuple[str, str, str]:
    kinds = f"{body.get('type') or 'model'}s"
    if kinds not in ("datasets", "models"):
        raise Fault(400, f"this Hub keeps datasets and models, no {kinds}")
    who = require_owner(caller(request), str(body.get("organization") or caller(request)))
    return kinds, who, text_field(body, "name")


def _facts(request: Request, repo: Repository) -> dict[str, Any]:
    sha = repo.resolve(param(request, "revision", "main"))
    commit, tree = repo.read_commit(sha), repo.tree(sha)
    blobs = request.query_params.get("blobs", "").lower() in ("1", "true")
    return {
        "_id": sha[:24],
        "id": repo.repo_id,
        "author": repo.namespace,
        "sha": sha,
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "createdAt": repo.facts["created"],
        "lastModified": commit.date,
        "siblings": _siblings(tree, blobs=blobs),
    }


def _siblings(tree: Tree, *, blobs: bool) -> list[dict[str, Any]]:
    rows = []
    for path, entry in tree.items():
        row: dict[str, Any] = {"rfilename": path}
        if blobs:
            row |= {"size": entry.size, "blobId": entry.oid}
        if blobs and entry.lfs:
            pointer = len(lfs_pointer(entry.sha256, entry.size))
            row["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": pointer}
        rows.append(row)
    return rows


routes = [
    Route("/api/whoami-v2", whoami),
    Route("/api/validate-yaml", validate_yaml, methods=["POST"]),
    Route("/api/repos/create", create, methods=["POST"]),
    Route("/api/repos/delete", delete, methods=["DELETE"]),
    Route(KINDS, listing),
    Route(REPO, describe),
    Route(f"{REPO}/revision/{{revision}}", describe),
    Route(f"{REPO}/settings", settings, methods=["PUT"]),
]
