"""An environment of its own with LeRobot 0.4.4, made once: it wants older libraries than dp_hub.

    python tests/interop/lerobot_env.py      # makes it, or says that it is there; prints its python

It lies in ``$DP_HUB_LEROBOT_ENV``, else in dp_hub's cache folder, and takes 6 GB with the usual
builds of torch, about 1 GB with the CPU ones:

    DP_HUB_LEROBOT_TORCH="torch==2.10.0 torchvision==0.25.0
        --index-url https://download.pytorch.org/whl/cpu"
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from dp_hub.dataset.frame_cache import cache_root

LEROBOT = "lerobot==0.4.4"
# Newer ones have no torchvision.io.VideoReader, with which LeRobot's "pyav" backend decodes.
TORCH = "torch==2.10.0 torchvision==0.25.0"


def lerobot_python() -> Path:
    """The python of the environment, made if it is not there."""
    folder = Path(os.environ.get("DP_HUB_LEROBOT_ENV") or cache_root() / "lerobot-0.4.4")
    python = folder.absolute() / "bin" / "python"
    finished = folder / "finished"
    if not finished.exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        torch = os.environ.get("DP_HUB_LEROBOT_TORCH") or TORCH
        _install(python, torch.split())
        _install(python, [LEROBOT])
        finished.touch()
    return python


def _install(python: Path, what: list[str]) -> None:
    print(f"installing {' '.join(what)}", file=sys.stderr)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what],
        check=True,
        stdout=sys.stderr,
    )


if __name__ == "__main__":
    print(lerobot_python())
