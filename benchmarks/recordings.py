"""How fast recordings become datasets, and in how much memory.

    python benchmarks/recordings.py [video] [copy] [small] [memory] [--workers 1 2] [--repeat N]
        [--frames N] [--episodes N] [--gigabytes N]

video   A LeRobot dataset whose videos have frames that depend on later ones (what plain ffmpeg
        makes) is encoded again; beside it ffmpeg's own libraries decode and encode the same files
        with the same settings in one process on the same cores, without turning frames into RGB,
        hashing or measuring anything; and the ffmpeg program, if there is one.
copy    The same dataset with videos that can be copied, beside reading and writing the files.
small   Many small episodes in every format of rows, beside the writer alone, which is given the
        same episodes from memory.
memory  A source of many gigabytes of pictures, made while it is read; the peak of all processes.

Every run is a process of its own, and what is compared runs in turns, so that a busy machine is
busy for both; the best of each counts. Work per CPU-second counts user and system time of all
processes: it says more on a machine that others use too. Its load is printed with the results.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
HEIGHT, WIDTH, FPS = 480, 640, 30


def main() -> None:
    """Measure and print Markdown tables."""
    if len(sys.argv) > 2 and sys.argv[1] == "--child":
        CHILDREN[sys.argv[2]](*sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--workers", nargs="+", default=["1", "2"])
    parser.add_argument("--codecs", nargs="+", default=["h264", "av1"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--frames", type=int, default=300, help="of an episode, video and copy")
    parser.add_argument("--videos", type=int, default=4, help="episodes, video and copy")
    parser.add_argument("--times", type=int, default=10, help="copy: the same episodes again")
    parser.add_argument("--episodes", type=int, default=1000, help="small")
    parser.add_argument("--formats", nargs="*", help="small: these only")
    parser.add_argument("--gigabytes", type=float, default=12.0, help="memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for part in options.parts:
            print(f"\n### {part} ({_machine()})\n", flush=True)
            for line in PARTS[part](Path(name), options):
                print(line, flush=True)


def video(folder: Path, options: argparse.Namespace) -> Any:
    """Encoding again, beside ffmpeg."""
    source = folder / "reordered"
    _child("make-videos", source, options.frames, options.videos, "reordered")
    yield "| codec | who | frames/s | of ffmpeg's | frames/CPU-s | of ffmpeg's |"
    yield "|---|---|---|---|---|---|"
    for codec in options.codecs:
        sides: dict[str, list[Any]] = {"ffmpeg's libraries": ["libraries", source, codec]}
        if shutil.which("ffmpeg"):
            sides["the ffmpeg program"] = ["program", source, codec]
        for workers in options.workers:
            sides[f"dp_hub, --workers {workers}"] = ["convert", source, codec, workers]
        rates = _in_turns(folder, sides, options.repeat)
        for name, rate in rates.items():
            yield rate.row(codec, name, of=rates["ffmpeg's libraries"])


def copy(folder: Path, options: argparse.Namespace) -> Any:
    """Copying packets, beside copying files."""
    source = folder / "copyable"
    _child("make-videos", source, options.frames, options.videos, "copyable", options.times)
    sides: dict[str, list[Any]] = {"the files, read and written": ["files", source]}
    sides |= {f"dp_hub, --workers {n}": ["convert", source, "as it is", n] for n in options.workers}
    rates = _in_turns(folder, sides, options.repeat)
    n_bytes = sum(p.stat().st_size for p in source.rglob("*.mp4"))
    frames = options.frames * options.videos * options.times
    what = f"{n_bytes / 1e6:.0f} MB of video, {frames:,} frames"
    yield f"| {what} | frames/s | frames/CPU-s | MB/s | MB/CPU-s |"
    yield "|---|---|---|---|---|"
    for name, rate in rates.items():
        wall, cpu = (one * n_bytes / frames / 1e6 for one in (rate.wall, rate.cpu))
        yield f"| {name} | {rate.wall:,.0f} | {rate.cpu:,.0f} | {wall:,.1f} | {cpu:,.1f} |"


def small(folder: Path, options: argparse.Namespace) -> Any:
    """Many small episodes."""
    yield "| episodes | who | episodes/s | of the writer's | episodes/CPU-s | of the writer's |"
    yield "|---|---|---|---|---|---|"
    plain = [(name, 0) for name in MAKERS]
    for format_name, size in [*plain, ("zarr", 32), ("robomimic", 32)]:
        if options.formats and format_name not in options.formats:
            continue
        suffix = {"zarr": ".zarr", "robomimic": ".hdf5"}.get(format_name, "")
        source = folder / f"small_{format_name}_{size}{suffix}"
        _child("make-small", source, options.episodes, format_name, size)
        sides: dict[str, list[Any]] = {"the writer": ["writer", source, format_name]}
        for n in options.workers:
            sides[f"--workers {n}"] = ["convert-small", source, format_name, n]
        rates = _in_turns(folder, sides, options.repeat)
        kind = f"{format_name}, {f'{size} px pictures' if size else 'numbers only'}"
        for name, rate in rates.items():
            yield rate.row(kind, name, of=rates["the writer"])


def memory(folder: Path, options: argparse.Namespace) -> Any:
    """A large source in little memory."""
    _install_large(folder / "installed")
    n = max(1, round(options.gigabytes * 1e9 / (HEIGHT * WIDTH * 3 * 1500 * 2)))
    (folder / "large.json").write_text(json.dumps({"episodes": n, "frames": 1500}))
    gigabytes = n * 1500 * 2 * HEIGHT * WIDTH * 3 / 1e9
    yield f"| {gigabytes:.1f} GB of pictures, {n} episodes, 2 cameras | frames/s | peak, MB |"
    yield "|---|---|---|"
    for workers in options.workers:
        told = _run(folder, ["convert-large", folder / "large.json", workers], folder / "installed")
        rate = told["done"] / told["seconds"]
        yield f"| --workers {workers} | {rate:,.0f} | {told['peak_mb']:,.0f} |"


PARTS = {"video": video, "copy": copy, "small": small, "memory": memory}


def _machine() -> str:
    load = os.getloadavg()[0]
    return f"{len(os.sched_getaffinity(0))} cores, load {load:.1f} before"


@dataclass(frozen=True)
class Rate:
    """The best of some runs: things done per second, and per second of all cores' work."""

    wall: float
    cpu: float

    def row(self, *names: str, of: "Rate") -> str:
        """A line of a table, with the share of another rate."""
        cells = [*names, f"{self.wall:,.0f}", f"{self.wall / of.wall:.2f}"]
        return f"| {' | '.join([*cells, f'{self.cpu:,.0f}', f'{self.cpu / of.cpu:.2f}'])} |"


