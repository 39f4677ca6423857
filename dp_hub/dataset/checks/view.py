"""A dataset as it is found, faults and all: what could be read, and why the rest could not.

`dp_hub.dataset.reader` refuses at the first fault; a check has to go on.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.columns import Feature
from dp_hub.dataset.features import INDEX_DTYPES
from dp_hub.dataset.layout import DATA_PATH, VIDEO_PATH, file_path
from dp_hub.errors import DataError

# What reading damaged Parquet can raise; ArrowException is no common base of all of them.
READ_ERRORS = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)
_NUMBERED = re.compile(r"chunk-(\d+)/file-(\d+)\.(parquet|mp4)$")
EPISODE_COLUMNS = ("episode_index", "length", "dataset_from_index", "dataset_to_index",
                   "data/chunk_index", "data/file_index")  # fmt: skip
VIDEO_PLACES = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


@dataclass(frozen=True)
class JsonFile:
    """A JSON object on disk: its values, or why there are none."""

    path: Path
    values: dict[str, Any]
    error: str | None

    @property
    def missing(self) -> bool:
        """Whether there is no such file."""
        return not self.path.exists()


@dataclass(frozen=True)
class DataPart:
    """One Parquet file of data/.

    Attributes:
        name: relative to the dataset.
        number: (chunk, file), or None if the name doesn't tell.
        schema: None if the file cannot be read; then ``error`` says why.
        group_bytes: uncompressed size of the largest row group.
    """

    path: Path
    name: str
    number: tuple[int, int] | None
    n_rows: int
    schema: Any
    error: str | None
    group_bytes: int = 0


@dataclass(frozen=True)
class EpisodeRows:
    """The rows of meta/episodes, in file order; only as many as info.json counts.

    Attributes:
        files: the files they are in, relative to the dataset.
        errors: files that cannot be read, with the reason.
        n: number of rows, E.
        n_beyond: rows beyond ``total_episodes``, which readers ignore.
        values: number columns that are there, float64 (E,), NaN where empty.
        tasks: the texts of each episode, None where there are none; None without the column.
        sha256: likewise.
        file_of_row: int64 (E,), which of ``files`` a row is in.
        names: all columns, statistics too.
    """

    files: tuple[str, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)
    n: int = 0
    n_beyond: int = 0
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    tasks: list[Any] | None = None
    sha256: list[Any] | None = None
    file_of_row: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    names: frozenset[str] = frozenset()

    def ints(self, name: str) -> np.ndarray | None:
        """A column as int64 (E,), -1 where empty or no whole number; None if it isn't there."""
        values = self.values.get(name)
        if values is None:
            return None
        whole = np.isfinite(values) & (np.abs(values) < 2**53) & (values == np.rint(values))
        return np.where(whole, values, -1).astype(np.int64)


@dataclass(frozen=True)
class View:
    """All of a dataset's metadata that could be read.

    Attributes:
        fps: None if info.json has no usable one.
        features: entries that are well-formed.
        feature_errors: the others, with what is wrong.
        data: files of data/ that belong to the dataset, in order.
        unused: files of data/ that nobody refers to.
    """

    root: Path
    info: JsonFile
    provenance: JsonFile
    fps: float | None
    features: Mapping[str, Feature]
    feature_errors: Mapping[str, str]
    episodes: EpisodeRows
    data: tuple[DataPart, ...]
    unused: tuple[str, ...]

    @property
    def n_frames(self) -> int:
        """Rows in the data files that can be read."""
        return sum(part.n_rows for part in self.data)

    @property
    def videos(self) -> list[Feature]:
        """Features of dtype ``video``."""
        return [f for f in self.features.values() if f.dtype == "video"]

    @property
    def pictures(self) -> list[Feature]:
        """Features of dtype ``image``."""
        return [f for f in self.features.values() if f.dtype == "image"]

    @property
    def numeric(self) -> list[Feature]:
        """Features of numbers that fit their columns in every file, index columns too."""
        return [f for f in self.features.values() if is_numeric(f) and self._readable(f)]

    def _readable(self, feature: Feature) -> bool:
        parts = [part for part in self.data if part.schema is not None]
        return bool(parts) and all(
            feature.name in part.schema.names
            and column_fault(part.schema.field(feature.name).type, feature) is None
            for part in parts
        )


def is_numeric(feature: Feature) -> bool:
    """Whether the feature's values are numbers or booleans."""
    try:
        return np.dtype(feature.dtype).kind in "biuf"
    except TypeError:
        return False


def picture_size(feature: Feature) -> tuple[int, int, int]:
    """(H, W, C) of a feature, which some recorders give as (C, H, W)."""
    names = [str(n) for n in feature.names] if isinstance(feature.names, list) else []
    a, b, c = feature.shape
    first = (names and names[0].startswith("channel")) or (a in (1, 3) and c not in (1, 3))
    return (b, c, a) if first else (a, b, c)


