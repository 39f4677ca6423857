"""The ``dp-hub`` command. Bodies are one library call each and import what they need late."""

import logging
import signal
import sys
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from dp_hub import __version__
from dp_hub.cli import (
    check,
    compare,
    convert,
    convert_policies,
    diff,
    edit,
    evaluate,
    export,
    finish,
    info,
    inspect,
    latency,
    log,
    pull,
    push,
    record,
    replay,
    rollout,
    runs,
    score,
    serve,
    serve_policy,
)
from dp_hub.errors import DpHubError


class Commands(TyperGroup):
    """Commands of one word or two: ``convert``, and ``convert checkpoint`` beside it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The longer name first."""
        name = " ".join(args[:2])
        if len(args) > 1 and name in self.commands:
            return name, self.commands[name], args[2:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="dp-hub",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Robot demonstrations to a working policy on the Hugging Face Hub and back to a robot.",
)
app.command("convert", cls=convert.WithFormats)(convert.convert)
app.command("convert checkpoint")(convert_policies.checkpoint)
app.command("convert policy")(convert_policies.policy)
app.command("check")(check.check)
app.command("export")(export.export)
app.command("info")(info.info)
app.command("inspect")(inspect.inspect)
app.command("diff")(diff.diff)
app.add_typer(record.app, name="record")
app.command("edit")(edit.edit)
app.command("finish")(finish.finish)
app.command("push")(push.push)
app.command("pull")(pull.pull)
app.command("log")(log.log)
app.command("serve")(serve.serve)
app.command("serve-policy")(serve_policy.serve_policy)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("latency")(latency.latency)
app.command("replay")(replay.replay)
app.command("rollout")(rollout.rollout)
app.command("runs")(runs.runs)
app.command("score")(score.score)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dp_hub {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, help="Print the version."),
) -> None:
    """Robot demonstrations to a working policy on the Hugging Face Hub and back to a robot."""


def main() -> None:
    """Run ``dp-hub``: our errors become a sentence and a hint on stderr, never a traceback."""
    # Only our own messages: other libraries log every request they make.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("dp_hub").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _leave)
    try:
        app()
    except DpHubError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # typer's answer to Ctrl-C
            print("interrupted", file=sys.stderr)
        raise


def _leave(number: int, frame: FrameType | None) -> None:
    # As an exception, so that what is half written is cleared away on the way out.
    sys.exit(128 + number)
