"""Messages that no client of ours would send: seeded, for a policy server to survive."""

from collections.abc import Callable

import msgpack
import numpy as np
from inference_helpers import observed

from dp_hub.robot.inference.info import PolicyInfo
from dp_hub.robot.inference.messages import pack_question

Message = bytes | str


def malformed(info: PolicyInfo, seed: int) -> tuple[str, Message]:
    """One of them, and which kind it is."""
    rng = np.random.default_rng(seed)
    kinds = list(KINDS)
    kind = kinds[seed % len(kinds)]
    good = pack_question(1, observed(info, seed), info, 5, None)
    return kind, KINDS[kind](rng, good, info)


def _changed(good: bytes, change: Callable[[dict], object]) -> bytes:
    message = msgpack.unpackb(good)
    change(message)
    return msgpack.packb(message)


def _one_array(change: Callable[[dict, np.random.Generator], object]):
    def make(rng: np.random.Generator, good: bytes, info: PolicyInfo) -> bytes:
        name = rng.choice(list(info.observed))
        return _changed(good, lambda message: change(message["obs"][name], rng))

    return make


def _truncated(rng, good, info):
    return good[: int(rng.integers(1, len(good)))]


def _flipped(rng, good, info):
    # In the head, where the structure is: a flip inside of an array is another right question.
    data = bytearray(good)
    data[int(rng.integers(0, 12))] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


def _noise(rng, good, info):
    return rng.bytes(int(rng.integers(1, 4000)))


def _trailing(rng, good, info):
    return good + rng.bytes(int(rng.integers(1, 50)))


def _text(rng, good, info):
    return "predict " * int(rng.integers(1, 100))


def _deep(rng, good, info):
    return bytes([0x91]) * int(rng.integers(600, 30_000)) + b"\xc0"


def _deep_maps(rng, good, info):
    return b"\x81\xa1a" * int(rng.integers(600, 10_000)) + b"\xc0"


def _huge_claim(rng, good, info):
    """A few bytes that claim to be followed by up to 4 GB."""
    head = [b"\xc6\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"]
    return head[int(rng.integers(0, 3))] + rng.bytes(10)


def _extension(rng, good, info):
    code = int(rng.integers(-1, 100))
    data = msgpack.packb(msgpack.ExtType(code, b"\0" * 4)) if code >= 0 else b"\xd6\xff\0\0\0\0"
    return _changed(good, lambda message: None)[:-1] + data


def _no_map(rng, good, info):
    return msgpack.packb([None, 3, 2.5, [], "text", b"bytes", True][int(rng.integers(0, 7))])


def _other_keys(rng, good, info):
    def change(message):
        if rng.random() < 0.5:
            message.pop(rng.choice(list(message)))
        else:
            message[rng.choice(["x", "__class__", "OBS"])] = 1

    return _changed(good, change)


def _key_twice(rng, good, info):
    return bytes([good[0] + 1]) + good[1:] + msgpack.packb("kind") + msgpack.packb("predict")


def _other_features(rng, good, info):
    def change(message):
        name = rng.choice(list(message["obs"]))
        value = message["obs"].pop(name)
        if rng.random() < 0.5:
            message["obs"][str(name) + "x"] = value

    return _changed(good, change)


def _other_values(rng, good, info):
    key = rng.choice(["number", "seed", "prefix", "kind", "obs"])
    values = [-1, 2**63, 1.5, "1", b"1", [1], {"a": 1}, True, float("nan")]
    value = values[int(rng.integers(0, len(values)))]
    return _changed(good, lambda message: message.update({str(key): value}))


KINDS: dict[str, Callable[[np.random.Generator, bytes, PolicyInfo], Message]] = {
    "truncated": _truncated,
    "flipped": _flipped,
    "noise": _noise,
    "trailing": _trailing,
    "text": _text,
    "deep": _deep,
    "deep maps": _deep_maps,
    "huge claim": _huge_claim,
    "extension": _extension,
    "no map": _no_map,
    "other keys": _other_keys,
    "key twice": _key_twice,
    "other features": _other_features,
    "other values": _other_values,
    "dtype": _one_array(
        lambda array, rng: array.update(
            dtype=["object", "O", "<U9", "complex64", "int8", "float16", 3, None, "V8", "uint9"][
                int(rng.integers(0, 10))
            ]
        )
    ),
    "huge shape": _one_array(
        lambda array, rng: array.update(shape=[2 ** int(rng.integers(20, 60)), 2**31, 3])
    ),
    "many dimensions": _one_array(lambda array, rng: array.update(shape=[1] * 500)),
    "negative shape": _one_array(lambda array, rng: array.update(shape=[-1, -5])),
    "shape of text": _one_array(lambda array, rng: array.update(shape=["2", "5"])),
    "fewer bytes": _one_array(lambda array, rng: array.update(bytes=array["bytes"][:-1])),
    "more bytes": _one_array(lambda array, rng: array.update(bytes=array["bytes"] + b"\0" * 9)),
    "bytes of text": _one_array(lambda array, rng: array.update(bytes="x" * len(array["bytes"]))),
    "array's keys": _one_array(lambda array, rng: array.update(order="F")),
    "pickle": lambda rng, good, info: b"\x80\x04\x95\x1c\0\0\0cposix\nsystem\n(S'true'\ntR.",
}
