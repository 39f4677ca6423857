"""Conversion and export of real and made-up replay buffers, whole and in bounded memory."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from dp_hub.dataset.convert import convert
from dp_hub.dataset.exporting.zarr import export_zarr
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError
from dp_hub.replay.buffer import open_replay, write_replay

SUMS = {
    "action": "6691b085749144b8db1aede97a80fb380afd08953fcd03660b441d0ffe9d6a8f",
    "state": "dcdc539bfdba9fc01cba8d2fe91cc580539ec046a88b0ffbe91be5511948d4dc",
    "keypoint": "2419980734c1d41050f8fbf7513031e6e784168bafbe42bcec81fdebe44c6611",
    "img": "3f7650895d1a500d7162b10475df689731f4fece2b15eaf7d913a560c2a0783d",
}
ENDS = "82db02e667c59a83fedb211ab9b84182591b75009df1385210d5235197f93d72"


def assert_same_buffers(one, other):
    one, other = open_replay(one), open_replay(other)
    assert sorted(one) == sorted(other)
    np.testing.assert_array_equal(one.episode_ends, other.episode_ends)
    for key in one:
        assert (one.dtype(key), one.shape(key)) == (other.dtype(key), other.shape(key))
        for left, right in zip(one.episodes([key]), other.episodes([key]), strict=True):
            assert left[key].tobytes() == right[key].tobytes()


def column_sums(path, keys):
    buffer = open_replay(path)
    sums = {}
    for key in keys:
        digest = hashlib.sha256()
        for episode in buffer.episodes([key]):
            digest.update(episode[key].tobytes())
        sums[key] = digest.hexdigest()
    return sums, hashlib.sha256(buffer.episode_ends.tobytes()).hexdigest()


@pytest.mark.parametrize("out", ["out.zarr.zip", "out.zarr"])
def test_real_episodes_come_back_bit_equal(tmp_path, pusht_first5_zip, out):
    done = convert("zarr", pusht_first5_zip, tmp_path / "ds", task="Push the T.")
    assert (done.written.n_episodes, done.written.n_frames) == (5, 738)
    exported = export_zarr(tmp_path / "ds", tmp_path / out)
    assert exported.lossy == ()
    assert_same_buffers(pusht_first5_zip, tmp_path / out)


def test_all_real_low_dimensional_arrays_come_back_bit_equal(tmp_path, pusht_zip):
    done = convert("zarr", pusht_zip, tmp_path / "ds", drop=["img"])
    assert done.written.n_episodes == 206
    export_zarr(tmp_path / "ds", tmp_path / "out.zarr.zip")
    keys = ("action", "state", "keypoint")
    sums, ends = column_sums(tmp_path / "out.zarr.zip", keys)
    assert sums == {key: SUMS[key] for key in keys}
    assert ends == ENDS


@pytest.mark.slow
def test_all_real_pictures_come_back_bit_equal(tmp_path, pusht_zip):
    convert("zarr", pusht_zip, tmp_path / "ds")
    export_zarr(tmp_path / "ds", tmp_path / "out.zarr.zip")
    sums, _ = column_sums(tmp_path / "out.zarr.zip", SUMS)
    assert sums == SUMS


def test_real_export_is_readable_by_zarr_as_version_2(tmp_path, pusht_first5_zip):
    convert("zarr", pusht_first5_zip, tmp_path / "ds")
    export_zarr(tmp_path / "ds", tmp_path / "out.zarr")
    root = zarr.open_group(tmp_path / "out.zarr", mode="r", zarr_format=2)
    assert root["meta/episode_ends"].dtype == np.int64
    assert root["data/keypoint"].shape == (738, 9, 2)


def test_same_actions_as_the_public_lerobot_copy(tmp_path, pusht_zip, shared_data):
    convert("zarr", pusht_zip, tmp_path / "ds", drop=["img"])
    name = "data/chunk-000/file-000.parquet"
    ours = pq.read_table(tmp_path / "ds" / name)
    theirs = pq.read_table(shared_data / "samples/lerobot_v30_pusht" / name)
    for column in ("action", "timestamp", "frame_index", "episode_index", "index"):
        assert ours[column].to_pylist() == theirs[column].to_pylist()


def test_conversions_of_the_same_source_have_the_same_fingerprint(tmp_path, pusht_first5_zip):
    one = convert("zarr", pusht_first5_zip, tmp_path / "a", threads=1)
    two = convert("zarr", pusht_first5_zip, tmp_path / "b", threads=2)
    assert one.written.fingerprint == two.written.fingerprint


@pytest.mark.parametrize(
    ("pictures", "stored"),
    [
        (lambda rng: rng.integers(0, 256, (6, 24, 20, 3)).astype(np.float32), "float32"),
        (lambda rng: rng.integers(0, 256, (6, 3, 24, 20)).astype(np.uint8), "uint8"),
        (lambda rng: rng.integers(0, 256, (6, 24, 20, 1)).astype(np.uint8), "uint8"),
        (lambda rng: rng.integers(0, 256, (6, 3, 24, 20)) / 255.0, "float64"),
    ],
)
def test_pictures_of_any_kind_come_back_bit_equal(tmp_path, pictures, stored):
    rng = np.random.default_rng(0)
    episodes = [{"action": rng.normal(size=(6, 2)), "cam": pictures(rng)} for _ in range(3)]
    source = write_replay(tmp_path / "in.zarr", episodes, {})
    convert("zarr", source, tmp_path / "ds")
    export_zarr(tmp_path / "ds", tmp_path / "out.zarr")
    assert_same_buffers(source, tmp_path / "out.zarr")
    assert open_replay(tmp_path / "out.zarr").dtype("cam") == np.dtype(stored)


def test_facts_stated_by_the_source_are_used_and_come_back(tmp_path):
    episodes = [{"action": np.ones((4, 2)) * i} for i in range(2)]
    attrs = {
        "fps": 20,
        "task": "stack",
        "robot_type": "ur5",
        "episodes": [{"seed": 1}, {"seed": 2, "task": "unstack"}],
    }
    source = write_replay(tmp_path / "in.zarr", episodes, attrs)
    written = convert("zarr", source, tmp_path / "ds").written
    assert (written.fps, written.tasks) == (20, ("stack", "unstack"))
    info = json.loads((tmp_path / "ds/meta/info.json").read_text())
    assert info["robot_type"] == "ur5"
    export_zarr(tmp_path / "ds", tmp_path / "out.zarr")
    again = open_replay(tmp_path / "out.zarr").attrs
    assert again["episodes"] == [{"seed": 1, "task": "stack"}, {"seed": 2, "task": "unstack"}]
    assert (again["fps"], again["robot_type"]) == (20, "ur5")
    assert convert("zarr", source, tmp_path / "ds2", fps=5).written.fps == 5


def test_progress_is_told_after_every_episode(tmp_path, pusht_first5_zip):
    seen = []
    convert("zarr", pusht_first5_zip, tmp_path / "ds", drop=["img"], on_progress=seen.append)
    assert [p.episodes for p in seen] == [1, 2, 3, 4, 5]
    assert (seen[-1].frames, seen[-1].total_frames) == (738, 738)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": ["imag"]}, "no key 'imag'"),
        ({"mapping": {"stat": "observation.state"}}, "no key 'stat'"),
        ({"mapping": {"state": "index"}}, "every dataset has its own"),
        ({"mapping": {"state": "action"}}, "would both become action"),
        ({"fps": -3}, "fps is -3"),
        ({"fps": 0}, "fps is 0"),
        ({"options": {"nonsense": 1}}, "has no option 'nonsense'"),
        ({"drop": ["action", "state", "keypoint", "n_contacts", "img"]}, "nothing|no steps|none"),
    ],
)
def test_wrong_requests_are_refused_and_leave_nothing(tmp_path, pusht_first5_zip, options, message):
    with pytest.raises(DataError, match=message):
        convert("zarr", pusht_first5_zip, tmp_path / "ds", **options)
    assert list(tmp_path.iterdir()) == []


def test_unknown_format_is_refused_with_the_installed_ones(tmp_path):
    with pytest.raises(DataError, match="no converter for 'zar'") as caught:
        convert("zar", tmp_path, tmp_path / "ds")
    assert "did you mean `zarr`?" in caught.value.hint


def test_real_buffer_with_a_missing_chunk_leaves_nothing(tmp_path, shared_data):
    source = shared_data / "samples/blockpush/multimodal_push_seed.zarr"
    with pytest.raises(DataError, match="no chunk"):
        convert("zarr", source, tmp_path / "ds")
    assert list(tmp_path.iterdir()) == []


def test_chunk_damaged_in_the_middle_leaves_nothing(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [{"action": rng.normal(size=(500, 300))} for _ in range(4)]
    source = write_replay(tmp_path / "in.zarr", episodes, {})
    (source / "data/action/1.0").write_bytes(b"damaged" * 20)
    with pytest.raises(DataError, match=r"data/action cannot be decoded"):
        convert("zarr", source, tmp_path / "ds")
    assert list(tmp_path.iterdir()) == [source]


def interrupt_after(n_episodes):
    def interrupt(progress):
        if progress.episodes == n_episodes:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.parametrize("images", ["webp", "png", "video"])
def test_interrupted_conversion_goes_on_and_ends_bit_equal(tmp_path, pusht_first5_zip, images):
    convert("zarr", pusht_first5_zip, tmp_path / "whole", images=images)
    for n_episodes in (1, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            convert(
                "zarr",
                pusht_first5_zip,
                tmp_path / "ds",
                images=images,
                on_progress=interrupt_after(n_episodes),
            )
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            ".ds.partial",
            ".ds.partial.json",
            "whole",
        ]
        assert open_dataset(tmp_path / ".ds.partial").n_episodes == n_episodes
    convert("zarr", pusht_first5_zip, tmp_path / "ds", images=images)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ds", "whole"]
    assert files_of(tmp_path / "ds") == files_of(tmp_path / "whole")


def test_interrupted_conversion_goes_on_only_as_it_was_asked_for(tmp_path, pusht_first5_zip):
    source = tmp_path / "in.zarr.zip"
    source.write_bytes(pusht_first5_zip.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        convert("zarr", source, tmp_path / "ds", on_progress=interrupt_after(2))
    with pytest.raises(DataError, match="images was 'auto', is 'png'") as caught:
        convert("zarr", source, tmp_path / "ds", images="png")
    assert "remove" in caught.value.hint
    os.utime(source)
    with pytest.raises(DataError, match="has changed since its conversion"):
        convert("zarr", source, tmp_path / "ds")
    assert open_dataset(tmp_path / ".ds.partial").n_episodes == 2


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*") if p.is_file()}  # fmt: skip


def test_export_of_something_else_is_refused(tmp_path, pusht_first5_zip):
    with pytest.raises(DataError, match="is not a dataset"):
        export_zarr(tmp_path, tmp_path / "out.zarr")
    convert("zarr", pusht_first5_zip, tmp_path / "ds", drop=["img"])
    (tmp_path / "out.zarr").mkdir()
    with pytest.raises(DataError, match="already exists"):
        export_zarr(tmp_path / "ds", tmp_path / "out.zarr")


def test_export_of_a_cut_file_leaves_nothing(tmp_path, pusht_first5_zip):
    convert("zarr", pusht_first5_zip, tmp_path / "ds")
    path = tmp_path / "ds/data/chunk-000/file-000.parquet"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="cannot be read"):
        export_zarr(tmp_path / "ds", tmp_path / "out.zarr")
    assert list(tmp_path.iterdir()) == [tmp_path / "ds"]


_MEASURE = """
import ctypes
import sys
# No huge pages: how much memory they take depends on what else the machine has done.
PR_SET_THP_DISABLE = 41
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
from dp_hub.dataset.convert import convert
convert("zarr", sys.argv[1], sys.argv[2], threads=1)
heavy = [name for name in ("torch", "datasets", "pandas", "av") if name in sys.modules]
# Not ru_maxrss, which a process inherits from the one that started it.
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")), *heavy)
"""


@pytest.mark.alone
def test_five_times_the_episodes_take_the_same_memory(tmp_path):
    peaks = []
    for n_episodes in (600, 3000):
        rng = np.random.default_rng(0)
        # 64x64 pictures, mostly flat so that encoding is quick: 3000 episodes are 740 MB decoded.
        shades = rng.integers(0, 256, (n_episodes, 20, 1, 1, 3)).astype(np.uint8)
        episodes = (
            {"action": rng.normal(size=(20, 2)), "img": np.tile(s, (1, 64, 64, 1))} for s in shades
        )
        source = write_replay(tmp_path / f"{n_episodes}.zarr.zip", episodes, {})
        target = tmp_path / f"{n_episodes}"
        command = [sys.executable, "-c", _MEASURE, str(source), str(target)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert out[1:] == [], "heavy imports in a conversion"
        peaks.append(int(out[0]) / 1024)
    assert peaks[0] < 200, peaks
    assert peaks[1] - peaks[0] < 25, peaks


def test_a_rate_that_was_taken_by_default_is_told(pusht_first5_zip, tmp_path):
    told = "the source does not say its frames per second: 10 is taken"
    assert told in convert("zarr", pusht_first5_zip, tmp_path / "a").source.notes
    assert told not in convert("zarr", pusht_first5_zip, tmp_path / "b", fps=10).source.notes
