"""``dp-hub push``."""

import sys
from pathlib import Path

import typer

from dp_hub.cli.transfers import goes_on


def push(
    folder: Path = typer.Argument(..., help="A dataset or policy folder."),
    name: str = typer.Argument(..., help="user/name on the Hub; made if it doesn't exist."),
    private: bool = typer.Option(False, "--private", help="Make a new repository private."),
    message: str | None = typer.Option(None, help="What changed, in a line."),
    license: str | None = typer.Option(
        None, help="Identifier such as cc-by-4.0; needed once per dataset."
    ),
    onto: str | None = typer.Option(
        None, help="The newest version there (data-v3), to put a folder not made from it in place."
    ),
) -> None:
    """Publish a dataset or a policy: one commit with what changed, then its tags."""
    from dp_hub.dataset.card import make_card
    from dp_hub.hub import push as publish

    ask = _ask_license if sys.stdin.isatty() and sys.stderr.isatty() else None
    with goes_on("nobody sees a half-pushed version"):
        pushed = publish(
            folder,
            name,
            private=private,
            message=message,
            license=license,
            ask_license=ask,
            onto=onto,
            make_card=make_card,
        )
    if pushed.changed:
        done = f"{pushed.n_sent} files sent, {pushed.n_removed} removed"
        print(f"pushed the {pushed.kind}: {done}", file=sys.stderr)
    else:
        print(f"nothing to push: {name} holds this {pushed.kind} already", file=sys.stderr)
    print(f"{pushed.repo_id}@{pushed.tag or pushed.sha}")
    print(f"commit {pushed.sha}")
    print(pushed.url)


def _ask_license() -> str:
    """Ask on the terminal; an empty answer is none."""
    return str(
        typer.prompt(
            "Licence of the data (cc-by-4.0, cc0-1.0, mit, ...)",
            default="",
            show_default=False,
            err=True,
        )
    ).strip()
