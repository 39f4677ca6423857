"""HDF5 files: opened, walked and read without trusting what they say of their own size.

What can be wrong with a file is told as a `DataError` that names it: cut short, a compression that
is not installed, chunks that were never written (HDF5 reads those as zeros without a word).
"""

import contextlib
import functools
import json
import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from dp_hub_converters.hdf5.bytes import FileBytes, is_harmless
from dp_hub_converters.hdf5.damage import AGAIN, DAMAGE, damage_told
from dp_hub_converters.hdf5.walk import MAX_PIECE_BYTES, Walk
from dp_hub_converters.shared.natural import natural

from dp_hub.errors import DataError

SUFFIXES = (".hdf5", ".h5", ".hdf")
MAX_ARRAY_BYTES = 1 << 29  # numbers of one key of one episode, which are read at once
_SMALL = 1 << 20  # bytes: what is smaller fails soon enough when it is read
_MAX_FACT_NUMBERS = 256
_MAX_FACT_LETTERS = 4_000
_FILTERS = {307: "bzip2", 32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle"}
_FILTERS |= {32013: "zfp", 32015: "zstd", 32026: "blosc2", 4: "szip"}


def files_at(path: Path, *, pattern: str = "*") -> list[Path]:
    """The HDF5 file ``path``, or those below the folder in natural order.

    Raises:
        DataError: there are none.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise DataError(f"there is nothing at {path}")
    found = [p for p in path.rglob(pattern) if p.suffix in SUFFIXES and p.is_file()]
    if not found:
        raise DataError(f"{path} has no files {pattern}{{{','.join(SUFFIXES)}}} in it")
    return sorted(found, key=lambda file: natural(file.relative_to(path)))


def first_file_at(path: Path, *, pattern: str = "*") -> Path | None:
    """Some HDF5 file at ``path``, to recognise a format by; None if there is none."""
    try:
        some = [path] if path.is_file() else path.rglob(pattern)
        return next((p for p in some if p.suffix in SUFFIXES and h5py.is_hdf5(p)), None)
    except OSError:
        return None


def open_hdf5(path: Path, *, many: bool = False) -> h5py.File:
    """The file, for reading. It is closed when nothing of it is used any more.

    Args:
        path: of the file.
        many: there may be many small things in it, all of which will be looked at. It has to be
            closed then: the library takes what is written to a file that is still open for what
            was there before.
    Raises:
        DataError: there is none, or none that can be read.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    with damage_told(path):
        try:
            return _opened(path if many and is_harmless(path) else FileBytes(path))
        except DAMAGE:
            if h5py.is_hdf5(path):
                raise
    size = path.stat().st_size
    raise DataError(f"{path} is not an HDF5 file ({size} bytes)", hint=AGAIN)


def _opened(source: Path | FileBytes) -> h5py.File:
    """As ``h5py.File(source, "r")``, in less than half the time."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    name = os.fsencode(source) if isinstance(source, Path) else repr(source).encode()
    if isinstance(source, FileBytes):
        access.set_fileobj_driver(h5py.h5fd.fileobj_driver, source)
    return h5py.File(h5py.h5f.open(name, h5py.h5f.ACC_RDONLY, access))


def arrays_below(group: h5py.Group, where: str) -> dict[str, h5py.Dataset]:
    """All arrays in a group, sorted by name; in groups of it as ``group/name``.

    Raises:
        DataError: links that lead out of the file or to nothing, or groups within themselves.
    """
    return {key: h5py.Dataset(node) for key, node in Walk().below(group, where)}


def group_at(parent: h5py.Group, name: str, where: Any) -> h5py.Group:
    """A group of a group. Raises DataError if there is none."""
    place, node = name.encode(errors="surrogateescape"), None
    with contextlib.suppress(KeyError, ValueError):
        if parent.id.links.get_info(place).type != h5py.h5l.TYPE_EXTERNAL:
            node = h5py.h5g.open(parent.id, place)
    if node is None:
        raise DataError(f"{where} has no group {name}", hint=f"it has: {_some(parent)}")
    return h5py.Group(node)


def _some(group: h5py.Group) -> str:
    names = sorted(group)
    more = ", ..." if len(names) > 12 else ""
    return ", ".join(names[:12]) + more or "nothing"


def check_readable(array: h5py.Dataset, where: str, key: str) -> None:
    """Whether an array holds numbers that are really there and can be decoded.

    Args:
        array: the array.
        where: its file and place in it, for messages.
        key: what an episode calls it, likewise.

    Raises:
        DataError: it holds something else, is compressed with something that is not installed, was
            never written in whole, or claims a size that the file cannot hold.
    """
    dtype = array.dtype
    if dtype.kind not in "biuf":
        raise DataError(
            f"{where} holds {_kind(dtype)}; a dataset stores numbers and pictures",
            hint=f"leave it out with --drop {key}",
        )
    check_stored(array, where, key)


def check_stored(array: h5py.Dataset, where: str, key: str) -> None:
    """As `check_readable`, whatever the array holds."""
    plist = array.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
        raise DataError(
            f"{where} is kept in other files, which are not followed",
            hint="make it one whole file first, with h5repack",
        )
    packed = plist.get_nfilters() > 0
    if packed:
        _check_filters(plist, where)
    chunks = plist.get_chunk() if plist.get_layout() == h5py.h5d.CHUNKED else None
    _check_sizes(array, chunks, where, key, packed=packed)


def _kind(dtype: np.dtype) -> str:
    if h5py.check_string_dtype(dtype):
        return "texts"
    if h5py.check_ref_dtype(dtype):
        return "references"
    if h5py.check_vlen_dtype(dtype):
        return "arrays of differing lengths"
    return "compound values" if dtype.names else f"{dtype} values"


def _check_filters(plist: Any, where: str) -> None:
    _bring_filters()
    for number in range(plist.get_nfilters()):
        code, _, _, label = plist.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            name = _FILTERS.get(code) or label.decode(errors="replace") or str(code)
            raise DataError(
                f"{where} is compressed with {name} (HDF5 filter {code}), which is not installed",
                hint="pip install hdf5plugin",
            )


@functools.cache
def _bring_filters() -> None:
    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401  # brings them by being imported


def _check_sizes(
    array: h5py.Dataset, chunks: tuple[int, ...] | None, where: str, key: str, *, packed: bool
) -> None:
    stored, shape, item = array.id.get_storage_size(), array.id.shape, array.dtype.itemsize
    claimed = item * math.prod(shape)
    if chunks is None:
        missing = claimed > stored
    else:
        wanted = math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True))
        missing = array.id.get_num_chunks() < wanted
        claimed = 0 if packed else wanted * item * math.prod(chunks)
    if missing:
        raise DataError(
            f"{where} was not written in whole: {array.shape} {array.dtype} was announced; HDF5 "
            "would read what is missing as zeros",
            hint=f"{AGAIN}, or leave it out with --drop {key}",
        )
    most = max(stored, claimed)
    if most > _SMALL and most > h5py.h5i.get_file_id(array.id).get_filesize():
        raise DataError(f"{where} claims more bytes than the file has", hint=AGAIN)
    least = item * math.prod(shape[1:] if chunks is None else chunks)
    if shape and least > MAX_PIECE_BYTES:
        raise DataError(
            f"{where} can only be read {least / 1e6:,.0f} MB at a time",
            hint="make its chunks smaller with h5repack, for example one picture each",
        )


def read_numbers(array: h5py.Dataset, where: str, key: str) -> np.ndarray:
    """All of an array. Raises DataError as `check_readable`, or if it is too large for memory."""
    with damage_told(where):
        check_readable(array, where, key)
        shape, dtype = array.id.shape, array.dtype
        size = dtype.itemsize * math.prod(shape)
        if size <= MAX_ARRAY_BYTES:
            values = np.empty(shape, dtype)
            array.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
            return values
    raise DataError(
        f"{where} is {size / 1e6:,.0f} MB of {dtype} in one episode; only uint8 pictures may be "
        "as large",
        hint=f"leave it out with --drop {key}",
    )


def facts_of(node: Any, *, long: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The attributes of a group as JSON can hold them, and the names of those that are left out.

    Texts that are JSON objects come parsed. Long texts, long lists, and what is neither numbers
    nor texts are left out.

    Args:
        node: the group.
        long: keep texts of more than 4,000 letters too.
    """
    node = node["/"] if isinstance(node, h5py.File) else node
    facts, out, names = {}, [], list[bytes]()
    h5py.h5a.iterate(node.id, names.append)
    for name in sorted(each.decode(errors="surrogateescape") for each in names):
        value = plain(attribute(node, name), long=long)
        if value is None:
            out.append(name)
        else:
            facts[name] = value
    return facts, out


def attribute(node: Any, name: str) -> Any:
    """An attribute as h5py gives it; None if there is none, or a list too long to be a fact."""
    place = name.encode(errors="surrogateescape")
    if not h5py.h5a.exists(node.id, place):
        return None
    found = h5py.h5a.open(node.id, place)
    shape, dtype = found.shape, found.dtype
    if math.prod(shape or ()) > _MAX_FACT_NUMBERS:
        return None
    if dtype.kind not in "biuf" or not found.get_storage_size():
        return node.attrs[name]
    values = np.empty(shape, dtype)  # most are numbers, and few calls are enough for those
    found.read(values)
    return values[()]


def plain(value: Any, *, long: bool = False) -> Any:
    """A stored value as JSON can hold it; None if it cannot or is too long."""
    if isinstance(value, np.ndarray):
        if value.size > _MAX_FACT_NUMBERS or value.dtype.kind not in "biufSO":
            return None
        parts = [plain(part) for part in value.ravel().tolist()]
        return None if None in parts else np.array(parts, object).reshape(value.shape).tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return _parsed(value) if long or len(value) <= _MAX_FACT_LETTERS else None
    return value if isinstance(value, bool | int | float) else None


def _parsed(text: str) -> Any:
    if text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text, parse_constant=str)
    return text
