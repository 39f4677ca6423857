"""``dp-hub pull``."""

from enum import StrEnum
from pathlib import Path

import typer

from dp_hub.cli.transfers import goes_on


class Kind(StrEnum):
    """What a name on the Hub may stand for."""

    dataset = "dataset"
    policy = "policy"


def pull(
    name: str = typer.Argument(..., help="user/name or user/name@revision."),
    to: Path | None = typer.Option(
        None, help="A new folder, or a pull to check and mend; default: the Hugging Face cache."
    ),
    kind: Kind | None = typer.Option(None, help="Where the Hub has both under one name."),
) -> None:
    """Fetch a dataset or a policy and check every byte of it."""
    from dp_hub.hub import pull as fetch

    with goes_on("what is whole stays"):
        pulled = fetch(name, to=to, kind=kind.value if kind else None)
    print(f"{pulled.repo_id}@{pulled.sha}")
    print(pulled.path)
