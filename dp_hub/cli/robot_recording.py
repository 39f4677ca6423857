"""What ``dp-hub record --robot`` does."""

from contextlib import ExitStack
from pathlib import Path

from dp_hub.cli.robots import fail_if, loaded, outcome_line, recorded, say, scheduling


def record_robot(
    robot: str,
    to: Path,
    *,
    raw: str | None,
    task: str | None,
    episodes: int | None,
    seed: int,
    episode_s: float | None,
    by_itself: bool,
    realtime: bool | None,
    dry_run: bool,
    view: bool | None,
    overlay: str | None,
    keys: Path | None,
) -> None:
    """See `dp_hub.cli.record`. Raises DpHubError."""
    from dp_hub.cli.robot_person import Person
    from dp_hub.errors import ConfigError
    from dp_hub.robot.keys.table import RECORD, keys_line
    from dp_hub.robot.session.episodes import Crew, Episodes, Wanted
    from dp_hub.robot.session.hand import HandDriver
    from dp_hub.robot.session.session import Session

    config = loaded(robot)
    if config.teleop is None:
        raise ConfigError(
            f"the configuration of {config.robot_type} has no `teleop`: nothing moves the robot",
            hint="add one, such as teleop: {device: keyboard}",
        )
    if by_itself and not config.is_simulated:
        raise ConfigError(
            "--by-itself is for simulations", hint="on a robot every episode begins with key c"
        )
    person = Person(config, keys=keys, view=view, overlay=overlay, needed=not by_itself)
    facts = {"source": "teleoperation", "robot": config.digest(), "task": task or config.task}
    known = {name: fact for name, fact in facts.items() if fact is not None}
    with ExitStack() as stack:
        session = stack.enter_context(
            Session(config, dry_run=dry_run, scheduling=scheduling(config, realtime))
        )
        hand = stack.enter_context(HandDriver(session, config.teleop))
        recorder = stack.enter_context(recorded(session, to, raw, source=known, stage=True))
        keyboard, window = stack.enter_context(person.at(session))
        say(keys_line(RECORD))
        wanted = Wanted(
            episodes=episodes,
            seed=seed if config.is_simulated else None,
            by_itself=by_itself,
            episode_s=episode_s or config.episode_s,
            facts=known,
        )
        crew = Crew(keyboard, RECORD, hand=hand, recorder=recorder, say=say, view=window)
        Episodes(session, crew, wanted, on_end=lambda outcome: say(outcome_line(outcome))).run()
        stopped = session.stopped
    fail_if(stopped)
