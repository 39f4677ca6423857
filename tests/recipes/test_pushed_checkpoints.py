"""Policies of checkpoints reach the Hub beside the training; a Hub that is away never stops it."""

import json
import os
import socket
import time
from pathlib import Path

import pytest
import torch
from dp_hub_recipes.train import train
from made_runs import configuration, demonstrations

from dp_hub.errors import ConfigError, HubError
from dp_hub.hub import LocalHub, pull
from dp_hub.policies.card import CardFacts
from dp_hub.policies.saving import load_policy, save_policy
from dp_hub.training import pushing
from dp_hub.training.pushing import Pusher

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return train(configuration(tmp_path_factory.mktemp("run"), steps=1), demonstrations()).evaluated


def writer(policy, steps):
    """Writes a policy folder of which the card tells ``steps``."""
    facts = CardFacts(numbers={"optimiser steps": str(steps)})
    return lambda folder: save_policy(policy, folder, card=facts)


def pushed_steps(name):
    card = (pull(name, kind="policy").path / "README.md").read_text()
    [line] = [line for line in card.splitlines() if "optimiser steps" in line]
    return int(line.split("|")[2])


def no_hub(monkeypatch):
    """An address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_test")


def test_run_pushes_its_policy_and_keeps_the_token_to_itself(local_hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train(
        configuration(tmp_path / "run", push="me/walker", save_every=5, push_patience_minutes=2),
        demonstrations(),
    )
    policy = load_policy("me/walker")
    final = run.evaluated.state_dict()
    assert all(torch.equal(value, final[name]) for name, value in policy.state_dict().items())
    assert pushed_steps("me/walker") == 20
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert all(local_hub.token.encode() not in path.read_bytes() for path in files)
    assert not (tmp_path / "run" / "to_push").exists()


def test_newest_of_those_that_wait_is_pushed_and_offers_do_not_wait(
    local_hub, policy, tmp_path, monkeypatch
):
    go = tmp_path / "go"
    waits = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    monkeypatch.setattr(pushing, "PROGRAM", waits + pushing.PROGRAM)
    pusher = Pusher("me/walker", tmp_path / "to_push")
    for step in (1, 2, 3):
        pusher.offer(step, writer(policy, step))
    go.touch()
    waiting = sorted(path.name for path in (tmp_path / "to_push").glob("step_*"))
    assert waiting == ["step_00000001", "step_00000003"]
    assert pusher.finish(patience_s=60)
    assert pushed_steps("me/walker") == 3


def test_hub_that_went_away_and_came_back_gets_the_newest(policy, tmp_path, monkeypatch, caplog):
    with LocalHub(tmp_path / "server") as hub:
        for key, value in hub.env.items():
            monkeypatch.setenv(key, value)
        pusher = Pusher("me/walker", tmp_path / "to_push", retry_s=0.2)
        pusher.offer(1, writer(policy, 1))
        assert pusher.finish(patience_s=60)
    port = int(hub.endpoint.rsplit(":", 1)[1])
    pusher.offer(2, writer(policy, 2))  # to nobody
    while pusher._process.poll() is None:
        time.sleep(0.05)
    pusher.offer(3, writer(policy, 3))
    assert "the policy of step_00000002 was not pushed: the Hub at http" in caplog.text
    assert "Traceback" not in caplog.text
    with LocalHub(tmp_path / "server", port=port) as hub:
        assert pusher.finish(patience_s=60)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))
        assert pushed_steps("me/walker") == 3


def test_run_without_a_hub_ends_well_and_says_what_to_do_by_hand(tmp_path, monkeypatch, caplog):
    no_hub(monkeypatch)
    config = configuration(tmp_path, push="me/walker", save_every=5, push_patience_minutes=0.1)
    began = time.monotonic()
    run = train(config, demonstrations())
    assert run.finished and run.step == 20 and time.monotonic() - began < 40
    assert f"when it is back:  dp-hub push {tmp_path / 'policy'} me/walker" in caplog.text
    load_policy(tmp_path / "policy")
    assert (tmp_path / "to_push" / "step_00000020").is_dir()


def test_run_that_ended_without_the_hub_pushes_when_it_is_started_again(local_hub, tmp_path):
    train(configuration(tmp_path), demonstrations())
    train(configuration(tmp_path, push="me/walker"), demonstrations(), resume=True)
    assert pushed_steps("me/walker") == 20


def test_hub_that_never_answers_is_given_up_in_time(policy, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("HF_TOKEN", "hf_x")
        pusher = Pusher("me/walker", tmp_path / "to_push")
        pusher.offer(1, writer(policy, 1))
        began = time.monotonic()
        assert not pusher.finish(patience_s=1.0)
        assert time.monotonic() - began < 5.0
        assert (tmp_path / "to_push" / "step_00000001" / "model.safetensors").exists()


def test_no_token_is_told_before_the_training(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match="there is no token") as caught:
        train(configuration(tmp_path / "run", push="me/walker"), demonstrations())
    assert "HF_TOKEN" in caught.value.hint
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("name", ["walker", "me/walker@main", "me/walk er", "a/b/c"])
def test_name_that_nothing_can_be_pushed_to_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="a name on the Hub is user/name"):
        configuration(tmp_path, push=name)


def test_settings_of_pushing_may_change_on_resume(local_hub, tmp_path):
    train(configuration(tmp_path, steps=2), demonstrations())
    train(configuration(tmp_path, steps=3, push="me/walker"), demonstrations(), resume=True)
    assert pushed_steps("me/walker") == 3
    config = json.loads((tmp_path / "checkpoints/step_00000003/state.json").read_text())["config"]
    assert config["push"] == "me/walker" and os.environ["HF_TOKEN"] not in json.dumps(config)
