"""Which folders are episodes, and what lies in them: tables, videos and folders of pictures."""

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dp_hub_converters.shared.natural import natural

from dp_hub.errors import DataError

TABLES = (".npz", ".npy", ".csv", ".parquet")
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
UNITREE = "data.json"
_DEEPEST = 8
_NUMBERED = re.compile(r".*\d")
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


@dataclass(frozen=True)
class EpisodeFolder:
    """What lies in one episode's folder, everything in natural order and by its name there.

    Args:
        path: of the folder.
        name: its place within the source.
        tables: files.
        videos: file by name without suffix.
        pictures: files by the folder that they are in; ``images`` for those at the top.
    """

    path: Path
    name: str
    tables: tuple[Path, ...]
    videos: Mapping[str, Path]
    pictures: Mapping[str, tuple[Path, ...]]

    def name_of(self, file: Path) -> str:
        """Where a file is within the episode, without suffix."""
        return file.relative_to(self.path).with_suffix("").as_posix()


def find_episodes(path: Path) -> list[Path]:
    """The folders that are episodes, in order.

    An episode is a folder with tables or videos in it; what is below belongs to it. Only where
    there are numbered folders with tables of their own below, those are the episodes, and what lies
    beside them is about all of them.

    Raises:
        DataError: ``path`` is no folder, or there are none in it.
    """
    if not path.is_dir():
        raise DataError(
            f"{path} is no folder" if path.exists() else f"there is nothing at {path}",
            hint="give the folder with a folder for each episode, or that of one episode",
        )
    try:
        found = list(_episodes(path, 0))
    except OSError as error:
        raise DataError(f"{path} cannot be searched: {error}") from None
    if not found:
        raise DataError(
            f"{path} holds no tables ({', '.join(TABLES)}) and no videos",
            hint="an episode is a folder with tables, and videos or pictures beside them",
        )
    return found


def look_into(folder: Path, source: Path) -> EpisodeFolder:
    """What lies in an episode's folder. Raises DataError if it cannot be read."""
    tables: list[Path] = []
    videos: dict[str, Path] = {}
    pictures: dict[str, list[Path]] = {}
    try:
        files = sorted(_files(folder), key=natural)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error}") from None
    for file in files:
        suffix = file.suffix.lower()
        if suffix in TABLES:
            tables.append(file)
        elif suffix in VIDEOS:
            name = file.relative_to(folder).with_suffix("").as_posix()
            if name in videos:
                raise DataError(f"{folder} has two videos {name}: {videos[name].name}, {file.name}")
            videos[name] = file
        elif suffix in PICTURES:
            place = file.parent.relative_to(folder).as_posix()
            pictures.setdefault("images" if place == "." else place, []).append(file)
    for name, some in pictures.items():
        _check_numbers(folder / name, some)
    place = "." if folder == source else folder.relative_to(source).as_posix()
    gathered = {name: tuple(some) for name, some in pictures.items()}
    return EpisodeFolder(folder, place, tuple(tables), videos, gathered)


def is_episode(folder: Path) -> bool:
    """Whether tables or videos lie in it. Raises OSError."""
    return _holds(folder, (*TABLES, *VIDEOS)) or (folder / UNITREE).is_file()


def folders_in(folder: Path) -> list[Path]:
    """The folders in it, in natural order, without hidden ones. Raises OSError."""
    below = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."]
    return sorted(below, key=lambda entry: natural(entry.name))


def _episodes(folder: Path, depth: int) -> Iterator[Path]:
    if depth > _DEEPEST:
        return
    below = folders_in(folder)
    numbered = [entry for entry in below if _NUMBERED.fullmatch(entry.name)]
    if not any(_holds(one, TABLES) or (one / UNITREE).is_file() for one in numbered) and is_episode(
        folder
    ):
        yield folder
        return
    for entry in below:
        yield from _episodes(entry, depth + 1)


def _holds(folder: Path, suffixes: tuple[str, ...]) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(suffixes) and entry.is_file() for entry in entries)


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        depth = len(Path(root).relative_to(folder).parts)
        if depth >= _DEEPEST:
            folders.clear()
        yield from (Path(root, name) for name in names if name[0] != ".")


def _check_numbers(folder: Path, files: list[Path]) -> None:
    """Raises DataError if pictures numbered one by one lack a number in between."""
    found = [_LAST_NUMBER.search(file.stem) for file in files]
    numbers = [int(match[1]) for match in found if match]
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    if len(numbers) != len(files) or steps.count(1) * 2 <= len(steps):
        return
    gap = next((place for place, step in enumerate(steps) if step > 1), None)
    if gap is not None:
        raise DataError(
            f"{folder} has no picture {numbers[gap] + 1}: after {files[gap].name} comes "
            f"{files[gap + 1].name}",
            hint="copy the pictures again; if it was never taken, leave the episode out",
        )
