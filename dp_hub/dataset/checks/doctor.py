"""Runs all checks: tables first, then the numbers twice, then pictures, videos and hashes."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.dataset.checks import episodes as ep
from dp_hub.dataset.checks import files, numbers, stats, structure, sums, tasks
from dp_hub.dataset.checks.bounds import Bounds, find_bounds
from dp_hub.dataset.checks.dimensions import Dimensions, dimensions
from dp_hub.dataset.checks.finding import Finding, Report, by_gravity, found
from dp_hub.dataset.checks.frames import Frames, Run
from dp_hub.dataset.checks.pictures import Pictures
from dp_hub.dataset.checks.thresholds import MOVING
from dp_hub.dataset.checks.timing import RowOrder, Timing
from dp_hub.dataset.checks.view import View, open_view, read_json_file
from dp_hub.dataset.checksums import PATH as CHECKSUMS
from dp_hub.dataset.columns import Feature
from dp_hub.dataset.features import INDEX_DTYPES

Progress = Callable[[str, int, int | None], None]


def check(
    root: str | Path,
    *,
    horizon: int = 16,
    n_obs: int = 2,
    on_progress: Progress = lambda what, done, total: None,
) -> Report:
    """Everything that is wrong with the dataset at ``root``; it is not changed.

    Memory: one batch of rows, one episode, and some numbers for each episode.

    Args:
        root: the folder.
        horizon: steps of a policy's prediction.
        n_obs: steps a policy observes; episodes shorter than both together are named.
        on_progress: called with what is being done, how far it is, and the total if known.
    """
    return _Doctor(Path(root), on_progress).report(horizon=horizon, n_obs=n_obs)


class _Doctor:
    """One examination."""

    def __init__(self, root: Path, on_progress: Progress) -> None:
        self._root, self._progress = root, on_progress
        self._findings: list[Finding] = []
        self._unchecked: list[str] = []
        self._facts: dict[str, Any] = {}
        self._wrong_columns: set[str] = set()

    def report(self, *, horizon: int, n_obs: int) -> Report:
        began = time.monotonic()
        view = open_view(self._root)
        self._add(structure.check_info(view))
        n_episodes = 0
        readable = self._is_readable(view)
        if readable or (self._root / CHECKSUMS).exists():
            self._add(
                sums.check_checksums(self._root, lambda d, t: self._progress("checksums", d, t))
            )
        if readable:
            self._add(files.check_card(self._root))
            self._add(files.check_portable(self._root))
            self._add(sums.check_pulled(self._root))
            n_episodes = self._examine(view, horizon=horizon, n_obs=n_obs)
        if view.provenance.values.get("state") == "open":
            # A commit that was cut off may have written these ahead of the totals.
            ahead = ("STRUCT-007", "STATS-003")
            self._findings = [one for one in self._findings if one.id not in ahead]
            self._unchecked.append("statistics and number of tasks: it is still being written")
        return Report(
            root=self._root,
            n_episodes=n_episodes,
            n_frames=view.n_frames,
            findings=by_gravity(self._findings),
            unchecked=tuple(dict.fromkeys(self._unchecked)),
            facts=self._facts,
            seconds=time.monotonic() - began,
        )

    def _add(self, findings: Iterable[Finding]) -> None:
        self._findings += findings

    def _has(self, *ids: str) -> bool:
        return any(finding.id in ids for finding in self._findings)

    def _is_readable(self, view: View) -> bool:
        if self._has("STRUCT-002"):
            self._unchecked.append("anything else: the layout of other versions is not known here")
            return False
        if view.info.error:
            self._unchecked.append("features, columns and numbers: meta/info.json cannot be used")
        return True

    def _examine(self, view: View, *, horizon: int, n_obs: int) -> int:
        self._add(structure.check_files(view))
        self._add(structure.check_index(view))
        self._add(structure.check_columns(view))
        self._add(files.check_unused(view))
        table = tasks.read_tasks(self._root)
        bounds, misfits = find_bounds(view)
        self._add(misfits)
        self._add(structure.check_counts(view, bounds, table.n_rows))
        frames = Frames(view, bounds)
        order, totals = self._first_pass(view, bounds, frames)
        if order is not None:
            known = [() for _ in bounds.starts] if order.tasks is None else order.tasks
            self._add(tasks.check_tasks(view.episodes, table, known, bounds.row.tolist()))
        else:
            self._add(tasks.check_tasks(view.episodes, table, [], []))
        self._add(ep.check_lengths(bounds, horizon=horizon, n_obs=n_obs))
        self._second_pass(view, bounds, frames, totals)
        self._statistics(view, bounds, frames, totals)
        self._pictures(view, bounds, frames, totals, table, order.tasks if order else [])
        self._videos(view, bounds, totals)
        self._unread(frames)
        return len(bounds.starts)

    def _first_pass(
        self, view: View, bounds: Bounds, frames: Frames
    ) -> tuple[RowOrder | None, stats.Totals]:
        """Order of rows, times and totals."""
        totals = stats.Totals(view.numeric, len(bounds.starts))
        if not view.data:
            self._unchecked.append("rows and numbers: there is no data file to read")
            return None, totals
        order = RowOrder(bounds)
        timing = Timing(bounds, view.fps) if view.fps is not None else None
        if timing is None:
            self._unchecked.append("timestamps: fps is not known")
        features = _with_index(view)
        for run in frames.runs(features):
            order.add(run)
            if timing is not None:
                timing.add(run)
            totals.add(run, totals.matrix(run))
            self._progress("rows", run.at + 1, len(bounds.starts))
        self._add(order.findings())
        self._wrong_columns = order.wrong_columns
        if timing is not None:
            self._add(timing.findings())
            self._wrong_columns |= {"timestamp"} if timing.any_wrong else set()
            self._facts["max_timestamp_deviation_s"] = timing.max_deviation_s
        self._add(numbers.check_finite(totals, bounds))
        return order, totals

    def _second_pass(
        self, view: View, bounds: Bounds, frames: Frames, totals: stats.Totals
    ) -> None:
        """What needs the range of every dimension."""
        if not totals.size or not totals.counts.any():
            return
        dims = dimensions(totals)
        self._add(numbers.check_dead(totals, dims, bounds))
        motion = numbers.Motion(totals, dims, bounds, view.fps)
        copies, idle = ep.Copies(totals, dims, bounds), ep.Idle(totals, dims, bounds)
        lag = ep.Lag(totals, dims, bounds)
        for run in frames.runs(totals.features):
            matrix = totals.matrix(run)
            motion.add(run.at, matrix)
            copies.add(run.at, matrix)
            idle.add(run.at, matrix)
            lag.add(run.at, matrix)
            self._progress("numbers", run.at + 1, len(bounds.starts))
        for part in (motion, copies, idle, lag):
            self._add(part.findings())
        self._facts |= _number_facts(bounds, dims, motion, idle, lag)

    def _statistics(self, view: View, bounds: Bounds, frames: Frames, totals: stats.Totals) -> None:
        stored = read_json_file(self._root / "meta" / "stats.json")
        complete = bool(totals.counts.all()) and not frames.unreadable and not self._has(
            "STRUCT-013", "STRUCT-014")  # fmt: skip
        if not complete and not stored.error:
            self._unchecked.append("statistics: not all rows can be read")
        is_open = view.provenance.values.get("state") == "open"
        quantiles = stats.all_quantiles(frames, view, totals)
        # Statistics of columns that are wrong themselves are a consequence, no fault of their own.
        skip = frozenset({*self._wrong_columns, *frames.misfits, *frames.with_nulls})
        found_here = stats.check_stats(
            view, stored, totals, quantiles, complete=complete, skip=skip
        )
        # An open recording has no quantiles and may have no statistics yet.
        self._add(f for f in found_here if not (is_open and f.id in ("STATS-001", "STATS-006")))
        self._add(stats.check_episode_stats(view, totals, bounds, skip=skip))

    def _pictures(
        self,
        view: View,
        bounds: Bounds,
        frames: Frames,
        totals: stats.Totals,
        table: tasks.Tasks,
        used: Sequence[tuple[int, ...]],
    ) -> None:
        """Pictures in the tables, and the hashes that cover them."""
        hashes = sums.Hashes(view, bounds)
        hashing = hashes.wanted
        own = _readable_pictures(view)
        if own or hashing:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                look = Pictures(own, bounds, view.fps, pool)
                features = [*own, *(f for f in view.numeric if hashing or f.name in _states(view))]
                for run in frames.runs(features):
                    state = _state(view, totals, run)
                    full = look.add(run.at, run.columns, state, full=hashing)
                    if hashing:
                        stored = {n: v for n, v in run.columns.items() if n not in INDEX_DTYPES
                                  and not isinstance(v, list)}  # fmt: skip
                        task = _task_text(table, used[run.at] if used else ())
                        hashes.add(run.at, {**stored, **(full or {})}, task)
                    self._progress("pictures", run.at + 1, len(bounds.starts))
            self._add(look.findings(read_json_file(self._root / "meta" / "stats.json")))
            if own:
                self._facts["pictures"] = look.n_frames
                self._facts["identical_successive_pictures"] = look.n_same
                self._facts["black_pictures"] = look.n_black
        self._add(hashes.findings())

    def _videos(self, view: View, bounds: Bounds, totals: stats.Totals) -> None:
        if not view.videos or not view.episodes.n:
            return
        from dp_hub.dataset.checks.videos import Videos

        videos = Videos(view, bounds, _moving(view, totals))
        total = videos.n_files()
        stored = read_json_file(self._root / "meta" / "stats.json")
        self._add(videos.check(stored, lambda done: self._progress("videos", done, total)))
        self._unchecked += videos.unchecked
        self._facts["decoded_video_frames"] = videos.n_decoded

    def _unread(self, frames: Frames) -> None:
        for name, reason in frames.unreadable.items():
            self._add([found("STRUCT-014", f"{name} is damaged: {reason}")])
            self._unchecked.append(f"the rows of {name} after the damage")
        for name, n in frames.with_nulls.items():
            self._add([found("DATA-004", f"{name} has {n or 'some'} empty entries")])
            self._unchecked.append(f"the values of {name}: some are missing")
        for name, reason in frames.misfits.items():
            self._add([found("STRUCT-012", reason)])
            self._unchecked.append(f"the values of {name}: {reason}")


def _with_index(view: View) -> list[Feature]:
    """Numeric features, and index columns that are there without being declared."""
    declared = {feature.name for feature in view.numeric}
    kinds = {**dict.fromkeys(INDEX_DTYPES, "int64"), "timestamp": "float32"}
    extra = [Feature(name, kind, (1,)) for name, kind in kinds.items()
             if name not in declared and name not in view.features]  # fmt: skip
    return [*view.numeric, *extra]


def _readable_pictures(view: View) -> list[Feature]:
    from dp_hub.dataset.checks.view import column_fault

    parts = [part for part in view.data if part.schema is not None]
    return [
        feature
        for feature in view.pictures
        if parts
        and all(
            feature.name in part.schema.names
            and column_fault(part.schema.field(feature.name).type, feature) is None
            for part in parts
        )
    ]


def _states(view: View) -> list[str]:
    from dp_hub.dataset.checks.dimensions import is_state

    return [f.name for f in view.numeric if is_state(f.name) and f.name not in INDEX_DTYPES]


def _state(view: View, totals: stats.Totals, run: Run) -> np.ndarray | None:
    """The state of an episode in units of its range, float64 (T, n); None if there is none."""
    names = [name for name in _states(view) if name in run.columns]
    if not names:
        return None
    parts = []
    for name in names:
        spread = totals.range[totals.slice(name)]
        parts.append(run.columns[name] / np.where(spread > 0, spread, np.inf))
    return np.concatenate(parts, axis=1)


def _moving(view: View, totals: stats.Totals) -> np.ndarray:
    """In which episodes the state moves, bool (R,)."""
    moves = np.zeros(len(totals.counts), bool)
    for name in _states(view):
        where = totals.slice(name)
        spread = totals.range[where]
        own = totals.episodes[:, 1, where] - totals.episodes[:, 0, where]
        with np.errstate(invalid="ignore"):
            moves |= ((own > MOVING * spread) & (spread > 0)).any(axis=1)
    return moves


def _task_text(table: tasks.Tasks, numbers_used: tuple[int, ...]) -> str:
    texts = table.texts or {}
    return "; ".join(texts.get(number, "") for number in numbers_used)


def _number_facts(
    bounds: Bounds,
    dims: Dimensions,
    motion: numbers.Motion,
    idle: ep.Idle,
    lag: ep.Lag,
) -> dict[str, Any]:
    lengths = bounds.lengths
    own = dims.action | dims.state
    steps = {dims.labels[d]: float(motion.max_step[d]) for d in np.flatnonzero(own)}
    return {
        "shortest_episode": int(lengths.min()),
        "median_episode": float(np.median(lengths)),
        "longest_episode": int(lengths.max()),
        "angle_wraps": motion.wraps,
        "max_step": steps,
        "idle_share_median": float(np.median(idle.shares)),
        "idle_share_max": float(idle.shares.max()),
        **lag.facts(),
    }
