"""Data files with right index columns: linked if they have them, written again if not."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.checks.bounds import Bounds
from dp_hub.dataset.checks.frames import pieces
from dp_hub.dataset.checks.view import DataPart, View
from dp_hub.dataset.features import INDEX_DTYPES
from dp_hub.dataset.shards import DATA_PATH, place
from dp_hub.dataset.tables import numbers

_ROWS_AT_ONCE = 1024
_KEPT_ENCODINGS = ("BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED")


def write_data(
    view: View, bounds: Bounds, folder: Path, *, task_numbers: Mapping[int, int]
) -> tuple[list[tuple[int, int]], list[str]]:
    """Link or write all data files, numbered without gaps.

    Args:
        task_numbers: new task_index by old one.
    Returns:
        (chunk, file) of every episode, and what was done.
    """
    places: list[tuple[int, int]] = []
    changed: dict[str, int] = {}
    written = renamed = 0
    for number, i in enumerate(sorted(set(bounds.part.tolist()))):
        part = view.data[i]
        new = place(number)
        target = folder / DATA_PATH.format(chunk_index=new[0], file_index=new[1])
        here = np.flatnonzero(bounds.part == i)
        places += [new] * len(here)
        wrong = _wrong_columns(view, part, bounds, here, task_numbers)
        if not wrong:
            link(part.path, target)
            renamed += part.name != target.relative_to(folder).as_posix()
            continue
        _write_again(view, part, bounds, here, target, task_numbers)
        written += 1
        for name, n in wrong.items():
            changed[name] = changed.get(name, 0) + n
    done = [f"{name} mended in {n:,} rows" for name, n in changed.items()]
    if written:
        done.append(f"{written} data files written again, one row group per episode")
    if renamed:
        done.append(f"{renamed} data files renumbered")
    return places, done


def link(source: Path, target: Path) -> None:
    """A hard link where the file system has them, else a copy. Symbolic links are followed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)


def _index_values(
    view: View, length: int, episode: int, first: int, tasks: np.ndarray
) -> dict[str, np.ndarray]:
    frame = np.arange(length, dtype=np.int64)
    return {
        "timestamp": (frame / (view.fps or 1.0)).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full(length, episode, np.int64),
        "index": frame + first,
        "task_index": tasks,
    }


def _episodes(
    part: DataPart, bounds: Bounds, here: np.ndarray, columns: list[str] | None
) -> Iterator[tuple[int, pa.Table]]:
    """(episode, its rows) of a file."""
    starts = bounds.starts[here] - bounds.starts[here[0]]
    kept: list[Any] = []
    current, at = 0, 0
    with pq.ParquetFile(part.path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
            for a, b, run in pieces(starts, at, len(batch)):
                if kept and run != current:
                    yield int(here[current]), pa.Table.from_batches(kept)
                    kept = []
                current = run
                kept.append(batch.slice(a, b - a))
            at += len(batch)
    if kept:
        yield int(here[current]), pa.Table.from_batches(kept)


def _mended(
    view: View, table: pa.Table, episode: int, first: int, task_numbers: Mapping[int, int]
) -> dict[str, np.ndarray]:
    old = _plain(table, "task_index")
    tasks = np.zeros(len(table), np.int64) if old is None else old.astype(np.int64)
    if any(a != b for a, b in task_numbers.items()):
        tasks = np.array([task_numbers.get(n, n) for n in tasks.tolist()], np.int64)
    return _index_values(view, len(table), episode, first, tasks)


def _plain(table: pa.Table, name: str) -> np.ndarray | None:
    """A column of numbers (T,); None if it isn't one."""
    if name not in table.schema.names or table.column(name).null_count:
        return None
    kind = table.schema.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    return vectors(table.column(name))[:, 0]


def _firsts(bounds: Bounds) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(bounds.lengths)[:-1]])


def _wrong_columns(
    view: View, part: DataPart, bounds: Bounds, here: np.ndarray, task_numbers: Mapping[int, int]
) -> dict[str, int]:
    """Number of wrong rows by index column."""
    firsts = _firsts(bounds)
    names = [name for name in INDEX_DTYPES if name in part.schema.names]
    wrong = {name: part.n_rows for name in INDEX_DTYPES if name not in names}
    for episode, table in _episodes(part, bounds, here, names):
        right = _mended(view, table, episode, int(firsts[episode]), task_numbers)
        for name in names:
            found = _plain(table, name)
            if found is None:
                n = len(table)
            elif name == "timestamp":  # float64 is as good, and rounding is no fault
                with np.errstate(invalid="ignore"):
                    near = np.abs(found - right[name].astype(np.float64)) <= 1e-5
                n = int((~near).sum())
            else:
                n = int((found != right[name]).sum())
            if n:
                wrong[name] = wrong.get(name, 0) + n
    return wrong


def _write_again(
    view: View,
    part: DataPart,
    bounds: Bounds,
    here: np.ndarray,
    target: Path,
    task_numbers: Mapping[int, int],
) -> None:
    schema = _schema(part.schema)
    firsts = _firsts(bounds)
    target.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(target, schema, **_options(part)) as writer:
        for episode, table in _episodes(part, bounds, here, None):
            values = _mended(view, table, episode, int(firsts[episode]), task_numbers)
            columns = [
                numbers(values[field.name].astype(field.type.to_pandas_dtype()))
                if field.name in values
                else table.column(field.name)
                for field in schema
            ]
            writer.write_table(
                pa.Table.from_arrays(columns, schema=schema), row_group_size=len(table)
            )


def _schema(old: pa.Schema) -> pa.Schema:
    """The same columns, with index columns of their types, those missing added at the end."""
    fields = []
    for field in old:
        keep = field.name == "timestamp" and pa.types.is_floating(field.type)
        if field.name in INDEX_DTYPES and not keep:
            field = pa.field(field.name, pa.type_for_alias(INDEX_DTYPES[field.name]))
        fields.append(field)
    missing = [name for name in INDEX_DTYPES if name not in old.names]
    fields += [pa.field(name, pa.type_for_alias(INDEX_DTYPES[name])) for name in missing]
    return pa.schema(fields, metadata=_hub_metadata(old.metadata, missing))


def _hub_metadata(metadata: Any, added: list[str]) -> Any:
    try:
        values = json.loads(metadata[b"huggingface"])
        for name in added:
            entry = {"dtype": INDEX_DTYPES[name], "_type": "Value"}
            values["info"]["features"][name] = entry
    except (TypeError, KeyError, ValueError):
        return metadata
    return {**metadata, b"huggingface": json.dumps(values).encode()}


def _options(part: DataPart) -> dict[str, Any]:
    """Compression and encodings as in the old file."""
    compression: dict[str, str] = {}
    encoding: dict[str, str] = {}
    dictionary: list[str] = []
    with pq.ParquetFile(part.path) as file:
        group = file.metadata.row_group(0)
        for j in range(group.num_columns):
            column = group.column(j)
            path = column.path_in_schema
            codec = column.compression
            compression[path] = "NONE" if codec == "UNCOMPRESSED" else codec
            kept = [e for e in column.encodings if e in _KEPT_ENCODINGS]
            if kept:
                encoding[path] = kept[0]
            elif column.has_dictionary_page:
                dictionary.append(path)
    return {
        "compression": compression,
        "column_encoding": encoding or None,
        "use_dictionary": dictionary or False,
        "write_page_index": True,
    }
