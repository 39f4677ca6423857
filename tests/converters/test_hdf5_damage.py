"""Damaged, hostile and unreadable HDF5 and Arrow files: an error in words, or the data."""

import resource

import h5py
import numpy as np
import pytest
from dp_hub_converters.aloha import Aloha
from dp_hub_converters.hdf5 import files as hdf5_files
from dp_hub_converters.minari import Minari
from dp_hub_converters.robomimic import Robomimic
from hdf5_written import (
    box,
    jpeg,
    moving,
    write_aloha,
    write_minari_arrow,
    write_minari_hdf5,
    write_robomimic,
)

from dp_hub.errors import DataError

MUTATIONS = 200
PICTURED = {
    "type": "Dict",
    "subspaces": {"img": box((40, 36, 3), "uint8", 0, 255), "s": box((3,))},
}


def pictured(n, rng):
    return {"img": [jpeg(p) for p in moving(n, 1, (40, 36))], "s": rng.normal(size=(n, 3))}


def one_arrow_episode(root):
    numbers = {"actions": np.ones((3, 2), np.float32), "rewards": np.ones(3)}
    flags = {"terminations": np.zeros(3, bool), "truncations": np.zeros(3, bool)}
    observations = {"observations": pictured(4, np.random.default_rng(0))}
    write_minari_arrow(root, [observations | numbers | flags], space=PICTURED)


CASES = {
    "robomimic": (
        Robomimic,
        lambda root: write_robomimic(root / "a.hdf5", (0, 2), lengths=(4, 3)),
        "a.hdf5",
    ),
    "aloha": (
        lambda: Aloha(image_encoding="rgb"),
        lambda root: write_aloha(root / "episode_0.hdf5", 4, encode=jpeg),
        "episode_0.hdf5",
    ),
    "minari-hdf5": (
        Minari,
        lambda root: write_minari_hdf5(root, pictured, space=PICTURED, lengths=(3, 2)),
        "data/main_data.hdf5",
    ),
    "minari-arrow": (Minari, one_arrow_episode, "data/0/part-0.arrow"),
}


def mutated(data, rng):
    """A file with flipped bytes, cut short, with a range zeroed, or with two blocks swapped."""
    data, n, kind = bytearray(data), len(data), rng.integers(4)
    if kind == 0:
        for place in rng.integers(0, n, int(rng.integers(1, 30))):
            data[place] = int(rng.integers(256))
    elif kind == 1:
        del data[int(rng.integers(1, n)) :]
    elif kind == 2:
        start = int(rng.integers(n))
        stop = min(n, start + int(rng.integers(1, 600)))
        data[start:stop] = bytes(stop - start)
    else:
        size = int(rng.integers(8, 512))
        a, b = (int(one) for one in rng.integers(0, n - size, 2))
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return bytes(data)


def read_all(converter, path):
    converter.recognises(path)
    converter.describe(path)
    for episode in converter.episodes(path):
        for values in episode.data.values():
            for first in range(0, len(values), 3):
                assert len(np.asarray(values[first : first + 3])) <= 3


