"""New datasets out of old ones: what ``dp-hub edit`` runs.

The sources are only read. What an episode holds is taken over as it is stored, with its hash and
its statistics, wherever the edit does not change it: pictures are not decoded, videos not encoded
again, and files of which nothing changes are shared (hard links where the file system has them).
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.edit_plan import Piece, all_pieces, chosen, split, trimmed, with_tasks
from dp_hub.dataset.features import Column, ImageMode, check_feature_name
from dp_hub.dataset.lock import WriterLock
from dp_hub.dataset.preparing import Preparer, StoredEpisode
from dp_hub.dataset.rehash import Looked, look_again
from dp_hub.dataset.stored_source import LazyPictures, StoredSource
from dp_hub.dataset.tables import frame_schema
from dp_hub.dataset.writer import DatasetWriter, Written, refuse_existing
from dp_hub.errors import DataError
from dp_hub.files import sync_folder
from dp_hub.hub.cards import check_license
from dp_hub.replay.episode import Episode

_NEVER_S = float("inf")


@dataclass(frozen=True)
class Edit:
    """What to change. Episodes are numbered over all sources, one after the other, from 0.

    Args:
        keep, delete: episodes, as ``3,7-9``; at most one of the two.
        trim: ``EPISODE:START:STOP`` each; numbered as before anything is left out.
        tasks: ``TEXT`` or ``EPISODES=TEXT`` each; numbered likewise.
        rename: new names by feature.
        drop: features to leave out.
        images: how pictures are to be stored; None: as they are.
        codec: of videos that are encoded.
        license: identifier of the licence; None: that of the sources, if it is one.
        measure: take all statistics and hashes anew from the stored values.
    """

    keep: str | None = None
    delete: str | None = None
    trim: Sequence[str] = ()
    tasks: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    images: ImageMode | None = None
    codec: str = "h264"
    license: str | None = None
    measure: bool = False


@dataclass(frozen=True)
class Edited:
    """What `edit` made.

    Args:
        unchanged: episodes whose hash is a source's.
        copied: episodes whose content was taken over as it is stored.
        shared_files: files of data and videos that were not written again.
    """

    written: Written
    unchanged: int
    copied: int
    shared_files: int


def edit(
    sources: Sequence[str | Path],
    to: str | Path,
    change: Edit | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Edited:
    """Make a new dataset at ``to`` from one or more.

    Args:
        sources: dataset folders, or names on the Hub; several are put end to end.
        to: the folder to make; refused if it exists.
        change: what to change; nothing by default.
        on_progress: called after every episode with their number and the total.
    Raises:
        DataError: sources that do not fit together (the message is a table of the differences),
            episodes or features that there are not, or ``to`` exists. Nothing is made then.
    """
    change = change or Edit()
    opened = _opened(sources, Path(to), change)
    return _make(opened, _planned(opened, change), Path(to), change, on_progress)


def split_dataset(
    sources: Sequence[str | Path],
    to: str | Path,
    parts: Sequence[str],
    change: Edit | None = None,
    *,
    seed: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Edited]:
    """Make a dataset ``to/NAME`` for each of ``parts`` (see `dp_hub.dataset.edit_plan.split`).

    Args: as `edit`; seed: shares are drawn at random with it, else taken in order.
    """
    change, to = change or Edit(), Path(to)
    opened = _opened(sources, to, change)
    planned = split(_planned(opened, change), parts, seed=seed)
    total, before = sum(map(len, planned.values())), 0
    real = Path(os.path.realpath(to))
    draft = real.with_name(f".{real.name}.parts")
    made: dict[str, Edited] = {}
    lock = WriterLock(real)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        for name, pieces in planned.items():
            made[name] = _make(
                opened, pieces, draft / name, change, _offset(on_progress, before, total)
            )
            before += len(pieces)
        refuse_existing(to)
        draft.rename(real)
        sync_folder(real.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        lock.release()
    return {
        name: replace(one, written=replace(one.written, path=to / name))
        for name, one in made.items()
    }


def _opened(sources: Sequence[str | Path], to: Path, change: Edit) -> list[StoredSource]:
    refuse_existing(to)
    if change.license is not None:
        check_license(change.license)
    opened = [StoredSource(source) for source in sources]
    for source in opened:
        if source.root.resolve() in to.resolve().parents:
            raise DataError(
                f"{to} is inside {source.name}, which is only read",
                hint="choose a folder beside it",
            )
    known = {column.feature for source in opened for column in source.columns}
    for name in [*change.rename, *change.drop]:
        if name not in known:
            raise DataError(
                f"there is no feature {name!r} in {' or '.join(s.name for s in opened)}",
                hint=f"there are: {', '.join(sorted(known))}",
            )
    return opened


def _offset(
    on_progress: Callable[[int, int], None], before: int, total: int
) -> Callable[[int, int], None]:
    return lambda done, _: on_progress(before + done, total)


def _planned(sources: Sequence[StoredSource], change: Edit) -> list[Piece]:
    pieces = all_pieces([source.lengths for source in sources])
    pieces = with_tasks(trimmed(pieces, change.trim), change.tasks)
    left = chosen(pieces, keep=change.keep, delete=change.delete)
    if gone := [p for p in pieces if not p.whole and p not in left]:
        raise DataError(
            f"episode {pieces.index(gone[0])} is to be trimmed and to be left out",
            hint="do one of the two",
        )
    return left


def _make(
    sources: Sequence[StoredSource],
    pieces: Sequence[Piece],
    to: Path,
    change: Edit,
    on_progress: Callable[[int, int], None],
) -> Edited:
    columns = [_kept(source, change) for source in sources]
    _refuse_different(sources, columns)
    columns = [_in_order_of(columns[0], some) for some in columns]
    target = [_stored_as(column, change) for column in columns[0].values()]
    records = [source.record() for source in sources]
    with DatasetWriter(
        to,
        target,
        fps=sources[0].dataset.fps,
        robot_type=_only([source.dataset.info.get("robot_type") for source in sources]),
        source=sources[0].folder.provenance.get("source") if len(sources) == 1 else {},
        sources=_lineage(sources, records),
        license=change.license or _only([record["license"] for record in records]),
        work=to.with_name(f".{to.name}.edit"),
        commit_s=_NEVER_S,
        keep=False,
    ) as writer:  # fmt: skip
        taker = _Taker(sources, columns, target, change, writer)
        unchanged = 0
        for done, episode in enumerate(taker.episodes(pieces), 1):
            unchanged += writer.add_stored(episode) in taker.known_hashes
            on_progress(done, len(pieces))
        written = writer.finish()
    return Edited(written, unchanged, taker.copied, len(taker.shared))


class _Taker:
    """Gives the episodes of the new dataset as files hold them."""

    def __init__(
        self,
        sources: Sequence[StoredSource],
        columns: Sequence[Mapping[str, Column]],
        target: Sequence[Column],
        change: Edit,
        writer: DatasetWriter,
    ) -> None:
        self._sources, self._columns, self._target = sources, columns, list(target)
        self._writer, self._measure = writer, change.measure
        self._pool = ThreadPoolExecutor(thread_name_prefix="edit")
        self._preparer = Preparer(target, fps=writer.fps, pool=self._pool, ahead=8)
        self._same_names = [
            all(old == column.feature for old, column in some.items())
            and len(some) == len(source.columns)
            for source, some in zip(sources, columns, strict=True)
        ]
        self._as_stored = [
            all(
                (old.dtype, old.encoding) == (new.dtype, new.encoding)
                for old, new in zip(_sources_own(source, some), target, strict=True)
            )
            for source, some in zip(sources, columns, strict=True)
        ]
        self.known_hashes = {
            sha256 for source in sources for sha256 in source.dataset.episodes.sha256
        }
        self.shared: set[Path] = set()
        self.copied = 0
        for source in sources:
            writer.known_sums |= source.sums

    def episodes(self, pieces: Sequence[Piece]) -> Iterator[StoredEpisode]:
        """One after the other, as planned."""
        data_files = self._whole_data_files(pieces)
        videos = self._whole_videos(pieces)
        for number, piece in enumerate(pieces):
            if not (piece.whole and self._as_stored[piece.source]):
                yield self._anew(piece, number)
                continue
            self.copied += 1
            stored = self._as_it_is(piece, with_rows=number not in data_files)
            yield replace(
                stored,
                data_file=data_files.get(number),
                video_files={
                    feature: (path, *self._times(piece, feature))
                    for feature, path in videos.get(number, {}).items()
                },
            )
        self._pool.shutdown()

    def _times(self, piece: Piece, feature: str) -> tuple[float, float]:
        source = self._sources[piece.source]
        old = self._old_name(piece.source, feature)
        return source.video_times(old, piece.episode)

    def _old_name(self, source: int, feature: str) -> str:
        return next(old for old, c in self._columns[source].items() if c.feature == feature)

    def _task(self, piece: Piece) -> str:
        own = self._sources[piece.source].dataset.episodes.tasks[piece.episode]
        return own if piece.task is None else piece.task

    def _anew(self, piece: Piece, number: int) -> StoredEpisode:
        """Decode what was stored and store it again."""
        source, columns = self._sources[piece.source], self._columns[piece.source]
        part = slice(piece.start, piece.stop)
        old_columns = {column.feature: column for column in source.columns}
        names = [old for old in columns if old_columns[old].dtype != "video"]
        table = source.frames(piece.episode, names)
        data: dict[str, Any] = {}
        for old, new in zip(columns, self._target, strict=True):
            column = old_columns[old]
            if column.dtype == "video":
                clip = source.clip(column, piece.episode).part(
                    piece.start, piece.stop - piece.start
                )
                data[new.key] = clip
            elif column.dtype == "image":
                encoded = table[old].combine_chunks()[part]
                where = f"{old} of episode {piece.episode} of {source.name}"
                chw = new.layout == "chw"
                data[new.key] = LazyPictures(encoded, column.shape, chw=chw, where=where)
            else:
                data[new.key] = new.to_source(vectors(table[old])[part])
        metadata = source.dataset.episodes.metadata[piece.episode]
        return self._preparer.prepare(Episode(data, self._task(piece), metadata), number)

    def _as_it_is(self, piece: Piece, *, with_rows: bool) -> StoredEpisode:
        """Take over what is stored."""
        source, columns = self._sources[piece.source], self._columns[piece.source]
        episode, index = piece.episode, source.dataset.episodes
        task = self._task(piece)
        sha256 = index.sha256[episode]
        rehash = not self._same_names[piece.source] or task != index.tasks[episode]
        old_columns = {column.feature: column for column in source.columns}
        in_rows = {old: new for old, new in columns.items() if new.dtype != "video"}
        arrays: dict[str, pa.Array] = {}
        if with_rows or rehash or self._measure:
            table = source.frames(episode, list(in_rows))
            arrays = {new.feature: table[old].combine_chunks() for old, new in in_rows.items()}
        clips = {
            new.feature: [source.clip(old_columns[old], episode)]
            for old, new in columns.items()
            if new.dtype == "video"
        }
        length = source.lengths[episode]
        if rehash or self._measure:
            looked = look_again(self._target, length, task, arrays, clips)
            if not rehash and looked.sha256 != sha256:
                raise DataError(
                    f"episode {episode} of {source.name} is not what was written: its hash differs",
                    hint="look at the dataset with dp-hub check, or pull it again",
                )
            sha256 = looked.sha256
        if not self._measure:
            looked = self._known(piece, columns, sha256)
        return StoredEpisode(
            length=length,
            task=task,
            metadata=json.dumps(dict(index.metadata[episode]), sort_keys=True),
            sha256=sha256,
            arrays=arrays,
            clips=clips,
            samples={},
            stats=looked.stats,
            histograms=looked.histograms,
            n_pictures=looked.n_pictures,
        )

    def _known(self, piece: Piece, columns: Mapping[str, Column], sha256: str) -> Looked:
        measured = self._sources[piece.source].measured(piece.episode)
        old_name = {new.feature: old for old, new in columns.items()}
        ordered = [c for c in self._target if not c.is_visual]
        visuals = [c for c in self._target if c.is_visual]
        return Looked(
            sha256=sha256,
            stats=np.concatenate(
                [measured.stats[old_name[c.feature]] for c in [*ordered, *visuals]], axis=1
            ),
            histograms={c.feature: measured.histograms[old_name[c.feature]] for c in visuals},
            n_pictures={c.feature: measured.counts[old_name[c.feature]] for c in visuals},
        )

    def _whole_data_files(self, pieces: Sequence[Piece]) -> dict[int, Path]:
        """By new episode number, the data file that can be taken over: same rows, same numbers."""
        result: dict[int, Path] = {}
        source = self._sources[0]
        if self._measure or not (self._as_stored[0] and self._same_names[0]):
            return result
        task_numbers = self._task_numbers(pieces)
        old_tasks = pq.read_table(source.root / "meta" / "tasks.parquet")["task"].to_pylist()
        schema = frame_schema(self._target)
        number = 0
        while number < len(pieces):
            path = source.data_path(number) if number < len(source.lengths) else None
            stop = number
            while stop < len(pieces) and self._stays(pieces[stop], stop, old_tasks, task_numbers):
                if source.data_path(stop) != path:
                    break
                stop += 1
            following = stop < len(source.lengths) and source.data_path(stop) == path
            if path is None or stop == number or following:
                break
            if not pq.read_schema(path).equals(schema, check_metadata=True):
                break
            result |= dict.fromkeys(range(number, stop), path)
            self.shared.add(path)
            number = stop
        return result

    def _stays(
        self, piece: Piece, number: int, old_tasks: Sequence[str], new_tasks: Sequence[int]
    ) -> bool:
        """Whether the rows of an episode are the same, those of the index columns included."""
        if piece.source != 0 or piece.episode != number or not piece.whole:
            return False
        own = self._sources[0].dataset.episodes.tasks[number]
        return own in old_tasks and old_tasks.index(own) == new_tasks[number]

    def _task_numbers(self, pieces: Sequence[Piece]) -> list[int]:
        numbers: dict[str, int] = {}
        return [numbers.setdefault(self._task(piece), len(numbers)) for piece in pieces]

    def _whole_videos(self, pieces: Sequence[Piece]) -> dict[int, dict[str, Path]]:
        """By new episode number and feature, the video that can be taken over: all its episodes
        are in the new dataset, once and whole."""
        result: dict[int, dict[str, Path]] = {}
        for new in self._target:
            if new.dtype != "video":
                continue
            users: dict[Path, list[int]] = {}
            for number, piece in enumerate(pieces):
                if piece.whole and self._as_stored[piece.source]:
                    old = self._old_name(piece.source, new.feature)
                    path = self._sources[piece.source].video_path(old, piece.episode)
                    users.setdefault(path, []).append(number)
            for path, numbers in users.items():
                piece = pieces[numbers[0]]
                source = self._sources[piece.source]
                old = self._old_name(piece.source, new.feature)
                places = source.dataset.episodes.places[old]
                here = (places.chunk == places.chunk[piece.episode]) & (
                    places.file == places.file[piece.episode]
                )
                if len(set(numbers)) == int(here.sum()):
                    self.shared.add(path)
                    for number in numbers:
                        result.setdefault(number, {})[new.feature] = path
        return result


def _sources_own(source: StoredSource, columns: Mapping[str, Column]) -> list[Column]:
    own = {column.feature: column for column in source.columns}
    return [own[old] for old in columns]


def _kept(source: StoredSource, change: Edit) -> dict[str, Column]:
    """The features of a source that stay, with their new names, by their old ones."""
    for old, new in change.rename.items():
        check_feature_name(new, old)
    result = {
        column.feature: replace(column, feature=change.rename.get(column.feature, column.feature))
        for column in source.columns
        if column.feature not in change.drop
    }
    if not result:
        raise DataError(f"nothing would be left of {source.name}: every feature is dropped")
    names = [column.feature for column in result.values()]
    if double := {name for name in names if names.count(name) > 1}:
        raise DataError(f"two features of {source.name} would be called {double.pop()}")
    return result


def _refuse_different(
    sources: Sequence[StoredSource], columns: Sequence[Mapping[str, Column]]
) -> None:
    """Raises DataError with a table of what differs between the first source and the others."""
    first = {column.feature: column for column in columns[0].values()}
    for source, others in zip(sources[1:], columns[1:], strict=True):
        rows = []
        if source.dataset.fps != sources[0].dataset.fps:
            rows.append(("fps", f"{sources[0].dataset.fps:g}", f"{source.dataset.fps:g}"))
        here = {column.feature: column for column in others.values()}
        for name in [*first, *(name for name in here if name not in first)]:
            a, b = _kind(first.get(name)), _kind(here.get(name))
            if a != b:
                rows.append((name, a, b))
        if rows:
            table = [("", sources[0].name, source.name), *rows]
            widths = [max(len(row[i]) for row in table) for i in range(3)]
            lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in table]
            shown = "\n".join(line.rstrip() for line in lines)
            raise DataError(
                f"{sources[0].name} and {source.name} differ:\n{shown}",
                hint="--rename OLD=NEW and --drop FEATURE apply wherever the feature is; "
                "--images makes pictures alike",
            )


def _in_order_of(first: Mapping[str, Column], others: Mapping[str, Column]) -> dict[str, Column]:
    """``others``, by old name, in the order in which ``first`` has the same features."""
    old_name = {column.feature: old for old, column in others.items()}
    return {old: others[old] for old in (old_name[c.feature] for c in first.values())}


def _kind(column: Column | None) -> str:
    if column is None:
        return "-"
    # Images and videos can be turned into each other; the numbers of two types cannot.
    dtype = "pictures" if column.is_visual else column.dtype
    return f"{dtype} {'x'.join(map(str, column.shape))}"


def _stored_as(column: Column, change: Edit) -> Column:
    """How a column of the new dataset is stored."""
    mode = change.images
    if mode is None or not column.is_visual:
        return column
    channels = column.shape[2]
    if mode == "video":
        height, width = column.shape[:2]
        if channels != 3 or height % 2 or width % 2:
            raise DataError(
                f"{column.feature} is {height}x{width}x{channels}; video needs an even height and "
                "width and 3 channels"
            )
        if column.dtype == "video" and column.encoding == change.codec:
            return column
        return replace(column, dtype="video", encoding=change.codec, copied=False)
    if mode == "auto":
        return column
    encoding = "png" if channels == 1 else mode
    return replace(column, dtype="image", encoding=encoding, copied=False)


def _only(values: Sequence[Any]) -> Any:
    """The value that all share, or None."""
    return values[0] if all(value == values[0] for value in values) else None


def _lineage(
    sources: Sequence[StoredSource], records: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The datasets the new one is made from, theirs included, each once."""
    result: list[Mapping[str, Any]] = []
    for source, record in zip(sources, records, strict=True):
        for one in [*(source.folder.provenance.get("sources") or ()), record]:
            if one not in result:
                result.append(one)
    return result
