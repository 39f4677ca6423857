"""Questions and answers as messages: how each side writes them, and what it takes in."""

import math
import time

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.inference import wire
from dp_hub.robot.inference.info import (
    Answer,
    Observed,
    PolicyInfo,
    Prefix,
    Question,
    Refused,
    checked,
    checked_prefix,
)

_MOST_SEED = 2**63 - 1


def pack_question(
    number: int, obs: Observed, info: PolicyInfo, seed: int | None, prefix: Prefix | None
) -> bytes:
    """A question as it is sent. Raises RobotError: the observations do not fit the policy."""
    arrays = {name: wire.pack_array(value) for name, value in checked(obs, info).items()}
    packed = wire.pack_prefix(checked_prefix(prefix, info))
    whole_seed = None if seed is None else int(seed)  # numpy's integers too
    return wire.pack(
        {"kind": "predict", "number": number, "obs": arrays, "seed": whole_seed, "prefix": packed}
    )


def read_answer(data: bytes | str, number: int, info: PolicyInfo, asked_s: float) -> Answer | None:
    """The answer to question ``number``; None if it is one to an earlier question.

    Raises:
        Malformed: it is of another form than the protocol's.
        Refused: the question does not suit the policy.
        RobotError: what else the server says is wrong.
    """
    message = wire.unpack(data)
    if wire.kind_of(message) == "error":
        wire.keys(message, wire.ERROR, "an error")
        answered, hint = message["number"], message["hint"]
        if answered is not None and wire.whole(answered, "number", high=number) < number:
            return None
        said = wire.text(message["message"], "message")
        kind = Refused if wire.flag(message["refused"], "refused") else RobotError
        raise kind(said, hint=None if hint is None else wire.text(hint, "hint"))
    if message["kind"] != "answer":
        raise wire.Malformed(f"it is {message['kind'][:40]!r}, expected `answer` or `error`")
    wire.keys(message, wire.ANSWER, "an answer")
    if wire.whole(message["number"], "number", high=number) < number:
        return None
    chunk = wire.unpack_array(
        message["chunk"], "chunk", shape=info.chunk_shape, dtypes=("float32",)
    )
    if not np.isfinite(chunk).all():
        raise wire.Malformed("chunk has numbers that are not finite")
    return Answer(
        chunk=chunk,
        asked_s=asked_s,
        answered_s=time.monotonic(),
        compute_s=wire.number(message["compute_s"], "compute_s"),
        waited_s=wire.number(message["waited_s"], "waited_s"),
    )


def read_question(data: bytes | str, info: PolicyInfo) -> Question:
    """A client's question; all of it fits the policy.

    Raises:
        Malformed: it is of another form than the protocol's.
        Refused: it does not suit the policy.
    """
    message = wire.unpack(data)
    if wire.kind_of(message) != "predict":
        raise wire.Malformed(f"a message is {message['kind'][:40]!r}, expected `predict`")
    wire.keys(message, wire.PREDICT, "a question")
    seed = message["seed"]
    if seed is not None:
        wire.whole(seed, "seed", high=_MOST_SEED)
    packed = wire.keys(message["obs"], set(info.observed), "obs of a question")
    obs = {}
    for name in info.observed:
        dtypes = ("uint8",) if info.is_picture(name) else wire.FLOATS
        shape = info.observed_shape(name)
        obs[name] = wire.unpack_array(packed[name], name, shape=shape, dtypes=dtypes)
    return Question(
        wire.whole(message["number"], "number of a question"),
        checked(obs, info),
        seed,
        checked_prefix(wire.unpack_prefix(message["prefix"], info), info),
    )


def number_of(data: bytes | str) -> int | None:
    """Of a question that is wrong somewhere, if so much of it is right."""
    try:
        return wire.whole(wire.unpack(data).get("number"), "number of a question")
    except wire.Malformed:
        return None


def pack_answer(number: int, answer: Answer, waited_s: float) -> bytes:
    """To question ``number``, which waited so long for its turn."""
    return wire.pack(
        {
            "kind": "answer",
            "number": number,
            "chunk": wire.pack_array(answer.chunk),
            "compute_s": answer.compute_s,
            "waited_s": waited_s,
        }
    )


def pack_error(number: int | None, error: RobotError) -> bytes:
    """Why there is no answer to question ``number``."""
    hint = None if error.hint is None else error.hint[: wire.MOST_TEXT // 4]
    return wire.pack(
        {
            "kind": "error",
            "number": number,
            "message": error.message[: wire.MOST_TEXT // 4],
            "hint": hint,
            "refused": isinstance(error, Refused),
        }
    )


def most_bytes(info: PolicyInfo) -> int:
    """The longest question that can be right."""
    shapes = [info.observed_shape(name) for name in info.observed]
    sizes = [1 if info.is_picture(name) else 8 for name in info.observed]
    arrays = sum(math.prod(shape) * size for shape, size in zip(shapes, sizes, strict=True))
    horizon, width = info.chunk_shape
    return arrays + 8 * horizon * (width + 1) + wire.ROOM_BYTES
