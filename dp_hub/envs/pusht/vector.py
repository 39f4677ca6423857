"""Many PushT tables in one process: what evaluation and dataset recording drive.

A step costs some 30 us a table, less than handing it to another process would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dp_hub.envs.pusht.physics import (
    MAX_EPISODE_STEPS,
    SUCCESS_COVERAGE,
    PushTPhysics,
    keypoints_of,
)

if TYPE_CHECKING:
    from dp_hub.envs.pusht.drawing import PushTDrawing


class PushTVector:
    """``n_envs`` tables, stepped together; those not active stay as they are.

    An observation is a dict of arrays whose first axis is the table:
        ``observation.state``: float64 (n, 5): agent x, y, block x, y in px, angle in [0, 2 pi);
        ``observation.environment_state``: float64 (n, 18): the T's nine keypoints in px;
        ``observation.image``: uint8 (n, render_px, render_px, 3), when ``render_px`` is given.
    """

    def __init__(
        self,
        n_envs: int,
        *,
        render_px: int | None = None,
        max_steps: int = MAX_EPISODE_STEPS,
        drawing: PushTDrawing | None = None,
    ) -> None:
        self.n_envs = n_envs
        self.render_px = render_px
        self.max_steps = max_steps
        self.tables = [PushTPhysics() for _ in range(n_envs)]
        self.n_steps = np.zeros(n_envs, dtype=np.int64)
        self._coverage = np.zeros(n_envs)
        self._drawing = drawing
        self._images = np.zeros((n_envs, render_px or 0, render_px or 0, 3), dtype=np.uint8)

    def reset(self, seeds: Sequence[int]) -> dict[str, np.ndarray]:
        """Start every table from the original's start state of its seed."""
        if len(seeds) != self.n_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.n_envs} tables")
        for i, seed in enumerate(seeds):
            self.restart(i, int(seed))
        return self.observe()

    def restart(self, i: int, seed: int) -> None:
        """Start table ``i`` alone from the original's start state of ``seed``."""
        self.tables[i].reset(seed)
        self.n_steps[i] = 0
        self._note(i)

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """One control period (0.1 s) of every active table.

        Args:
            actions: float64 (n, 2): where the agent should go, px.
            active: bool (n,): tables to step; all when None.
        Returns:
            The observation of all tables, reward float64 (n,) and terminated bool (n,). Reward is
            the coverage over 0.95, clipped to [0, 1]; a table is terminated above 0.95 coverage.
            Tables that were not active keep their last values.
        """
        actions = np.asarray(actions, dtype=np.float64)
        stepped = range(self.n_envs) if active is None else np.flatnonzero(active).tolist()
        for i in stepped:
            self.tables[i].step(float(actions[i, 0]), float(actions[i, 1]))
            self.n_steps[i] += 1
            self._note(i)
        reward = np.clip(self._coverage / SUCCESS_COVERAGE, 0.0, 1.0)
        return self.observe(), reward, self._coverage > SUCCESS_COVERAGE

    def coverage(self) -> np.ndarray:
        """Share of the goal covered on each table, float64 (n,)."""
        return self._coverage.copy()

    def truncated(self) -> np.ndarray:
        """bool (n,): tables that have used up ``max_steps``."""
        return self.n_steps >= self.max_steps

    def observe(self) -> dict[str, np.ndarray]:
        """The current observation of every table (new arrays)."""
        state = np.stack([table.state() for table in self.tables])
        poses = np.array([table.block_pose() for table in self.tables])
        keypoints = keypoints_of(poses[:, 0], poses[:, 1], poses[:, 2])
        observation = {
            "observation.state": state,
            "observation.environment_state": keypoints.reshape(self.n_envs, -1),
        }
        if self.render_px:
            observation["observation.image"] = self._images.copy()
        return observation

    def render(self, i: int, px: int) -> np.ndarray:
        """Table ``i`` now, uint8 (px, px, 3), without an action mark."""
        if self._drawing is None:
            from dp_hub.envs.pusht.drawing import PushTDrawing

            self._drawing = PushTDrawing()
        return self._drawing.frame(self.tables[i], px)

    def _note(self, i: int) -> None:
        self._coverage[i] = self.tables[i].coverage()
        if self.render_px:
            self._images[i] = self.render(i, self.render_px)
