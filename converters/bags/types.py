"""Definitions of ROS messages: from the bag, from a folder of .msg files, or of a distribution.

rosbags parses them; nothing is compiled or run. What a type cannot be parsed for concerns only the
topics of that type.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from dp_hub_converters.bags.fields import (
    Group,
    Leaf,
    Moment,
    Numbers,
    Part,
    Repeat,
    Text,
    shown_leaves,
)
from dp_hub_converters.bags.storage import Channel
from rosbags.interfaces import Nodetype
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)
from rosbags.typesys.msg import normalize_msgtype

from dp_hub.errors import DataError

Distro = Literal[
    "dashing", "eloquent", "foxy", "galactic", "humble", "iron", "jazzy", "kilted", "noetic"
]
HEADER = "std_msgs/msg/Header"
TIMES = ("builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration")
_IGNORED = ("std_msgs/msg/MultiArrayLayout",)
_DTYPES = {"bool": "b1", "byte": "u1", "char": "u1", "octet": "u1", "float32": "f4"}
_DTYPES |= {"float64": "f8"} | {f"int{8 * size}": f"i{size}" for size in (1, 2, 4, 8)}
_DTYPES |= {f"uint{8 * size}": f"u{size}" for size in (1, 2, 4, 8)}
_LARGEST_TEXT = 1 << 20
_DEEPEST = 24
_SEP = "=" * 80 + "\n"


class Definitions:
    """What message types are made of.

    Args:
        distro: of ROS, for the usual types of bags that do not define them.
        msg_path: a folder of ``PACKAGE/msg/TYPE.msg`` files, for the other types.
    """

    def __init__(self, distro: str = "humble", msg_path: str | None = None) -> None:
        self._distro, self._folder = distro, Path(msg_path) if msg_path else None
        self._known: dict[tuple[str, bytes], Group | DataError] = {}
        self._files: dict[str, Path] | None = None
        self._fields: Mapping[str, Any] | None = None

    def group(self, channel: Channel) -> Group:
        """The fields of a channel's messages.

        Raises:
            DataError: nothing defines the type, or it cannot be parsed.
        """
        key = (channel.type, channel.definition)
        if key not in self._known:
            try:
                self._known[key] = self._parsed(channel)
            except DataError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, DataError):
            raise found
        return found

    def _parsed(self, channel: Channel) -> Group:
        own: Mapping[str, Any] = {}
        problem = "the recording does not define it"
        if channel.definition:
            try:
                own = _parse(channel.type, channel.language, channel.definition)
            except DataError as error:
                problem = error.message
        known = _Lookup(own, self, ros1=channel.encoding == "ros1")
        name = normalize_msgtype(channel.type) if "/" in channel.type else channel.type
        if known.fields(name) is None:
            raise DataError(
                f"messages of type {channel.type} cannot be read: {problem}",
                hint="give a folder of PACKAGE/msg/TYPE.msg files with --option msg_path=FOLDER",
            )
        group = _group(name, "", known, channel.type, depth=0)
        return _simplified(name, group)

    def fields(self, name: str) -> Any | None:
        """The fields of a type that the bag does not define."""
        if self._files is None:
            self._files = _definition_files(self._folder)
        if name in self._files:
            path = self._files[name]
            language = "ros2idl" if path.suffix == ".idl" else "ros2msg"
            return _parse(name, language, path.read_bytes()).get(name)
        if self._fields is None:
            self._fields = _usual_types(self._distro)
        return self._fields.get(name)


def _usual_types(distro: str) -> Mapping[str, Any]:
    """The types that come with ROS, by name."""
    name = ("ros1_" if distro == "noetic" else "ros2_") + distro
    if name not in {store.value for store in Stores}:
        raise DataError(
            f"the rosbags that is installed does not know ROS {distro}",
            hint="pip install --upgrade rosbags, or choose another ros_distro",
        )
    return get_typestore(Stores(name)).fielddefs


class _Lookup:
    def __init__(self, own: Mapping[str, Any], others: Definitions, *, ros1: bool) -> None:
        self._own, self._others = own, others
        self._dtypes = _DTYPES | ({"byte": "i1"} if ros1 else {})

    def fields(self, name: str) -> Any | None:
        found = self._own.get(name) or self._others.fields(name)
        return found[1] if found else None

    def dtype(self, name: str, top: str) -> str:
        """numpy's name of a type of numbers."""
        if name not in self._dtypes:
            raise DataError(f"messages of type {top} cannot be read: they hold a {name}")
        return self._dtypes[name]


