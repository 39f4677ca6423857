"""Bags become datasets by a mapping, with the values at the times of the grid."""

import tempfile

import numpy as np
import pytest
from bag_files import START_NS, arm_messages, write_bag
from dp_hub_converters.mcap import Bags
from test_bag_pictures import decoded, moving, packets, video_bag

from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

MAPPING = """
fps: 25
task: wave
keep_times: true
features:
  observation.state:
    {from: [/joint_states.position, {stream: /gripper, at: "[0]"}], method: hold}
  observation.images.front: {from: /cam}
  action: {from: /cmd_vel.linear}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["mcap-storage", "db3", "bag-lz4"])
def test_a_folder_of_bags_becomes_a_dataset(tmp_path, kind):
    (tmp_path / "bags").mkdir()
    (tmp_path / "m.yaml").write_text(MAPPING)
    made = [arm_messages(60, seed=number) for number in range(3)]
    for number, (messages, _, _) in enumerate(made):
        write_bag(tmp_path / "bags" / f"take_{number}", kind, messages)
    to = tmp_path / "ds"
    done = convert("mcap", tmp_path / "bags", to, mapping=tmp_path / "m.yaml", images="webp")
    assert (done.written.n_episodes, done.written.fps) == (3, 25)
    dataset = open_dataset(to)
    names = [f"take_{number}" + (".bag" if kind == "bag-lz4" else "") for number in range(3)]
    assert [facts["source"] for facts in dataset.episodes.metadata] == names
    frames = dataset.column("observation.images.front")
    columns = {n: dataset.column(n) for n in ("observation.state", "action")}
    starts, stops = dataset.episodes.starts, dataset.episodes.stops
    compared = 0
    for number, (_, expected, times) in enumerate(made):
        rows = slice(starts[number], stops[number])
        assert 26 <= rows.stop - rows.start <= 30

        def at(feature, rows=rows, times=times):
            """Which values of the bag were used, by the times that were kept."""
            used_s = dataset.column(f"times.{feature}")[rows]
            used_s = used_s if used_s.ndim == 1 else used_s[:, 0]
            nearest = np.abs(used_s[:, None] - times / 1e9).argmin(1)
            assert np.abs(used_s - times[nearest] / 1e9).max() < 1e-6
            assert (np.diff(nearest) >= 0).all()
            return nearest

        used = at("observation.state")
        state = columns["observation.state"][rows]
        np.testing.assert_array_equal(state[:, :7], expected["/joint_states.position"][used])
        np.testing.assert_array_equal(state[:, 7], used)
        twist = expected["/cmd_vel.linear"][at("action")]
        np.testing.assert_array_equal(columns["action"][rows], twist)
        pictures = expected["/cam"][at("observation.images.front") // 2]
        np.testing.assert_array_equal(frames[rows], pictures)
        compared += len(pictures)
    assert compared == dataset.n_frames


def test_a_video_in_a_bag_becomes_pictures_frame_by_frame(tmp_path):
    data = packets(moving(30))
    path = video_bag(tmp_path / "bag", data)
    (tmp_path / "m.yaml").write_text(
        "fps: 25\ntask: t\nfeatures:\n  observation.images.v: {from: /video}\n"
    )
    convert("mcap", path, tmp_path / "ds", mapping=tmp_path / "m.yaml", images="png")
    dataset = open_dataset(tmp_path / "ds")
    assert dataset.n_frames == 30
    frames = dataset.column("observation.images.v")
    np.testing.assert_array_equal(frames[:], decoded(data, "h264"))


def test_a_stream_that_cannot_be_used_is_refused_by_its_name(tmp_path):
    messages, _, _ = arm_messages(20)
    for k in range(20):
        values = {"data": [0.0] * (1 + k // 10)}
        messages.append(("/odd", "std_msgs/msg/Float64MultiArray", START_NS + k, values))
    path = write_bag(tmp_path / "bag", "mcap", messages)
    (tmp_path / "m.yaml").write_text("fps: 25\ntask: t\nfeatures:\n  action: {from: /odd}\n")
    with pytest.raises(DataError, match="/odd changes its length from message to message"):
        convert("mcap", path, tmp_path / "ds", mapping=tmp_path / "m.yaml")
    assert not (tmp_path / "ds").exists()


def test_features_have_the_names_that_messages_give_their_numbers(tmp_path):
    messages, _, _ = arm_messages(60)
    path = write_bag(tmp_path / "bag", "mcap", messages)
    names = Bags().describe(path).names["/joint_states.position"]
    assert len(set(names)) == 7
    (tmp_path / "m.yaml").write_text(
        "fps: 25\ntask: t\nfeatures:\n"
        '  observation.state: {from: "/joint_states.position[1:6]"}\n'
        '  turned: {from: {stream: /joint_states.position, at: "[0:4]", '
        "rotation: {from: quat_xyzw, to: quat_wxyz}}}\n"
        "  action: {next: observation.state}\n"
    )
    done = convert("mcap", path, tmp_path / "ds", mapping=tmp_path / "m.yaml")
    columns = {column.feature: column for column in done.written.columns}
    assert columns["observation.state"].names == columns["action"].names == names[1:6]
    assert columns["turned"].names is None


def test_nothing_is_left_in_temporary_files_however_it_ends(tmp_path, monkeypatch):
    (tmp_path / "bags").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "m.yaml").write_text(MAPPING)
    messages = arm_messages(100, size=(90, 80))[0]
    for number in range(8):
        write_bag(tmp_path / f"bags/take_{number}", "mcap-file", messages)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def stop(progress):
        raise KeyboardInterrupt

    settings = {"mapping": tmp_path / "m.yaml", "images": "webp", "on_progress": stop}
    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            convert("mcap", tmp_path / "bags", tmp_path / f"{workers}", workers=workers, **settings)
        assert list((tmp_path / "tmp").iterdir()) == []
