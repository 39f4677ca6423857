"""A policy in a process of its own: its answers are the policy's, and its death is only its own."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from inference_helpers import CAMERAS, answer_of, observed, own_segments, small_policy

from dp_hub.errors import RobotError
from dp_hub.policies import realtime_chunking
from dp_hub.policies.saving import load_policy
from dp_hub.robot.inference.folder import read_info
from dp_hub.robot.inference.info import Prefix, Question, Refused
from dp_hub.robot.inference.local import LocalInference
from dp_hub.robot.inference.mailbox import Mailbox, Reply


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_policy(tmp_path_factory.mktemp("policies") / "small")


@pytest.fixture(scope="module")
def running(folder):
    with LocalInference(folder, name="me/small", sha="a" * 40, period_s=0.1) as inference:
        yield inference
    assert own_segments() == set()
    assert multiprocessing.active_children() == []


@pytest.fixture(autouse=True)
def nothing_left_behind(running):
    """As everywhere here, but for the one process that all tests of this file ask."""
    before, children = own_segments(), multiprocessing.active_children()
    yield
    assert own_segments() == before
    assert multiprocessing.active_children() == children


@pytest.fixture
def inference(running):
    yield running
    running.reset()


def test_info_is_known_before_anything_is_loaded(folder):
    info = LocalInference(folder, name="me/small", sha="a" * 40, period_s=0.1).info
    assert (info.n_obs_steps, info.n_action_steps, info.horizon) == (2, 8, 16)
    assert info.features == {"observation.state": (5,), "action": (2,)}
    assert info.observed == ("observation.state",)
    assert info.observations == ("observation.state[:2]",)
    assert info.chunk_shape == (16, 2)
    assert (info.name, info.sha, info.period_s) == ("me/small", "a" * 40, 0.1)


def test_answers_are_the_policys_to_the_last_bit(inference, folder):
    policy, obs = load_policy(folder), observed(inference.info)
    for seed in (0, 7):
        inference.ask(obs, seed=seed)
        answer = answer_of(inference)
        batch = {name: torch.from_numpy(value)[None] for name, value in obs.items()}
        expected = policy.predict_action(batch, generator=torch.Generator().manual_seed(seed))
        assert answer.chunk.dtype == np.float32
        assert np.array_equal(answer.chunk, expected["action_pred"][0].numpy())


@pytest.mark.parametrize("how", ["guidance", "inpaint"])
def test_a_prefix_reaches_the_policy(inference, folder, how):
    policy, obs = load_policy(folder), observed(inference.info)
    actions = np.linspace(0, 60, 8, dtype=np.float32).reshape(4, 2)
    weights = np.array([1, 1, 0.5, 0.1], np.float32)
    inference.ask(obs, seed=0, prefix=Prefix(actions, weights, how, 3.0))
    batch = {name: torch.from_numpy(value)[None] for name, value in obs.items()}
    expected = policy.predict_action(
        batch,
        generator=torch.Generator().manual_seed(0),
        prefix=realtime_chunking.Prefix(
            torch.from_numpy(actions)[None], torch.from_numpy(weights), how, 3.0
        ),
    )
    assert np.array_equal(answer_of(inference).chunk, expected["action_pred"][0].numpy())


def test_without_a_seed_the_noise_is_another_each_time(inference):
    chunks = []
    for _ in range(2):
        inference.ask(observed(inference.info))
        chunks.append(answer_of(inference).chunk)
    assert not np.array_equal(*chunks)


def test_times_of_an_answer_are_in_order(inference):
    before_s = time.monotonic()
    inference.ask(observed(inference.info), seed=0)
    answer = answer_of(inference)
    assert before_s <= answer.asked_s < answer.answered_s <= time.monotonic()
    assert 0 < answer.compute_s <= answer.answered_s - answer.asked_s


def test_observations_may_change_after_asking(inference):
    obs = observed(inference.info)
    inference.ask(obs, seed=1)
    expected = answer_of(inference).chunk
    inference.ask(obs, seed=1)
    obs["observation.state"][:] = 0
    assert np.array_equal(answer_of(inference).chunk, expected)


def test_an_answer_to_a_question_that_was_forgotten_is_never_given(inference):
    obs = observed(inference.info)
    expected = {}
    for seed in (1, 2):
        inference.ask(obs, seed=seed)
        expected[seed] = answer_of(inference).chunk
    for _ in range(20):
        inference.ask(obs, seed=1)
        inference.reset()
        assert not inference.waiting and inference.answer() is None
        inference.ask(obs, seed=2)
        assert np.array_equal(answer_of(inference).chunk, expected[2])


def test_a_second_question_before_the_answer_is_an_error(inference):
    inference.ask(observed(inference.info))
    with pytest.raises(RobotError, match="was asked before"):
        inference.ask(observed(inference.info))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda obs: obs.pop("observation.state"), "which was not given"),
        (lambda obs: obs.update({"observation.state": np.zeros((1, 5))}), r"shape \(1, 5\)"),
        (lambda obs: obs.update({"observation.state": np.full((2, 5), np.nan)}), "not finite"),
        (lambda obs: obs.update({"observation.state": np.full((2, 5), "a")}), "expected numbers"),
    ],
)
def test_observations_that_do_not_fit_are_refused_and_the_next_are_answered(
    inference, change, says
):
    obs = observed(inference.info)
    change(obs)
    with pytest.raises(Refused, match=says):
        inference.ask(obs)
    inference.ask(observed(inference.info))
    assert answer_of(inference).chunk.shape == (16, 2)


def test_a_killed_process_says_so_and_can_be_started_again(folder):
    inference = LocalInference(folder)
    with inference:
        inference.ask(observed(inference.info), seed=3)
        expected = answer_of(inference).chunk
        os.kill(inference.pid, signal.SIGKILL)
        deadline_s = time.monotonic() + 20
        with pytest.raises(RobotError, match="was killed by SIGKILL"):
            while time.monotonic() < deadline_s:
                assert inference.answer() is None
        with pytest.raises(RobotError, match="was killed"):
            inference.ask(observed(inference.info))
        inference.start()
        inference.wait_ready(60)
        inference.ask(observed(inference.info), seed=3)
        assert np.array_equal(answer_of(inference).chunk, expected)


def test_a_process_that_hangs_counts_as_gone_and_ending_it_holds_nobody_up(folder):
    with LocalInference(folder, answer_within_s=2, delay_s=0.2) as inference:
        os.kill(inference.pid, signal.SIGSTOP)
        hung = inference.pid
        inference.ask(observed(inference.info))
        assert inference.answer() is None
        assert inference.wait(20)
        with pytest.raises(RobotError, match=r"hangs: no answer within 2 s"):
            inference.answer()
        inference.start()
        with pytest.raises(RobotError, match="not ready yet"):
            inference.ask(observed(inference.info))
        inference.wait_ready(60)
        inference.ask(observed(inference.info))
        assert answer_of(inference).compute_s >= 0.2  # the delay is a part of it
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)


def test_a_policy_that_cannot_be_loaded_says_why(folder, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(RobotError, match="no weights at"), LocalInference(broken):
        pass


def test_a_folder_without_a_policy_is_refused_at_once(tmp_path):
    with pytest.raises(RobotError, match=r"no policy can be read .* no file at"):
        read_info(tmp_path)
    (tmp_path / "config.json").write_text('{"policy": {}, "features": {}}')
    with pytest.raises(RobotError, match="does not say what its policy observes"):
        read_info(tmp_path)


def test_a_client_of_the_process_does_not_load_torch():
    program = (
        "import sys, dp_hub.robot.inference.local, dp_hub.robot.inference.remote\n"
        "print('torch' in sys.modules)"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert seen.stdout.strip() == "False", seen.stderr


def test_mail_comes_out_as_it_was_put_in():
    ours = Mailbox.create(CAMERAS)
    theirs = Mailbox.attach(ours.spec)
    try:
        assert theirs.question() is None and ours.answer(1) is None
        weights = np.linspace(1, 0, 3).astype(np.float32)
        prefix = Prefix(np.ones((3, 7), np.float32), weights, "inpaint", 2.5)
        obs = observed(CAMERAS)
        for number, seed, given in ((1, None, None), (2, 0, prefix), (3, 2**63 - 1, None)):
            ours.ask(Question(number, obs, seed, given))
            found = theirs.question()
            assert (found.number, found.seed) == (number, seed)
            assert obs.keys() == found.obs.keys()
            for name, value in obs.items():
                assert found.obs[name].dtype == value.dtype, name
                assert np.array_equal(found.obs[name], value), name
            assert (found.prefix is None) == (given is None)
            if given is not None:
                assert np.array_equal(found.prefix.actions, given.actions)
                assert np.array_equal(found.prefix.weights, given.weights)
                assert (found.prefix.how, found.prefix.beta) == ("inpaint", 2.5)
            assert theirs.question() is None
        chunk = np.arange(16 * 7, dtype=np.float32).reshape(16, 7)
        theirs.reply(Reply(2, chunk, 0.5))
        assert ours.answer(3) is None
        theirs.reply(Reply(3, chunk, 0.25))
        assert np.array_equal(ours.answer(3).chunk, chunk)
        assert ours.answer(3).compute_s == 0.25
        theirs.reply(Reply(4, None, 0.0, "nicht möglich"))
        assert ours.answer(4).refused == "nicht möglich" and ours.answer(4).chunk is None
    finally:
        theirs.close()
        ours.close()
