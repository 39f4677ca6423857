"""A push onto a dataset that its sender has not seen, and what folders remember."""

import json
import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hub_helpers import files_of
from huggingface_hub import CommitOperationAdd

from dp_hub.dataset.checksums import PATH as CHECKSUMS
from dp_hub.dataset.checksums import FileSum, encode_checksums
from dp_hub.errors import HubError
from dp_hub.hub import LocalHub, pull, push, verify_folder
from dp_hub.hub.cards import GENERATED, front_matter
from dp_hub.hub.client import connect
from dp_hub.hub.origin import PATH, read_origin

MakeDataset = Callable[..., Path]
PARTS = ("data/", "meta/", "videos/")


def head_of(name: str) -> str:
    return str(connect().repo_info(name, repo_type="dataset").sha)


def commit_files(name: str, files: Mapping[str, bytes]) -> str:
    """As somebody does who edits on the Hub's pages."""
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    done = connect().create_commit(name, operations, commit_message="edit", repo_type="dataset")
    return str(done.oid)


def readme_on_hub(name: str) -> str:
    path = connect().hf_hub_download(name, "README.md", repo_type="dataset", revision=head_of(name))
    return Path(path).read_text()


def change(folder: Path, seed: int) -> None:
    """New content: another statistic and another fingerprint."""
    (folder / "meta/stats.json").write_text(json.dumps({"seed": seed}))
    provenance = json.loads((folder / "meta/dp_hub.json").read_text())
    provenance["fingerprint"] = f"{seed:064x}"
    (folder / "meta/dp_hub.json").write_text(json.dumps(provenance))


