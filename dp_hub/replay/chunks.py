"""Which chunks of a zarr array are missing: zarr itself reads them as zeros without a word.

A chunk that was never written and one that was lost look the same on disk. zarr-python 2, which
wrote the published replay buffers, stores every chunk; zarr-python 3 leaves out chunks that hold
nothing but the fill value. Since losing data silently is the worse mistake, a missing chunk is
refused unless the caller says that it stands for the fill value.
"""

import itertools
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import zarr


def stored_names(path: Path) -> set[str]:
    """Every file of a store, as names relative to its root with forward slashes."""
    if path.is_dir():
        return {
            os.path.relpath(os.path.join(folder, name), path).replace(os.sep, "/")
            for folder, _, names in os.walk(path)
            for name in names
        }
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def missing_chunks(array: zarr.Array, names: set[str]) -> Iterator[tuple[str, int, int]]:
    """The chunks (shards, where there are shards) of ``array`` that are not stored.

    Yields:
        ``(chunk key, first row, end row)``; the rows are the ones the chunk would hold.
    """
    if array.ndim == 0 or 0 in array.shape:
        return
    size = array.shards or array.chunks
    grid = [range(math.ceil(n / c)) for n, c in zip(array.shape, size, strict=True)]
    prefix = f"{array.path}/" if array.path else ""
    for place in itertools.product(*grid):
        key = array.metadata.encode_chunk_key(place)
        if prefix + key not in names:
            first = place[0] * size[0]
            yield key, first, min(first + size[0], array.shape[0])
