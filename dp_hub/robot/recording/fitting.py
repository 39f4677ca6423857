"""How far the values of a recorded episode are from the times of its frames."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp_hub.replay.episode import Episode
from dp_hub.replay.mapping.config import MappingConfig, Term
from dp_hub.replay.mapping.stream_uses import plan_uses
from dp_hub.replay.recording import Recording
from dp_hub.replay.timeline.grid import SAME_S

TIMES = "times."


@dataclass(frozen=True)
class Fit:
    """One feature on the grid.

    Args:
        worst_s: the largest distance of a frame from the time of its value.
        outside: how many frames are farther than half a period from it.
    """

    worst_s: float
    outside: int


def fits_of(
    episode: Episode, recording: Recording, mapping: MappingConfig, *, start_s: float
) -> dict[str, Fit]:
    """By feature, how far the values used are from the frames.

    Of values that are interpolated the nearer neighbour counts. Events are left out: they hold
    until the next one, however long.

    Args:
        episode: with ``times.`` features, as ``keep_times`` of a mapping makes them.
        recording: that it was made of.
        mapping: that made it.
        start_s: of its first frame.
    """
    assert mapping.fps is not None
    frames_s = start_s + np.arange(episode.length) / mapping.fps
    uses = plan_uses(recording.streams, mapping, recording.name)
    found: dict[str, Fit] = {}
    for name, feature in mapping.features.items():
        terms = [term for term in feature.parts() if _is_timed(recording, term)]
        if not terms:
            continue
        used_s = _by_term(episode.data[f"{TIMES}{name}"], len(terms))
        away = np.zeros(episode.length)
        for use, term, column in zip(uses[name], terms, used_s, strict=True):
            every_s = recording.streams[term.stream].times_s
            one = _away(frames_s, column, every_s, use.how.latency_s, use.how.used_method)
            away = np.maximum(away, one)
        outside = int((away > 0.5 / mapping.fps + SAME_S).sum())
        found[name] = Fit(float(away.max(initial=0.0)), outside)
    return found


def without_times(data: Mapping[str, Any]) -> dict[str, Any]:
    """An episode's data without the times of its values."""
    return {name: values for name, values in data.items() if not name.startswith(TIMES)}


def _is_timed(recording: Recording, term: Term) -> bool:
    return recording.streams[term.stream].kind != "event"


def _by_term(used_s: np.ndarray, n_terms: int) -> list[np.ndarray]:
    """Times for every term; one column where all are the same."""
    if used_s.ndim == 1:
        return [used_s] * n_terms
    return list(used_s.T)


def _away(
    frames_s: np.ndarray, used_s: np.ndarray, every_s: np.ndarray, latency_s: float, method: str
) -> np.ndarray:
    away: np.ndarray = np.abs(frames_s - (used_s - latency_s))
    if method in ("linear", "slerp"):
        after = np.searchsorted(every_s, frames_s + latency_s)
        after_s = every_s[np.minimum(after, len(every_s) - 1)] - latency_s
        away = np.minimum(away, np.abs(after_s - frames_s))
    return away
