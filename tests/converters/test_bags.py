"""Bags of ROS 1 and 2, and MCAP files, become recordings with every value and time they hold."""

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_files import (
    ALL_KINDS,
    KINDS,
    START_NS,
    arm_messages,
    build,
    reference,
    stamp,
    store_of,
    write_bag,
)
from dp_hub_converters.bags.columns import Column
from dp_hub_converters.mcap import Bags
from mcap.writer import CompressionType, IndexType, Writer

from dp_hub.errors import DataError


def read(path, *, only=None, **options):
    """The one recording of a source."""
    [recording] = Bags(**options).recordings(Path(path), only=only)
    return recording


def assert_arm(recording, expected, times):
    for name, values in expected.items():
        stream = recording.streams[name]
        got = stream.values[:]
        assert got.dtype == values.dtype or values.dtype == np.int64, name
        np.testing.assert_array_equal(got, values, err_msg=name)
        when = times[::2] if name == "/cam" else times
        np.testing.assert_array_equal(stream.times_s, when / 1e9, err_msg=name)
    assert len(expected) == 9


# Values and times of every kind of file


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_value_of_every_kind_of_bag_is_read(tmp_path, kind):
    messages, expected, times = arm_messages()
    path = write_bag(tmp_path / "arm", kind, messages)
    source = Bags().describe(path)
    assert set(expected) <= set(source.dtypes)
    recording = read(path)
    assert_arm(recording, expected, times)
    kinds = {name: recording.streams[name].kind for name in expected}
    assert kinds == {
        "/joint_states.position": "state", "/pose.position": "state", "/pose.orientation": "state",
        "/cmd_vel.linear": "command", "/cmd_vel.angular": "command", "/gripper": "state",
        "/episode": "event", "/note": "event", "/cam": "picture",
    }  # fmt: skip
    assert recording.streams["/joint_states.position"].names == tuple(f"joint{i}" for i in range(7))
    assert recording.streams["/pose.orientation"].names == ("x", "y", "z", "w")
    for name, stream in recording.streams.items():
        assert stream.values.dtype.name == source.dtypes[name], name
        assert source.names.get(name, ()) == stream.names, name


@pytest.mark.parametrize("kind", KINDS)
def test_times_are_of_the_stamps_and_the_log_time_is_kept(tmp_path, kind):
    messages, _, times = arm_messages()
    path = write_bag(tmp_path / "arm", kind, messages)
    cam = read(path).streams["/cam"]
    np.testing.assert_allclose(cam.logged_s - cam.times_s, 0.025, atol=1e-6)
    logged = read(path, clock="log").streams["/cam"]
    np.testing.assert_allclose(logged.times_s, times[::2] / 1e9 + 0.025, atol=1e-6)
    clocks = read(path).metadata["clocks"]
    assert clocks["/cam"] == "stamps; logged 25.0 ms later (5 to 95 %: 25.0 to 25.0)"
    assert clocks["/cmd_vel"] == "log time"


def pose(stamp_ns, x=0.0):
    return {"header": {"stamp": stamp(stamp_ns)}, "pose": {"position": {"x": x}}}


@pytest.mark.parametrize(
    ("stamps", "told"),
    [
        ([0, 1, 2, 3, 4], "stamps;"),
        ([None, 1, 2, 3, 4], "log time, as the stamps of 1 of 5 messages are zero"),
        ([None] * 5, "log time, as the stamps of 5 of 5 messages are zero"),
        ([500, 501, 502, 503, 504], "log time, as stamps are -50.000 s before"),
        ([0, 1, 2, 100, 101], "log time, as stamps jump against the log time"),
        ([1, 1, 1, 1, 1], "log time, as all stamps are the same"),
        ([0, 2, 1, 3, 4], "stamps;"),
    ],
)
def test_stamps_that_make_no_sense_give_way_to_the_log_time(tmp_path, stamps, told):
    step = 100_000_000
    messages = [
        ("/pose", "geometry_msgs/msg/PoseStamped", START_NS + k * step,
         pose(0 if s is None else START_NS + s * step, x=float(k)))
        for k, s in enumerate(stamps)
    ]  # fmt: skip
    path = write_bag(tmp_path / "bag", "mcap", messages)
    recording = read(path)
    stream = recording.streams["/pose.position"]
    assert recording.metadata["clocks"]["/pose"].startswith(told)
    by_stamp = told.startswith("stamps")
    order = np.argsort(stamps) if by_stamp else np.arange(5)
    np.testing.assert_array_equal(stream.values[:, 0], order)
    expected = np.sort(stamps) if by_stamp else np.arange(5)
    np.testing.assert_allclose(stream.times_s, (START_NS + expected * step) / 1e9, atol=1e-6)
    np.testing.assert_allclose(stream.logged_s, (START_NS + order * step) / 1e9, atol=1e-6)
    if None not in stamps:
        forced = read(path, clock="header").streams["/pose.position"]
        wanted = (START_NS + np.sort(stamps) * step) / 1e9
        np.testing.assert_allclose(forced.times_s, wanted, atol=1e-6)


