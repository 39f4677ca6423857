"""Where episodes begin and end, when the dataset contradicts itself.

Three witnesses tell it: changes of ``episode_index`` in the rows, returns of ``frame_index`` to 0,
and meta/episodes. Where two agree the third is wrong. So one fault gives one finding, and the
other checks still look at the right rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.checks.finding import Finding, found
from dp_hub.dataset.checks.view import READ_ERRORS, EpisodeRows, View, short, template_path

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Bounds:
    """The R episodes in the data files that can be read, in file order.

    Attributes:
        starts, stops: int64 (R,), rows counted over the readable files.
        part: int64 (R,), which of ``view.data`` each lies in.
        number: int64 (R,), which episode each should be.
        first: int64 (R,), the ``index`` its first row should have.
        row: int64 (R,), its row in meta/episodes; -1 if there is none.
        certain: whether two witnesses agree everywhere.
        unreadable: data files whose rows could not be read, with the reason.
    """

    starts: np.ndarray
    stops: np.ndarray
    part: np.ndarray
    number: np.ndarray
    first: np.ndarray
    row: np.ndarray
    certain: bool
    unreadable: dict[str, str]

    @property
    def lengths(self) -> np.ndarray:
        """int64 (R,), frames of each."""
        return self.stops - self.starts


def episode_order(rows: EpisodeRows) -> np.ndarray:
    """Rows of meta/episodes in the order of their episodes, int64 (E,)."""
    numbers = rows.ints("episode_index")
    if numbers is None or numbers.min(initial=0) < 0 or len(np.unique(numbers)) != len(numbers):
        return np.arange(rows.n)
    return np.argsort(numbers, kind="stable")


def end_to_end(rows: EpisodeRows, order: np.ndarray) -> np.ndarray | None:
    """Rows of ``order`` that don't begin where the one before ends, or are empty; None: unknown."""
    starts, stops = rows.ints("dataset_from_index"), rows.ints("dataset_to_index")
    if starts is None or stops is None:
        return None
    starts, stops = starts[order], stops[order]
    expected = np.concatenate([[0], stops[:-1]])
    return np.flatnonzero((starts != expected) | (stops <= starts))


def told_lengths(rows: EpisodeRows) -> np.ndarray | None:
    """Lengths by meta/episodes, row by row: its bounds if they hold together, else ``length``."""
    faults = end_to_end(rows, episode_order(rows))
    starts, stops = rows.ints("dataset_from_index"), rows.ints("dataset_to_index")
    if faults is not None and not len(faults) and starts is not None and stops is not None:
        return stops - starts
    return rows.ints("length")


def find_bounds(view: View) -> tuple[Bounds, list[Finding]]:
    """Weigh the witnesses file by file; the findings say what meta/episodes has wrong."""
    order, lengths = episode_order(view.episodes), told_lengths(view.episodes)
    unreadable: dict[str, str] = {}
    starts: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    certain, offset = True, 0
    for i, part in enumerate(view.data):
        if part.schema is None:
            continue
        try:
            by_episode, by_frame = _by_rows(part)
        except READ_ERRORS as error:
            unreadable[part.name] = short(error)
            by_episode = by_frame = None
        told = _by_meta(view, i, order, lengths)
        truth, sure = _agreed(by_episode, by_frame, told)
        certain &= sure
        if part.n_rows:
            starts.append(truth + offset)
            sizes.append(np.diff(np.append(truth, part.n_rows)))
            parts.append(np.full(len(truth), i))
        offset += part.n_rows
    nothing = [np.zeros(0, np.int64)]
    begin, size = np.concatenate(starts or nothing), np.concatenate(sizes or nothing)
    where = np.concatenate(parts or nothing)
    row, number, first, findings = _matched(view, order, lengths, where, size)
    bounds = Bounds(begin, begin + size, where, number, first, row, certain, unreadable)
    return bounds, findings


