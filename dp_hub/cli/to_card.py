"""``dp-hub eval --to-card``: scores into the README.md of a policy."""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dp_hub.cli.scoring import Scored, say, sha256

if TYPE_CHECKING:
    from dp_hub.policies.card_results import CardResult


def check_card(name: str) -> None:
    """Say that there is no card to write to before minutes of evaluation. Raises PolicyError."""
    from dp_hub.errors import PolicyError
    from dp_hub.hub import is_hub_name
    from dp_hub.policies.card_results import check_writable

    if Path(name).exists():
        check_writable(Path(name))
        return
    if not is_hub_name(name):
        return  # loading it will say what is wrong
    target = _own_folder(name)
    if target.exists() and not (target / "model.safetensors").is_file():
        raise PolicyError(
            f"{name} would be pulled to {target} to change its card, but that is something else",
            hint=f"move it away, or `dp-hub pull {name} --to DIR` and evaluate DIR",
        )


def add_to_card(scored: Scored) -> None:
    """Write the scores into the policy's own folder, or into a pull of it in the work folder."""
    from dp_hub.policies.card_results import add_result

    folder = scored.folder
    if scored.sha is not None:
        folder = _own_folder(scored.name)
        _pull(scored, folder)
    name = scored.name.partition("@")[0] if scored.sha else folder.resolve().name
    say(add_result(folder, card_result(scored), name=name))
    if scored.sha is not None:
        repo = scored.name.partition("@")[0]
        typer.echo(f"to push the card back:  dp-hub push {folder} {repo}", err=True)


def card_result(scored: Scored) -> "CardResult":
    """An evaluation as the card tells of it."""
    from dp_hub import __version__
    from dp_hub.policies.card_results import CardResult, Score

    config, evaluation = scored.values["config"], scored.evaluation
    reward, success = evaluation.reward, evaluation.success
    return CardResult(
        env=evaluation.env,
        seed=config["seed"],
        episodes=config["episodes"],
        reward=Score(reward.value, reward.low, reward.high),
        success=Score(success.value, success.low, success.high),
        settings=_settings(config),
        facts={
            "weights": f"`{config['weights_sha256'][:12]}`",
            **({"commit": f"`{scored.sha[:12]}`"} if scored.sha else {}),
            **_dataset(scored.folder),
            "batches of": str(config["batch_size"]),
            "on": config["hardware"],
            "by dp_hub": __version__,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        },
    )


def _settings(config: dict) -> dict[str, str]:
    settings = {"executed steps": str(config["n_action_steps"])}
    if config["scheduler"] is not None:
        settings = {"solver": config["scheduler"], "steps": str(config["steps"])} | settings
    if config["latency_steps"]:
        settings["latency steps"] = str(config["latency_steps"])
    if config["ensemble"] is not None:
        settings["ensembling"] = str(config["ensemble"])
    for name, first in config.get("only_first", {}).items():
        settings[name] = f"its first {first} numbers"
    return settings


def _dataset(folder: Path) -> dict[str, str]:
    from dp_hub.policies.saving import read_record

    record = read_record(folder).dataset
    if record is None:
        return {}
    facts = {"dataset": record.name, "fingerprint": f"`{record.fingerprint[:12]}`"}
    return facts | ({"at": f"`{record.commit[:12]}`"} if record.commit else {})


def _own_folder(name: str) -> Path:
    """Where a policy of the Hub is pulled to: ``user/name`` to ``name``."""
    return Path(name.partition("@")[0].rpartition("/")[2])


def _pull(scored: Scored, target: Path) -> None:
    from dp_hub.errors import PolicyError
    from dp_hub.hub import pull

    if not target.exists():
        repo = scored.name.partition("@")[0]
        pull(repo, revision=scored.sha, to=target, kind="policy")
    elif sha256(target / "model.safetensors") != scored.values["config"]["weights_sha256"]:
        raise PolicyError(
            f"{target} holds other weights than {scored.name}, so its card stays as it was",
            hint="the scores are above and in --json; move the folder away to have it pulled anew",
        )
