"""Policies' speed beside the original's way and LeRobot's: training, predicting, starting up.

    python benchmarks/policies.py [--parts train image predict startup] [--threads 2]
                                  [--lerobot-python ENV/bin/python] [--compile]

ENV is an environment of its own with LeRobot 0.4.4; without it, its rows are left out. The
original can't be installed from a package registry: benchmarks/policy_sides.py says what stands for
it. Each side waits in a process of its own and all take their turn, round by round; numbers are
medians of the rounds, ratios those of medians, of wall and of CPU seconds (which mean more where
the machine does other things too). Weights are random; the time does not depend on them.

train: the paper's state U-Net, batches of 256, data loading included (LeRobot gets its batches for
nothing). image: the paper's image policy, batches of 8, from a dataset folder on disk. predict:
one predict_action of the state U-Net, and of the MLP. The image part needs some 16 GB.
Without ``--zarr`` the data are the first five real demonstrations from ../shared/data.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from serving import Side, Spent

HERE = Path(__file__).resolve().parent
REAL = HERE.parents[1] / "shared/data/pusht/pusht_first5.zarr.zip"
PARTS = ("train", "image", "predict", "startup")
BATCH_SIZE = {"train": 256, "image": 8}


@dataclass
class Row:
    """One line of a table: what it is called, who does it and what they are asked."""

    name: str
    side: str
    request: dict[str, Any]
    spent: list[Spent] = field(default_factory=list)

    def medians(self) -> Spent:
        return Spent(median(s.wall_s for s in self.spent), median(s.cpu_s for s in self.spent))


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        prepare(folder, options)
        for part in options.parts:
            if part == "startup":
                startup(folder, options)
            elif part == "predict":
                for rows in options.rows:
                    predict(folder, options, rows)
            else:
                train(part, folder, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 50], help="predicted at once")
    parser.add_argument("--compile", action="store_true", help="torch.compile, minutes more")
    parser.add_argument("--zarr", type=Path, default=REAL)
    parser.add_argument("--scratch", type=Path, help="for everything temporary")
    parser.add_argument("--lerobot-python", help="of an environment with LeRobot 0.4.4")
    return parser.parse_args()


def prepare(folder: Path, options: argparse.Namespace) -> None:
    """A dataset folder and two policy folders."""
    from dp_hub.dataset.convert import convert
    from dp_hub.policies.config import DiffusionConfig, FlowObjective, MlpConfig
    from dp_hub.policies.kinds import make_policy
    from dp_hub.policies.saving import save_policy

    os.environ["DP_HUB_CACHE"] = str(folder / "cache")
    if {"train", "image"} & set(options.parts):
        convert("zarr", options.zarr, folder / "data", images="webp", fps=10.0, task="push")
    features: Any = {"observation.environment_state": 18, "observation.state": 5, "action": 2}
    mlp = DiffusionConfig(denoiser=MlpConfig(), objective=FlowObjective(num_inference_steps=16))
    for name, config in (("unet", DiffusionConfig()), ("mlp", mlp)):
        save_policy(make_policy(config, features), folder / name)


def start(sides: set[str], part: str, folder: Path, options: argparse.Namespace) -> dict[str, Side]:
    """The processes of a part, set up; the number of their parameters goes to stderr."""
    told = {
        "threads": options.threads,
        "folder": str(folder / "data"),
        "batch_size": BATCH_SIZE.get(part),
        "pictures": part == "image",
        "unet": str(folder / "unet"),
        "mlp": str(folder / "mlp"),
        "compile": options.compile,
    }
    # Threads that wait sleep: spinning, they would count as work and disturb the others.
    env = os.environ | {"OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "passive"}
    commands = {
        name: [sys.executable, str(HERE / "policy_sides.py"), name, part, json.dumps(told)]
        for name in ("ours", "original")
    }
    lerobot = str(HERE / "policy_lerobot.py")
    commands["lerobot"] = [str(options.lerobot_python), lerobot, part, json.dumps(told)]
    started = {name: Side(commands[name], env) for name in sorted(sides)}
    for name, side in started.items():
        print(f"{part}: {name} {side.ready()}", file=sys.stderr, flush=True)
    return started


def measure(rows: list[Row], part: str, folder: Path, options: argparse.Namespace) -> list[Row]:
    """The rows that can be measured here, each once to warm up and then in turn."""
    rows = [row for row in rows if row.side != "lerobot" or options.lerobot_python]
    sides = start({row.side for row in rows}, part, folder, options)
    for round_ in range(options.rounds + 1):
        for row in rows:
            slow = row.request.get("steps", 0) >= 100 and row.request.get("rows", 0) > 1
            if slow and round_ != 1:  # half a minute each, and the first steps of it warm it up
                continue
            spent = sides[row.side].run(row.request)
            if round_ > 0:
                row.spent.append(spent)
    for side in sides.values():
        side.close()
    return rows


def train(part: str, folder: Path, options: argparse.Namespace) -> None:
    rows = [
        Row("the original's way, fp32", "original", {}),
        Row("LeRobot 0.4.4, fp32", "lerobot", {}),
        Row("dp_hub, fp32", "ours", {"precision": "no"}),
        Row("dp_hub, bf16", "ours", {"precision": "bf16"}),
    ]
    what = {"train": "state U-Net", "image": "image policy, from disk"}[part]
    print(f"\n{what}, batches of {BATCH_SIZE[part]}, {options.threads} threads\n")
    print("| training | steps/s | s/step | ratio | CPU-s/step | ratio |\n|---|---|---|---|---|---|")
    rows = measure(rows, part, folder, options)
    base = rows[0].medians()
    for row in rows:
        m = row.medians()
        print(
            f"| {row.name} | {1 / m.wall_s:.3f} | {m.wall_s:.2f} | {base.wall_s / m.wall_s:.2f} "
            f"| {m.cpu_s:.2f} | {base.cpu_s / m.cpu_s:.2f} |",
            flush=True,
        )


def predict_rows(n_rows: int, *, compiled: bool) -> Iterator[Row]:
    """Every way to draw a chunk; the first is the one to compare with."""

    def request(solver: str, steps: int, **more: Any) -> dict[str, Any]:
        return {"policy": "unet", "solver": solver, "steps": steps, "rows": n_rows, **more}

    yield Row("the original's way, DDPM 100", "original", request("ddpm", 100))
    yield Row("LeRobot 0.4.4, DDPM 100", "lerobot", request("ddpm", 100))
    yield Row("LeRobot 0.4.4, DDIM 10", "lerobot", request("ddim", 10))
    solvers = [("ddpm", 100), ("ddim", 16), ("ddim", 10), ("ddim", 8)]
    solvers += [("dpmsolver++", 10), ("dpmsolver++", 8), ("dpmsolver++", 5)]
    for solver, steps in solvers:
        name = {"ddpm": "DDPM", "ddim": "DDIM", "dpmsolver++": "DPM-Solver++"}[solver]
        yield Row(f"dp_hub, {name} {steps}", "ours", request(solver, steps))
        if steps in (8, 10, 100):
            row = request(solver, steps, precision="bf16")
            yield Row(f"dp_hub, {name} {steps}, bf16", "ours", row)
        if compiled and (solver, steps) == ("ddim", 10):
            row = request(solver, steps, precision="compiled")
            yield Row(f"dp_hub, {name} {steps}, compiled", "ours", row)
    mlp = request("euler", 16) | {"policy": "mlp"}
    yield Row("dp_hub, MLP, flow matching 16", "ours", mlp)


def predict(folder: Path, options: argparse.Namespace, n_rows: int) -> None:
    print(f"\npredict_action of {n_rows}, {options.threads} threads\n")
    print("| predicting | ms | ratio | CPU-ms | ratio |\n|---|---|---|---|---|")
    rows = list(predict_rows(n_rows, compiled=options.compile))
    rows = measure(rows, "predict", folder, options)
    base = rows[0].medians()
    for row in rows:
        m = row.medians()
        print(
            f"| {row.name} | {1000 * m.wall_s:,.1f} | {base.wall_s / m.wall_s:,.1f} "
            f"| {1000 * m.cpu_s:,.1f} | {base.cpu_s / m.cpu_s:,.1f} |",
            flush=True,
        )


def startup(folder: Path, options: argparse.Namespace) -> None:
    bin_, load = Path(sys.executable).parent, "from dp_hub.policies.saving import load_policy"
    commands = {}
    if options.lerobot_python:
        lerobot = Path(options.lerobot_python).parent / "lerobot-train"
        commands["`lerobot-train --help`"] = [str(lerobot), "--help"]
    commands |= {
        "`import torch`": [sys.executable, "-c", "import torch"],
        "`dp-hub --help`": [str(bin_ / "dp-hub"), "--help"],
        "`dp-hub eval --help`": [str(bin_ / "dp-hub"), "eval", "--help"],
        "`import dp_hub`": [sys.executable, "-c", "import dp_hub"],
        "`load_policy` of the state U-Net, import included": [
            sys.executable,
            "-c",
            f"{load}; load_policy({str(folder / 'unet')!r})",
        ],
    }
    print("\n| starting up | s | CPU-s |\n|---|---|---|")
    spent: dict[str, list[Spent]] = {name: [] for name in commands}
    for round_ in range(options.rounds + 1):
        for name, command in commands.items():
            one = of_process(command)
            if round_ > 0:
                spent[name].append(one)
    for name, rounds in spent.items():
        m = Row(name, "", {}, rounds).medians()
        print(f"| {name} | {m.wall_s:.2f} | {m.cpu_s:.2f} |", flush=True)


def of_process(command: list[str]) -> Spent:
    """What a command took, from start to end."""

    def cpu_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    wall, cpu = time.perf_counter(), cpu_s()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Spent(time.perf_counter() - wall, cpu_s() - cpu)


if __name__ == "__main__":
    main()
