"""The main job in one go: bundled demonstrations -> Hub -> policy -> Hub -> a score and a picture.

Every step is a command that you can type yourself; this script prints each one before it runs it.
The Hub is a small one on this machine, started here. Everything lands under demo/; a second run
continues where the first one stopped.

Run it with:  make demo
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from dp_hub.hub import LocalHub

ROOT = Path(__file__).resolve().parents[1]
DEMO = Path("demo")
DATASET, POLICY = "demo/pusht-scripted", "demo/pusht-policy"


def main() -> None:
    """Run the six steps, each skipped if its result is there already."""
    os.chdir(ROOT)
    DEMO.mkdir(exist_ok=True)
    started = time.monotonic()
    with LocalHub(DEMO / "hub", users=["demo"]) as hub:
        environment = os.environ | hub.env | {"HF_HOME": str(DEMO.resolve() / "hf")}
        for title, command, result in steps():
            if result is not None and result.exists():
                print(f"\n# {title}: {result} is there already", flush=True)
                continue
            print(f"\n# {title}\n$ {shlex.join(command)}", flush=True)
            finished = subprocess.run(executable(command), env=environment, check=False)
            if finished.returncode != 0:
                sys.exit(f"the demo stopped here; `make demo` continues from `{command[0]}`")
    minutes = (time.monotonic() - started) / 60
    print(
        f"\nDone in {minutes:.1f} minutes. Look at demo/eval/contact_sheet.png and demo/eval/video.mp4."
        "\nThe same commands work with your own data and with huggingface.co: see README.md."
    )


def steps() -> list[tuple[str, list[str], Path | None]]:
    """What runs: (title, command, the file that says it is finished)."""
    dataset, run = DEMO / "pusht", DEMO / "run"
    return [
        (
            "Convert 500 demonstrations from zarr to a versioned dataset",
            ["dp-hub", "convert", "zarr", "data/pusht_scripted.zarr.zip", "--to", str(dataset)]
            + ["--task", "Push the T onto the goal.", "--robot", "pusht_agent"],
            dataset / "meta" / "info.json",
        ),
        (
            "Push it to the Hub",
            ["dp-hub", "push", str(dataset), DATASET, "--license", "apache-2.0"],
            None,
        ),
        (
            "Train a Diffusion Policy from the Hub's copy",
            ["accelerate", "launch", "--num_processes", "1", "--num_machines", "1"]
            + ["--mixed_precision", "no", "--dynamo_backend", "no", "--cpu"]
            + ["recipes/train.py", "recipes/configs/pusht_demo.yaml"]
            + ["--dataset", DATASET, "--out_dir", str(run), "--resume"],
            run / "policy" / "config.json",
        ),
        ("Push the policy", ["dp-hub", "push", str(run / "policy"), POLICY], None),
        ("Pull it by name", ["dp-hub", "pull", POLICY], None),
        (
            "Let the pulled policy drive PushT from 50 start states it has never seen",
            ["dp-hub", "eval", POLICY, "--episodes", "50", "--seed", "100000"]
            + ["--out", str(DEMO / "eval")],
            None,
        ),
    ]


def executable(command: list[str]) -> list[str]:
    """The command with its program taken from this Python's environment."""
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]


if __name__ == "__main__":
    main()
