"""A recorded episode carried out by a robot."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp_hub.errors import DataError, RobotError
from dp_hub.robot.clock import ticks
from dp_hub.robot.keys.source import KeySource
from dp_hub.robot.keys.table import REPLAY, Does, Keys
from dp_hub.robot.motion.plan import Plan
from dp_hub.robot.observing.check import split_action
from dp_hub.robot.replaying import EpisodePlan, delayed, due, episode_plan
from dp_hub.robot.session.session import Session

_LOOP_S = 0.005
_AHEAD_S = 1.0


@dataclass(frozen=True, eq=False)
class RecordedActions:
    """What an episode did.

    Args:
        actions: float64 (T, Da).
        fps: of the episode.
        seed: of its simulated start state; None: it has none.
        name: for messages.
    """

    actions: np.ndarray
    fps: float
    seed: int | None
    name: str


@dataclass(frozen=True)
class Replayed:
    """How a replay went.

    Args:
        name: of the episode.
        done: all of it, and not stopped on the way.
        off_mean, off_most: how far the actuators were from the targets sent, when the next one was
            sent, in their units.
        units: of these, where all numbers have the same.
        score: the simulation's highest reward; None without one.
    """

    name: str
    done: bool
    off_mean: float
    off_most: float
    units: str
    score: float | None

    def line(self) -> str:
        """For a person."""
        score = "" if self.score is None else f", reward {self.score:.3f}"
        mean, most = (f"{one:.3g}{self.units}" for one in (self.off_mean, self.off_most))
        return (
            f"{self.name}: {'carried out' if self.done else 'stopped on the way'}; behind its "
            f"targets by {mean} on average, {most} at most{score}"
        )


def recorded_actions(dataset: str, episode: int) -> RecordedActions:
    """The actions of an episode of a dataset, a folder or a name on the Hub.

    Raises:
        DataError: there is no such episode, or it has no ``action``.
    """
    from dp_hub.dataset.reader import open_dataset

    opened = open_dataset(dataset)
    if not 0 <= episode < opened.n_episodes:
        raise DataError(
            f"{dataset} has no episode {episode}", hint=f"it has 0 to {opened.n_episodes - 1}"
        )
    if "action" not in opened.features:
        raise DataError(f"{dataset} has no `action`")
    part = slice(int(opened.episodes.starts[episode]), int(opened.episodes.stops[episode]))
    seed = _metadata(opened, episode).get("seed")
    return RecordedActions(
        np.asarray(opened.column("action")[part], np.float64),
        opened.fps,
        None if seed is None else int(seed),
        f"episode {episode} of {dataset}",
    )


def _metadata(opened: Any, episode: int) -> dict[str, Any]:
    return dict(opened.episodes.metadata[episode])


class Replay:
    """Carries out one episode.

    Args:
        session: on.
        recorded: the episode.
        speed: share of the recorded speed.
        keys: a person's.
        say: tells the person a sentence.
    Raises:
        DataError: the actions do not fit this robot.
        ConfigError: it begins outside the workspace.
    """

    def __init__(
        self,
        session: Session,
        recorded: RecordedActions,
        *,
        speed: float,
        keys: KeySource,
        say: Callable[[str], None],
    ) -> None:
        self._session, self._recorded = session, recorded
        self._keys, self._table, self._say = keys, Keys(REPLAY), say
        self._fps = recorded.fps * speed
        if recorded.actions.shape[1] != session.action_size:
            raise DataError(
                f"{recorded.name} has actions of {recorded.actions.shape[1]} numbers; the robot "
                f"takes {session.action_size}",
                hint="was it recorded with this robot?",
            )

    def run(self) -> Replayed:
        """All of it, or until a person stops it. Raises RobotError: a process failed."""
        session = self._session
        if session.world is not None and self._recorded.seed is not None:
            session.reset(self._recorded.seed)
        plans = self._plans(session.clock.now_s())
        begins_s = next(iter(plans.values())).begins_s
        ends_s = max(plan.ends_s for plan in plans.values())
        waiting = {name: list(plan.plans) for name, plan in plans.items()}
        off: list[float] = []
        done = True
        try:
            for _ in ticks(_LOOP_S, session.clock):
                session.beat()
                session.check()
                now_s = session.clock.now_s()
                if self._is_stopped(now_s):
                    done = False
                    break
                self._send(waiting, now_s)
                if now_s >= begins_s:
                    off.append(self._behind())
                if now_s >= ends_s:
                    break
        finally:
            session.hold()
        truth = session.world.truth() if session.world else {}
        units = {unit for space in session.spaces.values() for unit in space.units}
        return Replayed(
            self._recorded.name,
            done,
            float(np.mean(off)) if off else 0.0,
            max(off, default=0.0),
            f" {units.pop()}" if len(units) == 1 else "",
            truth.get("max_reward"),
        )

    def _plans(self, start_s: float) -> dict[str, EpisodePlan]:
        """Of every actuator, in step with one another."""
        session, made = self._session, {}
        widths = [space.size for space in session.spaces.values()]
        for (name, space), part in zip(session.spaces.items(), split_action(widths), strict=True):
            made[name] = episode_plan(
                self._recorded.actions[:, part],
                self._fps,
                start_s=start_s,
                position=session.position(name),
                space=space,
                limits=session.config.actuators[name].limits,
            )
        latest_s = max(plan.begins_s for plan in made.values())
        return {name: delayed(plan, latest_s - plan.begins_s) for name, plan in made.items()}

    def _send(self, waiting: dict[str, list[Plan]], now_s: float) -> None:
        for name, plans in waiting.items():
            for plan in list(due(tuple(plans), now_s, ahead_s=_AHEAD_S)):
                if not self._session.move(name, plan.times_s, plan.targets, plan.replace_from_s):
                    raise RobotError(f"the controller of {name} takes no plans any more")
                plans.remove(plan)

    def _behind(self) -> float:
        """How far all actuators are from what they were told last."""
        away = []
        for name in self._session.spaces:
            sent = self._session.last(f"{name}.sent")
            if len(sent):
                away.append(sent.values["target"][-1] - self._session.position(name))
        return float(np.linalg.norm(np.concatenate(away))) if away else 0.0

    def _is_stopped(self, now_s: float) -> bool:
        for does in self._pressed(now_s):
            if does is Does.EMERGENCY:
                self._session.stop()
                self._say("emergency stop: every arm was stopped")
            if does in (Does.EMERGENCY, Does.QUIT):
                return True
        return False

    def _pressed(self, now_s: float) -> Iterator[Does]:
        for key in self._keys.read():
            does = self._table.pressed(key, now_s)
            if does is not None:
                yield does
