"""Plain folders of tables, videos and pictures: every value with the time that belongs to it."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from dp_hub_converters.folder import EpisodeFolders
from dp_hub_converters.real_zarr import RealZarr
from numbered_videos import number_of, numbered, write_numbered
from PIL import Image
from source_mutations import mutations

from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip

N = 12


def arrays(seed=0, n=N):
    rng = np.random.default_rng(seed)
    return {
        "action": rng.normal(size=(n, 2)).astype(np.float32),
        "state": rng.normal(size=(n, 3)),
        "grasped": rng.integers(0, 2, n).astype(bool),
    }


def save_npz(folder, data, name="data.npz"):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / name, **data)


def save_flat(folder, data, kind):
    """Each array as a file of its own, or all in one table with a column for each number."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "npz":
        return save_npz(folder, data)
    if kind == "npy":
        for key, values in data.items():
            np.save(folder / f"{key}.npy", values)
        return None
    if kind == "lists":
        columns = {k: list(v) if v.ndim > 1 else v for k, v in data.items()}
        return pq.write_table(pa.table(columns), folder / "rows.parquet")
    columns = {}
    for key, values in data.items():
        many = values.ndim > 1
        parts = values.T if many else [values]
        columns |= {f"{key}_{i}" if many else key: part for i, part in enumerate(parts)}
    table = pa.table(columns)
    write = pa.csv.write_csv if kind == "csv" else pq.write_table
    return write(table, folder / f"rows.{kind}")


def read(path, **options):
    return list(EpisodeFolders(**options).recordings(path))


def values_of(recording):
    return {name: np.asarray(stream.values[:]) for name, stream in recording.streams.items()}


@pytest.mark.parametrize("kind", ["npz", "npy", "csv", "parquet", "lists"])
def test_tables_of_every_kind_give_the_same_streams(tmp_path, kind):
    for number in range(3):
        save_flat(tmp_path / f"episode_{number}", arrays(number), kind)
    source = EpisodeFolders(fps=20)
    assert source.recognises(tmp_path)
    found = source.describe(tmp_path)
    assert found.n_episodes == 3
    assert found.dtypes == {
        "action": "float64" if kind == "csv" else "float32",
        "state": "float64",
        "grasped": "bool",
    }
    recordings = read(tmp_path, fps=20)
    assert len(recordings) == 3
    for number, one in enumerate(recordings):
        assert one.metadata["source"] == f"episode_{number}"
        expected = arrays(number)
        assert set(one.streams) == set(expected)
        for key, values in values_of(one).items():
            np.testing.assert_array_equal(values.astype(expected[key].dtype), expected[key])
            np.testing.assert_allclose(one.streams[key].times_s, np.arange(N) / 20)
        kinds = {name: stream.kind for name, stream in one.streams.items()}
        assert kinds == {"action": "command", "state": "state", "grasped": "event"}


def test_ten_episodes_are_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 9, 2, 0):
        save_npz(tmp_path / f"demo{number}", {"action": np.full((3, 1), float(number))})
    (tmp_path / "notes.csv").write_text("what,who\na,b\n")
    (tmp_path / "metadata.json").write_text(json.dumps({"task": "sort", "robot_type": "arm"}))
    recordings = read(tmp_path, fps=5)
    assert [float(values_of(one)["action"][0, 0]) for one in recordings] == [0, 2, 9, 10]
    assert {one.task for one in recordings} == {"sort"}
    assert EpisodeFolders(fps=5).describe(tmp_path).attrs["robot_type"] == "arm"
    assert [one.name for one in EpisodeFolders(fps=5).recordings(tmp_path, start=2)] == [
        "demo9",
        "demo10",
    ]


@pytest.mark.parametrize(
    ("name", "unit", "scale"),
    [("time", None, 1), ("timestamp_ns", None, 1e9), ("t", "ms", 1e3), ("timestamps", "us", 1e6)],
)
def test_a_column_of_times_is_that_of_its_table(tmp_path, name, unit, scale):
    times = 1_700_000_000 + np.arange(N) * 0.05
    stored = np.round(times * scale).astype(np.int64) if scale > 1 else times
    save_npz(tmp_path / "a", arrays() | {name: stored})
    [one] = read(tmp_path, time_unit=unit)
    assert set(one.streams) == set(arrays())
    for stream in one.streams.values():
        np.testing.assert_allclose(stream.times_s, times, rtol=0, atol=1e-3 if scale > 1 else 0)


def test_times_that_can_be_no_seconds_have_to_be_explained(tmp_path):
    save_npz(tmp_path, arrays() | {"timestamp": 1_700_000_000_000 + np.arange(N) * 50})
    with pytest.raises(DataError, match="no seconds") as caught:
        EpisodeFolders().describe(tmp_path)
    assert "time_unit" in (caught.value.hint or "")


