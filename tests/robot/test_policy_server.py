"""The policy server: who may ask, in which order, and what cannot bring it down."""

import asyncio
import logging
import resource
import socket
import stat
import subprocess
import threading
import time
from contextlib import suppress

import msgpack
import numpy as np
import pytest
from inference_helpers import CAMERAS, STATE, StandIn, expected_of, observed
from malformed import KINDS, malformed
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.inference import wire
from dp_hub.robot.inference.client import PolicyClient
from dp_hub.robot.inference.hello import unpack_hello
from dp_hub.robot.inference.info import Prefix, Refused
from dp_hub.robot.inference.messages import most_bytes, pack_question
from dp_hub.robot.inference.serving import ServerThread, open_door, see_to_token
from dp_hub.robot.inference.turns import Turns


@pytest.fixture
def serving(tmp_path):
    """``serving(inference, clients=1)``: a running server, which ends with the test."""
    running = []

    def start(inference, **options):
        door = open_door(token_file=tmp_path / "token")
        running.append(ServerThread(inference, door, **options))
        return running[-1].__enter__()

    before = set(threading.enumerate())
    yield start
    for one in running:
        one.__exit__()
    deadline_s = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


def raw(server, *, authorization=None, **options):
    """A connection that may send anything."""
    token = server.token_file.read_text().strip()
    headers = [("Authorization", authorization or f"Bearer {token}")]
    options = {"compression": None, "proxy": None, "max_size": None} | options
    return connect(server.url, additional_headers=headers, **options).__enter__()


def client_of(server, **options):
    return PolicyClient(server.url, token_file=server.token_file, **options)


@pytest.mark.parametrize("info", [STATE, CAMERAS], ids=["state", "cameras"])
def test_a_client_gets_the_policys_answer_to_what_it_sent(serving, info):
    stand_in = StandIn(info)
    with client_of(serving(stand_in)) as client:
        assert client.info == info
        for seed in (0, 1):
            obs = observed(info, seed)
            answer = client.predict(obs, seed=seed)
            assert answer.chunk.dtype == np.float32
            assert np.array_equal(answer.chunk, expected_of(seed, obs, info))
            assert answer.asked_s < answer.answered_s
    assert stand_in.asked == [0, 1]


def test_a_prefix_arrives(serving):
    stand_in = StandIn(STATE)
    prefix = Prefix(np.arange(6.0).reshape(3, 2), np.array([1.0, 0.5, 0.0]), "inpaint", 2.0)
    with client_of(serving(stand_in)) as client:
        client.predict(observed(STATE), prefix=prefix)
        with pytest.raises(Refused, match="a prefix has actions"):
            client.predict(observed(STATE), prefix=Prefix(np.zeros((17, 2)), np.zeros(17)))
    assert np.array_equal(stand_in.prefixes[0].actions, prefix.actions)
    assert np.array_equal(stand_in.prefixes[0].weights, prefix.weights)
    assert (stand_in.prefixes[0].how, stand_in.prefixes[0].beta) == ("inpaint", 2.0)


@pytest.mark.parametrize(
    "authorization", ["Bearer wrong", "Bearer ", "Basic {token}", "{token}", "Bearer {token}x"]
)
def test_who_does_not_have_the_token_is_refused(serving, authorization):
    server = serving(StandIn(STATE))
    token = server.token_file.read_text().strip()
    with pytest.raises(InvalidStatus) as refused:
        raw(server, authorization=authorization.format(token=token))
    assert refused.value.response.status_code == 401


def test_neither_token_nor_answer_is_in_the_log(serving, caplog):
    caplog.set_level(logging.DEBUG)
    server = serving(StandIn(STATE))
    token = server.token_file.read_text().strip()
    with pytest.raises(RobotError, match="does not know this token"):
        PolicyClient(server.url, f"{token}-almost").connect()
    said = "\n".join(one.getMessage() for one in caplog.records)
    assert "refused a client without the right token" in said
    assert token not in said


def test_token_file_is_its_owners_only_and_kept(tmp_path):
    file = tmp_path / "deep" / "token"
    see_to_token(file)
    first = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    see_to_token(file)
    assert file.read_text() == first
    see_to_token(file, new=True)
    assert file.read_text() != first
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read"):
        see_to_token(file)
    file.write_text("short\n")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="can be guessed"):
        see_to_token(file)


