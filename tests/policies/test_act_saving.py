"""ACT in policy folders: they round-trip exactly, and loading says no as for other policies."""

import json
import re

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from dp_hub.config import build
from dp_hub.errors import ConfigError, PolicyError
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.act import ActPolicy
from dp_hub.policies.act_config import ActConfig
from dp_hub.policies.config import DiffusionConfig
from dp_hub.policies.diffusion import DiffusionPolicy
from dp_hub.policies.kinds import make_policy, required_features
from dp_hub.policies.saving import load_policy, save_policy
from dp_hub.training.config import TrainConfig

FEATURES = {"observation.image": (32, 32, 3), "observation.state": 5, "action": 2}
TINY = {
    "kind": "act",
    "observations": ["observation.image", "observation.state"],
    "horizon": 4,
    "n_action_steps": 2,
    "hidden_dim": 16,
    "feedforward_dim": 16,
    "n_heads": 2,
    "n_encoder_layers": 1,
    "n_style_layers": 1,
}


def small_policy():
    torch.manual_seed(0)
    rows = torch.rand(30, 5).numpy() * 100
    columns = {"observation.state": rows, "action": rows[:, :2]}
    normalizer = Normalizer.fit(columns, "gaussian_clipped")
    config = build(ActConfig, TINY, where="the test")
    return make_policy(config, FEATURES, normalizer=normalizer).eval()


def act(policy):
    pictures = torch.arange(3 * 32 * 32 * 3).reshape(3, 1, 32, 32, 3) % 251
    state = torch.linspace(0, 90, 15).reshape(3, 1, 5)
    obs = {"observation.image": pictures.to(torch.uint8), "observation.state": state}
    return policy.predict_action(obs)["action"]


@pytest.fixture
def saved(tmp_path):
    return save_policy(small_policy(), tmp_path / "policy")


def test_loaded_policy_acts_exactly_as_the_saved_one(saved):
    loaded = load_policy(saved)
    assert isinstance(loaded, ActPolicy) and not loaded.training
    assert torch.equal(act(loaded), act(small_policy()))
    assert loaded.config == small_policy().config
    assert loaded.features == FEATURES


def test_card_is_of_act_and_its_example_runs(saved):
    text = (saved / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header)["tags"] == ["robotics", "act"]
    for part in ("# ACT policy", "arxiv.org/abs/2304.13705", "4 steps of 2 numbers", "10 times"):
        assert part in body
    assert "2303.04137" not in body
    code = body.split("```python\n")[1].split("```")[0]
    namespace = {}
    exec(code.replace("user/name", str(saved)), namespace)
    assert namespace["actions"].shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("network.latent_proj.bias"), "lacks weights: network.latent"),
        (lambda weights: weights.update(odd=torch.ones(1)), "has unknown weights: odd"),
        (
            lambda weights: weights.update({"network.latent_proj.bias": torch.ones(3)}),
            r"latent_proj\.bias of shape \(3,\).*\(64,\)",
        ),
    ],
    ids=["missing", "extra", "misshapen"],
)
def test_weights_that_do_not_fit_are_named(saved, change, message):
    weights = load_file(saved / "model.safetensors")
    change(weights)
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(PolicyError, match=message):
        load_policy(saved)


def test_a_key_of_the_other_kind_is_unknown(saved):
    values = json.loads((saved / "config.json").read_text())
    values["policy"]["objective"] = {"kind": "flow_matching"}
    (saved / "config.json").write_text(json.dumps(values))
    with pytest.raises(PolicyError, match=r"unknown key `policy\.objective`") as caught:
        load_policy(saved)
    assert caught.value.hint == "`objective` belongs elsewhere, or to another `kind`"


def test_a_kind_that_is_not_known_is_an_error(saved):
    values = json.loads((saved / "config.json").read_text())
    values["policy"]["kind"] = "vqbet"
    (saved / "config.json").write_text(json.dumps(values))
    with pytest.raises(PolicyError, match="vqbet"):
        load_policy(saved)


@pytest.mark.parametrize("options", [{"scheduler": "ddim"}, {"num_inference_steps": 4}])
def test_act_has_no_sampling_to_choose(saved, options):
    with pytest.raises(PolicyError, match="no solver and no steps"):
        load_policy(saved, **options)


def training(policy):
    values = {"dataset": "x", "out_dir": "y", "steps": 1, "policy": policy}
    return build(TrainConfig, values, where="x.yaml")


def test_a_training_configuration_names_the_kind_and_means_diffusion_without():
    assert isinstance(training(TINY).policy, ActConfig)
    assert isinstance(training({"horizon": 32}).policy, DiffusionConfig)
    assert isinstance(training({"kind": "diffusion"}).policy, DiffusionConfig)
    saved = training(TINY).model_dump(mode="json")
    assert build(TrainConfig, saved, where="again").policy == training(TINY).policy
    with pytest.raises(ConfigError) as caught:
        training(TINY | {"horizn": 16})
    assert re.search(
        r"`policy\.horizn` in x\.yaml.*did you mean `horizon`", str(caught.value), re.S
    )


def test_each_kind_is_built_from_its_configuration():
    assert required_features(training(TINY).policy) == list(FEATURES)
    diffusion = training({"observations": ["observation.state"]}).policy
    with torch.device("meta"):
        assert isinstance(make_policy(diffusion, FEATURES), DiffusionPolicy)
