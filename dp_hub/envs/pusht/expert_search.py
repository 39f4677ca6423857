"""Which pushes are worth making: a quick search in a simulator of the demonstrator's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dp_hub.envs.pusht import expert_geometry as geometry
from dp_hub.envs.pusht.physics import (
    AGENT_RADIUS_PX,
    GOAL_POSE,
    SUCCESS_COVERAGE,
    T_CENTRE_OF_GRAVITY,
    TABLE_PX,
    PushTPhysics,
    coverage_of,
    keypoints_of,
)

Pose = tuple[float, float, float]
_GOAL_KEYPOINTS = keypoints_of(*(np.asarray(value) for value in GOAL_POSE))
_BODY_KEYPOINTS = keypoints_of(np.array(0.0), np.array(0.0), np.array(0.0))
_KEYPOINT_PAIRS = list(zip(_BODY_KEYPOINTS.tolist(), _GOAL_KEYPOINTS.tolist(), strict=True))
_EDGE_PX = 14.0
_MOMENT = 3000.0  # of the T's mass 1, LEGACY value (PushTPhysics)
_BEGIN_PX = 2.0  # a push is counted from this far before contact
_HOPELESS_PACE = 50.0
_NEXT_WALK_STEPS = 8.0  # what breaking off costs at least: the walk to another push


@dataclass(frozen=True)
class Push:
    """A push in the T's body frame, as it lies when the push begins.

    Args:
        contact: (2,) the agent's centre where it first touches.
        heading: of the agent, rad.
        bend: how much the heading turns per px.
        length_px: how far the agent goes on after contact.
        pace: steps it takes, the walk there included, per step it saves; less is better.
    """

    contact: tuple[float, float]
    heading: float
    bend: float = 0.0
    length_px: float = 0.0
    pace: float = math.inf

    def path(self, *, before_px: float = 0.0, spacing_px: float = 2.0) -> np.ndarray:
        """Points from ``before_px`` before contact to the end, float64 (M, 2), body frame."""
        n = max(2, math.ceil((self.length_px + before_px) / spacing_px) + 1)
        return self.point(np.linspace(-before_px, self.length_px, n))

    def point(self, along: np.ndarray) -> np.ndarray:
        """Where the agent's centre is ``along`` px after contact (straight before it)."""
        after = np.maximum(along, 0.0)
        chord = np.sinc(self.bend * after / (2 * math.pi)) * after + np.minimum(along, 0.0)
        angle = self.heading + self.bend * after / 2
        return np.stack(
            [self.contact[0] + chord * np.cos(angle), self.contact[1] + chord * np.sin(angle)], -1
        )


def distance(poses: np.ndarray) -> np.ndarray:
    """Mean distance of the T's keypoints from their goals at poses (P, 3); float64 (P,) px."""
    gaps = keypoints_of(poses[:, 0], poses[:, 1], poses[:, 2]) - _GOAL_KEYPOINTS
    return np.asarray(np.hypot(gaps[..., 0], gaps[..., 1]).mean(-1))


def distance_of(pose: Pose) -> float:
    """The same at one pose, quickly."""
    x, y, angle = pose
    cos, sin = math.cos(angle), math.sin(angle)
    total = 0.0
    for (px, py), (goal_x, goal_y) in _KEYPOINT_PAIRS:
        total += math.hypot(cos * px - sin * py + x - goal_x, sin * px + cos * py + y - goal_y)
    return total / len(_KEYPOINT_PAIRS)


def steps_from(poses: np.ndarray, aim: float) -> np.ndarray:
    """About how many steps the demonstrator needs from poses (P, 3) on; float64 (P,).

    Args:
        poses: of the T.
        aim: the coverage at which nothing is left to do.
    """
    gaps = distance(poses)
    steps = 8.0 + 10.0 * np.sqrt(gaps)  # fitted to the demonstrator's own episodes
    for k in np.flatnonzero(gaps < 6.0):
        coverage = coverage_of(*poses[k])
        if coverage > SUCCESS_COVERAGE + 0.005:
            steps[k] = min(steps[k], 500.0 * max(0.0, aim - coverage))
    return steps


def pace(steps: np.ndarray, before: float, after: np.ndarray) -> np.ndarray:
    """Steps spent per step saved, (P,): what a push costs. Very much where nothing is saved."""
    return steps / np.maximum(before - after, 0.01)


