"""``dp-hub export``: a dataset back to the format of other tools."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Target(StrEnum):
    """What a dataset can be exported to."""

    zarr = "zarr"


def export(
    target: Annotated[Target, typer.Argument(metavar="FORMAT", help="zarr: a replay buffer.")],
    dataset: Annotated[Path, typer.Argument(metavar="DIR", help="The dataset folder.")],
    to: Annotated[
        Path, typer.Option("--to", metavar="OUT", help="OUT.zarr (a folder) or OUT.zarr.zip.")
    ],
) -> None:
    """Export a dataset as the original Diffusion Policy's replay buffer, values bit for bit."""
    from dp_hub.cli.convert import progress_bar
    from dp_hub.dataset.export import export_zarr

    with progress_bar("exporting", "episodes") as advance:
        done = export_zarr(dataset, to, on_progress=lambda n, total: advance(n, total))
    print(f"{done.path}: {done.n_episodes:,} episodes, {done.n_frames:,} frames (zarr v2)")
    for key, (shape, dtype) in done.keys.items():
        note = "  from video: close to, not equal to, the recorded" if key in done.lossy else ""
        print(f"  data/{key}  {dtype}  {'x'.join(map(str, shape)) or 'scalar'}{note}")
