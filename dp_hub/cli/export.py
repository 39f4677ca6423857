"""``dp-hub export``: a dataset back to the format of other tools."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_FORMATS = (
    "zarr: the original Diffusion Policy's replay buffer. lerobot-v21: LeRobot's format before "
    "v3.0, a file an episode. hdf5: robomimic's demonstrations in one file."
)


class Target(StrEnum):
    """What a dataset can be exported to."""

    zarr = "zarr"
    lerobot_v21 = "lerobot-v21"
    hdf5 = "hdf5"


def export(
    target: Annotated[Target, typer.Argument(metavar="FORMAT", help=_FORMATS)],
    dataset: Annotated[Path, typer.Argument(metavar="DIR", help="The dataset folder.")],
    to: Annotated[
        Path,
        typer.Option("--to", metavar="OUT", help="What to make; zarr: OUT.zarr or OUT.zarr.zip."),
    ],
) -> None:
    """Export a dataset to the format of other tools, values bit for bit.

    OUT appears whole or not at all.
    """
    match target:
        case Target.zarr:
            _zarr(dataset, to)
        case Target.lerobot_v21:
            _lerobot_v21(dataset, to)
        case Target.hdf5:
            _hdf5(dataset, to)


def _zarr(dataset: Path, to: Path) -> None:
    from dp_hub.cli.convert import progress_bar
    from dp_hub.dataset.exporting.zarr import export_zarr

    with progress_bar("exporting", "episodes") as advance:
        done = export_zarr(dataset, to, on_progress=lambda n, total: advance(n, total))
    print(f"{done.path}: {done.n_episodes:,} episodes, {done.n_frames:,} frames (zarr v2)")
    for key, (shape, dtype) in done.keys.items():
        note = "  from video: close to, not equal to, the recorded" if key in done.lossy else ""
        print(f"  data/{key}  {dtype}  {'x'.join(map(str, shape)) or 'scalar'}{note}")


def _lerobot_v21(dataset: Path, to: Path) -> None:
    from dp_hub.cli.convert import progress_bar
    from dp_hub.dataset.exporting.lerobot_v21 import export_lerobot_v21

    with progress_bar("exporting", "episodes") as advance:
        done = export_lerobot_v21(dataset, to, on_progress=lambda n, total: advance(n, total))
    print(f"{done.path}: {done.n_episodes:,} episodes, {done.n_frames:,} frames (LeRobot v2.1)")
    if done.n_videos:
        print(f"  {done.n_videos:,} videos, copied as they are encoded")


def _hdf5(dataset: Path, to: Path) -> None:
    from dp_hub.cli.convert import progress_bar
    from dp_hub.dataset.exporting.hdf5 import export_hdf5

    with progress_bar("exporting", "episodes") as advance:
        done = export_hdf5(dataset, to, on_progress=lambda n, total: advance(n, total))
    print(f"{done.path}: {done.n_episodes:,} episodes, {done.n_frames:,} frames (robomimic HDF5)")
    for place, (shape, dtype) in done.keys.items():
        note = "  from video: close to, not equal to, the recorded" if place in done.lossy else ""
        print(f"  {place}  {dtype}  {'x'.join(map(str, shape)) or 'scalar'}{note}")