def test_both_orders_of_bytes_are_read(tmp_path):
    from rosbags.rosbag2 import StoragePlugin
    from rosbags.rosbag2 import Writer as Writer2

    store = store_of("mcap")
    name = "sensor_msgs/msg/JointState"
    with Writer2(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/j", name, typestore=store)
        for k in range(6):
            values = {"header": {"stamp": stamp(START_NS + k)}, "name": ["a", "b"]}
            message = build(store, name, values | {"position": [k, -k]})
            data = store.serialize_cdr(message, name, little_endian=k % 2 == 0)
            writer.write(connection, START_NS + k, data)
    stream = read(tmp_path / "bag").streams["/j.position"]
    np.testing.assert_array_equal(stream.values, [[k, -k] for k in range(6)])
    np.testing.assert_array_equal(stream.times_s, (START_NS + np.arange(6)) / 1e9)


# What messages hold

GRID = """
std_msgs/Header header
float32 alone
uint8 stage
bool on
builtin_interfaces/Duration since
geometry_msgs/Point[2] corners
geometry_msgs/Pose[] poses
float64[3] fixed
int16[] many
string[] finger_names
float32[] finger
Wrist wrist
================================================================================
MSG: lab_msgs/Wrist
float32 roll
float32 pitch
float32 yaw
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: geometry_msgs/Point
float64 x
float64 y
float64 z
================================================================================
MSG: geometry_msgs/Quaternion
float64 x
float64 y
float64 z
float64 w
================================================================================
MSG: geometry_msgs/Pose
Point position
Quaternion orientation
"""


def grid(k):
    return {
        "header": {"stamp": stamp(START_NS + k), "frame_id": "x" * (k % 4)},
        "alone": k / 2, "stage": k, "on": k % 2 == 0, "since": {"sec": k, "nanosec": 500_000_000},
        "corners": [{"x": k, "y": 1, "z": 2}, {"x": -k}],
        "poses": [{"position": {"z": k + j}, "orientation": {"w": 1}} for j in range(3)],
        "fixed": [k, 1, 2], "many": [k, -k, 5, 6], "finger_names": ["thumb", "index"],
        "finger": [k, 9], "wrist": {"roll": k, "pitch": 2, "yaw": 3},
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["mcap", "db3"])
def test_own_messages_with_lists_of_groups_are_read(tmp_path, kind):
    name = "lab_msgs/msg/Grid"
    text = GRID.replace("Wrist wrist", "lab_msgs/Wrist wrist")
    messages = [("/grid", name, START_NS + k, grid(k)) for k in range(7)]
    path = write_bag(tmp_path / "bag", kind, messages, {name: text})
    streams = read(path).streams
    k = np.arange(7)
    expected = {
        "alone": (k / 2)[:, None], "stage": k[:, None], "on": (k % 2 == 0)[:, None],
        "since": k[:, None] + 0.5,
        "corners": [[[i, 1, 2], [-i, 0, 0]] for i in k],
        "poses.position": [[[0, 0, i + j] for j in range(3)] for i in k],
        "poses.orientation": [[[0, 0, 0, 1]] * 3] * 7,
        "fixed": [[i, 1, 2] for i in k], "many": [[i, -i, 5, 6] for i in k],
        "finger": [[i, 9] for i in k], "wrist": [[i, 2, 3] for i in k],
    }  # fmt: skip
    assert set(streams) == {f"/grid.{field}" for field in expected}
    for field, values in expected.items():
        np.testing.assert_array_equal(streams[f"/grid.{field}"].values, values, err_msg=field)
    assert streams["/grid.finger"].names == ("thumb", "index")
    assert streams["/grid.wrist"].names == ("roll", "pitch", "yaw")
    assert streams["/grid.on"].kind == "event"
    assert streams["/grid.stage"].values.dtype == np.uint8


def test_transforms_are_streams_of_their_frames(tmp_path):
    messages = []
    for k in range(9):
        transforms = [
            {"header": {"stamp": stamp(START_NS + k * 10**7), "frame_id": parent},
             "child_frame_id": child,
             "transform": {"translation": {"x": k + j}, "rotation": {"w": 1.0}}}
            for j, (parent, child) in enumerate([("base", "arm1"), ("base", "arm2")])
            if k % 3 or j == 0
        ]  # fmt: skip
        messages.append(("/tf", "tf2_msgs/msg/TFMessage", START_NS + k * 10**7 + 5, {
            "transforms": transforms}))  # fmt: skip
    path = write_bag(tmp_path / "bag", "mcap", messages)
    assert "/tf.arm2.rotation" in Bags().describe(path).dtypes
    streams = read(path).streams
    assert set(streams) == {
        f"/tf.{frame}.{part}" for frame in ("arm1", "arm2") for part in ("translation", "rotation")
    }
    np.testing.assert_array_equal(streams["/tf.arm1.translation"].values[:, 0], np.arange(9))
    some = [k for k in range(9) if k % 3]
    np.testing.assert_array_equal(
        streams["/tf.arm2.translation"].values[:, 0], [k + 1 for k in some]
    )
    times = (START_NS + np.array(some) * 10**7) / 1e9
    np.testing.assert_array_equal(streams["/tf.arm2.rotation"].times_s, times)
    assert streams["/tf.arm1.rotation"].about == "tf2_msgs/msg/TFMessage: of arm1 in base"


def joints(k, names, values):
    return ("/joint_states", "sensor_msgs/msg/JointState", START_NS + k, {
        "name": names, "position": values})  # fmt: skip


def test_joints_in_another_order_are_put_into_the_first_one(tmp_path):
    messages = [
        joints(k, ["a", "b"], [k, 10]) if k % 2 else joints(k, ["b", "a"], [10, k])
        for k in range(8)
    ]
    stream = read(write_bag(tmp_path / "bag", "mcap", messages)).streams["/joint_states.position"]
    assert stream.names == ("b", "a")
    np.testing.assert_array_equal(stream.values, [[10, k] for k in range(8)])


def test_what_cannot_be_used_concerns_only_who_uses_it(tmp_path):
    messages = [joints(k, ["a", "b"] if k % 2 else ["c", "d"], [1, 2]) for k in range(4)]
    messages += [
        ("/scan", "std_msgs/msg/Float64MultiArray", START_NS + k, {"data": [0.0] * (1 + k // 2)})
        for k in range(4)
    ]
    messages += [
        ("/cloud", "sensor_msgs/msg/PointCloud2", START_NS + k, {
            "width": 7, "data": np.zeros(70_000, np.uint8)})
        for k in range(4)
    ]  # fmt: skip
    messages += [("/good", "std_msgs/msg/Float64", START_NS + k, {"data": k}) for k in range(4)]
    path = write_bag(tmp_path / "bag", "mcap", messages)
    streams = read(path).streams
    np.testing.assert_array_equal(streams["/good"].values, np.arange(4.0)[:, None])
    np.testing.assert_array_equal(streams["/cloud.width"].values, np.full((4, 1), 7))
    for name, message in (
        ("/joint_states.position", "is of c, d at first, but of a, b in message 2"),
        ("/joint_states.velocity", "is an empty list in every message"),
        ("/scan", "changes its length from message to message: 1 at first, then 2 in message 3"),
        ("/cloud.data", "holds 70000 bytes in every message"),
    ):
        assert streams[name].values.shape == (4, 0)
        assert "cannot be used, " + name in streams[name].about
        for use in (lambda values: values[:2], np.asarray):
            with pytest.raises(DataError, match=name + ".*" + message):
                use(streams[name].values)


# Many bags, some streams


def test_a_folder_of_bags_is_read_in_natural_order(tmp_path):
    for number in (10, 9, 2):
        messages = [
            ("/x", "std_msgs/msg/Float64", START_NS + k, {"data": number}) for k in range(3)
        ]
        day = tmp_path / f"day{number % 2}"
        day.mkdir(exist_ok=True)
        write_bag(day / f"take_{number}", {10: "mcap", 9: "db3", 2: "bag"}[number], messages)
    converter = Bags()
    assert converter.describe(tmp_path).n_episodes == 3
    names = ["day0/take_2.bag", "day0/take_10", "day1/take_9"]
    assert [r.name for r in converter.recordings(tmp_path)] == names
    rest = list(converter.recordings(tmp_path, start=1))
    assert [r.metadata["source"] for r in rest] == names[1:]
    assert [r.streams["/x"].values[0, 0] for r in rest] == [10, 9]


def test_only_what_is_asked_for_is_read(tmp_path):
    messages, expected, _ = arm_messages()
    path = write_bag(tmp_path / "arm", "mcap", messages)
    recording = read(path, only={"/pose.position", "/cam"})
    assert set(recording.streams) == {"/pose.position", "/cam"}
    np.testing.assert_array_equal(
        recording.streams["/pose.position"].values, expected["/pose.position"]
    )
    some = read(path, topics="/cm*, /cam")
    assert set(some.streams) == {"/cmd_vel.linear", "/cmd_vel.angular", "/cam"}
    assert set(Bags(topics="/cm*, /cam").describe(path).dtypes) == set(some.streams)


def test_parts_of_a_bag_are_one_recording(tmp_path):
    whole = tmp_path / "whole"
    for part in range(2):
        messages = [
            ("/x", "std_msgs/msg/Float64", START_NS + k, {"data": k})
            for k in range(5 * part, 5 * part + 5)
        ]
        write_bag(tmp_path / f"part{part}", "mcap", messages)
    whole.mkdir()
    for part in range(2):
        shutil.copy(tmp_path / f"part{part}" / f"part{part}.mcap", whole / f"whole_{part}.mcap")
    told = yaml.safe_load((tmp_path / "part0" / "metadata.yaml").read_text())
    about = told["rosbag2_bagfile_information"]
    about["relative_file_paths"] = ["whole_0.mcap", "whole_1.mcap"]
    about["topics_with_message_count"][0]["message_count"] = 10
    (whole / "metadata.yaml").write_text(yaml.safe_dump(told))
    recording = read(whole)
    np.testing.assert_array_equal(recording.streams["/x"].values[:, 0], np.arange(10))
    assert "notes" not in recording.metadata
    (whole / "metadata.yaml").unlink()
    assert len(list(Bags().recordings(whole))) == 2
    assert "ros2 bag reindex" in "".join(Bags().describe(whole).notes)
    (whole / "metadata.yaml").write_text(yaml.safe_dump(told))
    (whole / "whole_1.mcap").unlink()
    with pytest.raises(DataError, match=r"misses .* whole_1\.mcap \(there are: whole_0\.mcap"):
        Bags().describe(whole)


def test_what_the_recorder_noted_becomes_task_and_metadata(tmp_path):
    messages = [("/x", "std_msgs/msg/Float64", START_NS, {"data": 1})]
    custom = {"task": "Pick the cube.", "operator": "7"}
    recording = read(write_bag(tmp_path / "bag", "db3", messages, custom=custom))
    assert recording.task == "Pick the cube."
    assert recording.metadata["custom_data"] == custom


def test_bags_are_recognised_by_what_is_in_them(tmp_path):
    messages, _, _ = arm_messages(4)
    for kind in ALL_KINDS:
        path = write_bag(tmp_path / kind, kind, messages)
        assert Bags().recognises(path), kind
    assert Bags().recognises(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("no bag")
    (tmp_path / "other" / "metadata.yaml").write_text("name: no bag")
    (tmp_path / "fake.db3").write_bytes(b"no bag")
    for path in ("other", "fake.db3", "missing", "other/a.txt"):
        assert not Bags().recognises(tmp_path / path), path


# Real bags, and the traps in them


@pytest.fixture(scope="module")
def samples(shared_data):
    return shared_data / "samples"


def compare_numbers(stream, messages, get):
    expected = [get(message) for _, message in messages]
    wanted = np.reshape(expected, stream.values.shape)
    if stream.values.dtype == np.uint8:  # rosbags takes bytes of ROS 2 for signed
        wanted = wanted.astype(np.uint8)
    np.testing.assert_array_equal(stream.values, wanted)


def test_real_ros1_bags_give_what_rosbags_gives(samples):
    seen = 0
    for name in ("example", "example-bz2", "example-lz4"):
        path = samples / "ros1_turtlesim" / f"{name}.bag"
        expected, recording = reference(path), read(path)
        for turtle in ("/turtle1", "/turtle2"):
            for field in ("x", "y", "theta", "linear_velocity", "angular_velocity"):
                messages = expected[f"{turtle}/pose"]
                stream = recording.streams[f"{turtle}/pose.{field}"]
                compare_numbers(stream, messages, lambda m, field=field: getattr(m, field))
                assert len(stream) == 1344
                times = np.array([ns for ns, _ in messages]) / 1e9
                np.testing.assert_array_equal(stream.times_s, times)
            for part in ("linear", "angular"):
                stream = recording.streams[f"{turtle}/cmd_vel.{part}"]
                compare_numbers(
                    stream, expected[f"{turtle}/cmd_vel"],
                    lambda m, part=part: [getattr(getattr(m, part), axis) for axis in "xyz"],
                )  # fmt: skip
                assert stream.kind == "command"
        moved = [m.transforms[0] for _, m in expected["/tf"]]
        moved = [t.transform for t in moved if t.child_frame_id == "turtle1"]
        rotations = [[getattr(t.rotation, axis) for axis in "xyzw"] for t in moved]
        np.testing.assert_array_equal(recording.streams["/tf.turtle1.rotation"].values, rotations)
        texts = recording.streams["/rosout.msg"].values.tolist()
        assert texts == [m.msg for _, m in expected["/rosout"]]
        seen += 1
    assert seen == 3


def test_chunks_that_are_not_in_order_are_put_in_order(samples):
    path = samples / "ros1_turtlesim" / "example-unsorted-chunks.bag"
    messages = reference(path)["foo"]
    stream = read(path).streams["foo"]
    assert stream.values.tolist() == [message.data for _, message in messages]
    assert (np.diff(stream.times_s) >= 0).all()
    assert len(stream) == 3


def test_real_bags_without_messages_and_empty_files_are_told(samples):
    folder = samples / "ros1_turtlesim"
    for use in (lambda p: Bags().describe(p), read):
        with pytest.raises(DataError, match=r"empty-file\.bag is empty"):
            use(folder / "empty-file.bag")
        with pytest.raises(DataError, match=r"no-messages\.bag holds no messages"):
            use(folder / "no-messages.bag")
        with pytest.raises(DataError, match="holds no bags"):
            use(samples / "ros2_rosbag2" / "empty_dir")
    with pytest.raises(DataError, match=r"empty-file\.bag is empty"):
        Bags().describe(folder)
    notes = Bags().describe(folder, skip_bad=True).notes
    assert sum("cannot be converted" in note for note in notes) == 2


def test_trap_other_quality_of_service_in_the_metadata_hides_no_messages(samples, tmp_path):
    seen = 0
    for kind in ("mcap", "sqlite3"):
        path = samples / "ros2_rosbag2" / kind / "cdr_test"
        recording = read(path)
        assert len(recording.streams["/test_topic.float64_value"]) == 3, kind
        assert len(recording.streams["/array_topic.float64_values"]) == 4, kind
        seen += 1
        [file] = [p for p in path.iterdir() if p.suffix in (".mcap", ".db3")]
        for name, stream in read(file).streams.items():
            np.testing.assert_array_equal(stream.values, recording.streams[name].values)
    assert seen == 2
    # Both kinds of storage hold the same messages.
    one, other = (read(samples / "ros2_rosbag2" / k / "cdr_test") for k in ("mcap", "sqlite3"))
    assert set(one.streams) == set(other.streams)
    assert len(one.streams) > 30
    messages = reference(samples / "ros2_rosbag2" / "mcap" / "cdr_test" / "cdr_test_0.mcap")
    for name, stream in one.streams.items():
        topic, *fields = name.split(".")
        if len(fields) == 1 and topic == "/array_topic":
            compare_numbers(stream, messages[topic], lambda m, f=fields[0]: getattr(m, f))
    assert one.streams["/array_topic.basic_types_values.float64_value"].values.shape == (4, 3)
    for name, stream in one.streams.items():
        np.testing.assert_array_equal(stream.values, other.streams[name].values)


def test_counts_that_differ_from_the_metadata_are_told(tmp_path):
    messages = [("/x", "std_msgs/msg/Float64", START_NS + k, {"data": k}) for k in range(3)]
    path = write_bag(tmp_path / "bag", "db3", messages)
    text = (path / "metadata.yaml").read_text()
    assert text.count("message_count: 3") >= 1
    (path / "metadata.yaml").write_text(text.replace("message_count: 3", "message_count: 5"))
    assert read(path).metadata["notes"] == ["/x has 3 messages; metadata.yaml says 5"]
    base = sqlite3.connect(path / "bag.db3")
    base.execute("DELETE FROM messages")
    base.commit()
    base.close()
    with pytest.raises(DataError, match="says /x has 5 messages; its files have none"):
        read(path)


def test_trap_one_definition_that_cannot_be_parsed_spoils_no_other(samples):
    for kind in ("mcap", "sqlite3"):
        path = samples / "ros2_rosbag2" / kind / "bag_with_topics_and_service_events"
        recording = read(path)
        for topic in ("/test_topic1", "/test_topic2"):
            [text] = recording.streams[f"{topic}.string_value_default1"].values
            assert text == "Hello world!", kind
        notes = Bags().describe(path).notes
        left_out = [note for note in notes if "_service_event is left out" in note]
        assert len(left_out) == 2
        assert not any("_service_event" in name for name in recording.streams)


def test_trap_old_bags_without_definitions_take_them_from_elsewhere(samples, tmp_path):
    path = samples / "ros2_rosbag2" / "sqlite3" / "wrong_rmw_test"
    with pytest.raises(DataError, match="BasicTypes cannot be read: the recording does not define"):
        Bags().describe(path)
    write_definitions(samples, tmp_path / "ws" / "test_msgs" / "msg")
    recording = read(path, msg_path=str(tmp_path / "ws"))
    assert len(recording.streams["/test_topic.int32_value"]) == 3
    assert len(recording.streams["/array_topic.float32_values"]) == 4
    expected = read(samples / "ros2_rosbag2" / "sqlite3" / "cdr_test")
    for name in ("/test_topic.float64_value", "/array_topic.int64_values"):
        np.testing.assert_array_equal(recording.streams[name].values, expected.streams[name].values)


def write_definitions(samples, folder):
    """The definitions that a newer bag holds, as .msg files."""
    from mcap.reader import make_reader

    folder.mkdir(parents=True)
    path = samples / "ros2_rosbag2" / "mcap" / "cdr_test" / "cdr_test_0.mcap"
    with path.open("rb") as file:
        schemas = make_reader(file).get_summary().schemas.values()
        texts = [schema.data.decode() for schema in schemas]
        names = [schema.name.split("/")[-1] for schema in schemas]
    for name, text in zip(names, texts, strict=True):
        first, *others = text.split("=" * 80 + "\n")
        (folder / f"{name}.msg").write_text(first)
        for other in others:
            head, body = other.split("\n", 1)
            (folder / f"{head.split('/')[-1]}.msg").write_text(body)


def test_types_that_every_robot_has_need_no_definitions(tmp_path):
    messages, expected, times = arm_messages()
    path = write_bag(tmp_path / "arm", "db3", messages)
    base = sqlite3.connect(path / "arm.db3")
    base.execute("DROP TABLE message_definitions")
    base.commit()
    base.close()
    assert_arm(read(path), expected, times)
    assert_arm(read(path, ros_distro="jazzy"), expected, times)


def test_other_encodings_are_told(samples):
    path = samples / "ros2_rosbag2" / "mcap" / "wrong_rmw_test"
    with pytest.raises(DataError, match="messages encoded as 'wrong_format' cannot be read"):
        Bags().describe(path)


# Files that were not closed


@pytest.mark.parametrize("kind", ["mcap", "mcap-storage", "bag", "bag-lz4"])
def test_a_file_that_was_not_closed_is_refused_or_read_to_its_end(tmp_path, kind):
    messages = [
        ("/x", "std_msgs/msg/Float64MultiArray", START_NS + k, {"data": np.full(5000, k)})
        for k in range(100)
    ]
    path = write_bag(tmp_path / "bag", kind, messages)
    path = path if path.is_file() else path / "bag.mcap"
    whole = path.read_bytes()
    cut = tmp_path / f"cut{path.suffix}"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    for use in (lambda p: Bags().describe(p), read):
        with pytest.raises(DataError, match="cut short, or was not closed"):
            use(cut)
    recording = read(cut, cut_short="keep")
    values = recording.streams["/x"].values
    assert 20 <= len(values) < 100
    np.testing.assert_array_equal(values[:, 0], np.arange(len(values)))
    [note] = recording.metadata["notes"]
    assert note.endswith("is cut short: read up to its last whole record")


def test_a_message_that_does_not_fit_its_definition_is_told_by_its_topic(tmp_path):
    from rosbags.rosbag2 import StoragePlugin
    from rosbags.rosbag2 import Writer as Writer2

    store = store_of("mcap")
    with Writer2(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        bad = writer.add_connection("/bad", "sensor_msgs/msg/JointState", typestore=store)
        good = writer.add_connection("/good", "std_msgs/msg/Float64", typestore=store)
        for k in range(3):
            message = build(store, "std_msgs/msg/Float64", {"data": k})
            data = store.serialize_cdr(message, "std_msgs/msg/Float64")
            writer.write(bad, START_NS + k, data)
            writer.write(good, START_NS + k, data)
    streams = read(tmp_path / "bag").streams
    assert streams["/good"].values[:, 0].tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"/bad: message 1 is no sensor_msgs/msg/JointState"):
        streams["/bad.position"].values[:]


# MCAP files as other writers make them


@pytest.mark.parametrize(
    "settings",
    [
        {"compression": CompressionType.LZ4},
        {"compression": CompressionType.ZSTD, "chunk_size": 300},
        {"compression": CompressionType.NONE, "enable_crcs": False},
        {"use_chunking": False},
        {"use_chunking": False, "use_statistics": False, "repeat_channels": False},
        {"use_statistics": False, "repeat_schemas": False, "repeat_channels": False},
        {"use_summary_offsets": False, "index_types": IndexType.NONE},
    ],
)
@pytest.mark.parametrize("encoding", ["cdr", "ros1"])
def test_mcap_files_of_other_writers_are_read(tmp_path, settings, encoding):
    messages, expected, times = arm_messages()
    store = store_of("mcap" if encoding == "cdr" else "bag")
    serialize = store.serialize_cdr if encoding == "cdr" else store.serialize_ros1
    path = tmp_path / "other.mcap"
    with path.open("wb") as file:
        writer = Writer(file, **settings)
        writer.start()
        channels = {}
        for topic, name, logged_ns, values in messages:
            if topic not in channels:
                text, _ = store.generate_msgdef(name, ros_version=2 if encoding == "cdr" else 1)
                language = "ros2msg" if encoding == "cdr" else "ros1msg"
                schema = writer.register_schema(name, language, text.encode())
                channels[topic] = writer.register_channel(topic, encoding, schema)
            data = bytes(serialize(build(store, name, values), name))
            writer.add_message(channels[topic], logged_ns, data, publish_time=logged_ns)
        writer.finish()
    assert set(expected) <= set(Bags().describe(path).dtypes)
    assert_arm(read(path), expected, times)


def test_long_streams_are_kept_in_a_file():
    column = Column("/x", "float64")
    rows = np.arange(2_000_000, dtype=np.float64).reshape(-1, 8)
    for _ in range(12):
        column.add(rows)
    values = column.values(12 * len(rows))
    assert isinstance(values, np.memmap)
    np.testing.assert_array_equal(
        values.reshape(12, *rows.shape), np.broadcast_to(rows, (12, *rows.shape))
    )
