"""``dp-hub finish``: complete a dataset whose writer was cut off."""

from pathlib import Path
from typing import Annotated

import typer


def finish(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The dataset folder.")],
) -> None:
    """Complete a dataset whose recording was cut off: whole files, statistics, card, checksums.

    Every episode that was finished is in it already.
    """
    from dp_hub.dataset.writer import DatasetWriter

    with DatasetWriter.resume(folder) as writer:
        written = writer.finish()
    print(f"{written.path}: {written.n_episodes:,} episodes, {written.n_frames:,} frames")
    print(f"fingerprint  {written.fingerprint}")
