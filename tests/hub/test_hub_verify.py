"""Pulled folders that are damaged: found without a connection, and mended by pulling again."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_helpers import become_client, files_of

from dp_hub.dataset.convert import convert
from dp_hub.errors import HubError
from dp_hub.hub import LocalHub, pull, push, verify_folder
from dp_hub.hub.origin import PATH, read_origin

MakeDataset = Callable[..., Path]
N_FLIPS = 200
N_MENDED = 12


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_every_one_of_200_flipped_bits_in_real_demonstrations_is_found_and_mended(
    hub: LocalHub, pusht_first5_zip: Path, tmp_path: Path
) -> None:
    folder = convert("zarr", pusht_first5_zip, tmp_path / "pusht", images="webp").written.path
    push(folder, "me/pusht", license="mit")
    back = pull("me/pusht", to=tmp_path / "back").path
    whole = files_of(back)
    names = [*whole, PATH]
    assert len(names) >= 8 and verify_folder(back) == []
    chance = random.Random(20260)
    for number in range(N_FLIPS):
        # Half of them anywhere, which means the large files; half in files picked evenly.
        by_size = [(back / name).stat().st_size for name in names]
        [name] = chance.choices(names, by_size if number % 2 else None)
        path = back / name
        at, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        flip(path, at, bit)
        assert verify_folder(back) == [name], (number, name, at, bit)
        if number >= N_MENDED:
            flip(path, at, bit)
            continue
        pull("me/pusht", to=back)
        shutil.rmtree(back / ".dp_hub/replaced", ignore_errors=True)
        assert files_of(back) == whole and verify_folder(back) == []
    assert files_of(back) == whole


def test_a_pull_onto_itself_mends_says_so_and_keeps_what_it_replaces(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    push(make_dataset("data", n_files=3), "me/pusht")
    back = pull("me/pusht", to=tmp_path / "back").path
    whole = files_of(back)
    (back / "mine.txt").write_text("mine")
    damaged, missing = "data/chunk-000/file-001.parquet", "meta/stats.json"
    flip(back / damaged, 100)
    spoiled = (back / damaged).read_bytes()
    (back / missing).unlink()
    assert verify_folder(back) == [damaged, missing]
    caplog.clear()
    pull("me/pusht", to=back)
    assert f"{damaged}, {missing}; fetching again" in caplog.text and "is kept in" in caplog.text
    kept = [path for path in (back / ".dp_hub/replaced").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in kept] == [spoiled]
    after = files_of(back)
    assert after.pop("mine.txt") == b"mine" and after == whole
    assert verify_folder(back) == []
    assert not push(back, "me/pusht").changed
    caplog.clear()
    caplog.set_level("INFO", "dp_hub.hub")
    pull("me/pusht", to=back)
    assert "is whole already: 9 files checked" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir() if "partial" in path.name) == []


def test_a_folder_that_somebody_went_on_with_is_not_taken_back(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    push(make_dataset("data"), "me/pusht")
    back = pull("me/pusht", to=tmp_path / "back").path
    shutil.copytree(make_dataset("more", n_files=2), back, dirs_exist_ok=True)
    before = files_of(back)
    with pytest.raises(HubError, match="has been changed since it was pulled") as caught:
        pull("me/pusht", to=back)
    assert "push it, or pull into a new folder" in str(caught.value)
    assert files_of(back) == before
    assert push(back, "me/pusht").tag == "data-v2"
    assert pull("me/pusht", to=back).sha == read_origin(back).sha  # type: ignore[union-attr]
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_a_folder_of_another_commit_or_repository_is_not_pulled_over(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    folder = make_dataset("data")
    push(folder, "me/pusht")
    push(folder, "me/other")
    back = pull("me/pusht", to=tmp_path / "back").path
    before = files_of(back)
    with pytest.raises(HubError, match="it is me/pusht at data-v1"):
        pull("me/other", to=back)
    more = make_dataset("more", n_files=2)
    second = push(more, "me/pusht", onto="data-v1")
    with pytest.raises(HubError, match="it is me/pusht at data-v1"):
        pull("me/pusht", to=back)
    assert pull("me/pusht@data-v1", to=back).sha != second.sha
    assert files_of(back) == before


def test_with_a_damaged_memory_a_whole_folder_is_taken_and_a_damaged_one_is_not(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    push(make_dataset("data"), "me/pusht")
    back = pull("me/pusht", to=tmp_path / "back").path
    flip(back / PATH, 50)
    pull("me/pusht", to=back)
    assert verify_folder(back) == []
    flip(back / PATH, 50)
    flip(back / "meta/stats.json", 0)
    before = files_of(back)
    with pytest.raises(HubError, match="it can't be known what this folder is"):
        pull("me/pusht", to=back)
    assert files_of(back) == before


def test_a_folder_is_checked_without_a_connection_and_mended_from_the_cache(
    tmp_path: Path, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalHub(tmp_path / "server") as hub:
        become_client(monkeypatch, hub, tmp_path / "home")
        push(make_dataset("data", n_files=2), "me/pusht")
        uncached = pull("me/pusht", to=tmp_path / "uncached").path
    assert pull("me/pusht", to=uncached).path == uncached
    assert pull("me/pusht@data-v1", to=uncached).path == uncached
    with pytest.raises(HubError, match="can't be reached"):
        pull("me/pusht@data-v2", to=uncached)
    flip(uncached / "meta/info.json", 3)
    with pytest.raises(HubError, match=r"checksum of meta/info.json is wrong") as caught:
        pull("me/pusht", to=uncached)
    assert "can't be reached" in str(caught.value) and (uncached / "meta/info.json").exists()
    with LocalHub(tmp_path / "server") as hub:
        become_client(monkeypatch, hub, tmp_path / "home")
        pull("me/pusht")
    pull("me/pusht", to=uncached)
    assert verify_folder(uncached) == []


def test_folders_that_were_not_pulled_have_nothing_to_be_checked_by(
    hub: LocalHub, make_dataset: MakeDataset, policy: Path
) -> None:
    folder = make_dataset("data")
    assert verify_folder(folder) is None
    push(folder, "me/pusht")
    assert verify_folder(folder) == []
    cached = pull("me/pusht").path
    assert verify_folder(cached) == []
    (cached / "meta/info.json").unlink()
    assert verify_folder(cached) == ["meta/info.json"]
    push(policy, "me/p")
    (policy / "model.safetensors").write_bytes(b"x")
    assert verify_folder(policy) == ["model.safetensors"]


def test_paths_that_leave_the_folder_are_not_read_from_a_memory(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    from dataclasses import replace

    from dp_hub.hub.origin import encode

    folder = make_dataset("data")
    push(folder, "me/pusht")
    origin = read_origin(folder)
    assert origin is not None
    files = {**origin.files, "../secret": next(iter(origin.files.values()))}
    (folder / PATH).write_bytes(encode(replace(origin, files=files)))
    with pytest.raises(HubError, match="is damaged"):
        read_origin(folder)


def test_only_the_description_of_a_dataset_can_be_pulled(
    hub: LocalHub, make_dataset: MakeDataset, policy: Path, tmp_path: Path
) -> None:
    folder = make_dataset("data", n_files=2)
    sha = push(folder, "me/pusht").sha
    part = pull("me/pusht", only="meta")
    meta = {name for name in files_of(folder) if name.startswith("meta/")}
    assert part.sha == sha and set(files_of(part.path)) == {*meta, "README.md"}
    (part.path / "meta/info.json").resolve().write_text("{")  # in the cache
    assert pull("me/pusht", only="meta").path == part.path
    assert (part.path / "meta/info.json").read_bytes() == (folder / "meta/info.json").read_bytes()
    assert len(files_of(pull("me/pusht").path)) == len(meta) + 3
    push(policy, "me/p")
    with pytest.raises(HubError, match="no dataset me/p"):
        pull("me/p", only="meta")
    with pytest.raises(HubError, match="a part is fetched"):
        pull("me/pusht", only="meta", to=tmp_path / "x")


def test_a_look_at_a_newer_description_does_not_hide_the_whole_older_one(
    tmp_path: Path, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalHub(tmp_path / "server") as hub:
        become_client(monkeypatch, hub, tmp_path / "home")
        folder = make_dataset("data")
        old = push(folder, "me/pusht")
        pull("me/pusht")
        new = push(make_dataset("data", n_files=2), "me/pusht")
        assert pull("me/pusht", only="meta").sha == new.sha
        push(folder, "me/described")
        pull("me/described", only="meta")
    assert pull("me/pusht").sha == old.sha
    assert pull(f"me/pusht@{new.sha}", only="meta").sha == new.sha
    assert pull("me/described", only="meta").kind == "dataset"
    with pytest.raises(HubError, match="not in the cache either, or not whole"):
        pull("me/described")
