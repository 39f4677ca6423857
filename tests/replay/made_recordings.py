"""Recordings whose values are known functions of time, and mappings from YAML texts."""

from pathlib import Path
from textwrap import dedent

import numpy as np

from dp_hub.replay.mapping.config import MappingConfig, load_mapping
from dp_hub.replay.recording import Recording, Stream


def times(rate, seconds, start=100.0, jitter=0.0, seed=0):
    """Times of a sensor, float64 (n,)."""
    even = start + np.arange(round(rate * seconds)) / rate
    return np.sort(even + np.random.default_rng(seed).uniform(-jitter, jitter, len(even)) / rate)


def joints(t):
    """Six joints and a gripper, float64 (n, 7); rising lines, so that linear is exact."""
    return np.stack([i + (i + 1) * (t - 100) for i in range(6)] + [50 + (t - 100)], axis=1)


def pictures(count, size=(12, 16), first=0):
    """uint8 (n, H, W, 3): red is the number of the picture, green the row, blue the column."""
    out = np.zeros((count, *size, 3), np.uint8)
    out[..., 0] = np.arange(first, first + count)[:, None, None]
    out[..., 1] = np.arange(size[0])[:, None]
    out[..., 2] = np.arange(size[1])
    return out


def arm(seconds=4.0, name="bag_0", metadata=None, **more):
    """An arm at 100 Hz, commands at 25 Hz, a camera at 15 Hz."""
    state, command, camera = times(100, seconds), times(25, seconds), times(15, seconds)
    names = (*(f"joint{i}" for i in range(6)), "gripper")
    streams = {
        "/joints.position": Stream(joints(state), state, names=names),
        "/target": Stream(joints(command), command, kind="command", names=names),
        "/cam": Stream(pictures(len(camera)), camera, kind="picture"),
        **more,
    }
    return Recording(name, streams, task="Lift.", metadata=metadata or {})


def mapping(folder: Path, text: str) -> MappingConfig:
    """The mapping of a YAML text."""
    path = folder / "m.yaml"
    path.write_text(dedent(text))
    return load_mapping(path)
