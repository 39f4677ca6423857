"""Draws how streams followed the grid with matplotlib's objects, never its global state."""

import io

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dp_hub.dataset.overview_drawing import printable
from dp_hub.replay.timeline.alignment import AlignmentReport, StreamReport
from dp_hub.replay.timeline.offset_trace import OffsetTrace

_DPI, _WIDTH = 130, 9.0
_HEAD, _PANEL, _RUG, _SPACE, _FOOT = 0.62, 0.8, 0.12, 0.36, 0.42
_LEFT, _RIGHT = 0.95, 0.2
_MOST = 24  # streams
_INK, _QUIET, _LINE = "#1f2933", "#5f6c7b", "#d5dbe1"
_BAND, _LOUD, _DOUBLED, _GONE = "#8fb4dc", "#2f6fad", "#b8590b", "#8a1c5b"


def draw_alignment(report: AlignmentReport) -> bytes:
    """PNG: for each stream its offset over the dataset's time, below it where steps show a value
    again and where values are left out."""
    # Whatever a user's matplotlibrc says, the picture is the same.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        shown = [(name, one) for name, one in report.streams.items() if one.steps][:_MOST]
        height = _HEAD + len(shown) * (_PANEL + 2 * _RUG + _SPACE) + _FOOT
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        _draw_head(figure, report, len(shown), height)
        unit, divisor = ("s", 1.0) if report.steps / report.fps < 300 else ("min", 60.0)
        for row, (name, one) in enumerate(shown):
            top = _HEAD + row * (_PANEL + 2 * _RUG + _SPACE)
            last = row == len(shown) - 1
            _draw_stream(figure, name, one, report.fps * divisor, top, height, last=last)
        foot = f"{unit} of the dataset, one episode after the other"
        figure.text(0.5, 0.16 / height, foot, ha="center", va="center", color=_QUIET, fontsize=8)
        buffer = io.BytesIO()
        canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _draw_head(figure: Figure, report: AlignmentReport, shown: int, height: float) -> None:
    n, steps = report.episodes, report.steps
    title = f"{n:,} episode{'s' * (n != 1)}, {steps:,} steps at {report.fps:.6g} fps"
    more = sum(1 for one in report.streams.values() if one.steps) - shown
    if more > 0:
        title += f"; {more} more streams are in meta/alignment.json"
    at = _LEFT / _WIDTH
    figure.text(at, 1 - 0.2 / height, title, va="center", fontsize=10, weight="bold", color=_INK)
    words = "ms from the value used to the step: how old it is; the band is from least to most"
    figure.text(at, 1 - 0.4 / height, words, va="center", fontsize=8, color=_QUIET)


def _draw_stream(
    figure: Figure,
    name: str,
    one: StreamReport,
    steps_per_unit: float,
    top: float,
    height: float,
    *,
    last: bool,
) -> None:
    width = (_WIDTH - _LEFT - _RIGHT) / _WIDTH

    def axes(y: float, tall: float) -> Axes:
        return figure.add_axes((_LEFT / _WIDTH, 1 - (y + tall) / height, width, tall / height))

    edges = np.concatenate(([0], np.cumsum(one.trace.steps))) / steps_per_unit
    label = f"{printable(name)[-60:]}   {_told(one)}"
    y = top + 0.2
    figure.text(
        _LEFT / _WIDTH, 1 - (top + 0.1) / height, label,
        va="center", fontsize=8.5, color=_INK, parse_math=False,
    )  # fmt: skip
    panel = axes(y, _PANEL)
    _draw_band(panel, edges, one.trace)
    panel.tick_params(labelbottom=False, bottom=False)
    rugs = (("repeated", one.trace.repeated, _DOUBLED), ("dropped", one.trace.dropped, _GONE))
    for row, (what, counts, colour) in enumerate(rugs):
        rug = axes(y + _PANEL + row * _RUG, _RUG)
        _draw_rug(rug, edges, counts, one.trace.steps, colour)
        rug.set_ylabel(what, rotation=0, ha="right", va="center", fontsize=7.5, color=colour)
        rug.tick_params(labelbottom=last and row == 1, bottom=row == 1, labelsize=8)


def _told(one: StreamReport) -> str:
    rate = "" if one.rate_hz is None else f"{one.rate_hz:.4g} Hz, "
    most = max(one.offset_most_s, -one.offset_least_s)
    return (
        f"{one.method}, {rate}95 % within {_ms(one.offset_p95_s)} ms, all within {_ms(most)} ms; "
        f"{one.repeated:,} repeated, {one.dropped:,} dropped"
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.1f}" if abs(seconds) < 1 else f"{1000 * seconds:,.0f}"


def _draw_band(axes: Axes, edges: np.ndarray, trace: OffsetTrace) -> None:
    low, high = 1000 * trace.least_s, 1000 * trace.most_s
    axes.fill_between(
        edges, np.append(low, low[-1]), np.append(high, high[-1]),
        step="post", color=_BAND, linewidth=0,
    )  # fmt: skip
    axes.stairs(high, edges, color=_LOUD, linewidth=0.8, baseline=None)
    axes.stairs(low, edges, color=_LOUD, linewidth=0.8, baseline=None)
    axes.axhline(0, color=_QUIET, linewidth=0.6)
    axes.set_xlim(edges[0], edges[-1])
    room = 0.08 * max(float(high.max() - min(low.min(), 0)), 0.01)
    axes.set_ylim(min(float(low.min()), 0) - room, max(float(high.max()), 0.0) + room)
    axes.locator_params(axis="y", nbins=4)
    axes.tick_params(labelsize=8, colors=_QUIET)
    axes.set_ylabel("ms", fontsize=8, color=_QUIET)
    axes.grid(axis="y", color=_LINE, linewidth=0.5)
    for side in axes.spines.values():
        side.set_color(_LINE)


def _draw_rug(
    axes: Axes, edges: np.ndarray, counts: np.ndarray, steps: np.ndarray, colour: str
) -> None:
    """A bar for each piece, the darker the more; one of a thousand steps is still seen."""
    there = counts > 0
    alpha = np.where(there, 0.35 + 0.65 * np.minimum(counts / steps, 1), 0)
    least = (edges[-1] - edges[0]) / 900  # about a pixel
    wide = np.maximum(np.diff(edges), least)
    axes.bar(
        edges[:-1][there], 1.0, wide[there], align="edge", linewidth=0,
        color=[(*matplotlib.colors.to_rgb(colour), float(a)) for a in alpha[there]],
    )  # fmt: skip
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.tick_params(colors=_QUIET)
    for side in axes.spines.values():
        side.set_color(_LINE)
