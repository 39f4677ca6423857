"""``dp-hub serve``."""

import shlex
import sys
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
        if file is None:
            print(f"# {name}: the token file was taken away; --new-token makes another token")
        else:
            mark = "" if len(hub.token_files) == 1 else f"# {name}: "
            print(f"{mark}export HF_TOKEN=$(cat {shlex.quote(str(file))})")
    print(flush=True)
    if host not in ("127.0.0.1", "::1", "localhost"):
        note = "other machines can read what is public here, and tokens travel unencrypted"
        print(f"warning: {note}", file=sys.stderr)
    hub.run()
