"""All that is random in training, as a function of the seed, the step and the place in the batch.

So nothing random needs to be stored: a run that continues at a step draws what it would have drawn,
whatever evaluations came between, and the noise of a window is the same on one process or on many.
"""

import numpy as np
import torch

from dp_hub.models.draws import RowsOf
from dp_hub.training.config import TrainConfig

NOISE, NETWORK = 0, 1


def step_seed(seed: int, step: int, *purpose: int) -> int:
    """A seed of 63 bits for one purpose in one step."""
    mixed = np.random.SeedSequence([seed, step, *purpose]).generate_state(1, np.uint64)[0]
    return int(mixed >> np.uint64(1))


class Chance:
    """The random numbers of a training's steps.

    The windows of an optimiser step are numbered in the order in which one process with one large
    batch would have them: network call by network call, in each process by process.

    Args:
        config: of the run: its seed, batch_size and grad_accumulation.
        rank, world_size: this process among all.
        device: where batches live.
    """

    def __init__(
        self, config: TrainConfig, *, rank: int, world_size: int, device: torch.device
    ) -> None:
        self._seed = config.seed
        self._batch_size = config.batch_size
        self._calls = config.grad_accumulation
        self._rank, self._world_size = rank, world_size
        self._generator = torch.Generator(device)

    def begin(self, step: int) -> None:
        """Seed torch's own generators, which dropout and random crops draw from.

        They draw for the part of the batch they see, so each process and step has its own.
        """
        torch.manual_seed(step_seed(self._seed, step, NETWORK, self._rank))

    def rows(self, step: int, call: int) -> RowsOf:
        """Where the noise of this process comes from in a network call, numbered from 0."""
        self._generator.manual_seed(step_seed(self._seed, step, NOISE))
        first = (call * self._world_size + self._rank) * self._batch_size
        return RowsOf(self._generator, first, self._calls * self._world_size * self._batch_size)