def _by_rows(part: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Starts by episode_index and by frame_index, int64, counted within the file."""
    names = [n for n in ("episode_index", "frame_index") if n in part.schema.names
             and pa.types.is_integer(part.schema.field(n).type)]  # fmt: skip
    found_at: dict[str, list[np.ndarray]] = {name: [] for name in names}
    last, at = None, 0
    if not names:
        return None, None
    with pq.ParquetFile(part.path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names):
            for name in list(found_at):
                if batch.column(name).null_count:
                    del found_at[name]
                    continue
                values = vectors(batch.column(name))[:, 0]
                if name == "frame_index":
                    found_at[name].append(np.flatnonzero(values == 0) + at)
                else:
                    before = values[0] - 1 if last is None else last
                    found_at[name].append(np.flatnonzero(np.diff(values, prepend=before)) + at)
                    last = values[-1]
            at += len(batch)
    joined = {n: np.concatenate(v) if v else np.zeros(0, np.int64) for n, v in found_at.items()}
    return joined.get("episode_index"), joined.get("frame_index")


def _by_meta(
    view: View, part: int, order: np.ndarray, lengths: np.ndarray | None
) -> np.ndarray | None:
    here = _rows_in(view, part, order)
    if lengths is None or here is None or not len(here):
        return None
    sizes = lengths[here]
    if sizes.min() < 1 or sizes.sum() != view.data[part].n_rows:
        return None
    return np.concatenate([[0], np.cumsum(sizes)[:-1]])


def _rows_in(view: View, part: int, order: np.ndarray) -> np.ndarray | None:
    """The rows of meta/episodes that name this file, in order."""
    chunks, files = view.episodes.ints("data/chunk_index"), view.episodes.ints("data/file_index")
    number = view.data[part].number
    if chunks is None or files is None or number is None:
        return order if len(view.data) == 1 else None
    here = (chunks[order] == number[0]) & (files[order] == number[1])
    return order[here]


def _agreed(
    by_episode: np.ndarray | None, by_frame: np.ndarray | None, told: np.ndarray | None
) -> tuple[np.ndarray, bool]:
    """The starts two witnesses agree on, or the best guess; and whether two agree."""
    witnesses = [w for w in (by_episode, by_frame, told) if w is not None]
    for i, one in enumerate(witnesses):
        if any(np.array_equal(one, other) for other in witnesses[i + 1 :]):
            return one, True
    known = by_episode if by_episode is not None else told if told is not None else by_frame
    usable = known is not None and len(known) and known[0] == 0
    return (known if known is not None and usable else np.zeros(1, np.int64)), False


def _matched(
    view: View,
    order: np.ndarray,
    lengths: np.ndarray | None,
    part: np.ndarray,
    size: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Finding]]:
    """Which row of meta/episodes each run is, its number and first index, and what doesn't fit."""
    complete = len(part) == len(order) and _all_here(view)
    if complete:
        row = order.copy()
    else:
        row = np.full(len(part), -1)
        for i in range(len(view.data)):
            here, rows = np.flatnonzero(part == i), _rows_in(view, i, order)
            if rows is not None and len(rows) == len(here):
                row[here] = rows
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    if complete or (row < 0).any():
        number = np.arange(len(part))
        first = np.concatenate([[0], np.cumsum(size)[:-1]]) if len(size) else size
    else:  # a file is missing: the others keep their numbers
        number = rank[row]
        known = lengths if lengths is not None else np.zeros(len(order), np.int64)
        first = np.concatenate([[0], np.cumsum(known[order])[:-1]])[number]
    findings = list(_misfits(view, order, lengths, part, size, row, complete))
    return row, number, first, findings


def _all_here(view: View) -> bool:
    return not missing_files(view) and all(part.schema is not None for part in view.data)


def missing_files(view: View) -> list[str]:
    """Data files that meta/episodes names and that are not there."""
    chunks, files = view.episodes.ints("data/chunk_index"), view.episodes.ints("data/file_index")
    if chunks is None or files is None:
        return []
    here = {part.number for part in view.data}
    named = {*zip(chunks.tolist(), files.tolist(), strict=True)}
    paths = [template_path(view, "data", c, f) for c, f in sorted(named - here) if min(c, f) >= 0]
    return [path.relative_to(view.root).as_posix() for path in paths if path is not None]


def _misfits(
    view: View,
    order: np.ndarray,
    lengths: np.ndarray | None,
    part: np.ndarray,
    size: np.ndarray,
    row: np.ndarray,
    complete: bool,
) -> Iterator[Finding]:
    if not len(order) or not len(part):
        return
    if not complete and (row < 0).any() and len(part) != len(order) and _all_here(view):
        yield found(
            "INDEX-007",
            f"meta/episodes has {len(order)} episodes, the rows of data/ hold {len(part)}",
        )
        return
    known = row >= 0
    if lengths is not None:
        wrong = np.flatnonzero(known & (lengths[row] != size))
        if len(wrong):
            i = wrong[0]
            yield found(
                "INDEX-007",
                f"meta/episodes gives {len(wrong)} episodes other lengths than their rows in "
                f"data/: {lengths[row[i]]} instead of {size[i]} in row {row[i]}",
                wrong,
            )
    chunks, files = view.episodes.ints("data/chunk_index"), view.episodes.ints("data/file_index")
    if chunks is None or files is None:
        return
    numbers = np.array([p.number or (-1, -1) for p in view.data])[part]
    # An episode whose file is missing is STRUCT-013's.
    elsewhere = known & (chunks[row] >= 0) & (files[row] >= 0)
    elsewhere &= (chunks[row] != numbers[:, 0]) | (files[row] != numbers[:, 1])
    if elsewhere.any():
        i = int(np.flatnonzero(elsewhere)[0])
        yield found(
            "INDEX-008",
            f"row {row[i]} of meta/episodes says chunk {chunks[row[i]]}, file {files[row[i]]}; "
            f"the episode lies in {view.data[part[i]].name}",
            np.flatnonzero(elsewhere),
        )
