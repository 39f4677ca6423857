"""What `dp-hub convert` tells of time: a table, meta/alignment.json and meta/alignment.png.

A dataset that was made from streams keeps how they were put on its grid, so that whoever trains on
it can see how old its pictures are.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dp_hub.config import read_json
from dp_hub.errors import ConfigError, DataError
from dp_hub.replay.timeline.alignment import AlignmentReport, StreamReport

JSON_PATH = "meta/alignment.json"
PICTURE_PATH = "meta/alignment.png"
_HEAD = ("stream", "method", "Hz", "jitter", "gaps", "mean", "95 %", "most", "repeated", "dropped")
_LATE_S = 0.5  # less at an end of a recording is not told


def encode_report(report: AlignmentReport) -> bytes:
    """The bytes of meta/alignment.json."""
    return (json.dumps(report.to_json()) + "\n").encode()


def read_report(root: Path) -> AlignmentReport | None:
    """The report that a dataset keeps; None if there is none.

    Raises:
        DataError: it is no report.
    """
    if not (root / JSON_PATH).exists():
        return None
    try:
        return AlignmentReport.from_json(read_json(root / JSON_PATH))
    except ConfigError as error:
        raise DataError(error.message) from None
    except DataError as error:
        raise DataError(f"{root / JSON_PATH}: {error.message}", hint=error.hint) from None


def report_files(report: AlignmentReport) -> dict[str, bytes]:
    """The files that a dataset keeps of a report, by their path in it."""
    from dp_hub.dataset.conversion.alignment_drawing import draw_alignment

    return {JSON_PATH: encode_report(report), PICTURE_PATH: draw_alignment(report)}


def report_table(report: AlignmentReport) -> list[str]:
    """The report as lines of text for a terminal.

    Times are milliseconds. An offset is the time of a step less the time of the value used: the
    value's age.
    """
    rows = [_HEAD, *(_cells(name, one) for name, one in report.streams.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = [_line(row, widths) for row in rows]
    before = sum(widths[:5]) + 2 * 5
    title = "ms from value to step".center(sum(widths[5:8]) + 4)
    head = f"{_count(report.episodes, 'episode')}, {_count(report.steps, 'step')} "
    head += f"at {report.fps:.6g} fps"
    first = head.ljust(before) if len(head) < before else f"{head}\n{'':{before}}"
    return [*f"{first}{title}".rstrip().split("\n"), *lines, *report_notes(report)]


def report_notes(report: AlignmentReport) -> Iterator[str]:
    """What stands out, a sentence each: latencies, gaps, what was left out or is doubled."""
    for name, one in report.streams.items():
        yield from _stream_notes(name, one)
    if report.rejected:
        named = ", ".join(report.rejected[:3]) + ", ..." * (len(report.rejected) > 3)
        yield f"left out because of gaps: {named}"
    if report.n_left_out:
        more = f", and {report.n_left_out - 3} more" * (report.n_left_out > 3)
        yield f"no episode became of {'; '.join(report.left_out[:3])}{more}"
    if report.gaps:
        recording, gap = max(report.gaps, key=lambda pair: pair[1].length_s)
        yield (
            f"longest gap: {gap.stream} in {recording}, {gap.length_s:.3f} s from "
            f"{gap.start_s:.3f} s"
        )


def _stream_notes(name: str, one: StreamReport) -> Iterator[str]:
    if one.latency_s:
        yield f"{name}: {1000 * one.latency_s:g} ms of latency were taken off its times"
    if one.late_s > _LATE_S:
        yield f"{name} begins up to {one.late_s:.1f} s after other streams: that is left out"
    if one.early_s > _LATE_S and one.method != "hold":
        yield f"{name} ends up to {one.early_s:.1f} s before other streams: that is left out"
    if one.offset_least_s < -1e-6:
        yield f"{name} uses values up to {-1000 * one.offset_least_s:.1f} ms from after their step"
    if one.steps and one.offset_most_s > 2 * one.offset_p95_s and one.offset_most_s > 0.1:
        yield f"{name}: the oldest value, {1000 * one.offset_most_s:,.0f} ms, is in {one.worst}"


def _cells(name: str, one: StreamReport) -> tuple[str, ...]:
    offsets = (one.offset_mean_s, one.offset_p95_s, max(one.offset_most_s, -one.offset_least_s))
    return (
        name,
        one.method,
        "-" if one.rate_hz is None else f"{one.rate_hz:.4g}",
        "-" if one.jitter_s is None else _ms(one.jitter_s),
        str(one.gaps),
        *(_ms(offset) if one.steps else "-" for offset in offsets),
        _share(one.repeated, one.steps),
        _share(one.dropped, one.values),
    )


def _ms(seconds: float) -> str:
    seconds = round(seconds, 4) + 0.0  # not -0.0
    return f"{1000 * seconds:,.1f}" if abs(seconds) < 1 else f"{1000 * seconds:,.0f}"


def _share(count: int, of: int) -> str:
    if not count or not of:
        return f"{count:,}"
    share = 100 * count / of
    return f"{count:,} ({'<1' if share < 1 else round(share)} %)"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _line(row: Any, widths: list[int]) -> str:
    words = [cell.ljust(w) for cell, w in zip(row[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(w) for cell, w in zip(row[2:], widths[2:], strict=True)]
    return "  ".join([*words, *numbers]).rstrip()
