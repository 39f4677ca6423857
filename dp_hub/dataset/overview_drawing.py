"""Draws the picture of a dataset with matplotlib's objects, never its global state."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle

from dp_hub.dataset.facts import duration
from dp_hub.dataset.overview import FRAMES_PER_ROW, Camera, Overview, Range, Strip, Traces

# Lengths are inches, y grows downward from the top of the picture.
_DPI = 160
_WIDTH, _MARGIN = 8.0, 0.2
_INK, _QUIET, _LINE, _PAPER = "#1f2933", "#5f6c7b", "#d5dbe1", "#ffffff"
_LIGHT, _DARK = "#bcd4ec", "#2f6fad"
_HEAD, _SECTION, _CAPTION, _GAP = 0.5, 0.3, 0.24, 0.05
_STRIP_GAP = 0.16
_TALLEST = 1.6
_RANGE_ROW, _MOST_RANGES = 0.215, 64
_BESIDE = 14  # up to so many ranges stand beside the histogram
_HISTOGRAM = 2.1
_TRACE = 1.35
_BINS = 30
_FONT = "DejaVu Sans"  # comes with matplotlib


def draw(overview: Overview) -> bytes:
    """The picture as PNG."""
    # Whatever a user's matplotlibrc says, the picture is the same.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        height = _height(overview)
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor=_PAPER)
        canvas = FigureCanvasAgg(figure)
        sheet = _Sheet(figure, canvas, height)
        y = _draw_head(sheet, overview)
        for camera in overview.cameras:
            y = _draw_camera(sheet, camera, y)
        if overview.n_more_cameras:
            y = _draw_note(sheet, f"and {overview.n_more_cameras} more cameras", y)
        if overview.traces is not None:
            y = _draw_traces(sheet, overview.traces, overview.fps, y)
        _draw_numbers(sheet, overview, y)
        buffer = io.BytesIO()
        canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


class _Sheet:
    """A page to write on in inches from the top left."""

    def __init__(self, figure: Figure, canvas: FigureCanvasAgg, height: float) -> None:
        self.figure, self.height = figure, height
        self.renderer = canvas.get_renderer()
        self.page = figure.add_axes((0, 0, 1, 1), zorder=0)
        self.page.set_xlim(0, _WIDTH)
        self.page.set_ylim(height, 0)
        self.page.axis("off")

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes of that size, the top left corner at ``(x, y)``."""
        below = 1 - (y + height) / self.height
        box = (x / _WIDTH, below, width / _WIDTH, height / self.height)
        return self.figure.add_axes(box, zorder=1)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 9,
        colour: str = _INK,
        align: str = "left",
        bold: bool = False,
        room: float | None = None,
    ) -> None:
        """Write on one line around ``y``; what does not fit into ``room`` is left out inside.

        Names of joints often differ at their ends only, so the end stays.
        """
        drawn = self.page.text(
            x, y, printable(words), ha=align, va="center", color=colour, parse_math=False,
            fontproperties=_font(size, bold=bold),
        )  # fmt: skip
        whole = printable(words)
        kept = len(whole)
        while room is not None and kept > 2 and self._width(drawn) > room:
            kept -= 1
            drawn.set_text(f"{whole[: kept - kept // 2]}…{whole[-(kept // 2) :]}")

    def _width(self, text: Any) -> float:
        return float(text.get_window_extent(self.renderer).width) / _DPI

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle."""
        self.page.add_patch(Rectangle((x, y), width, height, color=colour, linewidth=0))


def _font(size: float, *, bold: bool = False) -> FontProperties:
    return FontProperties(family=_FONT, size=size, weight="bold" if bold else "normal")


def printable(words: str) -> str:
    """``words`` on one line, with a box for what the font cannot show."""
    known = get_font(findfont(_font(9))).get_charmap()
    return "".join(c if ord(c) in known else "□" for c in " ".join(words.split()))


def _height(overview: Overview) -> float:
    height = _HEAD + sum(_camera_height(camera) for camera in overview.cameras)
    height += _CAPTION if overview.n_more_cameras else 0
    height += _traces_height(overview.traces) if overview.traces is not None else 0
    return height + _numbers_height(overview)


def _draw_head(sheet: _Sheet, overview: Overview) -> float:
    seconds = overview.n_frames / overview.fps
    n = len(overview.lengths)
    words = [f"{n:,} episode{'s' * (n != 1)}", _frames(overview.n_frames),
             f"{overview.fps:g} Hz", duration(seconds)]  # fmt: skip
    sheet.text(_MARGIN, 0.28, "   ·   ".join(words), size=11, bold=True)
    return _HEAD


def _frames(count: int) -> str:
    return f"{count:,} frame{'s' * (count != 1)}"


def _draw_section(sheet: _Sheet, title: str, note: str, x: float, y: float, room: float) -> float:
    sheet.text(x, y + 0.13, title, size=9.5, bold=True, room=room)
    if note:
        sheet.text(x, y + _SECTION + 0.05, note, size=8, colour=_QUIET, room=room)
    return y + _SECTION + (0.22 if note else 0)


def _draw_note(sheet: _Sheet, words: str, y: float) -> float:
    sheet.text(_MARGIN, y + 0.1, words, size=8.5, colour=_QUIET)
    return y + _CAPTION


def _cell_width() -> float:
    return (_WIDTH - 2 * _MARGIN - _STRIP_GAP - 4 * _GAP) / FRAMES_PER_ROW


def _picture_height(camera: Camera) -> float:
    picture = camera.rows[0][0].pictures[0]
    return min(_TALLEST, _cell_width() * picture.shape[0] / picture.shape[1])


def _camera_height(camera: Camera) -> float:
    if not camera.rows:
        return _SECTION + _CAPTION
    return _SECTION + len(camera.rows) * (_CAPTION + _picture_height(camera) + 0.06) + 0.06


def _draw_camera(sheet: _Sheet, camera: Camera, y: float) -> float:
    _draw_section(sheet, camera.name, "", _MARGIN, y, _WIDTH - 2 * _MARGIN)
    if not camera.rows:
        _draw_note(sheet, "its files are not here", y + _SECTION)
        return y + _camera_height(camera)
    below, height, cell = y + _SECTION, _picture_height(camera), _cell_width()
    for row in camera.rows:
        x = _MARGIN
        for strip in row:
            _draw_strip(sheet, strip, x, below, cell, height)
            x += 3 * cell + 2 * _GAP + _STRIP_GAP
        below += _CAPTION + height + 0.06
    return y + _camera_height(camera)


def _draw_strip(
    sheet: _Sheet, strip: Strip, x: float, y: float, cell: float, height: float
) -> None:
    numbers = ", ".join(map(str, strip.frames))
    words = f"episode {strip.episode}, frame{'s' * (len(strip.frames) > 1)} {numbers}"
    room = len(strip.pictures) * (cell + _GAP)
    sheet.text(x, y + 0.12, words, size=8.5, colour=_QUIET, room=max(room, 3 * cell))
    for picture in strip.pictures:
        axes = sheet.axes(x, y + _CAPTION, cell, height)
        axes.imshow(picture, interpolation="antialiased")
        axes.axis("off")
        x += cell + _GAP


def _traces_height(traces: Traces) -> float:
    return _SECTION + 0.22 + -(-len(traces.names) // 2) * (_TRACE + 0.55) + 0.05


def _draw_traces(sheet: _Sheet, traces: Traces, fps: float, y: float) -> float:
    n = len(traces.episodes)
    hidden = traces.n_dimensions - len(traces.names)
    note = f"a line for each of {n} episodes" if n > 1 else "one episode"
    note += f"; {hidden} more dimensions are not shown" if hidden else ""
    _draw_section(sheet, f"{traces.feature} over time", note, _MARGIN, y, _WIDTH - 2 * _MARGIN)
    top, width = y + _SECTION + 0.22, (_WIDTH - 2 * _MARGIN) / min(2, len(traces.names))
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, n))
    for d, name in enumerate(traces.names):
        x, row = _MARGIN + d % 2 * width, top + d // 2 * (_TRACE + 0.55)
        sheet.text(x + 0.55, row + 0.02, name, size=8.5, room=width - 0.6)
        axes = sheet.axes(x + 0.55, row + 0.14, width - 0.65, _TRACE)
        for values, colour in zip(traces.episodes, colours, strict=True):
            marker = "." if len(values) == 1 else None
            axes.plot(np.arange(len(values)) / fps, values[:, d], color=colour, lw=0.9,
                      alpha=0.8, marker=marker)  # fmt: skip
        _tidy(axes, n_x=5, n_y=4)
        sheet.text(x + width - 0.1, row + _TRACE + 0.43, "time [s]", size=8, colour=_QUIET,
                   align="right")  # fmt: skip
    return y + _traces_height(traces)


def _tidy(axes: Axes, *, n_x: int, n_y: int, whole: bool = False) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(n_x, integer=whole))
    axes.yaxis.set_major_locator(MaxNLocator(n_y, integer=whole))
    axes.tick_params(labelsize=7.5, labelcolor=_QUIET, color=_LINE, length=2.5, pad=2)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useOffset=False)
    axes.yaxis.get_offset_text().set_fontproperties(_font(7))
    axes.grid(axis="y", color=_LINE, lw=0.5)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_LINE)


def _shown_ranges(overview: Overview) -> Sequence[Range]:
    return overview.ranges[:_MOST_RANGES]


def _beside(overview: Overview) -> bool:
    return 0 < len(overview.ranges) <= _BESIDE


def _ranges_height(n_ranges: int, *, cut: bool) -> float:
    return _SECTION + 0.22 + n_ranges * _RANGE_ROW + (_CAPTION if cut else 0)


def _histogram_height() -> float:
    return _SECTION + 0.22 + _HISTOGRAM


def _numbers_height(overview: Overview) -> float:
    shown = len(_shown_ranges(overview))
    cut = shown < len(overview.ranges)
    if not shown:
        return _SECTION + _histogram_height() + 0.1
    if _beside(overview):
        return max(_ranges_height(shown, cut=cut), _histogram_height()) + 0.15
    return _ranges_height(-(-shown // 2), cut=cut) + 0.2 + _histogram_height() + 0.1


def _draw_numbers(sheet: _Sheet, overview: Overview, y: float) -> None:
    whole = _WIDTH - 2 * _MARGIN
    if not overview.ranges:
        _draw_note(sheet, "no statistics of an action in meta/stats.json", y)
        _draw_histogram(sheet, overview, _MARGIN, y + _SECTION, whole)
        return
    if _beside(overview):
        half = whole * 0.56
        _draw_ranges(sheet, overview, y, half, columns=1)
        _draw_histogram(sheet, overview, _MARGIN + half + 0.35, y, whole - half - 0.35)
        return
    below = _draw_ranges(sheet, overview, y, whole, columns=2)
    _draw_histogram(sheet, overview, _MARGIN, below + 0.2, whole)


def _draw_ranges(
    sheet: _Sheet, overview: Overview, y: float, width: float, *, columns: int
) -> float:
    shown = _shown_ranges(overview)
    quantiles = any(r.q01 is not None for r in shown)
    note = "light: minimum to maximum" + ("; dark: 1 % to 99 % of the frames" if quantiles else "")
    top = _draw_section(sheet, f"range of {overview.ranges_of}", note, _MARGIN, y, width)
    per_column = -(-len(shown) // columns)
    room = (width - 0.3 * (columns - 1)) / columns
    for i, one in enumerate(shown):
        column, row = divmod(i, per_column)
        _draw_range(sheet, one, _MARGIN + column * (room + 0.3), top + row * _RANGE_ROW, room)
    y = top + per_column * _RANGE_ROW
    hidden = len(overview.ranges) - len(shown)
    return _draw_note(sheet, f"and {hidden} more dimensions", y) if hidden else y


def _draw_range(sheet: _Sheet, one: Range, x: float, y: float, width: float) -> None:
    middle, label, number = y + _RANGE_ROW / 2, min(1.35, 0.32 * width), 0.62
    sheet.text(x, middle, one.name, size=8, room=label - 0.06)
    sheet.text(x + label + number - 0.06, middle, _short(one.low), size=8, align="right")
    sheet.text(x + width - number + 0.06, middle, _short(one.high), size=8)
    left, room = x + label + number, width - label - 2 * number
    span = one.high - one.low
    if span <= 0:
        sheet.box(left + room / 2 - 0.01, y + 0.04, 0.02, _RANGE_ROW - 0.08, _DARK)
        return
    sheet.box(left, y + 0.055, room, _RANGE_ROW - 0.11, _LIGHT)
    if one.q01 is not None and one.q99 is not None:
        start = np.clip((one.q01 - one.low) / span, 0, 1)
        stop = np.clip((one.q99 - one.low) / span, start, 1)
        wide = max(room * float(stop - start), 0.015)
        sheet.box(left + room * float(start), y + 0.055, wide, _RANGE_ROW - 0.11, _DARK)


def _short(value: float) -> str:
    words = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return words.replace("-", "−")


def _draw_histogram(sheet: _Sheet, overview: Overview, x: float, y: float, width: float) -> None:
    lengths, fps = overview.lengths, overview.fps
    low, high, median = int(lengths.min()), int(lengths.max()), float(np.median(lengths))
    note = f"{low:,} to {high:,} frames, median {median:,.4g} ({median / fps:.3g} s)"
    if low == high:
        note = f"{'all ' * (len(lengths) > 1)}{_frames(low)} ({low / fps:.3g} s)"
    top = _draw_section(sheet, "length of episodes", note, x, y, width)
    axes = sheet.axes(x + 0.45, top + 0.08, width - 0.5, _HISTOGRAM - 0.6)
    step = max(1, -(-(high - low + 1) // _BINS))  # whole frames to a bar
    edges = (np.arange(low, high + step + 1, step) - 0.5).tolist()
    axes.hist(lengths, bins=edges, color=_DARK, rwidth=0.9)
    if low == high:
        axes.set_xlim(max(0, low - 5), high + 5)
    _tidy(axes, n_x=6, n_y=4, whole=True)
    sheet.text(x + width - 0.05, top + _HISTOGRAM - 0.2, "frames", size=8, colour=_QUIET,
               align="right")  # fmt: skip
    sheet.text(x + 0.45, top + _HISTOGRAM - 0.2, "up: episodes", size=8, colour=_QUIET)
