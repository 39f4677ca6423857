"""HDF5 demonstrations as robomimic, LIBERO, ACT and Minari write them, by h5py alone, for tests."""

import io
import json

import h5py
import numpy as np
import pyarrow as pa
from PIL import Image

ENV_ARGS = {
    "env_name": "Lift",
    "type": 1,
    "env_kwargs": {
        "robots": ["Panda"],
        "control_freq": 20,
        "controller_configs": {"type": "OSC_POSE", "control_delta": True},
    },
}


def moving(n, seed=0, size=(24, 32)):
    """A bright square on a gradient, uint8 (n, H, W, 3); no two rows or colours alike."""
    h, w = size
    frames = np.zeros((n, h, w, 3), np.uint8)
    frames[..., 0] = np.linspace(150, 250, h)[None, :, None]
    frames[..., 2] = np.linspace(0, 60, w)[None, None, :]
    for i in range(n):
        x = (2 * i + 5 * seed) % (w - 8)
        frames[i, 4:12, x : x + 8, 1] = 200
    return frames


def write_robomimic(path, numbers=(0, 1, 2), *, pictures=True, env_args=None, seed=0, lengths=None):
    """A robomimic file; returns its demos by name, each a dict of arrays."""
    rng = np.random.default_rng(seed)
    demos = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(env_args or ENV_ARGS)
        for place, number in enumerate(numbers):
            n = lengths[place] if lengths else 5 + number % 4
            arrays = {
                "actions": rng.uniform(-1, 1, (n, 7)),
                "dones": (np.arange(n) == n - 1).astype(np.int64),
                "obs/object": rng.normal(size=(n, 10)),
                "obs/robot0_eef_pos": rng.normal(size=(n, 3)),
                "obs/robot0_eef_quat": rng.normal(size=(n, 4)),
                "rewards": rng.integers(0, 2, n).astype(np.float64),
                "states": rng.normal(size=(n, 12)),
            }
            if pictures:
                arrays["obs/agentview_image"] = moving(n, number)
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = n
            for key, values in arrays.items():
                packing = {"compression": "gzip"} if values.ndim == 4 else {}
                demo.create_dataset(key, data=values, **packing)
            demos[f"demo_{number}"] = arrays
        data.attrs["total"] = sum(len(d["actions"]) for d in demos.values())
        names = np.array(list(demos), "S")
        file["mask/train"] = names[:-1]
        file["mask/valid"] = names[-1:]
    return demos


def jpeg(picture, quality=95):
    """A picture as JPEG, by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def write_aloha(path, n=6, *, seed=0, encode=None, cameras=("cam_high", "cam_low"), attrs=None):
    """An episode of ACT; ``encode`` turns pictures into bytes, else they are stored as they are."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "action": rng.normal(size=(n, 14)),
        "observations/qpos": rng.normal(size=(n, 14)),
        "observations/qvel": rng.normal(size=(n, 14)),
    }
    with h5py.File(path, "w") as file:
        file.attrs.update(attrs or {"sim": True})
        for key, values in arrays.items():
            file[key] = values
        for camera in cameras:
            pictures = moving(n, seed)
            arrays[f"observations/images/{camera}"] = pictures
            if encode:
                coded = [encode(picture) for picture in pictures]
                longest = max(map(len, coded))
                pictures = np.zeros((n, longest), np.uint8)
                for row, data in zip(pictures, coded, strict=True):
                    row[: len(data)] = np.frombuffer(data, np.uint8)
            file.create_dataset(
                f"observations/images/{camera}", data=pictures, chunks=(1, *pictures.shape[1:])
            )
        if encode:
            file["compress_len"] = np.zeros((len(cameras), n), np.float32)
    return arrays


def box(shape, dtype="float64", low=-1.0, high=1.0):
    """A Box as Minari serialises it."""
    full = {"low": np.full(shape, low).tolist(), "high": np.full(shape, high).tolist()}
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **full}


