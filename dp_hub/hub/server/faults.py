"""What the server answers when it refuses: a status, the Hub's error code, and a sentence."""

import errno

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class Fault(Exception):
    """A refusal. ``code`` goes into X-Error-Code, which decides the client's exception class."""

    def __init__(self, status: int, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers: dict[str, str] = {}


def repo_not_found(kind: str, repo_id: str, *, anonymous: bool) -> Fault:
    """Missing, or private and not the caller's: one answer for both, so that names don't leak."""
    # The Hub says 401 to people without a token; on http:// the client needs the code as well.
    return Fault(401 if anonymous else 404, f"no {kind} {repo_id} here", code="RepoNotFound")


def revision_not_found(repo_id: str, revision: str) -> Fault:
    return Fault(404, f"{repo_id} has no revision {revision}", code="RevisionNotFound")


def entry_not_found(repo_id: str, path: str) -> Fault:
    return Fault(404, f"{repo_id} has no file {path}", code="EntryNotFound")


async def answer(_request: Request, fault: Exception) -> Response:
    """The HTTP answer for a Fault (an exception handler of the app)."""
    assert isinstance(fault, Fault)
    # A header holds one line of plain characters; the JSON body has the text whole.
    line = "".join(char if " " <= char <= "~" else "?" for char in fault.message)
    headers = {**fault.headers, "X-Error-Message": line}
    if fault.code is not None:
        headers["X-Error-Code"] = fault.code
    return JSONResponse({"error": fault.message}, fault.status, headers)


async def disk_answer(request: Request, error: Exception) -> Response:
    """The HTTP answer for an OSError (an exception handler of the app)."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return await answer(request, Fault(507, "the Hub's disk is full"))
    raise error