def _in_turns(folder: Path, sides: dict[str, list[Any]], repeat: int) -> dict[str, Rate]:
    """The best rates of each side."""
    seen: dict[str, list[Rate]] = {name: [] for name in sides}
    for _ in range(repeat):
        for name, words in sides.items():
            told = _run(folder, words)
            seen[name].append(Rate(told["done"] / told["seconds"], told["done"] / told["cpu"]))
    for name, rates in seen.items():
        told = ", ".join(f"{one.wall:,.0f} ({one.cpu:,.0f})" for one in rates)
        print(f"<!-- {name}: {told} -->", file=sys.stderr, flush=True)
    return {
        name: Rate(max(one.wall for one in rates), max(one.cpu for one in rates))
        for name, rates in seen.items()
    }


def _run(folder: Path, words: list[Any], path: Path | None = None) -> dict[str, Any]:
    target = folder / "made"
    shutil.rmtree(target, ignore_errors=True)
    told = _child(words[0], words[1], target, *words[2:], path=path)
    assert told is not None
    return told


def _child(*words: Any, path: Path | None = None) -> dict[str, Any] | None:
    """Run one of `CHILDREN`; what it tells, with the peak memory of all its processes."""
    environment = dict(os.environ)
    if path:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE), "--child", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    peak = [0.0]
    watch = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    if path:
        watch.start()
    out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, words))} failed")
    told: dict[str, Any] | None = json.loads(out.splitlines()[-1]) if out.strip() else None
    return None if told is None else told | {"peak_mb": peak[0]}


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    """The largest sum of memory that a process and those it started have of their own."""
    while process.poll() is None:
        peak[0] = max(peak[0], sum(_memory_mb(pid) for pid in _family(process.pid)))
        time.sleep(0.1)


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _memory_mb(pid: int) -> float:
    """Resident memory, what is shared with other processes in parts."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


# What runs in processes of its own; each prints one line of JSON.


def make_videos(target: str, frames: str, episodes: str, kind: str, times: str = "1") -> None:
    """A LeRobot dataset of moving, noisy pictures, ``times`` over."""
    from dp_hub.dataset.features import plan_columns
    from dp_hub.dataset.writer import DatasetWriter
    from dp_hub.replay.episode import Episode

    made = [
        Episode({"action": np.zeros((int(frames), 7), np.float32), "cam": _scene(int(frames), i)})
        for i in range(int(episodes))
    ]
    columns = plan_columns(made[0].data, images="video")
    with DatasetWriter(target, columns, fps=FPS, work=Path(f"{target}.work")) as writer:
        stored = [writer.prepare(episode, i) for i, episode in enumerate(made)]
        for _ in range(int(times)):
            for one in stored:
                writer.add_stored(one)
        writer.finish()
    if kind == "reordered":
        for path in Path(target).rglob("*.mp4"):
            _encode_again(path, path.with_suffix(".new"), "libx264", {"crf": "18"}, plain=True)
            os.replace(path.with_suffix(".new"), path)


def _scene(frames: int, seed: int) -> np.ndarray:
    """Textured squares that move over a textured background, with some noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    back = coarse.repeat(16, 0).repeat(16, 1).astype(np.int16)
    noise = rng.integers(-4, 5, (8, HEIGHT, WIDTH, 3), np.int16)
    out = np.empty((frames, HEIGHT, WIDTH, 3), np.uint8)
    for i in range(frames):
        picture = back + noise[i % 8]
        for k in range(6):
            y, x = (i * (k + 1)) % (HEIGHT - 64), (3 * i + 97 * k) % (WIDTH - 64)
            picture[y : y + 64, x : x + 64] = 40 * k
        out[i] = picture.clip(0, 255)
    return out


