"""Pictures decoded once, into a file that can be mapped into memory, and that training reads.

A cached feature is ``<cache>/frames/<fingerprint>/<feature>.npy``: numpy's header, the frames as
uint8 (N, H, W, C), and behind them the CRC-32 of every frame, uint32 (N,). ``<feature>.json``
beside it says what it should hold. ``<cache>`` is $DP_HUB_CACHE, else $XDG_CACHE_HOME/dp_hub, else
~/.cache/dp_hub; everything in it can be deleted at any time.

Whoever opens a feature first decodes it, in threads, under a file lock: others wait, and use what
it made. Opening finds, within milliseconds, that a file is of the wrong length, that its header,
checksums or description changed, that the dataset's files have other sizes, or that one of 32
frames spread over it is damaged; `CachedFrames.verify` reads all of them.
"""

import contextlib
import io
import itertools
import json
import logging
import os
import shutil
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from dp_hub.dataset.frame_source import FrameSource, Part
from dp_hub.errors import DataError

log = logging.getLogger(__name__)
FORMAT = 1
_SAMPLED_FRAMES = 32
# Frames are written in pieces of this size: the system then keeps the file in large pieces, from
# which single frames are read twice as fast as from a file that was written frame by frame.
_BLOCK_BYTES = 4_000_000


