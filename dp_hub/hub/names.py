"""Hub names: ``user/name`` and ``user/name@revision``."""

import re

from dp_hub.errors import HubError

_PART = r"(?![^/@]*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@(.+))?")
_REVISION = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")


def is_hub_name(text: str) -> bool:
    """Whether ``text`` reads as ``user/name[@revision]``; a folder may still be called so."""
    match = _NAME.fullmatch(text)
    return match is not None and (match[2] is None or _REVISION.fullmatch(match[2]) is not None)


def parse_name(text: str) -> tuple[str, str | None]:
    """``(repo_id, revision)``; the revision is None when none is given.

    Raises:
        HubError: ``text`` has another form.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise HubError(
            f"{text!r} is not the name of a dataset or policy on the Hub",
            hint="names have the form user/name or user/name@revision",
        )
    revision = match[2]
    if revision is not None:
        check_revision(revision)
    return match[1], revision


def check_revision(revision: str) -> str:
    """``revision`` itself. Raises HubError if no tag, branch or commit can be called so."""
    if not _REVISION.fullmatch(revision):
        raise HubError(
            f"{revision!r} can't be a revision",
            hint="a revision is a tag (data-v1), a branch (main) or a commit id",
        )
    return revision
