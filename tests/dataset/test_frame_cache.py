"""The frame cache: right, built once, and never trusted when damaged."""

import json
import logging
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from plain_dataset import write_dataset

from dp_hub.dataset.frame_cache import CachedFrames
from dp_hub.dataset.frame_source import FrameSource, Part
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError
from dp_hub.files import cache_root

NAME = "observation.image"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pictures():
    """uint8 (60, 24, 32, 3), no two alike."""
    return np.random.default_rng(0).integers(0, 256, (60, 24, 32, 3), np.uint8)


@pytest.fixture
def dataset(tmp_path, pictures):
    """Three episodes of pictures in two data files, with a fingerprint."""
    return write_pictures(tmp_path / "dataset", pictures)


def write_pictures(root, pictures, **options):
    columns = {"action": np.zeros((60, 2), np.float32), NAME: pictures}
    return write_dataset(root, columns, np.array([21, 40, 60]), episodes_per_file=2, **options)


def cache_file():
    """The one cache file there is."""
    folders = list((cache_root() / "frames").iterdir())
    assert len(folders) == 1
    # The description beside it has the same name, whatever has been done to the file.
    return next(folders[0].glob(f"{NAME}.*.json")).with_suffix(".npy")


def rebuilt(caplog):
    return [r for r in caplog.records if "decoding again" in r.getMessage()]


@pytest.mark.parametrize("images", ["PNG", "WEBP"])
def test_cached_frames_are_the_stored_pictures(tmp_path, pictures, images):
    root = write_pictures(tmp_path / "dataset", pictures, images=images)
    np.testing.assert_array_equal(open_dataset(root).column(NAME), pictures)


def test_pictures_of_one_channel_keep_it(tmp_path, pictures):
    root = write_pictures(tmp_path / "dataset", pictures[..., :1], images="PNG")
    np.testing.assert_array_equal(open_dataset(root).column(NAME), pictures[..., :1])


def test_the_cache_file_is_a_numpy_file(dataset, pictures):
    open_dataset(dataset).column(NAME)
    np.testing.assert_array_equal(np.load(cache_file(), mmap_mode="r"), pictures)


def test_a_second_opening_decodes_nothing(dataset, caplog):
    open_dataset(dataset).column(NAME)
    before = cache_file().stat()
    caplog.set_level(logging.INFO)
    open_dataset(dataset).column(NAME)
    assert cache_file().stat().st_ino == before.st_ino
    assert not [r for r in caplog.records if "decoding" in r.getMessage()]
    assert sorted(path.suffix for path in cache_file().parent.iterdir()) == [
        ".json",
        ".lock",
        ".npy",
    ]


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


def edit_description(path):
    described = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(described | {"shape": [1, 2, 3, 4]}))


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1000),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "header": lambda path: flip(path, 40),
    "first frame": lambda path: flip(path, 130),
    "last frame": lambda path: flip(path, 128 + 60 * 2304 - 1),
    "checksums": lambda path: flip(path, path.stat().st_size - 1),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "no description": lambda path: path.with_suffix(".json").unlink(),
    "half a description": lambda path: path.with_suffix(".json").write_text('{"format": 1'),
    "other description": edit_description,
    "no file": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_cache_is_built_again(name, dataset, pictures, caplog):
    open_dataset(dataset).column(NAME)
    DAMAGES[name](cache_file())
    np.testing.assert_array_equal(open_dataset(dataset).column(NAME), pictures)
    assert len(rebuilt(caplog)) == (name != "no file")
    assert not open_dataset(dataset).cached_frames(NAME).verify().size


def test_damage_between_the_sampled_frames_is_found_by_verify_and_mended(dataset, pictures):
    cached = open_dataset(dataset).cached_frames(NAME)
    assert len(cached.verify()) == 60  # nothing there yet
    cached.open()
    assert cached.verify().tolist() == []
    sampled = np.linspace(0, 59, 32).astype(int)
    hidden = np.setdiff1d(np.arange(60), sampled)[[0, 7]]
    for frame in hidden:
        flip(cache_file(), 128 + frame * 2304 + 77)
    assert cached.verify().tolist() == hidden.tolist()
    np.testing.assert_array_equal(cached.rebuild(), pictures)
    assert cached.verify().tolist() == []