def cache_root() -> Path:
    """The user's cache folder of dp_hub."""
    if own := os.environ.get("DP_HUB_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "dp_hub"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file so that nobody ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class CachedFrames:
    """The cache of one picture feature.

    Args:
        path: the .npy file; its folder is made when needed.
        source: where the pictures come from.
    """

    def __init__(self, path: Path, source: FrameSource) -> None:
        self.path, self.source = path, source
        self.description = path.with_suffix(".json")
        self._header = _npy_header(source.shape)
        self._data_bytes = int(np.prod(source.shape, dtype=np.int64))

    def open(self) -> np.memmap:
        """The frames, uint8 (N, H, W, C), read-only; decoded now if not there, or damaged.

        Raises:
            DataError: pictures cannot be decoded, the disk is full or the folder not writable.
        """
        if self._fault() is None:
            return self._map()
        with self._locked():
            fault = self._fault()  # another process may have built it meanwhile
            if fault is not None:
                if self.path.exists():
                    log.warning("%s is not usable: %s; decoding again", self.path, fault)
                self._build()
        return self._map()

    def verify(self) -> np.ndarray:
        """Numbers of the damaged frames, int64; all of them if the file as a whole is unusable.

        Reads every frame. `rebuild` mends them.
        """
        if self._fault() is not None:
            return np.arange(self.source.shape[0])
        size = self._data_bytes // self.source.shape[0]
        with self.path.open("rb") as file:  # not the map: its pages would stay in memory
            file.seek(len(self._header))
            good = [zlib.crc32(file.read(size)) == crc for crc in self._checksums().tolist()]
        return np.flatnonzero(~np.array(good))

    def rebuild(self) -> np.memmap:
        """Decode all frames again, whatever is there; as `open`."""
        with self._locked():
            self._build()
        return self._map()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("another process is decoding %s; waiting for it", self.source.name)
                lock.acquire()
        except (OSError, NotImplementedError) as error:
            raise self._unwritable(error) from None
        try:
            yield
        finally:
            lock.release()

    def _fault(self) -> str | None:
        """What is wrong with the files, or None. Cheap: reads 32 frames and the checksums."""
        try:
            described = json.loads(self.description.read_bytes())
            size = self.path.stat().st_size
        except (OSError, ValueError):
            return "it is not complete"
        if size != len(self._header) + self._data_bytes + 4 * self.source.shape[0]:
            return f"it has {size} bytes"
        sums = self._checksums()
        if described != self._describe(sums):
            return "its description does not fit the dataset and the checksums"
        with self.path.open("rb") as file:
            if file.read(len(self._header)) != self._header:
                return "its header is damaged"
        frames, n_frames = self._map(), self.source.shape[0]
        for number in np.unique(np.linspace(0, n_frames - 1, _SAMPLED_FRAMES).astype(int)):
            if zlib.crc32(frames[number].data) != sums[number]:
                return f"frame {number} is damaged"
        return None

    def _map(self) -> np.memmap:
        return np.memmap(
            self.path, np.uint8, mode="r", offset=len(self._header), shape=self.source.shape
        )

    def _checksums(self) -> np.ndarray:
        with self.path.open("rb") as file:
            file.seek(len(self._header) + self._data_bytes)
            return np.frombuffer(file.read(), "<u4")

    def _describe(self, sums: np.ndarray) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "feature": self.source.name,
            "shape": list(self.source.shape),
            "dtype": "uint8",
            "origin": self.source.origin,
            "checksums_crc32": zlib.crc32(sums.tobytes()),
        }

    def _build(self) -> None:
        partial = self.path.with_suffix(".npy.partial")
        try:
            self._check_space()
            with partial.open("wb") as file:
                file.write(self._header)
                _reserve(file, len(self._header) + self._data_bytes)
                sums = self._decode_into(file)
                file.seek(len(self._header) + self._data_bytes)
                file.write(sums.tobytes())
                file.flush()
                os.fsync(file.fileno())
            self.description.unlink(missing_ok=True)
            partial.replace(self.path)
            write_atomically(self.description, json.dumps(self._describe(sums)).encode())
        except OSError as error:
            raise self._unwritable(error) from None
        finally:
            partial.unlink(missing_ok=True)

    def _decode_into(self, file: BinaryIO) -> np.ndarray:
        """Decode all parts into the file; their checksums, uint32 (N,)."""
        sums = np.zeros(self.source.shape[0], "<u4")
        frame_bytes = self._data_bytes // self.source.shape[0]
        writing = threading.Lock()
        n_written = 0

        def write(part: Part) -> None:
            nonlocal n_written
            for first, block in _blocks(part, max(1, _BLOCK_BYTES // frame_bytes)):
                for number, frame in enumerate(block, first):
                    sums[number] = zlib.crc32(frame.data)
                with writing:
                    file.seek(len(self._header) + first * frame_bytes)
                    file.write(block.data)
                    n_written += len(block)
                    show(n_written)

        with _progress(f"decoding {self.source.name}", self.source.shape[0]) as show:
            _run_all(write, iter(self.source.parts()))
        assert n_written == len(sums), (n_written, len(sums))
        return sums

    def _check_space(self) -> None:
        needed = self._data_bytes + 4 * self.source.shape[0]
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise DataError(
                f"the decoded frames of {self.source.name} need {_gb(needed)} GB, but "
                f"{self.path.parent} has {_gb(free)} GB free",
                hint="make room, or set DP_HUB_CACHE to a folder on a larger disk",
            )

    def _unwritable(self, error: Exception) -> DataError:
        return DataError(
            f"cannot write the frame cache {self.path}: {error}",
            hint="make room, or set DP_HUB_CACHE to a folder that can be written",
        )


def _blocks(part: Part, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """The frames of a part, at most ``size`` at a time, and the number of the first of each."""
    frames = part.frames()
    first = part.start
    while block := list(itertools.islice(frames, size)):
        yield first, np.stack(block)
        first += len(block)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def _reserve(file: BinaryIO, size: int) -> None:
    """Take the room now: a full disk is an error here, not in the middle of the work."""
    file.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def _run_all(work: Callable[[Part], None], parts: Iterator[Part]) -> None:
    """Do all parts in threads, only a few of them listed ahead, so that memory stays bounded."""
    n_threads = min(32, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="dp_hub-frames")
    pending: set[Future[None]] = set()
    try:
        for part in parts:
            pending.add(pool.submit(work, part))
            if len(pending) >= 2 * n_threads:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        for future in pending:
            future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _progress(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, if a person is looking; yields what to tell the frames done so far."""
    if not sys.stderr.isatty():
        log.info("%s: %d frames", text, total)
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done: bar.update(task, completed=done)


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.3g}"
