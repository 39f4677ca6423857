"""TFRecord, tf.train.Example and TFDS folders, written by hand for tests, without our code."""

import io
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

TABLE = []
for byte in range(256):
    crc = byte
    for _ in range(8):
        crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    TABLE.append(crc)


def masked(data):
    """CRC-32C of the bytes, as TFRecord stores it."""
    crc = 0xFFFFFFFF
    for value in data:
        crc = TABLE[(crc ^ value) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data):
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked(head)) + data + struct.pack("<I", masked(data))


def varint(value):
    value &= 2**64 - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values, *, packed=True):
    """A tf.train.Feature: of bytes, floats or integers."""
    if len(values) and isinstance(values[0], (bytes, str)):
        texts = [value.encode() if isinstance(value, str) else value for value in values]
        return field(1, b"".join(field(1, text) for text in texts))
    values = np.asarray(values).reshape(-1)
    if values.dtype.kind == "f":
        floats = [struct.pack("<f", value) for value in values.tolist()]
        body = field(1, b"".join(floats)) if packed else b"".join(b"\x0d" + f for f in floats)
        return field(2, body)
    ints = [varint(int(value)) for value in values.tolist()]
    return field(3, field(1, b"".join(ints)) if packed else b"".join(b"\x08" + i for i in ints))


def example(features, *, packed=True):
    entries = [
        field(1, field(1, name.encode()) + field(2, feature(values, packed=packed)))
        for name, values in features.items()
    ]
    return field(1, b"".join(entries))


def tensor(dtype, *shape, encoding="none"):
    dims = {"dimensions": [str(n) for n in shape]} if shape else {}
    return {
        "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
        "tensor": {"shape": dims, "dtype": dtype, "encoding": encoding},
    }


def image(*shape, dtype="uint8"):
    dims = [str(n) for n in shape]
    return {"image": {"shape": {"dimensions": dims}, "dtype": dtype, "encodingFormat": "png"}}


def sequence(node, length=-1):
    return {"sequence": {"feature": node, "length": str(length)}}


def group(**features):
    return {"featuresDict": {"features": features}}


TEXT = {"text": {}}
FLAG = tensor("bool")


def write_tfds(folder, steps, shards, *, metadata=None, split="train", info=True, name="made"):
    """A version's folder. ``shards``: for each file the feature dicts of its episodes."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tree = group(steps=sequence(group(**steps)), episode_metadata=group(**(metadata or {})))
    (folder / "features.json").write_text(json.dumps(tree))
    listed = []
    if (folder / "dataset_info.json").exists():
        listed = json.loads((folder / "dataset_info.json").read_text())["splits"]
    listed.append({"name": split, "shardLengths": [str(len(episodes)) for episodes in shards]})
    if info:
        (folder / "dataset_info.json").write_text(json.dumps({"name": name, "splits": listed}))
    for number, episodes in enumerate(shards):
        data = b"".join(record(example(features)) for features in episodes)
        file = folder / f"{name}-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
        file.write_bytes(data)
    return folder


def png(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(buffer, "PNG")
    return buffer.getvalue()


def flags(n, at):
    return (np.arange(n) == at % n).astype(np.int64)