def _definition_files(folder: Path | None) -> dict[str, Path]:
    """The files that define types, by the type's name."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise DataError(f"msg_path={folder} is not a folder")
    found = {}
    for path in sorted([*folder.rglob("*.msg"), *folder.rglob("*.idl")]):
        above = path.parent
        package = above.parent.name if above.name in ("msg", "srv", "action") else above.name
        found[f"{package}/msg/{path.stem}"] = path
    if not found:
        raise DataError(f"msg_path={folder} holds no .msg files")
    return found


def _parse(name: str, language: str, definition: bytes) -> Mapping[str, Any]:
    """Types by name, as rosbags writes them. Raises DataError if they cannot be parsed."""
    if len(definition) > _LARGEST_TEXT:
        raise DataError(f"its definition has {len(definition)} bytes")
    try:
        text = definition.decode()
        if language in ("ros2idl", "idl"):
            return _parse_idl(text)
        if language in ("ros1msg", "ros2msg", "msg"):
            return get_types_from_msg(text, normalize_msgtype(name))
    except (TypesysError, AssertionError, LookupError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DataError(f"its definition cannot be parsed: {first}") from None
    except (TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"its definition cannot be parsed: {type(error).__name__}") from None
    raise DataError(f"its definition is written in {language or 'no language'!r}")


def _parse_idl(text: str) -> Mapping[str, Any]:
    if not text.startswith(f"{_SEP}IDL: "):
        return get_types_from_idl(text)
    types: dict[str, Any] = {}
    for part in text.split(_SEP)[1:]:
        types.update(get_types_from_idl(part.split("\n", 1)[1]))
    return types


def _group(name: str, path: str, known: _Lookup, top: str, *, depth: int) -> Group:
    """The fields of a type, with the paths they have in the message."""
    fields = known.fields(name)
    if fields is None or depth > _DEEPEST:
        what = "nothing defines" if fields is None else "too deep within itself is"
        raise DataError(
            f"messages of type {top} cannot be read: {what} {name}",
            hint="give a folder of PACKAGE/msg/TYPE.msg files with --option msg_path=FOLDER",
        )
    parts = []
    for field, described in fields:
        inner = f"{path}.{field}" if path else field
        parts.append(_part(field, inner, described, known, top, depth, name))
    return Group(tuple(parts), shown=name != HEADER and name not in _IGNORED)


def _part(
    field: str, path: str, described: Any, known: _Lookup, top: str, depth: int, owner: str
) -> Part:
    node, inner = described
    if node in (Nodetype.BASE, Nodetype.NAME):
        return _single(field, path, described, known, top, depth, owner)
    (sub_node, sub), size = inner
    count = size if node == Nodetype.ARRAY else None
    if sub_node == Nodetype.BASE:
        if sub[0] == "string":
            return Text(path, count, scalar=False)
        return Numbers(path, known.dtype(sub[0], top), count)
    one = _single(field, path, (sub_node, sub), known, top, depth, owner)
    return Repeat(one if isinstance(one, Group) else Group((one,)), count)


def _single(
    field: str, path: str, described: Any, known: _Lookup, top: str, depth: int, owner: str
) -> Leaf | Group:
    node, inner = described
    if node == Nodetype.BASE:
        if inner[0] == "string":
            return Text(path)
        return Numbers(path, known.dtype(inner[0], top), 1, scalar=True)
    if inner in TIMES:
        outermost = depth == 0 and field in ("stamp", "timestamp")
        of_header = depth == 1 and owner == HEADER and path == "header.stamp"
        return Moment(path, stamp=inner == TIMES[0] and (outermost or of_header))
    group = _group(inner, path, known, top, depth=depth + 1)
    return _joined(group, path) or group


def _joined(group: Group, path: str) -> Numbers | None:
    """Numbers that are fields side by side (x, y, z), as one vector; None if they are not."""
    parts = group.parts
    alike = len(parts) > 1 and all(
        isinstance(p, Numbers) and p.scalar and p.dtype[0] == "f" and p.dtype == parts[0].dtype
        for p in parts
    )
    if not alike:
        return None
    names = tuple(p.path.rsplit(".", 1)[-1] for p in parts if isinstance(p, Numbers))
    return Numbers(path, parts[0].dtype, len(parts), names)


_VECTORS = {f"geometry_msgs/msg/{name}" for name in ("Vector3", "Point", "Point32", "Quaternion")}
_VECTORS.add("geometry_msgs/msg/Pose2D")


def _simplified(name: str, group: Group) -> Group:
    """The same fields; the only one of a message, besides its header, goes without its name."""
    if name in _VECTORS and (vector := _joined(group, "")):
        return Group((vector,))
    shown = [part for part in group.parts if any(shown_leaves(Group((part,))))]
    only = shown[0] if len(shown) == 1 else None
    if only is None or isinstance(only, Repeat):
        return group
    field = only.path if not isinstance(only, Group) else next(shown_leaves(only))[0].path
    field = field.split(".")[0]
    return Group(tuple(_without(part, field) if part is only else part for part in group.parts))


def _without(part: Part, field: str) -> Part:
    """A part whose paths do not begin with a field any more."""
    if isinstance(part, Repeat):
        inner = _without(part.group, field)
        assert isinstance(inner, Group)
        return replace(part, group=inner)
    if isinstance(part, Group):
        return replace(part, parts=tuple(_without(one, field) for one in part.parts))
    return replace(part, path=part.path.removeprefix(field).removeprefix("."))
