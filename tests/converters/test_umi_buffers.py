"""Replay buffers as UMI and the original's caches store them: JPEG XL and JPEG 2000 chunks."""

import json
import shutil
import struct
import sys
import zipfile

import numcodecs
import numpy as np
import pytest
import zarr
from dp_hub_converters.lerobot import LeRobotSource
from dp_hub_converters.zarr import ReplayZarr
from imagecodecs.numcodecs import Jpeg2k, Jpegxl
from numcodecs.registry import codec_registry
from source_mutations import mutations

from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError
from dp_hub.replay.buffer import open_replay

LENGTHS = (4, 6)
# As UMI's own copy of the codecs writes it, on a machine with many cores.
OLD_SETTINGS = {"id": "imagecodecs_jpegxl", "level": 99, "numthreads": 64, "someday": 7}


def pictures(n, size=(24, 20), seed=0):
    rng = np.random.default_rng(seed)
    ground = np.linspace(0, 250, size[0] * size[1] * 3).reshape(1, *size, 3)
    noisy = ground + rng.normal(size=(n, *size, 3)) * 4 + np.arange(n).reshape(-1, 1, 1, 1)
    return noisy.clip(0, 255).astype(np.uint8)


def poses(n):
    rng = np.random.default_rng(1)
    shapes = {"eef_pos": 3, "eef_rot_axis_angle": 3, "gripper_width": 1, "demo_start_pose": 6}
    return {f"robot0_{k}": rng.normal(size=(n, d)).astype(np.float32) for k, d in shapes.items()}


def write_umi(path, codec, camera, *, top="", settings=None, zipped=True):
    """A buffer in zarr v2 with one chunk a picture, as 07_generate_replay_buffer.py makes it."""
    folder = path.parent / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    root = zarr.open_group(folder / top if top else folder, mode="w", zarr_format=2)
    root.create_group("meta").create_array("episode_ends", data=np.cumsum(LENGTHS))
    data = root.create_group("data")
    for key, values in poses(sum(LENGTHS)).items():
        data.create_array(key, data=values)
    array = data.create_array(
        "camera0_rgb", shape=camera.shape, chunks=(1, *camera.shape[1:]), dtype="uint8",
        compressors=codec,
    )  # fmt: skip
    array[:] = camera
    if settings is not None:
        header = (folder / top if top else folder) / "data/camera0_rgb/.zarray"
        header.write_text(json.dumps(json.loads(header.read_text()) | {"compressor": settings}))
    if not zipped:
        return shutil.move(folder, path)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("top", ["", "replay_buffer.zarr"])
@pytest.mark.parametrize(
    "codec", [Jpegxl(level=99, lossless=False), Jpegxl(lossless=True), Jpeg2k(level=50)], ids=str
)
def test_pictures_come_as_the_codec_decodes_them(tmp_path, codec, top):
    camera = pictures(10)
    path = write_umi(tmp_path / "dataset.zarr.zip", codec, camera, top=top)
    expected = np.stack([codec.decode(codec.encode(picture[None])) for picture in camera])
    source = ReplayZarr()
    assert source.recognises(path)
    found = list(source.episodes(path))
    assert [one.length for one in found] == list(LENGTHS)
    read = np.concatenate([one.data["camera0_rgb"] for one in found])
    np.testing.assert_array_equal(read, expected.reshape(camera.shape))
    assert np.abs(read.astype(int) - camera).max() <= 24
    for key, values in poses(10).items():
        np.testing.assert_array_equal(np.concatenate([one.data[key] for one in found]), values)


def test_settings_of_another_version_of_the_codec_do_not_matter(tmp_path):
    codec, camera = Jpegxl(lossless=True), pictures(10)
    path = write_umi(tmp_path / "d.zarr.zip", codec, camera, settings=OLD_SETTINGS)
    read = np.concatenate([one.data["camera0_rgb"] for one in ReplayZarr().episodes(path)])
    np.testing.assert_array_equal(read, camera)


def test_the_user_is_told_that_there_is_no_action(tmp_path):
    path = write_umi(tmp_path / "d.zarr.zip", Jpegxl(lossless=True), pictures(10))
    [note] = [note for note in ReplayZarr().describe(path).notes if "action" in note]
    assert "next:" in note and "--fps" in note


def test_a_buffer_of_umi_becomes_a_dataset(tmp_path):
    camera = pictures(10)
    path = write_umi(tmp_path / "d.zarr.zip", Jpegxl(lossless=True), camera)
    done = convert("zarr", path, tmp_path / "ds", fps=59.94, images="webp")
    assert (done.written.n_episodes, done.written.n_frames) == (2, 10)
    dataset = open_dataset(tmp_path / "ds")
    np.testing.assert_array_equal(dataset.column("robot0_eef_pos"), poses(10)["robot0_eef_pos"])


def test_without_the_library_its_extra_is_named(tmp_path, monkeypatch):
    path = write_umi(tmp_path / "d.zarr.zip", Jpegxl(lossless=True), pictures(10))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for name in list(codec_registry):
        if name.startswith("imagecodecs_"):
            monkeypatch.delitem(codec_registry, name)
    with pytest.raises(DataError, match="imagecodecs_jpegxl") as caught:
        ReplayZarr().describe(path)
    assert 'pip install "dp_hub[jpegxl]"' in (caught.value.hint or "")


def test_codecs_that_users_registered_still_encode_after_a_buffer_was_read(tmp_path):
    path = write_umi(tmp_path / "d.zarr.zip", Jpegxl(lossless=True), pictures(10))
    list(ReplayZarr().episodes(path))
    codec = numcodecs.get_codec({"id": "imagecodecs_jpegxl", "lossless": True})
    [picture] = pictures(1)
    np.testing.assert_array_equal(codec.decode(codec.encode(picture)), picture)


