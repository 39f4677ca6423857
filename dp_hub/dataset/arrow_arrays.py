"""Arrow columns as numpy arrays, without the detour over pandas that `to_numpy` begins with."""

import numpy as np
import pyarrow as pa


def vectors(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A column of numbers or of fixed-size lists as ``(T, n)``; n is 1 for plain numbers.

    The column must have no nulls. The result may be read-only.
    """
    if isinstance(column, pa.ChunkedArray):
        parts = [vectors(chunk) for chunk in column.chunks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    length, values = len(column), column
    if pa.types.is_fixed_size_list(column.type):
        # Not `flatten`, which imports pyarrow.compute; but `values` forgets about slices.
        size = column.type.list_size
        values = column.values.slice(column.offset * size, length * size)
    return _flat(values).reshape(length, -1)


def _flat(values: pa.Array) -> np.ndarray:
    data = values.buffers()[1]
    if pa.types.is_boolean(values.type):
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return bits[values.offset : values.offset + len(values)].astype(np.bool_)
    dtype = np.dtype(values.type.to_pandas_dtype())
    return np.frombuffer(data, dtype, count=len(values), offset=values.offset * dtype.itemsize)
