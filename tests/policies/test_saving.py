"""Policy folders: they round-trip exactly, and loading says no to anything that does not fit."""

import json
import resource

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from dp_hub.errors import PolicyError
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.card import CardFacts, DatasetRecord
from dp_hub.policies.config import DiffusionConfig, DiffusionObjective, FlowObjective, MlpConfig
from dp_hub.policies.diffusion import make_policy
from dp_hub.policies.saving import load_policy, read_record, save_policy

FEATURES = {"observation.state": 5, "action": 2}
DATASET = DatasetRecord(name="me/pusht", fingerprint="f" * 64, commit="c" * 40)


def small_policy(objective=None):
    torch.manual_seed(0)
    config = DiffusionConfig(
        observations=["observation.state"],
        denoiser=MlpConfig(width=16, depth=1, step_embed_dim=8),
        objective=objective or FlowObjective(num_inference_steps=4),
    )
    rows = torch.rand(30, 5).numpy() * 100
    normalizer = Normalizer.fit({"observation.state": rows, "action": rows[:, :2]})
    return make_policy(config, FEATURES, normalizer=normalizer).eval()


def act(policy, seed=0):
    obs = {"observation.state": torch.linspace(0, 90, 30).reshape(3, 2, 5)}
    return policy.predict_action(obs, generator=torch.Generator().manual_seed(seed))["action"]


@pytest.fixture
def saved(tmp_path):
    return save_policy(small_policy(), tmp_path / "policy", card=CardFacts(dataset=DATASET))


def edit_json(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_weights(path, change):
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def test_loaded_policy_acts_exactly_as_the_saved_one(saved):
    loaded = load_policy(saved)
    assert torch.equal(act(loaded), act(small_policy()))
    assert not loaded.training
    assert loaded.config == small_policy().config


def test_loading_leaves_the_random_state_alone(saved):
    before = torch.get_rng_state()
    load_policy(saved)
    assert torch.equal(before, torch.get_rng_state())


def test_dataset_is_recorded(saved):
    assert read_record(saved).dataset == DATASET


def test_card_has_front_matter_numbers_and_usage(tmp_path):
    facts = CardFacts(
        dataset=DATASET,
        numbers={"validation loss": "0.031"},
        license="mit",
        command="python recipes/train.py x.yaml",
    )
    folder = save_policy(small_policy(), tmp_path / "p", card=facts, train_config={"seed": 1})
    text = (folder / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "dp_hub",
        "pipeline_tag": "robotics",
        "license": "mit",
        "tags": ["robotics", "diffusion-policy"],
        "datasets": ["me/pusht"],
    }
    for part in ("validation loss | 0.031", "c" * 40, "python recipes/train.py x.yaml"):
        assert part in body
    assert yaml.safe_load((folder / "train_config.yaml").read_text()) == {"seed": 1}


def test_cards_example_runs(saved, monkeypatch):
    code = (saved / "README.md").read_text().split("```python\n")[1].split("```")[0]
    namespace = {}
    exec(code.replace("user/name", str(saved)), namespace)
    assert namespace["actions"].shape == (1, 8, 2)


def test_unknown_key_is_named_with_the_nearest_known_one(saved):
    edit_json(saved / "config.json", lambda values: values["policy"].update(n_action_step=8))
    with pytest.raises(PolicyError) as caught:
        load_policy(saved)
    assert "unknown key `policy.n_action_step`" in caught.value.message
    assert caught.value.hint == "did you mean `n_action_steps`?"


def test_missing_weight_is_named(saved):
    edit_weights(saved / "model.safetensors", lambda weights: weights.pop("denoiser.enter.bias"))
    with pytest.raises(PolicyError, match=r"lacks weights: denoiser\.enter\.bias"):
        load_policy(saved)


def test_extra_weight_is_named(saved):
    edit_weights(saved / "model.safetensors", lambda weights: weights.update(odd=torch.ones(1)))
    with pytest.raises(PolicyError, match="has unknown weights: odd"):
        load_policy(saved)


def test_misshapen_weight_is_named_with_both_shapes(saved):
    change = {"denoiser.enter.bias": torch.zeros(7)}
    edit_weights(saved / "model.safetensors", lambda weights: weights.update(change))
    with pytest.raises(PolicyError, match=r"denoiser\.enter\.bias of shape \(7,\).*\(16,\)"):
        load_policy(saved)


def test_missing_normaliser_statistics_are_an_error(saved):
    def change(weights):
        del weights["normalizer.features.action.scale"]

    edit_weights(saved / "model.safetensors", change)
    with pytest.raises(PolicyError, match=r"normalizer\.features\.action\.scale"):
        load_policy(saved)


def test_cut_weights_file_is_an_error(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PolicyError, match="not a whole safetensors file"):
        load_policy(saved)


def test_newer_format_asks_for_an_upgrade(saved):
    edit_json(saved / "config.json", lambda values: values.update(format=9))
    with pytest.raises(PolicyError, match="format 9, newer"):
        load_policy(saved)


HUGE = 10**10


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("policy.horizon", HUGE),
        ("policy.n_obs_steps", HUGE),
        ("policy.denoiser.width", HUGE),
        ("policy.denoiser.depth", HUGE),
        ("policy.denoiser.expansion", HUGE),
        ("policy.denoiser", {"kind": "unet", "down_dims": [8] * 1000}),
        ("policy.denoiser", {"kind": "unet", "down_dims": [HUGE]}),
        ("policy.denoiser", {"kind": "unet", "kernel_size": HUGE + 1}),
        ("policy.denoiser", {"kind": "transformer", "n_layer": HUGE}),
        ("policy.denoiser", {"kind": "transformer", "n_cond_layers": HUGE}),
        ("policy.objective.num_inference_steps", HUGE),
        ("policy.objective", {"kind": "diffusion", "train_steps": HUGE}),
        ("policy.vision", {"resize": [HUGE, HUGE]}),
        ("policy.vision", {"n_keypoints": HUGE}),
        ("policy", {"kind": "act", "n_encoder_layers": HUGE}),
        ("policy", {"kind": "act", "hidden_dim": HUGE}),
        ("policy", {"kind": "act", "horizon": HUGE}),
        ("features", {"observation.state": HUGE, "action": 2}),
        ("features", {"observation.state": [HUGE, HUGE, 3], "action": 2}),
        ("features", {"observation.state": -1, "action": 2}),
    ],
)
def test_settings_that_no_machine_holds_are_refused_by_name(saved, path, value):
    *parents, last = path.split(".")

    def change(values):
        for name in parents:
            values = values[name]
        values[last] = value

    edit_json(saved / "config.json", change)
    with pytest.raises(PolicyError, match=r"Input should be|Tuple should have") as caught:
        load_policy(saved)
    assert last in caught.value.message


