"""Plain pages for a person with a browser: what is on this Hub, and what a repository holds."""

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from dp_hub.hub.server.paths import PREFIXES
from dp_hub.hub.server.repository import Repository
from dp_hub.hub.server.request import hub, param, readable, repo_url
from dp_hub.hub.server.store import KINDS

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{white-space:pre-wrap;border:1px solid #888;padding:1rem}td{padding-right:2rem}"
    ":root{color-scheme:light dark}"
)
HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
SHOWN_COMMITS = 20
README_BYTES = 256 << 10


async def home(request: Request) -> Response:
    """The public repositories."""
    parts = []
    for kinds in KINDS:
        found = await run_in_threadpool(hub(request).store.all, kinds)
        links = [_link(repo_url(request, repo), repo.repo_id) for repo in found if not repo.private]
        parts.append(f"<h2>{kinds}</h2>{_list(links)}")
    return _page("dp_hub Hub", "".join(parts))


async def show(request: Request) -> Response:
    """One repository at a revision: versions, history, files, README."""
    repo = readable(request)
    body = await run_in_threadpool(_repository, request, repo, param(request, "revision", "main"))
    return _page(repo.repo_id, body)


def _repository(request: Request, repo: Repository, revision: str) -> str:
    url, sha = repo_url(request, repo), repo.resolve(revision)
    tags = [f"{_link(f'{url}/tree/{quote(tag)}', tag)} {at[:10]}" for tag, at in _tags(repo)]
    history = [
        f"{_link(f'{url}/commit/{at}', at[:10])} {escape(commit.date[:19])} {escape(commit.title)}"
        for at, commit in repo.history(sha)[:SHOWN_COMMITS]
    ]
    files = [
        f"<tr><td>{_link(f'{url}/resolve/{sha}/{quote(path)}', path)}<td>{entry.size:,} bytes"
        for path, entry in repo.tree(sha).items()
    ]
    return (
        f"<p>{repo.kind} at {escape(revision)}, commit <code>{sha}</code></p>"
        f"<pre>dp-hub pull {escape(repo.repo_id)}@{sha}</pre>"
        f"<h2>Versions</h2>{_list(tags)}<h2>History</h2>{_list(history)}"
        f"<h2>Files</h2><table>{''.join(files)}</table>{_readme(repo, sha)}"
    )


def _tags(repo: Repository) -> list[tuple[str, str]]:
    return sorted(repo.refs()["tags"].items())


def _readme(repo: Repository, sha: str) -> str:
    entry = repo.tree(sha).get("README.md")
    if entry is None or entry.size > README_BYTES:
        return ""
    text = repo.objects.path(entry.sha256).read_text("utf-8", "replace")
    return f"<h2>README.md</h2><pre>{escape(text)}</pre>"


def _list(items: Iterable[str]) -> str:
    rows = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{rows}</ul>" if rows else "<p>none yet</p>"


def _link(url: str, text: str) -> str:
    return f'<a href="{escape(url)}">{escape(text)}</a>'


def _page(title: str, body: str) -> Response:
    return HTMLResponse(
        f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>{body}",
        headers=HEADERS,
    )


def _both(path: str) -> list[Route]:
    return [Route(prefix + path, show) for prefix in PREFIXES]


routes = [
    Route("/", home),
    *_both("/{user}/{name}"),
    *_both("/{user}/{name}/tree/{revision}"),
    *_both("/{user}/{name}/commit/{revision}"),
]
