"""A dataset of which only meta/ is fetched; its other files come one by one (filestore.py)."""

from dataclasses import replace
from pathlib import Path

from dp_hub.hub.client import connect, quiet_in_logs
from dp_hub.hub.fetching import into_cache
from dp_hub.hub.lookup import Found, look_up, wanted_files, wanted_kinds
from dp_hub.hub.pulling import one_revision


def pull_meta(name: str, *, revision: str | None = None) -> tuple[Found, Path]:
    """Resolve a dataset's revision to a commit and fetch and check that commit's meta/.

    Returns:
        The commit with the list of all its files, and the folder that holds its meta/.
    Raises:
        HubError: no such dataset or revision, the Hub is away, or a file is damaged.
    """
    repo_id, revision = one_revision(name, revision)
    api = connect()
    with quiet_in_logs():
        found = look_up(api, repo_id, revision or "main", wanted_kinds("dataset"))
        part = replace(found, files=wanted_files(found.files, "meta"), only="meta")
        return found, into_cache(api, part)
