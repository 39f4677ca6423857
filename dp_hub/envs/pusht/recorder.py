"""Records the scripted demonstrator's episodes into a replay buffer."""

import logging
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub import __version__
from dp_hub.envs.pusht.demonstration import Demonstration, demonstrate
from dp_hub.envs.pusht.expert import ExpertConfig
from dp_hub.envs.pusht.physics import CONTROL_HZ
from dp_hub.errors import DataError

log = logging.getLogger(__name__)
FIRST_EVALUATION_SEED = 100_000
_LAST_SEED = 2**32 - 1  # of numpy's RandomState, which the original's start states come from
Progress = Callable[[Demonstration], None]


@dataclass
class Recorded:
    """What a recording came to: one entry per kept episode, and the seeds that failed."""

    episodes: list[dict[str, Any]] = field(default_factory=list)
    skipped_seeds: list[int] = field(default_factory=list)
    n_steps: int = 0


def record_expert(
    path: str | Path,
    *,
    n_episodes: int,
    seed: int,
    images: bool = False,
    workers: int = 1,
    config: ExpertConfig | None = None,
    progress: Progress | None = None,
) -> Recorded:
    """Record the first ``n_episodes`` successes of seeds ``seed``, ``seed + 1``, ...

    The target appears whole or not at all, and is the same whatever the number of workers.

    Args:
        path: a ``.zarr.zip`` or a ``.zarr`` folder to make; refused if it exists.
        n_episodes: how many to keep.
        seed: of the first start state.
        images: record 96 x 96 frames too.
        workers: processes to play in.
        config: how the demonstrator moves and chooses.
        progress: called with every episode played, kept or not.
    Raises:
        DataError: the target exists, or a number is out of range.
    """
    from dp_hub.replay.buffer import write_replay

    check_numbers(n_episodes, seed, workers)
    made = Recorded()
    attrs = {
        "fps": CONTROL_HZ,
        "task": "Push the T onto the green outline.",
        "source": "dp_hub's scripted demonstrator of PushT",
        "command": command_of(n_episodes=n_episodes, seed=seed, images=images),
        "dp_hub_version": __version__,
        "seed": seed,
        # Filled while the episodes are written; the attributes are written after them.
        "episodes": made.episodes,
        "skipped_seeds": made.skipped_seeds,
    }
    played = _played(partial(demonstrate, config=config, images=images), seed, workers)
    write_replay(path, _successes(played, made, n_episodes, progress), attrs)
    return made


def command_of(*, n_episodes: int, seed: int, images: bool) -> str:
    """The command that records the same arrays again."""
    with_images = " --images" if images else ""
    return f"dp-hub record pusht --expert --episodes {n_episodes} --seed {seed}{with_images}"


def check_numbers(n_episodes: int, seed: int, workers: int = 1) -> None:
    """Refuse numbers out of range; warn of seeds that evaluations use."""
    for name, value in (("episodes", n_episodes), ("workers", workers)):
        if value < 1:
            raise DataError(f"--{name} is {value}", hint="at least 1")
    if not 0 <= seed <= _LAST_SEED - 2 * n_episodes:
        raise DataError(f"--seed is {seed}", hint="a number from 0 to about four billion")
    if seed + n_episodes > FIRST_EVALUATION_SEED:
        log.warning(
            "seeds from %d on are those that policies are evaluated on; "
            "a policy trained on them has seen its test",
            FIRST_EVALUATION_SEED,
        )


def _successes(
    played: Iterator[Demonstration], made: Recorded, n_episodes: int, progress: Progress | None
) -> Iterator[dict[str, np.ndarray]]:
    """The first successes, entered into ``made``."""
    for demo in played:
        if demo.success:
            made.episodes.append(
                {"seed": demo.seed, "success": True, "max_coverage": round(demo.coverage, 4)}
            )
            made.n_steps += len(demo.arrays["action"])
        else:
            made.skipped_seeds.append(demo.seed)
        if progress is not None:
            progress(demo)
        if demo.success:
            yield demo.arrays
        if len(made.episodes) == n_episodes:
            return


def _played(
    play: Callable[[int], Demonstration], seed: int, workers: int
) -> Iterator[Demonstration]:
    """Episodes of ascending seeds, without end."""
    if workers == 1:
        yield from map(play, count(seed))
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the caller's threads
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        seeds = count(seed)
        waiting: deque[Future[Demonstration]] = deque()
        while True:
            while len(waiting) < 2 * workers:
                waiting.append(pool.submit(play, next(seeds)))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
