"""What survives: a writer killed at random, and single bytes flipped in a pulled dataset.

    python benchmarks/trust.py [--kills 200] [--flips 200] [--seed 0]

Kills: a process writes 40 episodes with pictures (64 px), each durable when `add_episode` returns,
and gets SIGKILL at a random moment; then another goes on in the same folder, until it finishes.
After every kill the folder must open and hold every episode whose writing had returned, unchanged.

Flips: the dataset is pushed to a small Hub and pulled from it; a random byte of a random file of it
is changed; `pull` (by its checksums of every file) and `check` (meta/checksums.json) look for it.
Prints a Markdown table.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dp_hub.dataset.checksums import read_checksums, verify
from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.reader import open_dataset
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.errors import DpHubError
from dp_hub.replay.episode import Episode

N_EPISODES = 40


def episode(number: int) -> Episode:
    """Episode ``number``, the same every time."""
    rng = np.random.default_rng(number)
    length = int(rng.integers(5, 40))
    shades = rng.integers(0, 256, (length, 8, 8, 3)).astype(np.uint8)
    return Episode(
        {
            "action": rng.normal(size=(length, 7)).astype(np.float32),
            "img": shades.repeat(8, axis=1).repeat(8, axis=2),
        },
        task=f"task {number % 3}",
    )


def write(folder: Path, tell: Callable[[str], object] = lambda line: None) -> None:
    """Write the dataset, or go on with it, telling every episode that is durable."""
    if folder.exists():
        writer = DatasetWriter.resume(folder, threads=1)
    else:
        writer = DatasetWriter(folder, plan_columns(episode(0).data), fps=10, threads=1)
    with writer:
        for number in range(writer.n_episodes, N_EPISODES):
            writer.add_episode(episode(number))
            tell(f"{number}\n")
        writer.finish()
    tell("finished\n")


def serve_trials() -> None:
    """Fork a writer for every folder named on stdin; forking saves the imports."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            write(Path(line.strip()), lambda text: os.write(1, text.encode()))
            os._exit(0)
        print("pid", child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


def trial(forge: subprocess.Popen, folder: Path, kill_after_s: float | None) -> tuple[int, bool]:
    """Let a process write; how many episodes it reported, and whether it finished."""
    assert forge.stdin is not None and forge.stdout is not None
    forge.stdin.write(f"{folder}\n")
    forge.stdin.flush()
    pid = int(forge.stdout.readline().split()[1])
    timer = threading.Timer(kill_after_s or 1e6, os.kill, (pid, signal.SIGKILL))
    timer.daemon = True
    timer.start()
    n_reported, finished = 0, False
    while (line := forge.stdout.readline().strip()) != "ended":
        finished |= line == "finished"
        n_reported = n_reported if line == "finished" else int(line) + 1
    timer.cancel()
    timer.join()
    return n_reported, finished


def measure_kills(root: Path, n_kills: int, seed: int) -> dict[str, int]:
    """Kill ``n_kills`` writers."""
    command = [sys.executable, __file__, "--trials"]
    forge = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    began = time.monotonic()
    trial(forge, root / "whole", None)
    took_s = time.monotonic() - began
    whole = {p.relative_to(root / "whole"): p.read_bytes() for p in files(root / "whole")}
    rng = np.random.default_rng(seed)
    result = dict.fromkeys(("kills", "unreadable", "lost", "finished", "not bit-equal"), 0)
    folder, n_done = root / "ds0", 0
    while result["kills"] < n_kills:
        n_reported, finished = trial(forge, folder, float(rng.uniform(0, took_s)))
        result["kills"] += not finished
        n_done = max(n_done, n_reported)
        if n_done or folder.exists():
            unreadable, lost = look(folder, n_done)
            result["unreadable"] += unreadable
            result["lost"] += lost
        if finished:
            found = {p.relative_to(folder): p.read_bytes() for p in files(folder)}
            result["finished"] += 1
            result["not bit-equal"] += found != whole
            shutil.rmtree(folder)
            folder, n_done = root / f"ds{result['finished']}", 0
    assert forge.stdin is not None
    forge.stdin.close()
    forge.wait()
    return result


def look(folder: Path, n_done: int) -> tuple[int, int]:
    """Whether the folder cannot be opened, and how many finished episodes it lacks or changed."""
    try:
        dataset = open_dataset(folder)
        actions = dataset.column("action")
    except DpHubError:
        return 1, n_done
    index = dataset.episodes
    right = [
        np.array_equal(actions[index.starts[i] : index.stops[i]], episode(i).data["action"])
        for i in range(dataset.n_episodes)
    ]
    return 0, max(0, n_done - sum(right))


def measure_flips(root: Path, n_flips: int, seed: int) -> dict[str, int]:
    """Flip ``n_flips`` bytes, one at a time."""
    from dp_hub.hub import LocalHub

    write(root / "mine")
    with LocalHub(root / "hub") as hub:
        os.environ |= {**hub.env, "HF_HOME": str(root / "home")}
        from dp_hub.hub import pull, push, verify_folder

        push(root / "mine", "me/data", license="mit")
        folder = pull("me/data", to=root / "pulled").path
    paths = [p for p in files(folder) if ".dp_hub" not in p.parts]
    rng = np.random.default_rng(seed)
    result = dict.fromkeys(("flips", "by pull", "by check", "missed"), 0)
    for _ in range(n_flips):
        path = paths[rng.integers(len(paths))]
        data = bytearray(path.read_bytes())
        whole = bytes(data)
        data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(data))
        by_pull, by_check = bool(verify_folder(folder)), bool(damages(folder))
        result["flips"] += 1
        result["by pull"] += by_pull
        result["by check"] += by_check
        result["missed"] += not (by_pull or by_check)
        path.write_bytes(whole)
    return result


def damages(folder: Path) -> bool:
    try:
        sums = read_checksums(folder)
    except DpHubError:
        return True
    return sums is None or bool(verify(folder, sums))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trials:
        serve_trials()
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        kills = measure_kills(root, options.kills, options.seed)
        flips = measure_flips(root, options.flips, options.seed)
    print("| | |\n|---|---|")
    for values in (kills, flips):
        for key, value in values.items():
            print(f"| {key} | {value} |")


if __name__ == "__main__":
    main()
