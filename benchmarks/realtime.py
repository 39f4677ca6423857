"""What latency costs a policy on a robot: its score in real time, with and without compensation.

    python benchmarks/realtime.py score POLICY --out DIR [--episodes 50] [--at-once 4]
    python benchmarks/realtime.py plot DIR --image docs/images/latency.png
    python benchmarks/realtime.py jitter POLICY --out DIR [--minutes 10]
    python benchmarks/realtime.py record POLICY --out DIR [--episodes 20]
    python benchmarks/realtime.py chunks POLICY --out DIR [--episodes 50] [--latency 200]

POLICY is a folder or user/name[@revision]. ``score`` runs ``dp-hub rollout POLICY --robot pusht``,
which is 10 actions a second, a controller of 100 Hz and a camera of 30 Hz in shared memory, over
seeds 100000 and up: answers come the given ms later than they would (on top of what inference
takes), with compensation (``--timing observed``: an action is due when its observation says, past
ones are dropped) and without (``arrival``: the first is due when it comes, as naive code does). The
offline evaluation of the same seeds is the limit. ``--at-once`` settings share the machine; with
SCHED_FIFO, where permitted, they do not disturb one another as long as there are cores.

``jitter`` drives episodes for the given minutes twice, with SCHED_FIFO and without, and tells how
late the controller's ticks were. ``record`` records episodes, and tells how many frames are farther
than half a period from the values that they hold. ``chunks`` drives the same seeds with every way
in which a chunk can follow the one before while answers come late, and tells the score and how
smooth the recorded actions are.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dp_hub import open_dataset
from dp_hub.robot.config import find_robot

SEED = 100_000
CHUNKS = {
    "replace": (),
    "replace, asked ahead": ("--ahead", "auto"),
    "blend, asked ahead": ("--ahead", "auto", "--merge", "blend"),
    "ensemble, asked ahead": ("--ahead", "auto", "--merge", "ensemble"),
    "inpaint": ("--chunking", "inpaint"),
    "guidance": ("--chunking", "guidance"),
}
"""How a chunk follows the one before; `dp-hub rollout --help`."""
TIMINGS = ("observed", "arrival")


@dataclass(frozen=True)
class Setting:
    """One row: an injected latency, and whether it is compensated."""

    latency_ms: int
    timing: str

    @property
    def name(self) -> str:
        return f"{self.timing}_{self.latency_ms}"

    def command(self, policy: str, episodes: int, out: Path, more: Sequence[str]) -> list[str]:
        return [
            *("dp-hub", "rollout", policy, "--robot", "pusht", "--episodes", str(episodes)),
            *("--seed", str(SEED), "--delay-ms", str(self.latency_ms), "--timing", self.timing),
            *("--json", str(out / f"{self.name}.json"), "--no-view", *more),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    score = parts.add_parser("score")
    score.add_argument("policy")
    score.add_argument("--out", type=Path, required=True)
    score.add_argument("--episodes", type=int, default=50)
    score.add_argument("--at-once", type=int, default=4)
    score.add_argument("--latencies", type=int, nargs="+", default=[0, 50, 100, 200])
    score.add_argument("--more", default="", help="further options of `dp-hub rollout`")
    drawn = parts.add_parser("plot")
    drawn.add_argument("out", type=Path)
    drawn.add_argument("--image", type=Path, required=True)
    jitter = parts.add_parser("jitter")
    jitter.add_argument("policy")
    jitter.add_argument("--out", type=Path, required=True)
    jitter.add_argument("--minutes", type=float, default=10.0)
    record = parts.add_parser("record")
    record.add_argument("policy")
    record.add_argument("--out", type=Path, required=True)
    record.add_argument("--episodes", type=int, default=20)
    chunks = parts.add_parser("chunks")
    chunks.add_argument("policy")
    chunks.add_argument("--out", type=Path, required=True)
    chunks.add_argument("--episodes", type=int, default=50)
    chunks.add_argument("--latency", type=int, default=200, help="injected, ms")
    chunks.add_argument("--at-once", type=int, default=3)
    chunks.add_argument("--more", default="", help="further options of `dp-hub rollout`")
    args = parser.parse_args()
    if args.part == "score":
        run_scores(args)
    elif args.part == "chunks":
        run_chunks(args)
    elif args.part == "record":
        run_record(args)
    elif args.part == "plot":
        plot(args.out, args.image)
    else:
        run_jitter(args)


def run_scores(args: argparse.Namespace) -> None:
    """Every setting that has no result yet, some at once; then the table."""
    args.out.mkdir(parents=True, exist_ok=True)
    offline = args.out / "offline.json"
    if not offline.exists():
        run(["dp-hub", "eval", args.policy, "--episodes", str(args.episodes), "--json", offline])
    settings = [Setting(ms, timing) for ms in args.latencies for timing in TIMINGS]
    more = shlex.split(args.more)
    commands = {
        one.name: one.command(args.policy, args.episodes, args.out, more) for one in settings
    }
    run_missing(commands, args.out, at_once=args.at_once)
    print(table(args.out))


def run_missing(commands: Mapping[str, Sequence[str]], out: Path, *, at_once: int) -> None:
    """Those whose NAME.json is not there yet, some at once, with a NAME.log each."""
    waiting = [name for name in commands if not (out / f"{name}.json").exists()]
    running: dict[str, subprocess.Popen[bytes]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            name = waiting.pop(0)
            print(shlex.join(commands[name]), flush=True)
            with (out / f"{name}.log").open("wb") as log:
                running[name] = subprocess.Popen(started(commands[name]), stdout=log, stderr=log)
        for name, process in list(running.items()):
            if process.poll() is not None:
                del running[name]
                if process.returncode:
                    sys.exit(f"{name} failed: see {out / name}.log")
        time.sleep(0.5)


def run_chunks(args: argparse.Namespace) -> None:
    """Score and smoothness of every way in which chunks can follow one another, as Markdown."""
    args.out.mkdir(parents=True, exist_ok=True)
    robot = args.out / "no_camera.yaml"
    values = yaml.safe_load(find_robot("pusht").read_text()) | {"cameras": {}}
    del values["observations"]["observation.image"]  # its frames would be encoded beside
    robot.write_text(yaml.safe_dump(values))
    shared = ["--robot", str(robot), "--episodes", str(args.episodes), "--seed", str(SEED)]
    shared += ["--delay-ms", str(args.latency), "--raw", "none", "--no-view"]
    names = {way: way.replace(", ", "_").replace(" ", "_") for way in CHUNKS}
    commands = {
        names[way]: [
            *("dp-hub", "rollout", args.policy, *shared, *words, *shlex.split(args.more)),
            *("--record", str(args.out / names[way])),
            *("--json", str(args.out / f"{names[way]}.json")),
        ]
        for way, words in CHUNKS.items()
    }
    run_missing(commands, args.out, at_once=args.at_once)
    print("| a chunk follows by | mean max reward | success | observation to motion | jump, px |")
    print("|---|---|---|---|---|")
    for way in CHUNKS:
        result = json.loads((args.out / f"{names[way]}.json").read_text())
        metrics, late = result["metrics"], result["driven"]["lateness"]
        print(
            f"| {way} | {told(metrics['mean_max_reward'])} | {told(metrics['success_rate'])} "
            f"| {1000 * late['latency_sum_s'] / late['answers']:.0f} ms "
            f"| {jump_px(args.out / names[way]):.2f} |"
        )


def jump_px(dataset: Path) -> float:
    """Root mean square of how much the step from an action to the next one changes."""
    recorded = open_dataset(dataset)
    actions, squares = recorded.column("action"), []
    for start, end in zip(recorded.episodes.starts, recorded.episodes.stops, strict=True):
        change = np.diff(np.asarray(actions[start:end], np.float64), n=2, axis=0)
        squares.append((change**2).sum(axis=1))
    return float(np.sqrt(np.concatenate(squares).mean()))


def run(command: Sequence[Any]) -> None:
    words = [str(word) for word in command]
    print(shlex.join(words), flush=True)
    subprocess.run(started(words), check=True, stdout=subprocess.DEVNULL)


def started(words: Sequence[str]) -> list[str]:
    """A `dp-hub` command by the Python that runs this."""
    return [sys.executable, "-c", "from dp_hub.cli.main import main; main()", *words[1:]]


def results(out: Path) -> dict[Setting, dict[str, Any]]:
    """What there is, by setting."""
    found = {}
    for timing in TIMINGS:
        for path in out.glob(f"{timing}_*.json"):
            setting = Setting(int(path.stem.rpartition("_")[2]), timing)
            found[setting] = json.loads(path.read_text())
    return dict(sorted(found.items(), key=lambda item: (item[0].latency_ms, item[0].timing)))


def table(out: Path) -> str:
    """All settings beside the offline evaluation, as Markdown."""
    offline = json.loads((out / "offline.json").read_text())["metrics"]
    lines = [
        "| injected | compensated | mean max reward | success | observation to motion "
        "| late answers | past actions |",
        "|---|---|---|---|---|---|---|",
        f"| offline | | {told(offline['mean_max_reward'])} | {told(offline['success_rate'])} "
        "| 0 | | |",
    ]
    for one, result in results(out).items():
        metrics, late = result["metrics"], result["driven"]["lateness"]
        lines.append(
            f"| {one.latency_ms} ms | {'yes' if one.timing == 'observed' else 'no'} "
            f"| {told(metrics['mean_max_reward'])} | {told(metrics['success_rate'])} "
            f"| {1000 * late['latency_sum_s'] / late['answers']:.0f} ms "
            f"| {late['late']} of {late['answers']} | {late['dropped']} |"
        )
    return "\n".join(lines)


def told(interval: dict[str, float]) -> str:
    return f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def plot(out: Path, image: Path) -> None:
    """Score over latency, a line with compensation and one without."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    offline = json.loads((out / "offline.json").read_text())["metrics"]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    shown = {"mean_max_reward": ("mean maximum reward", 0.85), "success_rate": ("success", 0.4)}
    lines = (("observed", "compensated", -2), ("arrival", "not compensated", 2))
    for axis, (name, (title, low)) in zip(axes, shown.items(), strict=True):
        axis.axhline(offline[name]["value"], color="0.5", linestyle="--", label="offline")
        for timing, label, beside_ms in lines:
            found = [
                (setting.latency_ms + beside_ms, result["metrics"][name])
                for setting, result in results(out).items()
                if setting.timing == timing
            ]
            ms, value = [at for at, _ in found], [one["value"] for _, one in found]
            below = [one["value"] - one["low"] for _, one in found]
            above = [one["high"] - one["value"] for _, one in found]
            axis.errorbar(ms, value, yerr=(below, above), marker="o", capsize=3, label=label)
        axis.set(title=title, xlabel="injected latency, ms", ylim=(low, 1.01))
    axes[0].legend(loc="lower left")
    figure.savefig(image, dpi=110)
    print(f"wrote {image}")


