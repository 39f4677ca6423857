"""``dp-hub info``: what is in a dataset."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from dp_hub.dataset.facts import Facts, FeatureFacts

_MOST_TASKS = 10


def info(
    dataset: str = typer.Argument(
        ..., metavar="DIR|NAME", help="A dataset folder, or user/name[@revision] on the Hub."
    ),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
    picture: Path | None = typer.Option(
        None, metavar="FILE.png", help="Also draw frames, ranges and lengths (folders only)."
    ),
) -> None:
    """Show what is in a dataset: features, episodes, tasks, size, version, origin."""
    from dp_hub.dataset.facts import read_facts
    from dp_hub.dataset.located import meta_folder

    found = meta_folder(dataset)
    facts = read_facts(found)
    if picture is not None:
        _write_picture(found.folder, picture)
    if json:
        from json import dumps

        print(dumps(facts.as_json(), indent=2, ensure_ascii=False))
    else:
        print(_text(facts))


def _write_picture(folder: Path, picture: Path) -> None:
    from dp_hub.dataset.card import overview_png
    from dp_hub.errors import DataError

    if picture.suffix.lower() != ".png":
        raise DataError(f"the picture is a PNG, {picture} would not be", hint="name it FILE.png")
    if not picture.parent.is_dir():
        raise DataError(f"there is no folder {picture.parent} to put {picture.name} in")
    data = overview_png(folder)
    try:
        picture.write_bytes(data)
    except OSError as error:
        raise DataError(f"{picture} cannot be written: {error.strerror}") from None


def _text(facts: "Facts") -> str:
    from dp_hub.dataset.facts import duration

    lines = [
        facts.repo_id or str(facts.folder),
        "",
        f"episodes     {facts.n_episodes:,}",
        f"frames       {facts.n_frames:,} at {facts.fps:g} Hz, {duration(facts.duration_s)}",
        *_lengths(facts),
        f"robot        {facts.robot_type or '(not stated)'}",
        f"size         {_size(facts)}",
        f"layout       LeRobot {facts.codebase_version}",
        f"state        {facts.state}",
        *_version(facts),
        *_origin(facts),
        f"licence      {facts.license or '(not stated)'}",
        "",
        *_tasks(facts),
        "",
        *_features(facts),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _lengths(facts: "Facts") -> list[str]:
    if facts.lengths is None:
        return []
    low, median, high = facts.lengths.min, facts.lengths.median, facts.lengths.max
    seconds = " / ".join(f"{n / facts.fps:.3g}" for n in (low, median, high))
    return [f"lengths      {low:,} / {median:,.6g} / {high:,} frames "
            f"(min / median / max; {seconds} s)"]  # fmt: skip


def _size(facts: "Facts") -> str:
    from dp_hub.dataset.facts import megabytes

    size = facts.size
    parts = {"data": size.data, "videos": size.videos, "meta": size.meta}
    expected = {"data", "meta"} | {"videos" for f in facts.features if f.dtype == "video"}
    shown = []
    for name, n_bytes in parts.items():
        away = "" if name in size.here else " (not here)"
        if n_bytes or name in expected:
            amount = megabytes(n_bytes) if n_bytes or not away else ""
            shown.append(f"{name} {amount}{away}".replace("  ", " "))
    return f"{megabytes(size.total)}: {', '.join(shown)}"


def _version(facts: "Facts") -> list[str]:
    lines = []
    if facts.commit or facts.tag:
        words = [facts.tag, f"commit {facts.commit}" if facts.commit else None]
        lines.append(f"version      {', '.join(word for word in words if word)}")
        lines.append(f"of           {facts.repo_id or '(not stated)'}")
    if facts.fingerprint is None:
        why = "still being written" if facts.state == "open" else "not written by dp_hub"
        return [*lines, f"fingerprint  (none: {why})"]
    note = "" if facts.fingerprint_fits else "  does not fit: changed by another program"
    return [*lines, f"fingerprint  {facts.fingerprint}{note}"]


def _origin(facts: "Facts") -> list[str]:
    source = facts.source
    words = [str(source[key]) for key in ("converter", "file") if source.get(key)]
    lines = [f"source       {': '.join(words)}"] if words else []
    for made_from in facts.sources:
        version = f" at {made_from['revision']}" if made_from.get("revision") else ""
        lines.append(f"made from    {made_from.get('name')}{version}")
    return [*lines, f"written by   {facts.created_by}"] if facts.created_by else lines


def _tasks(facts: "Facts") -> list[str]:
    shown = list(facts.tasks.items())[:_MOST_TASKS]
    width = max((len(f"{n:,}") for _, n in shown), default=0)
    lines = [f"  {n:>{width},}  {' '.join(task.split()) or '(not stated)'}" for task, n in shown]
    if len(facts.tasks) > len(shown):
        lines.append(f"  and {len(facts.tasks) - len(shown):,} more tasks")
    return ["tasks, by episodes", *lines]


def _features(facts: "Facts") -> list[str]:
    from dp_hub.dataset.card import feature_type, shape_text, short_names

    def row(feature: "FeatureFacts") -> tuple[str, ...]:
        names = [feature_type(feature), shape_text(feature), short_names(feature)]
        return (feature.name, *names)

    own = [feature for feature in facts.features if not feature.index]
    rows = [("feature", "type", "shape", "dimensions"), *(row(feature) for feature in own)]
    widths = [max(len(cells[i]) for cells in rows) for i in range(4)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) for cells in rows]
    index = ", ".join(feature.name for feature in facts.features if feature.index)
    return [*lines, f"and, as always, {index}"] if index else lines
