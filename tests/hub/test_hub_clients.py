"""Other processes as clients: the command line, `datasets`, and pushes that are killed."""

import itertools
import json
import os
import pty
import subprocess
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_helpers import client_command, client_env, files_of

from dp_hub.errors import HubError
from dp_hub.hub import LocalHub, pull, push
from dp_hub.hub.client import connect
from dp_hub.hub.server.objects import Incoming

MakeDataset = Callable[..., Path]
RunClient = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_commands_push_and_pull(
    hub: LocalHub, make_dataset: MakeDataset, run_client: RunClient, tmp_path: Path
) -> None:
    folder = make_dataset("data", license=None)
    refused = run_client("push", "data", "me/pusht")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no licence is known" in refused.stderr and "--license" in refused.stderr
    pushed = run_client("push", "data", "me/pusht", "--license", "cc0-1.0", "--message", "first")
    assert pushed.returncode == 0, pushed.stderr
    name, commit, url = pushed.stdout.splitlines()
    sha = commit.removeprefix("commit ")
    assert name == "me/pusht@data-v1"
    assert url == f"{hub.endpoint}/datasets/me/pusht/tree/data-v1"
    again = run_client("push", "data", "me/pusht")
    assert again.stdout == pushed.stdout and "nothing to push" in again.stderr
    pulled = run_client("pull", "me/pusht@data-v1", "--to", "back")
    assert pulled.stdout.splitlines() == [f"me/pusht@{sha}", str(tmp_path / "back")]
    after = files_of(tmp_path / "back")
    assert b"license: cc0-1.0" in after.pop("README.md")
    assert after.pop("media/overview.png").startswith(b"\x89PNG")
    assert after == files_of(folder)
    cached = run_client("pull", "me/pusht", "--kind", "dataset")
    assert files_of(Path(cached.stdout.splitlines()[1])).keys() == after.keys() | {
        "README.md",
        "media/overview.png",
    }
    for run in (refused, pushed, again, pulled, cached):
        assert hub.token not in run.stdout + run.stderr
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (["pull", "pusht"], {}, "'pusht' is not the name"),
        (["pull", "me/nothing"], {}, "no dataset or policy me/nothing"),
        (["push", "nowhere", "me/x"], {}, "no folder at nowhere"),
        (["push", "policy", "you/x"], {}, "me may not write to you/"),
        (["push", "policy", "me/x"], {"HF_TOKEN": ""}, "there is no token to push"),
        (["push", "policy", "me/x"], {"HF_TOKEN": "hf_no"}, "does not know the token"),
        (["pull", "me/x"], {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        (["pull", "me/x"], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "can't be reached"),
    ],
)
def test_every_refusal_is_a_sentence_and_a_hint(
    policy: Path, run_client: RunClient, words: list[str], env: dict[str, str], said: str
) -> None:
    run = run_client(*words, **env)
    assert (run.returncode, run.stdout) == (1, "")
    assert f"error: {said}" in run.stderr or said in run.stderr
    assert "Traceback" not in run.stderr
    assert "hint:" in run.stderr or "no folder" in said or "may not write" in said


def test_a_terminal_shows_progress_and_then_the_result(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    folder = make_dataset("data", n_rows=200_000, n_files=3)
    env = client_env(hub, tmp_path / "client")
    sent = in_terminal(client_command("push", str(folder), "me/pusht"), env)
    assert "file-002.parquet: 100%" in sent
    assert sent.rstrip().splitlines()[-3] == "me/pusht@data-v1"
    got = in_terminal(client_command("pull", "me/pusht", "--to", str(tmp_path / "back")), env)
    assert "Fetching 10 files: 100%" in got
    assert got.rstrip().splitlines()[-1] == str(tmp_path / "back")
    assert got.rindex("100%") < got.rindex("me/pusht@")


def in_terminal(command: list[str], env: dict[str, str]) -> str:
    """What a command shows on a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:  # Linux ends a terminal so
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0, shown.decode()
    return shown.decode()


def test_xet_is_off_for_other_hubs_even_when_the_library_came_first(
    policy: Path, run_client: RunClient
) -> None:
    for first in ("", "import huggingface_hub.utils; "):
        code = (
            f"{first}from dp_hub.hub import push; "
            "print(push('policy', 'me/p').sha); "
            "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_XET)"
        )
        run = run_client(code="import os; del os.environ['HF_HUB_DISABLE_XET']; " + code)
        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines()[-1] == "True"


def test_the_datasets_library_loads_and_streams_each_version(
    hub: LocalHub, make_dataset: MakeDataset, run_client: RunClient
) -> None:
    push(make_dataset("old", n_files=2, n_rows=40), "me/pusht")
    push(make_dataset("new", seed=1, n_rows=30), "me/pusht", onto="data-v1")
    code = """
import json
from datasets import load_dataset
answer = {}
for revision in ("data-v1", "data-v2"):
    table = load_dataset("me/pusht", revision=revision, split="train")
    stream = load_dataset("me/pusht", revision=revision, split="train", streaming=True)
    rows = list(stream)
    assert [row["index"] for row in rows] == table["index"][:]
    answer[revision] = [len(table), sum(row["action"][0] for row in rows)]
print(json.dumps(answer))
"""
    run = run_client(code=code)
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout.splitlines()[-1])
    assert (answer["data-v1"][0], answer["data-v2"][0]) == (80, 30)
    assert answer["data-v1"][1] != answer["data-v2"][1]


def test_a_dataset_that_the_datasets_library_pushed_can_be_listed_and_loaded(
    hub: LocalHub, run_client: RunClient
) -> None:
    code = """
from datasets import Dataset, load_dataset
Dataset.from_dict({"a": list(range(100))}).push_to_hub("me/plain")
print(sum(load_dataset("me/plain", split="train")["a"]))
"""
    run = run_client(code=code)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "4950"
    with pytest.raises(HubError, match="is no dataset"):
        pull("me/plain")


@pytest.mark.parametrize("moment", ["objects arrive", "objects have arrived"])
def test_a_push_killed_in_the_middle_leaves_the_old_version(
    hub: LocalHub,
    make_dataset: MakeDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    old = push(make_dataset("old"), "me/pusht")
    new = make_dataset("new", seed=1, n_files=3, n_rows=100_000)
    step, number = {"objects arrive": ("write", 1), "objects have arrived": ("keep", 3)}[moment]
    proceed, calls = getattr(Incoming, step), itertools.count(1)
    reached, killed = threading.Event(), threading.Event()

    def pausing(self: Incoming, *args: Any, **options: Any) -> Any:
        if next(calls) >= number:
            reached.set()
            assert killed.wait(60)
        return proceed(self, *args, **options)

    monkeypatch.setattr(Incoming, step, pausing)
    process = subprocess.Popen(
        client_command("push", str(new), "me/pusht", "--onto", "data-v1"),
        env=client_env(hub, tmp_path / "client"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert reached.wait(60)
    process.kill()
    assert process.wait() == -9
    killed.set()
    api = connect()
    assert api.repo_info("me/pusht", repo_type="dataset").sha == old.sha
    assert pull("me/pusht").sha == old.sha
    again = push(new, "me/pusht", onto="data-v1")
    assert again.tag == "data-v2"
    after = files_of(pull("me/pusht@data-v2", to=tmp_path / "back").path)
    del after["README.md"]
    assert after == files_of(new)
    objects = tmp_path / "server/repos/datasets/me/pusht/objects"
    assert not list((objects / "incoming").iterdir())
