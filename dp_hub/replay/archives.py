"""Folders and zip archives of zarr: what is in them, and whether it can be unpacked here."""

import os
import zipfile
from pathlib import Path

from dp_hub.errors import DataError

MARKERS = (".zgroup", "zarr.json")
_UNPACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_METHODS = {9: "deflate64", 93: "zstd", 95: "xz", 98: "PPMd"}
_ENCRYPTED = 1


def is_replay(path: Path) -> bool:
    """Whether a folder or .zip looks like a replay buffer, at its root or one folder down."""
    try:
        if path.is_file():
            if not zipfile.is_zipfile(path):
                return False
            with zipfile.ZipFile(path) as archive:
                return _has_ends(set(archive.namelist()))
        tops = [path, *(top for top in path.iterdir() if top.is_dir())] if path.is_dir() else []
        return any(_has_marker(top / "meta" / "episode_ends") for top in tops)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def stored_names(path: Path) -> set[str]:
    """Every file of a store, as names relative to its root with forward slashes.

    Raises:
        DataError: an archive that cannot be unpacked here.
    """
    if path.is_dir():
        return {
            os.path.relpath(os.path.join(folder, name), path).replace(os.sep, "/")
            for folder, _, names in os.walk(path)
            for name in names
        }
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read as a .zip: {error}", hint="was the download cut short?"
        ) from None
    for entry in entries:
        _check_entry(path, entry)
    return {entry.filename for entry in entries}


def group_prefix(path: Path, names: set[str]) -> str:
    """Where the group with data/ and meta/ is: '' or 'folder/'. Raises DataError."""
    folders = sorted({name.split("/", 1)[0] + "/" for name in names if "/" in name})
    for prefix in ["", *folders]:
        is_group = any(prefix + marker in names for marker in MARKERS)
        if is_group and any(name.startswith(f"{prefix}data/") for name in names):
            return prefix
    zarrs = sorted(p.rstrip("/") for p in folders if any(p + m in names for m in MARKERS))
    hint = "it needs data/<key> arrays and meta/episode_ends"
    if zarrs:
        hint += f"; zarr nodes seen: {', '.join(zarrs[:5])}"
    raise DataError(f"{path} is not a replay buffer", hint=hint)


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    if entry.flag_bits & _ENCRYPTED:
        raise DataError(
            f"{path} is encrypted ({entry.filename})", hint="unzip it and give the folder"
        )
    if entry.compress_type not in _UNPACKED:
        method = _METHODS.get(entry.compress_type, f"method {entry.compress_type}")
        raise DataError(
            f"{path} is packed with {method} ({entry.filename}), which is not readable here",
            hint="unzip it (7z x, unzip) and give the folder",
        )


def _has_marker(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (".zarray", "zarr.json"))


def _has_ends(names: set[str]) -> bool:
    ends = {f"meta/episode_ends/{name}" for name in (".zarray", "zarr.json")}
    return any(
        name in ends or name.partition("/")[2] in ends
        for name in names
        if name.endswith(tuple(ends))
    )
