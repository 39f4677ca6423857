"""``dp-hub serve-policy``: from a folder or the Hub to a robot's client, and a quiet end."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp_hub.hub import LocalHub
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.config import DiffusionConfig, FlowObjective, MlpConfig
from dp_hub.policies.diffusion import make_policy
from dp_hub.policies.saving import load_policy, save_policy
from dp_hub.robot.inference.client import PolicyClient

pytestmark = pytest.mark.alone  # against the wall clock

PROGRAM = [sys.executable, "-c", "from dp_hub.cli.main import main; main()", "serve-policy"]


@pytest.fixture(scope="module")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained policy of five numbers."""
    torch.manual_seed(0)
    config = DiffusionConfig(
        observations=["observation.state"],
        denoiser=MlpConfig(width=16, depth=1, step_embed_dim=8),
        objective=FlowObjective(num_inference_steps=2),
    )
    rows = np.random.default_rng(0).uniform(50, 450, (40, 5)).astype(np.float32)
    normalizer = Normalizer.fit({"observation.state": rows, "action": rows[:, :2]})
    features = {"observation.state": 5, "action": 2}
    policy = make_policy(config, features, normalizer=normalizer)
    return save_policy(policy, tmp_path_factory.mktemp("policies") / "state")


@contextmanager
def served(*words: str, env: dict[str, str] | None = None) -> Iterator[Any]:
    """A server's process and what it says on stdout: its address and its token's file."""
    process = subprocess.Popen(
        [*PROGRAM, "--port", "0", "--threads", "1", "--device", "cpu", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        yield process, "".join(lines)
    finally:
        process.kill()
        process.communicate()


def parts(said: str) -> tuple[str, Path]:
    found = re.fullmatch(r"# (wss?://\S+:\d+)\nexport DP_HUB_POLICY_TOKEN=\$\(cat (\S+)\)\n", said)
    assert found is not None, said
    return found[1], Path(found[2])


def chunk_of(folder: Path, obs: dict[str, np.ndarray], seed: int) -> np.ndarray:
    batch = {name: torch.from_numpy(value)[None] for name, value in obs.items()}
    generator = torch.Generator().manual_seed(seed)
    return load_policy(folder).predict_action(batch, generator=generator)["action_pred"][0].numpy()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=120)


def test_a_folder_is_served_until_ctrl_c_and_its_answers_are_the_policys(
    policy_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    with served(str(policy_folder), "--token-file", str(file), "--hz", "10") as (process, said):
        url, token_file = parts(said)
        assert token_file == file and file.stat().st_mode & 0o777 == 0o600
        obs = {"observation.state": np.linspace(60, 400, 10, dtype=np.float32).reshape(2, 5)}
        with PolicyClient(url, token_file=file) as client:
            assert client.info.period_s == pytest.approx(0.1)
            assert client.info.features == {"observation.state": (5,), "action": (2,)}
            chunk = client.predict(obs, seed=3).chunk
        assert np.array_equal(chunk, chunk_of(policy_folder, obs, 3))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors and "warning" not in errors
    assert file.read_text().strip() not in said + out + errors
    assert len(children) >= 1
    for child in children:  # the resource tracker goes by itself, a moment later
        wait_until_gone(int(child))
    assert not list(Path("/dev/shm").glob(f"dphub-{process.pid}-*"))


def wait_until_gone(pid: int) -> None:
    deadline_s = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline_s, f"process {pid} is left"
        time.sleep(0.02)


def test_a_policy_from_the_hub_is_served_to_other_machines_with_a_warning(
    policy_folder: Path, local_hub: LocalHub, tmp_path: Path
) -> None:
    from dp_hub.hub import pull, push

    push(policy_folder, "me/state")
    sha = pull("me/state", kind="policy").sha
    env = {**local_hub.env, "DP_HUB_CACHE": str(tmp_path / "cache")}
    with served("me/state@main", "--host", "0.0.0.0", env=env) as (process, said):
        url, token_file = parts(said)
        assert token_file.is_relative_to(tmp_path / "cache")
        here = f"ws://127.0.0.1:{url.rpartition(':')[2]}"
        with PolicyClient(here, token_file=token_file) as client:
            assert (client.info.name, client.info.sha) == ("me/state@main", sha)
            process.send_signal(signal.SIGTERM)
            errors = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert "warning: what is sent, and the token, can be read on the way" in errors


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["no/such@@policy"], "no policy can be read"),
        (["."], "no policy can be read"),
        (["{policy}", "--hz", "0"], "--hz is 0"),
        (["{policy}", "--certificate", "x.pem"], "a certificate needs its key"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(
    policy_folder: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    words = [word.format(policy=policy_folder) for word in words]
    done = run(*words, "--port", "0", "--token-file", str(tmp_path / "token"))
    assert done.returncode == 1
    assert says in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_port_that_is_taken_is_a_sentence(policy_folder: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(str(policy_folder), "--port", port, "--token-file", str(tmp_path / "token"))
    assert done.returncode == 1
    assert f"can't listen at 127.0.0.1:{port}" in done.stderr
