"""The checks on real recordings, against what was measured of them independently."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from checks_helpers import ids

from dp_hub.dataset.checks import RULES, check
from dp_hub.dataset.checks.fix import fix
from dp_hub.dataset.convert import convert

ROOT = Path(__file__).resolve().parents[2]


def finding(report, id):
    return next(f for f in report.findings if f.id == id)


@pytest.fixture(scope="module")
def pusht(pusht_zip, tmp_path_factory):
    """All 206 demonstrations; pictures are left out, they have a test of their own."""
    target = tmp_path_factory.mktemp("pusht") / "ds"
    convert("zarr", pusht_zip, target, task="Push the T onto its place.", drop=["img"])
    return target


@pytest.fixture(scope="module")
def first5(pusht_first5_zip, tmp_path_factory):
    target = tmp_path_factory.mktemp("first5") / "ds"
    convert("zarr", pusht_first5_zip, target, task="Push the T onto its place.")
    return target


def test_pusht_is_as_it_was_measured_to_be(pusht):
    report = check(pusht)
    facts = report.facts
    assert not ids(report, "fail")
    assert ids(report, "warn") == {"CARD-002"}
    assert (report.n_episodes, report.n_frames) == (206, 25_650)
    lengths = [facts[f"{which}_episode"] for which in ("shortest", "median", "longest")]
    assert lengths == [49, 122, 246]
    assert (facts["action_leads_frames"], facts["episodes_with_that_lag"]) == (2, 206)
    assert facts["action_state_mean_distance"] == pytest.approx(14.75, abs=0.01)
    steps = [facts["max_step"][f"action.action_{d}"] for d in (0, 1)]
    assert steps == [135, 102]
    assert facts["angle_wraps"] == 91
    assert "wraps around 91 times" in finding(report, "NUM-007").what
    assert facts["idle_share_median"] == 0
    assert facts["idle_share_max"] < 0.11
    short = check(pusht, horizon=98, n_obs=2)
    assert len(finding(short, "EPI-001").episodes) == 53


@pytest.mark.alone
def test_pusht_takes_little_time(pusht):
    """0.2 s on an idle core; the bound is for busy machines."""
    began = time.process_time()
    check(pusht)
    assert time.process_time() - began < 3


def test_real_pictures_are_neither_black_nor_frozen(first5):
    report = check(first5)
    assert not ids(report, "fail")
    assert not {id for id in ids(report) if id.startswith("IMAGE")}
    assert report.facts["pictures"] == 738
    assert report.facts["identical_successive_pictures"] == 1
    assert report.facts["black_pictures"] == 0
    assert "SUM-006" not in ids(report), "every hash could be computed again"


def test_the_public_pusht_lacks_its_videos(shared_data, tmp_path):
    source = shared_data / "samples" / "lerobot_v30_pusht"
    report = check(source)
    assert ids(report, "fail") == {"VIDEO-001"}
    assert finding(report, "VIDEO-001").episodes == tuple(range(206))
    assert "videos/observation.image/chunk-000/file-000.mp4" in finding(report, "VIDEO-001").what
    assert {"CARD-001", "CARD-002"} == ids(report, "warn")
    assert finding(report, "STATS-006").severity == "info"
    assert report.facts["action_leads_frames"] == 2
    after = check(fix(source, tmp_path / "new", report).path)
    assert ids(after, "fail") == {"VIDEO-001"}
    assert not ids(after) & {"CARD-001", "SUM-003"}


def test_a_v21_recording_is_named_as_such(shared_data):
    report = check(shared_data / "samples" / "lerobot_v21_g1")
    assert ids(report, "fail") == {"STRUCT-002"}
    assert "dp-hub convert lerobot" in finding(report, "STRUCT-002").remedy


def test_a_folder_that_is_no_dataset_is_no_traceback(shared_data):
    report = check(shared_data / "samples" / "rlds_bridge")
    assert "STRUCT-001" in ids(report, "fail")
    assert report.unchecked


@pytest.mark.alone
def test_memory_does_not_grow_with_the_rows(pusht, tmp_path):
    """Six times the frames in episodes of the same length: a little more for each episode."""
    import subprocess
    import sys

    program = (
        "import resource, sys\n"
        "from dp_hub.dataset.checks import check\n"
        "check(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    big = tmp_path / "big"
    shutil.copytree(pusht, big)
    _repeat(big, 6)
    used = []
    for root in (pusht, big):
        result = subprocess.run(
            [sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=True
        )
        used.append(int(result.stdout))
    rows_mb = 25_650 * 5 * (2 + 5 + 18 + 1 + 5) * 8 / 1e6
    assert used[1] - used[0] < rows_mb, f"{used} MB; the added rows alone are {rows_mb:.0f} MB"


def _repeat(root, times):
    """The same rows over and over, episodes renumbered."""
    import pyarrow.parquet as pq

    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    with pq.ParquetWriter(path, table.schema) as writer:
        for i in range(times):
            part = table
            for name, step in (("index", 25_650), ("episode_index", 206)):
                at = part.schema.get_field_index(name)
                values = np.asarray(part[name]) + i * step
                part = part.set_column(at, part.schema.field(at), [values])
            writer.write_table(part)
    os.remove(root / "meta/dp_hub.json")


def test_the_page_shows_every_rule_as_it_is():
    page = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "-0" in line[:14]]
    assert len(rows) == len(RULES) >= 90
    for rule in RULES.values():
        mends = "yes" if rule.fixable else ""
        cells = (rule.id, rule.severity, rule.rule, rule.remedy, mends, rule.source)
        line = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        assert line.replace("|  |", "| |") in rows, f"docs/checks.md: {rule.id} is not\n{line}"
