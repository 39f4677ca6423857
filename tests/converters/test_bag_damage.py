"""Damaged bags give data or a sentence; messages of random types come out as they went in."""

import shutil
import time

import numpy as np
import pytest
from bag_files import START_NS, arm_messages, build, store_of, write_bag
from dp_hub_converters.bags.layout import walk
from dp_hub_converters.bags.numbers import RosNumbers
from dp_hub_converters.bags.storage import Channel, Place
from dp_hub_converters.bags.storage import Message as Stored
from dp_hub_converters.bags.types import Definitions
from dp_hub_converters.mcap import Bags

from dp_hub.errors import DataError

# Damage


def mutated(data, rng):
    """Bytes with one kind of damage."""
    data = bytearray(data)
    size = len(data)
    how = rng.integers(5)
    at = int(rng.integers(size))
    length = int(rng.integers(1, 200))
    if how == 0:
        for where in rng.integers(0, size, int(rng.integers(1, 9))):
            data[where] ^= 1 << int(rng.integers(8))
    elif how == 1:
        del data[at:]
    elif how == 2:
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif how == 3:
        data[at : at + length] = rng.integers(
            0, 256, len(data[at : at + length]), np.uint8
        ).tobytes()
    else:
        other = int(rng.integers(size))
        data[at : at + length], data[other : other + length] = (
            data[other : other + length], data[at : at + length],
        )  # fmt: skip
    return bytes(data)


def read_all(converter, path):
    """Use every stream; how many gave their values."""
    given = 0
    converter.describe(path)
    for recording in converter.recordings(path):
        for stream in recording.streams.values():
            try:
                np.asarray(stream.values[:])
                given += 1
            except DataError as error:
                assert str(error)
    return given


@pytest.mark.parametrize(
    ("kind", "rounds"),
    [("mcap", 200), ("db3", 200), ("bag", 200), ("mcap-storage", 60), ("bag-lz4", 60),
     ("bag-bz2", 60), ("mcap-message", 60), ("db3-file", 60)],
)  # fmt: skip
def test_damaged_files_give_data_or_a_sentence(tmp_path, kind, rounds):
    messages, _, _ = arm_messages(4, size=(4, 5))
    path = write_bag(tmp_path / "bag", kind, messages)
    file = path if path.is_file() else next(p for p in path.iterdir() if "metadata" not in p.name)
    whole = file.read_bytes()
    converters = [Bags(), Bags(cut_short="keep")]
    rng = np.random.default_rng(len(kind))
    results = []
    began = time.monotonic()
    for number in range(rounds):
        file.write_bytes(mutated(whole, rng))
        try:
            results.append(read_all(converters[number % 2], path))
        except DataError as error:
            assert len(str(error)) > 20
            results.append(-1)
    assert len(results) == rounds
    assert time.monotonic() - began < 120
    assert results.count(-1) > 0
    assert max(results) > 5


def test_damaged_metadata_gives_data_or_a_sentence(tmp_path):
    messages, _, _ = arm_messages(4, size=(4, 5))
    path = write_bag(tmp_path / "bag", "mcap", messages)
    whole = (path / "metadata.yaml").read_bytes()
    rng = np.random.default_rng(3)
    converter = Bags()
    results = []
    for _ in range(60):
        (path / "metadata.yaml").write_bytes(mutated(whole, rng))
        try:
            results.append(read_all(converter, path))
        except DataError:
            results.append(-1)
    assert results.count(-1) > 0
    assert max(results) > 5


def test_chunks_that_claim_to_be_huge_are_not_made(tmp_path):
    messages, _, _ = arm_messages(4, size=(4, 5))
    path = write_bag(tmp_path / "bag", "mcap-storage", messages) / "bag.mcap"
    data = bytearray(path.read_bytes())
    at = data.index(b"\x06", 8)  # the first chunk
    data[at + 9 + 16 : at + 9 + 24] = (1 << 40).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="would have 1099511627776 bytes"):
        list(Bags().recordings(path))


def test_a_part_that_is_no_bag_is_told(tmp_path):
    messages, _, _ = arm_messages(4, size=(4, 5))
    path = write_bag(tmp_path / "bag", "db3", messages)
    (path / "bag.db3").write_bytes(b"something else entirely")
    with pytest.raises(DataError, match=r"bag\.db3 is neither an MCAP file nor a bag"):
        Bags().describe(path)
    (path / "bag.db3").write_bytes(b"")
    with pytest.raises(DataError, match=r"bag\.db3 is empty"):
        Bags().describe(path)
    shutil.rmtree(path)
    with pytest.raises(DataError, match="there is no file or folder"):
        Bags().describe(path)


# Messages of random types

NUMBERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
NUMBERS = (*NUMBERS, "float32", "float64")


def random_type(rng, name, depth=0):
    """A definition, with those it needs, and a function that makes values."""
    fields, others, makers = [], {}, {}
    if not depth:  # a message's only field would go without its name
        fields += ["uint8 one", "float32 two"]
        makers |= {"one": lambda: 1, "two": lambda: 0.5}
    for number in range(int(rng.integers(1, 7))):
        field, kind = f"f{number}", int(rng.integers(7 if depth < 2 else 5))
        base = str(rng.choice(NUMBERS))
        count = int(rng.integers(0, 5))
        if kind == 0:
            fields.append(f"{base} {field}")
            makers[field] = lambda base=base: one_number(rng, base, ())[()]
        elif kind == 1:
            fields.append(f"{base}[{count + 1}] {field}")
            makers[field] = lambda base=base, n=count + 1: one_number(rng, base, (n,))
        elif kind == 2:
            fields.append(f"{base}[] {field}")
            makers[field] = lambda base=base, n=count: one_number(rng, base, (n,))
        elif kind == 3:
            fields.append(f"string {field}")
            makers[field] = lambda: "é" * int(rng.integers(4))
        elif kind == 4:
            fields.append(f"string[] {field}")
            makers[field] = lambda n=count: ["x" * int(rng.integers(4)) for _ in range(n)]
        else:
            inner = f"{name}{number}"
            text, more, make = random_type(rng, inner, depth + 1)
            others |= {inner: text} | more
            fields.append(f"lab/{inner}{'[]' if kind == 6 else ''} {field}")
            makers[field] = make
            if kind == 6:
                makers[field] = lambda make=make, n=count: [make() for _ in range(n)]
    return "\n".join(fields), others, lambda: {f: make() for f, make in makers.items()}


def one_number(rng, base, shape):
    if base == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if base.startswith("float"):
        return rng.normal(size=shape).astype(base)
    info = np.iinfo(base)
    return rng.integers(info.min, info.max, shape, base, endpoint=True)


def flat(values, path=""):
    """Numbers of nested dicts by path; of lists of dicts all, one after the other."""
    found = {}
    for field, value in values.items():
        inner = f"{path}.{field}" if path else field
        if isinstance(value, dict):
            found |= flat(value, inner)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for one in value:
                for name, numbers in flat(one, inner).items():
                    found.setdefault(name, []).extend(numbers)
        elif not isinstance(value, str | list):
            found[inner] = np.reshape(value, -1).tolist()
    return found


@pytest.mark.parametrize("kind", ["cdr-little", "cdr-big", "bag"])
def test_fields_of_random_messages_are_where_they_are_written(kind):
    rng = np.random.default_rng(11)
    compared = 0
    for round_ in range(60):
        name = f"T{round_}"
        text, others, make = random_type(rng, name)
        sep = "=" * 80 + "\n"
        text = sep.join([text + "\n", *(f"MSG: lab/{n}\n{t}\n" for n, t in others.items())])
        store = store_of(kind, {f"lab/msg/{name}": text})
        values = make()
        message = build(store, f"lab/msg/{name}", values)
        if kind == "bag":
            data = store.serialize_ros1(message, f"lab/msg/{name}")
        else:
            little = kind == "cdr-little"
            data = store.serialize_cdr(message, f"lab/msg/{name}", little_endian=little)
        encoding = "ros1" if kind == "bag" else "cdr"
        language = "ros1msg" if kind == "bag" else "ros2msg"
        channel = Channel("/t", f"lab/msg/{name}", encoding, language, text.encode())
        compared += compare(channel, memoryview(bytes(data)), values)
    assert compared > 250


def compare(channel, data, values):
    """Every list of numbers of a message, through the whole way to a stream."""
    group = Definitions().group(channel)
    assert walk(group, data, cdr=channel.encoding == "cdr").size == len(data)
    collector = RosNumbers(channel, group, lambda name: True)
    for k in range(3):
        collector.feed(Stored(0, START_NS + k, data, Place(-1, 0, len(data))), 0)
    expected = flat(values)
    compared = 0
    for one in collector.streams("auto"):
        path = one.name.removeprefix("/t.")
        try:
            got = one.stream.values[:]
        except DataError:
            continue  # an empty list, or lists of different lengths
        if got.dtype == object:
            continue
        numbers = expected.get(path)
        if numbers is None:  # fields side by side that became one vector
            inner = [row for name, row in expected.items() if name.startswith(f"{path}.")]
            numbers = np.array(inner).T.reshape(-1).tolist()
        assert len(got) == 3
        for row in got:
            assert np.reshape(row, -1).tolist() == numbers, one.name
        compared += 1
    return compared
