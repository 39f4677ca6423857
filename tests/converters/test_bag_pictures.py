"""Pictures and videos in bags: decoded when looked at, whatever they are encoded as."""

import io
import json
import struct
import tracemalloc
from base64 import b64encode
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from bag_files import KINDS, START_NS, image, stamp, write_bag
from dp_hub_converters.bags.pixels import Picture, decode
from dp_hub_converters.mcap import Bags
from mcap.writer import Writer
from PIL import Image

from dp_hub.errors import DataError

STEP_NS = 40_000_000


def only_stream(path, **options):
    [recording] = Bags(**options).recordings(Path(path))
    [stream] = recording.streams.values()
    return stream


def pictures_bag(path, pixels, encoding, kind="mcap", padding=0):
    """A bag of the topic /cam, a message for each array of ``pixels``."""
    messages = []
    for k, one in enumerate(pixels):
        header = {"stamp": stamp(START_NS + k * STEP_NS)}
        values = image(one, header, encoding, padding)
        messages.append(("/cam", "sensor_msgs/msg/Image", START_NS + k * STEP_NS + 10, values))
    return write_bag(path, kind, messages)


def colours(count=6, size=(12, 10), channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, channels), np.uint8)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "channels", "order"),
    [
        ("rgb8", 3, [0, 1, 2]), ("bgr8", 3, [2, 1, 0]), ("rgba8", 4, [0, 1, 2]),
        ("bgra8", 4, [2, 1, 0]), ("mono8", 1, [0]), ("8UC1", 1, [0]), ("8UC3", 3, [0, 1, 2]),
    ],
)  # fmt: skip
def test_plain_pictures_come_out_as_rgb_or_grey(tmp_path, encoding, channels, order, padding):
    pixels = colours(channels=channels)
    stream = only_stream(pictures_bag(tmp_path / "bag", pixels, encoding, padding=padding))
    assert stream.values.shape == (6, 12, 10, len(order))
    assert (stream.kind, stream.values.dtype, stream.values.ndim) == ("picture", np.uint8, 4)
    np.testing.assert_array_equal(stream.values[:], pixels[..., order])
    np.testing.assert_array_equal(stream.values[1:6:2], pixels[1:6:2][..., order])
    assert encoding in stream.about
    assert stream.values[3:3].shape == (0, 12, 10, len(order))


@pytest.mark.parametrize("kind", KINDS)
def test_slices_of_pictures_are_read_from_every_kind_of_file(tmp_path, kind):
    pixels = colours(30, (40, 50))
    values = only_stream(pictures_bag(tmp_path / "bag", pixels, "bgr8", kind)).values
    for part in (slice(0, 7), slice(7, 30), slice(3, 4), slice(0, 30, 7), slice(29, None)):
        np.testing.assert_array_equal(values[part], pixels[part][..., ::-1])
    np.testing.assert_array_equal(np.asarray(values), pixels[..., ::-1])


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_interpolated_as_opencv_does(pattern):
    mosaic = np.random.default_rng(0).integers(0, 256, (14, 12), np.uint8)
    # OpenCV names a pattern by its second row and column.
    code = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}[pattern]
    expected = cv2.cvtColor(mosaic, getattr(cv2, f"COLOR_Bayer{code}2RGB"))
    picture = Picture(memoryview(mosaic.tobytes()), f"bayer_{pattern}8", (14, 12), 12)
    got = decode(picture).astype(int)
    assert np.abs(got - expected)[1:-1, 1:-1].max() <= 1
    assert got.shape == (14, 12, 3)