def test_dates_and_texts_in_csv_files_are_read(tmp_path):
    lines = ["timestamp;grip;phase;task"]
    lines += [
        f"2026-01-02 03:04:05.{i}00;{i / 2};{'reach' if i < 2 else 'lift'};stack" for i in range(4)
    ]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    [one] = read(tmp_path)
    assert one.task == "stack"
    assert set(one.streams) == {"grip", "phase"}
    assert list(one.streams["phase"].values) == ["reach", "reach", "lift", "lift"]
    assert one.streams["phase"].kind == "event"
    np.testing.assert_allclose(np.diff(one.streams["grip"].times_s), 0.1, atol=1e-6)
    assert EpisodeFolders().describe(tmp_path).dtypes["phase"] == "string"


def test_streams_at_different_rates_have_times_of_their_own(tmp_path):
    fast, slow = np.arange(50) * 0.01 + 3, np.arange(5) * 0.1 + 3
    save_npz(
        tmp_path,
        {
            "joints": np.zeros((50, 6)),
            "joints_time": fast,
            "force": np.ones((5, 3)),
            "force_timestamps_s": slow,
            "reaction_time": np.arange(50.0),
        },
    )
    with pytest.raises(DataError, match="reaction_time"):
        EpisodeFolders().describe(tmp_path)
    [one] = EpisodeFolders().recordings(tmp_path, only={"joints", "force"})
    np.testing.assert_array_equal(one.streams["joints"].times_s, fast)
    np.testing.assert_array_equal(one.streams["force"].times_s, slow)


def test_several_tables_have_their_names_before_their_columns(tmp_path):
    for name, n in (("arm", 8), ("hand", 5)):
        table = pa.table({"time_s": np.arange(n) / n, "position": np.arange(n) * 1.0})
        pa.csv.write_csv(table, tmp_path / f"{name}.csv")
    [one] = read(tmp_path)
    assert {name: len(stream) for name, stream in one.streams.items()} == {
        "arm/position": 8,
        "hand/position": 5,
    }
    np.testing.assert_allclose(one.streams["hand/position"].times_s, np.arange(5) / 5)


def test_a_video_with_a_frame_for_each_row_has_the_rows_times(tmp_path):
    times = 100 + np.arange(N) * 0.1
    save_npz(tmp_path / "a", arrays() | {"time": times})
    write_numbered(tmp_path / "a" / "front.mp4", N, fps=30)
    [one] = read(tmp_path)
    stream = one.streams["front"]
    assert isinstance(stream.values, VideoClip) and "a frame for each row" in stream.about
    np.testing.assert_array_equal(stream.times_s, times)
    assert [number_of(frame) for frame in stream.values.frames()] == list(range(N))


def test_a_video_with_another_number_of_frames_keeps_its_own_times(tmp_path):
    times = 100 + np.arange(N) * 0.1
    save_npz(tmp_path / "a", arrays() | {"time": times})
    write_numbered(tmp_path / "a" / "cams" / "front.mp4", 30, fps=30)
    [one] = read(tmp_path, video_offset_s=0.5)
    stream = one.streams["cams/front"]
    np.testing.assert_allclose(stream.times_s, 100.5 + np.arange(30) / 30, atol=1e-4)
    assert "its own times" in stream.about


def test_a_video_whose_times_are_in_a_table_has_those(tmp_path):
    stamps = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.05, 30))
    save_npz(tmp_path, arrays() | {"time": np.arange(N) * 0.1, "front_timestamp": stamps})
    write_numbered(tmp_path / "front.mp4", 30)
    [one] = read(tmp_path)
    np.testing.assert_array_equal(one.streams["front"].times_s, stamps)
    assert "front_timestamp" not in one.streams
    write_numbered(tmp_path / "front.mp4", 29)
    with pytest.raises(DataError, match="29 of front, and 30 times in front_timestamp"):
        EpisodeFolders().describe(tmp_path)


def test_rows_without_times_have_the_rate_of_the_video_beside_them(tmp_path):
    save_npz(tmp_path, arrays())
    with pytest.raises(DataError, match="nothing says when") as caught:
        EpisodeFolders().describe(tmp_path)
    assert "--option fps=30" in (caught.value.hint or "")
    write_numbered(tmp_path / "front.mp4", N, fps=15)
    [one] = read(tmp_path)
    np.testing.assert_allclose(one.streams["action"].times_s, np.arange(N) / 15)
    np.testing.assert_array_equal(one.streams["front"].times_s, one.streams["action"].times_s)
    [one] = read(tmp_path, fps=5.0)
    np.testing.assert_allclose(one.streams["front"].times_s, np.arange(N) / 5)


