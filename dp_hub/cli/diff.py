"""``dp-hub diff``: what is different between two datasets."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from dp_hub.errors import DpHubError

if TYPE_CHECKING:
    from dp_hub.dataset.diff import Difference, EpisodeChange, Side, StatMove

_MOST_LINES = 20
_MOST_STATS = 2


def diff(
    a: str = typer.Argument(..., metavar="A", help="A folder, or user/name[@revision]."),
    b: str = typer.Argument(..., metavar="B", help="What to compare it with, likewise."),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Compare two datasets. Exit status: 0 if they are equal, 1 if not, 2 if something is wrong."""
    from dp_hub.dataset.diff import diff as compare

    try:
        difference = compare(a, b)
    except DpHubError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    if json:
        from json import dumps

        print(dumps(difference.as_json(), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_text(difference)))
    raise typer.Exit(0 if difference.equal else 1)


def _text(found: "Difference") -> list[str]:
    lines = [f"A  {_side(found.a)}", f"B  {_side(found.b)}"]
    if found.note:
        lines += ["", f"note: {found.note}"]
    if found.equal:
        words = "the same content" if found.compared_by == "sha256" else "no difference was seen"
        return [*lines, "", f"{words}, in {len(found.same):,} episodes"]
    return [*lines, "", *_episodes(found), *_settings(found), *_features(found), *_tasks(found),
            *_statistics(found)]  # fmt: skip


def _side(side: "Side") -> str:
    name = f"{side.name}@{side.revision}" if side.revision else side.name
    return f"{name}  {side.n_episodes:,} episodes, {side.n_frames:,} frames"


def _episodes(found: "Difference") -> list[str]:
    counts = [(len(found.added), "added"), (len(found.removed), "removed"),
              (len(found.changed), "changed"), (len(found.renumbered), "renumbered"),
              (len(found.same) - len(found.renumbered), "as they were")]  # fmt: skip
    lines = ["episodes: " + ", ".join(f"{n:,} {what}" for n, what in counts)]
    for sign, what, numbers in (("+", "added", found.added), ("-", "removed", found.removed)):
        if numbers:
            lines.append(f"  {sign} {what} {_ranges(numbers)}")
    lines += _limited([f"  ~ changed {_change(change)}" for change in found.changed])
    return [*lines, *_limited([f"  = renumbered {text}" for text in _renumbered(found)])]


def _ranges(numbers: Sequence[int]) -> str:
    from dp_hub.dataset.diff import runs

    words = [_span(i, n) for i, _, n in runs([(i, i) for i in numbers])]
    more = len(words) - _MOST_LINES
    return ", ".join(words[:_MOST_LINES]) + (f" and {more:,} more runs" if more > 0 else "")


def _span(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}..{first + count - 1}"


def _renumbered(found: "Difference") -> list[str]:
    from dp_hub.dataset.diff import runs

    return [f"{_span(i, n)} -> {_span(j, n)}" for i, j, n in runs(found.renumbered)]


def _change(change: "EpisodeChange") -> str:
    number = str(change.a) if change.a == change.b else f"{change.a} -> {change.b}"
    words = []
    if change.length:
        words.append(f"length {change.length[0]} -> {change.length[1]}")
    if change.task:
        words.append(f"task {change.task[0]!r} -> {change.task[1]!r}")
    words += [f"{name} ({', '.join(stats)})" for name, stats in change.statistics]
    if change.metadata:
        words.append("metadata")
    return f"{number}: {'; '.join(words) or 'content; meta/ does not show in what'}"


def _settings(found: "Difference") -> list[str]:
    a, b = found.a, found.b
    lines = [f"rate: {a.fps:g} -> {b.fps:g} Hz"] if a.fps != b.fps else []
    if a.robot_type != b.robot_type:
        lines.append(f"robot: {a.robot_type or 'not stated'} -> {b.robot_type or 'not stated'}")
    return lines


def _features(found: "Difference") -> list[str]:
    lines = [f"  + {name}" for name in found.features_added]
    lines += [f"  - {name}" for name in found.features_removed]
    lines += [f"  ~ {f.name}: {f.before} -> {f.after}" for f in found.features_changed]
    return ["features:", *lines] if lines else []


def _tasks(found: "Difference") -> list[str]:
    lines = [f"  + {task}" for task in found.tasks_added]
    lines += [f"  - {task}" for task in found.tasks_removed]
    return ["tasks:", *_limited(lines)] if lines else []


def _statistics(found: "Difference") -> list[str]:
    from dp_hub.dataset.diff import THRESHOLD

    if not found.moves:
        return [f"statistics: none moved by more than {THRESHOLD:.0%} of its range"]
    by_feature: dict[str, list[StatMove]] = {}
    for move in found.moves:
        by_feature.setdefault(move.feature, []).append(move)
    head = f"statistics that moved by more than {THRESHOLD:.0%} of their range, the farthest first:"
    return [head, *_limited([_moves(name, moves) for name, moves in by_feature.items()])]


def _moves(feature: str, moves: list["StatMove"]) -> str:
    ordered = sorted(moves, key=lambda move: -move.share)
    words = [f"{m.stat} of {m.dimension} {m.before:.5g} -> {m.after:.5g} ({m.share:.1%})"
             for m in ordered[:_MOST_STATS]]  # fmt: skip
    hidden = len(moves) - len(words)
    return f"  ~ {feature}: {', '.join(words)}" + (f" and {hidden} more" if hidden else "")


def _limited(lines: list[str]) -> list[str]:
    hidden = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], f"  and {hidden:,} more"] if hidden > 0 else lines
