"""torch's files, of both layouts, are read without torch.load; lies about sizes are refused."""

import io
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import dill
import pytest
import torch
from torch import nn

from dp_hub.errors import PolicyError
from dp_hub.policies.foreign.torch_file import open_torch_file

LAYOUTS = {"zip": True, "legacy": False}
DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
DTYPES += [torch.int8, torch.uint8, torch.bool, torch.float32]


def save(value, path: Path, layout: str = "zip") -> Path:
    with path.open("wb") as file:
        torch.save(value, file, pickle_module=dill, _use_new_zipfile_serialization=LAYOUTS[layout])
    return path


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    whole = torch.randn(4, 6)
    return {
        "plain": whole.clone(),
        "transposed": whole.T,
        "a part": whole[1:3, 2:],
        "every other": whole[:, ::2],
        "one number": torch.tensor(3.5),
        "none": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.randn(3)),
        **{str(dtype): (10 * torch.randn(3)).to(dtype) for dtype in DTYPES},
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_come_out_as_they_went_in(layout: str, tmp_path: Path) -> None:
    given = tensors()
    with open_torch_file(save(given, tmp_path / "x.ckpt", layout)) as file:
        assert list(file.payload) == list(given)
        for name, expected in given.items():
            found = file.tensor(file.payload[name])
            assert found.dtype == expected.dtype, name
            assert torch.equal(found, expected), name
            assert found.is_contiguous() and not found.requires_grad


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_state_dict_with_its_versions_and_an_optimizer_are_read(layout, tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    given = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    with open_torch_file(save(given, tmp_path / "x.ckpt", layout)) as file:
        assert torch.equal(file.tensor(file.payload["model"]["weight"]), model.weight)
        assert file.payload["optimizer"]["param_groups"][0]["lr"] == 1e-3


def test_the_whole_file_is_not_read_for_one_tensor(tmp_path: Path) -> None:
    path = save({"a": torch.ones(3), "b": torch.zeros(5)}, tmp_path / "x.ckpt")
    damaged = path.read_bytes().replace(
        struct.pack("<5f", *[0.0] * 5), struct.pack("<5f", *[1.0] * 5)
    )
    path.write_bytes(damaged)
    with open_torch_file(path) as file:
        assert torch.equal(file.tensor(file.payload["a"]), torch.ones(3))
        with pytest.raises(PolicyError, match="is damaged"):
            file.tensor(file.payload["b"])


class Attack:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_code_in_a_file_of_torchs_is_refused_and_does_not_run(layout: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    path = save({"cfg": 1, "model": Attack(sentinel)}, tmp_path / "x.ckpt", layout)
    with pytest.raises(PolicyError, match=r"it names `posix\.system`"), open_torch_file(path):
        pass
    assert not sentinel.exists()
    torch.load(path, weights_only=False)
    assert sentinel.exists(), "the attack is not one"


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    path = save(nn.Linear(2, 2), tmp_path / "x.ckpt")
    with pytest.raises(PolicyError, match=r"it names `torch\.nn\.modules\.linear\.Linear`"):
        read(path)


def read(path: Path):
    with open_torch_file(path) as file:
        return {name: file.tensor(ref) for name, ref in file.payload.items()}


def rewritten(path: Path, change, *, compression: int = zipfile.ZIP_STORED) -> Path:
    """The archive with its entries, name to bytes, changed by ``change``."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    change(entries)
    result = path.with_name("changed.ckpt")
    with zipfile.ZipFile(result, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return result


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save({"a": torch.arange(4.0)}, tmp_path / "small.ckpt")


def pickled(entries: dict[str, bytes], old: bytes, new: bytes) -> None:
    name = next(name for name in entries if name.endswith("/data.pkl"))
    assert old in entries[name]
    entries[name] = entries[name].replace(old, new, 1)


LIES = {
    "a storage longer than its bytes": lambda e: pickled(e, b"cpuq\x06K\x04", b"cpuq\x06K\x05"),
    "a storage of a terabyte": lambda e: pickled(
        e, b"cpuq\x06K\x04", b"cpuq\x06\x8a\x06" + (2**40).to_bytes(6, "little")
    ),
    "a shape past the end": lambda e: pickled(e, b"QK\x00K\x04\x85", b"QK\x00K\x05\x85"),
    "an offset past the end": lambda e: pickled(e, b"QK\x00K\x04\x85", b"QK\x01K\x04\x85"),
    "a stride past the end": lambda e: pickled(e, b"K\x01\x85q\t\x89", b"K\x02\x85q\t\x89"),
    "one number spread over many": lambda e: pickled(
        e, b"QK\x00K\x04\x85q\x08K\x01\x85", b"QK\x00M\xff\xff\x85q\x08K\x00\x85"
    ),
    "a negative stride": lambda e: pickled(e, b"K\x01\x85q\t\x89", b"J\xff\xff\xff\xff\x85q\t\x89"),
    "a shape of True": lambda e: pickled(e, b"QK\x00K\x04\x85", b"QK\x00\x88\x85"),
    "a key that is a path": lambda e: pickled(
        e, b"X\x01\x00\x00\x000", b"X\x0e\x00\x00\x00../../data.pkl"
    ),
    "missing numbers": lambda e: e.pop("small/data/0", None) or e.pop("archive/data/0"),
    "a path outside": lambda e: e.update({"archive/../../evil": b"x"}),
    "an absolute path": lambda e: e.update({"/evil": b"x"}),
    "two archives in one": lambda e: e.update({"other/data.pkl": b"x"}),
    "no pickle": lambda e: e.pop("archive/data.pkl"),
    "another byte order": lambda e: e.update({"archive/byteorder": b"big"}),
}


@pytest.mark.parametrize("name", LIES)
def test_an_archive_that_lies_is_refused(name: str, small: Path) -> None:
    path = rewritten(small, LIES[name])
    with pytest.raises(PolicyError):
        read(path)


def test_a_zip_bomb_is_refused_before_it_unfolds(small: Path) -> None:
    def blow_up(entries: dict[str, bytes]) -> None:
        entries["archive/data/1"] = bytes(2**26)

    path = rewritten(small, blow_up, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    with pytest.raises(PolicyError, match="a compressed entry"):
        read(path)


def test_sizes_beyond_the_file_are_refused(small: Path, tmp_path: Path) -> None:
    data = bytearray(small.read_bytes())
    with zipfile.ZipFile(small) as archive:
        start = archive.start_dir
    end = data.rindex(b"PK\x05\x06")
    directory, tail = bytes(data[start:end]), bytes(data[end:])
    claimed = bytearray(directory)
    first = claimed.index(b"PK\x01\x02")
    struct.pack_into("<II", claimed, first + 20, 2**30, 2**30)  # sizes of the first entry
    path = tmp_path / "long.ckpt"
    path.write_bytes(bytes(data[:start]) + bytes(claimed) + tail)
    with pytest.raises(PolicyError, match=r"more bytes than it has|not a whole archive"):
        read(path)


def test_tensors_that_share_their_numbers_are_together_no_larger_than_the_file(tmp_path) -> None:
    numbers = torch.randn(10_000)
    path = save({str(k): numbers for k in range(50)}, tmp_path / "x.ckpt")
    with pytest.raises(PolicyError, match="together larger than the file"):
        read(path)


def test_a_tensor_of_nothing_and_a_shape_beyond_all_is_refused(tmp_path: Path) -> None:
    path = save(torch.empty(0, 1000), tmp_path / "x.ckpt", "legacy")
    data = path.read_bytes()
    assert data.count(b"M\xe8\x03\x86") == 1  # (0, 1000)
    huge = b"\x8a\x06" + b"\x00" * 5 + b"\x40" + b"\x8a\x06" + b"\x00" * 5 + b"\x40"
    data = data.replace(b"M\xe8\x03\x86", huge + b"\x87").replace(
        b"M\xe8\x03K\x01\x86", b"K\x01K\x01K\x01\x87"
    )
    path.write_bytes(data)
    with pytest.raises(PolicyError, match="of shape"), open_torch_file(path):
        pass


def test_two_entries_of_one_name_are_refused(small: Path) -> None:
    with zipfile.ZipFile(small, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data.pkl", b"x")
    with pytest.raises(PolicyError, match="two entries of one name"):
        read(small)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_cut_anywhere_is_a_sentence(layout: str, tmp_path: Path) -> None:
    path = save({"a": torch.arange(4.0)}, tmp_path / "x.ckpt", layout)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 11):
        path.write_bytes(whole[:length])
        with pytest.raises(PolicyError):
            read(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_flipped_byte_gives_a_traceback(layout: str, tmp_path: Path) -> None:
    path = save({"a": torch.arange(4.0)}, tmp_path / "x.ckpt", layout)
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        try:
            read(path)
        except PolicyError:
            refused += 1
        except AttributeError:  # the payload is another plain value than a dict of tensors
            pass
    assert refused > 20


@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "text": b"hello",
        "a pickle": pickle.dumps({"a": 1}),
        "a zip of something else": None,
        "safetensors": struct.pack("<Q", 2) + b"{}",
        "numbers": bytes(range(256)),
    }.items(),
    ids=lambda item: item[0].replace(" ", "-"),
)
def test_another_kind_of_file_is_a_sentence(content, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    if content[1] is None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("readme.txt", "hello")
        path.write_bytes(buffer.getvalue())
    else:
        path.write_bytes(content[1])
    with pytest.raises(PolicyError):
        read(path)


def test_no_file_and_a_folder_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no file at"):
        read(tmp_path / "none.ckpt")
    with pytest.raises(PolicyError, match=r"is a folder; a checkpoint is a file") as caught:
        read(tmp_path)
    assert "epoch=0550" in caught.value.hint
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest.ckpt").touch()
    with pytest.raises(PolicyError, match="is a folder") as caught:
        read(tmp_path)
    assert caught.value.hint == f"for example {tmp_path}/checkpoints/latest.ckpt"
    (tmp_path / "config.json").touch()
    with pytest.raises(PolicyError, match="is a folder") as caught:
        read(tmp_path)
    assert f"dp-hub convert policy {tmp_path} --to DIR" in caught.value.hint


def test_reading_does_not_change_the_file(small: Path, tmp_path: Path) -> None:
    copy = shutil.copy(small, tmp_path / "copy.ckpt")
    read(small)
    assert small.read_bytes() == Path(copy).read_bytes()