def save_pictures(folder, numbers, *, kind="png", depth=False):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture = numbered(number)
        if depth:
            picture = np.full((20, 30), 1000 * number, np.uint16)
        Image.fromarray(picture).save(folder / f"frame_{number}.{kind}")


def test_pictures_in_folders_are_in_the_order_of_their_numbers(tmp_path):
    save_npz(tmp_path, arrays())
    save_pictures(tmp_path / "front", range(N), kind="jpg")
    save_pictures(tmp_path / "depth", range(N), depth=True)
    [one] = read(tmp_path, fps=10)
    front, depth = one.streams["front"], one.streams["depth"]
    assert (front.kind, front.values.shape) == ("picture", (N, 48, 64, 3))
    assert [number_of(picture) for picture in front.values[:]] == list(range(N))
    assert [number_of(picture) for picture in front.values[8:11]] == [8, 9, 10]
    np.testing.assert_array_equal(depth.values[:][:, 0, 0, 0], 1000 * np.arange(N))
    np.testing.assert_allclose(front.times_s, np.arange(N) / 10)
    (tmp_path / "front" / "frame_5.jpg").unlink()
    with pytest.raises(DataError, match=r"no picture 5: after frame_4\.jpg comes frame_6\.jpg"):
        EpisodeFolders(fps=10).describe(tmp_path)


def test_arrays_of_pictures_are_read_when_they_are_looked_at(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (N, 16, 18, 3), dtype=np.uint8)
    save_npz(tmp_path / "a", {"action": np.zeros((N, 2)), "cam": pictures})
    np.savez_compressed(tmp_path / "a" / "data.npz", action=np.zeros((N, 2)), cam=pictures)
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "cam.npy", pictures)
    np.save(tmp_path / "b" / "action.npy", np.zeros((N, 2)))
    recordings = read(tmp_path, fps=10)
    assert len(recordings) == 2
    for one in recordings:
        assert one.streams["cam"].kind == "picture"
        np.testing.assert_array_equal(one.streams["cam"].values[2:5], pictures[2:5])
    assert isinstance(recordings[1].streams["cam"].values, np.memmap)


def test_single_values_and_small_arrays_are_facts(tmp_path):
    save_npz(
        tmp_path,
        arrays()
        | {"time": np.arange(N) * 0.1, "task": "pour", "success": True, "matrix": np.eye(3)},
    )
    [one] = read(tmp_path)
    assert one.task == "pour"
    assert one.metadata["success"] is True
    assert one.metadata["matrix"] == np.eye(3).tolist()
    assert set(one.streams) == set(arrays())


def test_episodes_that_differ_are_named(tmp_path):
    save_npz(tmp_path / "e1", arrays())
    save_npz(tmp_path / "e2", arrays() | {"action": np.zeros((N, 4), np.float32)})
    with pytest.raises(DataError, match=r"e2 differs from e1 in action: float32 \[4\] and"):
        EpisodeFolders(fps=10).describe(tmp_path)
    found = EpisodeFolders(fps=10).describe(tmp_path, skip_bad=True)
    assert found.n_episodes == 2 and "e2 differs" in found.notes[0]
    (tmp_path / "e2" / "data.npz").write_bytes(b"PK nothing")
    assert "cannot be read" in EpisodeFolders(fps=10).describe(tmp_path, skip_bad=True).notes[0]


def test_pickles_are_refused(tmp_path):
    class Unpickled:
        def __reduce__(self):
            return (print, ("executed",))

    for name, save in (("a.npy", np.save), ("a.npz", np.savez)):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        save(folder / name, np.array([Unpickled(), None], object))
        with pytest.raises(DataError, match="pickle"):
            EpisodeFolders(fps=10).describe(folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("1,2,3\n4,5,6\n", "does not name the columns"),
        ("", "does not name the columns"),
        ("a,b\n1\n", "Expected 2 columns"),
        ("a,a\n1,2\n", "the same name"),
    ],
)
def test_csv_files_that_are_not_understood_are_named(tmp_path, content, told):
    (tmp_path / "log.csv").write_text(content)
    with pytest.raises(DataError, match=told) as caught:
        EpisodeFolders(fps=10).describe(tmp_path)
    assert "log.csv" in str(caught.value)


def test_columns_are_joined_only_where_their_numbers_count_up(tmp_path):
    header = "q_0,q_1,q_2,x1,x2,cam_3,cam_7,pose[0],pose[1]"
    rows = [",".join(f"{10 * r + c}.5" for c in range(9)) for r in range(4)]
    (tmp_path / "log.csv").write_text("\n".join([header, *rows]))
    [one] = read(tmp_path, fps=10)
    shapes = {name: stream.values.shape for name, stream in one.streams.items()}
    assert shapes == {"q": (4, 3), "x": (4, 2), "cam_3": (4,), "cam_7": (4,), "pose": (4, 2)}
    assert one.streams["q"].names == ("q_0", "q_1", "q_2")
    assert values_of(one)["q"][1].tolist() == [10.5, 11.5, 12.5]


