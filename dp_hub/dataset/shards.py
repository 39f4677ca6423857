"""Numbered files of bounded size: ``chunk-000/file-000``, gapless, an episode never split."""

import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.files import discard, share_file

N = TypeVar("N", int, np.ndarray)
CHUNKS_SIZE = 1000  # files per chunk folder
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
# Parquet keeps some 10 kB for every row group in memory until the file is closed, and so does
# whoever reads it; LeRobot only limits the size.
ROW_GROUPS_PER_FILE = 500
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
# Of LeRobot's format before v3.0: a file an episode.
V21_DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V21_VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def place(number: N) -> tuple[N, N]:
    """Chunk and file index of the file with this number; of an array of numbers, at once."""
    return divmod(number, CHUNKS_SIZE)


def number_of(chunk: N, file: N) -> N:
    """The inverse of `place`."""
    return chunk * CHUNKS_SIZE + file


def numbered(root: Path, template: str, number: int, *, video: str = "") -> Path:
    """The path of the file with this number; where a file is an episode, of the episode."""
    chunk, file = place(number)
    as_episode = {"episode_chunk": chunk, "episode_index": number}
    return root / template.format(chunk_index=chunk, file_index=file, video_key=video, **as_episode)


class ParquetShards:
    """Parquet files that roll over once they are full; hidden until they are closed.

    Args:
        root: the dataset's folder.
        template: `DATA_PATH` or `EPISODES_PATH`.
        schema: of every table that will come.
        options: arguments for pyarrow's ParquetWriter.
        first_number: number of the first file to write.
    """

    def __init__(
        self,
        root: Path,
        template: str,
        schema: pa.Schema,
        options: dict[str, Any],
        *,
        first_number: int = 0,
    ) -> None:
        self.root, self._template, self._schema = root, template, schema
        self._options = options
        self.number = first_number  # of the open file, or the next
        self._n_groups = 0
        self._file: Any = None
        self._writer: pq.ParquetWriter | None = None

    @property
    def path(self) -> Path:
        """Of the open file, once it is closed, or of the next one."""
        return numbered(self.root, self._template, self.number)

    def next_place(self) -> tuple[int, int]:
        """Chunk and file index that the next table goes to; closes a file that is full."""
        if self._writer is not None and is_full(self._n_groups, self._file.tell()):
            self.close()
        return place(self.number)

    def write(self, table: pa.Table) -> tuple[int, int]:
        """Append ``table`` as one row group. Returns chunk and file index."""
        chunk, file = self.next_place()
        if self._writer is None:
            self._n_groups = 0
            self._hidden().parent.mkdir(parents=True, exist_ok=True)
            self._file = self._hidden().open("wb")
            self._writer = pq.ParquetWriter(self._file, self._schema, **self._options)
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._n_groups += 1
        return chunk, file

    def share(self, source: Path) -> tuple[int, int]:
        """Take a whole file over as the next one. Returns chunk and file index."""
        self.close()
        share_file(source, self.path)
        self.number += 1
        return place(self.number - 1)

    def close(self) -> None:
        """Finish the open file, let it reach the disk, and give it its name."""
        if self._writer is None:
            return
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._writer = None
        os.replace(self._hidden(), self.path)
        self.number += 1

    def abandon(self) -> None:
        """Let go of the open file and remove it."""
        if self._writer is not None:
            # The writer itself is not closed: it would write, and may be what has failed.
            self._writer.is_open = False
            self._writer = None
            self._file.close()
            discard(self._hidden())

    def _hidden(self) -> Path:
        return self.path.with_name(f".{self.path.name}.open")


def is_full(n_groups: int, n_bytes: int) -> bool:
    """Whether a data file of so many row groups and bytes (without its footer) takes no more."""
    return n_bytes >= DATA_FILE_MB * 1_000_000 or n_groups >= ROW_GROUPS_PER_FILE


def is_full_video(n_bytes: int) -> bool:
    """Whether a video with so many bytes of packets takes no more episodes."""
    return n_bytes >= VIDEO_FILE_MB * 1_000_000


def is_full_file(path: Path) -> bool:
    """`is_full` of a closed file."""
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        last = metadata.row_group(metadata.num_row_groups - 1)
        ends = (_end(last.column(i)) for i in range(last.num_columns))
        return is_full(metadata.num_row_groups, max(ends))


def _end(chunk: Any) -> int:
    start = chunk.data_page_offset
    if chunk.has_dictionary_page:
        start = min(start, chunk.dictionary_page_offset)
    return int(start + chunk.total_compressed_size)
