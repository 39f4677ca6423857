"""Pushing and pulling through a running Hub with the real client."""

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hub_helpers import become_client, files_of
from huggingface_hub import HfApi

from dp_hub.errors import HubError
from dp_hub.hub import LocalHub, pull, push
from dp_hub.hub.client import connect
from dp_hub.hub.contents import gather
from dp_hub.hub.pushing import plan_push, publish
from dp_hub.hub.remote import look_at

MakeDataset = Callable[..., Path]


def tags_of(name: str) -> dict[str, str]:
    refs = connect().list_repo_refs(name, repo_type="dataset")
    return {ref.name: ref.target_commit for ref in refs.tags}


def head_of(name: str, repo_type: str = "dataset") -> str:
    return str(connect().repo_info(name, repo_type=repo_type).sha)


def test_a_dataset_comes_back_byte_for_byte_with_a_card_added(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    folder = make_dataset("data", n_rows=700_000)
    before = files_of(folder)
    assert len(before["data/chunk-000/file-000.parquet"]) > 10_000_000
    pushed = push(folder, "me/pusht")
    assert pushed.changed and pushed.tag == "data-v1"
    assert tags_of("me/pusht") == {"data-v1": pushed.sha, "v3.0": pushed.sha}
    pulled = pull("me/pusht", to=tmp_path / "back")
    assert (pulled.sha, pulled.kind) == (pushed.sha, "dataset")
    after = files_of(tmp_path / "back")
    assert b"license: mit" in after.pop("README.md")
    assert after == before
    assert files_of(folder) == before


def test_tag_branch_commit_and_short_commit_are_the_same_version(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    sha = push(make_dataset("data"), "me/pusht").sha
    revisions = ["data-v1", "v3.0", "main", sha, sha[:10], None]
    pulled = [pull("me/pusht", revision=revision) for revision in revisions]
    assert {found.sha for found in pulled} == {sha}
    assert len({found.path for found in pulled}) == 1
    assert pull(f"me/pusht@{sha}").sha == sha


def test_pushing_the_same_again_makes_no_commit_and_no_tag(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    folder = make_dataset("data")
    first = push(folder, "me/pusht")
    commits = connect().list_repo_commits("me/pusht", repo_type="dataset")
    again = push(folder, "me/pusht")
    assert not again.changed and (again.sha, again.tag) == (first.sha, "data-v1")
    assert len(connect().list_repo_commits("me/pusht", repo_type="dataset")) == len(commits) == 2


def test_a_pulled_folder_pushed_back_changes_nothing(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    push(make_dataset("data"), "me/pusht")
    pull("me/pusht", to=tmp_path / "back")
    assert not push(tmp_path / "back", "me/pusht").changed
    assert not push(pull("me/pusht").path, "me/pusht").changed


def test_new_content_gets_the_next_version_and_the_old_one_stays(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    old, new = make_dataset("old", n_files=3), make_dataset("new", seed=1, n_files=2)
    first, second = push(old, "me/pusht"), push(new, "me/pusht", message="cleaned", onto="data-v1")
    assert (first.tag, second.tag) == ("data-v1", "data-v2")
    assert second.n_removed == 1
    assert tags_of("me/pusht") == {
        "data-v1": first.sha,
        "data-v2": second.sha,
        "v3.0": second.sha,
    }
    for name, folder in (("data-v1", old), ("data-v2", new)):
        after = files_of(pull("me/pusht", revision=name, to=tmp_path / name).path)
        del after["README.md"]
        assert after == files_of(folder)
    assert connect().list_repo_commits("me/pusht", repo_type="dataset")[0].title == "cleaned"


def test_only_files_that_differ_are_sent(hub: LocalHub, make_dataset: MakeDataset) -> None:
    folder = make_dataset("data", n_files=4)
    assert push(folder, "me/pusht").n_sent == 10
    more = make_dataset("data", n_files=5)  # the same seed: the first four files are equal
    pushed = push(more, "me/pusht")
    sent = {"file-004", "episodes", "info", "dp_hub", "README"}
    assert (pushed.n_sent, pushed.tag) == (len(sent), "data-v2")


def test_other_words_on_the_same_content_make_no_new_version(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    folder = make_dataset("data")
    first = push(folder, "me/pusht")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# mine\n")
    second = push(folder, "me/pusht")
    assert second.changed and second.sha != first.sha and second.tag == "data-v1"
    assert tags_of("me/pusht") == {"data-v1": first.sha, "v3.0": second.sha}


def test_a_dataset_without_a_fingerprint_is_versioned_by_its_files(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    folder = make_dataset("data")
    (folder / "meta/dp_hub.json").unlink()
    assert push(folder, "me/pusht", license="mit").tag == "data-v1"
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# words\n")
    assert push(folder, "me/pusht").tag == "data-v1"
    (folder / "meta/stats.json").write_text('{"action": {}}')
    assert push(folder, "me/pusht").tag == "data-v2"


def test_a_push_cut_off_before_its_tags_is_finished_by_the_next(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    folder = make_dataset("data")
    sha = push(folder, "me/pusht").sha
    api = connect()
    for tag in ("data-v1", "v3.0"):
        api.delete_tag("me/pusht", tag=tag, repo_type="dataset")
    again = push(folder, "me/pusht")
    assert again.changed and again.sha == sha
    assert tags_of("me/pusht") == {"data-v1": sha, "v3.0": sha}


def test_a_repository_that_moved_on_during_the_push_is_left_alone(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    push(make_dataset("first"), "me/pusht")
    api = connect()
    remote = look_at(api, "me/pusht", "dataset", private=False)
    mine = make_dataset("mine", seed=1)
    contents = gather(mine, "dataset", "me/pusht", remote.readme, license=None, ask=None)
    plan = plan_push("me/pusht", "dataset", contents, remote)
    theirs = push(make_dataset("theirs", seed=2), "me/pusht", onto="data-v1")
    with pytest.raises(HubError, match="changed on the Hub") as caught:
        publish(api, plan, remote, None)
    assert caught.value.hint is not None and "pull" in caught.value.hint
    assert head_of("me/pusht") == theirs.sha
    assert sorted(tags_of("me/pusht")) == ["data-v1", "data-v2", "v3.0"]


def test_a_version_that_somebody_else_made_meanwhile_stays_theirs(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    first = push(make_dataset("first"), "me/pusht")
    api = connect()
    remote = look_at(api, "me/pusht", "dataset", private=False)
    mine = make_dataset("mine", seed=1)
    contents = gather(mine, "dataset", "me/pusht", remote.readme, license=None, ask=None)
    api.create_tag("me/pusht", tag="data-v2", revision=first.sha, repo_type="dataset")
    with pytest.raises(HubError, match="somebody else made data-v2 of me/pusht meanwhile"):
        publish(api, plan_push("me/pusht", "dataset", contents, remote), remote, None)
    assert tags_of("me/pusht")["data-v2"] == first.sha
    assert push(mine, "me/pusht").tag == "data-v3"


def test_a_policy_goes_without_its_training_state(
    hub: LocalHub, policy: Path, tmp_path: Path
) -> None:
    pushed = push(policy, "me/pusht-policy")
    assert (pushed.kind, pushed.tag, pushed.n_sent) == ("policy", None, 4)
    back = pull("me/pusht-policy", to=tmp_path / "back")
    assert back.kind == "policy"
    kept = {"config.json", "model.safetensors", "README.md", "train_config.yaml"}
    assert files_of(back.path) == {name: (policy / name).read_bytes() for name in kept}
    assert not push(policy, "me/pusht-policy").changed


def test_a_policy_file_that_is_gone_is_removed_but_foreign_files_stay(
    hub: LocalHub, policy: Path
) -> None:
    push(policy, "me/p")
    api = connect()
    api.upload_file(path_or_fileobj=b"x", path_in_repo="notes/mine.txt", repo_id="me/p")
    (policy / "train_config.yaml").unlink()
    (policy / "README.md").unlink()
    assert push(policy, "me/p").n_removed == 1
    left = set(api.list_repo_files("me/p"))
    assert left == {"config.json", "model.safetensors", "README.md", "notes/mine.txt"}


@pytest.mark.parametrize("name", ["pusht", "me/a/b", "../x", "me/..", "/me/x", "me/x y", "", "me/"])
def test_names_of_another_form_are_refused(hub: LocalHub, policy: Path, name: str) -> None:
    for action in (lambda: pull(name), lambda: push(policy, name)):
        with pytest.raises(HubError, match="is not the name"):
            action()


def test_a_folder_that_is_neither_says_what_was_looked_for(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(HubError, match="neither a dataset nor a policy") as caught:
        push(tmp_path / "other", "me/x")
    assert "meta/info.json" in str(caught.value) and "model.safetensors" in str(caught.value)
    with pytest.raises(HubError, match="no folder at"):
        push(tmp_path / "nothing", "me/x")


def test_a_repository_of_something_else_is_refused(hub: LocalHub, tmp_path: Path) -> None:
    api = connect()
    api.create_repo("me/texts", repo_type="dataset")
    api.upload_file(
        path_or_fileobj=b"x", path_in_repo="a.csv", repo_id="me/texts", repo_type="dataset"
    )
    with pytest.raises(HubError, match=r"is no dataset: it has a\.csv"):
        pull("me/texts", to=tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_one_name_for_a_dataset_and_a_policy_needs_the_kind(
    hub: LocalHub, policy: Path, make_dataset: MakeDataset
) -> None:
    push(policy, "me/pusht")
    push(make_dataset("data"), "me/pusht")
    with pytest.raises(HubError, match="a dataset and a policy"):
        pull("me/pusht")
    assert pull("me/pusht", kind="policy").kind == "policy"
    assert pull("me/pusht", kind="dataset").kind == "dataset"


def test_a_wrong_revision_lists_the_right_ones(hub: LocalHub, make_dataset: MakeDataset) -> None:
    push(make_dataset("data"), "me/pusht")
    with pytest.raises(HubError, match="no revision data-v7") as caught:
        pull("me/pusht@data-v7")
    assert caught.value.hint == "its tags: data-v1, v3.0; branches: main"
    for bad in ("../../x", "a..b", ""):
        with pytest.raises(HubError, match=r"can't be a revision|is not the name"):
            pull("me/pusht", revision=bad)


def test_a_missing_name_and_a_foreign_private_one_look_the_same(
    hub: LocalHub, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(make_dataset("data"), "me/secret", private=True)
    assert pull("me/secret").kind == "dataset"
    assert connect().repo_info("me/secret", repo_type="dataset").private
    monkeypatch.delenv("HF_TOKEN")
    messages = []
    for name in ("me/secret", "me/nothing"):
        with pytest.raises(HubError, match="or it is private") as caught:
            pull(name)
        messages.append(str(caught.value).replace(name, "NAME"))
    assert messages[0] == messages[1]
    assert "HF_TOKEN" in messages[0]


def test_private_is_not_quietly_ignored_on_a_public_repository(
    hub: LocalHub, make_dataset: MakeDataset
) -> None:
    push(make_dataset("data"), "me/pusht")
    with pytest.raises(HubError, match="exists and is public"):
        push(make_dataset("data", seed=1), "me/pusht", private=True)
    assert "data-v2" not in tags_of("me/pusht")


def test_a_push_without_or_with_a_wrong_token_says_so(
    hub: LocalHub, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    for action in (lambda: push(policy, "me/p"), lambda: pull("me/p")):
        with pytest.raises(HubError, match="does not know the token") as caught:
            action()
        assert "hf_wrong" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="there is no token") as caught:
        push(policy, "me/p")
    assert "dp-hub serve" in str(caught.value)


def test_a_push_under_somebody_elses_name_is_refused(hub: LocalHub, policy: Path) -> None:
    with pytest.raises(HubError, match="me may not write to you/"):
        push(policy, "you/p")


def test_without_a_connection_the_cached_version_is_taken_and_said(
    tmp_path: Path,
    make_dataset: MakeDataset,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with LocalHub(tmp_path / "server") as hub:
        become_client(monkeypatch, hub, tmp_path / "home")
        old = push(make_dataset("old"), "me/pusht")
        pull("me/pusht@data-v1")
        new = push(make_dataset("new", seed=1), "me/pusht", onto="data-v1")
        pull("me/pusht@data-v2")
    caplog.clear()
    for revision, sha in (("data-v1", old.sha), ("data-v2", new.sha), (old.sha, old.sha)):
        assert pull("me/pusht", revision=revision).sha == sha
    assert "can't be reached" in caplog.text and "from the cache" in caplog.text
    copied = pull("me/pusht@data-v1", to=tmp_path / "copy")
    assert files_of(copied.path) == files_of(pull("me/pusht@data-v1").path)
    for never_seen in ("me/pusht@data-v9", "me/other"):
        with pytest.raises(HubError, match="can't be reached") as caught:
            pull(never_seen)
        assert "not in the cache" in str(caught.value)
    with pytest.raises(HubError, match="can't be reached"):
        push(make_dataset("third", seed=3), "me/pusht")


def flip_a_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.unlink()  # a link in the cache is replaced, not followed
    path.write_bytes(data)


def test_a_flipped_byte_in_the_cache_is_found_and_mended(
    hub: LocalHub, make_dataset: MakeDataset, caplog: pytest.LogCaptureFixture
) -> None:
    push(make_dataset("data"), "me/pusht")
    folder = pull("me/pusht").path
    whole = files_of(folder)
    for number, name in enumerate(whole):
        flip_a_byte(Path(os.path.realpath(folder / name)), number * 7)
        assert files_of(folder) != whole
        assert files_of(pull("me/pusht").path) == whole
    assert number == 6


def test_a_flipped_byte_on_the_hub_is_never_accepted(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    push(make_dataset("data"), "me/pusht")
    objects = tmp_path / "server/repos/datasets/me/pusht/objects"
    stored = sorted(path for path in objects.glob("??/*") if path.stat().st_size)
    assert len(stored) == 7
    for number, path in enumerate(stored):
        content = path.read_bytes()
        flip_a_byte(path, number * 11)
        with pytest.raises(HubError, match=r"the checksum of .* is wrong"):
            pull("me/pusht", to=tmp_path / f"to{number}")
        assert not (tmp_path / f"to{number}").exists()
        path.write_bytes(content)
    assert pull("me/pusht", to=tmp_path / "to0").path.is_dir()


def test_a_folder_that_holds_something_is_not_pulled_over(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    push(make_dataset("data"), "me/pusht")
    (tmp_path / "mine").mkdir()
    pull("me/pusht", to=tmp_path / "mine")  # empty is fine
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/notes.txt").write_text("x")
    with pytest.raises(HubError, match="exists already"):
        pull("me/pusht", to=tmp_path / "theirs")
    (tmp_path / "file").write_text("x")
    with pytest.raises(HubError, match="exists already"):
        pull("me/pusht", to=tmp_path / "file")
    leftovers = [path.name for path in tmp_path.iterdir() if "partial" in path.name]
    assert leftovers == []


def test_a_place_that_can_not_be_written_to_is_said(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    push(make_dataset("data"), "me/pusht")
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file/inside", Path("/proc/nowhere/at/all")):
        with pytest.raises(HubError, match="me/pusht: "):
            pull("me/pusht", to=place)


def test_an_interrupted_pull_goes_on_by_file(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sha = push(make_dataset("data", n_files=5), "me/pusht").sha
    partial = tmp_path / f".back.{sha[:12]}.partial"
    names = [f"data/chunk-000/file-00{number}.parquet" for number in range(3)]
    caplog.set_level("INFO", "dp_hub.hub.server.app")

    def fetched() -> set[str]:
        begin = "GET /datasets/me/pusht/resolve"
        return {line.split()[1] for line in caplog.messages if line.startswith(begin)}

    def wait_for(n: int) -> None:  # the server tells a request when it is over, a little later
        until_s = time.monotonic() + 30
        while len(fetched()) < n and time.monotonic() < until_s:
            time.sleep(0.01)

    connect().snapshot_download(
        "me/pusht", repo_type="dataset", revision=sha, local_dir=partial, allow_patterns=names
    )
    wait_for(len(names))
    caplog.clear()
    back = pull("me/pusht", to=tmp_path / "back")
    wait_for(n_left := len(files_of(back.path)) - len(names))
    got = fetched()
    assert len(got) == n_left
    assert not any(name in line for line in got for name in names)
    assert ".cache" not in os.listdir(back.path)


def test_many_pull_at_once(hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path) -> None:
    folder = make_dataset("data", n_files=8)
    push(folder, "me/pusht")
    start = threading.Barrier(6)

    def fetch(number: int) -> dict[str, bytes]:
        start.wait()
        to = tmp_path / f"to{number}" if number % 2 else None
        return files_of(pull("me/pusht", to=to).path)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(fetch, range(6)))
    assert all(result == results[0] for result in results)
    assert len(results[0]) == len(files_of(folder)) + 1


def test_two_pulls_into_one_folder_give_one_whole_folder(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    push(make_dataset("data", n_files=4), "me/pusht")
    start = threading.Barrier(2)

    def fetch(_: int) -> str:
        start.wait()
        return str(pull("me/pusht", to=tmp_path / "one").path)

    with ThreadPoolExecutor(2) as pool:
        answers = set(pool.map(fetch, range(2)))
    assert answers == {str(tmp_path / "one")}
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    assert files_of(tmp_path / "one") == files_of(pull("me/pusht").path)


def test_a_hub_that_lists_a_path_outside_the_folder_is_not_trusted(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalHub(tmp_path / "server") as hub:
        become_client(monkeypatch, hub, tmp_path / "home")
        push(policy, "me/p")
    trees = (tmp_path / "server/repos/models/me/p/trees").iterdir()
    [tree] = [path for path in trees if b"config.json" in path.read_bytes()]
    rows = json.loads(tree.read_text())
    rows["../../evil"] = rows["config.json"]
    tree.write_text(json.dumps(rows))
    with LocalHub(tmp_path / "server") as hub:
        become_client(monkeypatch, hub, tmp_path / "home")
        for to in (tmp_path / "deep/to", None):
            with pytest.raises(HubError, match="would leave its folder"):
                pull("me/p", to=to)
    assert not list(tmp_path.rglob("evil"))


def test_repositories_of_many_files_are_listed_whole(hub: LocalHub) -> None:
    api = HfApi(endpoint=hub.endpoint)
    api.create_repo("me/many", repo_type="dataset")
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(f"d{i % 7}/f{i}.txt", b"%d" % i) for i in range(2300)]
    api.create_commit("me/many", operations, commit_message="many", repo_type="dataset")
    assert len(api.list_repo_files("me/many", repo_type="dataset")) == 2300
