"""Streams at different rates on one clock of equal steps.

    grids, gaps = find_grids(streams, follows, Fraction(30))
    followed = follow(streams["/joint_states.position"], grids[0], follows[...])

`grid` has the words, `gaps` finds where all streams are there, `following` takes the values, and
`alignment` reports what was done.
"""

from dp_hub.replay.timeline.alignment import (
    AlignmentReport,
    StreamReport,
    report_episode,
    report_recording,
)
from dp_hub.replay.timeline.following import Followed, follow
from dp_hub.replay.timeline.gaps import Gap, OnGap, exact_fps, find_grids
from dp_hub.replay.timeline.grid import (
    SAME_S,
    Follow,
    Grid,
    Method,
    default_follow,
    median_period_s,
)

__all__ = [
    "SAME_S",
    "AlignmentReport",
    "Follow",
    "Followed",
    "Gap",
    "Grid",
    "Method",
    "OnGap",
    "StreamReport",
    "default_follow",
    "exact_fps",
    "find_grids",
    "follow",
    "median_period_s",
    "report_episode",
    "report_recording",
]