def test_widest_networks_allowed_take_no_memory_before_they_are_compared(saved):
    def change(values):
        values["features"] = {"observation.state": 1_000_000, "action": 2}
        values["policy"]["horizon"] = values["policy"]["n_obs_steps"] = 8192
        values["policy"]["n_action_steps"] = 1
        values["policy"]["denoiser"] = {
            "kind": "transformer", "n_layer": 32, "n_emb": 65_536, "n_head": 64,
        }  # fmt: skip

    edit_json(saved / "config.json", change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PolicyError, match="lacks weights"):
        load_policy(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


def test_feature_that_the_policy_does_not_use_is_an_error(saved):
    edit_json(saved / "config.json", lambda values: values["features"].update(odd=3))
    with pytest.raises(PolicyError, match=r"needs exactly action, observation\.state"):
        load_policy(saved)


def test_number_of_steps_is_chosen_at_load(saved):
    loaded = load_policy(saved, num_inference_steps=9)
    assert loaded.config.objective.num_inference_steps == 9
    assert not torch.equal(act(loaded), act(load_policy(saved)))


def test_diffusion_policy_acts_as_saved_too(tmp_path):
    policy = small_policy(DiffusionObjective(train_steps=10, num_inference_steps=10))
    save_policy(policy, tmp_path / "p")
    assert torch.equal(act(load_policy(tmp_path / "p")), act(policy))


def test_solver_is_chosen_at_load(tmp_path):
    policy = small_policy(DiffusionObjective(num_inference_steps=100))
    save_policy(policy, tmp_path / "p")
    quick = load_policy(tmp_path / "p", scheduler="dpmsolver++", num_inference_steps=8)
    assert quick.config.objective.solver == "dpmsolver++"
    assert len(quick.objective.timesteps(torch.device("cpu"))) == 8
    assert torch.isfinite(act(quick)).all()


@pytest.mark.parametrize("options", [{"scheduler": "ddim"}, {"num_inference_steps": 0}])
def test_sampling_that_does_not_fit_the_objective_is_an_error(saved, options):
    with pytest.raises(PolicyError, match="cannot sample a flow_matching policy that way"):
        load_policy(saved, **options)


def test_saving_over_a_policy_replaces_it_whole(saved):
    (saved / "stale.txt").write_text("from before")
    other = small_policy()
    torch.nn.init.ones_(other.denoiser.leave.bias)
    save_policy(other, saved)
    assert torch.equal(act(load_policy(saved)), act(other))
    assert {path.name for path in saved.iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    assert [path.name for path in saved.parent.iterdir()] == ["policy"]


def test_saving_never_replaces_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(PolicyError, match="something else than a policy"):
        save_policy(small_policy(), tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_failed_save_leaves_the_old_policy_and_no_litter(saved, monkeypatch):
    before = act(load_policy(saved))
    with pytest.raises(yaml.YAMLError):
        save_policy(small_policy(), saved, train_config={"odd": object()})
    assert torch.equal(before, act(load_policy(saved)))
    assert [path.name for path in saved.parent.iterdir()] == ["policy"]


def test_folder_that_is_no_policy_says_so(tmp_path):
    with pytest.raises(PolicyError, match=r"no config\.json"):
        load_policy(tmp_path)
