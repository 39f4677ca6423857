"""What the tests of policies that run elsewhere share: small policies, and a stand-in for one."""

import os
import threading
import time
from pathlib import Path

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.inference.info import Answer, PolicyInfo, Prefix, checked, checked_prefix
from dp_hub.robot.inference.local import LocalInference

STATE = PolicyInfo(
    name="me/state", sha="c" * 40, kind="diffusion", n_obs_steps=2, n_action_steps=8, horizon=16,
    period_s=0.1, observations=("observation.state[:2]",), action="action",
    features={"observation.state": (5,), "action": (2,)},
)  # fmt: skip
CAMERAS = PolicyInfo(
    name="me/cameras", sha=None, kind="act", n_obs_steps=2, n_action_steps=8, horizon=16,
    period_s=None, observations=("observation.top", "observation.wrist", "observation.state"),
    action="action",
    features={
        "observation.top": (48, 64, 3), "observation.wrist": (24, 32, 3), "observation.state": (6,),
        "action": (7,),
    },
)  # fmt: skip


def observed(info: PolicyInfo, seed: int = 0) -> dict[str, np.ndarray]:
    """Random observations for a policy."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, 256, info.observed_shape(name)).astype(info.observed_dtype(name))
        for name in info.observed
    }


def small_policy(folder: Path) -> Path:
    """A policy of state with random weights, saved."""
    import torch

    from dp_hub.models.normalizer import Normalizer
    from dp_hub.policies.config import DiffusionConfig, FlowObjective, MlpConfig
    from dp_hub.policies.diffusion import make_policy
    from dp_hub.policies.saving import save_policy

    torch.manual_seed(0)
    config = DiffusionConfig(
        observations=["observation.state[:2]"],
        denoiser=MlpConfig(width=16, depth=1, step_embed_dim=8),
        objective=FlowObjective(num_inference_steps=4),
    )
    rows = torch.rand(30, 5).numpy() * 100
    normalizer = Normalizer.fit({"observation.state": rows, "action": rows[:, :2]})
    features = {"observation.state": 5, "action": 2}
    return save_policy(make_policy(config, features, normalizer=normalizer).eval(), folder)


def expected_of(chunk_seed: int, obs: dict[str, np.ndarray], info: PolicyInfo) -> np.ndarray:
    """What `StandIn` answers: it depends on every number of the question."""
    total = sum(float(value.astype(np.float64).sum()) for value in obs.values())
    horizon, width = info.chunk_shape
    steps = np.arange(horizon * width, dtype=np.float32).reshape(horizon, width)
    return (steps + np.float32(total % 1000) + chunk_seed).astype(np.float32)


class StandIn:
    """An `Inference` without a policy, which takes ``compute_s`` and can be told to fail.

    Attributes:
        asked: seeds of the questions that were taken up, in order.
        starts: how often it was started.
        fail: what the next answer raises.
    """

    def __init__(self, info: PolicyInfo, *, compute_s: float = 0.0) -> None:
        self.info, self.compute_s = info, compute_s
        self.asked: list[int | None] = []
        self.prefixes: list[Prefix | None] = []
        self.starts = 0
        self.fail: RobotError | None = None
        self.is_gone = False
        self._answer: Answer | None = None
        self._waiting = False
        self._lock = threading.Lock()

    def start(self) -> None:
        self.starts += 1
        self.is_gone = False

    @property
    def ready(self) -> bool:
        return not self.is_gone

    def wait_ready(self, timeout_s: float) -> None:
        pass

    def ask(self, obs, *, seed=None, prefix=None) -> None:
        assert not self._waiting, "asked twice"
        if self.is_gone:
            raise RobotError("the stand-in is gone")
        values, prefix = checked(obs, self.info), checked_prefix(prefix, self.info)
        now_s = time.monotonic()
        self.asked.append(seed)
        self.prefixes.append(prefix)
        chunk = expected_of(seed or 0, values, self.info)
        self._answer = Answer(chunk, now_s, now_s + self.compute_s, self.compute_s)
        self._waiting = True

    def answer(self) -> Answer | None:
        if self.fail is not None:
            failure, self.fail, self.is_gone = self.fail, None, True
            self._waiting = False
            raise failure
        if not self._waiting or time.monotonic() < self._answer.answered_s:
            return None
        self._waiting = False
        return self._answer

    @property
    def waiting(self) -> bool:
        return self._waiting

    def wait(self, timeout_s: float) -> bool:
        left_s = self._answer.answered_s - time.monotonic()
        time.sleep(max(0.0, min(left_s, timeout_s)))
        return left_s <= timeout_s

    def reset(self) -> None:
        self._waiting = False

    def close(self) -> None:
        pass


def answer_of(inference: LocalInference, timeout_s: float = 30.0) -> Answer:
    """Wait for it."""
    assert inference.wait(timeout_s), "no answer"
    answer = inference.answer()
    assert answer is not None
    return answer


def own_segments() -> set[str]:
    """Names of pieces of shared memory of this process."""
    return {path.name for path in Path("/dev/shm").glob(f"dphub-{os.getpid()}-*")}
