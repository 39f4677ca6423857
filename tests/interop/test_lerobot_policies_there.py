"""LeRobot 0.4.4 and dp_hub load each other's Diffusion Policies, and act the same.

Needs an environment of LeRobot's own, so it runs only if asked to; see lerobot_env.py beside this.
"""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from lerobot_env import lerobot_python
from safetensors.torch import load_file, save_file

from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.config import DiffusionConfig, DiffusionObjective, UnetConfig, VisionConfig
from dp_hub.policies.diffusion import make_policy
from dp_hub.policies.foreign.lerobot import convert_lerobot
from dp_hub.policies.foreign.lerobot_export import export_lerobot
from dp_hub.policies.saving import load_policy, save_policy

pytestmark = pytest.mark.skipif(
    os.environ.get("DP_HUB_TEST_LEROBOT") != "1",
    reason="set DP_HUB_TEST_LEROBOT=1 to make an environment with LeRobot 0.4.4 (8 GB, minutes; "
    "tests/interop/lerobot_env.py) and compare the actions of policies",
)
HERE = Path(__file__).parent
B, TO, TP = 3, 2, 16
CLOSE = {"atol": 0.05, "rtol": 1e-4}  # of actions around 100


@pytest.fixture(scope="session")
def python() -> Path:
    return lerobot_python()


def ask(python: Path, tmp_path: Path, *words: object) -> None:
    """Run lerobot_policy.py in LeRobot's environment, which must not ask the Hub for anything."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PYTHON"))}
    env = keep | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    command = [python, HERE / "lerobot_policy.py", *map(str, words)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def observations(widths: dict[str, int], image: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    result = {k: 400 * torch.rand(B, TO, w, generator=generator) for k, w in widths.items()}
    if image:
        pictures = torch.randint(0, 256, (B, TO, 96, 96, 3), generator=generator)
        result["observation.image"] = pictures.to(torch.uint8)
    return result


def theirs(python: Path, tmp_path: Path, folder: Path, obs: dict, noise: torch.Tensor):
    save_file(obs | {"noise": noise}, tmp_path / "in.safetensors")
    ask(python, tmp_path, "act", folder, tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    return load_file(tmp_path / "out.safetensors")["action"]


def ours(folder: Path, obs: dict, noise: torch.Tensor) -> torch.Tensor:
    policy = load_policy(folder)
    torch.manual_seed(4)
    return policy.predict_action(obs, noise=noise)["action"]


@pytest.mark.parametrize("scheduler", ["DDIM", "DDPM"])
@pytest.mark.parametrize("kind", ["low-dim", "image"])
def test_a_policy_that_lerobot_saved_acts_the_same_here(kind, scheduler, python, tmp_path) -> None:
    ask(python, tmp_path, "make", tmp_path / "theirs", kind, scheduler)
    convert_lerobot(tmp_path / "theirs", tmp_path / "ours")
    widths = {"observation.state": 2, "observation.environment_state": 16}
    obs = observations(widths, kind == "image")
    obs["observation.environment_state"] /= 200  # not normalised there
    noise = torch.randn(B, TP, 2, generator=torch.Generator().manual_seed(2))
    expected = theirs(python, tmp_path, tmp_path / "theirs", obs, noise)
    assert expected.std() > 10
    torch.testing.assert_close(ours(tmp_path / "ours", obs, noise), expected, **CLOSE)


@pytest.mark.parametrize("normalization", ["limits", "gaussian"])
@pytest.mark.parametrize("kind", ["low-dim", "image"])
def test_a_policy_of_ours_acts_the_same_there(kind, normalization, python, tmp_path) -> None:
    image = kind == "image"
    seen = ("observation.image",) if image else ()
    config = DiffusionConfig(
        observations=("observation.environment_state", *seen, "observation.state[:2]"),
        vision=VisionConfig(crop=(84, 84)),
        normalization=normalization,
        denoiser=UnetConfig(step_embed_dim=32, down_dims=(32, 64)),
        objective=DiffusionObjective(solver="ddim", num_inference_steps=10),
    )
    widths = {"observation.environment_state": 18, "observation.state": 5, "action": 2}
    generator = torch.Generator().manual_seed(0)
    columns = {k: (500 * torch.rand(50, w, generator=generator)).numpy() for k, w in widths.items()}
    torch.manual_seed(0)
    shapes = widths | {"observation.image": (96, 96, 3)}
    policy = make_policy(config, shapes, normalizer=Normalizer.fit(columns, normalization))
    save_policy(policy, tmp_path / "ours")
    export_lerobot(tmp_path / "ours", tmp_path / "theirs")

    del widths["action"]
    obs = observations(widths, image)
    noise = torch.randn(B, TP, 2, generator=torch.Generator().manual_seed(2))
    part = obs | {"observation.state": obs["observation.state"][..., :2].contiguous()}
    found = theirs(python, tmp_path, tmp_path / "theirs", part, noise)
    assert found.std() > 10
    torch.testing.assert_close(ours(tmp_path / "ours", obs, noise), found, **CLOSE)
