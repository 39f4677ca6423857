"""Endpoints about what a repository holds: trees, refs, commits."""

import base64
import binascii
import codecs
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dp_hub.hub.server.faults import Fault, entry_not_found
from dp_hub.hub.server.objects import Staged
from dp_hub.hub.server.paths import REPO
from dp_hub.hub.server.repository import (
    Change,
    Entry,
    RefKind,
    Repository,
    Tree,
    clean_path,
    git_blob_id,
    lfs_entry,
    lfs_pointer,
)
from dp_hub.hub.server.request import (
    MAX_JSON_BYTES,
    param,
    read_body,
    read_json,
    read_lines,
    readable,
    repo_url,
    text_field,
    whole_number,
    writable,
)

PAGE_ROWS = 1000
# Text below this size is stored as git would; all else is LFS.
REGULAR_BYTES = 1 << 20
SHA256_LETTERS = set("0123456789abcdef")


async def tree(request: Request) -> Response:
    repo = readable(request)
    sha, rows = await run_in_threadpool(_tree_rows, request, repo)
    start = whole_number(request.query_params.get("cursor")) or 0
    headers = {}
    if start + PAGE_ROWS < len(rows):
        # The next page is asked of the commit, so that a push in between can't mix two trees.
        inside = quote(param(request, "path"))
        at = f"api/{repo.kind}s/{quote(repo.repo_id)}/tree/{sha}" + (inside and f"/{inside}")
        query = request.url.include_query_params(cursor=start + PAGE_ROWS).query
        headers["Link"] = f'<{request.base_url}{at}?{query}>; rel="next"'
    return JSONResponse(rows[start : start + PAGE_ROWS], headers=headers)


async def paths_info(request: Request) -> Response:
    repo = readable(request)
    form = parse_qs((await read_body(request, MAX_JSON_BYTES)).decode("utf-8", "replace"))
    files = await run_in_threadpool(_files, repo, param(request, "revision"))
    folders = _folders(files)
    rows = [
        _row(path, files[path]) if path in files else _folder_row(path)
        for path in (asked.strip("/") for asked in form.get("paths", []))
        if path in files or path in folders
    ]
    return JSONResponse(rows)


async def refs(request: Request) -> Response:
    found = readable(request).refs()
    prefixes = {"branches": "refs/heads/", "tags": "refs/tags/"}
    answer: dict[str, list[dict[str, str]]] = {"converts": []}
    for which, prefix in prefixes.items():
        answer[which] = [
            {"name": name, "ref": prefix + name, "targetCommit": sha}
            for name, sha in sorted(found[which].items())
        ]
    return JSONResponse(answer)


async def commits(request: Request) -> Response:
    repo = readable(request)
    history = await run_in_threadpool(lambda: repo.history(repo.resolve(_revision(request))))
    rows = [
        {
            "id": sha,
            "title": commit.title,
            "message": commit.message,
            "date": commit.date,
            "authors": [{"user": commit.author}],
        }
        for sha, commit in history
    ]
    return JSONResponse(rows)


async def add_tag(request: Request) -> Response:
    body = await read_json(request)
    return await _add_ref(request, "tags", text_field(body, "tag"), _revision(request))


async def add_branch(request: Request) -> Response:
    start = text_field(await read_json(request), "startingPoint", "main")
    return await _add_ref(request, "branches", param(request, "ref"), start)


async def remove_tag(request: Request) -> Response:
    return await _remove_ref(request, "tags")


async def remove_branch(request: Request) -> Response:
    return await _remove_ref(request, "branches")


async def preupload(request: Request) -> Response:
    """How each file is to be sent, and the digest of what the branch has under its name."""
    repo, _ = writable(request)
    asked = (await read_json(request)).get("files")
    if not isinstance(asked, list) or not all(isinstance(file, dict) for file in asked):
        raise Fault(400, "'files' must be a list of objects")
    known = await run_in_threadpool(_files, repo, param(request, "revision"))
    return JSONResponse({"files": [_upload_mode(file, known) for file in asked]})


async def commit(request: Request) -> Response:
    repo, user = writable(request)
    header: dict[str, Any] = {}
    changes: list[Change] = []
    staged: list[Staged] = []
    try:
        async for line in read_lines(request):
            if line.get("key") == "header":
                header = line["value"]
            else:
                changes.append(await run_in_threadpool(_change, repo, line, staged))
        await run_in_threadpool(repo.objects.settle, staged)
        sha = await run_in_threadpool(
            repo.commit,
            param(request, "revision"),
            changes,
            title=text_field(header, "summary"),
            message=text_field(header, "description", ""),
            user=user,
            parent=_parent(header),
        )
    finally:
        for item in staged:
            item.discard()
    url = f"{repo_url(request, repo)}/commit/{sha}"
    return JSONResponse({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})


def _parent(header: dict[str, Any]) -> str | None:
    if header.get("parentCommit") is None:
        return None
    parent = text_field(header, "parentCommit").lower()
    if len(parent) < 7:
        raise Fault(400, "parentCommit needs at least 7 characters")
    return parent