@pytest.mark.parametrize(
    ("encoding", "code", "tolerance"),
    [("yuv422_yuy2", "YUY2", 6), ("yuv422", "UYVY", 6), ("uyvy", "UYVY", 6), ("yuyv", "YUY2", 6)],
)
def test_yuv_pictures_are_converted_as_opencv_does(encoding, code, tolerance):
    ramp = np.linspace(60, 190, 16 * 12 * 2).astype(np.uint8).reshape(12, 32)
    expected = cv2.cvtColor(ramp.reshape(12, 16, 2), getattr(cv2, f"COLOR_YUV2RGB_{code}"))
    padded = np.zeros((12, 40), np.uint8)
    padded[:, :32] = ramp
    got = decode(Picture(memoryview(padded.tobytes()), encoding, (12, 16), 40)).astype(int)
    assert np.abs(got - expected).max() <= tolerance


@pytest.mark.parametrize(
    ("encoding", "dtype"), [("16UC1", np.uint16), ("32FC1", np.float32), ("mono16", np.uint16)]
)
def test_distances_are_refused_or_given_as_numbers(tmp_path, encoding, dtype):
    depths = (np.random.default_rng(0).random((4, 6, 8, 1)) * 1000).astype(dtype)
    path = pictures_bag(tmp_path / "bag", depths, encoding, padding=4)
    stream = only_stream(path)
    assert len(stream) == 4
    with pytest.raises(DataError, match=f"(?s)/cam holds pictures of {encoding}.*depth=numbers"):
        str(stream.values[:])
    values = only_stream(path, depth="numbers").values
    assert (values.shape, values.dtype) == ((4, 6, 8, 1), dtype)
    np.testing.assert_array_equal(values[:], depths)


def compressed(data, text, k):
    return ("/cam", "sensor_msgs/msg/CompressedImage", START_NS + k * STEP_NS + 10, {
        "header": {"stamp": stamp(START_NS + k * STEP_NS)}, "format": text,
        "data": np.frombuffer(data, np.uint8)})  # fmt: skip


def encoded(pixels, kind):
    to = io.BytesIO()
    Image.fromarray(pixels).save(to, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return to.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["jpeg", "rgb8; jpeg compressed bgr8"])
def test_jpeg_pictures_are_decoded_to_the_colours_they_have(tmp_path, kind, text):
    pixels = np.repeat(np.repeat(colours(5, (4, 4)), 8, 1), 8, 2)
    files = [encoded(one, "JPEG") for one in pixels]
    path = write_bag(tmp_path / "bag", kind, [compressed(f, text, k) for k, f in enumerate(files)])
    stream = only_stream(path)
    expected = [np.asarray(Image.open(io.BytesIO(f))) for f in files]
    np.testing.assert_array_equal(stream.values[:], expected)
    assert np.abs(stream.values[:].astype(int) - pixels).mean() < 8  # red is red
    assert stream.about.endswith(f"{text}, decoded to RGB or grey")
    np.testing.assert_allclose(np.diff(stream.times_s), STEP_NS / 1e9, atol=1e-6)


def test_png_pictures_are_lossless_and_grey_ones_stay_grey(tmp_path):
    pixels = colours(3)
    messages = [compressed(encoded(one, "PNG"), "png", k) for k, one in enumerate(pixels)]
    path = write_bag(tmp_path / "rgb", "mcap", messages)
    np.testing.assert_array_equal(only_stream(path).values[:], pixels)
    messages = [compressed(encoded(one[..., 0], "PNG"), "png", k) for k, one in enumerate(pixels)]
    path = write_bag(tmp_path / "grey", "mcap", messages)
    np.testing.assert_array_equal(only_stream(path).values[:], pixels[..., :1])


def test_compressed_distances_are_refused_or_given_as_numbers(tmp_path):
    depths = np.random.default_rng(0).integers(0, 5000, (3, 6, 8)).astype(np.uint16)
    messages = []
    for k, one in enumerate(depths):
        data = struct.pack("<iff", 0, 0, 0) + cv2.imencode(".png", one)[1].tobytes()
        messages.append(compressed(data, "16UC1; compressedDepth png", k))
    path = write_bag(tmp_path / "bag", "mcap", messages)
    with pytest.raises(DataError, match="which a dataset cannot keep as pictures"):
        only_stream(path).values[:1]
    values = only_stream(path, depth="numbers").values
    np.testing.assert_array_equal(values[:][..., 0], depths)


