"""The versions of a dataset, as a library call and as ``dp-hub log``."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dp_hub.errors import HubError
from dp_hub.hub import LocalHub, log, pull, push
from dp_hub.hub.client import connect

MakeDataset = Callable[..., Path]
RunClient = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def three(hub: LocalHub, make_dataset: MakeDataset) -> list[str]:
    """me/pusht with three versions; their commits, oldest first."""
    shas = []
    for n_files in (1, 2, 11):
        folder = make_dataset("data", n_files=n_files, n_rows=10)
        shas.append(push(folder, "me/pusht", message=f"with {n_files}\x1b[31m files").sha)
    return shas


def test_versions_are_listed_newest_first(three: list[str]) -> None:
    entries = log("me/pusht")
    assert [entry.tag for entry in entries] == ["data-v3", "data-v2", "data-v1"]
    assert [entry.sha for entry in entries] == three[::-1]
    assert [(entry.episodes, entry.frames) for entry in entries] == [(1, 110), (1, 20), (1, 10)]
    assert [entry.author for entry in entries] == ["me"] * 3
    assert entries[0].message.startswith("with 11") and entries[0].when >= entries[2].when


def test_versions_are_ordered_by_number_not_by_spelling(three: list[str]) -> None:
    for number in (9, 10):
        connect().create_tag(
            "me/pusht", tag=f"data-v{number}", revision=three[0], repo_type="dataset"
        )
    tags = [entry.tag for entry in log("me/pusht")]
    assert tags == ["data-v10", "data-v9", "data-v3", "data-v2", "data-v1"]


def test_the_command_prints_columns_and_json(three: list[str], run_client: RunClient) -> None:
    run = run_client("log", "me/pusht")
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert len(lines) == 4 and lines[0].startswith("version  commit      when (UTC)")
    assert lines[1].split()[:2] == ["data-v3", three[2][:10]]
    assert {line.index("with") for line in lines[1:]} == {lines[0].index("message")}
    assert "\x1b" not in run.stdout
    rows = json.loads(run_client("log", "me/pusht", "--json").stdout)
    assert [row["version"] for row in rows] == ["data-v3", "data-v2", "data-v1"]
    assert rows[0]["commit"] == three[2] and (rows[2]["episodes"], rows[2]["frames"]) == (1, 10)


def test_commits_after_the_newest_version_are_mentioned(
    three: list[str], run_client: RunClient
) -> None:
    connect().upload_file(
        path_or_fileobj=b"---\nlicense: mit\n---\nwords\n",
        path_in_repo="README.md",
        repo_id="me/pusht",
        repo_type="dataset",
        commit_message="words",
    )
    run = run_client("log", "me/pusht")
    assert len(run.stdout.splitlines()) == 4
    assert "1 commit on main after data-v3: " in run.stderr and "words" in run.stderr


def test_a_dataset_without_versions_and_a_policy(
    hub: LocalHub, make_dataset: MakeDataset, policy: Path, run_client: RunClient
) -> None:
    push(make_dataset("data"), "me/plain")
    connect().delete_tag("me/plain", tag="data-v1", repo_type="dataset")
    run = run_client("log", "me/plain")
    assert (run.returncode, run.stdout) == (0, "")
    assert "2 commits on main and no version yet" in run.stderr
    sha = push(policy, "me/policy", message="trained").sha
    run = run_client("log", "me/policy")
    assert run.returncode == 0 and run.stderr == ""
    words = run.stdout.splitlines()[1].split()
    assert words[:2] == ["-", sha[:10]] and words[-3:] == ["-", "-", "trained"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("pusht", "is not the name"), ("me/none", "no dataset or policy"), ("me/x@y", "leave that")],
)
def test_wrong_names_are_refused(hub: LocalHub, name: str, said: str) -> None:
    with pytest.raises(HubError, match=said):
        log(name)


def test_listing_versions_does_not_spoil_the_cache(three: list[str]) -> None:
    pull("me/pusht@data-v1")
    log("me/pusht")
    assert pull(f"me/pusht@{three[0]}").sha == three[0]
    whole = pull("me/pusht").path
    assert len(list(whole.glob("data/*/*.parquet"))) == 11
