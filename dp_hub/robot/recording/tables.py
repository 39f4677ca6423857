"""Numbers of a stream in a file that survives a kill: Arrow's stream format, Parquet at the end.

Of an Arrow stream all batches can be read that reached the file, whatever became of the writer.
Parquet, which ``dp-hub convert folder`` reads, can be read only once it is complete.
"""

import json
import queue
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.robot.fields import Field

TIME = "time_s"
GROWING = ".arrows"


class GrowingTable:
    """Rows of one stream, written batch by batch.

    `add` is for one thread and only remembers; `flush`, `close` and `abandon`, which may wait for
    the disk, are for another.

    Args:
        path: of the file, which must not be there; it is made by the first `flush`.
        columns: what it holds besides the time, from `column_of`.
    """

    def __init__(self, path: Path, columns: Sequence[pa.Field]) -> None:
        self._schema = pa.schema([pa.field(TIME, pa.float64()), *columns])
        self._path = path
        self._waiting: queue.SimpleQueue[pa.RecordBatch] = queue.SimpleQueue()
        self._file: BinaryIO | None = None
        self._writer: Any = None

    def add(self, times_s: np.ndarray, values: Mapping[str, Any]) -> None:
        """Add rows; `flush` writes them.

        Args:
            times_s: float64 ``(k,)``.
            values: ``(k, ...)`` by column, or lists.
        """
        if len(times_s):
            arrays = [pa.array(times_s, pa.float64())]
            arrays += [_array(values[f.name], f.type) for f in list(self._schema)[1:]]
            self._waiting.put(pa.record_batch(arrays, schema=self._schema))

    def flush(self) -> None:
        """Let all rows so far reach the file. Raises OSError."""
        if self._file is None:
            self._file = self._path.open("xb")
            self._writer = pa.ipc.new_stream(self._file, self._schema)
            # What the columns are is written with the first batch, though none may come for long.
            self._writer.write_batch(pa.RecordBatch.from_pylist([], schema=self._schema))
        batches = []
        while not self._waiting.empty():
            batches.append(self._waiting.get())
        if batches:
            self._writer.write_table(pa.Table.from_batches(batches).combine_chunks())
        self._file.flush()

    def close(self) -> None:
        """Write what is left. Raises OSError."""
        try:
            self.flush()
            self._writer.close()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without writing more."""
        if self._file is not None:
            self._file.close()


def warm_up() -> None:
    """Let pyarrow load what it looks for at its first array, pandas, which takes seconds."""
    pa.array(np.zeros(1), pa.float64())
    pa.array([True], pa.bool_())


def column_of(field: Field) -> pa.Field:
    """How the numbers of a field are stored: one of them as it is, several as a list.

    Names and units are metadata of the column, where ``dp-hub convert folder`` finds the names.
    """
    kind = pa.from_numpy_dtype(np.dtype(field.dtype))
    kind = pa.list_(kind, int(np.prod(field.shape))) if field.shape else kind
    about = {"names": field.names, "units": field.units}
    metadata = {key: json.dumps(list(told)) for key, told in about.items() if told}
    return pa.field(field.name, kind, metadata=metadata or None)


def as_parquet(growing: Path, path: Path, *, most_rows: int | None = None) -> int:
    """Make a Parquet file of what can be read of a growing table. Returns how many rows it has.

    Args:
        growing: the table's file, closed or cut off.
        path: of the new file.
        most_rows: later ones are left out.
    Raises:
        OSError: it cannot be written, or nothing can be read.
    """
    n_rows = 0
    with growing.open("rb") as file:
        try:
            reader = pa.ipc.open_stream(file)
        except pa.ArrowException as error:
            raise OSError(f"{growing.name} holds nothing that can be read: {error}") from None
        with pq.ParquetWriter(path, reader.schema) as writer:
            for batch in _whole_batches(reader):
                part = batch if most_rows is None else batch.slice(0, most_rows - n_rows)
                if part.num_rows:
                    writer.write_batch(part)
                n_rows += part.num_rows
    return n_rows


def is_begun(growing: Path) -> bool:
    """Whether what its columns are can be read of a growing table."""
    with growing.open("rb") as file:
        try:
            pa.ipc.open_stream(file)
        except pa.ArrowException:
            return False
    return True


def growing_rows(growing: Path) -> int:
    """How many rows can be read of a growing table; 0 where nothing can."""
    with growing.open("rb") as file:
        try:
            reader = pa.ipc.open_stream(file)
        except pa.ArrowException:
            return 0
        return sum(batch.num_rows for batch in _whole_batches(reader))


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a finished table: ``(n,)`` or ``(n, D)``; texts as an object array."""
    table = pq.read_table(path, memory_map=False)
    return {name: _values(table[name]) for name in table.column_names}


def _whole_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    """Up to the first that is cut off."""
    while True:
        try:
            batch = reader.read_next_batch()
        except (StopIteration, pa.ArrowException, OSError):
            return
        yield batch


def _array(values: np.ndarray | Sequence[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_fixed_size_list(kind):
        return pa.array(values, kind)
    flat = np.ascontiguousarray(values).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind.value_type), kind.list_size)


def _values(column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    if pa.types.is_string(kind):
        return np.array(column.to_pylist(), object)
    if not pa.types.is_fixed_size_list(kind):
        return np.asarray(column.to_numpy())
    dtype = kind.value_type.to_pandas_dtype()
    parts = [np.asarray(c.flatten().to_numpy(zero_copy_only=False)) for c in column.chunks]
    flat = np.concatenate(parts) if parts else np.empty(0, dtype)
    return flat.reshape(-1, kind.list_size)