def test_pictures_that_cannot_be_read_are_told_by_number(tmp_path):
    pixels = list(colours(4))
    pixels[2] = pixels[2][:8]
    values = only_stream(pictures_bag(tmp_path / "sizes", pixels, "rgb8")).values
    np.testing.assert_array_equal(values[:2], pixels[:2])
    with pytest.raises(DataError, match="/cam: picture 2 is 8x10x3, the first is 12x10x3"):
        values[:]
    values = only_stream(pictures_bag(tmp_path / "name", pixels[:1], "rgb48")).values
    with pytest.raises(DataError, match="picture 0 cannot be read: pixels encoded as 'rgb48'"):
        values[:]
    messages = [compressed(b"no picture", "jpeg", 0)]
    values = only_stream(write_bag(tmp_path / "damaged", "mcap", messages)).values
    with pytest.raises(DataError, match="/cam: picture 0 cannot be read: UnidentifiedImageError"):
        values[:]


@pytest.mark.alone
def test_pictures_are_never_all_in_memory(tmp_path):
    frames = np.broadcast_to(
        np.arange(120, dtype=np.uint8)[:, None, None, None], (120, 600, 600, 3)
    )
    for kind in ("mcap-storage", "db3", "bag-lz4"):
        path = pictures_bag(tmp_path / kind, frames, "rgb8", kind)
        tracemalloc.start()
        values = only_stream(path).values
        for start in range(0, 120, 8):
            assert (values[start : start + 8] == frames[start : start + 8]).all()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100e6 < frames.size, kind


# Videos


def packets(frames, codec="libx264", *, keys_every=5, options=None):
    """An encoded packet for each frame, and what the frames decode to."""
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = frames[0].shape[:2]
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 25)
    context.gop_size, context.max_b_frames = keys_every, 0
    context.options = options or {"preset": "veryfast", "tune": "zerolatency"}
    found = []
    for number, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
        picture.pts = number
        found += context.encode(picture)
    found += context.encode(None)
    return [bytes(packet) for packet in found]


def decoded(data, codec):
    context = av.CodecContext.create(codec, "r")
    frames = [f for one in data for f in context.decode(av.Packet(one))]
    return np.stack([f.to_ndarray(format="rgb24") for f in [*frames, *context.decode(None)]])


def moving(count, size=(64, 96)):
    """Frames of a square that moves."""
    frames = np.full((count, *size, 3), 40, np.uint8)
    for k in range(count):
        frames[k, 10:30, 2 * k : 2 * k + 20] = (250, 30 + k, 60)
    return frames


def video_bag(path, data, text="h264"):
    """An MCAP of foxglove.CompressedVideo, as ROS 2 writes them."""
    definition = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
    name = "foxglove_msgs/msg/CompressedVideo"
    messages = [
        ("/video", name, START_NS + k * STEP_NS, {
            "timestamp": stamp(START_NS + k * STEP_NS - 10**7), "format": text,
            "data": np.frombuffer(one, np.uint8)})
        for k, one in enumerate(data)
    ]  # fmt: skip
    return write_bag(path, "mcap", messages, {name: definition})


@pytest.mark.parametrize(
    ("codec", "encoder", "options"),
    [
        ("h264", "libx264", None),
        ("hevc", "libx265", {"preset": "ultrafast", "x265-params": "bframes=0:log-level=none"}),
        ("av1", "libsvtav1", {"preset": "12", "svtav1-params": "pred-struct=1:lookahead=0"}),
    ],
)
def test_frames_of_videos_are_decoded_forward_and_back(tmp_path, codec, encoder, options):
    data = packets(moving(24), encoder, options=options)
    assert len(data) == 24
    expected = decoded(data, {"av1": "libdav1d"}.get(codec, codec))
    assert len(expected) == 24
    text = {"hevc": "h265"}.get(codec, codec)
    stream = only_stream(video_bag(tmp_path / "bag", data, text))
    assert stream.values.shape == (24, 64, 96, 3)
    for part in (
        slice(0, 5),
        slice(5, 9),
        slice(9, 24),
        slice(3, 4),
        slice(17, 19),
        slice(2, 20, 6),
    ):
        np.testing.assert_array_equal(stream.values[part], expected[part])
    np.testing.assert_allclose(stream.logged_s - stream.times_s, 0.01, atol=1e-6)
    assert stream.about.startswith("foxglove_msgs/msg/CompressedVideo: ")


