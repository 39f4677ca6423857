"""The main job in one go: bundled demonstrations -> Hub -> policy -> Hub -> a score and a picture.

Every step is a command that you can type yourself; this script prints each one before it runs it.
The Hub is a small one on this machine, started here. Everything lands under demo/; a second run
continues where the first one stopped.

Run it with:  make demo
"""

import argparse
import contextlib
import os
import shlex
import signal
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
            print(f"\n# {title}\n$ {command}", flush=True)
            if run(command, environment) != 0:
                sys.exit("the demo stopped here; `make demo` continues with this step")
    minutes = (time.monotonic() - started) / 60
    print(
        f"\nDone in {minutes:.1f} minutes. Look at the picture and the video in demo/eval."
        "\nThe same commands work with your own data and with huggingface.co: see README.md."
    )


def steps() -> list[tuple[str, str, Path | None]]:
    """What runs: (title, command, the file that says it is finished)."""
    dataset, run = DEMO / "pusht", DEMO / "run"
    return [
        (
            "Convert 500 demonstrations from zarr to a versioned dataset",
            f"dp-hub convert zarr data/pusht_scripted.zarr.zip --to {dataset} "
            "--task 'Push the T onto the goal.' --robot pusht_agent",
            dataset / "meta" / "info.json",
        ),
        (
            "Push it to the Hub",
            f"dp-hub push {dataset} {DATASET} --license apache-2.0",
            None,
        ),
        (
            "Train a Diffusion Policy from the Hub's copy",
            "accelerate launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no "
            "--dynamo_backend no recipes/train.py recipes/configs/pusht_demo.yaml "
            f"--dataset {DATASET} --out_dir {run} --resume",
            run / "policy" / "config.json",
        ),
        ("Push the policy", f"dp-hub push {run / 'policy'} {POLICY}", None),
        ("Pull it by name", f"dp-hub pull {POLICY}", None),
        (
            "Let the pulled policy drive PushT from 50 start states it has never seen",
            f"dp-hub eval {POLICY} --episodes 50 --seed 100000 --out {DEMO / 'eval'}",
            None,
        ),
    ]


def run(command: str, environment: dict[str, str]) -> int:
    """Run a step and return its exit status. Ctrl-C waits until all its processes have ended."""
    step = subprocess.Popen(executable(command), env=environment, start_new_session=True)
    try:
        return step.wait()
    except KeyboardInterrupt:
        os.killpg(step.pid, signal.SIGTERM)  # a training run saves a checkpoint first
        step.wait()
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(step.pid, 0)
                time.sleep(0.1)
        return 130


def executable(command: str) -> list[str]:
    """The words of a command, its program taken from this Python's environment."""
    program, *words = shlex.split(command)
    return [str(Path(sys.executable).with_name(program)), *words]


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    main()
