"""``dp-hub log``."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from dp_hub.cli.pull import Kind

if TYPE_CHECKING:
    from dp_hub.hub import History, VersionEntry

COLUMNS = ("version", "commit", "when (UTC)", "episodes", "frames", "message")
NUMBERS = (3, 4)


def log(
    name: str = typer.Argument(..., help="user/name on the Hub."),
    kind: Kind | None = typer.Option(None, help="Where the Hub has both under one name."),
    as_json: bool = typer.Option(False, "--json", help="A list of objects."),
) -> None:
    """List the versions of a dataset, newest first; of a policy, its commits."""
    from dp_hub.hub import history

    found = history(name, kind=kind.value if kind else None)
    if as_json:
        print(json.dumps([_facts(entry) for entry in found.versions], indent=1))
    elif found.versions:
        print("\n".join(_table([COLUMNS, *(_row(entry) for entry in found.versions)])))
    _mention_unversioned(found)


def _facts(entry: "VersionEntry") -> dict[str, str | int | None]:
    return {
        "version": entry.tag,
        "commit": entry.sha,
        "when": entry.when,
        "author": entry.author,
        "episodes": entry.episodes,
        "frames": entry.frames,
        "message": entry.message,
    }


def _row(entry: "VersionEntry") -> tuple[str, ...]:
    when = entry.when[:16].replace("T", " ")
    counts = ["-" if number is None else f"{number}" for number in (entry.episodes, entry.frames)]
    return entry.tag or "-", entry.sha[:10], when, *counts, _plain(entry.message)


def _plain(text: str) -> str:
    """On one line and without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _mention_unversioned(found: "History") -> None:
    commits = [f"{entry.sha[:10]} {_plain(entry.message)}" for entry in found.unversioned]
    if not commits:
        return
    shown = "; ".join(commits[:3]) + ("; ..." if len(commits) > 3 else "")
    since = f"after {found.versions[0].tag}" if found.versions else "and no version yet"
    count = "1 commit" if len(commits) == 1 else f"{len(commits)} commits"
    print(f"{count} on main {since}: {shown}", file=sys.stderr)
