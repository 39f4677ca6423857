"""A policy drives a robot: asked when it is time, its answers become plans, nothing ever waits.

What happens when something is late or away:

| what | what the robot does |
|---|---|
| the answer is late | as `late` says: goes on with the rest of the last chunk, holds, or stops |
| a stream is too old | holds; asks again as soon as the stream is back |
| no answer within ``give_up_s`` | holds; `PolicyAway` |
| the policy's process or server is gone | holds; `PolicyAway` |
| a question does not suit the policy, or it answers what is no number | holds; RobotError |
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from dp_hub.config import build
from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.acting.lateness import Lateness
from dp_hub.robot.acting.pace import Pace
from dp_hub.robot.acting.rules import Rules
from dp_hub.robot.acting.schedule import Chunk, Pacing
from dp_hub.robot.acting.scheduler import Scheduler
from dp_hub.robot.config import InferenceConfig
from dp_hub.robot.inference.info import Answer, PolicyInfo, Prefix, Refused
from dp_hub.robot.inference.protocol import Inference
from dp_hub.robot.observing.align import Observation, Stale
from dp_hub.robot.observing.check import check_action, check_observed
from dp_hub.robot.session.session import Session

T = TypeVar("T")
log = logging.getLogger(__name__)
START_AGAIN_S = 120.0


class PolicyAway(RobotError):
    """The policy has not answered in time, or is gone. The robot holds."""


@dataclass(frozen=True)
class Driven:
    """What a policy's driving came to, so far.

    Args:
        lateness: of its answers.
        asked: questions.
        stale: times that a stream was too old and the robot held for it.
        full: plans that found no room in a controller's queue.
    """

    lateness: Lateness
    asked: int
    stale: int
    full: int

    def line(self) -> str:
        """For a log."""
        more = [f"{self.stale} waits for a stream"] if self.stale else []
        more += [f"{self.full} plans without room"] if self.full else []
        return "; ".join([self.lateness.line(), *more])

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        counts = {"asked": self.asked, "stale": self.stale, "full": self.full}
        return {**counts, "lateness": self.lateness.to_json()}


class PolicyDriver:
    """Drives with one policy: `start`, then `step` again and again, until `pause`.

    Args:
        session: on.
        inference: ready.
        how: chunks become motion.
        seed: of the policy's noise; None: noise of its own.
    Raises:
        RobotError: the robot does not give what the policy observes, or takes other actions.
        ConfigError: more actions of a chunk are to be carried out than it has, or it is to be asked
            ahead by all of them.
    """

    def __init__(
        self,
        session: Session,
        inference: Inference,
        how: InferenceConfig,
        *,
        seed: int | None = None,
    ) -> None:
        self._session, self._inference, self._how = session, inference, how
        self._info = info = inference.info
        check_suits(session, info)
        _check_period(session, info)
        self._pacing = _pacing(session, _n_action_steps(how, info))
        rules = Rules(**{name: getattr(how, name) for name in Rules.model_fields})
        self._scheduler = Scheduler(rules, self._pacing)
        self._pace = Pace(
            period_s=self._pacing.period_s,
            n_action_steps=self._pacing.n_action_steps,
            grid_s=_grid_s(session, info.observed),
            ahead=_ahead(how, self._pacing.n_action_steps),
        )
        if how.latency_s:
            self._pace.answered(how.latency_s)  # until there are answers
        self._seed = seed
        self._questions = self._questions_of_seed = 0
        self._asked: Observation | None = None
        self._asked_s = 0.0
        self._running = self._away = False
        self._starting_s: float | None = None
        self._waits_for: str | None = None
        self._stale = self._full = 0

    @property
    def told(self) -> Driven:
        """What it came to."""
        return Driven(self._scheduler.lateness, self._questions, self._stale, self._full)

    @property
    def running(self) -> bool:
        """Whether the policy drives."""
        return self._running

    def ready(self) -> bool:
        """Whether the policy can drive. Never waits.

        One that was away is started again, and is ready some time later.

        Raises:
            RobotError: it cannot be started.
        """
        if not self._away:
            return True
        now_s = self._session.clock.now_s()
        if self._starting_s is None:
            log.warning("the policy is started again")
            self._inference.start()
            self._starting_s = now_s
        starting_s, self._starting_s = self._starting_s, None  # unless all is well so far
        self._away = not self._inference.ready
        if self._away and now_s - starting_s > START_AGAIN_S:
            raise RobotError(f"the policy was not ready within {START_AGAIN_S:g} s")
        self._starting_s = starting_s if self._away else None
        return not self._away

    def start(self, *, seed: int | None = None) -> None:
        """Let the policy drive from now on; if it is not `ready`, as soon as it is.

        Args:
            seed: of its noise, from its first question on; None: it goes on with its noise.
        """
        if seed is not None:
            self._seed, self._questions_of_seed = seed, 0
        self._forget()
        self._running = True

    def pause(self) -> None:
        """The policy drives no more. The robot goes on with its plan until it is told else."""
        self._forget()
        self._running = False

    def step(self) -> bool:
        """Take an answer if there is one, ask if it is time. Never waits.

        Returns:
            Whether the rollout goes on; False where `late: stop` ends it.
        Raises:
            PolicyAway: see the module. The robot was told to hold.
            RobotError: an observation that does not suit the policy, or it cannot be started again;
                likewise.
        """
        if not self._running:
            return True
        now_s = self._session.clock.now_s()
        try:
            if not self.ready():
                return True
            if self._asked is not None:
                self._take_answer(now_s)
            if self._asked is None:
                self._ask()
        except RobotError as error:
            self._session.hold()
            self.pause()
            self._away |= isinstance(error, PolicyAway)
            raise
        if self._scheduler.state(now_s) == "stopped":
            self._session.hold()
            self.pause()
            return False
        return True

    def _take_answer(self, now_s: float) -> None:
        answer = _or_away(self._inference.answer)
        if answer is None:
            waited_s = now_s - self._asked_s
            if waited_s > self._how.give_up_s:
                raise PolicyAway(
                    f"the policy has not answered for {waited_s:.1f} s",
                    hint="`inference.give_up_s` in the robot's configuration is the limit",
                )
            return
        self._carry_out(answer)

    def _carry_out(self, answer: Answer) -> None:
        assert self._asked is not None
        observed_s, self._asked = self._asked.anchor_s, None
        if not np.isfinite(answer.chunk).all():
            raise RobotError("the policy's actions are not finite numbers")
        chunk = Chunk(observed_s, answer.chunk, self._info.n_obs_steps)
        done = self._scheduler.accept(chunk, now_s=self._session.clock.now_s())
        self._pace.answered(done.latency_s)
        for plan in done.plans:
            self._full += not self._session.send(plan)

    def _ask(self) -> None:
        try:
            newest_s = self._session.newest_s(self._info.observed)
            if self._waits_for is not None:
                self._go_on()
            if not self._pace.wants(newest_s):
                return
            seen = self._session.observe(self._info.n_obs_steps, self._info.observed)
        except Stale as stale:  # also where this process stood still since it looked
            self._wait_for(stale)
            return
        self._pace.asked(seen.anchor_s)
        seed, prefix = self._next_seed(), self._prefix(seen)
        _or_away(lambda: self._inference.ask(seen.values, seed=seed, prefix=prefix))
        self._asked, self._asked_s = seen, self._session.clock.now_s()
        self._questions += 1
        self._questions_of_seed += 1

    def _wait_for(self, stale: Stale) -> None:
        if self._waits_for is None:
            log.warning("%s: the robot holds until it is back", stale.message)
            self._waits_for = stale.stream
            self._stale += 1
            self._session.hold()
            self._scheduler.forget()

    def _go_on(self) -> None:
        log.info("%s is back: the policy goes on", self._waits_for)
        self._waits_for = None
        self._session.resume()
        self._pace.reset()

    def _prefix(self, seen: Observation) -> Prefix | None:
        """What is being carried out, for real-time chunking."""
        if self._how.chunking is None:
            return None
        plan = self._scheduler.overlap(
            seen.anchor_s,
            latency_s=self._pace.latency_s,
            horizon=self._info.horizon,
            n_obs_steps=self._info.n_obs_steps,
        )
        return None if plan is None else Prefix(plan.actions, plan.weights, self._how.chunking)

    def _next_seed(self) -> int | None:
        # Another noise for every question, and the same ones whenever an episode is repeated.
        return None if self._seed is None else self._seed * 100_000 + self._questions_of_seed

    def _forget(self) -> None:
        if self._asked is not None:
            self._inference.reset()
        self._asked = self._waits_for = None
        self._scheduler.forget()
        self._pace.reset()


def _or_away(call: Callable[[], T]) -> T:
    """What is called gives. Raises PolicyAway for whatever it says."""
    try:
        return call()
    except Refused:
        raise
    except RobotError as error:
        raise PolicyAway(error.message, hint=error.hint) from None


def check_suits(session: Session, info: PolicyInfo) -> None:
    """Does the robot give what a policy observes, and take what it answers? Nothing has to be on.

    Raises:
        RobotError: what is missing or has another size, and what to write into the configuration.
    """
    check_observed(info.observed_sizes, session.features, session.streams)
    check_action(info.chunk_shape[1], session.spaces)


def _grid_s(session: Session, features: Sequence[str]) -> float:
    """Between observations: the period of the slowest stream that these features are made of."""
    rings = {
        stream.partition(".")[0] for name in features for stream in session.features[name].streams
    }
    return 1.0 / min(session.parts.rates_hz[ring] for ring in rings)


def _pacing(session: Session, n_action_steps: int) -> Pacing:
    first = session.config.actuators[session.config.action[0]]
    turns, at = [], 0
    for space in session.spaces.values():
        turns += [] if space.rotation_at is None else [at + space.rotation_at]
        at += space.size
    return Pacing(
        period_s=session.config.period_s,
        n_action_steps=n_action_steps,
        action_latency_s=first.action_latency_s,
        interpolation=first.interpolation,
        rotations_at=tuple(turns),
    )


def _n_action_steps(how: InferenceConfig, info: PolicyInfo) -> int:
    # Ensembling averages as many answers as can be had.
    trained = 1 if how.merge == "ensemble" else info.n_action_steps
    wanted, has = how.n_action_steps or trained, info.horizon - info.n_obs_steps + 1
    if wanted > has:
        raise ConfigError(
            f"n_action_steps is {wanted}, and a chunk of the policy has {has} actions from the "
            "newest observed step on",
            hint=f"it was trained for {info.n_action_steps}",
        )
    return wanted


def _ahead(how: InferenceConfig, n_action_steps: int) -> int | Literal["auto"]:
    if how.ahead == "auto" or (how.chunking and not how.ahead):
        return "auto"
    if how.ahead >= n_action_steps:
        raise ConfigError(
            f"`ahead` is {how.ahead} of {n_action_steps} actions that are carried out of a chunk",
            hint=f"at most {n_action_steps - 1}, or auto",
        )
    return how.ahead


def _check_period(session: Session, info: PolicyInfo) -> None:
    """Slower or faster than it was learned is possible, but nobody should overlook it."""
    period_s = session.config.period_s
    if info.period_s is not None and abs(info.period_s - period_s) > 0.01 * period_s:
        log.warning(
            "the policy was trained on %.4g steps a second, and the robot's `fps` is %.4g: it moves"
            " %.3g times as fast as was shown",
            1 / info.period_s,
            session.config.fps,
            info.period_s / period_s,
        )


def with_options(how: InferenceConfig, **options: Any) -> InferenceConfig:
    """With those options that are not None in the place of its own.

    Raises:
        ConfigError: a value that cannot be.
    """
    given = {name: one for name, one in options.items() if one is not None}
    return build(InferenceConfig, {**how.model_dump(), **given}, where="the options")
