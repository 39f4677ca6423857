"""How long a policy takes to answer what the robot sees now."""

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.inference.info import Answer
from dp_hub.robot.inference.protocol import Inference
from dp_hub.robot.latency.finding import Asked
from dp_hub.robot.latency.playing import Progress
from dp_hub.robot.latency.signals import Spread
from dp_hub.robot.observing.align import Observation, Stale
from dp_hub.robot.observing.check import check_observed
from dp_hub.robot.session.session import Session

_LOOK_S = 0.005
"""As often as a rollout looks."""
_FRESH_S = 5.0


def ask(
    session: Session,
    inference: Inference,
    times: int,
    progress: Progress,
    *,
    give_up_s: float = 60.0,
) -> Asked:
    """Ask a policy again and again, each time about an observation that has just come.

    Args:
        session: on; nothing moves.
        inference: ready.
        times: after the first.
        progress: told after each.
        give_up_s: how long an answer may take.
    Raises:
        RobotError: the robot does not give what the policy observes, or it does not answer.
    """
    info = inference.info
    check_observed(info.observed_sizes, session.features, session.streams)
    answers, ages = [], []
    anchor_s = -np.inf
    for i in range(times + 1):
        seen = _newer(session, info.n_obs_steps, info.observed, anchor_s)
        anchor_s = seen.anchor_s
        inference.ask(seen.values, seed=i)
        answer, there_s = _answer(session, inference, give_up_s)
        answers.append(answer)
        ages.append(there_s - anchor_s)
        progress(i / times)
    took = [one.answered_s - one.asked_s for one in answers]
    return Asked(
        policy=info.name,
        first_s=took[0],
        answers=_spread(took[1:]),
        observed=_spread(ages[1:]),
        compute=_spread([one.compute_s for one in answers[1:]]),
    )


def _spread(durations_s: list[float]) -> Spread:
    spread = Spread.of(durations_s)
    assert spread is not None
    return spread


def _newer(
    session: Session, n_obs_steps: int, features: tuple[str, ...], than_s: float
) -> Observation:
    """The first observation that is newer; a stream may be late, but not for long."""
    until_s = session.clock.now_s() + _FRESH_S
    while True:
        _beat(session)
        try:
            seen = session.observe(n_obs_steps, features)
        except Stale:
            if session.clock.now_s() > until_s:
                raise
        else:
            if seen.anchor_s > than_s:
                return seen
            if session.clock.now_s() > until_s:
                raise RobotError(f"nothing new was observed for {_FRESH_S:g} s")
        session.clock.sleep_until(session.clock.now_s() + 0.001)


def _answer(session: Session, inference: Inference, give_up_s: float) -> tuple[Answer, float]:
    """The answer, and when the loop saw it."""
    asked_s = session.clock.now_s()
    while (answer := inference.answer()) is None:
        _beat(session)
        if session.clock.now_s() - asked_s > give_up_s:
            raise RobotError(f"the policy has not answered for {give_up_s:g} s")
        session.clock.sleep_until(session.clock.now_s() + _LOOK_S)
    return answer, session.clock.now_s()


def _beat(session: Session) -> None:
    session.beat()
    session.check()
