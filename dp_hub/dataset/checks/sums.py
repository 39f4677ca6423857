"""Whether bytes and contents are those that were written: checksums, hashes, fingerprint."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dp_hub.dataset.checks.bounds import Bounds
from dp_hub.dataset.checks.finding import Finding, found, some
from dp_hub.dataset.checks.view import VIDEO_PLACES, View, template_path
from dp_hub.dataset.checksums import PATH, Damage, covered_files, read_checksums, verify
from dp_hub.dataset.content import episodes_fingerprint
from dp_hub.dataset.features import INDEX_DTYPES, Column
from dp_hub.dataset.hashing import EpisodeHash
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip

_CONTENT = ("data/", "meta/", "videos/")


def check_checksums(root: Path, progress: Callable[[int, int], None]) -> list[Finding]:
    """meta/checksums.json against every file it covers."""
    try:
        sums = read_checksums(root)
    except DataError as error:
        return [found("SUM-002", error.message)]
    if sums is None:
        return [found("SUM-003", "there is no meta/checksums.json: damaged bytes may go unseen")]
    names = sorted({*sums, *covered_files(root)})
    damages: list[Damage] = []
    for done, name in enumerate(names, 1):
        try:
            damages += verify(root, sums, only=[name])
        except OSError as error:
            damages.append(Damage(name, f"it cannot be read: {error.strerror or error}"))
        progress(done, len(names))
    if not damages:
        return []
    shown = "; ".join(f"{d.path}: {d.reason}" for d in damages[:3])
    more = f"; and {len(damages) - 3} more" if len(damages) > 3 else ""
    return [found("SUM-001", f"{len(damages)} files are not as they were written: {shown}{more}")]


def damaged_since_pull(root: Path) -> list[str] | None:
    """Files that differ from what the Hub holds, for a folder that remembers where it is from.

    Returns:
        None if the folder remembers nothing, or its memory is damaged.
    """
    from dp_hub.hub import verify_folder

    return verify_folder(root)


def check_pulled(root: Path) -> list[Finding]:
    """A pulled folder against the Hub's checksums."""
    if not (root / ".dp_hub" / "remote.json").exists():
        return []
    differing = damaged_since_pull(root) or []
    content = [name for name in differing if name.startswith(_CONTENT)]
    words = [name for name in differing if name not in content]
    findings = []
    if PATH in content and _as_written(root):
        findings.append(found("SUM-009", f"{len(content)} files are newer than the Hub's"))
    elif content:
        what = f"{len(content)} files are not those of the Hub: {some(content)}"
        findings.append(found("SUM-007", what))
    if words:
        what = f"{some(words)} differ from the Hub's: changed by hand, or damaged"
        findings.append(found("SUM-008", what))
    return findings


def _as_written(root: Path) -> bool:
    """Whether the folder's own checksums hold: then somebody went on with the dataset."""
    try:
        sums = read_checksums(root)
    except DataError:
        return False
    return sums is not None and not verify(root, sums)


@dataclass(frozen=True)
class VideoPart:
    """Where an episode lies in a video: from when to when, in seconds."""

    path: Path
    from_s: float
    to_s: float


def recomputed_sha256(
    columns: Sequence[Column],
    stored: Mapping[str, np.ndarray],
    task: str,
    videos: Mapping[str, VideoPart],
    fps: float,
) -> str | None:
    """The sha256 that an episode's contents give, hex; None if it cannot be had from them.

    Args:
        columns: the dataset's features but the index columns.
        stored: by feature: ``(T, n)`` in its type, or uint8 ``(T, H, W, C)``; no videos.
        task: the task's text.
        videos: by feature of dtype ``video``.
        fps: frames per second.
    """
    if {*stored, *videos} != {column.feature for column in columns} or not stored:
        return None
    length = len(next(iter(stored.values())))
    digest = EpisodeHash(columns, length, task)
    for column in digest.order:
        if column.feature in stored:
            digest.add(stored[column.feature])
            continue
        sha256 = _video_sha256(videos[column.feature], length, fps)
        if sha256 is None:
            return None
        digest.add_video(sha256)
    return digest.hexdigest()