def _change(repo: Repository, line: dict[str, Any], staged: list[Staged]) -> Change:
    """One line of a commit. The content of a regular file is staged, not kept in memory."""
    key, value = line.get("key"), line["value"]
    if key == "deletedFolder":
        return Change(clean_path(text_field(value, "path").rstrip("/")), None, folder=True)
    path = clean_path(text_field(value, "path"))
    if key == "deletedFile":
        return Change(path, None)
    if key == "file":
        data = _regular_content(value, path)
        staged.append(repo.objects.stage(data))
        return Change(path, Entry(staged[-1].sha256, len(data), git_blob_id(data), lfs=False))
    if key == "lfsFile":
        return Change(path, _lfs_entry(repo, value, path))
    raise Fault(400, f"a commit can't have a line of kind {key!r:.80}")


def _regular_content(value: dict[str, Any], path: str) -> bytes:
    content = text_field(value, "content")
    if value.get("encoding") != "base64":
        return content.encode()
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        raise Fault(400, f"the content of {path} is not base64") from None


def _lfs_entry(repo: Repository, value: dict[str, Any], path: str) -> Entry:
    sha256 = text_field(value, "oid")
    if len(sha256) != 64 or not SHA256_LETTERS.issuperset(sha256):
        raise Fault(400, f"{sha256!r:.80} is not a sha256")
    size = repo.objects.size(sha256)
    if size is None:
        raise Fault(400, f"the content of {path} has not been uploaded")
    if value.get("size", size) != size:
        raise Fault(400, f"{path} has {size} bytes here, not {value['size']}")
    return lfs_entry(sha256, size)


def _upload_mode(file: dict[str, Any], known: Tree) -> dict[str, Any]:
    path, size = clean_path(text_field(file, "path")), file.get("size", 0)
    try:
        sample = base64.b64decode(text_field(file, "sample", ""), validate=True)
    except binascii.Error:
        raise Fault(400, f"the sample of {path} is not base64") from None
    lfs = not isinstance(size, int) or size >= REGULAR_BYTES or _is_binary(sample)
    answer = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
    entry = known.get(path)
    if entry is not None and entry.lfs == lfs:
        answer["oid"] = entry.etag
    return answer


def _is_binary(sample: bytes) -> bool:
    """Whether the first bytes of a file are no text. They may end inside a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return True
    return b"\0" in sample


def _revision(request: Request) -> str:
    return param(request, "revision", "main")


def _files(repo: Repository, revision: str) -> Tree:
    return repo.tree(repo.resolve(revision))


def _tree_rows(request: Request, repo: Repository) -> tuple[str, list[dict[str, Any]]]:
    """The commit id and the rows below the asked path: all of them, or one level."""
    sha = repo.resolve(_revision(request))
    files, inside = repo.tree(sha), param(request, "path").strip("/")
    start = f"{inside}/" if inside else ""
    below = {path: entry for path, entry in files.items() if path.startswith(start)}
    if inside and not below:
        raise entry_not_found(repo.repo_id, inside)
    folders = [folder for folder in _folders(below) if folder.startswith(start)]
    rows = [_folder_row(folder) for folder in folders]
    rows += [_row(path, entry) for path, entry in below.items()]
    if request.query_params.get("recursive", "").lower() not in ("1", "true"):
        rows = [row for row in rows if "/" not in row["path"][len(start) :]]
    return sha, sorted(rows, key=lambda row: str(row["path"]))


def _folders(paths: Iterable[str]) -> set[str]:
    parents: set[str] = set()
    for path in paths:
        parts = path.split("/")
        parents.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return parents


def _folder_row(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": git_blob_id(path.encode()), "size": 0, "path": path}


def _row(path: str, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.lfs:
        pointer = len(lfs_pointer(entry.sha256, entry.size))
        row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": pointer}
    return row


async def _add_ref(request: Request, which: RefKind, name: str, revision: str) -> Response:
    repo, _ = writable(request)
    await run_in_threadpool(repo.add_ref, which, name, revision)
    return JSONResponse({})


async def _remove_ref(request: Request, which: RefKind) -> Response:
    repo, _ = writable(request)
    await run_in_threadpool(repo.remove_ref, which, param(request, "ref"))
    return JSONResponse({})


routes = [
    Route(f"{REPO}/tree/{{revision}}", tree),
    Route(f"{REPO}/tree/{{revision}}/{{path:path}}", tree),
    Route(f"{REPO}/paths-info/{{revision}}", paths_info, methods=["POST"]),
    Route(f"{REPO}/refs", refs),
    Route(f"{REPO}/commits/{{revision}}", commits),
    Route(f"{REPO}/tag/{{revision}}", add_tag, methods=["POST"]),
    Route(f"{REPO}/tag/{{ref}}", remove_tag, methods=["DELETE"]),
    Route(f"{REPO}/branch/{{ref}}", add_branch, methods=["POST"]),
    Route(f"{REPO}/branch/{{ref}}", remove_branch, methods=["DELETE"]),
    Route(f"{REPO}/preupload/{{revision}}", preupload, methods=["POST"]),
    Route(f"{REPO}/commit/{{revision}}", commit, methods=["POST"]),
]
