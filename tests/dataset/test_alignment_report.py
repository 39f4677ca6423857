"""The report of time as people see it: a table, notes, JSON and a picture."""

import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from dp_hub.dataset.conversion import alignment_drawing
from dp_hub.dataset.conversion.alignment_drawing import draw_alignment
from dp_hub.dataset.conversion.alignment_report import (
    JSON_PATH,
    PICTURE_PATH,
    read_report,
    report_files,
    report_table,
)
from dp_hub.errors import DataError
from dp_hub.replay.recording import Stream
from dp_hub.replay.timeline import (
    AlignmentReport,
    Follow,
    default_follow,
    find_grids,
    follow,
    report_episode,
    report_recording,
)


def recorded(*, lost: int = 3) -> AlignmentReport:
    """A camera that loses frames, an arm at 100 Hz, a late command, a gripper now and then."""
    times = 50 + np.arange(300) / 30
    seen = np.delete(times, [50, 51, 120][:lost])
    streams = {
        "/cam": Stream(np.zeros((len(seen), 2, 2, 3), np.uint8), seen, "picture"),
        "/arm": Stream(np.arange(1000.0), 50 + np.arange(1000) / 100),
        "/goal": Stream(np.arange(400.0), 52 + np.arange(400) / 50 + 0.02, "command"),
        "/grip": Stream(np.arange(2), np.array([50.0, 55.0]), "event"),
    }
    follows = {name: default_follow(stream) for name, stream in streams.items()}
    follows["/goal"] = Follow("nearest", latency_s=0.02)
    grids, gaps = find_grids(streams, follows, 30)
    report = report_recording("bag_7", streams, follows, gaps, fps=30.0)
    for grid in grids:
        followed = {name: follow(stream, grid, follows[name]) for name, stream in streams.items()}
        report = report.then(report_episode("bag_7", followed, fps=30.0))
    return report


def test_the_table_says_what_was_done() -> None:
    lines = report_table(recorded())
    rows = {line.split()[0]: line.split() for line in lines}
    assert lines[0].startswith("1 episode, 240 steps at 30 fps")
    assert rows["/cam"][1:5] == ["hold", "29.87", "2.2", "0"]
    assert rows["/cam"][-4:] == ["1", "(<1", "%)", "0"]
    assert rows["/arm"][1:5] == ["linear", "100", "0.0", "0"]
    assert rows["/grip"][1:3] == ["hold", "0.2"]
    assert "/goal: 20 ms of latency were taken off its times" in lines
    assert "/goal begins up to 2.0 s after other streams: that is left out" in lines
    assert "/goal uses values up to 6.7 ms from after their step" in lines
    assert not any(line.endswith(" ") for line in lines)


def test_a_gap_that_was_cut_out_is_named() -> None:
    report = recorded()
    assert not any("longest gap" in line for line in report_table(report))
    times = np.concatenate([np.arange(0, 2, 0.1), np.arange(5, 8, 0.1)])
    streams = {"/cam": Stream(np.zeros((len(times), 2, 2, 3), np.uint8), times, "picture")}
    follows = {"/cam": default_follow(streams["/cam"])}
    _, gaps = find_grids(streams, follows, 10, on_gap="reject")
    rejected = report_recording("bag_8", streams, follows, gaps, fps=10.0, rejected=True)
    lines = report_table(report.then(rejected))
    assert "longest gap: /cam in bag_8, 3.100 s from 1.900 s" in lines
    assert "left out because of gaps: bag_8" in lines
    assert report_table(rejected)[0].startswith("0 episodes, 0 steps")


def test_what_became_no_episode_is_told() -> None:
    streams = {"/joints": Stream(np.zeros((20, 2)), np.arange(20) / 10)}
    follows = {"/joints": default_follow(streams["/joints"])}
    why = [f"0.{i} s, shorter than min_s (1)" for i in range(5)]
    part = report_recording("bag_8", streams, follows, [], fps=10.0, left_out=why)
    report = recorded().then(part).then(AlignmentReport.from_json(part.to_json()))
    assert report.n_left_out == 10 and len(report.left_out) == 10
    told = "; ".join(f"bag_8: {one}" for one in why[:3])
    assert f"no episode became of {told}, and 7 more" in report_table(report)


def test_the_files_hold_the_report(tmp_path: Path) -> None:
    report = recorded()
    files = report_files(report)
    assert set(files) == {JSON_PATH, PICTURE_PATH}
    assert files == report_files(AlignmentReport.from_json(report.to_json()))  # byte by byte
    assert read_report(tmp_path) is None
    (tmp_path / "meta").mkdir()
    (tmp_path / JSON_PATH).write_bytes(files[JSON_PATH])
    read = read_report(tmp_path)
    assert read is not None and read.to_json() == report.to_json()


@pytest.mark.parametrize("damaged", [b"", b"[]", b"{", b'{"fps": 30}', b"\xff\xfe"])
def test_a_damaged_report_is_said(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / JSON_PATH).write_bytes(damaged)
    with pytest.raises(DataError, match=r"alignment\.json"):
        read_report(tmp_path)


def test_the_picture_shows_every_stream_and_is_the_same_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = recorded()
    data = draw_alignment(report)
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30}):
        assert draw_alignment(report) == data
    heights = []
    monkeypatch.setattr(alignment_drawing, "_MOST", 3)
    for count in (1, 2, 3, 5):  # of five, three are drawn
        many = {f"/x{k} $a_b$ 手": report.streams["/cam"] for k in range(count)}
        with Image.open(io.BytesIO(draw_alignment(AlignmentReport(30.0, 1, many)))) as picture:
            heights.append(picture.size[1])
    assert heights[0] < heights[1] < heights[2] == heights[3]
    nothing = Image.open(io.BytesIO(draw_alignment(AlignmentReport(30.0))))
    assert nothing.size[0] > 500


def test_what_is_repeated_is_marked_and_only_that() -> None:
    def marks(report: AlignmentReport) -> int:
        camera = AlignmentReport(30.0, 1, {"/cam": report.streams["/cam"]})
        with Image.open(io.BytesIO(draw_alignment(camera))) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        right = pixels[:, 200:]  # without the words at the left
        return int(((right[..., 0] - right[..., 2] > 60) & (right[..., 0] > 150)).sum())

    assert marks(recorded(lost=0)) == 0
    assert marks(recorded()) > 10