def test_frames_before_the_first_key_frame_are_not_there(tmp_path):
    data = packets(moving(20))
    stream = only_stream(video_bag(tmp_path / "bag", data[3:]))
    assert (len(stream), stream.values.shape[0]) == (15, 15)
    np.testing.assert_array_equal(stream.values[:], decoded(data, "h264")[5:])
    first_s = (START_NS + 2 * STEP_NS - 10**7) / 1e9
    assert stream.times_s[0] == pytest.approx(first_s, abs=1e-6)


def test_a_video_that_lost_a_packet_or_a_key_frame_is_told(tmp_path):
    data = packets(moving(12))
    damaged = [*data[:7], b"\0\0\0\1\x41junk", *data[8:]]
    values = only_stream(video_bag(tmp_path / "lost", damaged)).values
    np.testing.assert_array_equal(values[:5], decoded(data, "h264")[:5])
    with pytest.raises(DataError, match=r"/video: picture [67] cannot be read"):
        values[:10]
    np.testing.assert_array_equal(values[10:12], decoded(data, "h264")[10:12])
    values = only_stream(video_bag(tmp_path / "none", data[1:5])).values
    with pytest.raises(DataError, match=r"is a video \(h264\) without a key frame"):
        values[:]


# Plain MCAP of other tools


def write_json(path, topics):
    """An MCAP of JSON messages: ``{topic: (schema name, [(logged_ns, message)])}``."""
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        for topic, (name, messages) in topics.items():
            schema = writer.register_schema(name, "jsonschema", b'{"type": "object"}')
            channel = writer.register_channel(topic, "json", schema)
            for logged_ns, message in messages:
                writer.add_message(
                    channel, logged_ns, json.dumps(message).encode(), publish_time=logged_ns
                )
        writer.finish()
    return path


