"""``dp-hub convert``: recordings of any installed format to a dataset folder."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from dp_hub.errors import DpHubError

if TYPE_CHECKING:
    from dp_hub.dataset.convert import Conversion


_MOST_LISTED = 20


class Images(StrEnum):
    """How pictures are stored."""

    auto = "auto"
    webp = "webp"
    png = "png"
    video = "video"


class Codec(StrEnum):
    """Which video codec."""

    h264 = "h264"
    av1 = "av1"


class WithFormats(TyperCommand):
    """Lists the installed formats at the end of its help; looked up only then."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Names, summaries, options and what to install; no converter is imported."""
        from dp_hub.dataset.conversion.format_list import installed_formats

        rows = []
        for one in installed_formats():
            parts = [one.summary] if one.summary else []
            parts += [f"options: {', '.join(one.options)}"] if one.options else []
            parts += [f'needs: pip install "{one.install}"'] if one.install else []
            rows.append((one.name, "; ".join(parts) or "-"))
        with formatter.section("Formats"):
            formatter.write_dl(rows)


def convert(
    format_name: Annotated[
        str, typer.Argument(metavar="FORMAT", help="Source format; those installed are below.")
    ],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC", help="The recordings; lerobot: or user/name[@rev] on the Hub."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The dataset folder to make.")],
    mapping: Annotated[
        Path | None,
        typer.Option(
            metavar="M.yaml", help="What becomes of which streams; dp-hub inspect proposes one."
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="KEY=FEATURE", help="Feature name for a source key."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", metavar="KEY", help="Leave a source key out.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames per second. Default: what the source states, else 10."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What was to be done, in words.")
    ] = None,
    robot: Annotated[
        str | None, typer.Option("--robot", metavar="TYPE", help="The robot's type.")
    ] = None,
    images: Annotated[
        Images,
        typer.Option(help="Pictures as. auto: lossless webp up to 128 px, video beyond."),
    ] = Images.auto,
    codec: Annotated[
        Codec | None,
        typer.Option(
            help="Codec of videos. Default: as they are if they can be copied, else h264."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="One of the format's own options, see below."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that read and prepare; the result is the same.")
    ] = 1,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out, and list, episodes that cannot be converted."),
    ] = False,
) -> None:
    """Convert recordings to a dataset folder (LeRobot v3.0), ready to train from and to push."""
    from dp_hub.dataset import convert as library
    from dp_hub.dataset.conversion.format_options import option_texts

    if mapping is not None and names:
        raise DpHubError(
            "both --mapping and --map", hint="the mapping names the features; leave --map out"
        )
    with progress_bar("converting") as advance:
        done = library.convert(
            format_name,
            source,
            to,
            mapping=mapping or mapping_of(names or []),
            drop=drop or [],
            fps=fps,
            task=task,
            robot_type=robot,
            images=images.value,
            codec=codec.value if codec else None,
            options=option_texts(option or []),
            workers=workers,
            skip_bad=skip_bad,
            on_progress=lambda p: advance(p.frames, p.total_frames),
        )
    print(summary(done))


@contextmanager
def progress_bar(verb: str, unit: str = "frames") -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr with rate and remaining time; call the result with done and total."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Work done per second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else "")

    columns: list[Any] = [TextColumn(verb), BarColumn(), MofNCompleteColumn(), Rate()]
    columns.append(TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task_id = bar.add_task(verb, total=None)
        yield lambda done, total: bar.update(task_id, completed=done, total=total)


def summary(done: "Conversion") -> str:
    """What a conversion made, for people: counts, the table of features, notes, what to do next."""
    written = done.written
    episodes = "episode" if written.n_episodes == 1 else "episodes"
    lines = [
        f"{written.path}: {written.n_episodes:,} {episodes}, {written.n_frames:,} frames at "
        f"{written.fps:g} Hz, {_megabytes(written.n_bytes)}, in {done.seconds:.1f} s",
        "",
        *_table(
            [("from", "feature", "type", "shape", "note")]
            + [
                (
                    done.origins.get(c.feature, c.key),
                    c.feature,
                    _kind(c),
                    "x".join(map(str, c.shape)),
                    c.note or "",
                )
                for c in written.columns
            ]
        ),
        "",
        f"tasks        {'; '.join(filter(None, written.tasks)) or 'none stated (--task TEXT)'}",
        f"fingerprint  {written.fingerprint}",
    ]
    lines += [f"note: {note}" for note in _notes(done)]
    lines += _alignment(done)
    lines += _left_out(done)
    return "\n".join([*lines, "", f"next: dp-hub push {written.path} USER/NAME"])


def _notes(done: "Conversion") -> list[str]:
    written = done.written
    notes = list(done.source.notes)
    if done.dropped:
        notes.append(f"left out on request: {', '.join(done.dropped)}")
    notes += [
        f"{feature} has NaN or infinity in {n:,} frames" for feature, n in written.nonfinite.items()
    ]
    if written.worst_video_db is not None:
        notes.append(
            "video loses a little: the worst of the frames read back is at "
            f"{written.worst_video_db:.1f} dB"
        )
    if not any(column.feature == "action" for column in written.columns):
        notes.append("no feature is called `action`; policies need one (--map KEY=action)")
    if not any(column.feature.startswith("observation") for column in written.columns):
        notes.append(
            "no feature is called `observation...`; policies need one (--map KEY=observation.state)"
        )
    return notes


def _alignment(done: "Conversion") -> list[str]:
    if done.alignment is None:
        return []
    from dp_hub.dataset.conversion.alignment_report import report_table

    return ["", *report_table(done.alignment)]


def _left_out(done: "Conversion") -> list[str]:
    if not done.bad:
        return []
    noun = "episode was" if len(done.bad) == 1 else "episodes were"
    lines = ["", f"{len(done.bad):,} bad {noun} left out (also listed in meta/dp_hub.json):"]
    lines += [f"  {one.label}: {one.reason}" for one in done.bad[:_MOST_LISTED]]
    rest = len(done.bad) - _MOST_LISTED
    return [*lines, f"  ... and {rest:,} more"] if rest > 0 else lines


def _kind(column: Any) -> str:
    return f"{column.dtype} ({column.encoding})" if column.is_visual else column.dtype


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"


def mapping_of(texts: list[str]) -> dict[str, str]:
    """``KEY=FEATURE`` texts as a mapping. Raises DpHubError."""
    result: dict[str, str] = {}
    for text in texts:
        key, equals, feature = text.partition("=")
        if not (key and equals and feature):
            raise DpHubError(
                f"--map {text!r} is not KEY=FEATURE", hint="for example --map obs=observation.state"
            )
        if key in result:
            raise DpHubError(f"--map names {key} twice: {result[key]} and {feature}")
        result[key] = feature
    return result
