"""Arrow tables of LeRobot v3.0: frames, episodes and tasks, with the metadata readers rely on.

Frames are written with Snappy, byte-stream split and no dictionaries: 0.6 of the size of Parquet's
defaults on PushT. zstd would save another tenth, but LeRobot's visualizer in the browser cannot
read it (it does not read pictures, so those may use zstd). Content-defined chunks and the page
index keep uploads of changed files small.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dp_hub.dataset.features import INDEX_DTYPES, Column
from dp_hub.dataset.stats import NAMES, QUANTILES

# As Parquet names the values of lists, so that a table read and written again is the same file.
_ELEMENT = "element"
STAT_ORDER = ("min", "max", "mean", "std", "count", *QUANTILES)


def frame_columns(columns: Sequence[Column]) -> list[Column]:
    """The columns that are in the frame tables: all but videos."""
    return [column for column in columns if column.dtype != "video"]


def frame_schema(columns: Sequence[Column]) -> pa.Schema:
    """The schema of data/*.parquet, with the Hub's ``huggingface`` metadata in it."""
    fields = [pa.field(c.feature, _arrow_type(c)) for c in frame_columns(columns)]
    fields += [pa.field(name, pa.type_for_alias(dtype)) for name, dtype in INDEX_DTYPES.items()]
    features = {c.feature: _hub_feature(c) for c in frame_columns(columns)}
    for name, dtype in INDEX_DTYPES.items():
        features[name] = {"dtype": dtype, "_type": "Value"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(fields, metadata=metadata)


def frame_table(schema: pa.Schema, arrays: Mapping[str, Any]) -> pa.Table:
    """The rows of one episode.

    Args:
        schema: from `frame_schema`.
        arrays: by feature, from `vector_array`, `picture_array` or, for index columns, `numbers`.
    """
    return pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)


def frame_options(columns: Sequence[Column]) -> dict[str, Any]:
    """Arguments for pyarrow's ParquetWriter."""
    encodings = {name: "DELTA_BINARY_PACKED" for name in INDEX_DTYPES if name != "timestamp"}
    encodings["timestamp"] = "BYTE_STREAM_SPLIT"
    compression = dict.fromkeys(INDEX_DTYPES, "SNAPPY")
    for column in frame_columns(columns):
        if column.dtype == "image":
            kind = "ZSTD" if column.encoding == "png" else "NONE"  # see dp_hub.dataset.images
            compression |= {f"{column.feature}.bytes": kind, f"{column.feature}.path": "SNAPPY"}
            continue
        path = column.feature if column.shape == (1,) else f"{column.feature}.list.element"
        compression[path] = "SNAPPY"
        if column.dtype in ("float32", "float64"):
            encodings[path] = "BYTE_STREAM_SPLIT"
    return {
        "compression": compression,
        "column_encoding": encodings,
        "use_dictionary": False,
        "write_page_index": True,
        "write_statistics": list(INDEX_DTYPES),
        "use_content_defined_chunking": True,
    }


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """meta/tasks.parquet: row i is task i, and the text is the pandas index.

    Without that index LeRobot hands out numbers instead of texts. It is only metadata, so it is
    written here without importing pandas.
    """

    def described(name: str, kind: str, numpy_type: str) -> dict[str, Any]:
        return {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_type,
            "metadata": None,
        }

    pandas = {
        "index_columns": ["task"],
        "column_indexes": [
            {
                "name": None,
                "field_name": None,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": {"encoding": "UTF-8"},
            }
        ],
        "columns": [
            described("task_index", "int64", "int64"),
            described("task", "unicode", "object"),
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.3",
    }
    table = pa.table(
        {
            "task_index": numbers(np.arange(len(tasks), dtype=np.int64)),
            "task": texts(tasks),
        }
    )
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def stats_columns(
    sizes: Mapping[str, tuple[int, bool]], stats: np.ndarray, counts: np.ndarray
) -> dict[str, pa.Array]:
    """``stats/<feature>/<stat>`` columns for E episodes.

    Args:
        sizes: by feature, in the order they lie in ``stats``: number of values n, is it a picture.
        stats: float64 ``(E, 9, D)``.
        counts: int64 ``(E, F)``, one per feature.
    """
    result: dict[str, pa.Array] = {}
    start = 0
    for f, (feature, (size, picture)) in enumerate(sizes.items()):
        for name in STAT_ORDER:
            if name == "count":
                values = _lists(counts[:, f : f + 1])
            else:
                values = _lists(stats[:, NAMES.index(name), start : start + size], nested=picture)
            result[f"stats/{feature}/{name}"] = values
        start += size
    return result


def numbers(values: np.ndarray) -> pa.Array:
    """A one-dimensional array as Arrow. `pyarrow.array` would do, but it imports pandas (0.3 s)."""
    kind, length = pa.from_numpy_dtype(values.dtype), len(values)
    if values.dtype == np.bool_:
        values = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(np.ascontiguousarray(values))])


def texts(values: Sequence[str]) -> pa.Array:
    """Strings as Arrow."""
    return blobs([value.encode() for value in values], pa.string())


def lists_of_one(values: pa.Array) -> pa.Array:
    """Each value as a list of one."""
    return _in_lists(values, 1)


def blobs(values: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    """Bytes as Arrow, of the type ``kind`` (``binary`` or ``string``)."""
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def _lists(values: np.ndarray, *, nested: bool = False) -> pa.Array:
    """``(E, n)`` as E lists of n; nested: as E lists of n lists of one list of one."""
    flat = numbers(values.reshape(-1))
    if nested:
        flat = _in_lists(_in_lists(flat, 1), 1)
    return _in_lists(flat, values.shape[1])


def _in_lists(values: pa.Array, n: int) -> pa.Array:
    offsets = np.arange(0, len(values) + 1, n, dtype=np.int32)
    kind = pa.list_(pa.field(_ELEMENT, values.type))
    return pa.ListArray.from_arrays(numbers(offsets), values, type=kind)


def _arrow_type(column: Column) -> pa.DataType:
    if column.dtype == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    value = pa.from_numpy_dtype(np.dtype(column.dtype))
    if column.shape == (1,):
        return value
    return pa.list_(pa.field(_ELEMENT, value), column.shape[0])


def _hub_feature(column: Column) -> dict[str, Any]:
    if column.dtype == "image":
        return {"_type": "Image"}
    value = {"dtype": column.dtype, "_type": "Value"}
    if column.shape == (1,):
        return value
    # datasets < 4 only knows "Sequence"; later ones read it as their "List".
    return {"feature": value, "length": column.shape[0], "_type": "Sequence"}


def vector_array(values: np.ndarray, column: Column) -> pa.Array:
    """``(T, n)`` as a column of numbers or of lists of fixed size."""
    flat = numbers(values.reshape(-1))
    if column.shape == (1,):
        return flat
    kind = pa.list_(pa.field(_ELEMENT, flat.type), values.shape[1])
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def picture_array(encoded: Sequence[bytes]) -> pa.Array:
    """Encoded pictures as a column of the Hub's Image type."""
    paths = pa.nulls(len(encoded), pa.string())
    return pa.StructArray.from_arrays([blobs(encoded, pa.binary()), paths], ["bytes", "path"])
