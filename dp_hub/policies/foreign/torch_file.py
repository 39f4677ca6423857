"""torch's files: a pickle that describes tensors, and the bytes of their numbers beside it.

Two layouts: a zip archive without compression (torch 1.6 and later), and before that pickles and
bytes end to end. Both are read with `read_pickle`, so nothing in them is executed, and tensors are
made here from their bytes. Numbers are read when asked for: of a checkpoint with two models and an
optimizer only one model is wanted.
"""

import io
import math
import mmap
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dp_hub.errors import PolicyError
from dp_hub.policies.foreign.names import StorageRef, TensorRef
from dp_hub.policies.foreign.pickles import read_pickle

_ZIP_START = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MOST_PICKLE_BYTES = 2**27
_ZIP_FAULTS = (zipfile.BadZipFile, OSError, ValueError, RuntimeError, struct.error)
_DAMAGED = "copy or download it again"


class Storages(Protocol):
    """Where the numbers of tensors lie."""

    def raw(self, ref: StorageRef) -> bytearray:
        """The bytes of a storage, exactly as many as it needs. Raises PolicyError."""
        ...


class TorchFile:
    """An opened file.

    Args:
        payload: what it holds, with a `TensorRef` where a tensor is.
        storages: of the same file.
        size_bytes: of the file: no more is given of it than it holds, though every tensor may claim
            the same numbers.
    """

    def __init__(self, payload: Any, storages: Storages, size_bytes: int) -> None:
        self.payload = payload
        self._storages = storages
        self._left_bytes = size_bytes

    def tensor(self, ref: TensorRef) -> Tensor:
        """A tensor, contiguous and a copy. Raises PolicyError where the file lies or is damaged."""
        if 0 in ref.size:
            return torch.empty(ref.size, dtype=ref.storage.dtype)
        self._left_bytes -= math.prod(ref.size) * ref.storage.dtype.itemsize
        if self._left_bytes < 0:
            raise PolicyError("the tensors are together larger than the file", hint=_DAMAGED)
        raw = self._storages.raw(ref.storage)
        numbers = torch.frombuffer(raw, dtype=ref.storage.dtype)
        return numbers.as_strided(ref.size, ref.stride, ref.offset).clone(
            memory_format=torch.contiguous_format
        )


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """What ``torch.save`` wrote, read without running anything in it.

    Raises:
        PolicyError: no such file, another kind of file, a damaged one, or one with something in it
            that is not a plain value.
    """
    if path.is_dir():
        raise _not_a_file(path)
    if not path.is_file():
        raise PolicyError(f"no file at {path}")
    with path.open("rb") as file:
        start = file.read(len(_ZIP_START))
        if not start:
            raise PolicyError(f"{path} is empty")
        if start == _ZIP_START:
            yield _open_zip(file, path)
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield _open_legacy(mapped, path)


def _not_a_file(folder: Path) -> PolicyError:
    inside = [*folder.glob("*.ckpt"), *folder.glob("checkpoints/*.ckpt")]
    if (folder / "config.json").is_file():
        hint = f"a policy of LeRobot's is a folder: dp-hub convert policy {folder} --to DIR"
    elif inside:
        hint = f"for example {min(inside)}"
    else:
        hint = "the original's training writes them to checkpoints/, as epoch=0550-....ckpt"
    return PolicyError(
        f"{folder} is a folder; a checkpoint is a file that ends in .ckpt", hint=hint
    )


class _Zip:
    """Storages as entries ``<top>/data/<key>`` of an archive."""

    def __init__(self, archive: zipfile.ZipFile, top: str, path: Path) -> None:
        self._archive, self._top, self._path = archive, top, path

    def read(self, name: str) -> bytes:
        try:
            return self._archive.read(f"{self._top}/{name}")
        except KeyError:
            raise PolicyError(f"{self._path} lacks its entry {name}", hint=_DAMAGED) from None
        except (*_ZIP_FAULTS, EOFError) as error:
            raise PolicyError(f"{self._path} is damaged: {error}", hint=_DAMAGED) from None

    def raw(self, ref: StorageRef) -> bytearray:
        return _of_length(self.read(f"data/{ref.key}"), ref, self._path)


