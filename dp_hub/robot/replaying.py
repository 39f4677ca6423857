"""A recorded episode's actions as plans of way-points: what ``dp-hub replay`` sends.

First, slowly, from where the actuator is to where the episode begins; then the actions, each at its
time.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dp_hub.errors import ConfigError, DataError
from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.motion.plan import MAX_POINTS, Plan
from dp_hub.robot.motion.rotation_vectors import difference, slerp
from dp_hub.robot.space import Space

_SLOW = 0.25  # share of the speed limits that the way to the beginning is gone at
_LEAST_S = 1.0
_UNLIMITED_S = 3.0  # that way, where nothing limits the speed
_REST_S = 0.5  # at the beginning, before the first action


@dataclass(frozen=True, eq=False)
class EpisodePlan:
    """An episode for one actuator.

    Args:
        approach: to its first action, at rest there before the first action.
        actions: its actions, in plans that follow one another.
        begins_s: when the first action is due.
        ends_s: when the last one has been followed for its period.
    """

    approach: tuple[Plan, ...]
    actions: tuple[Plan, ...]
    begins_s: float
    ends_s: float

    @property
    def plans(self) -> tuple[Plan, ...]:
        """All, in the order they are to be sent."""
        return (*self.approach, *self.actions)


def episode_plan(
    actions: np.ndarray,
    fps: float,
    *,
    start_s: float,
    position: np.ndarray,
    space: Space,
    limits: Limits,
    first_number: int = 0,
    slow: float = _SLOW,
) -> EpisodePlan:
    """Plan an episode.

    Args:
        actions: float (T, D) in the actuator's space, T of 1 or more.
        fps: of the episode.
        start_s: when the approach begins.
        position: float (D,), where the actuator is.
        space: of the actuator.
        limits: of the actuator; their speeds are kept by the approach, with room to spare.
        first_number: of the first plan; the others follow.
        slow: share of the speed limits for the approach.
    Returns:
        The plans; several actuators are in step if each begins with the latest `begins_s`: see
        `delayed`.
    Raises:
        DataError: the actions are not finite or are no (T, D).
        ConfigError: the first action is outside the workspace.
    """
    actions = _checked(actions, space, limits)
    lasts_s = approach_s(position, actions[0], space, limits, slow=slow)
    begins_s = start_s + lasts_s + _REST_S
    n_points = max(2, math.ceil(lasts_s * fps) + 1)
    shares = np.linspace(0.0, 1.0, n_points)[1:]
    way = between(np.asarray(position, np.float64), actions[0], shares, space)
    times_s = begins_s + np.arange(len(actions)) / fps
    approach = tuple(_plans(start_s + shares * lasts_s, way, first_number))
    numbered = first_number + len(approach)
    followed = tuple(_plans(times_s, actions, numbered))
    return EpisodePlan(approach, followed, begins_s, float(times_s[-1] + 1 / fps))


def delayed(plan: EpisodePlan, by_s: float) -> EpisodePlan:
    """The same with its actions ``by_s`` later, so that several actuators are in step."""
    later = tuple(
        Plan(one.number, one.times_s + by_s, one.targets, one.replace_from_s + by_s)
        for one in plan.actions
    )
    return EpisodePlan(plan.approach, later, plan.begins_s + by_s, plan.ends_s + by_s)


def approach_s(
    position: np.ndarray, first: np.ndarray, space: Space, limits: Limits, *, slow: float = _SLOW
) -> float:
    """How long the way to the first action takes at a share of the speed limits, seconds."""
    linear = list(space.linear)
    away = np.abs(np.asarray(first, np.float64) - position)
    needed = [_LEAST_S]
    if linear:
        if limits.speed is None:
            needed.append(_UNLIMITED_S)
        elif isinstance(limits.speed, list):
            needed += (away[linear] / (slow * np.array(limits.speed))).tolist()
        else:
            needed.append(float(np.linalg.norm(away[linear])) / (slow * limits.speed))
    if space.rotation_at is not None:
        part = slice(space.rotation_at, space.rotation_at + 3)
        turn = float(np.linalg.norm(difference(position[part], first[part])))
        speed = limits.rotation_speed
        needed.append(_UNLIMITED_S if speed is None else turn / (slow * speed))
    return max(needed)


def between(start: np.ndarray, end: np.ndarray, shares: np.ndarray, space: Space) -> np.ndarray:
    """Points on the straight way from ``start`` to ``end`` (D,), float64 (k, D): rotations turn
    about one axis. Of share 1 the point is ``end`` itself."""
    points = start + shares[:, None] * (end - start)
    if space.rotation_at is not None:
        part = slice(space.rotation_at, space.rotation_at + 3)
        points[:, part] = [slerp(start[part], end[part], float(share)) for share in shares]
    points[shares == 1.0] = end
    return points


def due(plans: tuple[Plan, ...], now_s: float, *, ahead_s: float = 1.0) -> Iterator[Plan]:
    """Those that begin within ``ahead_s``: no queue has to hold a whole episode."""
    return (plan for plan in plans if float(plan.times_s[0]) <= now_s + ahead_s)


def _plans(times_s: np.ndarray, targets: np.ndarray, first_number: int) -> Iterator[Plan]:
    for number, at in enumerate(range(0, len(times_s), MAX_POINTS), first_number):
        part = slice(at, at + MAX_POINTS)
        yield Plan(number, times_s[part], targets[part], float(times_s[at]))


def _checked(actions: np.ndarray, space: Space, limits: Limits) -> np.ndarray:
    """As float64 (T, D). Raises as `episode_plan`."""
    actions = np.asarray(actions, np.float64)
    if actions.ndim != 2 or actions.shape[1] != space.size or not len(actions):
        raise DataError(
            f"the episode's actions are {list(actions.shape)}; the actuator takes {space.size} "
            f"numbers: {', '.join(space.names)}",
            hint="was it recorded with this robot?",
        )
    finite = np.isfinite(actions)
    if not finite.all():
        frame, number = np.argwhere(~finite)[0].tolist()
        raise DataError(
            f"the episode's {space.names[number]} of frame {frame} is {actions[frame, number]}",
            hint="it was not recorded whole: leave the episode out",
        )
    _check_inside(actions[0], space, limits)
    return actions


def _check_inside(first: np.ndarray, space: Space, limits: Limits) -> None:
    if limits.low is None or limits.high is None:
        return
    for i, low, high in zip(space.linear, limits.low, limits.high, strict=True):
        if not low <= first[i] <= high:
            raise ConfigError(
                f"the episode begins with {space.names[i]} = {first[i]:g} {space.units[i]}, "
                f"outside the workspace, {low:g} to {high:g}",
                hint="was it recorded with this robot, and in this frame?",
            )
