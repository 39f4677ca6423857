"""A mapping file to begin with: rate, features and action as far as a source lets them be guessed.

Every guess is said to be one in a comment. What was left out stands there too, ready to be moved
up.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml

from dp_hub.config import build
from dp_hub.dataset.features import plan_feature_name
from dp_hub.dataset.inspection.proposed_words import (
    in_quotes,
    key_word,
    listed,
    one_line,
    plain_name,
    quoted,
)
from dp_hub.dataset.inspection.stream_facts import StreamFacts
from dp_hub.replay.mapping.check import check_mapping
from dp_hub.replay.mapping.config import MappingConfig
from dp_hub.replay.source import Source

_ROUND_HZ = (1, 2, 3, 4, 5, 6, 8, 10, 12, 12.5, 15, 20, 24, 25, 30, 40, 50, 60, 90, 100, 120, 200,
             250, 500, 1000)  # fmt: skip
_SIMULATOR = ("states",)  # all that a simulator knows, beside what the robot observes
_MOST_SILENT_S = 5.0  # a command that was given so long ago may still hold
_MOST_NAMES = 100
_STEADY = 0.2  # jitter of a steady stream, in its periods
_NEAR = 0.03  # a rate this close to a round one is that
_ACTIONS = re.compile(r"(^|[/._])(actions?)$", re.IGNORECASE)
_STATES = re.compile(
    r"(^|[/._])(state|states|qpos|joint|joints|position|positions|pose|ee|eef|gripper|width|tcp)",
    re.IGNORECASE,
)
_NO_STATES = re.compile(
    r"velocit|effort|qvel|torque|current|covariance|time|stamp|header|seq|reward|done|imu|diagnos|"
    r"camera_info|rosout|index|n_contacts|stage|demo_start|demo_end|action",
    re.IGNORECASE,
)
_GRIPPERS = re.compile(r"grip", re.IGNORECASE)
_SPLITS = re.compile(r"episode|record|stage|phase|active|running", re.IGNORECASE)


@dataclass(frozen=True)
class _Line:
    """One feature of the file: its name, what it is made of, a remark, names of its numbers."""

    feature: str
    text: str
    remark: str = ""
    names: tuple[str, ...] = ()


def propose(
    streams: Sequence[StreamFacts],
    source: Source,
    *,
    has_rows: bool,
    fps: float | None,
    fps_from: str | None,
    looked_at: int,
    options: Mapping[str, Any],
    title: str,
) -> str:
    """A mapping file as YAML with comments, which `load_mapping` reads; "" if there is nothing.

    Args:
        streams: what there is.
        source: what the source says of itself.
        has_rows: values belong together row by row.
        fps: of rows; None if unknown.
        fps_from: who says so.
        looked_at: how many recordings were measured; streams that some of them lack are left out.
        options: the format's own that were needed to read it.
        title: what is mapped, for the first line.
    """
    usable = [s for s in streams if s.recordings == looked_at and s.values]
    lines, rest = _rows_lines(usable, source) if has_rows else _stream_lines(usable)
    if not lines:
        return ""
    used = [s for s in usable if s not in rest]
    rest += [s for s in streams if s not in usable]
    text = "\n".join([
        f"# Proposed by dp-hub inspect for {one_line(title)}: a guess, to be read through.",
        *(_rows_rate(fps, fps_from, source.fps_hint) if has_rows else _streams_rate(used)),
        *_task(source),
        *([f"options: {in_quotes(dict(options))}"] if options else []),
        *([] if has_rows else _episodes(streams)),
        "features:",
        *(_feature_line(line) for line in lines),
        *_left_out(rest),
    ]) + "\n"  # fmt: skip
    mapping = build(MappingConfig, yaml.safe_load(text), where="the proposed mapping")
    check_mapping(mapping, Source({s.name: s.dtype for s in streams}))
    return text


def round_rate(rate_hz: float, *, below: bool = False) -> float:
    """The round rate that is meant by a measured one, or the next one below it."""
    near = min(_ROUND_HZ, key=lambda r: abs(r - rate_hz) / r)
    if abs(near - rate_hz) <= _NEAR * near:
        return near
    if not below and rate_hz >= 1:
        return float(round(rate_hz))
    lower = [r for r in _ROUND_HZ if r <= rate_hz]
    return lower[-1] if lower else float(f"{rate_hz:.1g}")


def _ntsc(rate_hz: float) -> float | None:
    """29.97 and its like, if that is what was measured."""
    rates = (23.976, 29.97, 59.94, 119.88)
    return next((rate for rate in rates if abs(rate - rate_hz) < 1e-4 * rate), None)


def _rows_rate(fps: float | None, fps_from: str | None, hint: str | None) -> list[str]:
    if fps is None and hint:
        return [f"# fps: 10  # has to be given: {one_line(hint)}"]
    if fps is None:
        return ["# fps: 10  # the source does not say, so 10 is taken; rows stay as they are"]
    if fps_from == "the source":
        return [f"fps: {fps:g}  # as the source says"]
    rate = _ntsc(fps) or round_rate(fps)
    return [f"fps: {rate:g}  # {one_line(fps_from or '')} says {fps:.4g}", f"source_fps: {rate:g}"]


def _streams_rate(streams: Sequence[StreamFacts]) -> list[str]:
    """The slowest camera's or steady command's; without cameras below the slowest state's."""
    cameras = [s for s in streams if s.is_picture and s.rate_hz]
    if cameras:
        commands = [s for s in streams if s.kind == "command" and _is_steady(s)]
        slowest = min([*cameras, *commands], key=lambda s: s.rate_hz or 0)
        rate = round_rate(slowest.rate_hz or 1)
        return [f"fps: {rate:g}  # that of {one_line(slowest.name)}, {slowest.rate_hz:.4g} Hz"]
    states = [s for s in streams if s.kind == "state" and s.rate_hz]
    if not states:
        return ["fps: 10  # nothing says more"]
    slowest = min(states, key=lambda s: s.rate_hz or 0)
    rate = round_rate(slowest.rate_hz or 1, below=True)
    return [f"fps: {rate:g}  # {one_line(slowest.name)} has {slowest.rate_hz:.4g} Hz"]


