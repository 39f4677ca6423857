"""``dp-hub serve-policy``."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from dp_hub.robot.inference.serving import Door


class PrecisionName(StrEnum):
    """Of a denoiser."""

    no = "no"
    bf16 = "bf16"


def serve_policy(
    policy: str = typer.Argument(..., help="A policy folder, or a Hub name user/name[@revision]."),
    port: int = typer.Option(8470, min=0, max=65535, help="0 takes a free one."),
    host: str = typer.Option("127.0.0.1", help="0.0.0.0 lets other machines in."),
    token_file: Path | None = typer.Option(
        None, help="Where the token is, or is written. Default: in the user's cache folder."
    ),
    new_token: bool = typer.Option(False, "--new-token", help="Replace the token."),
    certificate: Path | None = typer.Option(
        None, help="Certificate, PEM: encrypts what is sent (wss://). Needs --key."
    ),
    key: Path | None = typer.Option(None, help="The certificate's private key, PEM."),
    clients: int = typer.Option(
        1, min=1, help="So many may be connected at once; they are answered in turn."
    ),
    device: str = typer.Option("auto", help="cpu, cuda, mps; auto takes the best there is."),
    steps: int | None = typer.Option(None, min=1, help="Sampling steps per prediction."),
    scheduler: str | None = typer.Option(
        None, help="Sampler: ddpm, ddim, dpmsolver++ or euler, as the policy was trained."
    ),
    precision: PrecisionName = typer.Option(
        PrecisionName.no, help="bf16: the denoiser's arithmetic, half the memory."
    ),
    threads: int | None = typer.Option(
        None, min=1, help="Of the CPU for the policy. Default: as many as torch takes."
    ),
    hz: float | None = typer.Option(
        None, help="Steps per second of the policy's data, told to clients."
    ),
) -> None:
    """Let robots on other machines ask a policy: `RemoteInference` or the thin client.

    Who asks needs the token. Ctrl-C ends.
    """
    from dp_hub.cli.scoring import check_device, fetch
    from dp_hub.errors import ConfigError
    from dp_hub.robot.inference.local import LocalInference
    from dp_hub.robot.inference.serving import check_extra, open_door, serve

    if hz is not None and not 0 < hz <= 1000:
        raise ConfigError(f"--hz is {hz}, expected steps per second")
    check_extra()
    door = open_door(
        host=host, port=port, token_file=token_file, new_token=new_token,
        certificate=certificate, key=key,
    )  # fmt: skip
    with door.listener:
        folder, sha = fetch(policy)
        inference = LocalInference(
            folder,
            name=policy,
            sha=sha,
            period_s=None if hz is None else 1 / hz,
            device=device if device == "cpu" else check_device(device),
            scheduler=scheduler,
            steps=steps,
            precision=precision.value,
            threads=threads,
        )
        if door.is_exposed:
            note = "what is sent, and the token, can be read on the way; see --certificate"
            print(f"warning: {note}", file=sys.stderr)
        with inference:
            serve(inference, door, clients=clients, on_ready=lambda: _say(door))


def _say(door: "Door") -> None:
    from dp_hub.robot.inference.address import TOKEN_VARIABLE

    print(f"# {door.url}")
    print(f"export {TOKEN_VARIABLE}=$(cat {shlex.quote(str(door.token_file))})", flush=True)
