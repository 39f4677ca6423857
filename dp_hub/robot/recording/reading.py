"""A recorded episode's folder as a Recording: as the format ``folder`` reads it, without it."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip
from dp_hub.replay.recording import Recording, Stream, StreamKind
from dp_hub.robot.recording.flushing import STREAMS
from dp_hub.robot.recording.raw_episode import FACTS
from dp_hub.robot.recording.tables import TIME, read_columns
from dp_hub.robot.recording.video import SUFFIX

SENT = "target"  # the field of what was sent to an actuator


def read_raw(folder: Path) -> Recording:
    """The streams of a complete episode; pictures are decoded when they are looked at.

    Raises:
        DataError: the folder is not complete, or damaged.
    """
    streams: dict[str, Stream] = {}
    about = _json(folder / STREAMS)
    for name, one in about["streams"].items():
        columns = _columns(folder / f"{name}.parquet")
        times_s = columns.pop(TIME)
        if "codec" in one:
            clip = _clip(folder / f"{name}{SUFFIX}", one, len(times_s))
            streams[name] = Stream(clip, times_s, "picture", about=one["codec"])
            continue
        for column, values in columns.items():
            names = tuple(one["columns"][column]["names"])
            kind: StreamKind = "command" if column == SENT else _kind(values)
            streams[f"{name}/{column}"] = Stream(values, times_s, kind, names=names)
    for name in about["events"]:
        columns = _columns(folder / f"{name}.parquet")
        times_s = columns.pop(TIME)
        for column, values in columns.items():
            streams[f"{name}/{column}"] = Stream(values, times_s, "event")
    facts = _json(folder / FACTS)
    task = facts.pop("task", None)
    return Recording(folder.name, streams, task, facts)


def units_of(folder: Path) -> dict[str, list[str]]:
    """The units of the numbers of every stream that has some."""
    told: dict[str, list[str]] = {}
    for name, one in _json(folder / STREAMS)["streams"].items():
        for column, about in one.get("columns", {}).items():
            if about["units"]:
                told[f"{name}/{column}"] = about["units"]
    return told


def _clip(path: Path, about: dict[str, Any], count: int) -> VideoClip:
    height, width, _ = about["shape"]
    return VideoClip(path, 0, count, (height, width), Fraction(*about["rate"]), about["codec"])


def _kind(values: np.ndarray) -> StreamKind:
    return "state" if values.dtype.kind == "f" else "event"


def _columns(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_columns(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise DataError(
            f"{path} cannot be read: {error}", hint="the recording is not complete: leave it out"
        ) from None


def _json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", hint="the recording is not complete: leave it out"
        ) from None
    return value
