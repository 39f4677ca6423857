"""A scripted demonstrator of PushT: it walks round the T and pushes it home, as a person would.

It looks into the simulator: from contact points round the T it tries pushes, keeps those that bring
the T's keypoints nearest to the goal for the time they take, plays the best of them exactly as they
would be carried out (the walk there, the push, the stop), and chooses one of the best by a draw of
the episode's own generator. Only the push in hand is planned: what to do next depends on where T
and agent are and not on any hidden intention, so that a policy that sees just those can learn it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from dp_hub.envs.pusht import expert_geometry as geometry
from dp_hub.envs.pusht import expert_motion as motion
from dp_hub.envs.pusht.expert_search import (
    Moving,
    Pose,
    Push,
    PushSearch,
    Scene,
    distance_of,
    pace,
    steps_from,
)
from dp_hub.envs.pusht.physics import (
    MAX_EPISODE_STEPS,
    SUCCESS_COVERAGE,
    PushTPhysics,
)

_NEAR_PX = 6.0  # farther away the T cannot cover 95 % of the goal


@dataclass(frozen=True)
class ExpertConfig:
    """How the demonstrator moves and chooses. Speeds are px a control step of 0.1 s."""

    walk_speed: float = 18.0
    push_speed: float = 12.0
    fine_speed: float = 5.0
    fine_distance_px: float = 25.0  # pushes slow down when the T is this near
    touch_speed: float = 8.0  # on the last px before contact
    run_up_px: float = 32.0
    clearance_px: float = 34.0
    speed_up: float = 4.0
    slow_down: float = 3.5
    sideways: float = 7.0
    smooth_px: float = 26.0
    tilt_rad: float = 0.45  # first tries go along the normal and this much to both sides of it
    temperature: float = 0.02  # how much slower a way may be and still be chosen, as a share
    tries: int = 60  # pushes played in the quick search, after the first-order ranking
    refine: int = 6
    rehearsals: int = 8  # pushes played exactly
    aim_coverage: float = 0.985  # well inside success, so that a learner may miss by a little
    end_coverage: float = 0.97  # a push that ends here is the last one
    touch_ups: int = 2  # pushes made at most after success to come nearer
    look_steps: int = 3  # a push is steered anew every so many steps
    tremor: float = 0.25  # see motion.Tremor; what a learner sees of recoveries comes from it
    patience: float = 2.0  # a push in hand goes on while its pace is within this of the plan's
    max_steps: int = MAX_EPISODE_STEPS


@dataclass(frozen=True)
class Plan:
    """A walk and a push.

    Args:
        walk: float64 (n, 2), targets of the walk up to contact, world px.
        shove: float64 (m, 2), targets of the push, the last one twice to come to rest.
        push: the push in world coordinates.
        pace: see expert_search.pace.
    """

    walk: np.ndarray
    shove: np.ndarray
    push: Push
    pace: float


class Expert:
    """Plans pushes and steers them. Deterministic for a given ``rng`` state.

    Args:
        config: how to move and choose.
        rng: draws between nearly equal pushes.
    """

    def __init__(self, config: ExpertConfig, *, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        self._trial = PushTPhysics()
        self._search = PushSearch(
            tilt_rad=config.tilt_rad, run_up_px=config.run_up_px, aim=config.aim_coverage
        )
        self._hull = geometry.walking_hull(config.clearance_px)

    def plan(self, agent: np.ndarray, target: np.ndarray, pose: Pose) -> Plan:
        """The next walk and push.

        Args:
            agent: (2,) where the agent is, at rest or nearly.
            target: (2,) the last target it was given.
            pose: the T's.
        """
        config = self.config
        scene = Scene(
            pose, geometry.to_body(target, pose), self._push_speed(pose), config.walk_speed
        )
        pushes = self._search.best(scene, tries=config.tries, refine=config.refine)
        plans = [
            self._rehearse(plan, agent, pose)
            for push in pushes[: config.rehearsals]
            for plan in self._carry_out(push, pose, target)
        ]
        paces = np.array([plan.pace for plan in plans])
        weights = np.exp(-np.log(paces / paces.min()) / max(config.temperature, 1e-9))
        return plans[int(self.rng.choice(len(plans), p=weights / weights.sum()))]

    def steer(self, push: Push, moving: Moving) -> tuple[Push, np.ndarray]:
        """The push in hand as it goes on best, and its targets, float64 (m, 2); none to stop.

        Args:
            push: in world coordinates, from the last target (its ``contact``) on.
            moving: the table now.
        """
        config = self.config
        push = self._search.steer(push, moving)
        if push.length_px < 0.5:
            return push, np.zeros((0, 2))
        path = push.path()
        limit = np.full(len(path), max(self._push_speed(moving.pose), moving.speed))
        targets, _ = motion.time_along(
            path,
            limit,
            speed_up=config.speed_up,
            slow_down=config.slow_down,
            start=moving.speed,
        )
        return push, targets

    def _push_speed(self, pose: Pose) -> float:
        config = self.config
        near = min(1.0, distance_of(pose) / (2 * config.fine_distance_px))
        return config.fine_speed + near * (config.push_speed - config.fine_speed)

    def _carry_out(self, push: Push, pose: Pose, target: np.ndarray) -> list[Plan]:
        """Plans that make a push, for each way round the T."""
        here = geometry.to_body(target, pose)
        run_up = push.point(np.array(-self.config.run_up_px))
        out = geometry.leave(here, self._hull)
        back = geometry.leave(run_up, self._hull)[::-1]
        ways = geometry.ways_round(out[-1], back[0], self._hull)
        walks = [np.array([*out, *way, *back]) for way in ways]
        extra: tuple[float, ...] = (0.0,)
        if distance_of(pose) < self.config.fine_distance_px:
            extra = (0.0, 1.0, 2.0, 3.5)  # the agent stops a little short of its target
        longer = [replace(push, length_px=push.length_px + more) for more in extra]
        return [self._time(walk, push, pose) for walk in walks for push in longer]

    def _time(self, walk: np.ndarray, push: Push, pose: Pose) -> Plan:
        """Give a walk and a push their speeds."""
        config = self.config
        touch = push.point(np.array(-2.0))
        approach = motion.smooth(motion.resample(np.array([*walk, touch])), config.smooth_px)
        path = np.concatenate([approach, push.path(before_px=2.0)[1:]])
        speed = self._push_speed(pose)
        limit = np.minimum(motion.turn_limit(path, config.sideways), config.walk_speed)
        along = motion.arc_length(path)
        to_go = along[len(approach) - 1] - along
        limit[to_go < 12.0] = np.minimum(limit[to_go < 12.0], max(config.touch_speed, 0.7 * speed))
        limit[to_go < 0.0] = np.minimum(limit[to_go < 0.0], speed)
        targets, at = motion.time_along(
            path, limit, speed_up=config.speed_up, slow_down=config.slow_down
        )
        world = np.clip(geometry.to_world(targets, pose), 6.0, 506.0)
        begin = int(np.searchsorted(at, along[len(approach) - 1]))
        in_world = replace(
            push,
            contact=tuple(geometry.to_world(np.array(push.contact), pose)),
            heading=push.heading + pose[2],
        )
        return Plan(world[:begin], np.concatenate([world[begin:], world[-1:]]), in_world, math.inf)

    def _rehearse(self, plan: Plan, agent: np.ndarray, pose: Pose) -> Plan:
        """The plan with its pace, played exactly."""
        trial = self._trial
        trial.set_state((agent[0], agent[1], *pose), legacy=False)
        best: Pose | None = None
        covered = SUCCESS_COVERAGE
        targets = np.concatenate([plan.walk, plan.shove])
        for x, y in targets.tolist():
            trial.step(x, y)
            if distance_of(trial.block_pose()) < _NEAR_PX and trial.coverage() > covered:
                best, covered = trial.block_pose(), trial.coverage()
        poses = np.array([pose, best or trial.block_pose()])
        before, after = steps_from(poses, self.config.aim_coverage)
        spent = float(pace(np.array([len(targets)]), before, np.array([after]))[0])
        return replace(plan, pace=spent)
