"""``dp-hub convert checkpoint`` and ``convert policy``: policies that other code has trained."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dp_hub.cli.convert import mapping_of

if TYPE_CHECKING:
    from dp_hub.policies.foreign.checkpoint import Converted


class Target(StrEnum):
    """What a policy can be converted to."""

    dp_hub = "dp_hub"
    lerobot = "lerobot"


def checkpoint(
    source: Annotated[
        Path, typer.Argument(metavar="X.ckpt", help="The file that the original's training wrote.")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The policy folder to make.")],
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="KEY=FEATURE", help="Feature name for an observation's key."),
    ] = None,
) -> None:
    """Convert a checkpoint of the original Diffusion Policy to a policy folder.

    Low-dimensional and hybrid-image U-Nets and transformers. The file is a pickle, and is read
    without running anything in it: what is not a tensor, a number, a string or a plain container
    is named and refused.
    """
    from dp_hub.policies.foreign.checkpoint import convert_checkpoint

    done = convert_checkpoint(source, to, names=mapping_of(mapping or []))
    print(_summary(done, f"dp-hub eval {to}"))


def policy(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A policy folder, or user/name[@rev] on the Hub.")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The policy folder to make.")],
    target: Annotated[
        Target, typer.Option("--format", help="lerobot: from a dp_hub policy, for LeRobot 0.4.")
    ] = Target.dp_hub,
) -> None:
    """Convert a LeRobot Diffusion Policy to a policy folder, or with --format lerobot back."""
    if target is Target.lerobot:
        from dp_hub.policies.foreign.lerobot_export import export_lerobot

        print(_summary(export_lerobot(source, to), f"lerobot-eval --policy.path={to}"))
        return
    from dp_hub.policies.foreign.lerobot import convert_lerobot

    print(_summary(convert_lerobot(source, to), f"dp-hub eval {to}"))


def _summary(done: "Converted", then: str) -> str:
    config = done.policy.config
    lines = [
        f"{done.path}: {config.denoiser.kind}, {config.conditioning} conditioning",
        f"observes  {', '.join(config.observations)}, {config.n_obs_steps} steps",
        f"predicts  {config.horizon} steps of {config.action}, executes {config.n_action_steps}",
        *(f"{name}: {value.replace('`', '')}" for name, value in done.origin.items()),
        *(f"note: {note}" for note in done.notes),
    ]
    return "\n".join([*lines, "", f"next: {then}"])
