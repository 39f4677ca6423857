"""Questions to a policy's process and its answers, in shared memory.

Neither side ever waits for the other: a policy that hangs holds up nobody. The newest question
counts, and answers have their questions' numbers. Handing over two steps of two cameras of 480 x
640 takes about half a millisecond, a fifth or less of what a pipe takes, which would also stop who
writes into it when nobody reads (`benchmarks/policy_server.py`).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp_hub.robot.fields import Field
from dp_hub.robot.inference.info import HOWS, PolicyInfo, Prefix, Question
from dp_hub.robot.shared.ring import Ring, RingSpec

NO_SEED = -1
_OBS = "obs."
_MOST_TEXT = 2000
_RATE_HZ, _READ_S = 10.0, 0.2


@dataclass(frozen=True)
class MailSpec:
    """What the other process needs to attach."""

    questions: RingSpec
    answers: RingSpec


@dataclass(frozen=True, eq=False)
class Reply:
    """To question ``number``: a chunk float32 (Tp, Da), or why there is none."""

    number: int
    chunk: np.ndarray | None
    compute_s: float
    refused: str = ""


class Mailbox:
    """Both rings; one process asks, the other replies."""

    def __init__(self, questions: Ring, answers: Ring) -> None:
        self.spec = MailSpec(questions.spec, answers.spec)
        self._questions, self._answers = questions, answers
        self._fields = {field.name: field for field in questions.spec.fields}
        self._chunk_shape = next(
            field.shape for field in answers.spec.fields if field.name == "chunk"
        )
        self._taken = 0

    @classmethod
    def create(cls, info: PolicyInfo) -> "Mailbox":
        """For this policy. Raises RobotError: shared memory is full."""
        questions, answers = (
            Ring.create(fields, rate_hz=_RATE_HZ, read_s=_READ_S, keep=1)
            for fields in (question_fields(info), reply_fields(info))
        )
        return cls(questions, answers)

    @classmethod
    def attach(cls, spec: MailSpec) -> "Mailbox":
        """The other side. Raises RobotError: it is gone."""
        return cls(Ring.attach(spec.questions), Ring.attach(spec.answers))

    def ask(self, question: Question) -> None:
        """Hand over a question whose arrays were checked."""
        prefix = question.prefix
        values: dict[str, Any] = {
            "number": question.number,
            "seed": NO_SEED if question.seed is None else question.seed,
            "n_prefix": 0 if prefix is None else len(prefix.actions),
            "prefix_how": 0 if prefix is None else HOWS.index(prefix.how),
            "prefix_beta": 0.0 if prefix is None else prefix.beta,
        }
        for name in ("prefix_actions", "prefix_weights"):
            values[name] = np.zeros(self._fields[name].shape, np.float32)
        if prefix is not None:
            values["prefix_actions"][: len(prefix.actions)] = prefix.actions
            values["prefix_weights"][: len(prefix.weights)] = prefix.weights
        values |= {f"{_OBS}{name}": value for name, value in question.obs.items()}
        self._questions.put(time.monotonic(), values)

    def question(self) -> Question | None:
        """The newest question if it was not taken before."""
        if self._questions.count == self._taken:
            return None
        found = self._questions.last(1)
        if not len(found):
            return None
        self._taken = int(found.numbers[-1]) + 1
        values = {name: value[-1] for name, value in found.values.items()}
        seed = int(values["seed"])
        prefix = _prefix(values, int(values["n_prefix"]))
        obs = {
            name.removeprefix(_OBS): value
            for name, value in values.items()
            if name.startswith(_OBS)
        }
        return Question(int(values["number"]), obs, None if seed == NO_SEED else seed, prefix)

    def reply(self, reply: Reply) -> None:
        """Hand over an answer, or a reason."""
        text = np.frombuffer(reply.refused.encode()[:_MOST_TEXT], np.uint8)
        refused = np.zeros(_MOST_TEXT, np.uint8)
        refused[: len(text)] = text
        chunk = np.zeros(self._chunk_shape, np.float32) if reply.chunk is None else reply.chunk
        values: dict[str, Any] = {
            "number": reply.number,
            "compute_s": reply.compute_s,
            "chunk": chunk,
            "refused": refused,
        }
        self._answers.put(time.monotonic(), values)

    def answer(self, number: int) -> Reply | None:
        """The answer to question ``number`` if it is there."""
        if not self._answers.count:
            return None
        found = self._answers.last(1)
        if not len(found) or int(found.values["number"][-1]) != number:
            return None
        text = bytes(found.values["refused"][-1]).rstrip(b"\0").decode("utf-8", "replace")
        compute_s = float(found.values["compute_s"][-1])
        chunk = None if text else found.values["chunk"][-1]
        return Reply(number, chunk, compute_s, text)

    def close(self) -> None:
        """Let go, and remove it if it was made here."""
        for ring in (self._questions, self._answers):
            ring.unlink()
            ring.close()


def question_fields(info: PolicyInfo) -> list[Field]:
    """Of a question about this policy."""
    observed = [
        Field(f"{_OBS}{name}", info.observed_shape(name), info.observed_dtype(name).name)
        for name in info.observed
    ]
    prefix = [
        Field("prefix_actions", info.chunk_shape, "float32"),
        Field("prefix_weights", info.chunk_shape[:1], "float32"),
    ]
    numbers = [Field(name, (), "int64") for name in ("number", "seed", "n_prefix")]
    numbers += [Field("prefix_how", (), "int64"), Field("prefix_beta", ())]
    return [*numbers, *prefix, *observed]


def reply_fields(info: PolicyInfo) -> list[Field]:
    """Of an answer of this policy."""
    return [
        Field("number", (), "int64"),
        Field("compute_s", ()),
        Field("chunk", info.chunk_shape, "float32"),
        Field("refused", (_MOST_TEXT,), "uint8"),
    ]


def _prefix(values: Mapping[str, np.ndarray], n: int) -> Prefix | None:
    if n == 0:
        return None
    how, beta = HOWS[int(values["prefix_how"])], float(values["prefix_beta"])
    return Prefix(values["prefix_actions"][:n], values["prefix_weights"][:n], how, beta)
