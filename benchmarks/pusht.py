"""PushT's speed against gym-pusht 0.1.8, on the same actions, in the same run, equality checked.

    python benchmarks/pusht.py --peer-python PATH [--steps 4000] [--rounds 5]

PATH is the Python of an environment of its own with the peer in it:

    python -m venv peer && peer/bin/pip install gym-pusht==0.1.8 "pymunk<7"

Both sides step the same real start states with the same contact-rich actions, in turn, round by
round, one process each, on one core; times are CPU time. States must be equal to the last bit and
frames to the last pixel (drawn with the installed pygame's polygons, as the peer's are; its pygame
must be ours). Prints a Markdown table to stdout.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

# Runs in the peer's Python: reads actions, steps, answers with times and what it saw.
PEER = """
import json, sys, time
import numpy as np
import cv2
from gym_pusht.envs.pusht import PushTEnv

cv2.setNumThreads(1)
source, target = sys.argv[1:3]
given = np.load(source)
envs = {kind: PushTEnv(obs_type=kind, render_mode="rgb_array") for kind in ("state", "pixels")}
for line in sys.stdin:
    kind = line.strip()
    env, seen, spent = envs[kind], [], 0.0
    for start, actions in zip(given["starts"], given["actions"]):
        env.reset(options={"reset_to_state": start})
        began = time.process_time()
        for action in actions:
            observation, reward, *_ = env.step(action)
            seen.append(observation)
        spent += time.process_time() - began
    np.save(target, np.array(seen))
    print(json.dumps(spent), flush=True)
"""


class Peer:
    """The other side, waiting in a process of its own."""

    def __init__(self, python: Path, actions: Path, seen: Path) -> None:
        command = [str(python), "-c", PEER, str(actions), str(seen)]
        self._seen = seen
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, kind: str) -> tuple[float, np.ndarray]:
        """CPU seconds of all steps, and every observation."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{kind}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if not line.startswith(("pygame", "Hello")):
                return float(json.loads(line)), np.load(self._seen)
        sys.exit("the peer ended; is gym-pusht 0.1.8 with pymunk<7 in its environment?")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def draw_actions(n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Start states (n, 5) of the paper's test seeds, and actions (n, 200, 2) round the T."""
    from dp_hub.envs.pusht.physics import PushTPhysics, start_state

    rng, table = np.random.default_rng(0), PushTPhysics()
    starts, actions = [], []
    for seed in range(100_000, 100_000 + max(1, n_steps // 200)):
        table.reset(seed)
        target, episode = table.state()[:2], []
        for step in range(200):
            if step % 6 == 0:
                goal = np.clip(table.state()[2:4] + rng.normal(0, 70, 2), 20, 490)
            target = target + np.clip(goal - target, -15, 15)
            table.step(*target)
            episode.append(target)
        starts.append(start_state(seed))
        actions.append(episode)
    return np.array(starts), np.array(actions)


Runner = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]


def ours_gymnasium(kind: str) -> Runner:
    """The gymnasium environment, as a user steps it."""
    from dp_hub.envs.pusht.drawing import PushTDrawing
    from dp_hub.envs.pusht.env import PushTEnv

    env: Any = PushTEnv(obs_type=kind, drawing=PushTDrawing(fill="pygame"))  # type: ignore[arg-type]

    def run(starts: np.ndarray, actions: np.ndarray) -> tuple[float, np.ndarray]:
        seen, spent = [], 0.0
        for start, episode in zip(starts, actions, strict=True):
            env.reset(options={"reset_to_state": start})
            began = time.process_time()
            for action in episode:
                seen.append(env.step(action)[0])
            spent += time.process_time() - began
        return spent, np.array(seen)

    return run


def ours_vector(kind: str) -> Runner:
    """All episodes at once, as an evaluation steps them."""
    from dp_hub.envs.pusht.drawing import PushTDrawing
    from dp_hub.envs.pusht.vector import PushTVector

    name = {"state": "observation.state", "pixels": "observation.image"}[kind]
    px = 96 if kind == "pixels" else None
    drawing = PushTDrawing(fill="pygame")

    def run(starts: np.ndarray, actions: np.ndarray) -> tuple[float, np.ndarray]:
        tables = PushTVector(len(starts), render_px=px, drawing=drawing)
        tables.reset(range(100_000, 100_000 + len(starts)))
        seen = []
        began = time.process_time()
        for step in range(actions.shape[1]):
            seen.append(tables.step(actions[:, step])[0][name])
        spent = time.process_time() - began
        return spent, np.stack(seen, axis=1).reshape(-1, *seen[0].shape[1:])

    return run


def main() -> None:
    options = parse()
    starts, actions = draw_actions(options.steps)
    n = actions.shape[0] * actions.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        given, seen = Path(folder) / "given.npz", Path(folder) / "seen.npy"
        np.savez(given, starts=starts, actions=actions)
        peer = Peer(options.peer_python, given, seen)
        print(f"{n} steps, {options.rounds} rounds in turn, median CPU time\n")
        print("| observation | which | us/step | steps/s | times gym-pusht | equal to it |")
        print("|---|---|---|---|---|---|", flush=True)
        for kind in ("state", "pixels"):
            compare(kind, peer, starts, actions, options.rounds)
        peer.close()


def compare(kind: str, peer: Peer, starts: np.ndarray, actions: np.ndarray, rounds: int) -> None:
    """One row for the peer and one for each of ours."""
    runners = {"PushT-v0": ours_gymnasium(kind), "PushTVector": ours_vector(kind)}
    n = actions.shape[0] * actions.shape[1]
    times: dict[str, list[float]] = {name: [] for name in ("gym-pusht", *runners)}
    equal = dict.fromkeys(runners, True)
    for turn in range(rounds + 1):  # the first is to warm up
        spent, expected = peer.run(kind)
        found = {"gym-pusht": spent}
        for name, run in runners.items():
            found[name], observed = run(starts, actions)
            equal[name] &= bool(np.array_equal(observed, expected))
        for name, seconds in found.items():
            times[name] += [seconds] if turn else []
    base = median(times["gym-pusht"])
    for name, seconds in times.items():
        mid = median(seconds)
        same = "" if name == "gym-pusht" else ("yes" if equal[name] else "NO")
        cells = f"{mid / n * 1e6:.1f} | {n / mid:,.0f} | {base / mid:.1f} | {same}"
        print(f"| {kind} | {name} | {cells} |", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--peer-python", type=Path, required=True, help="see the file's head")
    parser.add_argument("--steps", type=int, default=4000, help="in all, 200 an episode")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
