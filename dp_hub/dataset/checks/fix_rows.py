"""meta/episodes, meta/stats.json and meta/dp_hub.json, made anew from the rows of mended tables."""

import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.checks.bounds import Bounds, find_bounds
from dp_hub.dataset.checks.finding import some
from dp_hub.dataset.checks.fix_meta import FeaturePlan, TaskPlan, write_json
from dp_hub.dataset.checks.frames import Frames
from dp_hub.dataset.checks.stats import MOMENTS, Totals, all_quantiles
from dp_hub.dataset.checks.sums import content_columns
from dp_hub.dataset.checks.view import (
    READ_ERRORS,
    View,
    open_view,
    read_json_file,
)
from dp_hub.dataset.features import fingerprint_header
from dp_hub.dataset.hashing import fingerprint
from dp_hub.dataset.shards import (
    EPISODES_PATH,
    ParquetShards,
)
from dp_hub.dataset.stats import Running, as_json, matrix_stats, picture_stats
from dp_hub.dataset.tables import lists_of_one, numbers, stats_columns, texts
from dp_hub.errors import DataError

_ROWS_PER_GROUP = 512


def write_rows(
    view: View,
    bounds: Bounds,
    folder: Path,
    places: Sequence[tuple[int, int]],
    videos: Mapping[str, Mapping[tuple[int, int], tuple[int, int]]],
    table: TaskPlan,
    plan: FeaturePlan,
) -> tuple[list[str], list[str]]:
    """meta/episodes, meta/stats.json and meta/dp_hub.json, from the tables in ``folder``."""
    new = open_view(folder)
    new_bounds, _ = find_bounds(new)
    frames = Frames(new, new_bounds)
    totals = Totals(new.numeric, len(new_bounds.starts))
    measured = np.full((len(new_bounds.starts), 9, totals.size), np.nan)
    tasks: list[tuple[int, ...]] = [()] * len(new_bounds.starts)
    for run in frames.runs(new.numeric):
        matrix = totals.matrix(run)
        totals.add(run, matrix)
        measured[run.at] = matrix_stats(matrix)
        if "task_index" in run.columns:
            tasks[run.at] = tuple(np.unique(run.columns["task_index"]).tolist())
    old = _old_rows(view, bounds)
    own = {
        "episode_index": numbers(np.arange(len(places), dtype=np.int64)),
        "tasks": _task_lists(
            [[table.texts[n] for n in used if n < len(table.texts)] for used in tasks]
        ),
        "length": numbers(new_bounds.lengths),
        "data/chunk_index": numbers(np.array([p[0] for p in places], np.int64)),
        "data/file_index": numbers(np.array([p[1] for p in places], np.int64)),
        "dataset_from_index": numbers(new_bounds.starts),
        "dataset_to_index": numbers(new_bounds.stops),
    }
    own |= _video_columns(old, videos)
    sizes = {name: (size, False) for name, size in totals.sizes.items()}
    counts = np.repeat(totals.counts[:, None], len(sizes), axis=1)
    own |= stats_columns(sizes, measured, counts)
    done, left = _hashes(view, new, folder, plan, old, own)
    rest = {} if old is None else {n: old.column(n) for n in old.schema.names
                                   if n not in own and not n.startswith("meta/episodes/")
                                   and not _is_gone(n, plan)}  # fmt: skip
    _write_episode_table(folder, {**own, **rest})
    done.insert(0, f"meta/episodes written again from the rows ({len(places)} episodes)")
    if old is None:
        left.append("facts about episodes in meta/episodes: its rows fit no episodes")
    elif lost := view.episodes.names - set(old.schema.names) - set(own):
        left.append(f"damaged columns of meta/episodes: {some(sorted(lost))}")
    texts, more = _write_stats(view, new, folder, totals, frames, rest)
    return done + texts, left + more


def _is_gone(column: str, plan: FeaturePlan) -> bool:
    """Whether a column of meta/episodes is about a feature that is no longer there."""
    match = re.fullmatch(r"(?:stats|histogram)/([^/]+)(?:/.*)?", column)
    return bool(match and match[1] not in plan.entries)