def on_table(point: Sequence[float] | np.ndarray, margin_px: float) -> bool:
    """Whether a world point (2,) is on the table, this far from its edges."""
    return all(margin_px < value < TABLE_PX - margin_px for value in point)


@dataclass(frozen=True)
class Scene:
    """What a push is planned from.

    Args:
        pose: the T's, world.
        here: (2,) the agent's last target, body frame.
        push_speed, walk_speed: px a step.
    """

    pose: Pose
    here: np.ndarray
    push_speed: float
    walk_speed: float

    @cached_property
    def distance_px(self) -> float:
        """The T's keypoints' mean distance from their goals."""
        return distance_of(self.pose)

    def walk_steps(self, there: np.ndarray) -> float:
        """About how many steps the walk round the T to a body-frame point (2,) takes."""
        a, b = self.here - T_CENTRE_OF_GRAVITY, there - T_CENTRE_OF_GRAVITY
        turn = abs(math.atan2(a[0] * b[1] - a[1] * b[0], float(a @ b)))
        radial = abs(math.hypot(*a) - math.hypot(*b))
        return 6.0 + (90.0 * turn + 0.5 * radial) / self.walk_speed


@dataclass(frozen=True)
class Moving:
    """What a push in hand is steered from.

    Args:
        pose: the T's.
        agent, velocity: of the agent, px and px/s.
        speed: of the hand, px a step.
        patience: the pace at which going on still pays.
    """

    pose: Pose
    agent: tuple[float, float]
    velocity: tuple[float, float]
    speed: float
    patience: float


