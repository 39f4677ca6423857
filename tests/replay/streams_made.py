"""Streams that are easy to reason about."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from dp_hub.replay.recording import Stream
from dp_hub.replay.timeline import (
    Follow,
    Followed,
    Gap,
    Grid,
    default_follow,
    find_grids,
    follow,
)

T0 = 1.7e9  # seconds since 1970, as robots have them
HOLD = Follow("hold", may_look_ahead=False)


def numbered(times_s: Any, kind: Any = "state") -> Stream:
    """Values that are their own numbers."""
    times = np.asarray(times_s, np.float64)
    return Stream(np.arange(len(times), dtype=np.float64)[:, None], times, kind)


def camera(times_s: Any, side: int = 2) -> Stream:
    times = np.asarray(times_s, np.float64)
    numbers = np.arange(len(times)).astype(np.uint8)
    return Stream(np.tile(numbers[:, None, None, None], (1, side, side, 3)), times, "picture")


def alone(stream: Stream, how: Follow, fps: Any = 30, **asked: Any) -> tuple[list[Grid], list[Gap]]:
    return find_grids({"/x": stream}, {"/x": how}, fps, **asked)


def on_grid(stream: Stream, how: Follow, fps: Any = 30) -> Followed:
    [grid], _ = alone(stream, how, fps)
    return follow(stream, grid, how)


sorted_times = st.lists(
    st.floats(0.0005, 0.3), min_size=2, max_size=60
).map(lambda gaps: T0 + np.cumsum(gaps))  # fmt: skip


def with_gap() -> dict[str, Stream]:
    times = np.concatenate([np.arange(0, 4, 0.1), np.arange(6, 10, 0.1)])  # 3.9 to 6
    return {"/cam": camera(times), "/arm": numbered(np.arange(0, 10, 0.01))}


def follows_of(streams: dict[str, Stream]) -> dict[str, Follow]:
    return {name: default_follow(stream) for name, stream in streams.items()}
