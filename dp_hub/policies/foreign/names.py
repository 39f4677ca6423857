"""The closed table of names that a foreign pickle may use, and the inert values they stand for.

No name is ever imported. What Python would make of it is made by a function below, of plain values.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

_SCALARS = (str, int, float, bytes, type(None))
_MOST_DIMENSIONS = 8


class NotPlain(ValueError):
    """A foreign pickle holds something else than plain values; the message says what."""


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle speaks of."""

    module: str
    qualname: str

    def __str__(self) -> str:
        return f"`{self.module}.{self.qualname}`"

    @property
    def is_setting(self) -> bool:
        """Whether it is a class of OmegaConf's."""
        return self in _SETTINGS


@dataclass
class Record:
    """An object of OmegaConf's: its class and its attributes."""

    name: Name
    fields: dict[str, Any]


@dataclass(frozen=True)
class StorageRef:
    """Numbers elsewhere in the file: under which key, of which type, how many."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor whose numbers have not been read: a strided view of a storage."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def text(value: Any) -> str:
    """``value``, a str. Raises NotPlain."""
    if not isinstance(value, str):
        raise NotPlain(f"a name is a {type(value).__name__}")
    return value


def as_dict(pairs: Iterable[Any]) -> dict[Any, Any]:
    """A dict of pairs with plain keys (hashing nested ones could take for ever). NotPlain."""
    made = {}
    for key, value in pairs:
        if not isinstance(key, _SCALARS):
            raise NotPlain(f"a key is a {type(key).__name__}")
        made[key] = value
    return made


def as_set(items: Iterable[Any]) -> set[Any]:
    """A set of plain values. Raises NotPlain."""
    made = set()
    for item in items:
        if not isinstance(item, _SCALARS):
            raise NotPlain(f"a set holds a {type(item).__name__}")
        made.add(item)
    return made


def _encode(value: Any, encoding: Any) -> bytes:
    # How the older protocols write bytes.
    if encoding != "latin1":
        raise NotPlain("bytes are written in an unknown encoding")
    return text(value).encode("latin1")


def _type(name: Any) -> Name:
    return Name("builtins", text(name))


def _list_of(items: Any) -> Any:
    if not isinstance(items, list | tuple):
        raise NotPlain(f"items are a {type(items).__name__}")
    return items


def storage(reference: Any) -> StorageRef:
    """Of ``("storage", type, key, device, number of elements[, view])``. Raises NotPlain."""
    if not (isinstance(reference, tuple) and len(reference) in (5, 6)):
        raise NotPlain("a storage is not described by five entries")
    word, kind, key, _, numel, *view = reference
    if word != "storage" or not isinstance(kind, Name) or kind not in _STORAGES:
        raise NotPlain("a storage is of an unknown type")
    if view not in ([], [None]):
        raise NotPlain("a storage is a view of another one")
    return StorageRef(text(key), _STORAGES[kind], _count(numel))


def _tensor(where: Any, offset: Any, size: Any, stride: Any, *notes: Any) -> TensorRef:
    # Notes: whether it wants gradients, its hooks, and remarks: none of them matters here.
    if not isinstance(where, StorageRef) or len(notes) > 3:
        raise NotPlain("a tensor is not made of a storage")
    made = TensorRef(where, _count(offset), _counts(size), _counts(stride))
    if len(made.size) != len(made.stride):
        raise NotPlain("a tensor has not as many strides as dimensions")
    last = made.offset + sum((n - 1) * step for n, step in zip(made.size, made.stride, strict=True))
    if math.prod(n for n in made.size if n) >= 2**48:
        raise NotPlain(f"a tensor is of shape {made.size}")
    numel = math.prod(made.size)
    if numel and (last >= where.numel or numel > where.numel):
        raise NotPlain(f"a tensor of shape {made.size} runs past its {where.numel} numbers")
    return made


def _parameter(tensor: Any, *notes: Any) -> TensorRef:
    if not isinstance(tensor, TensorRef) or len(notes) > 2:
        raise NotPlain("a parameter is not made of a tensor")
    return tensor


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise NotPlain("a size is not a count")
    return value


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > _MOST_DIMENSIONS:
        raise NotPlain("a shape is not a short tuple")
    return tuple(_count(value) for value in values)


_STORAGES = {
    Name("torch", f"{name}Storage"): dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
_SETTINGS = {
    Name(f"omegaconf.{module}", name)
    for module, names in {
        "dictconfig": ("DictConfig",),
        "listconfig": ("ListConfig",),
        "base": ("ContainerMetadata", "Metadata"),
        "nodes": ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode"),
    }.items()
    for name in names
}
_BUILTINS = {
    Name(module, name): make
    for module in ("builtins", "__builtin__")
    for name, make in {
        "bytes": lambda: b"",
        "set": lambda items=(): as_set(_list_of(items)),
        "frozenset": lambda items=(): frozenset(as_set(_list_of(items))),
        **dict.fromkeys(("dict", "list", "tuple", "str", "int", "float", "bool")),
    }.items()
}

KNOWN: dict[Name, Callable[..., Any] | None] = {
    Name("collections", "OrderedDict"): lambda items=(): as_dict(_list_of(items)),
    Name("collections", "defaultdict"): lambda factory=None: {},
    Name("_codecs", "encode"): _encode,
    Name("dill._dill", "_load_type"): _type,
    Name("typing", "Any"): None,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    **dict.fromkeys(_STORAGES),
    **dict.fromkeys(_SETTINGS),
    **_BUILTINS,
}
"""Every name there is; what stands for a call of it, None where it must not be called."""
