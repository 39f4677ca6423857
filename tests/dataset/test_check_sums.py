"""Bytes and contents that are not those that were written."""

import shutil

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checks_helpers import (
    as_others_write,
    copy,
    edit_data,
    edit_json,
    examined,
    healthy_episodes,
    ids,
    write_episodes,
)

from dp_hub.dataset.checks.fix import fix
from dp_hub.dataset.checksums import PATH, covered_files, encode_checksums, file_sum
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.errors import DataError
from dp_hub.hub import pull, push

N_FLIPS = 200


def seal(root):
    files = {name: file_sum(root / name) for name in covered_files(root)}
    (root / PATH).write_bytes(encode_checksums(files))
    return root


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A small dataset of dp_hub's with pictures, and its checksums."""
    root = tmp_path_factory.mktemp("sums") / "sealed"
    return seal(write_episodes(root, healthy_episodes()[:3]))


@pytest.fixture(scope="module")
def sealed_video(tmp_path_factory):
    root = tmp_path_factory.mktemp("sums") / "video"
    return seal(write_episodes(root, healthy_episodes(32)[:2], images="video"))


def test_a_sealed_dataset_passes(sealed):
    report = examined(sealed)
    assert not report.findings and report.verdict == "pass"


@pytest.mark.parametrize("which", ["sealed", "sealed_video"])
def test_any_flipped_byte_is_found(request, tmp_path, which):
    """One byte of one file at a time, at random, weighted so that every file has its turn."""
    root = copy(request.getfixturevalue(which), tmp_path / "ds")
    rng = np.random.default_rng(20261124)
    files = [*covered_files(root), PATH]
    hit: dict[str, int] = {}
    for i in range(N_FLIPS // 2):
        name = files[i % len(files)]
        path = root / name
        whole = path.read_bytes()
        at, bit = int(rng.integers(len(whole))), int(rng.integers(1, 256))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        report = examined(root)
        assert report.failed(), f"byte {at} of {name} xor {bit} was not seen"
        assert ids(report) & {"SUM-001", "SUM-002"}
        hit[name] = hit.get(name, 0) + 1
        path.write_bytes(whole)
    assert sum(hit.values()) == N_FLIPS // 2 and len(hit) == len(files) >= 6
    assert not examined(root).failed()


def test_a_missing_and_a_foreign_file_are_found_and_not_mended(sealed, tmp_path):
    root = copy(sealed, tmp_path / "ds")
    (root / "meta/stats.json").unlink()
    (root / "meta/notes.txt").write_text("hello")
    report = examined(root)
    what = next(f.what for f in report.findings if f.id == "SUM-001")
    assert "meta/stats.json: it is missing" in what and "meta/notes.txt: it is not in" in what
    with pytest.raises(DataError, match="SUM-001"):
        fix(root, tmp_path / "new", report)


def test_a_changed_value_breaks_the_hash_of_its_episode(sealed, tmp_path):
    """Checksums can be made anew by whoever changes the file; the episode's hash stays behind."""
    root = copy(sealed, tmp_path / "ds")

    def change(table):
        values = table["observation.state"].to_pylist()
        values[40] = [values[40][0] + 1e-3, *values[40][1:]]
        at = table.schema.get_field_index("observation.state")
        kind = table.schema.field("observation.state").type
        return table.set_column(at, "observation.state", pa.array(values, kind))

    edit_data(root, change)
    seal(root)
    report = examined(root)
    assert next(f for f in report.findings if f.id == "SUM-005").episodes == (1,)
    with pytest.raises(DataError, match="SUM-005"):
        fix(root, tmp_path / "new", report)


def test_a_changed_picture_or_task_breaks_the_hash_too(sealed, tmp_path):
    root = copy(sealed, tmp_path / "pictures")

    def change(table):
        values = table["observation.image"].to_pylist()
        values[3] = values[0]
        at = table.schema.get_field_index("observation.image")
        return table.set_column(
            at, "observation.image", pa.array(values, table.schema.field(at).type)
        )

    edit_data(root, change)
    assert next(f for f in examined(seal(root)).findings if f.id == "SUM-005").episodes == (0,)
    root = copy(sealed, tmp_path / "task")
    path = root / "meta/tasks.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("task")
    texts = pa.array(["push the block", "lift the block"])
    pq.write_table(table.set_column(at, "task", texts), path)
    assert next(f for f in examined(seal(root)).findings if f.id == "SUM-005").episodes == (1,)


def test_a_fingerprint_of_something_else_is_found(sealed, tmp_path):
    root = copy(sealed, tmp_path / "ds")
    edit_json(root, "meta/dp_hub.json", lambda v: v.update(fingerprint="0" * 64))
    assert ids(examined(seal(root)), "fail") == {"SUM-004"}


def test_hashes_that_cannot_be_computed_are_said_so(sealed, tmp_path):
    root = copy(sealed, tmp_path / "ds")

    def change(table):
        values = table["observation.image"].to_pylist()
        values[3]["bytes"] = b""
        at = table.schema.get_field_index("observation.image")
        return table.set_column(
            at, "observation.image", pa.array(values, table.schema.field(at).type)
        )

    edit_data(root, change)
    report = examined(seal(root))
    assert ids(report, "fail") == {"IMAGE-001"}
    assert "SUM-006" in ids(report, "info")


def test_a_pulled_folder_is_compared_with_the_hub(sealed, tmp_path, local_hub):
    push(copy(sealed, tmp_path / "ds"), "me/ds", license="mit")
    root = pull("me/ds", to=tmp_path / "pulled").path
    assert not ids(examined(root)) & {"SUM-007", "SUM-008", "SUM-009"}
    (root / "README.md").write_text((root / "README.md").read_text() + "more words")
    report = examined(root)
    assert not ids(report, "fail") and "SUM-008" in ids(report, "warn")
    edit_json(root, "meta/stats.json", lambda v: v["action"].update(count=[1]))
    assert "SUM-007" in ids(examined(root), "fail")


def test_a_dataset_that_was_added_to_is_newer_and_not_damaged(sealed, tmp_path, local_hub):
    push(copy(sealed, tmp_path / "ds"), "me/ds", license="mit")
    root = pull("me/ds", to=tmp_path / "pulled").path
    with DatasetWriter.resume(root) as writer:
        writer.finish()
    edit_json(root, "meta/info.json", lambda v: v.update(robot_type="another"))
    report = examined(seal(root))
    assert "SUM-007" not in ids(report) and "SUM-009" in ids(report, "info")


def test_fix_keeps_hashes_that_still_hold(sealed, tmp_path):
    root = copy(sealed, tmp_path / "ds")
    edit_json(root, "meta/info.json", lambda v: v.update(total_tasks=9))
    seal(root)
    report = examined(root)
    assert ids(report, "fail") == {"STRUCT-007"}
    after = examined(fix(root, tmp_path / "new", report).path)
    assert not after.findings


def test_hashes_that_cover_videos_are_those_of_the_packets(sealed_video, tmp_path):
    assert not ids(examined(sealed_video)) & {"SUM-005", "SUM-006"}
    root = copy(sealed_video, tmp_path / "ds")
    [path] = root.rglob("*.mp4")
    with av.open(str(path)) as container:
        packet = list(container.demux(container.streams.video[0]))[10]
        at = packet.pos + packet.size - 1
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    assert "SUM-005" in ids(examined(seal(root)), "fail")


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """A flipped byte, a file cut short, a block of zeros or nothing at all."""
    at = int(rng.integers(len(whole)))
    kind = rng.integers(4)
    if kind < 2:
        return whole[:at] + bytes([whole[at] ^ int(rng.integers(1, 256))]) + whole[at + 1 :]
    if kind == 2:
        return whole[:at]
    return whole[:at] + bytes(100) + whole[at + 100 :]


@pytest.mark.parametrize("images", ["webp", "video"])
def test_without_checksums_damage_gives_findings_or_a_refusal_but_no_traceback(tmp_path, images):
    base = as_others_write(
        write_episodes(tmp_path / "base", healthy_episodes(32)[:2], images=images)
    )
    rng = np.random.default_rng(5)
    files = sorted(path.relative_to(base) for path in base.rglob("*") if path.is_file())
    root, new = tmp_path / "ds", tmp_path / "new"
    failed = mended = 0
    for i in range(30):
        copy(base, root)
        path = root / files[i % len(files)]
        path.write_bytes(damaged(path.read_bytes(), rng))
        report = examined(root)
        failed += report.failed()
        try:
            fix(root, new, report)
            mended += 1
            examined(new)
            shutil.rmtree(new)
        except DataError:
            assert not new.exists()
        shutil.rmtree(root)
    assert failed >= 10 and mended >= 10