def test_a_second_client_is_told_that_the_server_is_not_free_until_the_first_is_gone(serving):
    server = serving(StandIn(STATE))
    first, second = client_of(server), client_of(server)
    first.connect()
    with pytest.raises(RobotError, match="is not free"):
        second.connect()
    first.close()
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            second.connect()
            break
        except RobotError:
            time.sleep(0.02)
    assert second.predict(observed(STATE)).chunk.shape == (16, 2)
    second.close()


def test_several_clients_are_answered_in_turn_each_with_its_own(serving):
    stand_in = StandIn(STATE, compute_s=0.01)
    server = serving(stand_in, clients=4)
    wrong: list[str] = []
    waited: list[float] = []

    def work(number: int) -> None:
        with client_of(server) as client:
            for turn in range(10):
                seed = number * 100 + turn
                obs = observed(STATE, seed)
                answer = client.predict(obs, seed=seed)
                waited.append(answer.waited_s)
                if not np.array_equal(answer.chunk, expected_of(seed, obs, STATE)):
                    wrong.append(f"{seed}")

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert sorted(stand_in.asked) == sorted(n * 100 + turn for n in range(4) for turn in range(10))
    assert max(waited) >= 0.01  # somebody had to wait, and was told


def test_clients_that_are_slow_or_gone_keep_nobody_waiting(serving):
    stand_in = StandIn(STATE, compute_s=0.02)
    server = serving(stand_in, clients=8)
    question = pack_question(1, observed(STATE), STATE, 999, None)
    gone = [raw(server) for _ in range(3)]
    for one in gone:  # they ask and vanish without a word
        one.send(question)
        one.socket.shutdown(socket.SHUT_RDWR)
    half = raw(server)  # this one sends half of a frame
    half.socket.sendall(b"\x82\xfe\xff\xff")
    with client_of(server) as client:
        for seed in range(10):
            answer = client.predict(observed(STATE), seed=seed)
            assert answer.waited_s < 1
    half.socket.shutdown(socket.SHUT_RDWR)
    assert [seed for seed in stand_in.asked if seed != 999] == list(range(10))


def test_a_client_that_floods_is_held_back_and_others_are_answered(serving, monkeypatch):
    monkeypatch.setattr("dp_hub.robot.inference.server.PONG_WITHIN_S", 120.0)  # behind the flood
    stand_in = StandIn(CAMERAS, compute_s=0.02)
    server = serving(stand_in, clients=2)
    question = pack_question(1, observed(CAMERAS), CAMERAS, 999, None)
    flooding, sent = raw(server), 0

    def flood() -> None:
        nonlocal sent
        with suppress(ConnectionClosed):
            while sent < 20_000:
                flooding.send(question)  # it has to wait, as it should
                sent += 1

    thread = threading.Thread(target=flood)
    thread.start()
    with client_of(server) as client:
        for seed in range(20):
            client.predict(observed(CAMERAS), seed=seed)
    flooding.socket.shutdown(socket.SHUT_RDWR)
    thread.join()
    # Others had every second turn, at least; what was sent ahead lies in buffers of the system.
    assert stand_in.asked.count(999) <= 25 + 20
    assert sent < 2000


def test_200_malformed_messages_are_answered_or_end_their_connection_and_nothing_else(serving):
    stand_in = StandIn(CAMERAS)
    server = serving(stand_in)
    good = pack_question(77, observed(CAMERAS), CAMERAS, 4, None)
    connection, seen, closed = raw(server), {}, 0
    unpack_hello(connection.recv(timeout=10))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(200):
        kind, message = malformed(CAMERAS, seed)
        try:
            connection.send(message)
            answer = msgpack.unpackb(connection.recv(timeout=10))
            assert answer["kind"] == "error", (kind, seed, answer)
            assert isinstance(answer["message"], str) and answer["message"]
            assert answer["refused"] is True
        except ConnectionClosed:
            closed += 1
            connection = raw_again(server)
        seen[kind] = seen.get(kind, 0) + 1
    assert seen.keys() == KINDS.keys()
    assert sum(seen.values()) == 200
    connection.send(good)
    answer = msgpack.unpackb(connection.recv(timeout=10))
    assert (answer["kind"], answer["number"]) == ("answer", 77)
    assert stand_in.asked == [4]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 64 * 1024, f"{(after - before) / 1024:.0f} MB more"
    connection.close()