def run_jitter(args: argparse.Namespace) -> None:
    """Episodes with the policy running, with SCHED_FIFO and without; a line for each."""
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for option in ("--realtime", "--no-realtime"):
        reports = []
        until_s = time.monotonic() + 60 * args.minutes
        while (left_s := until_s - time.monotonic()) > 0:
            file = args.out / "jitter.json"
            command = ["dp-hub", "rollout", args.policy, "--robot", "pusht", "--no-view", option]
            episodes = str(max(1, round(left_s / 30)))
            run([*command, "--episodes", episodes, "--seed", "300000", "--json", file])
            reports.append(json.loads(file.read_text())["counts"]["arm"])
        rows.append(
            {
                "option": option,
                "ticks": sum(one["ticks"] for one in reports),
                "missed": sum(one["missed"] for one in reports),
                "latest_ms": max(one["latest_ms"] for one in reports),
                **shares(
                    [sum(all_) for all_ in zip(*(r["late_ticks"] for r in reports), strict=True)]
                ),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    (args.out / "jitter_rows.json").write_text(json.dumps(rows, indent=1))


def shares(late: Sequence[float]) -> dict[str, float]:
    """Share of ticks within 1 ms, and the bounds that 50, 99 and 99.9 % keep."""
    from dp_hub.robot.motion.reporting import EDGES_S

    total, seen, bounds = sum(late), 0.0, {}
    within = sum(late[: EDGES_S.index(0.001) + 1]) / total
    for edge, count in zip([*EDGES_S, float("inf")], late, strict=True):
        seen += count
        for share in (0.5, 0.99, 0.999):
            if seen >= share * total:
                bounds.setdefault(f"p{100 * share:g}_ms", 1000 * edge)
    return {"within_1_ms": within, **bounds}


def run_record(args: argparse.Namespace) -> None:
    """Record episodes both ways, and look how far frames are from their values."""
    args.out.mkdir(parents=True, exist_ok=True)
    for option in ("--realtime", "--no-realtime"):
        to = args.out / f"recorded{option[1:]}"
        command = ["dp-hub", "rollout", args.policy, "--robot", "pusht", "--no-view", option]
        run([*command, "--episodes", str(args.episodes), "--seed", "400000", "--record", to])
        dataset = open_dataset(to)
        off = [facts.get("off_grid", {}) for facts in dataset.episodes.metadata]
        features = sorted({name for one in off for name in one})
        told = {name: sum(one.get(name, 0) for one in off) for name in features}
        lost = [
            facts["not_recorded"] for facts in dataset.episodes.metadata if "not_recorded" in facts
        ]
        print(
            f"{option}: {dataset.n_episodes} episodes, {dataset.n_frames} frames; farther than "
            f"half a period from their values: {told or 'none'}; not recorded: {lost or 'nothing'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