def json_stamp(k):
    ns = START_NS + k * STEP_NS
    return {"sec": ns // 10**9, "nsec": ns % 10**9}


def test_json_messages_become_streams(tmp_path):
    pixels = colours(5)
    late = [START_NS + k * STEP_NS + 25_000_000 for k in range(5)]
    state = [
        {"timestamp": json_stamp(k), "position": [k, 2.5], "gripper": k, "mode": "run",
         "ok": k > 2, "tool": {"pose": {"x": k, "y": 1, "z": 2}}}
        for k in range(5)
    ]  # fmt: skip
    cam = [
        {"timestamp": json_stamp(k), "frame_id": "cam", "format": "png",
         "data": b64encode(encoded(pixels[k], "PNG")).decode()}
        for k in range(5)
    ]  # fmt: skip
    path = write_json(tmp_path / "log.mcap", {
        "/state": ("lab.State", list(zip(late, state, strict=True))),
        "/cam": ("foxglove.CompressedImage", list(zip(late, cam, strict=True))),
        "/speed": ("lab.Speed", [(ns, {"value": 0.5}) for ns in late]),
    })  # fmt: skip
    dtypes = Bags().describe(path).dtypes
    assert dtypes == {
        "/cam": "uint8", "/speed": "float64", "/state.gripper": "float64", "/state.mode": "object",
        "/state.ok": "bool", "/state.position": "float64", "/state.tool.pose": "float64",
    }  # fmt: skip
    [recording] = Bags().recordings(path)
    streams = recording.streams
    assert set(streams) == set(dtypes)
    k = np.arange(5)
    np.testing.assert_array_equal(streams["/state.position"].values, [[i, 2.5] for i in k])
    np.testing.assert_array_equal(streams["/state.tool.pose"].values, [[i, 1, 2] for i in k])
    np.testing.assert_array_equal(streams["/state.ok"].values[:, 0], k > 2)
    assert streams["/state.mode"].values.tolist() == ["run"] * 5
    assert streams["/state.tool.pose"].names == ("x", "y", "z")
    np.testing.assert_array_equal(streams["/cam"].values[:], pixels)
    for name in ("/cam", "/state.position"):
        stream = streams[name]
        np.testing.assert_array_equal(stream.times_s, (START_NS + k * STEP_NS) / 1e9)
        np.testing.assert_allclose(stream.logged_s - stream.times_s, 0.025, atol=1e-6)


def test_a_json_field_that_is_missing_at_times_is_told(tmp_path):
    messages = [(START_NS + k, {"a": k, "b": k} if k < 3 else {"a": k}) for k in range(5)]
    [recording] = Bags().recordings(write_json(tmp_path / "log.mcap", {"/s": ("", messages)}))
    np.testing.assert_array_equal(recording.streams["/s.a"].values[:, 0], np.arange(5))
    with pytest.raises(DataError, match="message 4 of /s has no b"):
        recording.streams["/s.b"].values[:]


def test_protobuf_messages_become_streams(tmp_path):
    pb2 = pytest.importorskip("google.protobuf.descriptor_pb2", reason="protobuf writes the test")
    from google.protobuf import message_factory, timestamp_pb2

    file = pb2.FileDescriptorProto(name="lab.proto", package="lab", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    point = file.message_type.add(name="Point")
    for number, axis in enumerate("xyz", 1):
        point.field.add(name=axis, number=number, type=1, label=1)
    arm = file.message_type.add(name="Arm")
    kinds = {"timestamp": 11, "position": 1, "small": 2, "count": 17, "ok": 8, "mode": 9, "tip": 11}
    for number, (name, kind) in enumerate(kinds.items(), 1):
        field = arm.field.add(name=name, number=number, type=kind, label=3 if number == 2 else 1)
        if kind == 11:
            field.type_name = ".google.protobuf.Timestamp" if number == 1 else ".lab.Point"
    stamps = pb2.FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(stamps)
    described = pb2.FileDescriptorSet(file=[stamps, file])
    make = message_factory.GetMessages([stamps, file])["lab.Arm"]
    path = tmp_path / "log.mcap"
    with path.open("wb") as to:
        writer = Writer(to)
        writer.start()
        schema = writer.register_schema("lab.Arm", "protobuf", described.SerializeToString())
        channel = writer.register_channel("/arm", "protobuf", schema)
        for k in range(6):
            ns = START_NS + k * STEP_NS
            message = make(position=[k, -k, 0.5], small=k / 2, count=-k, ok=k % 2, mode="m" * k)
            message.timestamp.seconds, message.timestamp.nanos = divmod(ns, 10**9)
            message.tip.x, message.tip.z = k, 7
            writer.add_message(channel, ns + 10**7, message.SerializeToString(), publish_time=ns)
        writer.finish()
    [recording] = Bags().recordings(path)
    k = np.arange(6)
    expected = {
        "position": [[i, -i, 0.5] for i in k], "small": k[:, None] / 2, "count": -k[:, None],
        "ok": k[:, None] % 2 == 1, "mode": np.array(["m" * i for i in k], object),
        "tip": [[i, 0, 7] for i in k],
    }  # fmt: skip
    assert set(recording.streams) == {f"/arm.{name}" for name in expected}
    assert set(Bags().describe(path).dtypes) == set(recording.streams)
    for name, values in expected.items():
        stream = recording.streams[f"/arm.{name}"]
        np.testing.assert_array_equal(stream.values, values, err_msg=name)
        np.testing.assert_array_equal(stream.times_s, (START_NS + k * STEP_NS) / 1e9)