def _task_lists(per_episode: Sequence[Sequence[str]]) -> pa.Array:
    if all(len(own) == 1 for own in per_episode):
        return lists_of_one(texts([own[0] for own in per_episode]))
    offsets = np.zeros(len(per_episode) + 1, np.int32)
    np.cumsum([len(own) for own in per_episode], out=offsets[1:])
    return pa.ListArray.from_arrays(numbers(offsets), texts([t for o in per_episode for t in o]))


def _old_rows(view: View, bounds: Bounds) -> pa.Table | None:
    """Rows of meta/episodes in the order of the episodes; None if they fit no episodes."""
    if (bounds.row < 0).any() or not view.episodes.n:
        return None
    tables = [
        _readable_columns(view.root / name)
        for name in view.episodes.files
        if name not in view.episodes.errors
    ]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:
        return None
    rows = bounds.row.tolist()
    if rows == list(range(len(rows))):
        return table.slice(0, len(rows))
    return pa.concat_tables([table.slice(row, 1) for row in rows])


def _readable_columns(path: Path) -> pa.Table:
    """A file of meta/episodes without the columns whose bytes are damaged."""
    with pq.ParquetFile(path) as file:
        try:
            return file.read()
        except READ_ERRORS:
            columns: dict[str, Any] = {}
            for name in file.schema_arrow.names:
                try:
                    columns[name] = file.read(columns=[name]).column(name)
                except READ_ERRORS:
                    continue
            return pa.table(columns)


def _video_columns(
    old: pa.Table | None, videos: Mapping[str, Mapping[tuple[int, int], tuple[int, int]]]
) -> dict[str, pa.Array]:
    columns = {}
    for feature, moved in videos.items():
        places = [f"videos/{feature}/{n}" for n in ("chunk_index", "file_index")]
        if old is None or not set(places) <= set(old.schema.names):
            raise DataError(f"meta/episodes doesn't say where the videos of {feature} are")
        pair = [old.column(name).to_pylist() for name in places]
        new = [moved[(int(c), int(f))] for c, f in zip(*pair, strict=True)]
        columns[f"videos/{feature}/chunk_index"] = numbers(np.array([n[0] for n in new], np.int64))
        columns[f"videos/{feature}/file_index"] = numbers(np.array([n[1] for n in new], np.int64))
        for name in ("from_timestamp", "to_timestamp"):
            if f"videos/{feature}/{name}" in old.schema.names:
                columns[f"videos/{feature}/{name}"] = old.column(f"videos/{feature}/{name}")
    return columns


def _hashes(
    view: View,
    new: View,
    folder: Path,
    plan: FeaturePlan,
    old: pa.Table | None,
    own: dict[str, Any],
) -> tuple[list[str], list[str]]:
    """meta/dp_hub.json: the fingerprint of the episodes as they lie now."""
    if view.provenance.error:
        return [], []
    values = dict(view.provenance.values)
    hashes = None if old is None or "sha256" not in old.schema.names else old.column("sha256")
    if plan.changed or hashes is None:
        if "fingerprint" in values:
            values["fingerprint"] = None
        if hashes is not None:
            own["sha256"] = pa.nulls(len(hashes), pa.string())
        write_json(folder / "meta" / "dp_hub.json", values)
        left = ["hashes of episodes: features changed, so the stored ones no longer fit"]
        return [], left if view.provenance.values.get("fingerprint") else []
    listed = hashes.to_pylist()
    done: list[str] = []
    if values.get("fingerprint") and all(isinstance(text, str) for text in listed):
        fps = float(view.fps or 0)
        header = fingerprint_header(content_columns(new), int(fps) if fps.is_integer() else fps)
        try:
            made = fingerprint(header, listed)
        except ValueError:
            made = None
        if made != values["fingerprint"]:
            values["fingerprint"] = made
            done.append("fingerprint in meta/dp_hub.json made anew")
    write_json(folder / "meta" / "dp_hub.json", values)
    return done, []


