"""How fast and how small: writing the PushT demonstrations as a dataset, ours and LeRobot's.

    python benchmarks/convert.py pusht_cchi_v7_replay.zarr.zip [--episodes N]
        [--lerobot-python PATH] [--repeat N]

Every run is a process of its own. Frames per CPU-second count user and system time of the whole
process with all its threads, once with start-up and imports ("command"), once without ("writing").
LeRobot is measured where ``--lerobot-python`` names an interpreter that has it; it is given the
same arrays already decoded, we read and decode the zarr ourselves.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Not ru_maxrss, which a process inherits from the one that started it.
PEAK = """
def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
"""

OURS = (
    PEAK
    + """
import json, sys, time
began = time.process_time()
from dp_hub.dataset import convert, writer
import dp_hub_converters.zarr
source, target, kind, episodes = sys.argv[1:5]
if int(episodes):
    from dp_hub.replay.buffer import ReplayBuffer
    whole = ReplayBuffer._checked_ends
    ReplayBuffer._checked_ends = lambda self: whole(self)[: int(episodes)]
    ReplayBuffer._check_lengths = lambda self: None
cpu, wall = time.process_time(), time.perf_counter()
options = {"drop": ["img"]} if kind == "low-dim" else {"images": kind.split()[0]}
if kind.startswith("video"):
    options["codec"] = kind.split()[1]
done = convert.convert("zarr", source, target, **options)
print(json.dumps({
    "frames": done.written.n_frames,
    "wall": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu,
    "cpu_all": time.process_time(),
    "mb": done.written.n_bytes / 1e6,
    "rss": peak_mb(),
}))
"""
)

LEROBOT = (
    PEAK
    + """
import json, resource, sys, time
import numpy as np
from pathlib import Path
from lerobot.datasets.lerobot_dataset import LeRobotDataset
folder, target, kind = sys.argv[1:4]
arrays = {p.stem: np.load(p, mmap_mode="r") for p in Path(folder).glob("*.npy")}
ends = arrays.pop("episode_ends")
names = {"action": "action", "state": "observation.state",
         "keypoint": "observation.environment_state", "n_contacts": "n_contacts"}
features = {}
for key, name in names.items():
    size = int(np.prod(arrays[key].shape[1:]))
    names_ = [f"{key}_{i}" for i in range(size)]
    features[name] = {"dtype": "float32", "shape": (size,), "names": names_}
if kind != "low-dim":
    features["observation.image"] = {"dtype": "video" if kind == "video" else "image",
        "shape": (96, 96, 3), "names": ["height", "width", "channels"]}
cpu, wall = time.process_time(), time.perf_counter()
children = resource.getrusage(resource.RUSAGE_CHILDREN)
dataset = LeRobotDataset.create("me/bench", fps=10, features=features, root=target,
    use_videos=kind == "video")
start = 0
for stop in ends.tolist():
    low = {n: np.ascontiguousarray(arrays[k][start:stop]).reshape(stop - start, -1)
           for k, n in names.items()}
    pictures = None if kind == "low-dim" else np.ascontiguousarray(arrays["img"][start:stop])
    for i in range(stop - start):
        frame = {name: values[i] for name, values in low.items()}
        if pictures is not None:
            frame["observation.image"] = pictures[i]
        dataset.add_frame(frame | {"task": "push"})
    dataset.save_episode()
    start = stop
dataset.finalize()
after = resource.getrusage(resource.RUSAGE_CHILDREN)
kids = (after.ru_utime + after.ru_stime) - (children.ru_utime + children.ru_stime)
print(json.dumps({
    "frames": int(start),
    "wall": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu + kids,
    "cpu_all": time.process_time() + kids,
    "mb": sum(p.stat().st_size for p in Path(target).rglob("*") if p.is_file()) / 1e6,
    "rss": peak_mb(),
}))
"""
)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--episodes", type=int, default=0, help="only the first so many (0: all)")
    parser.add_argument("--lerobot-python", type=Path, help="an interpreter that has lerobot")
    parser.add_argument("--repeat", type=int, default=1, help="keep the best of so many runs")
    parser.add_argument(
        "--kinds", nargs="+", default=["low-dim", "webp", "png"],
        help='of: low-dim, webp, png, "video h264", "video av1"',
    )  # fmt: skip
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        theirs = {}
        if options.lerobot_python:
            arrays = _arrays(options.source, folder / "arrays", options.episodes)
            python = str(options.lerobot_python)
            kinds = {kind.split()[0].replace("webp", "png") for kind in options.kinds}
            for kind in sorted(kinds):
                command = [python, "-c", LEROBOT, str(arrays), str(folder / "theirs"), kind]
                theirs[kind] = _best(command, folder / "theirs", options.repeat)
        ours = {}
        for kind in options.kinds:
            command = [sys.executable, "-c", OURS, str(options.source), str(folder / "ours")]
            command += [kind, str(options.episodes)]
            ours[kind] = _best(command, folder / "ours", options.repeat)
    print(_markdown(ours, theirs))


def _arrays(source: Path, folder: Path, episodes: int) -> Path:
    """The source's arrays as .npy files, pictures as uint8."""
    import numpy as np

    from dp_hub.replay.buffer import open_replay

    folder.mkdir()
    buffer = open_replay(source)
    ends = buffer.episode_ends[: episodes or None]
    np.save(folder / "episode_ends.npy", ends)
    for key in buffer:
        dtype = np.uint8 if key == "img" else buffer.dtype(key)
        shape = (int(ends[-1]), *buffer.shape(key))
        out = np.lib.format.open_memmap(folder / f"{key}.npy", mode="w+", dtype=dtype, shape=shape)
        start = 0
        for stop, episode in zip(ends, buffer.episodes([key], compact=["img"]), strict=False):
            out[start:stop] = episode[key]
            start = stop
    return folder


def _best(command: list[str], target: Path, repeat: int) -> dict[str, Any]:
    import shutil

    runs = []
    for _ in range(repeat):
        shutil.rmtree(target, ignore_errors=True)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command[:1])} failed:\n{done.stderr[-3000:]}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return min(runs, key=lambda run: run["cpu"])


def _markdown(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| writer | frames | wall s | frames/CPU-s, writing | with start-up | MB | peak RSS MB |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_row(f"LeRobot, {kind}", run) for kind, run in theirs.items()]
    lines += [_row(f"dp_hub, {kind}", run) for kind, run in ours.items()]
    lines.append("")
    for kind, run in ours.items():
        other = theirs.get(kind.split()[0].replace("webp", "png"))
        if other:
            speed = (run["frames"] / run["cpu"]) / (other["frames"] / other["cpu"])
            whole = (run["frames"] / run["cpu_all"]) / (other["frames"] / other["cpu_all"])
            size = run["mb"] / other["mb"]
            lines.append(
                f"{kind}: {speed:.1f} times LeRobot's frames per CPU-second "
                f"({whole:.1f} with start-up), {size:.2f} of its size"
            )
    return "\n".join(lines)


def _row(name: str, run: dict[str, Any]) -> str:
    return (
        f"| {name} | {run['frames']:,} | {run['wall']:.1f} | {run['frames'] / run['cpu']:,.0f} | "
        f"{run['frames'] / run['cpu_all']:,.0f} | {run['mb']:.1f} | {run['rss']:.0f} |"
    )


if __name__ == "__main__":
    main()
