"""Files made to do harm: to fill the memory, to never end, to start programs. All are refused."""

import io
import json
import sqlite3
import time
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bag_files import arm_messages, write_bag
from dp_hub_converters.bags.documents import flatten
from dp_hub_converters.bags.fields import Group, Repeat
from dp_hub_converters.bags.layout import MisfitError, walk
from dp_hub_converters.bags.pixels import Picture, decode
from dp_hub_converters.bags.storage import ZSTD, unpack
from dp_hub_converters.folder import EpisodeFolders
from dp_hub_converters.lerobot_folders.pictures import PictureFolder, Pictures
from dp_hub_converters.lerobot_folders.rows import Rows
from dp_hub_converters.mcap import Bags

from dp_hub.dataset.images import decode_image
from dp_hub.errors import DataError

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.fixture
def quickly():
    """Whatever is refused is refused at once, with the processor to itself."""
    began = time.process_time()
    yield
    assert time.process_time() - began < 10


@pytest.fixture
def bag(tmp_path):
    messages, _, _ = arm_messages(4, size=(4, 5))
    return write_bag(tmp_path / "bag", "db3", messages)


@pytest.mark.parametrize(
    ("begin", "step"),
    [
        ("x0: &x0 [a, a]\n", "x{n}: &x{n} [{many}]\n"),
        ("x0: &x0 {a: 1}\n", "x{n}: &x{n} {{<<: [{many}]}}\n"),
    ],
)
def test_metadata_that_grows_by_its_aliases_is_refused(bag, quickly, begin, step):
    lines = [step.format(n=n, many=", ".join([f"*x{n - 1}"] * 9)) for n in range(1, 10)]
    told = "rosbag2_bagfile_information:\n  relative_file_paths: [*x9]\n"
    (bag / "metadata.yaml").write_text(f"# {told[:28]}\n" + begin + "".join(lines) + told)
    with pytest.raises(DataError, match="has an alias"):
        Bags().describe(bag)


@pytest.mark.parametrize("name", ["messages", "message_definitions"])
def test_a_table_that_is_a_query_without_end_is_not_read(bag, quickly, name):
    endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT "
    endless += "id, 1 AS topic_id, id AS timestamp, x'00' AS data, 'x' AS topic_type, "
    endless += "'x' AS encoding, 'x' AS encoded_message_definition FROM n"
    with sqlite3.connect(bag / "bag.db3") as base:
        base.execute(f"DROP TABLE {name}")
        base.execute(f"CREATE VIEW {name} AS {endless}")
    base.close()
    if name == "messages":
        with pytest.raises(DataError, match="no tables topics and messages"):
            Bags().describe(bag)
    else:  # the usual types are known without
        assert Bags().describe(bag).dtypes["/joint_states.position"] == "float64"


def test_a_message_that_only_begins_as_compressed_is_damaged():
    for rest in (b"", b"\xff\xff", bytes(9)):
        with pytest.raises(ValueError, match="cannot be decompressed"):
            unpack(memoryview(ZSTD + rest))


def test_lists_of_nothing_in_lists_are_not_walked_through(quickly):
    group = Group(())
    for _ in range(4):
        group = Group((Repeat(group, 1000),))
    with pytest.raises(MisfitError, match="list of 1000"):
        walk(group, memoryview(bytes(2000)), cdr=False)


def test_lists_within_lists_have_a_depth():
    document = json.loads("[" * 300 + "]" * 300)
    with pytest.raises(MisfitError, match="too deep"):
        flatten(document, "", {}, {}, depth=0)


def test_pictures_that_are_programs_are_not_run(tmp_path):
    with pytest.raises(ValueError, match="cannot identify"):
        decode(Picture(memoryview(POSTSCRIPT), "jpeg"))
    with pytest.raises(DataError, match="cannot identify"):
        decode_image(POSTSCRIPT, (9, 9, 3))
    (tmp_path / "a.png").write_bytes(POSTSCRIPT)
    rows = Rows(tmp_path / "a.parquet", 0, 1, (0,), 0.0)
    with pytest.raises(DataError, match="cannot identify"):
        Pictures(PictureFolder([tmp_path / "a.png"], 0), rows, "cam")


def zeros_npz(path, key, dtype, shape):
    """An array of zeros, of which a thousandth is on the disk."""
    head = io.BytesIO()
    described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, described)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{key}.npy", "w", force_zip64=True) as file,
    ):
        file.write(head.getvalue())
        for _ in range(int(np.prod(shape)) * np.dtype(dtype).itemsize >> 20):
            file.write(bytes(1 << 20))


def test_an_array_that_unpacks_to_gigabytes_is_refused(tmp_path, quickly):
    zeros_npz(tmp_path / "a.npz", "state", "f8", (1 << 20, 100))
    assert (tmp_path / "a.npz").stat().st_size < 10_000_000
    with pytest.raises(DataError, match="state has 839 MB in one episode"):
        EpisodeFolders(fps=10).describe(tmp_path)


def test_a_table_of_more_rows_than_an_episode_has_is_refused(tmp_path, quickly):
    column = pa.DictionaryArray.from_arrays(np.zeros(1 << 20, np.int8), pa.array([0.0]))
    table = pa.Table.from_arrays([column], names=["state"])
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as file:
        for _ in range(130):
            file.write_table(table)
    assert (tmp_path / "a.parquet").stat().st_size < 1_000_000
    with pytest.raises(DataError, match="MB of numbers in one episode"):
        EpisodeFolders(fps=10).describe(tmp_path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pictures_of_an_archive_are_unpacked_one_by_one(tmp_path, save):
    pictures = np.random.default_rng(0).integers(0, 256, (40, 9, 8, 3), dtype=np.uint8)
    save(tmp_path / "a.npz", action=np.zeros((40, 2)), cam=pictures)
    [recording] = EpisodeFolders(fps=10).recordings(tmp_path)
    values = recording.streams["cam"].values
    for part in (slice(30, 35), slice(35, 40), slice(0, 3), slice(5, 25, 4), slice(7, 7)):
        np.testing.assert_array_equal(values[part], pictures[part])
    np.testing.assert_array_equal(np.asarray(values), pictures)
