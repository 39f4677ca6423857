"""``dp-hub eval``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from dp_hub.rollout.evaluation import Evaluation


def evaluate(
    policy: str = typer.Argument(..., help="A policy folder, or a Hub name user/name[@revision]."),
    env: str = typer.Option("pusht", help="The environment: pusht."),
    episodes: int = typer.Option(50, min=1, help="How many, with consecutive seeds."),
    seed: int = typer.Option(100_000, min=0, help="Seed of the first episode."),
    json: Path | None = typer.Option(None, help="Write scores and settings to this file."),
    picture: Path | None = typer.Option(None, help="Write a contact sheet, PNG, to this file."),
    video: Path | None = typer.Option(None, help="Write a video, mp4, to this file."),
    out: Path | None = typer.Option(
        None, help="Write scores.json, contact_sheet.png and video.mp4 into this folder."
    ),
    steps: int | None = typer.Option(None, min=1, help="Sampling steps per prediction."),
    scheduler: str | None = typer.Option(
        None, help="Sampler: ddpm, ddim, dpmsolver++ or euler, as the policy was trained."
    ),
    device: str = typer.Option("auto", help="cpu, cuda, mps; auto takes the best there is."),
    batch_size: int = typer.Option(64, min=1, help="Environments that run at once."),
    each: bool = typer.Option(False, help="Print a row for every episode too."),
) -> None:
    """Score a policy in simulation: mean of maximum rewards and success rate.

    The same command gives the same scores. A table goes to stdout.
    """
    _check_names(json, picture, video)
    if out is not None:
        json = json or out / "scores.json"
        picture = picture or out / "contact_sheet.png"
        video = video or out / "video.mp4"
    device = _device(device)
    folder, sha = _fetch(policy)
    loaded = _load(folder, steps=steps, scheduler=scheduler, device=device)
    evaluation = _run(loaded, env, episodes, seed, batch_size)
    settings = {
        "policy": policy,
        "sha": sha,
        "weights_sha256": _sha256(folder / "model.safetensors"),
        "steps": steps,
        "scheduler": scheduler,
        "device": device,
    }
    _save_json(evaluation, json, settings, loaded)
    _save_shows(evaluation, picture, video, title=policy, first=loaded.config.n_obs_steps - 1)
    _print_table(evaluation, each=each)


def _device(name: str) -> str:
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


def _check_names(json: Path | None, picture: Path | None, video: Path | None) -> None:
    """Say that a name does not fit its format before minutes of evaluation, not after."""
    from dp_hub.errors import DataError

    for path, suffix in ((json, ".json"), (picture, ".png"), (video, ".mp4")):
        if path is not None and path.suffix.lower() != suffix:
            raise DataError(
                f"{path} does not end in {suffix}",
                hint=f"--{_OPTION_OF[suffix]} writes a {suffix} file",
            )


_OPTION_OF = {".json": "json", ".png": "picture", ".mp4": "video"}


def _fetch(policy: str) -> tuple[Path, str | None]:
    """The policy's folder, and the commit it was pulled at if it came from the Hub."""
    if not Path(policy).exists():
        from dp_hub.hub import is_hub_name, pull

        if is_hub_name(policy):
            pulled = pull(policy, kind="policy")
            return pulled.path, pulled.sha
    return Path(policy), None


def _load(folder: Path, *, steps: int | None, scheduler: str | None, device: str) -> Any:
    from dp_hub.policies.saving import load_policy

    return load_policy(folder, device=device, num_inference_steps=steps, scheduler=scheduler)


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(policy: Any, env: str, episodes: int, seed: int, batch_size: int) -> "Evaluation":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from dp_hub.rollout.evaluation import evaluate

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

        return evaluate(
            policy,
            env=env,
            episodes=episodes,
            seed=seed,
            batch_size=batch_size,
            on_finish=on_finish,
        )


def _save_json(
    evaluation: "Evaluation", path: Path | None, settings: dict[str, Any], policy: Any
) -> None:
    from dp_hub.rollout.files import write_json

    if path is None:
        return
    values = evaluation.as_dict()
    config = policy.config
    if hasattr(config, "model_dump"):
        settings = {**settings, "policy_config": config.model_dump(mode="json")}
    values["config"] = {**settings, **values["config"]}
    _say(write_json(values, path))


def _save_shows(
    evaluation: "Evaluation", picture: Path | None, video: Path | None, *, title: str, first: int
) -> None:
    if picture is not None:
        from dp_hub.rollout.picture import write_picture

        _say(write_picture(evaluation, picture, title=title))
    if video is not None:
        from dp_hub.rollout.video import write_video

        _say(write_video(evaluation, video, first_executed=first))


def _say(path: Path) -> None:
    typer.echo(f"wrote {path}", err=True)


def _print_table(evaluation: "Evaluation", *, each: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    reward, success = evaluation.reward, evaluation.success
    n = len(evaluation.episodes)
    steps = sum(result.steps for result in evaluation.episodes)
    table = Table("", "value", "95 % interval", title=f"{evaluation.env}, {n} episodes")
    table.add_row(
        "mean max reward", f"{reward.value:.4f}", f"{reward.low:.4f} to {reward.high:.4f}"
    )
    table.add_row(
        "success rate", f"{success.value:.1%}", f"{success.low:.1%} to {success.high:.1%}"
    )
    table.add_row("mean steps", f"{steps / n:.1f}", "")
    table.add_row("wall time", f"{evaluation.wall_s:.1f} s", "")
    console.print(table)
    if each:
        rows = Table("seed", "max reward", "final reward", "success", "steps")
        for result in evaluation.episodes:
            rows.add_row(
                str(result.seed),
                f"{result.max_reward:.4f}",
                f"{result.final_reward:.4f}",
                "yes" if result.success else "no",
                str(result.steps),
            )
        console.print(rows)
