"""Numbered files of bounded size: ``chunk-000/file-000``, gapless, an episode never split."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

CHUNKS_SIZE = 1000  # files per chunk folder
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def place(number: int) -> tuple[int, int]:
    """Chunk and file index of the file with this number."""
    return divmod(number, CHUNKS_SIZE)


class ParquetShards:
    """Parquet files that roll over once they have grown past a limit.

    Args:
        root: the dataset's folder.
        template: `DATA_PATH` or `EPISODES_PATH`.
        schema: of every table that will come.
        options: arguments for pyarrow's ParquetWriter.
        limit_bytes: a file at least this long takes no further tables.
    """

    def __init__(
        self,
        root: Path,
        template: str,
        schema: pa.Schema,
        options: dict[str, Any],
        *,
        limit_bytes: int = DATA_FILE_MB * 1_000_000,
    ) -> None:
        self._root, self._template, self._schema = root, template, schema
        self._options, self._limit_bytes = options, limit_bytes
        self._number = -1
        self._file: Any = None
        self._writer: pq.ParquetWriter | None = None

    def next_place(self) -> tuple[int, int]:
        """Chunk and file index that the next table goes to; closes a file that is full."""
        if self._writer is not None and self._file.tell() >= self._limit_bytes:
            self.close()
        return place(self._number if self._writer is not None else self._number + 1)

    def write(self, table: pa.Table) -> tuple[int, int]:
        """Append ``table`` as one row group. Returns chunk and file index."""
        chunk, file = self.next_place()
        if self._writer is None:
            self._number += 1
            path = self._root / self._template.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
            self._writer = pq.ParquetWriter(self._file, self._schema, **self._options)
        self._writer.write_table(table, row_group_size=table.num_rows)
        return chunk, file

    def close(self) -> None:
        """Finish the open file."""
        if self._writer is not None:
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._writer = None