@pytest.mark.parametrize("case", CASES)
def test_damage_of_any_kind_is_told_in_words(tmp_path, case):
    make, write, name = CASES[case]
    write(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes()
    read_all(make(), tmp_path)
    told = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(MUTATIONS):
        path.write_bytes(mutated(whole, np.random.default_rng(seed)))
        try:
            read_all(make(), tmp_path)
        except DataError:
            told += 1
    assert MUTATIONS * 0.3 < told < MUTATIONS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB


def demo_with(path, **arrays):
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = np.zeros((4, 2))
        for name, options in arrays.items():
            demo.create_dataset(name, **options)
    return path


def convert_fails(path, match):
    with pytest.raises(DataError, match=match) as told:
        read_all(Robomimic(), path)
    return told.value


def test_arrays_that_were_never_written_are_not_read_as_zeros(tmp_path):
    kind = {"dtype": "f4", "fillvalue": 0}
    path = demo_with(tmp_path / "a.h5", x={"shape": (4, 3), "chunks": (2, 3), **kind})
    assert "--drop x" in convert_fails(path, "was not written in whole").hint
    path = demo_with(tmp_path / "b.h5", x={"shape": (4, 3), **kind})
    convert_fails(path, "was not written in whole")


def test_enormous_sizes_are_not_believed(tmp_path):
    huge = {"shape": (4, 1 << 40), "dtype": "f8", "chunks": (1, 1 << 20)}
    convert_fails(demo_with(tmp_path / "a.h5", x=huge), "was not written in whole")
    picture = {"shape": (4, 1 << 20, 1 << 20, 3), "dtype": "u1", "chunks": (1, 64, 64, 3)}
    convert_fails(demo_with(tmp_path / "b.h5", x=picture), "was not written in whole")


def test_texts_references_and_compound_values_are_named(tmp_path):
    text = {"data": ["a"] * 4, "dtype": h5py.string_dtype()}
    assert "--drop x" in convert_fails(demo_with(tmp_path / "a.h5", x=text), "holds texts").hint
    reference = {"shape": (4,), "dtype": h5py.ref_dtype}
    convert_fails(demo_with(tmp_path / "b.h5", x=reference), "holds references")
    ragged = {"shape": (4,), "dtype": h5py.vlen_dtype(np.int32)}
    convert_fails(demo_with(tmp_path / "c.h5", x=ragged), "holds arrays of differing lengths")
    pairs = {"data": np.zeros(4, [("a", "f4"), ("b", "i4")])}
    convert_fails(demo_with(tmp_path / "d.h5", x=pairs), "holds compound values")


def test_a_missing_compression_is_named_with_what_brings_it(tmp_path, monkeypatch):
    packed = {"data": np.zeros((4, 3)), "compression": "gzip"}
    path = demo_with(tmp_path / "a.h5", x=packed)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    error = convert_fails(path, "compressed with deflate")
    assert error.hint == "pip install hdf5plugin"
    monkeypatch.setitem(hdf5_files._FILTERS, 1, "blosc")
    convert_fails(path, r"compressed with blosc \(HDF5 filter 1\), which is not installed")


def test_nothing_outside_the_file_is_read(tmp_path):
    secret = demo_with(tmp_path / "secret.h5")
    path = demo_with(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["data/demo_0/x"] = h5py.ExternalLink(str(secret), "/data/demo_0/actions")
    convert_fails(path, "is a link to another file")
    path = demo_with(tmp_path / "b.h5")
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout((4, 2), "f8")
        layout[:] = h5py.VirtualSource(str(secret), "data/demo_0/actions", (4, 2))
        file["data/demo_0"].create_virtual_dataset("x", layout)
    convert_fails(path, "is kept in other files")


def test_a_text_that_claims_gigabytes_and_a_heap_with_a_hole_are_refused(tmp_path):
    path = demo_with(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = "{" * 155
    whole = path.read_bytes()
    heap = whole.index(b"GCOL")
    assert whole.count((155).to_bytes(4, "little") + heap.to_bytes(8, "little")) == 1
    place = whole.index((155).to_bytes(4, "little") + heap.to_bytes(8, "little"))
    path.write_bytes(whole[: place + 3] + b"\xe3" + whole[place + 4 :])
    convert_fails(path, "claims to be longer than the file")
    path.write_bytes(whole[: heap + 192] + bytes(4096 - 192) + whole[heap + 4096 :])
    convert_fails(path, "heap at byte .* is damaged")


def test_groups_within_themselves_end(tmp_path):
    path = demo_with(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["data/demo_0/loop"] = file["data/demo_0"]
    convert_fails(path, "groups more than 8 deep")


def test_a_file_that_is_being_written_and_one_that_is_cut_short_are_told(tmp_path):
    path = demo_with(tmp_path / "a.h5", x={"data": np.zeros((4, 500))})
    with h5py.File(path, "a"):
        convert_fails(path, "cannot be opened: unable to lock file")
    path.write_bytes(path.read_bytes()[:-900])
    convert_fails(path, "is cut short")
    path.write_bytes(b"hello")
    convert_fails(path, r"is not an HDF5 file \(5 bytes\)")
    convert_fails(tmp_path / "none.h5", "there is nothing at")
