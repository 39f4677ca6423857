"""PushT as a gymnasium environment, ``dp_hub/PushT-v0``."""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from dp_hub.envs.pusht.drawing import PushTDrawing, draw_action
from dp_hub.envs.pusht.physics import (
    CONTROL_HZ,
    GOAL_POSE,
    SUCCESS_COVERAGE,
    TABLE_PX,
    PushTPhysics,
    keypoints_of,
    start_state,
)

ObsType = Literal["state", "keypoints", "pixels", "pixels_agent_pos"]
OBS_TYPES: tuple[ObsType, ...] = ("state", "keypoints", "pixels", "pixels_agent_pos")
# Agent and block can leave the table by a little; nothing comes near these.
_LOW_PX, _HIGH_PX = -float(TABLE_PX), 2.0 * TABLE_PX


class PushTEnv(gymnasium.Env[Any, np.ndarray]):
    """Push the T onto its green outline.

    Action: float64 (2,), where the agent should go, px on the 512 x 512 table. A step is 0.1 s.
    Reward: the share of the goal that is covered over 0.95, clipped to [0, 1]; the episode ends
    above 0.95. ``reset(seed=s)`` gives the original's start state of ``s`` (modulo 2**32);
    ``reset(options={"reset_to_state": state})`` one given as agent x, y, block x, y, angle, in the
    original's legacy order, or exactly as recorded with ``"legacy": False``.

    Args:
        obs_type: ``state`` float64 (5,): agent x, y, block x, y, angle in [0, 2 pi);
            ``keypoints`` float64 (20,): nine points of the T, then the agent, x and y in px;
            ``pixels`` uint8 (image_px, image_px, 3);
            ``pixels_agent_pos`` a dict of ``pixels`` and ``agent_pos`` float64 (2,).
        render_mode: ``rgb_array`` or ``human`` (a window, 10 frames a second).
        image_px: size of image observations; the demonstrations have 96.
        render_px: size of the frames of ``render``, which show the last action as a red cross.
        drawing: draws the frames; by default as the demonstrations' were.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": CONTROL_HZ}  # noqa: RUF012

    def __init__(
        self,
        *,
        obs_type: ObsType = "state",
        render_mode: str | None = None,
        image_px: int = 96,
        render_px: int = 96,
        drawing: PushTDrawing | None = None,
    ) -> None:
        if obs_type not in OBS_TYPES:
            raise ValueError(f"obs_type is {obs_type!r}, not one of {', '.join(OBS_TYPES)}")
        if render_mode not in (None, "rgb_array", "human"):
            raise ValueError(f"render_mode is {render_mode!r}, not rgb_array or human")
        self.obs_type, self.render_mode = obs_type, render_mode
        self.image_px, self.render_px = image_px, render_px
        self.observation_space = _observation_space(obs_type, image_px)
        self.action_space = spaces.Box(0.0, float(TABLE_PX), (2,), np.float64)
        self.physics = PushTPhysics(count_contacts=True)
        self._last_action: np.ndarray | None = None
        self._drawing = drawing
        self._window: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; see the class. Without a seed the environment's own generator picks."""
        super().reset(seed=seed)
        options = dict(options or {})
        state = options.pop("reset_to_state", None)
        legacy = options.pop("legacy", True)
        if options:
            raise ValueError(
                f"unknown reset option {next(iter(options))!r}; known: reset_to_state, legacy"
            )
        if state is None:
            own = self.np_random.integers(2**32) if seed is None else seed % 2**32
            state = start_state(int(own))
        self.physics.reset_to(state, legacy=legacy)
        self._last_action = None
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._info(self.physics.coverage())

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One control period towards ``action``, float (2,) in px."""
        x, y = (float(value) for value in action)
        self._last_action = np.array((x, y))
        self.physics.step(x, y)
        coverage = self.physics.coverage()
        reward = min(max(coverage / SUCCESS_COVERAGE, 0.0), 1.0)
        if self.render_mode == "human":
            self.render()
        done = coverage > SUCCESS_COVERAGE
        return self._observation(), reward, done, False, self._info(coverage)

    def render(self) -> np.ndarray | None:
        """The table and the last action: uint8 (render_px, render_px, 3), or on the screen."""
        if self.render_mode == "human":
            self._show(self._frame(TABLE_PX))
            return None
        return self._frame(self.render_px)

    def close(self) -> None:
        """Close the window, if one was opened."""
        if self._window is not None:
            import pygame

            pygame.display.quit()
            self._window = None

    def _frame(self, px: int) -> np.ndarray:
        image = self._draw(px)
        if self._last_action is not None:
            draw_action(image, self._last_action)
        return image

    def _draw(self, px: int) -> np.ndarray:
        if self._drawing is None:
            self._drawing = PushTDrawing()
        return self._drawing.frame(self.physics, px)

    def _show(self, image: np.ndarray) -> None:
        import pygame

        if self._window is None:
            pygame.display.init()
            pygame.display.set_caption("PushT")
            self._window = pygame.display.set_mode((TABLE_PX, TABLE_PX))
            self._clock = pygame.time.Clock()
        pygame.surfarray.blit_array(self._window, image.transpose(1, 0, 2))
        pygame.event.pump()
        pygame.display.update()
        self._clock.tick(CONTROL_HZ)

    def _observation(self) -> Any:
        if self.obs_type == "state":
            return self.physics.state()
        agent = np.array((self.physics.agent_x, self.physics.agent_y))
        if self.obs_type == "keypoints":
            return np.concatenate([keypoints_of(*self.physics.block_pose()).ravel(), agent])
        image = self._draw(self.image_px)
        return image if self.obs_type == "pixels" else {"pixels": image, "agent_pos": agent}

    def _info(self, coverage: float) -> dict[str, Any]:
        table = self.physics
        return {
            "pos_agent": np.array((table.agent_x, table.agent_y)),
            "vel_agent": np.array((table.velocity_x, table.velocity_y)),
            "block_pose": np.array(table.block_pose()),
            "goal_pose": np.array(GOAL_POSE),
            "n_contacts": table.n_contacts(),
            "coverage": coverage,
            "is_success": coverage > SUCCESS_COVERAGE,
        }


def _observation_space(obs_type: ObsType, px: int) -> spaces.Space[Any]:
    if obs_type == "state":
        low = np.array([_LOW_PX] * 4 + [0.0])
        high = np.array([_HIGH_PX] * 4 + [2 * np.pi])
        return spaces.Box(low, high, dtype=np.float64)
    if obs_type == "keypoints":
        return spaces.Box(_LOW_PX, _HIGH_PX, (20,), np.float64)
    image = spaces.Box(0, 255, (px, px, 3), np.uint8)
    if obs_type == "pixels":
        return image
    agent = spaces.Box(_LOW_PX, _HIGH_PX, (2,), np.float64)
    return spaces.Dict({"pixels": image, "agent_pos": agent})
