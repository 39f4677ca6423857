"""Where the meta/ of a dataset is: in a folder, or fetched for a name on the Hub."""

import logging
from dataclasses import dataclass
from pathlib import Path

from dp_hub.errors import DataError, HubError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Located:
    """A folder with a dataset's meta/, and which version on a Hub it is.

    Attributes:
        folder: holds meta/; the rest of the dataset need not be there.
        repo_id: its name on the Hub; None for a folder that never was on one.
        sha: the commit, 40 hex digits.
        tag: the ``data-vN`` of that commit, if it has one.
    """

    folder: Path
    repo_id: str | None = None
    sha: str | None = None
    tag: str | None = None


def meta_folder(name_or_dir: str | Path) -> Located:
    """Find meta/ of a folder, or of ``user/name[@revision]`` on the Hub.

    Raises:
        DataError: neither a folder with a dataset nor a name on the Hub.
        HubError: the Hub has no such dataset or revision.
    """
    path = Path(name_or_dir).expanduser()
    if path.is_dir():
        if not (path / "meta" / "info.json").is_file():
            raise DataError(
                f"{path} is not a dataset: it has no meta/info.json",
                hint="give the folder that holds meta/ and data/; `dp-hub convert` makes one",
            )
        return _remembered(path)
    from dp_hub.hub import is_hub_name

    if isinstance(name_or_dir, Path) or not is_hub_name(name_or_dir):
        raise DataError(
            f"there is no folder {name_or_dir}, and it is not a name on the Hub",
            hint="a name on the Hub looks like user/name or user/name@revision",
        )
    return _fetched(name_or_dir)


def _fetched(name: str) -> Located:
    from dp_hub.hub import parse_name, pull
    from dp_hub.hub.client import no_folder
    from dp_hub.hub.remote import DATA_TAG

    with no_folder(name):
        pulled = pull(name, only="meta")
    revision = parse_name(name)[1] or "main"
    tag = revision if DATA_TAG.fullmatch(revision) else _tag_of(pulled.repo_id, pulled.sha)
    return Located(pulled.path, pulled.repo_id, pulled.sha, tag)


def _tag_of(repo_id: str, sha: str) -> str | None:
    """The newest ``data-vN`` on a commit; None if there is none, or the Hub cannot be asked."""
    from dp_hub.hub.client import connect, explained
    from dp_hub.hub.remote import DATA_TAG

    try:
        with explained(repo_id):
            tags = connect().list_repo_refs(repo_id, repo_type="dataset").tags
    except HubError:
        return None
    found = [int(match[1]) for ref in tags
             if ref.target_commit == sha and (match := DATA_TAG.fullmatch(ref.name))]  # fmt: skip
    return f"data-v{max(found)}" if found else None


def _remembered(folder: Path) -> Located:
    """What a folder that was pulled or pushed says of where it belongs."""
    from dp_hub.hub.origin import origin_of

    try:
        origin = origin_of(folder)
    except HubError as damage:
        log.warning("%s", damage.message)
        origin = None
    if origin is None or origin.kind != "dataset":
        return Located(folder)
    return Located(folder, origin.repo_id, origin.sha, origin.tag)