def test_a_cache_of_other_files_with_the_same_fingerprint_is_not_used(dataset, tmp_path, pictures):
    open_dataset(dataset).column(NAME)
    other = write_pictures(tmp_path / "other", pictures[::-1].copy(), images="PNG")
    np.testing.assert_array_equal(open_dataset(other).column(NAME), pictures[::-1])


def test_two_encodings_of_the_same_pictures_do_not_disturb_each_other(
    dataset, tmp_path, pictures, caplog
):
    other = write_pictures(tmp_path / "other", pictures, images="PNG")
    for folder in (dataset, other, dataset, other):
        np.testing.assert_array_equal(open_dataset(folder).column(NAME), pictures)
    assert "decoding again" not in caplog.text


def test_a_copy_of_the_dataset_shares_the_cache(dataset, tmp_path):
    open_dataset(dataset).column(NAME)
    before = cache_file().stat().st_ino
    open_dataset(shutil.copytree(dataset, tmp_path / "copy")).column(NAME)
    assert cache_file().stat().st_ino == before


def slow_source(log: Path, n_frames=40) -> CachedFrames:
    """Frames that hold their number; every part decoded leaves a line in ``log``."""

    def frames(start):
        with log.open("a") as file:
            file.write(f"{start}\n")
        for number in range(start, start + 10):
            time.sleep(0.01)
            yield np.full((4, 4, 3), number, np.uint8)

    parts = [Part(start, 10, lambda start=start: frames(start)) for start in range(0, n_frames, 10)]
    source = FrameSource("slow", (n_frames, 4, 4, 3), "origin", lambda: parts)
    return CachedFrames(cache_root() / "frames" / "slow.npy", source)


def build(log, gate, queue):
    cached = slow_source(log)
    gate.wait()
    queue.put(cached.open()[:, 0, 0, 0].tolist())


