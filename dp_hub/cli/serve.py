"""``dp-hub serve``."""

import shlex
from pathlib import Path

import typer


def serve(
    folder: Path = typer.Argument(..., help="Where repositories and users are kept."),
    port: int = typer.Option(8400, help="0 takes a free one."),
    host: str = typer.Option("127.0.0.1", help="0.0.0.0 lets other machines in."),
    user: list[str] = typer.Option(
        [], help="Who gets a token; may be repeated. Default: those who have one, or `me`."
    ),
    token_file: Path | None = typer.Option(
        None, help="Where the token is written. Default: FOLDER/tokens/USER."
    ),
    new_token: bool = typer.Option(False, "--new-token", help="Replace these users' tokens."),
) -> None:
    """Run a small Hub: push and pull without an account or the internet."""
    from dp_hub.hub.server.run import prepare

    hub = prepare(
        folder, host=host, port=port, users=user, token_file=token_file, new_token=new_token
    )
    print(f"export HF_ENDPOINT={hub.endpoint}")
    print("export HF_HUB_DISABLE_XET=1  # for clients other than dp-hub")
    for name, file in hub.token_files.items():
        token = f"$(cat {shlex.quote(str(file))})" if file else "..."
        note = "" if file else "  # given out earlier; --new-token makes another"
        print(f"export HF_TOKEN={token}  # {name}" if file else f"# HF_TOKEN of {name}{note}")
    print(flush=True)
    hub.run()