def unitree(folder, n=N):
    for camera in range(2):
        for i in range(n):
            file = folder / "colors" / f"{i:06d}_color_{camera}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(numbered(i + 100 * camera)).save(file, quality=95)
    steps = [
        {
            "idx": i,
            "colors": {f"color_{c}": f"colors/{i:06d}_color_{c}.jpg" for c in range(2)},
            "depths": {},
            "states": {"left_arm": {"qpos": [i, i + 0.5], "qvel": []}, "body": {"qpos": []}},
            "actions": {"left_arm": {"qpos": [i + 1, 0.0], "qvel": []}},
            "tactiles": None,
        }
        for i in range(n)
    ]
    content = {"info": {"version": "1.0", "image": {"fps": 30}}, "text": {"goal": "fold"}}
    (folder / "data.json").write_text(json.dumps(content | {"data": steps}))
    return content | {"data": steps}


def test_episodes_of_unitree_are_read(tmp_path):
    for number in range(2):
        unitree(tmp_path / f"episode_{number:04d}")
    source = EpisodeFolders()
    assert source.recognises(tmp_path)
    assert source.describe(tmp_path).n_episodes == 2
    [one, _] = source.recordings(tmp_path)
    assert (one.task, one.metadata["version"]) == ("fold", "1.0")
    assert {name: stream.kind for name, stream in one.streams.items()} == {
        "states/left_arm/qpos": "state",
        "actions/left_arm/qpos": "command",
        "colors/color_0": "picture",
        "colors/color_1": "picture",
    }
    assert values_of(one)["states/left_arm/qpos"][3].tolist() == [3, 3.5]
    pictures = one.streams["colors/color_1"].values[:]
    assert [number_of(picture) for picture in pictures] == list(range(100, 100 + N))
    np.testing.assert_allclose(one.streams["colors/color_0"].times_s, np.arange(N) / 30)


def test_a_step_without_its_picture_is_named(tmp_path):
    content = unitree(tmp_path)
    content["data"][4]["colors"] = {"color_0": "colors/000004_color_0.jpg"}
    (tmp_path / "data.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="step 4 has no colors/color_1"):
        EpisodeFolders().describe(tmp_path)
    content["data"][4]["colors"] = {f"color_{c}": "../../x.jpg" for c in range(2)}
    (tmp_path / "data.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="names no picture of the episode"):
        EpisodeFolders().describe(tmp_path)


def test_other_formats_and_empty_folders_are_not_recognised(tmp_path, shared_data):
    source = EpisodeFolders()
    assert not source.recognises(tmp_path)
    assert not source.recognises(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no tables"):
        source.describe(tmp_path)
    with pytest.raises(DataError, match="nothing at"):
        source.describe(tmp_path / "absent")
    samples = [path for path in (shared_data / "samples").iterdir() if path.is_dir()]
    assert len(samples) == 7
    assert not any(source.recognises(path) for path in samples)
    assert not RealZarr().recognises(tmp_path)


def mutated(tmp_path, file, count):
    """How many of the damaged copies are read, and how many refused."""
    seen, original = [0, 0], file.read_bytes()
    for data in mutations(original, count):
        file.write_bytes(data)
        try:
            for one in EpisodeFolders(fps=10).recordings(tmp_path):
                values_of(one)
            seen[0] += 1
        except DataError as error:
            assert str(error)
            seen[1] += 1
    file.write_bytes(original)
    return seen


@pytest.mark.parametrize("kind", ["npz", "npy", "csv", "parquet", "lists"])
def test_mutated_tables_are_read_or_refused(tmp_path, kind):
    save_flat(tmp_path, arrays() | {"time": np.arange(N) / 10}, kind)
    file = next(tmp_path.iterdir())
    seen = mutated(tmp_path, file, 60)
    assert sum(seen) == 60 and seen[1] > 0


def test_mutated_pictures_videos_and_lists_are_read_or_refused(tmp_path):
    unitree(tmp_path / "a", 4)
    write_numbered(tmp_path / "a" / "top.mp4", 4)
    files = ["colors/000002_color_0.jpg", "top.mp4", "data.json"]
    for name in files:
        seen = mutated(tmp_path, tmp_path / "a" / name, 50)
        assert sum(seen) == 50 and seen[1] > 0
    shutil.rmtree(tmp_path / "a" / "colors")
    with pytest.raises(DataError, match="picture"):
        EpisodeFolders().describe(tmp_path)
