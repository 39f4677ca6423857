"""The thin client: what it needs, what it says when something is wrong, and how it goes on."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
from inference_helpers import CAMERAS, STATE, StandIn, expected_of, observed
from websockets.sync.server import serve

from dp_hub.errors import RobotError
from dp_hub.robot.inference import wire
from dp_hub.robot.inference.address import TOKEN_VARIABLE, read_token, split_address
from dp_hub.robot.inference.client import PolicyClient
from dp_hub.robot.inference.hello import pack_hello
from dp_hub.robot.inference.info import Refused
from dp_hub.robot.inference.messages import read_answer
from dp_hub.robot.inference.remote import RemoteInference
from dp_hub.robot.inference.serving import ServerThread, open_door

ROOT = Path(__file__).resolve().parents[2]
ALONE = """
import sys
import importlib.abc

class Nothing(importlib.abc.MetaPathFinder):
    allowed = {"numpy", "msgpack", "websockets", "dp_hub"} | sys.stdlib_module_names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in self.allowed:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Nothing())
from dp_hub.robot.inference.client import PolicyClient
from dp_hub.robot.inference.messages import read_answer
import numpy as np
with PolicyClient(sys.argv[1], token_file=sys.argv[2]) as client:
    info = client.info
    obs = {name: np.ones(info.observed_shape(name), np.uint8) for name in info.observed}
    print(client.predict(obs, seed=2).chunk.sum())
