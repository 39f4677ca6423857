"""``dp-hub replay``."""

from typing import Annotated

import typer

from dp_hub.cli.robot_options import DryRun, Keys, Realtime, Robot
from dp_hub.cli.robots import fail_if, loaded, say, scheduling


def replay(
    dataset: Annotated[str, typer.Argument(help="A dataset folder, or user/name[@revision].")],
    robot: Robot,
    episode: int = typer.Option(0, min=0, help="Which one."),
    speed: float = typer.Option(1.0, min=0.05, max=1.0, help="Of the recorded speed, up to 1."),
    realtime: Realtime = None,
    dry_run: DryRun = False,
    keys: Keys = None,
) -> None:
    """Carry out a recorded episode's actions on a robot.

    The arm goes to the first action slowly, then follows the recording. A simulation is put into
    the recorded start state first, if the episode has a seed. Keys: Esc emergency stop, q quit.
    """
    from dp_hub.cli.robot_person import Person
    from dp_hub.robot.keys.table import REPLAY, keys_line
    from dp_hub.robot.session.replaying import Replay, recorded_actions
    from dp_hub.robot.session.session import Session

    config = loaded(robot)
    person = Person(config, keys=keys, needed=not config.is_simulated)
    actions = recorded_actions(dataset, episode)
    with (
        Session(config, dry_run=dry_run, scheduling=scheduling(config, realtime)) as session,
        person.at(session) as (keyboard, _),
    ):
        say(keys_line(REPLAY))
        done = Replay(session, actions, speed=speed, keys=keyboard, say=say).run()
        stopped = session.stopped
    print(done.line())
    fail_if(stopped)