def open_view(root: Path) -> View:
    """Read all metadata of the dataset at ``root``; never raises for what is in it."""
    info = read_json_file(root / "meta" / "info.json")
    features, errors = _features(info.values.get("features"))
    fps = info.values.get("fps")
    usable = isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps < 1e6
    total = info.values.get("total_episodes")
    videos = [f.name for f in features.values() if f.dtype == "video"]
    episodes = _episode_rows(root, total if is_count(total) else None, videos)
    parts = [_data_part(root, path) for path in sorted((root / "data").rglob("*.parquet"))]
    used, unused = _split_used(root, info.values, episodes, parts)
    return View(
        root=root,
        info=info,
        provenance=read_json_file(root / "meta" / "dp_hub.json"),
        fps=float(fps) if usable and isinstance(fps, int | float) else None,
        features=features,
        feature_errors=errors,
        episodes=episodes,
        data=tuple(used),
        unused=tuple(part.name for part in unused),
    )


def is_count(value: Any) -> bool:
    """Whether a JSON value is a whole number, at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def read_json_file(path: Path) -> JsonFile:
    """The object in a JSON file, or why there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error)
        return JsonFile(path, {}, reason)
    if not isinstance(values, dict):
        return JsonFile(path, {}, f"it holds a {type(values).__name__}, not an object")
    return JsonFile(path, values, None)


def file_number(name: str) -> tuple[int, int] | None:
    """(chunk, file) from ``.../chunk-000/file-000.parquet``."""
    match = _NUMBERED.search(name)
    return (int(match[1]), int(match[2])) if match else None


def template_path(view: View, kind: str, chunk: int, file: int, video: str = "") -> Path | None:
    """The path of a numbered ``data`` or ``video`` file; None if the template is unusable."""
    template = view.info.values.get(f"{kind}_path") or (DATA_PATH if kind == "data" else VIDEO_PATH)
    return _filled(view.root, template, chunk, file, video)


def _filled(root: Path, template: Any, chunk: int, file: int, video: str = "") -> Path | None:
    try:
        return file_path(root, template, chunk=chunk, file=file, video=video)
    except (DataError, TypeError, ValueError):
        return None


def column_fault(kind: Any, feature: Feature) -> str | None:
    """Why a column of this Arrow type cannot hold the feature; None if it can."""
    if feature.dtype in ("image", "string", "language"):
        good = (
            {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}
            if feature.dtype == "image" and pa.types.is_struct(kind)
            else feature.dtype != "image"
        )
        return None if good else f"is {kind}, not a picture"
    value, sizes = kind, []
    while True:
        if isinstance(value, pa.BaseExtensionType):
            value = value.storage_type
        elif pa.types.is_fixed_size_list(value):
            sizes.append(value.list_size)
            value = value.value_type
        elif pa.types.is_list(value) or pa.types.is_large_list(value):
            sizes.append(None)  # known only from the values
            value = value.value_type
        else:
            break
    wanted = () if feature.shape == (1,) and not sizes else feature.shape
    fits = len(sizes) == len(wanted) and all(
        size in (None, n) for size, n in zip(sizes, wanted, strict=True)
    )
    if not fits and None not in sizes and np.prod(sizes or [1]) != np.prod(feature.shape):
        return f"is {kind}, its shape is said to be {list(feature.shape)}"
    try:
        stored = np.dtype(value.to_pandas_dtype())
    except (NotImplementedError, TypeError):
        return f"is {kind}, not {feature.dtype}"
    if stored.kind not in "biuf" or stored != np.dtype(feature.dtype):
        return f"is {value}, its dtype is said to be {feature.dtype}"
    return None


def _features(entries: Any) -> tuple[dict[str, Feature], dict[str, str]]:
    if not isinstance(entries, dict):
        return {}, {"features": f"is {type(entries).__name__}, not an object"}
    good, bad = {}, {}
    for name, entry in entries.items():
        if "/" in name or "\\" in name or not name:
            bad[name] = "has a name that no feature can have"
        elif not isinstance(entry, dict):
            bad[name] = f"is {entry!r}, not an object"
        elif fault := _entry_fault(entry):
            bad[name] = fault
        else:
            good[name] = Feature(name, entry["dtype"], tuple(entry["shape"]), entry.get("names"))
    return good, bad


def _entry_fault(entry: Mapping[str, Any]) -> str | None:
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str) or not _known_dtype(dtype):
        return f"has the dtype {dtype!r}"
    if not isinstance(shape, list) or not shape or not all(is_count(n) and n > 0 for n in shape):
        return f"has the shape {shape!r}"
    if dtype in ("image", "video") and len(shape) != 3:
        return f"has pictures of the shape {shape!r}"
    return None


