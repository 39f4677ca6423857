"""A policy from the Hub drives a robot in real time: the loop, in one page to copy and edit.

    python recipes/run_robot.py POLICY --robot pusht --episodes 3

`dp-hub rollout` is this loop with keys, a person who can take over, recording and everything that
can go wrong (`dp_hub/robot/session/driver.py`). Cameras and arms run in processes of their own and
keep limits and hold by themselves; nothing here may wait for the policy.
"""

import argparse
import functools
import sys

from dp_hub.cli.scoring import fetch
from dp_hub.errors import DpHubError
from dp_hub.robot.acting.pace import Pace
from dp_hub.robot.acting.schedule import Chunk, Pacing
from dp_hub.robot.acting.scheduler import Scheduler
from dp_hub.robot.clock import ticks
from dp_hub.robot.config import load_robot
from dp_hub.robot.inference.local import LocalInference
from dp_hub.robot.observing.align import Observation, Stale
from dp_hub.robot.session.driver import check_suits
from dp_hub.robot.session.session import Session


def run_episode(session: Session, policy: LocalInference, seed: int) -> str:
    """One episode, from a start state of a simulation or from where the robot is."""
    config, info = session.config, policy.info
    if session.world is not None:
        session.reset(seed)
    else:
        session.resume()
        session.forget()
    # When actions are due, what overlaps, when the policy is asked: all by times, none by arrival.
    arm = config.actuators[config.action[0]]
    pacing = Pacing(config.period_s, info.n_action_steps, arm.action_latency_s, arm.interpolation)
    scheduler = Scheduler(config.inference, pacing)
    pace = Pace(period_s=config.period_s, n_action_steps=info.n_action_steps)
    asked: Observation | None = None
    questions, start_s = 0, session.clock.now_s()

    for _ in ticks(0.005, session.clock):  # 200 times a second, by absolute deadlines
        session.beat()  # controllers hold when they do not hear this
        session.check()  # raises if a process has died

        if asked is not None and (answer := policy.answer()) is not None:
            chunk = Chunk(asked.anchor_s, answer.chunk, info.n_obs_steps)
            done = scheduler.accept(chunk, now_s=session.clock.now_s())
            for plan in done.plans:  # the controller follows it, within its limits
                session.send(plan)
            asked = None

        if asked is None:
            try:
                if pace.wants(session.newest_s(info.observed)):
                    asked = session.observe(info.n_obs_steps, info.observed)
                    policy.ask(asked.values, seed=seed * 1000 + questions)
                    pace.asked(asked.anchor_s)
                    questions += 1
            except Stale as stale:  # a camera stalls: hold; dp-hub rollout goes on when it is back
                session.hold()
                return f"stopped: {stale.message}"

        truth = session.world.truth() if session.world else {}
        if truth.get("over") or session.clock.now_s() - start_s > config.episode_s:
            break
    policy.reset()
    session.hold()
    return f"reward {truth['max_reward']:.3f}; {scheduler.lateness.line()}" if truth else "done"


def main() -> None:
    """Read the arguments, start everything, run episodes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy", help="a policy folder, or user/name[@revision] on the Hub")
    parser.add_argument("--robot", default="pusht", help="a configuration, or a bundled one's name")
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=100_000)
    args = parser.parse_args()
    folder, sha = fetch(args.policy)
    policy = LocalInference(folder, name=args.policy, sha=sha)
    suits = functools.partial(check_suits, info=policy.info)  # before anything is started
    with Session(load_robot(args.robot), before_start=suits) as session, policy:
        for episode in range(args.episodes):
            print(f"episode {episode}: {run_episode(session, policy, args.seed + episode)}")


if __name__ == "__main__":
    try:
        main()
    except DpHubError as error:
        sys.exit(f"error: {error}")