def _write_episode_table(folder: Path, columns: Mapping[str, Any]) -> None:
    table = pa.table(dict(columns)).combine_chunks()
    shards: ParquetShards | None = None
    for start in range(0, len(table), _ROWS_PER_GROUP):
        rows = table.slice(start, _ROWS_PER_GROUP)
        place = shards.next_place() if shards is not None else (0, 0)
        for name, value in zip(("chunk_index", "file_index"), place, strict=True):
            filled = numbers(np.full(len(rows), value, np.int64))
            rows = rows.append_column(f"meta/episodes/{name}", filled)
        if shards is None:
            options = {"compression": "snappy"}
            shards = ParquetShards(folder, EPISODES_PATH, rows.schema, options)
        shards.write(rows)
    if shards is not None:
        shards.close()


def _write_stats(
    view: View,
    new: View,
    folder: Path,
    totals: Totals,
    frames: Frames,
    rest: Mapping[str, Any],
) -> tuple[list[str], list[str]]:
    """meta/stats.json; statistics of pictures are kept, or merged from those of the episodes."""
    old = read_json_file(view.root / "meta" / "stats.json").values
    result: dict[str, Any] = {}
    left: list[str] = []
    quantiles = all_quantiles(frames, new, totals)
    for name in new.features:
        if name in totals.sizes:
            own = quantiles(name)
            blank = np.full((5, totals.sizes[name]), np.nan)
            rows = np.concatenate([totals.whole[:, totals.slice(name)],
                                   blank if own is None else own])  # fmt: skip
            result[name] = as_json(rows, int(totals.counts.sum()), picture=False)
        elif new.features[name].is_visual:
            entry = old.get(name)
            merged = entry if isinstance(entry, dict) else _merged_pictures(name, rest)
            if merged is None:
                left.append(f"statistics of {name}: they need its pictures; convert again")
            else:
                result[name] = merged
    write_json(folder / "meta" / "stats.json", result)
    return ["meta/stats.json computed anew"], left


def _merged_pictures(name: str, rest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Over all episodes from those of each: exactly with histograms, else without quantiles."""
    counts = rest.get(f"stats/{name}/count")
    histograms = rest.get(f"histogram/{name}")
    if histograms is not None and counts is not None:
        return _from_histograms(histograms.to_pylist(), counts.to_pylist())
    columns = [rest.get(f"stats/{name}/{moment}") for moment in (*MOMENTS, "count")]
    if any(column is None for column in columns):
        return None
    rows = [[_flat(v) for v in c.to_pylist()] for c in columns if c is not None]
    try:
        values = [np.array(row, np.float64) for row in rows]
    except (TypeError, ValueError):
        return None
    channels = values[0].shape[1]
    running = Running(channels)
    for i in range(len(values[0])):
        moments = np.stack([v[i] for v in values[:4]])
        running.add(np.concatenate([moments, np.zeros((5, channels))]), int(values[4][i][0]))
    whole = np.stack([running.min, running.max, running.mean, running.std])
    entry = {m: [[[float(v)]] for v in row] for m, row in zip(MOMENTS, whole, strict=True)}
    return {**entry, "count": [running.count]}


def _from_histograms(histograms: Sequence[Any], counts: Sequence[Any]) -> dict[str, Any] | None:
    """From zlib-compressed int32 (C, 256) counts of values, one for each episode."""
    total: np.ndarray | None = None
    try:
        for data in histograms:
            values = np.frombuffer(zlib.decompress(data), "<i4").reshape(-1, 256).astype(np.int64)
            total = values if total is None else total + values
        n_frames = sum(int(_flat(count)[0]) for count in counts)
    except (zlib.error, TypeError, ValueError):
        return None
    if total is None or not total.any(axis=1).all():
        return None
    return as_json(picture_stats(total), n_frames, picture=True)


def _flat(value: Any) -> list[float]:
    while isinstance(value, list) and value and isinstance(value[0], list):
        value = [item for part in value for item in part]
    return value if isinstance(value, list) else [value]