class PushSearch:
    """Looks for good pushes from a pose of the T.

    Args:
        tilt_rad: first tries go along the normal and this much to both sides.
        run_up_px: room the agent needs before contact.
        aim: the coverage at which nothing is left to do.
    """

    def __init__(self, *, tilt_rad: float, run_up_px: float, aim: float) -> None:
        self.tilt_rad, self.run_up_px, self.aim = tilt_rad, run_up_px, aim
        self._trial = PushTPhysics()
        self._margin_px = _EDGE_PX
        self._contacts, self._normals = geometry.contact_points()

    def best(self, scene: Scene, *, tries: int, refine: int) -> list[Push]:
        """Pushes that pay, best first: a first ranking, ``tries`` played, ``refine`` improved."""
        for self._margin_px in (
            _EDGE_PX,
            -TABLE_PX,
        ):  # between T and wall only if there is no other
            guesses = self._first_guesses(scene.pose)[:tries]
            found = sorted((self.play(push, scene) for push in guesses), key=lambda p: p.pace)
            if found[0].pace < _HOPELESS_PACE:
                break
        better = [self._improve(push, scene) for push in found[:refine]]
        ranked = sorted(better + found[refine:], key=lambda push: push.pace)
        return [push for push in ranked if push.pace < math.inf]

    def _first_guesses(self, pose: Pose) -> list[Push]:
        """Pushes along and beside the normals, those first whose first px brings the T nearest.

        Nothing rubs and nothing coasts: a push along the normal n at arm r moves the T by J n and
        turns it by J (r x n) / I, J = (u . n) / (1 + (r x n)^2 / I) for agent velocity u.
        """
        towards = geometry.to_body(_GOAL_KEYPOINTS, pose) - _BODY_KEYPOINTS
        towards /= np.maximum(np.hypot(*towards.T)[:, None], 1.0)
        inward = -self._normals
        arm = self._contacts + AGENT_RADIUS_PX * inward - T_CENTRE_OF_GRAVITY
        lever = arm[:, 0] * inward[:, 1] - arm[:, 1] * inward[:, 0]
        spun = _BODY_KEYPOINTS - T_CENTRE_OF_GRAVITY
        per_rad = (np.stack([-spun[:, 1], spun[:, 0]], -1) * towards).sum(1).mean()
        gain = (inward @ towards.mean(0) + lever / _MOMENT * per_rad) / (1 + lever**2 / _MOMENT)
        guesses = []
        for k in np.argsort(-gain, kind="stable"):
            angle = math.atan2(inward[k, 1], inward[k, 0])
            for tilt in (0.0, self.tilt_rad, -self.tilt_rad):
                guesses.append(Push((self._contacts[k, 0], self._contacts[k, 1]), angle + tilt))
        return guesses

    def _improve(self, push: Push, scene: Scene) -> Push:
        """Climb: shift the contact along the side, tilt, bend; keep what helps."""
        for size in (1.0, 0.5):
            for change in ("shift", "tilt", "bend"):
                for sign in (1.0, -1.0):
                    other = self.play(_varied(push, change, sign * size), scene)
                    if other.pace < push.pace:
                        push = other
                        break
        return push

    def play(self, push: Push, scene: Scene) -> Push:
        """Play a push from contact on; the same push with the length at which it pays best."""
        begin = geometry.to_world(push.point(np.array(-_BEGIN_PX)), scene.pose)
        run_up = push.point(np.array(-self.run_up_px))
        if not on_table(geometry.to_world(run_up, scene.pose), self._margin_px):
            return push
        stride = min(12.0, max(2.5, 0.3 * scene.distance_px))
        along = stride * np.arange(1, 16) - _BEGIN_PX
        targets = geometry.to_world(push.point(along), scene.pose)
        self._trial.set_state((begin[0], begin[1], *scene.pose), legacy=False)
        poses, reached = self._follow(targets)
        gone = np.hypot(*np.diff([begin, *reached], axis=0).T).cumsum()
        steps = scene.walk_steps(run_up) + gone / scene.push_speed
        paces = self._paces(steps, scene.pose, poses)
        k = int(np.argmin(paces))
        return replace(push, length_px=max(1.0, gone[k] - _BEGIN_PX), pace=float(paces[k]))

    def steer(self, push: Push, moving: Moving) -> Push:
        """The push in hand, led on from the hand's last target (its ``contact``) as pays best.

        Args:
            push: in world coordinates; a length of 0 means that going on does not pay.
            moving: the table now.
        """
        best = replace(push, length_px=0.0, pace=math.inf)
        for bend in (0.0, 0.01, -0.01):
            for tilt in (0.0, 0.12, -0.12, 0.3, -0.3):
                other = replace(push, heading=push.heading + tilt, bend=bend)
                other = self._lead_on(other, moving)
                # A small turn is taken only if it saves something.
                if other.pace * (1.0 + 0.1 * abs(tilt) + 2.0 * abs(bend)) < best.pace:
                    best = other
        return best

    def _lead_on(self, push: Push, moving: Moving) -> Push:
        along = moving.speed * np.arange(1, 15)
        self._trial.set_state((*moving.agent, *moving.pose), legacy=False)
        self._trial.velocity_x, self._trial.velocity_y = moving.velocity
        poses, reached = self._follow(push.point(along))
        ahead = np.array((math.cos(push.heading), math.sin(push.heading)))
        lengths = (np.array(reached) - push.contact) @ ahead
        steps = _NEXT_WALK_STEPS + np.arange(1, len(poses) + 1)
        paces = np.where(lengths > 0, self._paces(steps, moving.pose, poses), math.inf)
        k = int(np.argmin(paces))
        if paces[k] * (k + 1) / steps[k] > moving.patience:  # the walk has to be made anyway
            return replace(push, length_px=0.0, pace=math.inf)
        return replace(push, length_px=float(lengths[k]), pace=float(paces[k]))

    def _follow(self, targets: np.ndarray) -> tuple[list[Pose], list[tuple[float, float]]]:
        """Play targets until the T goes astray; its poses and where the agent was."""
        trial = self._trial
        poses, reached = [], []
        near = math.inf
        for x, y in targets.tolist():
            trial.step(x, y)
            poses.append(trial.block_pose())
            reached.append((trial.agent_x, trial.agent_y))
            here = distance_of(poses[-1])
            near = min(near, here)
            if here > near + 6.0 or not on_table(reached[-1], self._margin_px):
                break
        return poses, reached

    def _paces(self, steps: np.ndarray, now: Pose, poses: list[Pose]) -> np.ndarray:
        before, *after = steps_from(np.array([now, *poses]), self.aim)
        return pace(steps, before, np.array(after))


def _varied(push: Push, change: str, amount: float) -> Push:
    if change == "tilt":
        return replace(push, heading=push.heading + 0.2 * amount)
    if change == "bend":
        return replace(push, bend=push.bend + 0.008 * amount)
    side = push.heading + math.pi / 2
    shifted = (
        push.contact[0] + 4.0 * amount * math.cos(side),
        push.contact[1] + 4.0 * amount * math.sin(side),
    )
    return replace(push, contact=shifted)
