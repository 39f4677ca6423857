"""What `dp-hub record`, `rollout` and `replay` share: the recorder, the policy, tables."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from dp_hub.robot.config import RobotConfig
    from dp_hub.robot.inference.protocol import Inference
    from dp_hub.robot.recording.process import RecorderProcess
    from dp_hub.robot.session.episodes import Outcome
    from dp_hub.robot.session.session import Session
    from dp_hub.robot.worker import Scheduling

_PRIORITY = 50


def say(sentence: str) -> None:
    """Tell the person."""
    print(sentence, file=sys.stderr, flush=True)


def scheduling(config: "RobotConfig", realtime: bool | None) -> "Scheduling | None":
    """SCHED_FIFO for what talks to devices: asked for, or by default on a real robot."""
    from dp_hub.robot.worker import Scheduling

    wanted = not config.is_simulated if realtime is None else realtime
    return Scheduling(fifo=_PRIORITY) if wanted else None


def fail_if(stopped: bool) -> None:
    """End with status 1 after an emergency stop, so that nothing that was to follow follows."""
    if stopped:
        raise typer.Exit(1)


@contextmanager
def recorded(
    session: "Session",
    to: Path,
    raw: str | None,
    *,
    source: Mapping[str, Any],
    stage: bool = False,
    intervention: bool = False,
) -> Iterator["RecorderProcess"]:
    """A recorder of all of a robot's streams; the dataset is complete when the block ends.

    Where the block ends with an error or Ctrl-C, episodes that were saved are kept.
    """
    from dp_hub.robot.recording.process import RecorderProcess
    from dp_hub.robot.session.recording import recorder_job

    job = recorder_job(session, to, raw, source=source, stage=stage, intervention=intervention)
    recorder = RecorderProcess(job)
    try:
        recorder.start_process()
    except BaseException:
        recorder.kill()
        raise
    try:
        yield recorder
    except BaseException:
        if recorder.state.saving:
            say("episodes that are over are being saved")
        recorder.leave()
        for sentence in recorder.told():
            say(sentence)
        say(
            f"{to}: episodes that were saved are kept; the same command adds more, and `dp-hub "
            "finish` completes it"
        )
        raise
    settle(recorder)
    written = recorder.close()
    for sentence in recorder.told():
        say(sentence)
    if written:
        n = written["n_episodes"]
        print(f"{to}: {n} episode{'s' * (n != 1)}, {written['n_frames']} frames")


def settle(recorder: "RecorderProcess") -> None:
    """Wait until the last episode has its last samples."""
    import time

    until_s = time.monotonic() + 2.0
    while recorder.state.recording is not None and time.monotonic() < until_s:
        time.sleep(0.02)


def policy_of(
    policy: str | None,
    server: str | None,
    *,
    token_file: Path | None,
    certificate: Path | None,
    options: Mapping[str, Any],
) -> "Inference":
    """The policy on this machine or on another, to be started.

    Raises:
        DpHubError: neither or both, or it is not there.
    """
    from dp_hub.cli.scoring import check_device, fetch
    from dp_hub.errors import ConfigError
    from dp_hub.robot.inference.local import LocalInference
    from dp_hub.robot.inference.remote import RemoteInference

    if policy is not None and server is not None:
        raise ConfigError(
            f"two policies are named: {policy} and the one of --server {server}",
            hint="leave one out",
        )
    if policy is None and server is None:
        raise ConfigError(
            "no policy is named", hint="name a folder or user/name[@revision], or --server URL"
        )
    if server is not None:
        return RemoteInference(server, token_file=token_file, certificate=certificate)
    assert policy is not None
    folder, sha = fetch(policy)
    device = check_device(options["device"])
    return LocalInference(folder, name=policy, sha=sha, **{**options, "device": device})


def outcome_line(outcome: "Outcome") -> str:
    """How an episode went, for a person."""
    seed = "" if outcome.seed is None else f" (seed {outcome.seed})"
    score = "" if outcome.score is None else f", reward {outcome.score:.3f}"
    success = (
        "" if outcome.success is None else (", success" if outcome.success else ", no success")
    )
    hand = f", {outcome.by_hand_s:.1f} s by hand" if outcome.by_hand_s else ""
    return (
        f"episode {outcome.number}{seed}: {outcome.ended} after {outcome.lasted_s:.1f} s"
        f"{score}{success}{hand}"
    )


def print_outcomes(title: str, outcomes: "list[Outcome]") -> dict[str, Any]:
    """Sums with intervals, as a table on stdout; the same as plain values."""
    from rich.console import Console
    from rich.table import Table

    from dp_hub.rollout.intervals import bootstrap_mean, share_interval

    table = Table("", "value", "95 % interval", title=title)
    told: dict[str, Any] = {}
    scores = [one.score for one in outcomes if one.score is not None]
    known = [one.success for one in outcomes if one.success is not None]
    if scores:
        import numpy as np

        mean = bootstrap_mean(np.array(scores))
        told["mean_max_reward"] = mean.as_dict()
        table.add_row("mean max reward", f"{mean.value:.4f}", f"{mean.low:.4f} to {mean.high:.4f}")
    if known:
        share = share_interval(sum(known), len(known), "wilson")
        told["success_rate"] = share.as_dict()
        table.add_row("success rate", f"{share.value:.1%}", f"{share.low:.1%} to {share.high:.1%}")
    table.add_row("mean time", f"{sum(o.lasted_s for o in outcomes) / len(outcomes):.1f} s", "")
    Console().print(table)
    return told


def loaded(robot: str) -> "RobotConfig":
    """The configuration. Raises ConfigError."""
    from dp_hub.robot.config import load_robot

    return load_robot(robot)


def while_loading(session: "Session", inference: Any) -> None:
    """Wait for the policy; the robot is on and rests meanwhile. Raises RobotError: too long."""
    from dp_hub.robot.inference.local import READY_WITHIN_S

    say("the policy is being loaded")
    session.wait_until(lambda: inference.ready, "the policy was not ready", within_s=READY_WITHIN_S)