def with_method(path, method, name="data/camera0_rgb/0.0.0.0"):
    """The archive, saying that one file of it is packed with another method."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo(name).header_offset
    data[offset + 8 : offset + 10] = struct.pack("<H", method)
    place = data.rindex(name.encode()) - 46
    assert data[place : place + 4] == b"PK\x01\x02"
    data[place + 10 : place + 12] = struct.pack("<H", method)
    path.write_bytes(data)


@pytest.mark.parametrize(("method", "told"), [(9, "deflate64"), (93, "zstd"), (77, "method 77")])
def test_archives_that_cannot_be_unpacked_say_how_they_are_packed(tmp_path, method, told):
    path = write_umi(tmp_path / "d.zarr.zip", Jpegxl(lossless=True), pictures(10))
    with_method(path, method)
    with pytest.raises(DataError, match=told) as caught:
        ReplayZarr().describe(path)
    assert "give the folder" in (caught.value.hint or "")


def test_encrypted_archives_are_refused(tmp_path):
    path = write_umi(tmp_path / "d.zarr.zip", Jpegxl(lossless=True), pictures(10))
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        ReplayZarr().describe(path)


def test_a_damaged_picture_is_named(tmp_path):
    write_umi(tmp_path / "d.zarr", Jpegxl(lossless=True), pictures(10), zipped=False)
    chunk = tmp_path / "d.zarr/data/camera0_rgb/7.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    with pytest.raises(DataError, match="data/camera0_rgb cannot be decoded"):
        list(ReplayZarr().episodes(tmp_path / "d.zarr"))
    other = Jpegxl(lossless=True).encode(pictures(1, (200, 300))[0])
    chunk.write_bytes(other)
    with pytest.raises(DataError, match="cannot be decoded"):
        list(ReplayZarr().episodes(tmp_path / "d.zarr"))


@pytest.mark.parametrize("codec", [Jpegxl(lossless=True), Jpeg2k(level=50)], ids=["xl", "2k"])
def test_mutated_pictures_and_headers_are_read_or_refused(tmp_path, codec):
    path = write_umi(tmp_path / "d.zarr", codec, pictures(10), zipped=False)
    files = [path / "data/camera0_rgb" / name for name in ("3.0.0.0", ".zarray")]
    seen = [0, 0]
    for file, count in zip(files, (80, 20), strict=True):
        original = file.read_bytes()
        for data in mutations(original, count):
            file.write_bytes(data)
            seen[refuses(path)] += 1
        file.write_bytes(original)
    assert sum(seen) == 100 and seen[1] > 50


def test_mutated_archives_are_read_or_refused(tmp_path):
    path = write_umi(tmp_path / "d.zarr.zip", Jpegxl(lossless=True), pictures(10))
    seen = [0, 0]
    for data in mutations(path.read_bytes(), 100):
        path.write_bytes(data)
        assert ReplayZarr().recognises(path) in (True, False)
        seen[refuses(path)] += 1
    assert sum(seen) == 100 and min(seen) > 0


def refuses(path):
    try:
        ReplayZarr().describe(path)
        list(ReplayZarr().episodes(path))
    except DataError as error:
        assert str(error)
        return True
    return False


def test_formats_tell_their_sources_from_others(tmp_path, pusht_first5_zip, shared_data):
    samples = shared_data / "samples"
    assert ReplayZarr().recognises(pusht_first5_zip)
    assert ReplayZarr().recognises(samples / "blockpush" / "multimodal_push_seed.zarr")
    assert LeRobotSource().recognises(samples / "lerobot_v30_pusht")
    assert LeRobotSource().recognises(samples / "lerobot_v21_g1")
    others = [samples / "rlds_bridge", tmp_path, tmp_path / "absent", pusht_first5_zip]
    assert not any(LeRobotSource().recognises(path) for path in others)
    others = [samples / "lerobot_v21_g1", *others[:3]]
    assert not any(ReplayZarr().recognises(path) for path in others)
    real = tmp_path / "real"
    (real / "videos").mkdir(parents=True)
    root = zarr.open_group(real / "replay_buffer.zarr", mode="w", zarr_format=2)
    root.create_array("meta/episode_ends", data=np.array([1]))
    root.create_array("data/action", data=np.ones((1, 2)))
    assert not ReplayZarr().recognises(real)
    assert ReplayZarr().recognises(real / "replay_buffer.zarr")
    assert open_replay(real / "replay_buffer.zarr").n_steps == 1


UMI_MAPPING = """
fps: 59.94
features:
  observation.state:
    from: [robot0_eef_pos, robot0_eef_rot_axis_angle, robot0_gripper_width]
  action: {next: observation.state}
  observation.images.wrist: {from: camera0_rgb}
"""


def test_the_action_of_umi_is_the_next_pose(tmp_path):
    path = write_umi(tmp_path / "d.zarr.zip", Jpegxl(lossless=True), pictures(10))
    (tmp_path / "umi.yaml").write_text(UMI_MAPPING)
    convert("zarr", path, tmp_path / "ds", mapping=tmp_path / "umi.yaml", images="webp")
    dataset = open_dataset(tmp_path / "ds")
    stored = poses(10)
    names = ("robot0_eef_pos", "robot0_eef_rot_axis_angle", "robot0_gripper_width")
    states = np.concatenate([stored[name] for name in names], axis=1)
    np.testing.assert_array_equal(dataset.column("observation.state"), states)
    following = [1, 2, 3, 3, 5, 6, 7, 8, 9, 9]  # an episode's last pose is followed by itself
    np.testing.assert_array_equal(dataset.column("action"), states[following])
