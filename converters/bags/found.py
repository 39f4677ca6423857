"""Which bags there are: folders with metadata.yaml, and files on their own."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from dp_hub_converters.bags.storage import MCAP, ROSBAG, SQLITE, ZSTD
from dp_hub_converters.shared.natural import natural

from dp_hub.errors import DataError

_ENDS = (".mcap", ".db3", ".bag", ".mcap.zstd", ".db3.zstd")
_INFORMATION = "rosbag2_bagfile_information"
_LARGEST_METADATA = 16 << 20


@dataclass(frozen=True)
class Bag:
    """One recording.

    Args:
        name: its path within the source.
        files: its parts in order.
        counts: messages by topic, as its metadata.yaml says.
        facts: what else that file says of it.
        notes: things to tell about it.
        error: why it cannot be read, if that is known.
    """

    name: str
    files: tuple[Path, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: DataError | None = None


def looks_like_bags(path: Path) -> bool:
    """Whether a file or a folder is a bag or holds some, from names and first bytes."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                magic = file.read(16)
            known = magic.startswith((MCAP, ROSBAG))
            return known or (_is_bag_file(path) and magic.startswith((SQLITE, ZSTD)))
        if _is_bag_folder(path):
            return True
        return any(_is_bag_file(one) for one in islice(path.rglob("*"), 2000) if one.is_file())
    except OSError:
        return False


def find_bags(path: Path) -> list[Bag]:
    """All bags of a file or folder, in natural order. Raises DataError if there are none."""
    if path.is_file():
        return [Bag(path.name, (path,))]
    if not path.is_dir():
        raise DataError(f"there is no file or folder {path}")
    bags = sorted(_below(path, path), key=lambda bag: natural(bag.name))
    if not bags:
        raise DataError(
            f"{path} holds no bags",
            hint="a bag is a folder with metadata.yaml, or a file that ends with "
            + ", ".join(_ENDS[:3]),
        )
    return bags


def _below(folder: Path, root: Path) -> Iterator[Bag]:
    if _is_bag_folder(folder):
        try:
            yield _bag_folder(folder, root)
        except DataError as error:
            yield Bag(_name(folder, root), (), error=error)
        return
    files = []
    for one in sorted(folder.iterdir()):
        if one.is_dir() and not one.is_symlink():
            yield from _below(one, root)
        elif one.is_file() and _is_bag_file(one):
            files.append(one)
    stems = [re.sub(r"_\d+$", "", one.name.split(".")[0]) for one in files]
    for one, stem in zip(files, stems, strict=True):
        note = f"{one.name} looks like one of several parts of a bag without metadata.yaml: each "
        note += "is taken for a recording; `ros2 bag reindex` puts them together"
        parts = stems.count(stem) > 1 and one.name.split(".")[0] != stem and one.suffix != ".bag"
        yield Bag(_name(one, root), (one,), notes=(note,) if parts else ())


def _is_bag_file(path: Path) -> bool:
    return path.name.lower().endswith(_ENDS)


def _is_bag_folder(path: Path) -> bool:
    metadata = path / "metadata.yaml"
    if not metadata.is_file():
        return False
    with metadata.open("rb") as file:
        return _INFORMATION.encode() in file.read(4096)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else path.name


def _bag_folder(folder: Path, root: Path) -> Bag:
    """A bag of ROS 2, its parts in the order that metadata.yaml says."""
    told = _metadata(folder / "metadata.yaml")
    listed = told.get("relative_file_paths")
    listed = listed if isinstance(listed, list) else []
    names = [PurePosixPath(one).name for one in listed if isinstance(one, str)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        there = sorted((p.name for p in folder.iterdir() if _is_bag_file(p)), key=natural)
        raise DataError(
            f"{folder} misses parts that its metadata.yaml lists: {', '.join(missing[:4])} "
            f"(there are: {', '.join(there[:4]) or 'none'})",
            hint="copy the whole folder again",
        )
    if not names:
        raise DataError(f"{folder}/metadata.yaml lists no files", hint="run `ros2 bag reindex`")
    facts = {key: told[key] for key in ("ros_distro", "custom_data") if told.get(key)}
    files = tuple(folder / name for name in names)
    return Bag(_name(folder, root), files, _counts(told), facts)


class _Plain(yaml.SafeLoader):
    """YAML without aliases: recorders write none, and a few lines of them can fill a memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "it has an alias", mark)
        return super().compose_node(parent, index)


def _metadata(path: Path) -> Mapping[str, Any]:
    hint = "run `ros2 bag reindex`, or give the .mcap or .db3 file itself"
    try:
        if path.stat().st_size > _LARGEST_METADATA:
            raise DataError(f"{path} is too large to be the metadata of a bag", hint=hint)
        document = yaml.load(path.read_text(encoding="utf-8"), _Plain)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} cannot be read: {first}", hint=hint) from None
    told = document.get(_INFORMATION) if isinstance(document, dict) else None
    if not isinstance(told, dict):
        raise DataError(f"{path} does not describe a bag", hint=hint)
    return told


def _counts(told: Mapping[str, Any]) -> dict[str, int]:
    """Messages by topic, as far as the metadata can be understood."""
    counts: dict[str, int] = {}
    topics = told.get("topics_with_message_count")
    for one in topics if isinstance(topics, list) else []:
        about = one.get("topic_metadata") if isinstance(one, dict) else None
        count = one.get("message_count") if isinstance(one, dict) else None
        if isinstance(about, dict) and isinstance(count, int):
            name = about.get("name")
            if isinstance(name, str):
                counts[name] = counts.get(name, 0) + count
    return counts
