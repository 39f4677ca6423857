"""``dp-hub edit``: a new dataset out of one or more old ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dp_hub.cli.convert import Codec, Images, progress_bar
from dp_hub.errors import DpHubError

if TYPE_CHECKING:
    from dp_hub.dataset.editing import Edited


def edit(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET...",
            help="Folders or user/name[@revision]; several are put end to end, their episodes "
            "numbered on.",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="NEW", help="The dataset folder to make.")],
    delete: Annotated[
        str | None, typer.Option(metavar="EPISODES", help="Leave these out: 3,7-9, from 0 on.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(metavar="EPISODES", help="Leave all others out.")
    ] = None,
    trim: Annotated[
        list[str] | None,
        typer.Option(metavar="EPISODE:START:STOP", help="Keep these frames; may be repeated."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="[EPISODES=]TEXT", help="What was to be done, for all or some."),
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Another name for a feature.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="FEATURE", help="Leave a feature out.")
    ] = None,
    images: Annotated[
        Images | None, typer.Option(help="Store pictures in another way; auto changes nothing.")
    ] = None,
    codec: Annotated[Codec | None, typer.Option(help="Codec of new videos. Default: h264.")] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=EPISODES|SHARE",
            help="Make NEW/NAME of these, or of 0.9 or 90% of the rest; may be repeated.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Draw the shares at random. Default: in order.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(metavar="ID", help="Licence of the new dataset, like cc-by-4.0.")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Take statistics anew from every value, check every hash."),
    ] = False,
) -> None:
    """Make a new dataset: delete, keep, trim, split, merge, rename, drop, encode again.

    The old ones are only read. Without options the episodes are put into files of the usual size.
    Episode numbers are those before the edit.
    """
    from dp_hub.dataset import editing

    if seed is not None and not split:
        raise DpHubError("--seed draws the shares of --split, and there is no --split")
    if codec is not None and images is not Images.video:
        raise DpHubError("--codec is of new videos", hint="say --images video as well")
    change = editing.Edit(
        keep=keep,
        delete=delete,
        trim=trim or [],
        tasks=task or [],
        rename=_renames(rename or []),
        drop=drop or [],
        images=images.value if images else None,
        codec=codec.value if codec else "h264",
        license=license,
        measure=measure,
    )
    with progress_bar("editing", "episodes") as advance:
        if not split:
            made = {"": editing.edit(sources, to, change, on_progress=advance)}
        else:
            made = editing.split_dataset(sources, to, split, change, seed=seed, on_progress=advance)
    for one in made.values():
        print(_summary(one))


def _summary(one: "Edited") -> str:
    written, shared = one.written, one.shared_files
    return (
        f"{written.path}: {written.n_episodes:,} episodes, {written.n_frames:,} frames; "
        f"{one.unchanged:,} unchanged, {one.copied:,} taken over as stored, "
        f"{shared:,} file{'' if shared == 1 else 's'} shared\n"
        f"fingerprint  {written.fingerprint}"
    )


def _renames(texts: list[str]) -> dict[str, str]:
    result: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.partition("=")
        if not (old and equals and new) or old in result:
            raise DpHubError(
                f"--rename {text!r} is not OLD=NEW, each feature once",
                hint="for example --rename obs=observation.state",
            )
        result[old] = new
    return result
