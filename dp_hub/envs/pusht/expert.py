"""A scripted demonstrator of PushT: it walks round the T and pushes it home, as a person would.

It looks into the simulator: from contact points round the T and a few directions each it tries
pushes, keeps those that bring the T's keypoints nearest to the goal for the time they take, plays
the best of them exactly as it would be carried out (the walk there, the push, the stop), and
chooses one of the best by a draw of the episode's own generator. Only the push in hand is planned:
what to do next depends on where T and agent are and not on any hidden intention, so that a policy
that sees just those can learn it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dp_hub.envs.pusht import expert_geometry as geometry
from dp_hub.envs.pusht import expert_motion as motion
from dp_hub.envs.pusht.physics import (
    GOAL_POSE,
    MAX_EPISODE_STEPS,
    SUCCESS_COVERAGE,
    T_CENTRE_OF_GRAVITY,
    PushTPhysics,
    coverage_of,
    keypoints_of,
)

Pose = tuple[float, float, float]
_GOAL_KEYPOINTS = keypoints_of(*(np.asarray(value) for value in GOAL_POSE))
_TABLE_LO, _TABLE_HI = 14.0, 498.0
_MOMENT = 3000.0  # of the T's mass 1, LEGACY value (PushTPhysics)


@dataclass(frozen=True)
class ExpertConfig:
    """How the demonstrator moves and chooses. Speeds are px a control step of 0.1 s."""

    walk_speed: float = 22.0
    push_speed: float = 12.0
    fine_speed: float = 5.0
    fine_distance_px: float = 25.0  # pushes slow down when the T is this near
    touch_speed: float = 8.0  # on the last px before contact
    run_up_px: float = 16.0
    clearance_px: float = 12.0
    speed_up: float = 4.0
    slow_down: float = 3.5
    sideways: float = 9.0
    tilt_rad: float = 0.45  # pushes go along the normal and this much to both sides of it
    step_charge: float = 0.25
    temperature: float = 0.5
    tries: int = 44  # pushes played in the quick search, after the first-order ranking
    rehearsals: int = 6  # pushes played exactly
    goal_coverage: float = 0.96
    max_steps: int = MAX_EPISODE_STEPS


@dataclass(frozen=True)
class Push:
    """A push in the body frame: where the agent's centre touches, where to, and how far."""

    contact: np.ndarray
    direction: np.ndarray
    length_px: float
    score: float


