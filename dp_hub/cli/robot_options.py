"""Options that several commands of robots have, declared once."""

from pathlib import Path
from typing import Annotated

import typer

ROBOT_HELP = (
    "The robot's configuration: a YAML file, or one that comes with dp_hub: pusht or mujoco_arm, "
    "which are simulated, or ur5, to be copied and edited."
)
Robot = Annotated[str, typer.Option(help=ROBOT_HELP)]
Server = Annotated[
    str | None,
    typer.Option(help="Ask a policy on another machine, ws://HOST:PORT of `dp-hub serve-policy`."),
]
TokenFile = Annotated[
    Path | None, typer.Option(help="Holds the server's token. Default: $DP_HUB_POLICY_TOKEN.")
]
Certificate = Annotated[Path | None, typer.Option(help="The server's, for wss://.")]
Raw = Annotated[
    str | None,
    typer.Option(help="Where raw streams go; `none` keeps none. Default: beside the dataset."),
]
EpisodeS = Annotated[float | None, typer.Option(min=0.1, help="The longest episode, seconds.")]
Realtime = Annotated[
    bool | None,
    typer.Option(
        "--realtime/--no-realtime",
        help="Real-time scheduling where permitted. Default: on a robot, not in simulation.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Everything but moving the arms.")]
View = Annotated[
    bool | None,
    typer.Option("--view/--no-view", help="A window with all cameras. Default: with a display."),
]
Overlay = Annotated[
    str | None,
    typer.Option(help="Lay an episode's first frame over the view: DATASET or DATASET#NUMBER."),
]
Keys = Annotated[
    Path | None,
    typer.Option(help="Press these keys: a file of lines `SECONDS KEY`. Default: the terminal's."),
]
