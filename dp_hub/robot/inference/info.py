"""What a policy asks for and answers, in plain numpy: shared by robots, servers and thin clients.

Imports numpy only: a robot's computer may have nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dp_hub.errors import RobotError

Observed = Mapping[str, np.ndarray]
"""By feature: numbers float (To, D) in raw units, pictures uint8 (To, H, W, 3)."""

HOWS = ("guidance", "inpaint")


class Refused(RobotError):
    """The policy is there, but this question does not suit it: others may be asked."""


@dataclass(frozen=True)
class PolicyInfo:
    """What has to be known of a policy to ask it.

    Args:
        name: as it was asked for: a folder, or ``user/name`` on the Hub.
        sha: the commit it was pulled at; None for a folder.
        kind: ``diffusion`` or ``act``.
        n_obs_steps: To, steps observed.
        n_action_steps: Ta, steps to execute of each chunk, as it was trained.
        horizon: Tp, steps of a chunk. It starts at the first observed step.
        period_s: seconds between steps; None where nobody said.
        observations: what is read of the features, such as ``observation.state[:2]``.
        action: the feature that is predicted.
        features: of every feature read or predicted, the shape of one step: (D,) for numbers,
            (H, W, 3) for pictures.
    """

    name: str
    sha: str | None
    kind: str
    n_obs_steps: int
    n_action_steps: int
    horizon: int
    period_s: float | None
    observations: tuple[str, ...]
    action: str
    features: Mapping[str, tuple[int, ...]]

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the features that have to be given, whole, each once."""
        return tuple(dict.fromkeys(text.split("[")[0] for text in self.observations))

    @property
    def observed_sizes(self) -> dict[str, int | tuple[int, ...]]:
        """Of one step of each observed feature: a width, or (H, W, 3) of a picture."""
        shapes = {name: self.features[name] for name in self.observed}
        return {name: one if len(one) == 3 else one[0] for name, one in shapes.items()}

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """(Tp, Da)."""
        return self.horizon, self.features[self.action][0]

    def is_picture(self, feature: str) -> bool:
        """Whether it is uint8 (H, W, 3) rather than numbers."""
        return len(self.features[feature]) == 3

    def observed_shape(self, feature: str) -> tuple[int, ...]:
        """(To, ...)."""
        return (self.n_obs_steps, *self.features[feature])

    def observed_dtype(self, feature: str) -> np.dtype:
        """In which it is handed on: uint8 or float32."""
        return np.dtype(np.uint8 if self.is_picture(feature) else np.float32)


@dataclass(frozen=True, eq=False)
class Prefix:
    """What is being executed while the policy thinks, for real-time chunking.

    As `dp_hub.policies.realtime_chunking.Prefix`, for one row and in numpy.

    Args:
        actions: float32 (n, Da) in raw units; the first is for the first step of the new chunk.
        weights: float32 (n,) in [0, 1], how settled each is.
        how: ``guidance`` or ``inpaint``.
        beta: the most that guidance moves a chunk by.
    """

    actions: np.ndarray
    weights: np.ndarray
    how: str = "guidance"
    beta: float = 5.0


@dataclass(frozen=True, eq=False)
class Question:
    """As `Inference.ask` takes it, with a number that its answer has too."""

    number: int
    obs: Observed
    seed: int | None
    prefix: Prefix | None


@dataclass(frozen=True, eq=False)
class Answer:
    """What a policy said.

    Args:
        chunk: float32 (Tp, Da) in raw units, from the first observed step on.
        asked_s: when it was asked; `time.monotonic()` of who asked.
        answered_s: when the answer had arrived there.
        compute_s: seconds of it that the policy took.
        waited_s: seconds of it that the question waited for others'.
    """

    chunk: np.ndarray
    asked_s: float
    answered_s: float
    compute_s: float
    waited_s: float = 0.0


def checked(values: Observed, info: PolicyInfo) -> dict[str, np.ndarray]:
    """Exactly what the policy observes, as it is handed on: float32 and uint8, in order.

    Args:
        values: others than the observed features are left out.
        info: of the policy.
    Raises:
        Refused: a feature is missing, misshapen, of another kind or not finite.
    """
    return {name: _checked_one(name, values, info) for name in info.observed}


def _checked_one(name: str, values: Observed, info: PolicyInfo) -> np.ndarray:
    if name not in values:
        raise Refused(
            f"the policy observes {name}, which was not given",
            hint=f"given: {', '.join(values) or 'nothing'}",
        )
    value, shape = np.asarray(values[name]), info.observed_shape(name)
    if value.shape != shape:
        raise Refused(
            f"{name} has shape {value.shape}, expected {shape}: {shape[0]} observed steps"
        )
    if info.is_picture(name):
        if value.dtype != np.uint8:
            raise Refused(f"{name} is {value.dtype}, expected uint8: pictures of 0 to 255")
        return np.ascontiguousarray(value)
    if value.dtype.kind not in "fiu":
        raise Refused(f"{name} is {value.dtype}, expected numbers")
    numbers = np.ascontiguousarray(value, np.float32)
    if not np.isfinite(numbers).all():
        raise Refused(f"{name} has numbers that are not finite: {value.ravel()[:6]}")
    return numbers


def checked_prefix(prefix: Prefix | None, info: PolicyInfo) -> Prefix | None:
    """As it is handed on: float32. Raises Refused if it does not fit the policy's chunks."""
    if prefix is None:
        return None
    actions = np.ascontiguousarray(prefix.actions, np.float32)
    weights = np.ascontiguousarray(prefix.weights, np.float32)
    horizon, width = info.chunk_shape
    if actions.ndim != 2 or actions.shape[1] != width or not 1 <= len(actions) <= horizon:
        raise Refused(f"a prefix has actions {actions.shape}, expected (1 to {horizon}, {width})")
    if weights.shape != (len(actions),):
        raise Refused(f"a prefix of {len(actions)} actions has weights {weights.shape}")
    if not (np.isfinite(actions).all() and ((weights >= 0) & (weights <= 1)).all()):
        raise Refused("a prefix has actions that are not finite or weights outside [0, 1]")
    if prefix.how not in HOWS or not (np.isfinite(prefix.beta) and prefix.beta > 0):
        raise Refused(
            f"a prefix is used by {prefix.how!r} with beta {prefix.beta}, expected"
            f" {' or '.join(HOWS)} and a number above 0"
        )
    return Prefix(actions, weights, prefix.how, float(prefix.beta))
