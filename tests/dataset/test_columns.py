"""Columns longer than what is read at once, in every kind of list."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dp_hub.dataset.columns import DataFile, Feature, read_column

N = 150_001  # rows, more than two readings


@pytest.mark.parametrize("row_group_size", [N, 40_000])
@pytest.mark.parametrize("kind", ["fixed", "list", "large list", "bool", "scalar"])
def test_long_columns_come_back_whole_whatever_the_row_groups(tmp_path, kind, row_group_size):
    if kind in ("bool", "scalar"):
        expected = np.arange(N) % 3 == 0 if kind == "bool" else np.arange(N, dtype=np.float64)
        column, shape = pa.array(expected), (1,)
    else:
        expected = np.arange(2 * N, dtype=np.float32).reshape(N, 2)
        flat, shape = pa.array(expected.reshape(-1)), (2,)
        bounds = np.arange(0, 2 * N + 1, 2)
        column = {
            "fixed": lambda: pa.FixedSizeListArray.from_arrays(flat, 2),
            "list": lambda: pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), flat),
            "large list": lambda: pa.LargeListArray.from_arrays(pa.array(bounds), flat),
        }[kind]()
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"x": column}), path, row_group_size=row_group_size)
    # Twice the same file: the second time its rows go behind the first ones.
    files = [DataFile(path, 0, N), DataFile(path, N, 2 * N)]
    read = read_column(files, Feature("x", str(expected.dtype), shape))
    assert read.dtype == expected.dtype and read.shape == (2 * N, *expected.shape[1:])
    np.testing.assert_array_equal(read, np.concatenate([expected, expected]))