def _is_steady(s: StreamFacts) -> bool:
    """Whether values come regularly: steps between them would only repeat them."""
    return bool(s.rate_hz) and not s.gaps and (s.jitter_s or 0) * (s.rate_hz or 0) < _STEADY


def _task(source: Source) -> list[str]:
    task = source.attrs.get("task")
    robot = source.attrs.get("robot_type")
    return [
        "# task: Pick up the cube." if not isinstance(task, str) else f"task: {quoted(task)}",
        "# robot_type: so101" if not isinstance(robot, str) else f"robot_type: {quoted(robot)}",
    ]


def _episodes(streams: Sequence[StreamFacts]) -> list[str]:
    lines = ["episodes: {split: recording, min_s: 1.0}  # or gap, change, flag"]
    for s in streams:
        steady = np.dtype(s.dtype).kind == "f"
        if not steady and _SPLITS.search(s.name) and s.shape in ((), (1,)):
            how = "flag" if s.dtype == "bool" else "change"
            lines.append(f"# episodes: {{split: {how}, stream: {quoted(s.name)}, min_s: 1.0}}")
    if any(s.kind != "event" and (s.longest_s or 0) > 5 for s in streams):
        lines.append("# episodes: {split: gap, gap_s: 5.0, min_s: 1.0}  # there are such gaps")
    return lines


def _stream_lines(streams: Sequence[StreamFacts]) -> tuple[list[_Line], list[StreamFacts]]:
    cameras = [s for s in streams if s.is_picture]
    numbers = [s for s in streams if s.is_numbers and _is_state(s) and s.rate_hz]
    commands = [s for s in streams if s.is_numbers and s.kind == "command" and s.values >= 10]
    states = _states(numbers)
    lines = [_joined("observation.state", states)] if states else []
    if commands:
        lines.append(_joined("action", commands))
    elif states:
        lines.append(_next())
    for s in cameras:
        remark = _about(s)
        lines.append(
            _Line(plan_feature_name(plain_name(s.name), picture=True), quoted(s.name), remark)
        )
    used = {s.name for s in (*states, *commands, *cameras)}
    return _distinct(lines), [s for s in streams if s.name not in used]


def _rows_lines(
    streams: Sequence[StreamFacts], source: Source
) -> tuple[list[_Line], list[StreamFacts]]:
    names: dict[str, str] = {}
    observed = any(name.startswith("observation.") for name in source.features.values())
    for s in streams:
        if observed and s.name not in source.features and s.name in _SIMULATOR:
            continue
        if s.is_picture or (s.kind == "picture" and s.is_numeric) or s.is_numbers:
            usual = plan_feature_name(s.name, picture=s.kind == "picture")
            names[s.name] = source.features.get(s.name, usual)
    by_name = {s.name: s for s in streams}
    actions = [key for key in names if _ACTIONS.search(key)]
    if "action" not in names.values() and len(actions) == 1:
        names[actions[0]] = "action"
    lines, joined = [], []
    if "observation.state" not in names.values():
        joined = _states([by_name[key] for key, n in names.items() if by_name[key].is_numbers])
        lines = [_joined("observation.state", joined)] if joined else []
    inside = {s.name for s in joined}
    lines += [
        _Line(feature, quoted(key), _about(by_name[key]))
        for key, feature in names.items()
        if key not in inside
    ]
    features = {line.feature for line in lines}
    if "action" not in features and "observation.state" in features:
        lines.append(_next())
    return _distinct(lines), [s for s in streams if s.name not in names]