def _open_zip(file: Any, path: Path) -> TorchFile:
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_FAULTS as error:
        raise PolicyError(
            f"{path} is not a whole archive of torch's: {error}", hint=_DAMAGED
        ) from None
    entries = archive.infolist()
    _check_entries(entries, path)
    storages = _Zip(archive, _top_folder(entries, path), path)
    sizes = {entry.filename.partition("/")[2]: entry.file_size for entry in entries}
    if sizes["data.pkl"] > _MOST_PICKLE_BYTES:
        raise PolicyError(f"{path} describes its tensors in {sizes['data.pkl']:,} bytes")
    if "byteorder" in sizes and storages.read("byteorder") != b"little":
        raise PolicyError(f"{path} was written with another byte order than little-endian")
    payload = read_pickle(io.BytesIO(storages.read("data.pkl")), where=str(path))
    return TorchFile(payload, storages, path.stat().st_size)


def _check_entries(entries: list[zipfile.ZipInfo], path: Path) -> None:
    # As torch writes them: not compressed, each once. So no entry unfolds into more than the file,
    # and none is read twice through overlapping ones.
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise PolicyError(f"{path} has a compressed entry, which torch does not write")
        if ".." in entry.filename.split("/") or entry.filename.startswith("/"):
            raise PolicyError(f"{path} has an entry that names a file outside it")
    if len({entry.filename for entry in entries}) < len(entries):
        raise PolicyError(f"{path} has two entries of one name")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise PolicyError(f"{path} claims more bytes than it has", hint=_DAMAGED)


def _top_folder(entries: list[zipfile.ZipInfo], path: Path) -> str:
    tops = {entry.filename.partition("/")[0] for entry in entries}
    names = {entry.filename for entry in entries}
    if len(tops) != 1 or f"{min(tops)}/data.pkl" not in names:
        raise PolicyError(
            f"{path} is a zip archive, but not one of torch's",
            hint="give the .ckpt file that the training wrote",
        )
    return min(tops)


class _Legacy:
    """Storages end to end behind the pickles, each a count and its numbers."""

    def __init__(self, mapped: mmap.mmap, path: Path) -> None:
        self._mapped, self._path = mapped, path
        self._starts: dict[str, int] = {}

    def locate(self, keys: Any, refs: dict[str, StorageRef]) -> None:
        """Find where each storage lies; the file is positioned at the first."""
        at = self._mapped.tell()
        for key in keys if isinstance(keys, list) else []:
            ref = refs.get(key) if isinstance(key, str) else None
            if ref is None or self._mapped[at : at + 8] != struct.pack("<q", ref.numel):
                raise PolicyError(f"{self._path} is damaged at byte {at}", hint=_DAMAGED)
            self._starts[ref.key] = at + 8
            at += 8 + ref.numel * ref.dtype.itemsize

    def raw(self, ref: StorageRef) -> bytearray:
        start = self._starts.get(ref.key)
        if start is None:
            raise PolicyError(f"{self._path} lacks the numbers of a tensor", hint=_DAMAGED)
        stop = start + ref.numel * ref.dtype.itemsize
        return _of_length(self._mapped[start:stop], ref, self._path)


def _open_legacy(mapped: mmap.mmap, path: Path) -> TorchFile:
    where = str(path)
    if mapped[:1] != b"\x80" or read_pickle(mapped, where=where) != _LEGACY_MAGIC:
        raise PolicyError(
            f"{path} is not a file that torch wrote",
            hint="give the .ckpt file that the training wrote",
        )
    version, machine = read_pickle(mapped, where=where), read_pickle(mapped, where=where)
    if version != _LEGACY_PROTOCOL or not _is_little(machine):
        raise PolicyError(f"{path} is of an unknown version of torch's old layout")
    refs: dict[str, StorageRef] = {}
    payload = read_pickle(mapped, where=where, storages=refs)
    storages = _Legacy(mapped, path)
    storages.locate(read_pickle(mapped, where=where), refs)
    return TorchFile(payload, storages, path.stat().st_size)


def _is_little(machine: Any) -> bool:
    return isinstance(machine, dict) and machine.get("little_endian") is True


def _of_length(raw: bytes, ref: StorageRef, path: Path) -> bytearray:
    expected = ref.numel * ref.dtype.itemsize
    if len(raw) != expected:
        raise PolicyError(
            f"{path} has {len(raw):,} bytes for a storage of {ref.numel:,} numbers, which are "
            f"{expected:,}",
            hint=_DAMAGED,
        )
    return bytearray(raw)