def test_a_folder_not_made_from_what_is_there_is_refused_and_told_what_it_is(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    first = push(make_dataset("first", n_rows=70), "me/pusht")
    other = make_dataset("other", seed=1)
    with pytest.raises(HubError) as caught:
        push(other, "me/pusht")
    text = str(caught.value)
    assert (
        f"data-v1 (commit {first.sha[:10]}, 20" in text and "by me, 1 episode, 70 frames)" in text
    )
    assert "this folder was not made from it. Nothing was pushed" in text
    assert "dp-hub pull me/pusht@data-v1 --to" in text and "--onto data-v1" in text
    assert head_of("me/pusht") == first.sha
    assert not (other / PATH).exists()


def test_onto_must_name_the_newest_version(hub: LocalHub, make_dataset: MakeDataset) -> None:
    folder = make_dataset("data")
    first = push(folder, "me/pusht")
    change(folder, 1)
    second = push(folder, "me/pusht")
    other = make_dataset("other", seed=5)
    for stale in ("data-v1", first.sha, first.sha[:10], "data-v3", "main", second.sha[:6], ""):
        with pytest.raises(HubError, match="--onto says") as caught:
            push(other, "me/pusht", onto=stale)
        assert "data-v2 (commit" in str(caught.value)
    assert push(other, "me/pusht", onto="data-v2").tag == "data-v3"
    change(folder, 9)
    assert push(folder, "me/pusht", onto=head_of("me/pusht")[:10]).tag == "data-v4"


def test_onto_where_nothing_is_or_for_a_policy_is_refused(
    hub: LocalHub, make_dataset: MakeDataset, policy: Path
) -> None:
    with pytest.raises(HubError, match="holds no dataset yet"):
        push(make_dataset("data"), "me/pusht", onto="data-v1")
    with pytest.raises(HubError, match="is a policy"):
        push(policy, "me/p", onto="data-v1")


def test_a_pulled_folder_is_pushed_back_until_somebody_else_is_faster(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    push(make_dataset("data"), "me/pusht")
    mine, yours = (pull("me/pusht", to=tmp_path / name).path for name in ("mine", "yours"))
    change(mine, 1)
    change(yours, 2)
    assert push(mine, "me/pusht").tag == "data-v2"
    with pytest.raises(HubError, match="this folder was made from data-v1"):
        push(yours, "me/pusht")
    change(mine, 3)  # it remembers what it was pushed as
    assert push(mine, "me/pusht").tag == "data-v3"


def test_a_changed_copy_of_a_cached_snapshot_knows_its_commit_by_its_path(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    folder = make_dataset("data")
    push(folder, "me/pusht")
    cached = pull("me/pusht").path
    before = files_of(cached)
    for name in ("meta/stats.json", "meta/dp_hub.json"):
        text = (cached / name).read_text()
        (cached / name).unlink()  # the link, not what it points to
        (cached / name).write_text(text)
    change(cached, 7)
    assert push(cached, "me/pusht").tag == "data-v2"
    assert files_of(cached).keys() == before.keys() and not (cached / ".dp_hub").exists()
    change(cached, 8)
    with pytest.raises(HubError, match="made from commit"):
        push(cached, "me/pusht")  # its path still names the first commit


def test_words_changed_on_the_hub_are_no_other_dataset_and_are_kept(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    push(make_dataset("data"), "me/pusht")
    back = pull("me/pusht", to=tmp_path / "back").path
    theirs = readme_on_hub("me/pusht").replace(GENERATED, "Recorded on a rainy day.")
    commit_files("me/pusht", {"README.md": theirs.encode()})
    change(back, 1)
    assert push(back, "me/pusht").tag == "data-v2"
    assert readme_on_hub("me/pusht") == theirs


def test_content_without_a_version_is_seen_too(hub: LocalHub, make_dataset: MakeDataset) -> None:
    folder = make_dataset("data")
    push(folder, "me/pusht")
    sha = commit_files("me/pusht", {"meta/stats.json": b'{"edited": 1}'})
    change(folder, 1)
    with pytest.raises(HubError, match="content without a version") as caught:
        push(folder, "me/pusht")
    assert f"--onto {sha[:10]}" in str(caught.value)
    with pytest.raises(HubError, match="--onto says data-v1"):
        push(folder, "me/pusht", onto="data-v1")
    assert push(folder, "me/pusht", onto=sha[:10]).tag == "data-v2"


def test_the_same_content_needs_no_memory(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    folder = make_dataset("data")
    sha = push(folder, "me/pusht").sha
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns(".dp_hub"))
    again = push(copy, "me/pusht")
    assert not again.changed
    origin = read_origin(copy)
    assert origin is not None and (origin.sha, origin.tag) == (sha, "data-v1")


def test_what_a_folder_remembers_survives_and_is_never_pushed(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    folder = make_dataset("data")
    pushed = push(folder, "me/pusht")
    origin = read_origin(folder)
    assert origin is not None
    assert (origin.endpoint, origin.repo_id, origin.kind) == (hub.endpoint, "me/pusht", "dataset")
    assert (origin.sha, origin.tag) == (pushed.sha, "data-v1")
    assert set(origin.files) == set(files_of(folder))
    listed = connect().list_repo_files("me/pusht", repo_type="dataset")
    assert not [path for path in listed if ".dp_hub" in path]
    back = pull("me/pusht", to=tmp_path / "back").path
    origin = read_origin(back)
    assert origin is not None and (origin.sha, origin.tag) == (pushed.sha, "data-v1")
    assert set(origin.files) == {*files_of(folder), "README.md"}


def test_a_folder_that_cannot_be_written_to_is_pushed_all_the_same(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    folder = make_dataset("data")
    (folder / ".dp_hub").write_text("in the way")
    assert push(folder, "me/pusht").tag == "data-v1"
    assert (folder / ".dp_hub").read_text() == "in the way"
    assert not push(folder, "me/pusht").changed


def test_a_damaged_memory_is_no_memory(hub: LocalHub, make_dataset: MakeDataset) -> None:
    folder = make_dataset("data")
    push(folder, "me/pusht")
    data = (folder / PATH).read_bytes()
    (folder / PATH).write_bytes(data.replace(b"me/pusht", b"me/pusha"))
    assert verify_folder(folder) == [PATH]
    change(folder, 1)
    with pytest.raises(HubError, match="was not made from it"):
        push(folder, "me/pusht")
    assert push(folder, "me/pusht", onto="data-v1").tag == "data-v2"
    assert verify_folder(folder) == []


def test_an_unfinished_dataset_stays_at_home(hub: LocalHub, make_dataset: MakeDataset) -> None:
    folder = make_dataset("data")
    provenance = json.loads((folder / "meta/dp_hub.json").read_text())
    for state, taken in (("open", False), ("finished", True)):
        (folder / "meta/dp_hub.json").write_text(json.dumps({**provenance, "state": state}))
        if taken:
            assert push(folder, "me/pusht").tag == "data-v1"
            continue
        with pytest.raises(HubError, match="still being written") as caught:
            push(folder, "me/pusht")
        assert caught.value.hint == f"dp-hub finish {folder}"
        assert not connect().repo_exists("me/pusht", repo_type="dataset")


def add_checksums(folder: Path) -> None:
    files = {name: data for name, data in files_of(folder).items() if name.startswith(PARTS)}
    (folder / CHECKSUMS).write_bytes(
        encode_checksums({n: FileSum(len(d), sha256(d).hexdigest()) for n, d in files.items()})
    )


def test_a_dataset_that_is_not_as_it_was_written_is_not_published(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    folder = make_dataset("data", n_files=2)
    add_checksums(folder)
    first = push(folder, "me/pusht")
    shard = folder / "data/chunk-000/file-001.parquet"
    whole = shard.read_bytes()
    for broken in (whole[:-1], whole[:50] + bytes([whole[50] ^ 4]) + whole[51:], None):
        shard.unlink(missing_ok=True)
        if broken is not None:
            shard.write_bytes(broken)
        with pytest.raises(HubError, match=r"not as it was written: data/chunk-000/file-001\.par"):
            push(folder, "me/pusht")
    shard.write_bytes(whole)
    change(folder, 1)
    with pytest.raises(HubError, match=r"meta/dp_hub\.json, meta/stats\.json not as"):
        push(folder, "me/pusht")
    (folder / CHECKSUMS).write_text("{}")
    with pytest.raises(HubError, match=r"checksums\.json is damaged"):
        push(folder, "me/pusht")
    assert head_of("me/pusht") == first.sha
    (folder / CHECKSUMS).unlink()
    add_checksums(folder)
    assert push(folder, "me/pusht").tag == "data-v2"


def test_data_that_changed_behind_its_description_is_taken_for_damaged(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    folder = make_dataset("data", n_files=2)
    first = push(folder, "me/pusht")
    shard = folder / "data/chunk-000/file-001.parquet"
    whole = shard.read_bytes()
    for broken in (whole[:50] + bytes([whole[50] ^ 4]) + whole[51:], None):
        shard.unlink()
        if broken is not None:
            shard.write_bytes(broken)
        with pytest.raises(
            HubError, match=r"data/chunk-000/file-001\.parquet .* as when a file is"
        ):
            push(folder, "me/pusht")
        assert head_of("me/pusht") == first.sha
        pull("me/pusht@data-v1", to=folder)
        assert shard.read_bytes() == whole
    shard.write_bytes(whole[:-1])
    assert push(folder, "me/pusht", onto="data-v1").n_sent == 1


SOURCES = [
    {"name": "me/one", "revision": "data-v2", "fingerprint": "aa", "license": "mit"},
    {"name": "you/two", "revision": None, "fingerprint": None, "license": "cc-by-4.0"},
    {"name": "data/local|x", "revision": None, "fingerprint": None, "license": None},
]


def test_the_card_lists_what_a_dataset_was_made_from_and_other_licences_are_mentioned(
    hub: LocalHub, make_dataset: MakeDataset, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_dataset("data", license="mit")
    provenance = json.loads((folder / "meta/dp_hub.json").read_text())
    (folder / "meta/dp_hub.json").write_text(json.dumps({**provenance, "sources": SOURCES}))
    push(folder, "me/merged")
    text = readme_on_hub("me/merged")
    assert front_matter(text)["source_datasets"] == ["me/one", "you/two"]
    assert "| `me/one` | `data-v2` | `mit` |" in text
    assert "| `you/two` | not recorded | `cc-by-4.0` |" in text
    assert "| `data/local x` | not recorded | not recorded |" in text
    warnings = [row.message for row in caplog.records if row.levelname == "WARNING"]
    assert warnings == [
        "you/two, which this was made from, has the licence cc-by-4.0; this is pushed as mit"
    ]
    (folder / "meta/dp_hub.json").write_text(json.dumps({**provenance, "sources": [3]}))
    with pytest.raises(HubError, match="must be a list of objects"):
        push(folder, "me/merged")


class Cards:
    """A card maker that counts its calls; its picture differs each time, as libraries' may."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.words = "first words"

    def __call__(
        self, folder: Path, repo_id: str, license: str, facts: Mapping[str, Any]
    ) -> dict[str, bytes]:
        self.calls.append((repo_id, license, facts["tag"]))
        text = f"---\nlicense: {license}\n---\n{GENERATED}\n{self.words} on {facts['tag']}\n"
        picture = b"\x89PNG\0" + bytes([len(self.calls)])
        return {"README.md": text.encode(), "media/overview.png": picture}


def test_a_made_card_goes_along_and_alone_only_when_its_words_change(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    folder, cards = make_dataset("data"), Cards()
    before = files_of(folder)
    push(folder, "me/pusht", make_card=cards)
    assert readme_on_hub("me/pusht").endswith("first words on data-v1\n")
    listed = connect().list_repo_files("me/pusht", repo_type="dataset")
    assert "media/overview.png" in listed and files_of(folder) == before
    assert not push(folder, "me/pusht", make_card=cards).changed
    cards.words = "better words"
    better = push(folder, "me/pusht", make_card=cards)
    assert better.changed and (better.n_sent, better.tag) == (2, "data-v1")
    assert readme_on_hub("me/pusht").endswith("better words on data-v1\n")
    change(folder, 1)
    push(folder, "me/pusht", make_card=cards)
    assert readme_on_hub("me/pusht").endswith("better words on data-v2\n")
    assert cards.calls[0] == ("me/pusht", "mit", "data-v1")
    assert cards.calls[-1] == ("me/pusht", "mit", "data-v2")


def test_a_users_readme_is_never_replaced_by_a_made_card(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    folder, cards = make_dataset("data"), Cards()
    (folder / "README.md").write_text("---\nlicense: mit\n---\nmine\n")
    push(folder, "me/pusht", make_card=cards)
    assert cards.calls == [] and readme_on_hub("me/pusht").endswith("mine\n")


def test_an_edit_of_the_newest_version_may_take_its_place_and_one_of_an_older_may_not(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    def made_from(name: str, seed: int, *older: Path) -> Path:
        folder = make_dataset(name, seed=seed)
        provenance = json.loads((folder / "meta/dp_hub.json").read_text())
        known = [json.loads((one / "meta/dp_hub.json").read_text()) for one in older]
        provenance["sources"] = [
            {"name": one.name, "fingerprint": facts["fingerprint"]}
            for one, facts in zip(older, known, strict=True)
        ]
        (folder / "meta/dp_hub.json").write_text(json.dumps(provenance))
        return folder

    first = make_dataset("first")
    push(first, "me/pusht")
    second = made_from("second", 1, first)
    assert push(second, "me/pusht").tag == "data-v2"
    with pytest.raises(HubError, match="holds another dataset than this folder: data-v2"):
        push(made_from("third", 2, first), "me/pusht")
    assert push(made_from("fourth", 3, first, second), "me/pusht").tag == "data-v3"
