"""Stand-in policies: what a rollout asks of one, without a network."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor


class NoisyPusher:
    """Walks to the T's centre with its own noise; counts how often it was asked and for what."""

    def __init__(self, observations: Sequence[str] = ("observation.state",)) -> None:
        self.config = SimpleNamespace(
            observations=list(observations), horizon=16, n_obs_steps=2, n_action_steps=8
        )
        self.asked: list[dict[str, Tensor]] = []

    def predict_action(
        self, obs: dict[str, Tensor], *, generator: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        self.asked.append({name: value.clone() for name, value in obs.items()})
        state = obs["observation.state"][:, -1]
        noise = torch.cat([torch.randn(1, 16, 2, generator=g) for g in generator])
        centre = state[:, 2:4] + 45 * torch.stack([-state[:, 4].sin(), state[:, 4].cos()], dim=1)
        chunk = centre[:, None] + 60 * noise
        return {"action": chunk[:, 1:9], "action_pred": chunk}


class Replayer:
    """Gives back recorded actions, episode by episode: it knows where it is by counting.

    Runs right only with as many environments as recorded episodes, all started at once.
    """

    def __init__(self, recorded: Sequence[np.ndarray]) -> None:
        self.config = SimpleNamespace(
            observations=["observation.state"], horizon=16, n_obs_steps=2, n_action_steps=8
        )
        self._recorded = recorded
        self._step = 0

    def predict_action(
        self, obs: dict[str, Tensor], *, generator: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        seeds = [one.initial_seed() for one in generator]
        frames = np.arange(self._step - 1, self._step + 15)
        chunks = [
            self._recorded[seed][np.clip(frames, 0, len(self._recorded[seed]) - 1)]
            for seed in seeds
        ]
        self._step += 8
        chunk = torch.from_numpy(np.stack(chunks)).double()
        return {"action": chunk[:, 1:9], "action_pred": chunk}
