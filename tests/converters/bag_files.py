"""Bags of every kind, written by rosbags and mcap, for tests."""

from pathlib import Path

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

KINDS = ("mcap", "db3", "bag")
ALL_KINDS = (
    *KINDS, "mcap-storage", "mcap-message", "mcap-file", "db3-message", "db3-file",
    "bag-bz2", "bag-lz4",
)  # fmt: skip
START_NS = 1_700_000_000_000_000_000
_DTYPES = {"bool": bool, "byte": np.uint8, "char": np.uint8}


def store_of(kind, definitions=()):
    """The types of ROS 1 or 2, and those of definitions ``{name: text}``."""
    store = get_typestore(Stores.ROS1_NOETIC if kind.startswith("bag") else Stores.ROS2_HUMBLE)
    types = {}
    for name, text in dict(definitions).items():
        types.update(get_types_from_msg(text, name))
    if types:
        store.register(types)
    return store


def build(store, name, values):
    """A message of nested dicts; fields that are left out are zero."""
    fields = {}
    for field, described in store.fielddefs[name][1]:
        given = values.get(field)
        fields[field] = _value(store, described, given)
    unknown = set(values) - set(fields)
    assert not unknown, unknown
    return store.types[name](**fields)


def _value(store, described, given):
    node, inner = described
    if node == Nodetype.BASE:
        if inner[0] == "string":
            return given or ""
        return given or (False if inner[0] == "bool" else 0)
    if node == Nodetype.NAME:
        return build(store, inner, given or {})
    (sub_node, sub), size = inner
    count = size if node == Nodetype.ARRAY else 0
    if sub_node == Nodetype.NAME:
        return [build(store, sub, one) for one in (given or [{}] * count)]
    if sub[0] == "string":
        return list(given or [""] * count)
    dtype = _DTYPES.get(sub[0], sub[0])
    return np.zeros(count, dtype) if given is None else np.asarray(given, dtype)


def stamp(ns):
    return {"sec": ns // 10**9, "nanosec": ns % 10**9}


def write_bag(path, kind, messages, definitions=(), custom=(), version=8):
    """Write ``(topic, type, logged_ns, values)`` in order; gives the path of the bag."""
    store = store_of(kind, definitions)
    storage, _, how = kind.partition("-")
    if storage == "bag":
        path = Path(path).with_suffix(".bag")
        writer = Writer1(path)
        if how:
            writer.set_compression(getattr(Writer1.CompressionFormat, how.upper()))
        serialize = store.serialize_ros1
    else:
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        writer = Writer2(path, version=version, storage_plugin=plugin)
        if how:
            writer.set_compression(CompressionMode[how.upper()], CompressionFormat.ZSTD)
        for key, value in dict(custom).items():
            writer.set_custom_data(key, value)
        serialize = store.serialize_cdr
    connections = {}
    with writer:
        for topic, name, logged_ns, values in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, name, typestore=store)
            message = build(store, name, values)
            writer.write(connections[topic], logged_ns, serialize(message, name))
    return Path(path)


def arm_messages(count=40, *, latency_ns=25_000_000, seed=0, size=(12, 10)):
    """A robot at 50 Hz and a camera at 25 Hz that is logged later than its stamp says.

    Gives the messages and what must come out of them, by stream.
    """
    rng = np.random.default_rng(seed)
    positions = rng.normal(size=(count, 7))
    poses = rng.normal(size=(count, 7))
    pictures = rng.integers(0, 256, (count // 2, *size, 3), np.uint8)
    times = START_NS + np.arange(count) * 20_000_000 + rng.integers(0, 2_000_000, count)
    messages = []
    names = [f"joint{i}" for i in range(7)]
    for k, ns in enumerate(times.tolist()):
        header = {"stamp": stamp(ns), "frame_id": "base" if k % 3 else "map"}
        late = ns + 1_000_000
        joints = {"header": header, "name": names, "position": positions[k]}
        messages.append(("/joint_states", "sensor_msgs/msg/JointState", late, joints))
        pose = {
            "position": dict(zip("xyz", poses[k, :3].tolist(), strict=True)),
            "orientation": dict(zip("xyzw", poses[k, 3:].tolist(), strict=True)),
        }
        posed = {"header": header, "pose": pose}
        messages.append(("/pose", "geometry_msgs/msg/PoseStamped", late, posed))
        twist = {"linear": {"x": float(k)}, "angular": {"z": -0.5 * k}}
        messages.append(("/cmd_vel", "geometry_msgs/msg/Twist", ns, twist))
        messages.append(("/gripper", "std_msgs/msg/Float64MultiArray", ns, {"data": [k, 2.5]}))
        messages.append(("/episode", "std_msgs/msg/Bool", ns, {"data": bool(k // 10 % 2)}))
        messages.append(("/note", "std_msgs/msg/String", ns, {"data": "é" * (k % 5)}))
        if k % 2 == 0:
            messages.append(("/cam", "sensor_msgs/msg/Image", ns + latency_ns, image(
                pictures[k // 2], header)))  # fmt: skip
    messages.sort(key=lambda message: message[2])
    expected = {
        "/joint_states.position": positions,
        "/pose.position": poses[:, :3],
        "/pose.orientation": poses[:, 3:],
        "/cmd_vel.linear": np.stack([np.arange(count), *np.zeros((2, count))], 1),
        "/cmd_vel.angular": np.stack([*np.zeros((2, count)), -0.5 * np.arange(count)], 1),
        "/gripper": np.stack([np.arange(count), np.full(count, 2.5)], 1),
        "/episode": (np.arange(count) // 10 % 2 == 1)[:, None],
        "/note": np.array(["é" * (k % 5) for k in range(count)], object),
        "/cam": pictures,
    }
    return messages, expected, times


def image(pixels, header, encoding="rgb8", padding=0):
    """A sensor_msgs/Image, with bytes after each row."""
    height, row = pixels.shape[0], pixels[0].tobytes()
    step = len(row) + padding
    rows = np.full((height, step), 7, np.uint8)
    rows[:, : len(row)] = np.frombuffer(pixels.tobytes(), np.uint8).reshape(height, -1)
    return {
        "header": header, "height": height, "width": pixels.shape[1], "encoding": encoding,
        "step": step, "data": rows.reshape(-1),
    }  # fmt: skip


def reference(path, topics=None):
    """By topic, times and messages as rosbags reads them."""
    from rosbags.highlevel import AnyReader

    found = {}
    default = get_typestore(Stores.ROS2_HUMBLE)
    with AnyReader([path], default_typestore=default) as reader:
        connections = [c for c in reader.connections if topics is None or c.topic in topics]
        for connection, logged_ns, data in reader.messages(connections):
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((logged_ns, message))
    return found
