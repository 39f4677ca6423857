"""Where the files of an RLDS dataset are: versions, splits and shards, in order."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dp_hub_converters.shared.natural import natural
from dp_hub_converters.tfrecords.features import Leaf, read_features, read_json

from dp_hub.errors import DataError

_SHARD = re.compile(r"(?P<name>.+)-(?P<split>[^-]+)\.(?P<kind>\w+)-(?P<number>\d+)-of-(?P<all>\d+)")
_COPY = "copy or download the missing files"


@dataclass(frozen=True)
class Tree:
    """The folder of one version of a dataset.

    Args:
        path: of the folder.
        leaves: what features.json lists.
        listed: by split, how many records each shard has, as dataset_info.json says.
        name: of the dataset.
    """

    path: Path
    leaves: tuple[Leaf, ...]
    listed: Mapping[str, tuple[int, ...]]
    name: str

    @cached_property
    def present(self) -> dict[str, list[Path]]:
        """By split, the files that are there, in order. Raises DataError if some are missing."""
        found: dict[str, dict[int, Path]] = {}
        wanted: dict[str, int] = {}
        for file in _files(self.path):
            match = _SHARD.fullmatch(file.name)
            if match is None:
                continue
            if match["kind"] != "tfrecord":
                raise DataError(
                    f"{file} is of the kind {match['kind']}, which cannot be read here",
                    hint="write the dataset as tfrecord (the usual file_format of TFDS)",
                )
            found.setdefault(match["split"], {})[int(match["number"])] = file
            wanted[match["split"]] = int(match["all"])
        order = [*(s for s in self.listed if s in found), *sorted(set(found) - set(self.listed))]
        return {split: self._whole(split, found[split], wanted[split]) for split in order}

    def _whole(self, split: str, files: Mapping[int, Path], count: int) -> list[Path]:
        missing = next((number for number in range(count) if number not in files), None)
        if missing is not None or len(files) != count:
            raise DataError(
                f"{self.path}: the split {split} has {len(files)} of {count} files; number "
                f"{missing} is missing",
                hint=_COPY,
            )
        return [files[number] for number in range(count)]

    def notes(self, split: str | None) -> Iterator[str]:
        """What is listed but not there."""
        for name in self.listed:
            if name not in self.present and split is None:
                yield f"dataset_info.json lists the split {name}, of which there are no files"


@dataclass(frozen=True)
class Shard:
    """One TFRecord file.

    Args:
        path: of the file.
        name: its place within the source.
        split: it belongs to.
        tree: likewise.
        expected: number of records, if dataset_info.json says.
    """

    path: Path
    name: str
    split: str
    tree: Tree
    expected: int | None


def find_trees(path: Path) -> list[Tree]:
    """The versions of datasets at ``path``, in order.

    Raises:
        DataError: there is none, one is not as TFDS writes it, or they do not belong together.
    """
    folder = path.parent if path.is_file() else path
    if not path.exists():
        raise DataError(f"there is nothing at {path}")
    found = [folder] if (folder / "features.json").is_file() else _below(folder)
    if not found:
        raise DataError(
            f"{path} holds no features.json, so it is no RLDS dataset",
            hint="give the folder of a version, such as bridge_dataset/1.0.0; old datasets without "
            "features.json have to be written again by TFDS 4 or later",
        )
    twice = next((one for one in found[1:] if one.parent == found[0].parent), None)
    if twice is not None:
        raise DataError(
            f"{found[0]} and {twice} are two versions of a dataset",
            hint="give the folder of one of them",
        )
    trees = [_tree(one) for one in found]
    for tree in trees[1:]:
        _check_same(trees[0], tree)
    return trees


def shards_of(tree: Tree, path: Path, split: str | None) -> Iterator[Shard]:
    """The files of a tree in order: of one split or all, or the one file that ``path`` is."""
    for name, files in tree.present.items():
        if split not in (None, name):
            continue
        lengths = tree.listed.get(name, ())
        for number, file in enumerate(files):
            if path.is_file() and file.name != path.name:
                continue
            expected = lengths[number] if len(lengths) == len(files) else None
            place = file.name if path.is_file() else file.relative_to(path).as_posix()
            yield Shard(file, place, name, tree, expected)


def _below(folder: Path) -> list[Path]:
    try:
        return sorted((file.parent for file in folder.rglob("features.json")), key=natural)
    except OSError as error:
        raise DataError(f"{folder} cannot be searched: {error}") from None


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.is_file())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error}") from None


def _tree(folder: Path) -> Tree:
    leaves = read_features(folder / "features.json")
    info = folder / "dataset_info.json"
    facts = read_json(info) if info.is_file() else {}
    try:
        listed = {str(split["name"]): _lengths(split) for split in facts.get("splits", ())}
        name = str(facts.get("name") or folder.parent.name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{info} is not as TensorFlow Datasets writes it: {type(error).__name__} {error}",
            hint="copy or download it again",
        ) from None
    return Tree(folder, leaves, listed, name)


def _lengths(split: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(length) for length in split.get("shardLengths", ()))


def _check_same(one: Tree, other: Tree) -> None:
    """Raises DataError if the steps of two datasets have different features."""
    ours, theirs = ({leaf.path: leaf for leaf in t.leaves if leaf.in_steps} for t in (one, other))
    for path in {**ours, **theirs}:
        left, right = ours.get(path), theirs.get(path)
        if left != right:
            raise DataError(
                f"{one.path} and {other.path} differ in {path}: {_told(left)} and {_told(right)}",
                hint="convert them one by one",
            )


def _told(leaf: Leaf | None) -> str:
    return "absent" if leaf is None else f"{leaf.dtype} {list(leaf.shape)}"
