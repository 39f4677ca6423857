"""Reading files: ``/user/name/resolve/revision/path`` with ranges and digests."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from dp_hub.hub.server.faults import Fault, entry_not_found
from dp_hub.hub.server.paths import PREFIXES
from dp_hub.hub.server.repository import Entry, Repository
from dp_hub.hub.server.request import param, readable


class Content(FileResponse):
    """A file in pieces of 1 MiB."""

    chunk_size = 1 << 20


async def resolve(request: Request) -> Response:
    repo = readable(request)
    path, revision = param(request, "path"), param(request, "revision")
    sha, entry = await run_in_threadpool(_find, repo, revision, path)
    if entry is None:
        fault = entry_not_found(repo.repo_id, path)
        fault.headers["X-Repo-Commit"] = sha  # lets clients remember that it isn't there
        raise fault
    if repo.objects.size(entry.sha256) != entry.size:
        raise Fault(500, f"{path} of {repo.repo_id} is damaged on the Hub's disk")
    headers = {
        "X-Repo-Commit": sha,
        "ETag": f'"{entry.etag}"',
        "X-Linked-Etag": f'"{entry.etag}"',
        "X-Linked-Size": str(entry.size),
        # What people push must not run in the browser of who looks at it.
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    media = "application/octet-stream" if entry.lfs else "text/plain; charset=utf-8"
    return Content(repo.objects.path(entry.sha256), headers=headers, media_type=media)


def _find(repo: Repository, revision: str, path: str) -> tuple[str, Entry | None]:
    sha = repo.resolve(revision)
    return sha, repo.tree(sha).get(path)


PATH = "/{user}/{name}/resolve/{revision}/{path:path}"
routes = [Route(prefix + PATH, resolve) for prefix in PREFIXES]