class Expert:
    """Plans one push at a time. Deterministic for a given ``rng`` state.

    Args:
        config: how to move and choose.
        rng: draws between nearly equal pushes.
    """

    def __init__(self, config: ExpertConfig, *, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        self._trial = PushTPhysics()
        self._contacts, self._normals = geometry.contact_points()
        self._hull = geometry.walking_hull(config.clearance_px)

    def plan(self, agent: np.ndarray, target: np.ndarray, pose: Pose) -> np.ndarray:
        """Targets of the next walk and push, float32-exact float64 (n, 2).

        Args:
            agent: (2,) where the agent is, at rest or nearly.
            target: (2,) the last target it was given.
            pose: the T's.
        """
        pushes = self._search(pose)
        start = float(_distance(np.array([pose]))[0])
        plans, costs = [], []
        for push in self._shortlist(pushes, pose, target):
            for targets in self._carry_out(push, pose, target, start):
                plans.append(targets)
                costs.append(self._rehearse(targets, agent, pose))
        order = np.array(costs)
        weights = np.exp(-(order - order.min()) / max(self.config.temperature, 1e-9))
        return plans[int(self.rng.choice(len(plans), p=weights / weights.sum()))]

    def _search(self, pose: Pose) -> list[Push]:
        """Pushes that bring the T nearer, best first, each as long as pays."""
        goal_body = geometry.to_body(_GOAL_KEYPOINTS, pose)
        candidates = self._rank_by_first_order(goal_body)
        found = []
        for contact, direction in candidates[: self.config.tries]:
            push = self._try(contact, direction, pose)
            if push is not None:
                found.append(push)
        return sorted(found, key=lambda push: push.score)

    def _rank_by_first_order(self, goal_body: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """(contact, direction) pairs, those first whose first px brings the keypoints nearest.

        Nothing rubs and nothing coasts: a push along the normal n at arm r moves the T by J n and
        turns it by J (r x n) / I, J = (u . n) / (1 + (r x n)^2 / I) for agent velocity u.
        """
        here = keypoints_of(np.array(0.0), np.array(0.0), np.array(0.0))
        towards = goal_body - here
        towards /= np.maximum(np.hypot(*towards.T)[:, None], 1.0)
        inward = -self._normals
        arm = self._contacts + 15.0 * inward - T_CENTRE_OF_GRAVITY
        lever = arm[:, 0] * inward[:, 1] - arm[:, 1] * inward[:, 0]
        impulse = 1.0 / (1.0 + lever**2 / _MOMENT)
        spun = here - T_CENTRE_OF_GRAVITY
        turned = np.stack([-spun[:, 1], spun[:, 0]], -1)  # velocity of keypoints per rad
        shift = inward @ towards.mean(0)
        turn = (lever / _MOMENT) * (turned * towards).sum(1).mean()
        gain = impulse * (shift + turn)
        pairs = []
        for index in np.argsort(-gain):
            for tilt in (0.0, self.config.tilt_rad, -self.config.tilt_rad):
                pairs.append((float(gain[index]), self._contacts[index], _turned(inward[index], tilt)))
        return [(contact, direction) for _, contact, direction in pairs]

    def _try(self, contact: np.ndarray, direction: np.ndarray, pose: Pose) -> Push | None:
        """Play a push from contact on and find the length at which it pays best."""
        begin = geometry.to_world(contact - 2.0 * direction, pose)
        if not _on_table(geometry.to_world(contact - self.config.run_up_px * direction, pose)):
            return None
        heading = geometry.to_world(direction, (0.0, 0.0, pose[2]))
        trial = self._trial
        trial.set_state((*begin, *pose), legacy=False)
        before = float(_distance(np.array([pose]))[0])
        stride = 5.0 if before < self.config.fine_distance_px else 12.0
        poses, reached = [], []
        best = before
        for k in range(1, 14):
            goal = begin + (k + 1) * stride * heading
            trial.step(goal[0], goal[1])
            poses.append(trial.block_pose())
            here = np.array((trial.agent_x, trial.agent_y))
            reached.append(float((here - begin) @ heading))
            now = float(_distance(np.array(poses[-1:]))[0])
            best = min(best, now)
            if now > best + 8.0 or not _on_table(here):
                break
        travelled = np.array(reached)
        speed = self.config.fine_speed if before < self.config.fine_distance_px else self.config.push_speed
        scores = _distance(np.array(poses)) + self.config.step_charge * travelled / speed
        k = int(np.argmin(scores))
        if scores[k] >= before:
            return None
        return Push(contact, direction, travelled[k] - 2.0, float(scores[k]))

    def _shortlist(self, pushes: list[Push], pose: Pose, target: np.ndarray) -> list[Push]:
        """The pushes worth a rehearsal: best by score and the steps to walk there."""
        body = geometry.to_body(target, pose)
        angle = math.atan2(*(body - T_CENTRE_OF_GRAVITY)[::-1])

        def cost(push: Push) -> float:
            there = push.contact - self.config.run_up_px * push.direction - T_CENTRE_OF_GRAVITY
            turn = abs((math.atan2(there[1], there[0]) - angle + math.pi) % (2 * math.pi) - math.pi)
            return push.score + self.config.step_charge * 100 * turn / self.config.walk_speed

        return sorted(pushes, key=cost)[: self.config.rehearsals]

    def _carry_out(
        self, push: Push, pose: Pose, target: np.ndarray, distance: float
    ) -> list[np.ndarray]:
        """Targets of the walk to a push and the push, shorter way round first (or the only one)."""
        config = self.config
        lengths = [push.length_px]
        if distance < config.fine_distance_px:
            lengths = [push.length_px - 1.5, push.length_px, push.length_px + 1.5]
        walks = self._walks(push, pose, target)
        return [
            self._time(walk, push, length, pose, distance) for walk in walks for length in lengths
        ]

    def _walks(self, push: Push, pose: Pose, target: np.ndarray) -> list[np.ndarray]:
        """Corner points (body frame) from the target to the run-up, for each way worth it."""
        here = geometry.to_body(target, pose)
        run_up = push.contact - self.config.run_up_px * push.direction
        out = geometry.leave(here, self._hull)
        back = geometry.leave(run_up, self._hull)[::-1]
        ways = geometry.ways_round(out[-1], back[0], self._hull)
        return [np.array([*out, *way, *back]) for way in ways]

    def _time(
        self, walk: np.ndarray, push: Push, length: float, pose: Pose, distance: float
    ) -> np.ndarray:
        config = self.config
        approach = motion.round_corners([*walk, push.contact - 2.0 * push.direction])
        shove = motion.resample(
            np.array([push.contact - 2.0 * push.direction, push.contact + length * push.direction])
        )
        path = np.concatenate([approach, shove[1:]])
        near = min(1.0, distance / (2 * config.fine_distance_px))
        push_speed = config.fine_speed + near * (config.push_speed - config.fine_speed)
        limit = np.minimum(motion.turn_limit(path, config.sideways), config.walk_speed)
        to_go = motion.arc_length(approach)[-1] - motion.arc_length(approach)
        limit[: len(approach)][to_go < 12.0] = np.minimum(
            limit[: len(approach)][to_go < 12.0], max(config.touch_speed, 0.7 * push_speed)
        )
        limit[len(approach) :] = np.minimum(limit[len(approach) :], push_speed)
        targets = motion.time_along(
            path, limit, speed_up=config.speed_up, slow_down=config.slow_down
        )
        targets = np.concatenate([targets, targets[-1:]])  # a moment to come to rest
        world = geometry.to_world(targets, pose)
        return np.clip(world, 6.0, 506.0).astype(np.float32).astype(np.float64)

    def _rehearse(self, targets: np.ndarray, agent: np.ndarray, pose: Pose) -> float:
        """Cost of carrying out targets: distance left, steps taken, less for reaching the goal."""
        trial = self._trial
        trial.set_state((*agent, *pose), legacy=False)
        best = 0.0
        for step, (x, y) in enumerate(targets):
            trial.step(x, y)
            if step > len(targets) - 14:
                best = max(best, trial.coverage())
        end = trial.block_pose()
        cost = float(_distance(np.array([end]))[0]) + self.config.step_charge * len(targets)
        if best > self.config.goal_coverage:
            cost -= 10.0 + 100.0 * (best - self.config.goal_coverage)
        return cost


def _distance(poses: np.ndarray) -> np.ndarray:
    """Mean distance of the keypoints to their goals at poses (P, 3), float64 (P,) px."""
    gaps = keypoints_of(poses[:, 0], poses[:, 1], poses[:, 2]) - _GOAL_KEYPOINTS
    return np.asarray(np.hypot(gaps[..., 0], gaps[..., 1]).mean(-1))


def _turned(vector: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array((cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1]))


def _on_table(point: Sequence[float] | np.ndarray) -> bool:
    return all(_TABLE_LO < value < _TABLE_HI for value in point)


@dataclass(frozen=True)
class Demonstration:
    """What an episode was: arrays of equal length T, and whether it reached the goal."""

    state: np.ndarray  # float32 (T, 5)
    keypoint: np.ndarray  # float32 (T, 9, 2)
    action: np.ndarray  # float32 (T, 2)
    success: bool


def demonstrate(seed: int, config: ExpertConfig | None = None) -> Demonstration:
    """Play one episode from a seed's start state. ``action[t]`` is applied at ``state[t]``."""
    config = config or ExpertConfig()
    table = PushTPhysics()
    table.reset(seed)
    expert = Expert(config, rng=np.random.default_rng(seed))
    states, actions = [], []
    target = np.array((table.agent_x, table.agent_y))
    reached = False
    while not reached and len(actions) < config.max_steps:
        agent = np.array((table.agent_x, table.agent_y))
        for target in expert.plan(agent, target, table.block_pose()):
            states.append(table.state())
            actions.append(target)
            table.step(target[0], target[1])
            if table.coverage() > SUCCESS_COVERAGE:
                reached = True
                break
            if len(actions) == config.max_steps:
                break
    state = np.array(states)
    return Demonstration(
        state=state.astype(np.float32),
        keypoint=keypoints_of(state[:, 2], state[:, 3], state[:, 4]).astype(np.float32),
        action=np.array(actions).astype(np.float32),
        success=reached,
    )
