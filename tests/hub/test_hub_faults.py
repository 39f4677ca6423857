"""Pushes and pulls through connections and Hubs that fail, with the real client."""

import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_proxy import Fault, FaultProxy
from hub_helpers import become_client, client_command, client_env, files_of, hurry
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from dp_hub.errors import HubError
from dp_hub.hub import LocalHub, pull, push, verify_folder

MakeDataset = Callable[..., Path]
RunClient = Callable[..., "subprocess.CompletedProcess[str]"]
BAD_TOKEN = {"X-Error-Message": "Invalid credentials in Authorization header"}
ALWAYS = 1000


@pytest.fixture
def proxy(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of the Hub, which this process talks to; its retries don't wait."""
    with FaultProxy(hub.endpoint) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        hurry(monkeypatch)
        yield running


class Watcher:
    """Reads everything that a repository shows, again and again, past the proxy."""

    def __init__(self, hub: LocalHub, repo_id: str) -> None:
        self.api, self.repo_id = HfApi(endpoint=hub.endpoint, token=hub.token), repo_id
        self.states: dict[str, set[frozenset[tuple[str, str]]]] = {}
        self.rounds = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def look(self) -> None:
        refs = self.api.list_repo_refs(self.repo_id, repo_type="dataset")
        for ref in [*refs.tags, *refs.branches]:
            tree = self.api.list_repo_tree(
                self.repo_id, recursive=True, revision=ref.target_commit, repo_type="dataset"
            )
            state = frozenset((row.path, row.blob_id) for row in tree if isinstance(row, RepoFile))
            self.states.setdefault(ref.name, set()).add(state)
        self.rounds += 1

    def _watch(self) -> None:
        while not self._done.is_set():
            self.look()

    def __enter__(self) -> "Watcher":
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.look()


PUSH_FAULTS = [
    (Fault("^PUT", cut_request=300_000), None),
    (Fault("^PUT", cut_request=300_000, times=ALWAYS), "can't be reached"),
    (Fault("^PUT", lose_answer=True), None),
    (Fault("^PUT", answer=503, times=2), None),
    (Fault("^PUT", answer=500, times=ALWAYS), "is in trouble: 500"),
    (Fault("^PUT", answer=507), "is in trouble: 507"),
    (Fault("POST .*/batch", answer=502), None),
    (Fault("POST .*/verify", lose_answer=True), None),
    (Fault("POST .*/preupload/", answer=503), None),
    (Fault("POST .*/commit/", answer=503), "is in trouble: 503"),
    (Fault("POST .*/commit/", cut_request=100), "can't be reached"),
    (Fault("POST .*/commit/", lose_answer=True), "can't be reached"),
    (Fault("POST .*/commit/", answer=412), "has changed on the Hub"),
    (Fault("POST .*/commit/", answer=401, headers=BAD_TOKEN), "does not know the token"),
    (Fault("POST .*/commit/", wait_s=1.5), None),
    (Fault("POST .*/tag/", answer=500), "is in trouble: 500"),
    (Fault("POST .*/tag/", lose_answer=True), "can't be reached"),
    (Fault("DELETE .*/tag/", lose_answer=True), "can't be reached"),
    (Fault("GET .*/refs", lose_answer=True, times=ALWAYS), "can't be reached"),
    (Fault("GET .*/tree/", cut_answer=20, times=ALWAYS), "can't be reached"),
    (Fault("GET .*/refs", flip=0, times=ALWAYS), "no Hub, or its answers are damaged"),
]


@pytest.mark.parametrize(
    ("fault", "said"), PUSH_FAULTS, ids=[f"{n}" for n in range(len(PUSH_FAULTS))]
)
def test_a_push_through_faults_survives_or_explains_itself_and_can_be_repeated(
    hub: LocalHub,
    proxy: FaultProxy,
    make_dataset: MakeDataset,
    tmp_path: Path,
    fault: Fault,
    said: str | None,
) -> None:
    folder = make_dataset("data", n_rows=90_000)
    old = push(folder, "me/pusht")
    assert make_dataset("data", n_rows=90_000, n_files=3) == folder
    with Watcher(hub, "me/pusht") as watcher:
        proxy.add(Fault(**{**vars(fault)}))
        if said is None:
            new = push(folder, "me/pusht")
        else:
            with pytest.raises(HubError, match=said):
                push(folder, "me/pusht")
            assert proxy.hit() >= 1
            proxy.heal()
            new = push(folder, "me/pusht")
    assert proxy.hit() >= 1 and watcher.rounds >= 2
    assert (new.tag, len(watcher.states["data-v1"]), len(watcher.states["data-v2"])) == (
        "data-v2", 1, 1,
    )  # fmt: skip
    [before], [after] = watcher.states["data-v1"], watcher.states["data-v2"]
    assert watcher.states["main"] == {before, after}
    assert watcher.states["v3.0"] <= {before, after}
    proxy.heal()
    assert pull("me/pusht@data-v1").sha == old.sha != new.sha
    back = files_of(pull("me/pusht@data-v2", to=tmp_path / "back").path)
    del back["README.md"]
    assert back == files_of(folder)
    incoming = tmp_path / "server/repos/datasets/me/pusht/objects/incoming"
    assert list(incoming.iterdir()) == []


DATA = "GET .*/resolve/.*/data/"
PULL_FAULTS = [
    (Fault(DATA, cut_answer=100_000), None),
    (Fault(DATA, cut_answer=100_000, times=ALWAYS), "can't be reached|cut"),
    (Fault(DATA, lose_answer=True), None),
    (Fault(DATA, answer=503, times=ALWAYS), "is in trouble: 503"),
    (Fault(DATA, flip=54_321), None),
    (Fault(DATA, flip=54_321, times=ALWAYS), r"checksum of data/.* is wrong"),
    (Fault("GET .*/resolve/.*/meta/info", flip=5), None),
    (Fault(DATA, wait_s=1.5), None),
    (Fault("GET .*/tree/", cut_answer=20, times=ALWAYS), "can't be reached"),
    (Fault("GET .*/tree/", answer=500, times=ALWAYS), "is in trouble: 500"),
    (Fault("GET /api/.*/pusht", answer=401, headers=BAD_TOKEN), "does not know the token"),
    (Fault("GET /api/.*/tree/", flip=0, times=ALWAYS), "no Hub, or its answers are damaged"),
    (Fault("HEAD .*/resolve/", lose_answer=True, times=ALWAYS), "can't be reached"),
]


INTO_CACHE = (0, 4, 5)  # the ways into a folder and into the cache differ where files are mended
PULLS = [
    pytest.param(fault, said, into, id=f"{into}-{number}")
    for number, (fault, said) in enumerate(PULL_FAULTS)
    for into in ("folder", *(["cache"] if number in INTO_CACHE else []))
]


@pytest.mark.parametrize(("fault", "said", "into"), PULLS)
def test_a_pull_through_faults_survives_or_explains_itself_and_can_be_repeated(
    proxy: FaultProxy,
    make_dataset: MakeDataset,
    tmp_path: Path,
    fault: Fault,
    said: str | None,
    into: str,
) -> None:
    folder = make_dataset("data", n_rows=90_000, n_files=3)
    push(folder, "me/pusht")
    to = tmp_path / "back" if into == "folder" else None
    proxy.add(Fault(**{**vars(fault)}))
    if said is not None:
        with pytest.raises(HubError, match=said):
            pull("me/pusht", to=to)
        assert to is None or not to.exists()
        proxy.heal()
    back = pull("me/pusht", to=to).path
    assert proxy.hit() >= 1 and verify_folder(back) == []
    found = files_of(back)
    del found["README.md"]
    assert found == files_of(folder)


def test_a_pull_that_failed_goes_on_with_the_files_that_are_missing(
    proxy: FaultProxy, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    push(make_dataset("data", n_rows=50_000, n_files=6), "me/pusht")
    proxy.add(Fault("GET .*/data/chunk-000/file-004", answer=503, times=ALWAYS))
    with pytest.raises(HubError, match="is in trouble: 503"):
        pull("me/pusht", to=tmp_path / "back")
    [partial] = tmp_path.glob(".back.*.partial")
    here = {path for path in files_of(partial) if not path.startswith(".cache")}
    assert len(here) >= 5
    proxy.heal()
    proxy.seen.clear()
    back = pull("me/pusht", to=tmp_path / "back").path
    got = {seen.line.split("/resolve/")[1][41:] for seen in proxy.seen if "GET /dat" in seen.line}
    assert got == set(files_of(back)) - here and "data/chunk-000/file-004.parquet" in got


def test_a_hub_that_does_not_answer_in_time_is_away(
    proxy: FaultProxy, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    push(make_dataset("data"), "me/pusht")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr("dp_hub.hub.fetching.WAITS_S", ())
    proxy.add(Fault(DATA, wait_s=1, times=ALWAYS))
    with pytest.raises(HubError, match=r"can't be reached: .*timed out"):
        pull("me/pusht", to=tmp_path / "back")
    proxy.heal()
    assert verify_folder(pull("me/pusht", to=tmp_path / "back").path) == []


def test_transfers_in_a_log_show_no_bars_and_on_errors_no_traceback(
    proxy: FaultProxy, make_dataset: MakeDataset, run_client: RunClient
) -> None:
    folder = make_dataset("data", n_rows=300_000)
    pushed = run_client("push", str(folder), "me/pusht", HF_ENDPOINT=proxy.endpoint)
    assert (pushed.returncode, pushed.stderr) == (
        0,
        "pushed the dataset: 8 files sent, 0 removed\n",
    )
    pulled = run_client("pull", "me/pusht", HF_ENDPOINT=proxy.endpoint)
    assert (pulled.returncode, pulled.stderr) == (0, "")
    proxy.add(Fault("GET .*/refs", answer=500, times=ALWAYS))
    failed = run_client("log", "me/pusht", HF_ENDPOINT=proxy.endpoint)
    assert failed.returncode == 1 and failed.stdout == "" and "Traceback" not in failed.stderr
    assert "is in trouble: 500" in failed.stderr


def wait_until(true: Callable[[], bool], *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize("what", ["push", "pull"])
def test_ctrl_c_stops_and_the_same_command_goes_on(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path, what: str, presses: int
) -> None:
    folder = make_dataset("data", n_rows=100_000, n_files=12)
    if what == "pull":
        push(folder, "me/pusht")
    words = {"push": ["push", str(folder)], "pull": ["pull", "--to", str(tmp_path / "back")]}[what]
    # After the second press nothing may be waited for: a file would take a minute.
    with FaultProxy(hub.endpoint, bytes_per_s=1e6 if presses == 1 else 2.5e4) as slow:
        env = client_env(hub, tmp_path / "client", HF_ENDPOINT=slow.endpoint)
        log = tmp_path / "said"
        with log.open("wb") as stderr:
            process = subprocess.Popen(client_command(*words, "me/pusht"), env=env, stderr=stderr)
        wait_until(lambda: any(re.search("^PUT|^GET .*/resolve/.*/data/", s) for s in slow.started))
        process.send_signal(signal.SIGINT)
        if presses == 2:
            wait_until(lambda: "Ctrl-C again" in log.read_text())
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=50) == 130, log.read_text()
        said = log.read_text()
    assert "the same command goes on from here" in said and "Traceback" not in said
    assert not (tmp_path / "back").exists()
    if what == "push":
        refs = HfApi(endpoint=hub.endpoint).list_repo_refs("me/pusht", repo_type="dataset")
        assert refs.tags == []
    again = subprocess.run(
        client_command(*words, "me/pusht"), env=client_env(hub, tmp_path / "client"), timeout=60
    )
    assert again.returncode == 0
    found = files_of(pull("me/pusht", to=tmp_path / "check").path)
    del found["README.md"]
    found.pop("media/overview.png", None)  # the command's own
    assert found == files_of(folder)


def in_small_disk(folder: Path, n_bytes: int, command: list[str]) -> list[str]:
    """``command`` where ``folder`` is a disk of this size. Skips where that can't be made."""
    inside = f'mount -t tmpfs -o size={n_bytes} tmpfs "$0" && exec "$@"'
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", inside, str(folder)]
    folder.mkdir()
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], check=False).returncode:
        pytest.skip("needs the right to mount a small disk in a namespace of its own")
    return [*words, *command]


def test_a_hub_whose_disk_is_full_says_so_and_keeps_what_it_has(
    tmp_path: Path, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    words = ["serve", str(tmp_path / "disk"), "--port", "0", "--token-file", str(token)]
    server = subprocess.Popen(
        in_small_disk(tmp_path / "disk", 4 << 20, client_command(*words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None and server.stderr is not None
        endpoint = server.stdout.readline().removeprefix("export HF_ENDPOINT=").strip()
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        monkeypatch.setenv("HF_TOKEN", token.read_text())
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home/hub"))
        hurry(monkeypatch)
        small = push(make_dataset("small"), "me/pusht")
        large = make_dataset("large", seed=1, n_rows=600_000)
        with pytest.raises(HubError, match="507 the Hub's disk is full"):
            push(large, "me/pusht", onto="data-v1")
        wordy = make_dataset("wordy", seed=2)
        for name in ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENSE.en", "LICENSE.de"):
            (wordy / name).write_text(f"terms of {name} " * 50_000)  # no LFS: inside the commit
        with pytest.raises(HubError, match="507 the Hub's disk is full"):
            push(wordy, "me/pusht", onto="data-v1")
        assert pull("me/pusht", to=tmp_path / "back").sha == small.sha
        assert push(make_dataset("other", seed=3), "me/pusht", onto="data-v1").tag == "data-v2"
    finally:
        server.kill()
        _, said = server.communicate()
    assert "Traceback" not in said


def test_a_pull_onto_a_full_disk_says_so_and_leaves_no_half_dataset(
    hub: LocalHub, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    push(make_dataset("data", n_rows=600_000), "me/pusht")
    disk = tmp_path / "disk"
    command = client_command("pull", "me/pusht", "--to", str(disk / "back"))
    run = subprocess.run(
        in_small_disk(disk, 2 << 20, ["sh", "-c", '"$@"; ls "$0"', str(disk), *command]),
        env=client_env(hub, tmp_path / "client"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "No space left on device" in run.stderr and "Traceback" not in run.stderr
    assert run.stdout == ""  # ls shows no hidden folder


def test_an_unknown_token_is_named_for_what_it_is_on_every_command(
    proxy: FaultProxy, make_dataset: MakeDataset, run_client: RunClient
) -> None:
    folder = make_dataset("data")
    push(folder, "me/pusht")
    for words in (["push", str(folder), "me/pusht"], ["pull", "me/pusht"], ["log", "me/pusht"]):
        run = run_client(*words, HF_TOKEN="hf_expired")
        assert run.returncode == 1 and "does not know the token" in run.stderr
        assert "hf auth login" in run.stderr and "hf_expired" not in run.stderr


def test_the_cache_is_used_when_the_hub_is_in_trouble(
    hub: LocalHub, proxy: FaultProxy, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    sha = push(make_dataset("data"), "me/pusht").sha
    pull("me/pusht")
    proxy.add(Fault("/api/", answer=503, times=ALWAYS))
    assert pull("me/pusht").sha == sha
    assert "is in trouble: 503" in caplog.text and "from the cache" in caplog.text
    become_client(monkeypatch, hub, tmp_path / "elsewhere")
    monkeypatch.setenv("HF_ENDPOINT", proxy.endpoint)
    with pytest.raises(HubError, match="is in trouble: 503") as caught:
        pull("me/pusht")
    assert "not in the cache either" in str(caught.value)
