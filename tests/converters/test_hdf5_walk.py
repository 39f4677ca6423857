"""Arrays of HDF5 files read by their bytes are what h5py reads, or are left to it."""

import os

import h5py
import numpy as np
import pytest
from dp_hub_converters.hdf5.bytes import is_harmless
from dp_hub_converters.hdf5.opened import Opened, stamp_of
from dp_hub_converters.hdf5.pictures import Rows
from dp_hub_converters.hdf5.walk import Walk
from dp_hub_converters.robomimic import Robomimic
from hdf5_written import write_robomimic

from dp_hub.errors import DataError

RNG = np.random.default_rng(0)
FLOATS = RNG.normal(size=(7, 3))
SHORT = h5py.h5t.IEEE_F32LE.copy()
SHORT.set_fields(23, 15, 8, 0, 15)
SHORT.set_precision(24)
# By name: the values, how they are stored, and whether their bytes are those of a numpy array.
STORED = {
    "floats": (FLOATS, {}, True),
    "halves": (FLOATS.astype("f2"), {}, True),
    "big_endian": (FLOATS.astype(">f4"), {}, True),
    "integers": (RNG.integers(-9, 9, (7, 2)), {}, True),
    "flags": (FLOATS[:, 0] > 0, {}, True),
    "pictures": (RNG.integers(0, 256, (7, 9, 8, 3), np.uint8), {}, True),
    "in_chunks": (FLOATS, {"chunks": (2, 3)}, False),
    "packed": (FLOATS, {"compression": "gzip"}, False),
    "checked": (FLOATS, {"fletcher32": True}, False),
    "single": (np.float64(3.5), {}, True),
}


def write(path, **options):
    with h5py.File(path, "w", **options) as file:
        group = file.create_group("data/demo_0/obs")
        for name, (values, how, _) in STORED.items():
            group.create_dataset(name, data=values, **how)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((7, 3))
        compact = h5py.h5d.create(group.id, b"compact", h5py.h5t.IEEE_F64LE, space, plist)
        compact.write(h5py.h5s.ALL, h5py.h5s.ALL, FLOATS)
        narrow = h5py.h5d.create(group.id, b"narrow", SHORT, space)
        narrow.write(h5py.h5s.ALL, h5py.h5s.ALL, FLOATS.astype("f4"))
        group.create_dataset("never", (7, 3), "f4")
    return path


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"userblock_size": 512}])
def test_bytes_are_read_as_h5py_reads_them_whatever_the_layout(tmp_path, options):
    opened = Opened(write(tmp_path / "a.hdf5", **options))
    walk = Walk()
    arrays = walk.arrays(opened.file["data/demo_0"], "here")
    compared = by_bytes = 0
    for kind, offset in arrays:
        stored = opened.file["data/demo_0"][kind.key]
        assert (kind.shape, kind.dtype) == (stored.shape, stored.dtype)
        name = kind.key.removeprefix("obs/")
        assert (offset >= 0) == STORED.get(name, (0, 0, False))[2], kind.key
        if name == "never":
            continue
        values = opened.numbers("data/demo_0", kind, offset)
        assert values.dtype == stored.dtype
        np.testing.assert_array_equal(values, stored[()])
        compared, by_bytes = compared + 1, by_bytes + (offset >= 0)
        if kind.shape:
            rows = Rows(opened, "data/demo_0", kind, offset)
            for part in (slice(0, 3), slice(2, 7, 2), slice(5, 2), slice(None)):
                np.testing.assert_array_equal(rows[part], stored[()][part])
    assert (compared, by_bytes) == (12, 7)
    again = walk.arrays(opened.file["data/demo_0"], "here")
    assert again.kinds is arrays.kinds and again.offsets == arrays.offsets


def test_a_file_that_is_written_again_between_looking_and_reading_is_refused(tmp_path):
    path = tmp_path / "a.hdf5"
    write_robomimic(path, (0, 1), pictures=False)
    converter = Robomimic()
    converter.describe(path)
    write_robomimic(path, (0, 1), pictures=False, seed=1)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="has changed since it was looked at"):
        list(converter.episodes(path))


def test_bytes_beyond_the_end_of_the_file_take_no_memory(tmp_path):
    opened = Opened(write(tmp_path / "a.hdf5"))
    (kind, offset), *_ = Walk().arrays(opened.file["data/demo_0"], "here")
    large = kind._replace(shape=(1 << 40, *kind.shape[1:]))
    with pytest.raises(DataError, match="is cut short"):
        opened.bytes_at("data/demo_0", large, offset)


def test_a_file_with_a_damaged_heap_anywhere_is_read_with_care(tmp_path):
    path = tmp_path / "a.hdf5"
    write_robomimic(path, (0,), pictures=False)
    whole = path.read_bytes()
    assert is_harmless(path)
    heap = whole.index(b"GCOL")
    path.write_bytes(whole[: heap + 16] + bytes(4080) + whole[heap + 4096 :])
    assert not is_harmless(path)
    with pytest.raises(DataError, match="is damaged"):
        Robomimic().describe(path)


def test_a_file_that_was_written_again_is_read_anew(tmp_path):
    path, seen = tmp_path / "a.hdf5", []
    for seed in (0, 1):
        demos = write_robomimic(tmp_path / "new.hdf5", (0, 1), pictures=False, seed=seed)
        path.write_bytes((tmp_path / "new.hdf5").read_bytes())  # the same file, other bytes
        episodes = list(Robomimic().episodes(path))
        seen.append(episodes)  # and what was read stays in use
        for name, episode in zip(demos, episodes, strict=True):
            np.testing.assert_array_equal(episode.data["actions"], demos[name]["actions"])
    assert len(seen) == 2


def test_stamps_tell_files_apart(tmp_path):
    one, two = write(tmp_path / "a.hdf5"), write(tmp_path / "b.hdf5")
    assert stamp_of(one) == stamp_of(one) != stamp_of(two)