def raw_again(server):
    """Connected anew, once the server has noticed that the last connection is gone."""
    deadline_s = time.monotonic() + 10
    while True:
        connection = raw(server)
        try:
            unpack_hello(connection.recv(timeout=10))
            return connection
        except ConnectionClosed:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def test_a_message_longer_than_any_question_ends_its_connection(serving):
    server = serving(StandIn(STATE))
    connection = raw(server)
    connection.recv(timeout=10)
    connection.send(b"\0" * (most_bytes(STATE) + 1))
    with pytest.raises(ConnectionClosed) as end:
        connection.recv(timeout=10)
    assert end.value.rcvd.code == 1009  # too big
    raw_again(server).close()


def test_what_is_no_websocket_is_sent_away(serving):
    server = serving(StandIn(STATE))
    for greeting in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" + b"\0" * 50, b""):
        with socket.create_connection(server.door.listener.getsockname(), 5) as plain:
            plain.sendall(greeting)
            plain.shutdown(socket.SHUT_WR)
            plain.settimeout(15)
            assert not plain.recv(100).startswith(b"HTTP/1.1 101")
    with client_of(server) as client:
        assert client.info == STATE


def test_a_policy_that_is_gone_is_started_again_and_who_asked_is_told(serving):
    stand_in = StandIn(STATE)
    with client_of(serving(stand_in)) as client:
        client.predict(observed(STATE))
        stand_in.fail = RobotError("the policy was killed by SIGKILL")
        with pytest.raises(RobotError, match="was killed by SIGKILL") as told:
            client.predict(observed(STATE))
        assert not isinstance(told.value, Refused)
        deadline_s = time.monotonic() + 10
        while stand_in.starts == 0 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert client.predict(observed(STATE)).chunk.shape == (16, 2)
    assert stand_in.starts == 1


def test_questions_are_taken_in_the_order_they_came():
    stand_in = StandIn(STATE, compute_s=0.005)
    obs = observed(STATE)

    async def main():
        turns = Turns(stand_in)
        asking = [
            asyncio.create_task(turns.ask(obs, seed=n, prefix=None, wanted=lambda n=n: n != 3))
            for n in range(6)
        ]
        return await asyncio.gather(*asking, return_exceptions=True)

    answers = asyncio.run(main())
    assert stand_in.asked == [0, 1, 2, 4, 5]
    assert isinstance(answers.pop(3), Refused)
    waits = [waited_s for _, waited_s in answers]
    assert waits == sorted(waits)


def test_the_server_ends_while_a_question_is_being_answered(serving):
    stand_in = StandIn(STATE, compute_s=30)
    server = serving(stand_in)
    failed = []

    def ask():
        try:
            client_of(server).predict(observed(STATE))
        except RobotError as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while not stand_in.asked:
        time.sleep(0.005)
    began_s = time.monotonic()
    server.__exit__()
    asking.join()
    assert time.monotonic() - began_s < 15
    assert len(failed) == 1


def test_a_certificate_encrypts_and_is_checked(tmp_path):
    certificate, key = made_certificate(tmp_path)
    file = tmp_path / "token"
    with pytest.raises(ConfigError, match="a certificate needs its key"):
        open_door(token_file=file, certificate=certificate)
    door = open_door(host="0.0.0.0", token_file=file, certificate=certificate, key=key)
    assert door.url.startswith("wss://") and not door.is_exposed
    url = f"wss://localhost:{door.url.rpartition(':')[2]}"
    with ServerThread(StandIn(STATE), door):
        with pytest.raises(RobotError, match="CERTIFICATE_VERIFY_FAILED"):
            PolicyClient(url, token_file=file).connect()
        with pytest.raises(RobotError, match="no policy server answers"):
            PolicyClient(url.replace("wss", "ws"), token_file=file).connect()
        with PolicyClient(url, token_file=file, certificate=certificate) as client:
            assert client.predict(observed(STATE)).chunk.shape == (16, 2)


def made_certificate(folder):
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no certificate can be made here: {error}")
    return certificate, key


def test_arrays_are_the_memory_of_their_message_and_cannot_be_written():
    packed = msgpack.unpackb(wire.pack({"a": wire.pack_array(np.arange(6, dtype=np.uint8))}))["a"]
    array = wire.unpack_array(packed, "a", shape=(6,), dtypes=("uint8",))
    assert array.tolist() == list(range(6))
    assert not array.flags.writeable
