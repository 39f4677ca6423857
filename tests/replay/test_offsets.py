"""What is reported of following: counts, offsets, sums, JSON."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams_made import T0, camera, follows_of, numbered, on_grid, sorted_times, with_gap

from dp_hub.errors import DataError
from dp_hub.replay.timeline import (
    AlignmentReport,
    Follow,
    find_grids,
    follow,
    report_episode,
    report_recording,
)


@settings(max_examples=100)
@given(
    times=sorted_times,
    fps=st.sampled_from([3, 10, 30]),
    method=st.sampled_from(["hold", "nearest", "linear"]),
)
def test_counts_are_those_of_counting(times: np.ndarray, fps: int, method: Any) -> None:
    followed = on_grid(numbered(times), Follow(method), fps)
    used: set[int] = set()
    shown: list[int] = []
    for k, number in enumerate(followed.index.tolist()):
        used.add(number)
        if followed.weight is not None and followed.weight[k] > 0:
            used.add(number + 1)
        shown.append(number)
    again = sum(a == b for a, b in pairwise(shown))
    assert followed.repeated == (0 if method == "linear" else again)
    assert followed.dropped == max(used) - min(used) + 1 - len(used)
    one = report_episode("e", {"/x": followed}, fps=float(fps)).streams["/x"]
    assert (one.repeated, one.dropped) == (followed.repeated, followed.dropped)
    assert one.values == max(used) - min(used) + 1
    assert one.steps == len(shown) == int(one.trace.steps.sum())
    assert one.trace.repeated.sum() == one.repeated and one.trace.dropped.sum() == one.dropped
    offset = followed.offset_s
    assert one.offset_mean_s == pytest.approx(offset.mean(), abs=1e-9)
    assert (one.offset_least_s, one.offset_most_s) == (offset.min(), offset.max())
    exact = np.quantile(np.abs(offset), 0.95, method="inverted_cdf")
    assert exact - 1e-6 <= one.offset_p95_s <= 1.051 * exact + 1e-6


def test_rate_and_jitter_are_those_of_the_source() -> None:
    rng = np.random.default_rng(0)
    times = T0 + np.arange(5000) / 50 + rng.normal(0, 0.001, 5000)
    one = report_episode("e", {"/x": on_grid(numbered(times), Follow("linear"))}, fps=30).streams[
        "/x"
    ]
    assert one.rate_hz == pytest.approx(50, rel=1e-3)
    assert one.jitter_s == pytest.approx(np.diff(times).std(), rel=1e-2)
    assert one.longest_s == np.diff(times).max()


def some_reports(count: int) -> list[AlignmentReport]:
    rng = np.random.default_rng(0)
    reports = []
    for number in range(count):
        times = T0 + np.cumsum(rng.uniform(0.02, 0.06, 400))
        streams = {"/cam": camera(times), "/arm": numbered(T0 + np.arange(3000) / 100)}
        follows = follows_of(streams)
        grids, gaps = find_grids(streams, follows, 30)
        name = f"bag_{number}"
        reports.append(report_recording(name, streams, follows, gaps, fps=30.0))
        reports += [
            report_episode(
                name, {n: follow(s, g, follows[n]) for n, s in streams.items()}, fps=30.0
            )
            for g in grids
        ]
    return reports


def test_reports_add_up_and_stay_small() -> None:
    reports = some_reports(20)
    total = reports[0]
    for part in reports[1:]:
        total = total.then(part)
    cams = [r.streams["/cam"] for r in reports if r.episodes]
    cam = total.streams["/cam"]
    assert total.episodes == len(cams) == 20
    assert total.steps == sum(one.steps for one in cams) > 8000
    assert cam.repeated == sum(one.repeated for one in cams) > 0
    assert cam.dropped == sum(one.dropped for one in cams) > 0
    assert cam.offset_most_s == max(one.offset_most_s for one in cams)
    oldest = max((r for r in reports if r.episodes), key=lambda r: r.streams["/cam"].offset_most_s)
    assert cam.worst == oldest.streams["/cam"].worst
    assert len(cam.trace.steps) <= 512
    assert cam.trace.steps.sum() == cam.steps and cam.trace.repeated.sum() == cam.repeated
    assert cam.trace.least_s.min() == pytest.approx(cam.offset_least_s, abs=1e-7)
    assert (cam.trace.most_s - cam.trace.least_s).min() > 0.005  # of many steps each
    assert cam.trace.most_s.max() == pytest.approx(cam.offset_most_s, abs=1e-7)
    assert len(json.dumps(total.to_json())) < 100_000


def test_json_brings_a_report_back_and_adding_goes_on_as_if_nothing_had_been() -> None:
    reports = some_reports(6)
    whole = kept = reports[0]
    for part in reports[1:]:
        whole = whole.then(part)
        kept = AlignmentReport.from_json(json.loads(json.dumps(kept.to_json()))).then(
            AlignmentReport.from_json(json.loads(json.dumps(part.to_json())))
        )
    assert json.dumps(kept.to_json()) == json.dumps(whole.to_json())


@pytest.mark.parametrize("damage", ["fps", "streams", "steps", "trace", "ages", "gaps"])
def test_json_that_is_no_report_is_refused(damage: str) -> None:
    kept = some_reports(1)[1].to_json()
    for place in (kept, kept["streams"]["/cam"]):
        if damage in place:
            place[damage] = "x"
    with pytest.raises(DataError, match="no report"):
        AlignmentReport.from_json(kept)


def test_gaps_and_late_streams_are_in_the_report_of_a_recording() -> None:
    streams = with_gap()
    streams["/late"] = numbered(np.arange(1, 9, 0.01))
    follows = follows_of(streams)
    grids, gaps = find_grids(streams, follows, 10, on_gap="reject")
    report = report_recording("bag", streams, follows, gaps, fps=10.0, rejected=not grids)
    assert report.rejected == ("bag",) and report.gaps == (("bag", gaps[0]),)
    cam, late = report.streams["/cam"], report.streams["/late"]
    assert (cam.gaps, cam.gaps_s, cam.longest_gap_s) == (1, *[pytest.approx(2.1)] * 2)
    assert late.late_s == pytest.approx(1.0) and late.early_s == pytest.approx(1.0)
    assert late.gaps == 0 and report.episodes == 0 and report.steps == 0
