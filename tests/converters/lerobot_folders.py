"""LeRobot datasets of both layouts, written with pyarrow and PyAV alone, for tests."""

import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

INDEX = {"timestamp": "float32"} | dict.fromkeys(
    ("frame_index", "episode_index", "index", "task_index"), "int64"
)
PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
TOP = "observation.images.top"


def moving(n, seed=0, size=(48, 64)):
    """Frames of a bright square on a gradient that moves, uint8 (n, H, W, 3)."""
    h, w = size
    ground = np.linspace(20, 120, w, dtype=np.float32)[None, :, None]
    frames = np.broadcast_to(ground, (n, h, w, 3)).astype(np.uint8).copy()
    for i in range(n):
        x = (3 * i + 7 * seed) % (w - 12)
        frames[i, 10:22, x : x + 12] = (250, 40 + 10 * seed, 60)
    return frames


def episodes(lengths=(12, 9, 15), *, pictures=False):
    """Made-up demonstrations: a dict of arrays each."""
    rng = np.random.default_rng(0)
    result = []
    for number, n in enumerate(lengths):
        data = {
            "observation.state": rng.normal(size=(n, 3)).astype(np.float32),
            "action": rng.normal(size=(n, 2)).astype(np.float32),
            "next.done": np.arange(n) == n - 1,
        }
        if pictures:
            data[TOP] = moving(n, number)
        result.append(data)
    return result


def encoded(picture, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(buffer, kind)
    return buffer.getvalue()


def write_video(
    path,
    frames,
    *,
    fps=10,
    codec="libx264",
    gop=2,
    bf=0,
    audio=False,
    options=None,
    pix_fmt="yuv420p",
):
    """Encode uint8 (T, H, W, 3) as mp4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = options or ({"bf": str(bf)} if codec == "libx264" else {"preset": "12"})
        stream = container.add_stream(codec, rate=Fraction(fps), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        if audio:
            sound = container.add_stream("aac", rate=16000)
            sound.layout = "mono"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
        if audio:
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
            tone.sample_rate = 16000
            container.mux(sound.encode(tone))
            container.mux(sound.encode(None))


def column(values):
    """Values as Parquet holds them."""
    if isinstance(values, pa.Array):
        return values
    if values.ndim == 4:
        return pa.array([{"bytes": encoded(p), "path": None} for p in values], PICTURE)
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    for n in reversed(values.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, n)
    return flat


def table(data, number, start, fps, *, tasks=None, video=True):
    n = len(next(iter(data.values())))
    arrays = {
        key: column(values)
        for key, values in data.items()
        if not (video and isinstance(values, np.ndarray) and values.ndim == 4)
    }
    arrays |= {
        "timestamp": (np.arange(n) / fps).astype(np.float32),
        "frame_index": np.arange(n),
        "episode_index": np.full(n, number),
        "index": np.arange(start, start + n),
        "task_index": np.zeros(n, np.int64) if tasks is None else np.asarray(tasks),
    }
    return pa.table(arrays)


def features(data, *, names=None, video=True):
    entries = {}
    for key, values in data.items():
        picture = isinstance(values, np.ndarray) and values.ndim == 4
        dtype = (
            ("video" if video else "image") if picture else str(getattr(values, "dtype", "string"))
        )
        shape = list(values.shape[1:]) if isinstance(values, np.ndarray) else []
        entries[key] = {"dtype": dtype, "shape": shape or [1], "names": (names or {}).get(key)}
    for key, dtype in INDEX.items():
        entries[key] = {"dtype": dtype, "shape": [1], "names": None}
    return entries


def write_info(root, some, version, fps, **more):
    info = {
        "codebase_version": version,
        "robot_type": "arm",
        "fps": fps,
        "total_episodes": len(some),
        "total_frames": sum(len(e["action"]) for e in some),
        "chunks_size": 1000,
    }
    write_json(root / "meta/info.json", info | more)


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_table(path, tables, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, tables[0].schema, **options) as writer:
        for one in tables:
            writer.write_table(one)


def write_v2(
    root,
    some,
    *,
    version="v2.1",
    fps=10,
    numbers=None,
    names=None,
    video=True,
    facts=None,
    tasks=("push",),
    frame_tasks=None,
    encoding=None,
):
    """A dataset of one file an episode. ``numbers`` are the episodes' own."""
    numbers = list(range(len(some))) if numbers is None else numbers
    start, rows = 0, []
    for i, (number, data) in enumerate(zip(numbers, some, strict=True)):
        name = f"episode_{number:06d}"
        one = table(data, number, start, fps, tasks=(frame_tasks or {}).get(i), video=video)
        write_table(root / f"data/chunk-000/{name}.parquet", [one])
        n = len(one)
        for key, values in data.items():
            if video and isinstance(values, np.ndarray) and values.ndim == 4:
                path = root / f"videos/chunk-000/{key}/{name}.mp4"
                write_video(path, values, fps=fps, **(encoding or {}))
        rows.append({"episode_index": number, "tasks": [tasks[0]], "length": n})
        rows[-1] |= (facts or {}).get(i, {})
        start += n
    write_lines(root / "meta/episodes.jsonl", rows)
    texts = [{"task_index": i, "task": text} for i, text in enumerate(tasks)]
    write_lines(root / "meta/tasks.jsonl", texts)
    entries = features(some[0], names=names, video=video)
    write_info(
        root, some, version, fps, features=entries,
        data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    )  # fmt: skip
    return root


def write_v3(
    root, some, *, fps=10, per_file=2, names=None, video=True, facts=None, one_group=False,
    encoding=None,
):  # fmt: skip
    """A dataset of several episodes a file, in data and in videos."""
    starts = np.cumsum([0, *(len(e["action"]) for e in some)]).tolist()
    rows = []
    for first in range(0, len(some), per_file):
        part = list(range(first, min(first + per_file, len(some))))
        tables = [table(some[i], i, starts[i], fps, video=video) for i in part]
        file = first // per_file
        whole = [pa.concat_tables(tables)] if one_group else tables
        write_table(root / f"data/chunk-000/file-{file:03d}.parquet", whole)
        cameras = [k for k, v in some[0].items() if video and getattr(v, "ndim", 0) == 4]
        for key in cameras:
            frames = np.concatenate([some[i][key] for i in part])
            path = root / f"videos/{key}/chunk-000/file-{file:03d}.mp4"
            write_video(path, frames, fps=fps, **(encoding or {}))
        for i in part:
            row = {"episode_index": i, "tasks": ["push"], "length": starts[i + 1] - starts[i]}
            row |= {"data/chunk_index": 0, "data/file_index": file}
            row |= {"dataset_from_index": starts[i], "dataset_to_index": starts[i + 1]}
            for key in cameras:
                row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": file}
                row[f"videos/{key}/from_timestamp"] = (starts[i] - starts[first]) / fps
                row[f"videos/{key}/to_timestamp"] = (starts[i + 1] - starts[first]) / fps
            row |= (facts or {}).get(i, {}) | {"stats/action/count": [3]}
            rows.append(row)
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", [pa.Table.from_pylist(rows)])
    texts = pa.table({"task_index": [0], "__index_level_0__": ["push"]})
    write_table(root / "meta/tasks.parquet", [texts])
    entries = features(some[0], names=names, video=video)
    write_info(root, some, "v3.0", fps, features=entries)
    return root
