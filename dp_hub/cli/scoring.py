"""What ``dp-hub eval`` and ``dp-hub compare`` share: finding a policy and running it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from dp_hub.rollout.evaluation import Evaluation


@dataclass(frozen=True)
class Settings:
    """What was asked for, beside which policy."""

    env: str
    episodes: int
    seed: int
    processes: int | None
    batch_size: int | None
    device: str
    scheduler: str | None = None
    steps: int | None = None
    n_action_steps: int | None = None
    latency_steps: int = 0
    ensemble: float | None = None
    interval: str = "wilson"


@dataclass(frozen=True)
class Scored:
    """An evaluated policy: its folder, its commit if it came from the Hub, itself, its scores."""

    name: str
    folder: Path
    sha: str | None
    policy: Any
    evaluation: "Evaluation"
    values: dict[str, Any]  # what scores.json holds


def check_device(name: str) -> str:
    """A device that works. Raises PolicyError."""
    import torch

    from dp_hub.errors import PolicyError

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise PolicyError(
            f"device {name!r} cannot be used: {reason}", hint="--device cpu always works"
        ) from None
    return name


def score(name: str, settings: Settings) -> Scored:
    """Fetch a policy, run it, and say everything that the scores depend on. Raises DpHubError."""
    from dp_hub.rollout.worker import PolicySource

    device = check_device(settings.device)
    folder, sha = fetch(name)
    source = PolicySource(folder, device, settings.scheduler, settings.steps)
    policy = source.load()
    evaluation = _run(source, policy, settings)
    values = evaluation.as_dict()
    values["config"] = {**_provenance(name, folder, sha, policy, device), **values["config"]}
    return Scored(name, folder, sha, policy, evaluation, values)


def fetch(policy: str) -> tuple[Path, str | None]:
    """The policy's folder, and the commit it was pulled at if it came from the Hub."""
    if not Path(policy).exists():
        from dp_hub.hub import is_hub_name, pull
        from dp_hub.hub.client import no_folder

        if is_hub_name(policy):
            with no_folder(policy):
                pulled = pull(policy, kind="policy")
            return pulled.path, pulled.sha
    return Path(policy), None


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _provenance(
    name: str, folder: Path, sha: str | None, policy: Any, device: str
) -> dict[str, Any]:
    from dp_hub.rollout.hardware import hardware

    config = policy.config
    # Not every policy is sampled step by step.
    objective = getattr(config, "objective", None)
    return {
        "policy": name,
        "sha": sha,
        "weights_sha256": sha256(folder / "model.safetensors"),
        "scheduler": getattr(objective, "solver", None),
        "steps": getattr(objective, "num_inference_steps", None),
        "device": device,
        "hardware": hardware(device),
        "policy_config": config.model_dump(mode="json"),
    }


def _run(source: Any, policy: Any, settings: Settings) -> "Evaluation":
    from dp_hub.rollout.evaluation import BATCH_CPU, BATCH_GPU, make_job
    from dp_hub.rollout.execution import Execution
    from dp_hub.rollout.hardware import usable_cores
    from dp_hub.rollout.tasks import ONLY_FIRST
    from dp_hub.rollout.worker import evaluate_on_processes

    on_cpu = source.device == "cpu"
    job = make_job(
        policy.config,
        shapes=policy.features,
        env=settings.env,
        episodes=settings.episodes,
        seed=settings.seed,
        batch_size=settings.batch_size or (BATCH_CPU if on_cpu else BATCH_GPU),
        execution=Execution(settings.n_action_steps, settings.latency_steps, settings.ensemble),
    )
    for name, first in job.only_first.items():
        what = ONLY_FIRST[job.env, name][first]
        typer.echo(
            f"note: the policy observes the first {first} numbers of {name}: {what}", err=True
        )
    with progress_bar(settings.episodes) as on_finish:
        return evaluate_on_processes(
            source,
            policy,
            job,
            processes=settings.processes or (usable_cores() if on_cpu else 1),
            interval=settings.interval,  # type: ignore[arg-type]  # one of them: typer's choice
            on_finish=on_finish,
        )


@contextmanager
def progress_bar(episodes: int) -> Iterator[Callable[[Any], None]]:
    """A bar on stderr that counts episodes and shows their mean so far; call it with each."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("episodes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[so_far]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    rewards: list[float] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("episodes", total=episodes, so_far="")

        def on_finish(result: Any) -> None:
            rewards.append(result.max_reward)
            mean = sum(rewards) / len(rewards)
            progress.update(bar, advance=1, so_far=f"mean max reward {mean:.3f}")

        yield on_finish


def say(path: Path) -> None:
    """That a file was written."""
    typer.echo(f"wrote {path}", err=True)