heavy = {"torch", "pydantic", "scipy", "cv2", "yaml", "typer", "huggingface_hub"}
print("LOADED", sorted(heavy & set(sys.modules)))
"""


@pytest.fixture
def token_file(tmp_path):
    return tmp_path / "token"


@pytest.fixture
def running(token_file):
    """A server of a stand-in for a policy of state."""
    with ServerThread(StandIn(STATE), open_door(token_file=token_file)) as server:
        yield server


@pytest.fixture
def liar():
    """``liar(talk)``: the address of a server that says what ``talk(connection)`` says."""
    servers = []

    def start(talk):
        server = serve(talk, "127.0.0.1", 0, compression=None)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))  # its complaints about its clients are not looked at
        return f"ws://127.0.0.1:{server.socket.getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()


def test_client_needs_numpy_websockets_and_msgpack_only(token_file):
    with ServerThread(StandIn(CAMERAS), open_door(token_file=token_file)) as server:
        words = [sys.executable, "-c", ALONE, server.url, str(token_file)]
        seen = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert seen.returncode == 0, seen.stderr
    obs = {name: np.ones(CAMERAS.observed_shape(name)) for name in CAMERAS.observed}
    chunk, loaded = seen.stdout.splitlines()
    assert float(chunk) == expected_of(2, obs, CAMERAS).sum()
    assert loaded == "LOADED []"


def test_without_its_libraries_it_says_how_to_get_them():
    program = (
        "import sys; sys.modules['websockets'] = None\n"
        "from dp_hub.robot.inference.client import PolicyClient\n"
        "try: PolicyClient('ws://x', 'token')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert seen.stdout.startswith("RobotError"), seen.stdout + seen.stderr
    assert 'pip install "dp_hub[serve]"' in seen.stdout


def test_no_server(tmp_path):
    door = open_door(token_file=tmp_path / "token")
    door.listener.close()  # a port that was just free
    with pytest.raises(RobotError, match="no policy server at"):
        PolicyClient(door.url, "token").connect()
    with pytest.raises(RobotError, match="no policy server at"):
        PolicyClient("ws://no-such-host.invalid", "token").connect()


def test_wrong_token(running):
    with pytest.raises(RobotError, match="does not know this token"):
        PolicyClient(running.url, "wrong").connect()


def test_another_version(liar):
    hello = msgpack.packb({"kind": "hello", "version": 99, "anything": 1})
    with pytest.raises(RobotError, match="speaks version 99 of the protocol, this client 1"):
        PolicyClient(liar(lambda connection: connection.send(hello)), "token").connect()


@pytest.mark.parametrize("hello", ["hello", b"\xc1", msgpack.packb([1]), msgpack.packb({"a": 1})])
def test_what_is_no_policy_server(liar, hello):
    with pytest.raises(RobotError, match="is no policy server"):
        PolicyClient(liar(lambda connection: connection.send(hello)), "token").connect()


def test_a_server_that_says_nothing(liar):
    over = threading.Event()
    url = liar(lambda connection: over.wait(60))
    with pytest.raises(RobotError, match="does not say hello"):
        PolicyClient(url, "token", connect_within_s=2.0).connect()
    over.set()


def test_a_server_that_goes_in_the_middle_and_one_that_comes_back(liar):
    talks = iter(["goes", "stays"])

    def talk(connection):
        connection.send(pack_hello(STATE))
        question = msgpack.unpackb(connection.recv())
        if next(talks) == "goes":
            connection.socket.shutdown(2)
            return
        connection.send(answer_to(question["number"]))
        connection.recv()

    client = PolicyClient(liar(talk), "token")
    with pytest.raises(RobotError, match=r"the connection to the policy server .* was lost"):
        client.predict(observed(STATE))
    assert client.predict(observed(STATE)).chunk.shape == (16, 2)  # it has connected again
    client.close()


def test_an_idle_connection_that_was_lost_is_opened_again_unnoticed(token_file):
    first = open_door(token_file=token_file)
    port = first.listener.getsockname()[1]
    with ServerThread(StandIn(STATE), first):
        client = PolicyClient(first.url, token_file=token_file)
        client.predict(observed(STATE))
    with ServerThread(StandIn(STATE), open_door(port=port, token_file=token_file)):
        assert client.predict(observed(STATE)).chunk.shape == (16, 2)
        client.close()


def test_a_server_with_another_policy_than_before_is_refused(token_file):
    first = open_door(token_file=token_file)
    port = first.listener.getsockname()[1]
    with ServerThread(StandIn(STATE), first):
        client = PolicyClient(first.url, token_file=token_file)
        client.connect()
    with (
        ServerThread(StandIn(CAMERAS), open_door(port=port, token_file=token_file)),
        pytest.raises(RobotError, match="has another policy than before"),
    ):
        client.predict(observed(STATE))


def answer_to(question, **changes):
    answer = {
        "kind": "answer", "number": question, "compute_s": 0.1, "waited_s": 0.0,
        "chunk": wire.pack_array(np.full((16, 2), question, np.float32)),
    } | changes  # fmt: skip
    return wire.pack({key: value for key, value in answer.items() if value is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "answers"},
        {"number": 99},
        {"chunk": wire.pack_array(np.full((16, 2), np.nan, np.float32))},
        {"compute_s": "long"},
        {"compute_s": float("nan")},
        {"waited_s": None},
        {"chunk": wire.pack_array(np.zeros((16, 3), np.float32))},
        {"chunk": wire.pack_array(np.zeros((16, 2), np.float64))},
        {"chunk": {"dtype": "object", "shape": [16, 2], "bytes": b""}},
        {"extra": 1},
    ],
)
def test_an_answer_that_makes_no_sense_ends_the_connection(liar, changes):
    def talk(connection):
        connection.send(pack_hello(STATE))
        connection.send(answer_to(msgpack.unpackb(connection.recv())["number"], **changes))
        connection.recv()

    client = PolicyClient(liar(talk), "token")
    with pytest.raises(RobotError, match="makes no sense"):
        client.predict(observed(STATE))


def test_an_answer_that_came_too_late_is_not_taken_for_the_next(liar):
    def talk(connection):
        connection.send(pack_hello(STATE))
        connection.recv()
        connection.recv()  # the first answer comes after the second question
        connection.send(answer_to(1))
        connection.send(answer_to(2))
        connection.recv()

    client = PolicyClient(liar(talk), "token", answer_within_s=0.3)
    with pytest.raises(RobotError, match=r"did not answer within 0\.3 s"):
        client.predict(observed(STATE))
    client._answer_within_s = 30.0
    assert (client.predict(observed(STATE)).chunk == 2).all()
    client.close()


def test_an_idle_connection_stays_open(liar):
    opened = []

    def talk(connection):
        opened.append(connection)
        connection.send(pack_hello(STATE))
        for data in connection:
            connection.send(answer_to(msgpack.unpackb(data)["number"]))

    with PolicyClient(liar(talk), "token", connect_within_s=1.5, answer_within_s=2.0) as client:
        for _ in range(2):
            time.sleep(2.5)
            client.predict(observed(STATE))
    assert len(opened) == 1


def test_remote_inference_can_be_closed_while_it_waits(token_file):
    stand_in = StandIn(STATE, compute_s=30)
    with ServerThread(stand_in, open_door(token_file=token_file)) as server:
        with RemoteInference(server.url, token_file=token_file) as inference:
            inference.ask(observed(STATE))
            while not stand_in.asked:
                time.sleep(0.005)
        assert "policy client" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    "url",
    ["http://host:1", "host:1", "ws://", "ws://host/path", "ws://host:99999", "ws://[::1", ""],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(RobotError, match="is not the address of a policy server"):
        PolicyClient(url, "token")


@pytest.mark.parametrize("url", ["ws://secret@host", "ws://me:secret@host", "ws://host?t=secret"])
def test_a_token_in_an_address_is_refused_and_not_repeated(url):
    with pytest.raises(RobotError, match="nothing but host and port") as error:
        PolicyClient(url, "token")
    assert "secret" not in str(error.value)


def test_an_address_without_a_port_has_the_default_one():
    assert split_address("ws://host") == ("ws://host:8470", "host", 8470)
    assert split_address("wss://[::1]:9/") == ("wss://[::1]:9", "::1", 9)


def test_token_comes_from_a_file_or_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(RobotError, match="holds no token"):
        read_token()
    monkeypatch.setenv(TOKEN_VARIABLE, "from-environment\n")
    assert read_token() == "from-environment"
    (tmp_path / "token").write_text("from-file\n")
    assert read_token(tmp_path / "token") == "from-file"
    (tmp_path / "token").write_text("two words\n")
    with pytest.raises(RobotError, match="holds no token"):
        read_token(tmp_path / "token")
    with pytest.raises(RobotError, match="no token can be read"):
        read_token(tmp_path / "none")


def test_remote_inference_never_waits_and_forgets_when_told(token_file):
    stand_in = StandIn(STATE, compute_s=0.2)
    with ServerThread(stand_in, open_door(token_file=token_file)) as server:
        inference = RemoteInference(server.url, token_file=token_file)
        with pytest.raises(RobotError, match="has not said hello"):
            _ = inference.info
        with inference:
            assert inference.info == STATE
            obs = observed(STATE)
            inference.ask(obs, seed=1)
            obs["observation.state"][:] = 0
            assert inference.waiting and inference.answer() is None
            with pytest.raises(RobotError, match="was asked before"):
                inference.ask(obs, seed=1)
            assert inference.wait(10)
            assert np.array_equal(inference.answer().chunk, expected_of(1, observed(STATE), STATE))
            inference.ask(obs, seed=2)
            inference.reset()
            inference.ask(obs, seed=3)
            assert inference.wait(10)
            assert np.array_equal(inference.answer().chunk, expected_of(3, obs, STATE))
            with pytest.raises(Refused):
                inference.ask({})


def test_remote_inference_tells_of_a_lost_server_and_finds_it_again(token_file):
    door = open_door(token_file=token_file)
    port = door.listener.getsockname()[1]
    inference = RemoteInference(door.url, token_file=token_file)
    with ServerThread(StandIn(STATE), door):
        inference.start()
        inference.wait_ready(10)
    inference.ask(observed(STATE))
    assert inference.wait(10)
    with pytest.raises(RobotError, match="no policy server at"):
        inference.answer()
    with ServerThread(StandIn(STATE), open_door(port=port, token_file=token_file)):
        inference.ask(observed(STATE))
        assert inference.wait(10)
        assert inference.answer().chunk.shape == (16, 2)
        inference.close()


def test_remote_inference_without_a_server_says_so_and_can_be_started_later(token_file):
    door = open_door(token_file=token_file)
    inference = RemoteInference(door.url, token_file=token_file)
    inference.start()
    with pytest.raises(RobotError, match="no policy server at"):
        inference.wait_ready(10)
    with ServerThread(StandIn(STATE), door):
        inference.start()
        inference.wait_ready(10)
        inference.close()


def test_200_changed_answers_are_right_or_refused():
    good = answer_to(7)
    rng = np.random.default_rng(0)
    taken = 0
    for _ in range(200):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(0, len(data)))] = int(rng.integers(0, 256))
        try:
            answer = read_answer(bytes(data), 7, STATE, 0.0)
        except RobotError:
            continue
        taken += answer is not None
        assert answer is None or answer.chunk.shape == (16, 2)
    assert 0 < taken < 200  # some changes only make other numbers