def _encode_again(
    source: Path, target: Path, encoder: str, options: dict[str, str], *, plain: bool
) -> int:
    """Decode and encode with ffmpeg's libraries, on all cores. Returns how many frames."""
    import av

    n = 0
    with av.open(str(source)) as old, av.open(str(target), "w", format="mp4") as new:
        old.streams.video[0].thread_type = "AUTO"
        stream: Any = new.add_stream(encoder, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if not plain:
            stream.codec_context.gop_size = 2
        stream.codec_context.thread_count = 0  # as many as there are cores
        for frame in old.decode(video=0):
            frame.pict_type = 0
            new.mux(stream.encode(frame))
            n += 1
        new.mux(stream.encode(None))
    return n


def libraries(source: str, target: str, codec: str) -> None:
    """ffmpeg's libraries alone."""
    from dp_hub.dataset.video import CODECS

    encoder, options = CODECS[codec]
    options = {key: value for key, value in options.items() if key != "svtav1-params"}
    os.environ.setdefault("SVT_LOG", "1")
    Path(target).mkdir()
    began, n = _clock(), 0
    for i, path in enumerate(sorted(Path(source).rglob("*.mp4"))):
        n += _encode_again(path, Path(target) / f"{i}.mp4", encoder, options, plain=False)
    _tell(n, began)


def program(source: str, target: str, codec: str) -> None:
    """The ffmpeg program."""
    from dp_hub.dataset.video import CODECS

    encoder, options = CODECS[codec]
    words = [word for key, value in options.items() for word in (f"-{key}", value)]
    Path(target).mkdir()
    began, n = _clock(), 0
    for i, path in enumerate(sorted(Path(source).rglob("*.mp4"))):
        out = Path(target) / f"{i}.mp4"
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-c:v", encoder, "-g", "2", *words]
        subprocess.run([*command, str(out)], check=True)
        n += _frames(path)
    _tell(n, began)


def _frames(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return int(container.streams.video[0].frames)


def convert_videos(source: str, target: str, codec: str, workers: str) -> None:
    """Our conversion."""
    import dp_hub.dataset.video  # noqa: F401  # imports are not counted on any side
    from dp_hub.dataset.convert import convert

    began = _clock()
    asked = None if codec == "as it is" else codec
    done = convert("lerobot", source, target, images="video", codec=asked, workers=int(workers))
    column = next(c for c in done.written.columns if c.is_visual)
    assert column.copied == (asked is None), column
    _tell(done.written.n_frames, began)


def files(source: str, target: str) -> None:
    """Reading and writing the videos' bytes, until they are on the disk."""
    began = _clock()
    Path(target).mkdir()
    n = 0
    for path in sorted(Path(source).rglob("*.mp4")):
        with (Path(target) / path.name).open("wb") as file:
            file.write(path.read_bytes())
            file.flush()
            os.fsync(file.fileno())
        n += _frames(path)
    _tell(n, began)


def make_small(target: str, episodes: str, format_name: str, size: str) -> None:
    """Episodes of 100 steps."""
    MAKERS[format_name](Path(target), _small(int(episodes), int(size)))


def _make_zarr(target: Path, made: list[dict[str, np.ndarray]]) -> None:
    from dp_hub.replay.buffer import write_replay

    write_replay(target, made, {"fps": 10})


def _make_robomimic(target: Path, made: list[dict[str, np.ndarray]]) -> None:
    import h5py

    with h5py.File(target, "w") as file:
        data = file.create_group("data")
        for i, episode in enumerate(made):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = len(episode["action"])
            demo["actions"] = episode["action"]
            for key in episode.keys() - {"action"}:
                demo[f"obs/{key}"] = episode[key]


def _make_aloha(target: Path, made: list[dict[str, np.ndarray]]) -> None:
    import h5py

    target.mkdir()
    for i, episode in enumerate(made):
        with h5py.File(target / f"episode_{i}.hdf5", "w") as file:
            file.attrs["sim"] = True
            file["action"], file["observations/qpos"] = episode["action"], episode["state"]


def _make_minari(target: Path, made: list[dict[str, np.ndarray]]) -> None:
    import h5py

    (target / "data").mkdir(parents=True)
    with h5py.File(target / "data/main_data.hdf5", "w", track_order=True) as file:
        for i, episode in enumerate(made):
            n = len(episode["action"])
            group = file.create_group(f"episode_{i}")
            group.attrs.update({"id": i, "total_steps": n})
            values = {"actions": episode["action"], "rewards": np.zeros(n)}
            values["observations"] = np.concatenate([episode["state"], episode["state"][-1:]])
            for key, one in values.items():  # as Minari stores them
                group.create_dataset(key, data=one, chunks=True, maxshape=(None, *one.shape[1:]))
    meta = {"data_format": "hdf5", "total_episodes": len(made), "dataset_id": "made/up-v0"}
    (target / "data/metadata.json").write_text(json.dumps(meta))


def _make_rlds(target: Path, made: list[dict[str, np.ndarray]]) -> None:
    import struct

    from dp_hub_converters.tfrecords.records import masked_crc

    def varint(value: int) -> bytes:
        low, rest = value & 0x7F, value >> 7
        return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])

    def field(number: int, data: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(data)) + data

    def step(size: int) -> dict[str, Any]:
        shape = {"shape": {"dimensions": [str(size)]}, "dtype": "float32", "encoding": "none"}
        return {"pythonClassName": "made.Tensor", "tensor": shape}

    target.mkdir()
    steps = {key: step(values.shape[1]) for key, values in made[0].items()}
    inner = {"feature": {"featuresDict": {"features": steps}}, "length": "-1"}
    tree = {"featuresDict": {"features": {"steps": {"sequence": inner}}}}
    (target / "features.json").write_text(json.dumps(tree))
    with (target / "made-train.tfrecord-00000-of-00001").open("wb") as file:
        for episode in made:
            entries = b""
            for key, values in episode.items():
                packed = field(2, field(1, values.astype("<f4").tobytes()))
                entries += field(1, field(1, f"steps/{key}".encode()) + field(2, packed))
            data = field(1, entries)
            head = struct.pack("<Q", len(data))
            file.write(head + struct.pack("<I", masked_crc(head)))
            file.write(data + struct.pack("<I", masked_crc(data)))