def _is_state(s: StreamFacts) -> bool:
    """Whole numbers and truths are events to many formats, also those of a gripper."""
    return s.kind == "state" or (s.kind == "event" and bool(_GRIPPERS.search(s.name)))


def _states(numbers: Sequence[StreamFacts]) -> list[StreamFacts]:
    """What a policy is likely to see of the robot."""
    likely = [s for s in numbers if _STATES.search(s.name) and not _NO_STATES.search(s.name)]
    return likely or [s for s in numbers if not _NO_STATES.search(s.name)]


def _joined(feature: str, streams: Sequence[StreamFacts]) -> _Line:
    if len(streams) == 1:
        return _Line(feature, _term(streams[0]), _about(streams[0]), _names(streams))
    parts = "".join(f"\n      - {_term(s)}  # {_about(s)}" for s in streams)
    return _Line(feature, parts, names=_names(streams))


def _names(streams: Sequence[StreamFacts]) -> tuple[str, ...]:
    """Names of all numbers, if each has one; with the stream's where they would be the same."""
    found: list[tuple[str, str]] = []
    for s in streams:
        size = math.prod(s.shape)
        if len(s.names) != size and size != 1:
            return ()
        own = s.names if len(s.names) == size else ("",)
        found += [(plain_name(s.name), name) for name in own]
    short = [name or stream for stream, name in found]
    if len(set(short)) < len(short):
        short = [f"{stream}.{name}" if name else stream for stream, name in found]
    return tuple(short) if len(set(short)) == len(short) <= _MOST_NAMES else ()


def _term(s: StreamFacts) -> str:
    """The stream; a command that is silent now and then holds until the next one."""
    if s.kind == "command" and s.gaps and s.longest_s and s.longest_s <= _MOST_SILENT_S:
        longest = math.ceil(s.longest_s * 12) / 10
        return f"{{stream: {in_quotes(s.name)}, max_gap_s: {longest:g}}}"
    return quoted(s.name)


def _next() -> _Line:
    return _Line(
        "action", "{next: observation.state}", "no command was found: the next step's state"
    )


def _distinct(lines: Sequence[_Line]) -> list[_Line]:
    """Names made different by numbers."""
    seen: dict[str, int] = {}
    out = []
    for line in lines:
        seen[line.feature] = seen.get(line.feature, 0) + 1
        again = f"_{seen[line.feature]}" if seen[line.feature] > 1 else ""
        out.append(replace(line, feature=line.feature + again))
    return out


def _feature_line(line: _Line) -> str:
    remark = f"  # {line.remark}" if line.remark else ""
    names = f"\n    names: [{', '.join(map(listed, line.names))}]" if line.names else ""
    if line.text.startswith("\n"):
        return f"  {key_word(line.feature)}:\n    from:{line.text}{names}"
    if line.text.startswith("{next"):
        return f"  {key_word(line.feature)}: {line.text}{remark}"
    return f"  {key_word(line.feature)}:\n    from: {line.text}{remark}{names}"


def _left_out(streams: Sequence[StreamFacts]) -> list[str]:
    if not streams:
        return []
    lines = ["# What is not used:"]
    for s in streams:
        if 0 in s.shape:
            continue
        name = key_word(plain_name(s.name).lstrip("."))
        lines.append(f"#   {name}: {{from: {quoted(s.name)}}}  # {_about(s)}")
    return lines


def _about(s: StreamFacts) -> str:
    shape = "x".join(map(str, s.shape)) or "1"
    words = [f"{s.type_name} {shape}"]
    if s.rate_hz and s.kind != "event":
        words.append(f"{s.rate_hz:.4g} Hz")
    if s.kind in ("command", "event"):
        words.append(s.kind)
    if s.kind == "command" and s.gaps:
        words.append(f"silent for up to {s.longest_s:.3g} s")
    if s.names and len(s.names) <= 10:
        words.append(" ".join(s.names))
    grippers = [i for i, name in enumerate(s.names) if "grip" in name.lower()]
    if grippers:
        words.append(f"gripper: {', '.join(f'[{i}]' for i in grippers)}")
    joints = re.search(r"joint|qpos|position|angle", s.name, re.I) and not _NO_STATES.search(s.name)
    if joints and s.high is not None and s.low is not None and max(s.high, -s.low) > 2 * math.pi:
        words.append(f"values from {s.low:.4g} to {s.high:.4g}: degrees? (degrees: to_rad)")
    return one_line("; ".join(words))
