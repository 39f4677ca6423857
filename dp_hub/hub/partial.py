"""A dataset of which only meta/ is fetched; its other files come one by one (filestore.py)."""

from pathlib import Path

from dp_hub.hub.client import connect, explained
from dp_hub.hub.digests import damaged
from dp_hub.hub.kinds import REPO_TYPE
from dp_hub.hub.pulling import Found, _look_up, _mend, _one_revision

META = "meta/"


def pull_meta(name: str, *, revision: str | None = None) -> tuple[Found, Path]:
    """Resolve a dataset's revision to a commit and fetch and check that commit's meta/.

    Returns:
        The commit with the list of all its files, and the folder that holds its meta/.
    Raises:
        HubError: no such dataset or revision, the Hub is away, or a file is damaged.
    """
    repo_id, revision = _one_revision(name, revision)
    api = connect()
    found = _look_up(api, repo_id, revision or "main", "dataset")
    with explained(repo_id):
        path = api.snapshot_download(
            repo_id,
            repo_type=REPO_TYPE[found.kind],
            revision=found.sha,
            allow_patterns=[f"{META}*"],
            local_files_only=not found.online,
        )
    folder = Path(str(path))
    bad = damaged(folder, [file for file in found.files if file.path.startswith(META)])
    if bad:
        _mend(api, found, folder, bad)
    return found, folder
