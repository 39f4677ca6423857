"""``dp-hub rollout``."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dp_hub.cli.robot_options import (
    Certificate,
    DryRun,
    EpisodeS,
    Keys,
    Overlay,
    Raw,
    Realtime,
    Robot,
    Server,
    TokenFile,
    View,
)
from dp_hub.cli.robots import (
    fail_if,
    loaded,
    outcome_line,
    policy_of,
    print_outcomes,
    recorded,
    say,
    scheduling,
    while_loading,
)

if TYPE_CHECKING:
    from dp_hub.robot.config import InferenceConfig
    from dp_hub.robot.session.driver import PolicyDriver
    from dp_hub.robot.session.episodes import Outcome
    from dp_hub.robot.session.session import Session


def rollout(
    robot: Robot,
    policy: str | None = typer.Argument(
        None, help="A policy folder, or a Hub name user/name[@revision]; none with --server."
    ),
    server: Server = None,
    token_file: TokenFile = None,
    certificate: Certificate = None,
    record: Path | None = typer.Option(
        None, help="Record the episodes into this dataset, made or continued."
    ),
    raw: Raw = None,
    episodes: int | None = typer.Option(
        None, min=1, help="How many. Default: one in simulation, on a robot until you quit."
    ),
    seed: int = typer.Option(100_000, min=0, help="Of the first simulated start state."),
    episode_s: EpisodeS = None,
    timing: str | None = typer.Option(
        None, help="observed (latency is compensated) or arrival; default: the configuration's."
    ),
    merge: str | None = typer.Option(None, help="replace, blend or ensemble."),
    late: str | None = typer.Option(None, help="When the policy is late: extend, hold or stop."),
    ahead: str | None = typer.Option(
        None, help="Steps that the policy is asked earlier, or auto: so many that it is in time."
    ),
    chunking: str | None = typer.Option(
        None, help="Real-time chunking, guidance or inpaint: a chunk continues the one before."
    ),
    n_action_steps: int | None = typer.Option(
        None, min=1, help="Execution horizon: steps executed per prediction."
    ),
    delay_ms: float = typer.Option(
        0.0, min=0, help="Injected latency: answers come so much later, to see what it does."
    ),
    steps: int | None = typer.Option(None, min=1, help="Sampling steps per prediction."),
    scheduler: str | None = typer.Option(
        None, help="Sampler: ddpm, ddim, dpmsolver++ or euler, as the policy was trained."
    ),
    device: str = typer.Option("auto", help="cpu, cuda, mps; auto takes the best there is."),
    threads: int = typer.Option(1, min=1, help="Of the CPU for the policy."),
    realtime: Realtime = None,
    dry_run: DryRun = False,
    view: View = None,
    overlay: Overlay = None,
    keys: Keys = None,
    json: Path | None = typer.Option(None, help="Write outcomes and settings to this file."),
) -> None:
    """Drive a robot with a policy, in real time.

    Keys: c policy goes on, h take over by hand, s end the episode, y success, n failure, Esc
    emergency stop, q quit. A simulation begins episodes by itself; on a robot, c does. Outcomes go
    to stdout.
    """
    from dp_hub.cli.evaluate import check_suffix
    from dp_hub.cli.robot_person import Person
    from dp_hub.robot.inference.local import READY_WITHIN_S
    from dp_hub.robot.keys.table import ROLLOUT, keys_line
    from dp_hub.robot.session.driver import PolicyDriver, check_suits, with_options
    from dp_hub.robot.session.episodes import Crew, Episodes, Wanted
    from dp_hub.robot.session.hand import HandDriver
    from dp_hub.robot.session.session import Session

    check_suffix(json, ".json")
    config = loaded(robot)
    person = Person(config, keys=keys, view=view, overlay=overlay, needed=not config.is_simulated)
    how = with_options(
        config.inference,
        timing=timing,
        merge=merge,
        late=late,
        ahead=ahead,
        chunking=chunking,
        n_action_steps=n_action_steps,
    )
    options = {
        "scheduler": scheduler,
        "steps": steps,
        "device": device,
        "threads": threads,
        "delay_s": delay_ms / 1000,
        "realtime": how.chunking is not None,
    }
    inference = policy_of(
        policy, server, token_file=token_file, certificate=certificate, options=options
    )
    with ExitStack() as stack:
        stack.callback(inference.close)
        inference.start()
        if server is not None:
            inference.wait_ready(READY_WITHIN_S)  # what it observes is known from its hello
        session = stack.enter_context(
            Session(
                config,
                dry_run=dry_run,
                scheduling=scheduling(config, realtime),
                before_start=lambda robot: check_suits(robot, inference.info),
            )
        )
        while_loading(session, inference)
        driver = PolicyDriver(session, inference, how)
        hand = config.teleop and stack.enter_context(HandDriver(session, config.teleop))
        facts = _facts(inference, config)
        recorder = record and stack.enter_context(
            recorded(session, record, raw, source=facts, intervention=hand is not None)
        )
        keyboard, window = stack.enter_context(person.at(session))
        say(keys_line(ROLLOUT))
        loop = Episodes(
            session,
            Crew(keyboard, ROLLOUT, driver, hand or None, recorder or None, say, window),
            Wanted(
                episodes=episodes or (1 if config.is_simulated else None),
                seed=seed if config.is_simulated else None,
                by_itself=config.is_simulated,
                episode_s=episode_s or config.episode_s,
                facts=facts,
            ),
            on_end=lambda outcome: say(outcome_line(outcome)),
        )
        try:
            outcomes = loop.run()
        finally:
            say(driver.told.line())
        values = _values(session, driver, how, facts, outcomes)
        stopped = session.stopped
    if outcomes:
        values["metrics"] = print_outcomes(
            f"{config.robot_type}, {len(outcomes)} episode{'s' * (len(outcomes) != 1)}", outcomes
        )
    if json is not None:
        from dp_hub.rollout.files import write_json

        say(f"wrote {write_json(values, json)}")
    fail_if(stopped)


def _facts(inference: Any, config: Any) -> dict[str, Any]:
    facts = {
        "source": "rollout",
        "policy": inference.info.name,
        "policy_sha": inference.info.sha,
        "robot": config.digest(),
        "task": config.task,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def _values(
    session: "Session",
    driver: "PolicyDriver",
    how: "InferenceConfig",
    facts: dict[str, Any],
    outcomes: "list[Outcome]",
) -> dict[str, Any]:
    return {
        **facts,
        "robot_type": session.config.robot_type,
        "inference": how.model_dump(mode="json"),
        "driven": driver.told.as_dict(),
        "counts": session.counts(),
        "episodes": [outcome.as_dict() for outcome in outcomes],
    }
