"""The Hub server against the real client's calls, and against people who mean no good."""

import base64
import hashlib
import http.client
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dp_hub.errors import ConfigError, HubError
from dp_hub.hub import LocalHub
from dp_hub.hub.server import request as server_request
from dp_hub.hub.server.run import prepare

Answer = tuple[int, dict[str, str], bytes]


def send(
    hub: LocalHub,
    method: str,
    path: str,
    body: bytes | dict[str, Any] | None = None,
    *,
    token: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One raw request: nothing tidies the path on its way."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc, timeout=10)
    try:
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        found = {key.lower(): value for key, value in answer.getheaders()}
        return answer.status, found, answer.read()
    finally:
        connection.close()


@pytest.fixture(autouse=True)
def no_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def client(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint)


def ndjson(*lines: tuple[str, dict[str, Any]]) -> bytes:
    head = ("header", {"summary": "by hand"})
    rows = [{"key": key, "value": value} for key, value in (head, *lines)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def file_line(path: str, data: bytes = b"x") -> tuple[str, dict[str, Any]]:
    content = base64.b64encode(data).decode()
    return "file", {"path": path, "content": content, "encoding": "base64"}


def upload_link(hub: LocalHub, repo_id: str, data: bytes) -> str:
    """The signed address that a batch call gives for ``data``."""
    item = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
    body = {"operation": "upload", "objects": [item]}
    path = f"/{repo_id}.git/info/lfs/objects/batch"
    status, _, answer = send(hub, "POST", path, body, token=hub.token)
    assert status == 200
    href = json.loads(answer)["objects"][0]["actions"]["upload"]["href"]
    return href.removeprefix(hub.endpoint)


def test_whoami_create_delete(hub: LocalHub) -> None:
    api = client(hub)
    assert api.whoami()["name"] == "me"
    url = api.create_repo("me/a")
    assert (url.repo_id, str(url)) == ("me/a", f"{hub.endpoint}/me/a")
    assert api.create_repo("a", exist_ok=True).repo_id == "me/a"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("me/a")
    assert api.repo_exists("me/a") and not api.repo_exists("me/a", repo_type="dataset")
    api.delete_repo("me/a")
    assert not api.repo_exists("me/a")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("me/a")
    api.delete_repo("me/a", missing_ok=True)


def test_branches_tags_and_history(hub: LocalHub) -> None:
    api = client(hub)
    api.create_repo("me/a")
    first = api.upload_file(path_or_fileobj=b"1", path_in_repo="f.txt", repo_id="me/a").oid
    api.create_tag("me/a", tag="v1", tag_message="one")
    api.create_branch("me/a", branch="feature/x")
    second = api.upload_file(
        path_or_fileobj=b"2", path_in_repo="f.txt", repo_id="me/a", revision="feature/x"
    ).oid
    refs = api.list_repo_refs("me/a")
    assert {ref.name: ref.target_commit for ref in refs.branches} == {
        "main": first,
        "feature/x": second,
    }
    assert [(ref.name, ref.ref, ref.target_commit) for ref in refs.tags] == [
        ("v1", "refs/tags/v1", first)
    ]
    history = api.list_repo_commits("me/a", revision="feature/x")
    assert [commit.commit_id for commit in history[:2]] == [second, first]
    assert history[0].authors == ["me"] and len(history) == 3
    for revision, content in (("v1", "1"), ("feature/x", "2"), ("main", "1"), (second, "2")):
        path = api.hf_hub_download("me/a", "f.txt", revision=revision)
        assert Path(path).read_text() == content
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag("me/a", tag="v1")
    api.delete_tag("me/a", tag="v1")
    api.delete_branch("me/a", branch="feature/x")
    with pytest.raises(RevisionNotFoundError):
        api.repo_info("me/a", revision="v1")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.delete_branch("me/a", branch="main")
    for bad in ("../x", "a..b", "0" * 40, "x/", "-x", "a b"):
        assert (
            send(hub, "POST", "/api/models/me/a/tag/main", {"tag": bad}, token=hub.token)[0] == 400
        )


def test_tree_paths_and_folders(hub: LocalHub) -> None:
    api = client(hub)
    api.create_repo("me/a", repo_type="dataset")
    names = ["a.txt", "d/b.txt", "d/e/c.bin"]
    operations = [CommitOperationAdd(name, b"\0" + name.encode()) for name in names]
    api.create_commit("me/a", operations, commit_message="three", repo_type="dataset")

    def tree(**options: Any) -> list[str]:
        return [row.path for row in api.list_repo_tree("me/a", repo_type="dataset", **options)]

    assert tree() == ["a.txt", "d"]
    assert tree(path_in_repo="d") == ["d/b.txt", "d/e"]
    assert tree(recursive=True) == ["a.txt", "d", "d/b.txt", "d/e", "d/e/c.bin"]
    with pytest.raises(RemoteEntryNotFoundError):
        tree(path_in_repo="nothing")
    found = api.get_paths_info("me/a", ["d/b.txt", "d/e", "none"], repo_type="dataset")
    assert [row.path for row in found] == ["d/b.txt", "d/e"]
    assert found[0].lfs.sha256 == hashlib.sha256(b"\0d/b.txt").hexdigest()
    info = api.dataset_info("me/a", files_metadata=True)
    assert [(file.rfilename, file.size) for file in info.siblings] == [
        (name, len(name) + 1) for name in names
    ]
    api.delete_folder("d", repo_id="me/a", repo_type="dataset")
    assert api.list_repo_files("me/a", repo_type="dataset") == ["a.txt"]
    with pytest.raises(HfHubHTTPError):
        api.delete_file("gone.txt", repo_id="me/a", repo_type="dataset")


def test_upload_folder_sends_only_changes_and_deletes_by_pattern(
    hub: LocalHub, tmp_path: Path
) -> None:
    api = client(hub)
    api.create_repo("me/a")
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/x.bin").write_bytes(os.urandom(3000))
    (folder / "y.txt").write_text("y")
    first = api.upload_folder(repo_id="me/a", folder_path=folder).oid
    assert api.upload_folder(repo_id="me/a", folder_path=folder).oid == first
    (folder / "y.txt").unlink()
    api.upload_folder(repo_id="me/a", folder_path=folder, delete_patterns="*.txt")
    assert api.list_repo_files("me/a") == ["sub/x.bin"]


def test_a_commit_on_another_parent_is_refused(hub: LocalHub) -> None:
    api = client(hub)
    api.create_repo("me/a")
    old = api.upload_file(path_or_fileobj=b"1", path_in_repo="f", repo_id="me/a").oid
    head = api.upload_file(path_or_fileobj=b"2", path_in_repo="f", repo_id="me/a").oid
    for parent in (old, old[:7]):
        with pytest.raises(HfHubHTTPError, match="412"):
            api.upload_file(
                path_or_fileobj=b"3", path_in_repo="f", repo_id="me/a", parent_commit=parent
            )
    assert api.repo_info("me/a").sha == head
    api.upload_file(path_or_fileobj=b"3", path_in_repo="f", repo_id="me/a", parent_commit=head[:7])


def test_ranges_and_digests_of_files(hub: LocalHub) -> None:
    api = client(hub)
    api.create_repo("me/a")
    data = os.urandom(5000)
    sha = api.upload_file(path_or_fileobj=data, path_in_repo="f.bin", repo_id="me/a").oid
    path = "/me/a/resolve/main/f.bin"
    status, headers, body = send(hub, "HEAD", path)
    assert (status, body, headers["content-length"]) == (200, b"", "5000")
    assert headers["x-repo-commit"] == sha
    assert headers["etag"] == headers["x-linked-etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    status, headers, body = send(hub, "GET", path, headers={"Range": "bytes=100-199"})
    assert (status, body) == (206, data[100:200])
    assert headers["content-range"] == "bytes 100-199/5000"
    assert send(hub, "GET", path, headers={"Range": "bytes=-10"})[2] == data[-10:]
    assert send(hub, "GET", path, headers={"Range": "bytes=4990-"})[2] == data[-10:]
    assert send(hub, "GET", path, headers={"Range": "bytes=5000-"})[0] == 416
    status, headers, _ = send(hub, "GET", "/me/a/resolve/main/none")
    assert (status, headers["x-error-code"]) == (404, "EntryNotFound")
    assert headers["x-repo-commit"] == sha


BAD_PATHS = [
    "../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "./a", "a/./b", ".git/config", "a/.GIT/x",
    "a\\b", "a\0b", "a\nb", "x" * 1001, "a/",
]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS)
def test_no_file_can_be_put_outside_its_repository(
    hub: LocalHub, tmp_path: Path, path: str
) -> None:
    client(hub).create_repo("me/a")
    before = {found for found in tmp_path.rglob("*") if found.is_file()}
    for body in (ndjson(file_line(path)), ndjson(file_line("ok"), file_line(path))):
        status, _, answer = send(hub, "POST", "/api/models/me/a/commit/main", body, token=hub.token)
        assert (status, b"can't be the path" in answer) == (400, True)
    assert client(hub).list_repo_files("me/a") == []
    assert {found for found in tmp_path.rglob("*") if found.is_file()} == before


def test_no_file_outside_a_repository_can_be_read(hub: LocalHub, tmp_path: Path) -> None:
    client(hub).create_repo("me/a")
    tried = 0
    for inside in ("../../../tokens.json", "%2e%2e/%2e%2e/tokens.json", "..%2f..%2ftokens.json",
                   "%00", "refs.json", "../refs.json", "....//tokens.json"):  # fmt: skip
        for start in ("/me/a/resolve/main/", "/datasets/me/a/resolve/main/", "/me/a/resolve/", "/"):
            status, _, body = send(hub, "GET", start + inside)
            assert status in (400, 401, 404) and b"link_secret" not in body
            tried += 1
    assert tried == 28
    for name in ("..", "%2e%2e", "..%2f..", "me%2f..", "a%00"):
        assert send(hub, "GET", f"/api/models/{name}/{name}")[0] in (401, 404)
        body = {"name": name, "organization": "me", "type": "model"}
        status = send(hub, "POST", "/api/repos/create", body, token=hub.token)[0]
        assert status == 400


def test_only_the_owner_writes(hub: LocalHub) -> None:
    client(hub).create_repo("me/a")
    calls = [
        ("POST", "/api/models/me/a/commit/main", ndjson(file_line("f"))),
        ("POST", "/api/models/me/a/preupload/main", {"files": []}),
        ("POST", "/me/a.git/info/lfs/objects/batch", {"operation": "upload", "objects": []}),
        ("POST", "/me/a.git/info/lfs/objects/verify", {"oid": "0" * 64, "size": 0}),
        ("POST", "/api/models/me/a/tag/main", {"tag": "t"}),
        ("DELETE", "/api/models/me/a/tag/t", None),
        ("POST", "/api/models/me/a/branch/b", {}),
        ("DELETE", "/api/models/me/a/branch/b", None),
        ("PUT", "/api/models/me/a/settings", {"private": True}),
        ("POST", "/api/repos/create", {"name": "b", "organization": "me"}),
        ("DELETE", "/api/repos/delete", {"name": "a", "organization": "me"}),
    ]
    other = hub.tokens["you"]
    for method, path, body in calls:
        assert send(hub, method, path, body)[0] == 401, path
        assert send(hub, method, path, body, token="hf_wrong")[0] == 401, path
        assert send(hub, method, path, body, token=other)[0] == 403, path
    assert send(hub, "GET", "/api/models/me/a", token="hf_wrong")[0] == 401
    assert client(hub).list_repo_files("me/a") == []


def test_private_repositories_show_to_their_owner_only(hub: LocalHub) -> None:
    api = client(hub)
    api.create_repo("me/open")
    api.create_repo("me/secret", private=True)
    api.upload_file(path_or_fileobj=b"\0x", path_in_repo="f", repo_id="me/secret")
    mine, yours = hub.token, hub.tokens["you"]
    paths = ["/api/models/me/secret", "/api/models/me/secret/tree/main",
             "/api/models/me/secret/refs", "/api/models/me/secret/commits/main",
             "/me/secret/resolve/main/f", "/me/secret", "/me/secret/commit/main"]  # fmt: skip
    for path in paths:
        assert send(hub, "GET", path, token=mine)[0] == 200, path
        for token, expected in ((None, 401), (yours, 404)):
            status, headers, _ = send(hub, "GET", path, token=token)
            missing = send(hub, "GET", path.replace("secret", "nothing"), token=token)
            assert (status, headers["x-error-code"]) == (expected, "RepoNotFound"), path
            assert (missing[0], missing[1]["x-error-code"]) == (expected, "RepoNotFound"), path
    for path in ("/", "/api/models"):
        for token in (None, yours):
            body = send(hub, "GET", path, token=token)[2]
            assert b"me/open" in body and b"secret" not in body
    assert b"me/secret" in send(hub, "GET", "/api/models", token=mine)[2]
    api.update_repo_settings("me/secret", private=False)
    assert send(hub, "GET", paths[0])[0] == 200


def test_knowing_the_digest_of_a_private_file_gives_nothing(hub: LocalHub) -> None:
    secret = os.urandom(2000)
    digest = hashlib.sha256(secret).hexdigest()
    client(hub).create_repo("me/secret", private=True)
    client(hub).upload_file(path_or_fileobj=secret, path_in_repo="f", repo_id="me/secret")
    yours = hub.tokens["you"]
    HfApi(endpoint=hub.endpoint, token=yours).create_repo("you/mine")
    line = ("lfsFile", {"path": "f", "algo": "sha256", "oid": digest, "size": 2000})
    status, _, body = send(
        hub, "POST", "/api/models/you/mine/commit/main", ndjson(line), token=yours
    )
    assert (status, b"has not been uploaded" in body) == (400, True)


def test_upload_links_are_good_for_one_object_and_a_while(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(hub).create_repo("me/a")
    client(hub).create_repo("me/b")
    data = os.urandom(1000)
    link = upload_link(hub, "me/a", data)
    other = hashlib.sha256(b"other").hexdigest()
    digest = hashlib.sha256(data).hexdigest()
    broken = [
        link.split("?")[0],
        link[:-1] + ("0" if link[-1] != "0" else "1"),
        link.replace(digest, other),
        link.replace("/1000?", "/1001?"),
        link.replace("/me/a.git", "/me/b.git"),
        link.replace("/me/a.git", "/datasets/me/a.git"),
        re.sub(r"signature=\d+", "signature=99999999999", link),
        link.replace("signature=", "signature=%C2%B2"),
    ]
    for path in broken:
        assert send(hub, "PUT", path, data)[0] in (403, 404), path
    later = time.time() + 25 * 3600
    with monkeypatch.context() as patch:
        patch.setattr("dp_hub.hub.server.tokens.time.time", lambda: later)
        assert send(hub, "PUT", link, data)[0] == 403
    assert send(hub, "PUT", link, data)[0] == 200


def test_an_upload_that_is_not_what_was_announced_leaves_nothing(
    hub: LocalHub, tmp_path: Path
) -> None:
    client(hub).create_repo("me/a")
    data = os.urandom(3000)
    link = upload_link(hub, "me/a", data)
    flipped = bytes([data[0] ^ 1]) + data[1:]
    assert send(hub, "PUT", link, flipped)[0] == 400
    assert send(hub, "PUT", link, data + b"more")[0] == 413
    assert send(hub, "PUT", link, data[:-1])[0] in (400, 413)
    chunked = {"Transfer-Encoding": "chunked"}
    for body, expected in ((data[:-1], 400), (data + b"x", 413)):
        framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        assert send(hub, "PUT", link, framed, headers=chunked)[0] == expected
    objects = tmp_path / "server/repos/models/me/a/objects"
    assert [path for path in objects.rglob("*") if path.is_file()] == []
    digest = hashlib.sha256(data).hexdigest()
    for size in (3000, 2999):
        line = ("lfsFile", {"path": "f", "algo": "sha256", "oid": digest, "size": size})
        path = "/api/models/me/a/commit/main"
        assert send(hub, "POST", path, ndjson(line), token=hub.token)[0] == 400
        send(hub, "PUT", link, data)
    assert client(hub).list_repo_files("me/a") == []


def test_bodies_that_are_too_long_are_refused(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(hub).create_repo("me/a")
    monkeypatch.setattr(server_request, "MAX_LINE_BYTES", 200_000)
    monkeypatch.setattr(server_request, "MAX_COMMIT_BYTES", 500_000)
    commit = "/api/models/me/a/commit/main"
    long_line = ndjson(file_line("f", b"x" * 200_000))
    many_lines = ndjson(*[file_line(f"f{i}", b"x" * 50_000) for i in range(10)])
    for body in (long_line, many_lines):
        assert send(hub, "POST", commit, body, token=hub.token)[0] == 413
    size = server_request.MAX_JSON_BYTES + 1
    path = "/api/models/me/a/preupload/main"
    announced = {"Content-Length": str(size)}
    assert send(hub, "POST", path, b"", token=hub.token, headers=announced)[0] == 413
    huge = {"oid": "0" * 64, "size": 51 << 30}
    body = {"operation": "upload", "objects": [huge]}
    answer = send(hub, "POST", "/me/a.git/info/lfs/objects/batch", body, token=hub.token)[2]
    assert json.loads(answer)["objects"][0]["error"]["code"] == 413
    assert client(hub).list_repo_files("me/a") == []
    assert send(hub, "POST", commit, ndjson(file_line("ok")), token=hub.token)[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"not json\n",
        b"[]\n",
        b'{"key": "file", "value": 3}\n',
        ndjson(("file", {"path": "f", "content": "%%%", "encoding": "base64"})),
        ndjson(("file", {"path": 3, "content": "eA=="})),
        ndjson(("what", {"path": "f"})),
        ndjson(("lfsFile", {"path": "f", "oid": "../../../../tokens.json", "size": 1})),
        ndjson(file_line("a"), file_line("a/b")),
        b'{"key": "header", "value": {"summary": "x", "parentCommit": "abc"}}\n',
    ],
)
def test_nonsense_in_a_commit_is_an_answer_not_a_crash(hub: LocalHub, body: bytes) -> None:
    client(hub).create_repo("me/a")
    path = "/api/models/me/a/commit/main"
    assert send(hub, "POST", path, body, token=hub.token)[0] == 400
    assert len(client(hub).list_repo_commits("me/a")) == 1


def test_front_matter_is_checked(hub: LocalHub) -> None:
    api = client(hub)
    api.create_repo("me/a")
    for text in ("---\na: [\n---\n", "---\n- a\n---\n"):
        with pytest.raises(ValueError, match="Invalid metadata"):
            api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id="me/a")
    text = "---\nlicense: mit\n---\n# <script>alert(1)</script>\n"
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id="me/a")
    page = send(hub, "GET", "/me/a")[2]
    assert b"license: mit" in page and b"<script>" not in page


def test_tokens_are_kept_as_digests_and_shown_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    folder = tmp_path / "server"
    with LocalHub(folder) as hub:
        token = hub.token
        api = HfApi(endpoint=hub.endpoint, token=token)
        api.create_repo("me/a")
        api.upload_file(path_or_fileobj=b"\0" * 100, path_in_repo="f", repo_id="me/a")
        link = upload_link(hub, "me/a", b"other")
        send(hub, "PUT", link, b"other")
    served = [line for line in caplog.messages if re.match(r"(GET|PUT|POST) /", line)]
    assert len(served) >= 7
    assert token not in caplog.text
    assert not any("signature" in line for line in served)
    assert stat.S_IMODE((folder / "tokens.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "tokens/me").stat().st_mode) == 0o600
    holding = [path for path in folder.rglob("*") if path.is_file() and token in path.read_text()]
    assert holding == [folder / "tokens/me"]


def test_tokens_survive_a_restart_and_can_be_replaced(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as first:
        pass
    with LocalHub(tmp_path) as second:
        assert second.token == first.token
        assert HfApi(endpoint=second.endpoint, token=first.token).whoami()["name"] == "me"
    replaced = prepare(tmp_path, port=0, new_token=True)
    replaced.listener.close()
    replaced.lock.close()
    with LocalHub(tmp_path) as third:
        assert third.token != first.token
        with pytest.raises(HfHubHTTPError, match="Invalid user token"):
            HfApi(endpoint=third.endpoint, token=first.token).whoami()


def test_a_folder_has_one_server_and_a_port_too(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        with pytest.raises(HubError, match="another server is serving"):
            LocalHub(tmp_path)
        port = urlsplit(hub.endpoint).port
        with pytest.raises(HubError, match=f"can't listen at 127.0.0.1:{port}"):
            prepare(tmp_path / "other", port=port or 0)
    with pytest.raises(ConfigError, match="can't be a user name"):
        prepare(tmp_path, port=0, users=["../me"])
    with pytest.raises(ConfigError, match="can't be a user name"):
        prepare(tmp_path, port=0, users=["datasets"])
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        prepare(tmp_path, port=0)


def start_server(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """``dp-hub serve`` as its own process, and its address."""
    program = "from dp_hub.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, line.removeprefix("export HF_ENDPOINT=").strip()


def peak_bytes(process: subprocess.Popen[str]) -> int:
    text = Path(f"/proc/{process.pid}/status").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc for the memory")
def test_a_killed_server_has_kept_all_it_confirmed_and_large_files_never_fill_its_memory(
    tmp_path: Path,
) -> None:
    folder, large = tmp_path / "server", tmp_path / "large.bin"
    large.write_bytes(os.urandom(1 << 20) * 64)
    process, endpoint = start_server(folder)
    try:
        api = HfApi(endpoint=endpoint, token=(folder / "tokens/me").read_text())
        api.create_repo("me/a")
        api.upload_file(path_or_fileobj=b"x", path_in_repo="small", repo_id="me/a")
        before = peak_bytes(process)
        sha = api.upload_file(path_or_fileobj=large, path_in_repo="large", repo_id="me/a").oid
        api.create_tag("me/a", tag="v1")
        assert peak_bytes(process) - before < 24 << 20
    finally:
        process.kill()
        process.wait()
    (folder / "repos/models/me/a/objects/incoming/leftover").write_text("half")
    (folder / "repos/models/me/a/.refs.json.aa.tmp").write_text("half")
    process, endpoint = start_server(folder)
    try:
        api = HfApi(endpoint=endpoint, token=(folder / "tokens/me").read_text())
        assert api.repo_info("me/a", revision="v1").sha == sha
        path = api.hf_hub_download("me/a", "large", revision="v1", cache_dir=tmp_path / "cache")
        assert Path(path).read_bytes() == large.read_bytes()
        assert peak_bytes(process) < 150 << 20
    finally:
        process.kill()
        process.wait()
    assert not list(folder.rglob("leftover")) and not list(folder.rglob("*.tmp"))


def test_small_answers_do_not_wait_for_the_network_to_gather_more(hub: LocalHub) -> None:
    connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc, timeout=10)
    headers = {"Authorization": f"Bearer {hub.token}"}
    took_s = []
    for _ in range(20):
        started = time.monotonic()
        connection.request("GET", "/api/whoami-v2", headers=headers)
        assert connection.getresponse().read()
        took_s.append(time.monotonic() - started)
    connection.close()
    assert sorted(took_s)[10] < 0.03  # 0.044 without TCP_NODELAY, 0.001 with it


ESCAPES = ["..", "%2e%2e", "..%2f..%2f..", "..%2F..%2F..%2F..%2F..%2Fetc", "%2fetc", "..%5c..",
           "refs%2fheads%2f..%2f..", "refs/heads/..", "a%00b", "%c0%ae%c0%ae", "....//",
           "~"]  # fmt: skip


def test_no_revision_leads_out_of_a_repository(hub: LocalHub, tmp_path: Path) -> None:
    client(hub).create_repo("me/a")
    client(hub).upload_file(path_or_fileobj=b"x", path_in_repo="f", repo_id="me/a")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    api = "/api/models/me/a"
    reads = ["/me/a/resolve/{}/f", "/me/a/resolve/{}/refs.json", "/me/a/tree/{}",
             f"{api}/tree/{{}}", f"{api}/revision/{{}}", f"{api}/commits/{{}}"]  # fmt: skip
    writes = [
        ("POST", f"{api}/commit/{{}}", ndjson(file_line("g"))),
        ("POST", f"{api}/branch/{{}}", {}),
        ("DELETE", f"{api}/tag/{{}}", None),
        ("DELETE", f"{api}/branch/{{}}", None),
        ("POST", f"{api}/tag/{{}}", {"tag": "t"}),
    ]
    tried = 0
    for escape in ESCAPES:
        for method, path, body in [*(("GET", path, None) for path in reads), *writes]:
            status, _, answer = send(hub, method, path.format(escape), body, token=hub.token)
            assert status in (400, 404, 405), (method, path, escape)
            assert b"link_secret" not in answer and b"branches" not in answer
            tried += 1
        status, _, _ = send(
            hub, "POST", "/api/models/me/a/branch/ok", {"startingPoint": escape}, token=hub.token
        )
        assert status in (400, 404)
    assert tried == len(ESCAPES) * 11
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_removing_and_uploading_never_reach_outside(hub: LocalHub, tmp_path: Path) -> None:
    client(hub).create_repo("me/a")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    commit = "/api/models/me/a/commit/main"
    for path in BAD_PATHS[:-1]:
        for key in ("deletedFile", "deletedFolder"):
            body = ndjson((key, {"path": path}))
            assert send(hub, "POST", commit, body, token=hub.token)[0] == 400, (key, path)
    data = b"x" * 10
    link = upload_link(hub, "me/a", data)
    digest = hashlib.sha256(data).hexdigest()
    for oid in ("..%2f..%2ftokens.json", "..", f"{digest}%2f..", digest.upper(), "0" * 63):
        assert send(hub, "PUT", link.replace(digest, oid), data)[0] in (403, 404)
        item = {"oid": oid, "size": 10}
        body = {"operation": "upload", "objects": [item]}
        batch = "/me/a.git/info/lfs/objects/batch"
        assert send(hub, "POST", batch, body, token=hub.token)[0] == 400
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_symbolic_link_can_not_be_made(hub: LocalHub, tmp_path: Path) -> None:
    client(hub).create_repo("me/a")
    value = {"path": "link", "content": "../../../../../../tokens.json", "encoding": "utf-8",
             "mode": "120000", "type": "symlink", "symlink": True}  # fmt: skip
    body = ndjson(("file", value))
    path = "/api/models/me/a/commit/main"
    assert send(hub, "POST", path, body, token=hub.token)[0] == 200
    assert send(hub, "POST", path, ndjson(("symlink", value)), token=hub.token)[0] == 400
    assert send(hub, "GET", "/me/a/resolve/main/link")[2] == value["content"].encode()
    assert not [path for path in (tmp_path / "server").rglob("*") if path.is_symlink()]


@pytest.mark.parametrize(
    "name",
    ["a/b", "../a", ".a", "a.", "a..b", "a--b", "a.git", "", " ", "a\n", "a" * 97, "ä", "a\0"],
)
def test_repositories_have_plain_names_in_their_owners_space(
    hub: LocalHub, tmp_path: Path, name: str
) -> None:
    body = {"name": name, "organization": "me", "type": "dataset"}
    assert send(hub, "POST", "/api/repos/create", body, token=hub.token)[0] == 400
    for user in ("you", "..", "me/..", "api", "datasets", ""):
        body = {"name": "a", "organization": user or "you", "type": "dataset"}
        assert send(hub, "POST", "/api/repos/create", body, token=hub.token)[0] == 403
    assert not (tmp_path / "server/repos").exists()


def test_deep_or_broken_json_and_yaml_are_refused_and_break_nothing(
    hub: LocalHub, caplog: pytest.LogCaptureFixture
) -> None:
    client(hub).create_repo("me/a")
    deep = b"[" * 100_000 + b"]" * 100_000
    calls = [
        ("/api/repos/create", b'{"name": ' + deep + b"}"),
        ("/api/repos/create", deep),
        ("/api/models/me/a/commit/main", b'{"key": "file", "value": {"path": ' + deep + b"}}\n"),
        ("/api/validate-yaml", json.dumps({"content": f"---\na: {deep.decode()}\n---\n"}).encode()),
        ("/api/models/me/a/preupload/main", b'{"files": [{"path": "\\ud800", "size": 1}]}'),
        ("/api/models/me/a/commit/main", ndjson(file_line("a\ud800b"))),
        ("/api/models/me/a/commit/main", b'{"key": "header", "value": {"summary": "\\ud800"}}\n'),
        ("/api/models/me/a/tag/main", b'{"tag": "\\ud800"}'),
        ("/api/repos/create", b"\xff\xfe{}"),
    ]
    for path, body in calls:
        assert send(hub, "POST", path, body, token=hub.token)[0] == 400, (path, body[:60])
    laughs = "\n".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 1}]" for i in range(20)
    )
    body = {"content": f"---\n{laughs}\n---\n"}
    started = time.monotonic()
    assert send(hub, "POST", "/api/validate-yaml", body, token=hub.token)[0] in (200, 400)
    assert time.monotonic() - started < 5
    assert len(client(hub).list_repo_commits("me/a")) == 1
    assert client(hub).list_repo_files("me/a") == []
    assert "Traceback" not in caplog.text


def test_tokens_of_other_forms_are_nobodys(hub: LocalHub) -> None:
    client(hub).create_repo("me/secret", private=True)
    for header in ("", "Bearer", "Bearer ", f"Basic {hub.token}", hub.token, f"Bearer {hub.token}x",
                   f"Bearer {hub.token[:-1]}", "Bearer \xe4", f"Bearer {hub.token} x"):  # fmt: skip
        for path in ("/api/models/me/secret", "/api/whoami-v2"):
            answer = send(hub, "GET", path, headers={"Authorization": header})
            assert answer[0] == 401, (path, header)
    assert send(hub, "GET", "/api/models/me/secret", token=hub.token)[0] == 200