def _make_lerobot(target: Path, made: list[dict[str, np.ndarray]]) -> None:
    from dp_hub.dataset.features import plan_columns
    from dp_hub.dataset.writer import DatasetWriter
    from dp_hub.replay.episode import Episode

    episodes = [Episode({"action": e["action"], "observation.state": e["state"]}) for e in made]
    with DatasetWriter(target, plan_columns(episodes[0].data), fps=10) as making:
        for episode in episodes:
            making.add_episode(episode)
        making.finish()


MAKERS = {
    "zarr": _make_zarr,
    "robomimic": _make_robomimic,
    "aloha": _make_aloha,
    "minari": _make_minari,
    "rlds": _make_rlds,
    "lerobot": _make_lerobot,
}


def _small(episodes: int, size: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(episodes):
        one = {
            "action": rng.uniform(-1, 1, size=(100, 7)).astype(np.float32),
            "state": rng.normal(size=(100, 14)).astype(np.float32),
        }
        if size:
            shades = rng.integers(0, 256, (100, 4, 4, 3), np.uint8)
            one["img"] = shades.repeat(size // 4, 1).repeat(size // 4, 2)
        made.append(one)
    return made


def writer(source: str, target: str, format_name: str) -> None:
    """The writer alone: what the converter would give it, from memory."""
    from dp_hub.dataset.conversion.formats import load_converter
    from dp_hub.dataset.features import plan_columns
    from dp_hub.dataset.writer import DatasetWriter
    from dp_hub.replay.episode import Episode

    converter: Any = load_converter(format_name)
    episodes = [
        Episode({k: np.asarray(v) for k, v in one.data.items()}, one.task, one.metadata)
        for one in converter.episodes(Path(source))
    ]
    began = _clock()
    with DatasetWriter(
        target, plan_columns(episodes[0].data), fps=10, work=Path(f"{target}.work"), commit_s=10
    ) as making:
        for episode in episodes:
            making.add_episode(episode)
        written = making.finish()
    _tell(written.n_episodes, began)


def convert_small(source: str, target: str, format_name: str, workers: str) -> None:
    """Our conversion, from files."""
    from dp_hub.dataset.conversion.formats import load_converter
    from dp_hub.dataset.convert import convert

    load_converter(format_name)
    began = _clock()
    done = convert(format_name, source, target, fps=10, workers=int(workers))
    _tell(done.written.n_episodes, began)


def convert_large(source: str, target: str, workers: str) -> None:
    """A source that is made while it is read."""
    from dp_hub.dataset.convert import convert

    began = _clock()
    done = convert("made-large", source, target, workers=int(workers))
    _tell(2 * done.written.n_frames, began)


def _install_large(folder: Path) -> None:
    info = folder / "made_large-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made_large\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dp_hub.converters]\nmade-large = made_large:Large\n")
    (folder / "made_large.py").write_text(LARGE)


LARGE = """
import json
import numpy as np
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Source

class Pictures:
    ndim, dtype = 4, np.dtype(np.uint8)
    def __init__(self, frames, seed):
        self.shape = (frames, 480, 640, 3)
        rng = np.random.default_rng(seed)
        self._back = rng.integers(0, 256, (30, 40, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    def __len__(self):
        return self.shape[0]
    def __getitem__(self, part):
        numbers = range(*part.indices(len(self)))
        out = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for at, number in enumerate(numbers):
            out[at] = np.roll(self._back, number, axis=1)
        return out

class Large:
    name = "made-large"
    summary = "many gigabytes"
    def recognises(self, path):
        return False
    def describe(self, path):
        told = json.loads(path.read_text())
        dtypes = {"action": "float32", "left": "uint8", "right": "uint8"}
        return Source(dtypes, told["episodes"], told["episodes"] * told["frames"], {"fps": 30})
    def episodes(self, path, *, drop=(), start=0):
        told = json.loads(path.read_text())
        for number in range(start, told["episodes"]):
            n = told["frames"]
            yield Episode({"action": np.zeros((n, 7), np.float32), "left": Pictures(n, number),
                           "right": Pictures(n, number + 1000)})
"""


def _clock() -> tuple[float, float]:
    """Wall seconds, and CPU seconds of this process and those that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in spent)


def _tell(done: int, began: tuple[float, float]) -> None:
    wall, cpu = (now - then for now, then in zip(_clock(), began, strict=True))
    print(json.dumps({"done": done, "seconds": wall, "cpu": cpu}))


CHILDREN = {
    "make-videos": make_videos,
    "make-small": make_small,
    "libraries": libraries,
    "program": program,
    "convert": convert_videos,
    "files": files,
    "writer": writer,
    "convert-small": convert_small,
    "convert-large": convert_large,
}

if __name__ == "__main__":
    main()