def _video_sha256(part: VideoPart, length: int, fps: float) -> str | None:
    """The hash of an episode's packets; None where they cannot be read one by one."""
    from dp_hub.dataset.packets import NotCopyableError, clips_sha256
    from dp_hub.dataset.video import exact_rate

    rate = exact_rate(fps)
    clip = VideoClip(part.path, round(part.from_s * rate), length, (0, 0), rate, "")
    try:
        return clips_sha256([clip])
    except (NotCopyableError, DataError):
        return None


def content_columns(view: View) -> list[Column]:
    """The features as dp_hub's hashes name them."""
    return [
        Column(f.name, f.name, f.shape, f.dtype, f.dtype, f.shape)
        for f in view.features.values()
        if f.name not in INDEX_DTYPES
    ]


@dataclass
class Hashes:
    """Compares the sha256 of every episode with the one in meta/episodes.

    Attributes:
        view, bounds: the dataset.
        unknown: episodes whose contents could not all be read.
    """

    view: View
    bounds: Bounds
    unknown: int = 0

    def __post_init__(self) -> None:
        self._columns = content_columns(self.view)
        self._wrong: list[int] = []
        self._n = 0

    @property
    def wanted(self) -> bool:
        """Whether there are hashes, and hashes of ours, that can be computed again."""
        ours = "fingerprint" in self.view.provenance.values  # null while it is recorded
        return ours and self.view.episodes.sha256 is not None and not self.view.feature_errors

    def add(self, at: int, stored: Mapping[str, np.ndarray], task: str) -> None:
        """Compare one episode."""
        row = int(self.bounds.row[at])
        hashes = self.view.episodes.sha256
        said = hashes[row] if hashes is not None and row >= 0 else None
        videos = self._videos(row) if row >= 0 else {}
        computed = recomputed_sha256(self._columns, stored, task, videos, self.view.fps or 0.0)
        if computed is None or said is None:
            self.unknown += 1
            return
        self._n += 1
        if computed != said:
            self._wrong.append(int(self.bounds.number[at]))

    def _videos(self, row: int) -> dict[str, VideoPart]:
        """The places of one episode that meta/episodes tells."""
        parts = {}
        values = self.view.episodes.values
        for feature in self.view.videos:
            at = [values.get(f"videos/{feature.name}/{place}") for place in VIDEO_PLACES]
            numbers = [float(column[row]) for column in at if column is not None]
            if len(numbers) < len(VIDEO_PLACES) or not np.isfinite(numbers).all():
                continue
            chunk, file = int(numbers[0]), int(numbers[1])
            path = template_path(self.view, "video", chunk, file, feature.name)
            if path is not None:
                parts[feature.name] = VideoPart(path, numbers[2], numbers[3])
        return parts

    def findings(self) -> list[Finding]:
        """Episodes that are not what was written, and the fingerprint."""
        if not self.wanted:
            return []
        findings = []
        if self._wrong:
            what = f"{len(self._wrong)} of {self._n} episodes are not those that were hashed"
            findings.append(found("SUM-005", what, self._wrong))
        if self.unknown:
            what = f"the sha256 of {self.unknown} episodes could not be computed again"
            findings.append(found("SUM-006", what))
        hashes = self.view.episodes.sha256 or []
        stored = self.view.provenance.values.get("fingerprint")
        numbers = self.view.episodes.ints("episode_index")
        ordered = numbers is None or np.array_equal(numbers, np.arange(len(numbers)))
        known = stored is not None and self.view.fps is not None and ordered
        if known and not self._holds(str(stored), hashes):
            what = "the fingerprint in meta/dp_hub.json is not that of the episodes"
            findings.append(found("SUM-004", what))
        return findings

    def _holds(self, stored: str, hashes: Sequence[str | None]) -> bool:
        features = self.view.features.values()
        try:
            texts = [text or "" for text in hashes]
            return episodes_fingerprint(features, self.view.fps or 0.0, texts) == stored
        except (TypeError, AttributeError):  # something else than texts
            return False