def _known_dtype(dtype: str) -> bool:
    if dtype in ("image", "video", "string", "language"):
        return True
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False


def _data_part(root: Path, path: Path) -> DataPart:
    name = path.relative_to(root).as_posix()
    number = file_number(name)
    try:
        with pq.ParquetFile(path) as file:
            meta = file.metadata
            groups = [meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)]
            schema = file.schema_arrow
            return DataPart(path, name, number, meta.num_rows, schema, None, max(groups, default=0))
    except READ_ERRORS as error:
        return DataPart(path, name, number, 0, None, short(error))


def short(error: BaseException) -> str:
    """The first sentence of an error, for one line of a report."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def _split_used(
    root: Path, info: Mapping[str, Any], episodes: EpisodeRows, parts: Sequence[DataPart]
) -> tuple[list[DataPart], list[DataPart]]:
    """Files that meta/episodes names, and the others. All are used if it names none."""
    chunks, files = episodes.ints("data/chunk_index"), episodes.ints("data/file_index")
    if chunks is None or files is None or not episodes.n:
        return list(parts), []
    template = info.get("data_path") or DATA_PATH
    named = {}
    for chunk, file in {*zip(chunks.tolist(), files.tolist(), strict=True)}:
        path = _filled(root, template, chunk, file)
        if path is not None:
            named[path] = (chunk, file)
    used = [replace(part, number=named[part.path]) for part in parts if part.path in named]
    if not used:  # the locations are wrong altogether: the files are all there is to go by
        return list(parts), []
    ordered = sorted(used, key=lambda part: part.number or (0, 0))
    return ordered, [part for part in parts if part.path not in named]


def _episode_rows(root: Path, total: int | None, videos: Sequence[str]) -> EpisodeRows:
    paths = sorted((root / "meta" / "episodes").rglob("*.parquet"))
    names = [path.relative_to(root).as_posix() for path in paths]
    wanted = [*EPISODE_COLUMNS, *(f"videos/{v}/{place}" for v in videos for place in VIDEO_PLACES)]
    tables: list[Any] = []
    errors: dict[str, str] = {}
    columns: set[str] = set()
    for path, name in zip(paths, names, strict=True):
        try:
            with pq.ParquetFile(path) as file:
                here = file.schema_arrow.names
                some = [c for c in [*wanted, "tasks", "sha256"] if c in here]
                tables.append((name, file.read(columns=some)))
            columns.update(here)
        except READ_ERRORS as error:
            errors[name] = short(error)
    sizes = [len(table) for _, table in tables]
    rows = sum(sizes)
    n = rows if total is None else min(rows, total)
    only = slice(0, n)
    parts = [table for _, table in tables]
    return EpisodeRows(
        files=tuple(names),
        errors=errors,
        n=n,
        n_beyond=rows - n,
        values={c: v[only] for c in wanted if (v := _joined(parts, c, _floats)) is not None},
        tasks=_texts(parts, "tasks", n),
        sha256=_texts(parts, "sha256", n),
        file_of_row=np.repeat(np.arange(len(sizes)), sizes)[only],
        names=frozenset(columns),
    )


def _joined(
    tables: Sequence[Any], name: str, convert: Callable[[Any], np.ndarray]
) -> np.ndarray | None:
    """A column of all tables; NaN for the rows of tables that lack it, None if all do."""
    if not any(name in table.schema.names for table in tables):
        return None
    return np.concatenate(
        [
            convert(table.column(name))
            if name in table.schema.names
            else np.full(len(table), np.nan)
            for table in tables
        ]
    )


def _floats(column: Any) -> np.ndarray:
    """A column of plain numbers as float64, NaN where empty; all NaN if it holds anything else."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)) or not len(column):
        return np.full(len(column), np.nan)
    if column.null_count:
        values = [np.nan if value is None else value for value in column.to_pylist()]
        return np.array(values, np.float64)
    return vectors(column)[:, 0].astype(np.float64)


def _texts(tables: Sequence[Any], name: str, n: int) -> list[Any] | None:
    if not any(name in table.schema.names for table in tables):
        return None
    values: list[Any] = []
    for table in tables:
        try:
            own = table.column(name).to_pylist() if name in table.schema.names else None
        except ValueError:  # damaged bytes that are no text
            own = None
        values += own if own is not None else [None] * len(table)
    return values[:n]


def unnamed_index_columns(view: View) -> list[str]:
    """Index columns that info.json doesn't declare."""
    return [name for name in INDEX_DTYPES if name not in view.features
            and name not in view.feature_errors]  # fmt: skip


def all_files(root: Path) -> Iterator[Path]:
    """Files and links below ``root``, sorted; hidden folders such as .git are left out."""
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if not hidden and (path.is_symlink() or path.is_file()):
            yield path
