"""A LeRobot v3.0 dataset written with pyarrow and PyAV alone, for tests of the reader."""

import hashlib
import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

INDEX = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def write_dataset(
    root: Path,
    columns: dict[str, np.ndarray],
    episode_ends: np.ndarray,
    *,
    images: str = "WEBP",
    video: dict | None = None,
    episodes_per_file: int = 3,
    fps: int = 10,
    fingerprint: bool = True,
) -> Path:
    """Write ``columns``; uint8 (N, H, W, C) become pictures of format ``images`` or videos.

    With ``fingerprint`` it passes for one that dp_hub wrote, with made-up episode hashes.
    ``video`` holds ``codec``, ``options`` and ``gop``. Each data file and video holds
    ``episodes_per_file`` episodes, each row group one episode.
    """
    starts = np.concatenate([[0], episode_ends[:-1]])
    features, rows = {}, []
    pictures = [name for name, column in columns.items() if column.ndim == 4]
    for name, column in columns.items():
        dtype = ("video" if video else "image") if name in pictures else str(column.dtype)
        features[name] = {"dtype": dtype, "shape": list(column.shape[1:]) or [1], "names": None}
    for name in INDEX:
        dtype = "float32" if name == "timestamp" else "int64"
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    for episode, (start, stop) in enumerate(zip(starts, episode_ends, strict=True)):
        place = {"chunk_index": 0, "file_index": episode // episodes_per_file}
        row = {"episode_index": episode, "tasks": ["push"], "length": stop - start}
        row |= {f"data/{key}": value for key, value in place.items()}
        row |= {"dataset_from_index": start, "dataset_to_index": stop}
        row |= {"metadata": json.dumps({"seed": episode}), "sha256": f"{episode:064x}"}
        for name in pictures if video else []:
            first = starts[episode - episode % episodes_per_file]
            row |= {f"videos/{name}/{key}": value for key, value in place.items()}
            row[f"videos/{name}/from_timestamp"] = float((start - first) / fps)
            row[f"videos/{name}/to_timestamp"] = float((stop - first) / fps)
        rows.append(row)
    for number in range(0, len(starts), episodes_per_file):
        some = slice(number, number + episodes_per_file)
        bounds = list(zip(starts[some], episode_ends[some], strict=True))
        file = number // episodes_per_file
        tables = [_table(columns, number + i, *b, images, video) for i, b in enumerate(bounds)]
        _write_parquet(root / f"data/chunk-000/file-{file:03d}.parquet", tables)
        for name in pictures if video else []:
            path = root / f"videos/{name}/chunk-000/file-{file:03d}.mp4"
            write_video(path, columns[name][bounds[0][0] : bounds[-1][1]], fps=fps, **video)
    _write_parquet(root / "meta/episodes/chunk-000/file-000.parquet", [pa.Table.from_pylist(rows)])
    info = {"codebase_version": "v3.0", "fps": fps, "features": features}
    info |= {"total_episodes": len(starts), "total_frames": int(episode_ends[-1])}
    (root / "meta/info.json").write_text(json.dumps(info))
    if fingerprint:
        own = {name: [f["dtype"], f["shape"]] for name, f in features.items() if name not in INDEX}
        digest = hashlib.sha256(json.dumps({"features": own, "fps": fps}, sort_keys=True).encode())
        digest.update(b"".join(bytes.fromhex(row["sha256"]) for row in rows))
        provenance = {"format": 1, "fingerprint": digest.hexdigest()}
        (root / "meta/dp_hub.json").write_text(json.dumps(provenance))
    return root


def _table(columns, episode, start, stop, images, video) -> pa.Table:
    n = stop - start
    arrays = {
        "timestamp": np.arange(n, dtype=np.float32) / 10,
        "frame_index": np.arange(n),
        "episode_index": np.full(n, episode),
        "index": np.arange(start, stop),
        "task_index": np.zeros(n, np.int64),
    }
    for name, column in columns.items():
        values = column[start:stop]
        if values.ndim == 4 and not video:
            encoded = [{"bytes": encode(frame, images), "path": None} for frame in values]
            kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
            arrays[name] = pa.array(encoded, kind)
        elif values.ndim == 2:
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            arrays[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        elif values.ndim == 1:
            arrays[name] = values
    return pa.table(arrays)


def encode(frame: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame)
    image.save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def _write_parquet(path: Path, tables: list[pa.Table]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)


def write_video(path: Path, frames: np.ndarray, *, fps=10, codec="libx264", options=None, gop=2):
    """Encode uint8 (T, H, W, 3) as mp4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
