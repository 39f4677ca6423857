"""What goes over the wire between a policy server and its clients: msgpack of a closed form.

A message is a map with exactly the keys of its kind. An array is
``{"dtype": name, "shape": [...], "bytes": bytes}``, C order, little endian, of the few types below;
nothing else becomes an object, and nothing is allocated before its size is known to be right.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dp_hub.robot.inference.extra import msgpack
from dp_hub.robot.inference.info import PolicyInfo, Prefix, Refused

VERSION = 1
"""Of the protocol; a client refuses a server of another."""
DTYPES = {"uint8": "<u1", "float32": "<f4", "float64": "<f8"}
MOST_DIMENSIONS = 4
MOST_TEXT = 4096
ROOM_BYTES = 1 << 16
"""Of a message beside the bytes of its arrays."""
MOST_ANSWER_BYTES = 1 << 24

FLOATS = ("float32", "float64")
PREDICT = {"kind", "number", "obs", "seed", "prefix"}
ANSWER = {"kind", "number", "chunk", "compute_s", "waited_s"}
ERROR = {"kind", "number", "message", "hint", "refused"}
HELLO = {"kind", "version", "policy"}
MOST_NUMBER = 2**53


class Malformed(Refused):
    """A message of another form than the protocol's."""


def pack(message: Mapping[str, Any]) -> bytes:
    """Bytes of a message of plain values, arrays already packed by `pack_array`."""
    return msgpack().packb(message)


def unpack(data: bytes | str) -> dict[str, Any]:
    """A message of plain values. Raises Malformed if it is not one."""
    if isinstance(data, str):
        raise Malformed("a message is text, expected msgpack")
    library = msgpack()
    try:
        message = library.unpackb(
            data, raw=False, strict_map_key=True, use_list=True, timestamp=0, max_ext_len=0,
            max_str_len=MOST_TEXT, max_array_len=1024, max_map_len=1024, max_bin_len=len(data),
            object_pairs_hook=_once_each, ext_hook=_no_extension,
        )  # fmt: skip
    except (ValueError, TypeError, RecursionError, library.UnpackException) as error:
        reason = str(error)[:200] or type(error).__name__
        raise Malformed(f"a message is not whole msgpack of plain values: {reason}") from None
    if not isinstance(message, dict):
        raise Malformed(f"a message is {type(message).__name__}, expected a map")
    return message


def kind_of(message: Mapping[str, Any]) -> str:
    """Its kind. Raises Malformed if it has none."""
    return text(message.get("kind"), "`kind` of a message")


def keys(message: Any, expected: set[str], what: str) -> dict[str, Any]:
    """``message`` itself. Raises Malformed if it is no map of exactly these keys."""
    if not isinstance(message, dict):
        raise Malformed(f"{what} is {type(message).__name__}, expected a map")
    if message.keys() != expected:
        given = ", ".join(sorted(str(key)[:40] for key in message)[:12])
        raise Malformed(f"{what} has keys {given}, expected {', '.join(sorted(expected))}")
    return message


def text(value: Any, what: str, *, most: int = MOST_TEXT) -> str:
    """``value`` itself. Raises Malformed if it is no text."""
    if not isinstance(value, str) or len(value) > most:
        raise Malformed(f"{what} is {_seen(value)}, expected text of at most {most} letters")
    return value


def whole(value: Any, what: str, *, low: int = 0, high: int = MOST_NUMBER) -> int:
    """``value`` itself. Raises Malformed if it is no integer from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Malformed(f"{what} is {_seen(value)}, expected an integer from {low} to {high}")
    return value


def number(value: Any, what: str) -> float:
    """As float. Raises Malformed if it is no finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed(f"{what} is {_seen(value)}, expected a number")
    if not (math.isfinite(value) and value >= 0):
        raise Malformed(f"{what} is {value}, expected a finite number from 0")
    return float(value)


def flag(value: Any, what: str) -> bool:
    """``value`` itself. Raises Malformed if it is neither true nor false."""
    if not isinstance(value, bool):
        raise Malformed(f"{what} is {_seen(value)}, expected true or false")
    return value


def pack_array(array: np.ndarray) -> dict[str, Any]:
    """One of the types in ``DTYPES``."""
    assert array.dtype.name in DTYPES, array.dtype
    # The array's own memory where it lies in order: pictures are not copied on the way.
    whole_array = np.ascontiguousarray(array, DTYPES[array.dtype.name])
    data = whole_array.data.cast("B") if whole_array.size else b""
    return {"dtype": array.dtype.name, "shape": list(array.shape), "bytes": data}


def unpack_array(
    value: Any, what: str, *, shape: Sequence[int], dtypes: Sequence[str]
) -> np.ndarray:
    """An array of this shape and one of these types, read-only: the message's own memory.

    Raises:
        Malformed: it is something else, or has more or fewer bytes than that.
    """
    packed = keys(value, {"dtype", "shape", "bytes"}, what)
    name = text(packed["dtype"], f"dtype of {what}", most=16)
    if name not in dtypes or name not in DTYPES:
        raise Malformed(f"{what} is {name}, expected {' or '.join(dtypes)}")
    sizes = packed["shape"]
    if not isinstance(sizes, list) or len(sizes) > MOST_DIMENSIONS:
        raise Malformed(f"{what} has shape {_seen(sizes)}, expected {list(shape)}")
    if [whole(size, f"shape of {what}") for size in sizes] != list(shape):
        raise Malformed(f"{what} has shape {sizes}, expected {list(shape)}")
    data, n = packed["bytes"], math.prod(shape) * np.dtype(DTYPES[name]).itemsize
    if not isinstance(data, bytes) or len(data) != n:
        raise Malformed(f"{what} has {_seen(data)}, expected {n} bytes")
    return np.frombuffer(data, DTYPES[name]).reshape(shape)


def pack_prefix(prefix: Prefix | None) -> dict[str, Any] | None:
    """Its two arrays."""
    if prefix is None:
        return None
    return {
        "actions": pack_array(prefix.actions),
        "weights": pack_array(prefix.weights),
        "how": prefix.how,
        "beta": prefix.beta,
    }


def unpack_prefix(value: Any, info: PolicyInfo) -> Prefix | None:
    """Raises Malformed."""
    if value is None:
        return None
    packed = keys(value, {"actions", "weights", "how", "beta"}, "a prefix")
    weights = keys(packed["weights"], {"dtype", "shape", "bytes"}, "weights of a prefix")
    sizes = weights["shape"]
    if not isinstance(sizes, list) or len(sizes) != 1:
        raise Malformed(f"weights of a prefix have shape {_seen(sizes)}, expected one number")
    horizon, width = info.chunk_shape
    n = whole(sizes[0], "length of a prefix", low=1, high=horizon)
    return Prefix(
        unpack_array(packed["actions"], "actions of a prefix", shape=(n, width), dtypes=FLOATS),
        unpack_array(weights, "weights of a prefix", shape=(n,), dtypes=FLOATS),
        text(packed["how"], "how a prefix is used", most=16),
        number(packed["beta"], "beta of a prefix"),
    )


def _once_each(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a map has a key twice")
    return found


def _no_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code}")


def _seen(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, list | dict | str) and len(value) > 20:
        return f"{type(value).__name__} of {len(value)}"
    return repr(value)[:100]
