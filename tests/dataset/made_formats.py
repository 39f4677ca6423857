"""Two source formats whose episodes are told by a JSON file, installed like those of a third party.

``made-rows`` reads ``{"episodes": [{"steps": 5, "bad": "read"}, ...]}``, ``made-streams``
``{"recordings": [{"flags": [3, 4]}, ...]}``, where each flag is an episode of so many tenths of a
second, between two seconds of nothing. ``bad``: ``read`` and ``late`` fail while they are read,
``nan`` and ``shape`` do not fit into the dataset, ``empty`` has no steps.
"""

import json
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode
from dp_hub.replay.recording import Recording, Stream
from dp_hub.replay.source import Source

ENTRY_POINTS = """[dp_hub.converters]
made-rows = made_formats:Rows
made-streams = made_formats:Streams
made-lost = made_formats_lost:Lost [hdf5]
made-absent = made_formats_absent:Absent
"""


def install(folder: Path) -> Path:
    """Make the formats known to whoever has ``folder`` in its path."""
    info = folder / "made_formats-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made_formats\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "made_formats_lost.py").write_text(
        'import no_such_library\n\nclass Lost:\n    summary = "a format of a lost library"\n'
    )
    return folder


def write_rows(path: Path, episodes: list[dict[str, Any]], **others: Any) -> Path:
    """A source of ``made-rows``."""
    path.write_text(json.dumps({"episodes": episodes, **others}))
    return path


def write_streams(path: Path, recordings: list[dict[str, Any]]) -> Path:
    """A source of ``made-streams``."""
    path.write_text(json.dumps({"recordings": recordings}))
    return path


class Rows:
    """Rows that belong together."""

    name = "made-rows"
    summary = "made up for tests"

    def __init__(
        self,
        *,
        pictures: int = 0,
        count: Literal["known", "unknown"] = "known",
        pause_s: float = 0.0,
        only: str | None = None,
        tags: tuple[str, ...] = (),
        loud: bool = False,
    ) -> None:
        self._pictures, self._known, self._pause_s = pictures, count == "known", pause_s

    def recognises(self, path: Path) -> bool:
        return False

    def describe(self, path: Path) -> Source:
        listed = json.loads(path.read_text())["episodes"]
        keys = {"action": "float32", "state": "float64"}
        keys |= {"img": "uint8"} if self._pictures else {}
        steps = sum(one["steps"] for one in listed)
        known = (len(listed), steps) if self._known else (None, None)
        return Source(keys, *known, attrs={"fps": 10})

    def episodes(
        self, path: Path, *, drop: Collection[str] = (), start: int = 0
    ) -> Iterator[Episode]:
        given = json.loads(path.read_text())
        for number, one in enumerate(given["episodes"][start:], start):
            time.sleep(self._pause_s)
            if given.get("broken"):
                raise DataError("the source is broken")
            if one.get("bad") == "read":
                raise DataError(f"episode {number} is cut short", hint="record it again")
            data = _rows(number, one, self._pictures)
            yield Episode(
                {key: values for key, values in data.items() if key not in drop},
                task=f"task {number % 3}",
                metadata={"source": f"e{number}.json", "number": number},
            )


class Streams:
    """A stream at 25 Hz, one at 7 Hz, and a flag."""

    name = "made-streams"
    summary = "made up for tests, too"

    def recognises(self, path: Path) -> bool:
        return False

    def describe(self, path: Path) -> Source:
        listed = json.loads(path.read_text())["recordings"]
        keys = {"/joints": "float64", "/command": "float32", "/flag": "bool"}
        return Source(keys, n_episodes=len(listed))

    def recordings(
        self, path: Path, *, only: Collection[str] | None = None, start: int = 0
    ) -> Iterator[Recording]:
        listed = json.loads(path.read_text())["recordings"]
        for number, one in enumerate(listed[start:], start):
            if one.get("bad") == "read":
                raise DataError(f"bag {number} is cut short", hint="record it again")
            yield Recording(f"bag_{number}", _streams(number, one), metadata={"number": number})


def _rows(number: int, one: dict[str, Any], pictures: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    n = 0 if one.get("bad") == "empty" else one["steps"]
    action = rng.normal(size=(n, 2)).astype(np.float32)
    if one.get("bad") == "nan":
        action[n // 2] = np.nan
    width = 4 if one.get("bad") == "shape" else 3
    data = {"action": action, "state": rng.normal(size=(n, width))}
    if pictures:
        shades = rng.integers(0, 256, (n, 1, 1, 3)).astype(np.uint8)
        data["img"] = np.tile(shades, (1, pictures, pictures, 1))
    return data


def _streams(number: int, one: dict[str, Any]) -> dict[str, Stream]:
    rng = np.random.default_rng(number)
    flags: list[tuple[float, bool]] = [(0.0, False)]
    for tenths in one["flags"]:
        begin = flags[-1][0] + 2.0
        flags += [(begin, True), (begin + tenths / 10, False)]
    end_s = flags[-1][0] + 2.0
    joints, command = (np.arange(0.0, end_s + 1, 1 / hz) for hz in (25, 7))
    command = command[command >= one.get("command_from_s", 0.0)]
    values = rng.normal(size=(len(command), 2)).astype(np.float32)
    if one.get("bad") == "nan":
        values[:] = np.nan
    if "nan_s" in one:
        low, high = one["nan_s"]
        values[(command >= low) & (command <= high)] = np.nan
    return {
        "/joints": Stream(rng.normal(size=(len(joints), 3)), joints),
        "/command": Stream(values, command, kind="command"),
        "/flag": Stream(
            np.array([on for _, on in flags]), np.array([at for at, _ in flags]), kind="event"
        ),
    }
