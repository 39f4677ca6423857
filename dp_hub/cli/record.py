"""``dp-hub record``."""

import typer

app = typer.Typer(no_args_is_help=True, help="Record demonstrations.")


@app.command("pusht")
def pusht() -> None:
    """Placeholder until the command lands."""
    raise NotImplementedError
