"""Fetching the files of a commit, into the Hugging Face cache or a folder, until they are right."""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp_hub.errors import HubError
from dp_hub.hub.client import Unreachable, explained
from dp_hub.hub.digests import Known, damaged
from dp_hub.hub.kinds import REPO_TYPE
from dp_hub.hub.lookup import NOT_OURS, PATTERNS, Found, ref_in_cache

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)
WAITS_S = (1.0, 2.0, 4.0)


def into_cache(api: "HfApi", found: Found) -> Path:
    """The snapshot folder of the Hugging Face cache, with all wanted files right.

    Raises:
        HubError: the Hub is away, or what it sends is not what it lists.
    """
    if not found.online:
        folder = cache_folder(found)
        bad = damaged(folder, found.files)
        if bad:
            log.warning("%s in the cache is damaged; fetching it again", listed(bad))
            _fetch_again(api, found, folder, bad)
        return folder
    # Fetching a part by the revision's name would move the cache's note of that name, and what is
    # whole there would no longer be found without a connection.
    part_of_known = found.only is not None and ref_in_cache(found)
    folder = _download(api, found, found.sha if part_of_known else found.revision)
    if folder.name != found.sha:  # the revision has moved since it was looked up
        folder = _download(api, found, found.sha)
    bad = damaged(folder, found.files)
    if bad:
        _fetch_again(api, found, folder, bad)
    return folder


def into_folder(api: "HfApi", found: Found, folder: Path) -> None:
    """All files of the commit into ``folder``; those that are there and right are kept."""
    if found.online:
        _download(api, found, found.sha, into=folder)
    else:
        _copy_cached(found, folder, found.files)
    bad = damaged(folder, found.files)
    if bad:
        _fetch_again(api, found, folder, bad, into=folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's notes


def some_into_folder(api: "HfApi", found: Found, folder: Path, files: Sequence[Known]) -> None:
    """Some files of the commit into ``folder``: from the cache if they are right there."""
    _copy_cached(found, folder, files)
    bad = damaged(folder, files)
    if bad:
        _fetch_again(api, found, folder, bad, into=folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def cache_folder(found: Found) -> Path:
    """The snapshot folder of a commit that is in the cache."""
    from huggingface_hub import snapshot_download

    path = snapshot_download(
        found.repo_id,
        repo_type=REPO_TYPE[found.kind],
        revision=found.sha,
        local_files_only=True,
        allow_patterns=PATTERNS[found.only],
        ignore_patterns=NOT_OURS,
    )
    return Path(path)


def listed(files: Sequence[Known]) -> str:
    """The first few paths, and how many more."""
    names = ", ".join(file.path for file in files[:3])
    return names if len(files) <= 3 else f"{names} and {len(files) - 3} more files"


def _copy_cached(found: Found, folder: Path, files: Sequence[Known]) -> None:
    from huggingface_hub import try_to_load_from_cache

    for file in files:
        cached = try_to_load_from_cache(
            found.repo_id, file.path, revision=found.sha, repo_type=REPO_TYPE[found.kind]
        )
        if isinstance(cached, str) and not file.holds(folder / file.path):
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cached, target)


def _download(api: "HfApi", found: Found, revision: str, *, into: Path | None = None) -> Path:
    """The library's download, tried again a few times: it gives up on the first broken connection
    or trouble of the Hub, but keeps the files that are whole."""
    for wait_s in WAITS_S:
        try:
            return _download_once(api, found, revision, into)
        except Unreachable as away:
            log.warning("%s; trying again in %g s", away.message, wait_s)
            time.sleep(wait_s)
    return _download_once(api, found, revision, into)


def _download_once(api: "HfApi", found: Found, revision: str, into: Path | None) -> Path:
    with explained(found.repo_id), _closed_bars() as bar:
        path = api.snapshot_download(
            found.repo_id,
            repo_type=REPO_TYPE[found.kind],
            revision=revision,
            local_dir=into,
            allow_patterns=PATTERNS[found.only],
            ignore_patterns=NOT_OURS,
            tqdm_class=bar,
        )
    return Path(str(path))


@contextmanager
def _closed_bars() -> Iterator[type]:
    """A class of progress bars that are closed at the end of the block.

    The library leaves its own open, and they overwrite what is printed after them.
    """
    from huggingface_hub.utils import tqdm

    made: list[tqdm] = []

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    try:
        yield Bar
    finally:
        for bar in reversed(made):
            bar.close()


def _fetch_again(
    api: "HfApi", found: Found, folder: Path, bad: Sequence[Known], *, into: Path | None = None
) -> None:
    """Fetch damaged files once more. Raises HubError if they are no better."""
    try:
        with explained(found.repo_id):
            for file in bad:
                if into is None and not (folder / file.path).is_symlink():
                    # Put in the place of the cache's link, which is made anew only where none is.
                    (folder / file.path).unlink(missing_ok=True)
                api.hf_hub_download(
                    found.repo_id,
                    file.path,
                    repo_type=REPO_TYPE[found.kind],
                    revision=found.sha,
                    local_dir=into,
                    force_download=True,
                )
        still = damaged(folder, bad)
        hint = "the Hub's own copy is damaged, or something on the way changes it"
    except Unreachable as away:
        still, hint = list(bad), f"{away.message}; pull again when it is back"
    if still:
        raise HubError(
            f"{found.repo_id}@{found.sha[:10]}: the checksum of {listed(still)} is wrong",
            hint=hint,
        )
