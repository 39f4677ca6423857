"""What a mapping takes of streams: which numbers of which, and how each follows a grid."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.mapping.config import Feature, MappingConfig, Term, is_action
from dp_hub.replay.mapping.number_edits import selected
from dp_hub.replay.recording import Stream
from dp_hub.replay.timeline import Follow, default_follow


@dataclass(frozen=True, eq=False)
class Use:
    """What one term of a feature takes of a stream.

    Args:
        label: the stream's name, for reports; with the feature's if streams are used differently.
        where: for messages.
        term: what is done to the values.
        stream: pictures as they are, or the numbers that are meant.
        how: it follows a grid.
    """

    label: str
    where: str
    term: Term
    stream: Stream
    how: Follow

    @property
    def is_picture(self) -> bool:
        """Whether values are pictures rather than numbers."""
        return is_picture(self.stream.values)


Uses = Mapping[str, tuple[Use, ...]]  # by feature, in the order they are joined


def plan_uses(streams: Mapping[str, Stream], mapping: MappingConfig, where: str) -> Uses:
    """How every feature uses streams. Raises DataError where a stream does not fit."""
    seen: dict[str, Follow] = {}
    read: dict[str, np.ndarray] = {}  # numbers that several terms take from are read once
    planned: dict[str, tuple[Use, ...]] = {}
    for name, feature in mapping.features.items():
        each = []
        for i, term in enumerate(feature.parts()):
            place = f"features.{name}.from" + (f"[{i}]" if len(feature.terms or ()) > 1 else "")
            stream = streams[term.stream]
            if not _has_pictures(stream) and not isinstance(stream.values, np.ndarray):
                if term.stream not in read:
                    read[term.stream] = np.asarray(stream.values[:])
                stream = replace(stream, values=read[term.stream])
            called = f"{term.stream} of {where}"
            use = _use(stream, term, feature, _how(stream, term, name), called, place)
            same = seen.setdefault(term.stream, use.how) == use.how
            label = term.stream if same else f"{term.stream}{term.at} for {name}"
            each.append(replace(use, label=label))
        planned[name] = tuple(each)
    return planned


def _use(stream: Stream, term: Term, feature: Feature, how: Follow, called: str, place: str) -> Use:
    if not _has_pictures(stream):
        if feature.edits_pictures:
            raise DataError(f"`{place}`: {called} holds no pictures to turn, cut or resize")
        numbers = selected(stream.values, term, f"`{place}`: {called}")
        return Use("", called, term, replace(stream, values=numbers, names=()), how)
    asked = [k for k in ("at", "degrees", "rotation", "scale", "offset", "invert")
             if getattr(term, k)]  # fmt: skip
    asked += ["joining"] if len(feature.terms or ()) > 1 else []
    asked += [k for k in ("shift", "dtype") if getattr(feature, k)]
    if asked:
        raise DataError(
            f"`{place}`: {called} holds pictures, for which there is no {asked[0]}",
            hint="pictures know colour, rotate, flip, crop, resize and the times' settings",
        )
    return Use("", called, term, stream, how)


def _how(stream: Stream, term: Term, feature: str) -> Follow:
    """How the values follow the grid: as the mapping says, else as is usual for the stream."""
    usual = default_follow(stream)
    method, rotation = term.method or usual.method, None
    if term.rotation is not None and method == "linear":
        method = "slerp"
    if method == "slerp":
        assert term.rotation is not None
        rotation = term.rotation.source
    ahead = usual.may_look_ahead if term.method is None else method != "hold"
    return Follow(
        method=method,
        latency_s=term.latency_s or 0.0,
        max_gap_s=term.max_gap_s or usual.max_gap_s,
        rotation=rotation,
        may_look_ahead=ahead and not is_action(feature),
    )


def _has_pictures(stream: Stream) -> bool:
    return stream.kind == "picture" or is_picture(stream.values)


def is_picture(values: Any) -> bool:
    """Whether values are pictures, told from their shape."""
    return values.ndim == 4