def minari_meta(data_format, observation_space, *, episodes, steps, **more):
    return {
        "total_episodes": episodes,
        "total_steps": steps,
        "data_format": data_format,
        "observation_space": json.dumps(observation_space),
        "action_space": json.dumps(box((2,), "float32")),
        "env_spec": json.dumps({"id": "Door-v1", "max_episode_steps": 200}),
        "dataset_id": "door/test-v0",
        "dataset_size": 0.1,
        **more,
    }


LENGTHS = (3, 5, 4, 2, 3, 6, 4, 5, 3, 4, 7)


def write_minari_hdf5(
    root, observations, *, space, jpeg_encoding=False, infos=None, lengths=LENGTHS
):
    """A Minari set; ``observations(T + 1, rng)`` gives nested dicts and tuples of arrays."""
    folder = root / "data"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    written = []
    with h5py.File(folder / "main_data.hdf5", "w", track_order=True) as file:
        for number, n in enumerate(lengths):
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "seed": 100 + number, "total_steps": n})
            values = {
                "observations": observations(n + 1, rng),
                "actions": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
                "rewards": rng.normal(size=n),
                "terminations": np.arange(n) == n - 1,
                "truncations": np.zeros(n, bool),
            }
            if infos:
                values["infos"] = infos(n + 1, rng)
            _put(group, values)
            written.append(values)
    meta = minari_meta(
        "hdf5", space, episodes=len(lengths), steps=sum(lengths), jpeg_encoding=jpeg_encoding
    )
    (folder / "metadata.json").write_text(json.dumps(meta))
    return written


def _put(group, values):
    for key, value in values.items():
        if isinstance(value, tuple):
            value = {f"_index_{i}": one for i, one in enumerate(value)}
        if isinstance(value, dict):
            _put(group.create_group(key), value)
        elif isinstance(value, list) and isinstance(value[0], bytes):
            kind = h5py.vlen_dtype(np.uint8)
            data = group.create_dataset(key, (len(value),), kind, chunks=True)
            for i, one in enumerate(value):
                data[i] = np.frombuffer(one, np.uint8)
        elif isinstance(value, list):
            group.create_dataset(key, data=value, dtype=h5py.string_dtype())
        else:
            shape = (None, *value.shape[1:])
            group.create_dataset(key, data=value, chunks=True, maxshape=shape)


def write_minari_arrow(root, episodes, *, space, encoded=()):
    """A Minari set in Arrow files: dicts of observations, padded columns, a folder an episode."""
    folder = root / "data"
    folder.mkdir(parents=True)
    for number, values in enumerate(episodes):
        n = len(values["rewards"])
        columns = {
            "observations": _struct(values["observations"], encoded),
            "actions": _lists(np.pad(values["actions"], ((0, 1), (0, 0)))),
            "rewards": pa.array(np.pad(values["rewards"], (0, 1))),
            "terminations": pa.array(np.pad(values["terminations"], (0, 1))),
            "truncations": pa.array(np.pad(values["truncations"], (0, 1))),
        }
        place = folder / str(number)
        place.mkdir()
        batch = pa.RecordBatch.from_pydict(columns)
        with pa.ipc.new_file(place / "part-0.arrow", batch.schema) as writer:
            writer.write_batch(batch)
        facts = {"id": number, "total_steps": n, "seed": 7 + number}
        (place / "metadata.json").write_text(json.dumps(facts))
    steps = sum(len(one["rewards"]) for one in episodes)
    meta = minari_meta("arrow", space, episodes=len(episodes), steps=steps, jpeg_encoding=True)
    (folder / "metadata.json").write_text(json.dumps(meta))


def _struct(values, encoded):
    if isinstance(values, tuple):
        values = {str(i): one for i, one in enumerate(values)}
    if isinstance(values, dict):
        arrays = [_struct(one, encoded) for one in values.values()]
        return pa.StructArray.from_arrays(arrays, names=list(values))
    if isinstance(values, list):
        return pa.array(values, pa.binary() if isinstance(values[0], bytes) else pa.string())
    return pa.array(values) if values.ndim == 1 else _lists(values)


def _lists(values):
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values[0].size)