def test_two_processes_that_open_at_once_decode_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    log, gate, queue = tmp_path / "decoded.txt", context.Barrier(2), context.Queue()
    processes = [context.Process(target=build, args=(log, gate, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert results == [list(range(40))] * 2
    assert sorted(map(int, log.read_text().split())) == [0, 10, 20, 30]


def build_for_long(log):
    slow_source(log, n_frames=2_000).open()


def test_a_builder_that_was_killed_leaves_nothing_in_the_way(tmp_path):
    log = tmp_path / "decoded.txt"
    process = multiprocessing.get_context("spawn").Process(target=build_for_long, args=(log,))
    process.start()
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    cached = slow_source(log)
    assert log.exists() and cached.path.with_suffix(".npy.partial").exists()
    assert not cached.path.exists()
    assert cached.open()[:, 0, 0, 0].tolist() == list(range(40))
    assert not list(cached.path.parent.glob("*.partial"))


def broken_source(frames) -> CachedFrames:
    parts = [Part(0, 3, frames)]
    source = FrameSource("broken", (3, 4, 4, 3), "origin", lambda: parts)
    return CachedFrames(cache_root() / "frames" / "broken.npy", source)


def test_pictures_that_cannot_be_decoded_leave_no_file(tmp_path):
    def frames():
        yield np.zeros((4, 4, 3), np.uint8)
        raise DataError("frame 1 is no picture")

    cached = broken_source(frames)
    with pytest.raises(DataError, match="frame 1 is no picture"):
        cached.open()
    assert [path.suffix for path in cached.path.parent.iterdir()] == [".lock"]


def test_a_picture_that_is_none_is_named(dataset):
    path = dataset / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    rows = table[NAME].to_pylist()
    rows[3]["bytes"] = b"not a picture"
    broken = pa.array(rows, table.field(NAME).type)
    pq.write_table(table.set_column(table.schema.names.index(NAME), NAME, [broken]), path)
    with pytest.raises(DataError, match=r"observation.image of frame 43 cannot be decoded"):
        open_dataset(dataset).column(NAME)


def test_a_picture_of_another_size_is_named(tmp_path, dataset):
    info = json.loads((dataset / "meta/info.json").read_text())
    info["features"][NAME]["shape"] = [48, 64, 3]
    (dataset / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"frame \d+ cannot be decoded: it is 24 x 32, not 48 x 64"):
        open_dataset(dataset).column(NAME)


def test_a_disk_without_room_is_told_before_the_work():
    source = FrameSource("huge", (10**9, 2000, 2000, 3), "origin", lambda: [])
    cached = CachedFrames(cache_root() / "frames" / "huge.npy", source)
    with pytest.raises(DataError, match=r"need 1.2e\+07 GB, but .* free[^$]*set DP_HUB_CACHE"):
        cached.open()


def test_a_disk_that_fills_up_is_told_and_leaves_no_file(dataset, tmp_path):
    script = (
        "import resource, sys; from dp_hub.dataset.reader import open_dataset\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))\n"
        "try:\n open_dataset(sys.argv[1]).column('observation.image')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", script, str(dataset)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("DataError cannot write the frame cache")
    assert "hint: make room, or set DP_HUB_CACHE" in done.stdout
    left = [path for path in (cache_root() / "frames").rglob("*") if path.is_file()]
    assert [path.suffix for path in left] == [".lock"]


def test_a_cache_folder_that_cannot_be_made_is_told(dataset, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot write the frame cache"):
        open_dataset(dataset).column(NAME)


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.delenv("DP_HUB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_root() == Path("/x/dp_hub")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache/dp_hub"


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by /proc")
def test_memory_stays_far_below_the_decoded_size(tmp_path):
    frames = np.zeros((1500, 96, 96, 3), np.uint8)
    frames[..., 0] = (np.arange(1500) % 256)[:, None, None]
    columns = {"action": np.zeros((1500, 2), np.float32), NAME: frames}
    root = write_dataset(tmp_path / "big", columns, np.array([700, 1500]))
    script = (
        "import resource, sys; from dp_hub.dataset.reader import open_dataset\n"
        "dataset = open_dataset(sys.argv[1])\n"
        "def anonymous(): return int(open('/proc/self/status').read()"
        ".split('RssAnon:')[1].split()[0])\n"
        "before = anonymous(); dataset.column('observation.image')\n"
        "print(anonymous() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 20_000  # kB; the frames are 41,472 kB


READ_ALL_WINDOWS = """
import sys
import numpy as np
from dp_hub.dataset.reader import open_dataset
from dp_hub.sampling import WindowDataset, make_loader, window_table

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))]

dataset = open_dataset(sys.argv[1])
before = max(resident())
images = dataset.column("observation.image")
table = window_table(dataset.episodes.stops, 16, pad_before=1, pad_after=15)
columns = {"observation.image": images, "action": dataset.column("action")}
windows = WindowDataset(columns, table, horizon=16, n_obs_steps=2)
seen = set()
for batch in make_loader(windows, batch_size=16, drop_last=False):
    pictures = batch["observation.image"].numpy()
    frames = pictures[:, :, 100, 100, :2].astype(int) @ [1, 256]
    assert (pictures[:, :, 0, 0] == pictures[:, :, -1, -1]).all()
    assert (frames == batch["action"][:, :2, 0].numpy()).all()
    seen |= set(frames.ravel().tolist())
damaged = dataset.cached_frames("observation.image").verify()
print(images.nbytes // 1000, max(resident()) - before, len(seen), len(damaged))
"""


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by /proc")
def test_reading_windows_of_a_large_cache_takes_little_memory(tmp_path):
    number = np.arange(660)
    frames = np.zeros((660, 1, 1, 3), np.uint8)
    frames[:, 0, 0, 0], frames[:, 0, 0, 1] = number % 256, number // 256
    columns = {
        "action": number.astype(np.float32)[:, None],
        NAME: np.broadcast_to(frames, (660, 480, 640, 3)),  # every picture of one colour
    }
    root = write_dataset(tmp_path / "big", columns, np.array([300, 301, 660]), images="PNG")
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL_WINDOWS, str(root)],
        capture_output=True,
        text=True,
        check=True,
    )
    size_kb, growth_kb, n_seen, n_damaged = map(int, done.stdout.split())
    assert size_kb > 600_000 and growth_kb < 250_000
    assert (n_seen, n_damaged) == (660, 0)


def test_real_frames_equal_those_of_the_zarr(pusht_first5_zip, tmp_path):
    group = zarr.open_group(zarr.storage.ZipStore(pusht_first5_zip), mode="r")
    images, ends = group["data/img"][:161], np.array([161])
    columns = {"action": group["data/action"][:161], NAME: images}
    root = write_dataset(tmp_path / "pusht", columns, ends)
    np.testing.assert_array_equal(open_dataset(root).column(NAME), images)
