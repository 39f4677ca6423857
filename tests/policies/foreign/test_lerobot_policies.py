"""LeRobot's policies become ours and act the same; ours become LeRobot's and come back the same.

What is expected is computed from the weights by `original_networks`; that LeRobot itself agrees is
tested in tests/interop/test_lerobot_policies_there.py, where it is installed.
"""

import json
from pathlib import Path

import pytest
import torch
from lerobot_policy_folders import CROP, network, of_2024, processors, settings, statistics, write
from original_networks import see, unet
from safetensors.torch import load_file, save_file

from dp_hub.errors import PolicyError
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.config import (
    DiffusionConfig,
    DiffusionObjective,
    FlowObjective,
    MlpConfig,
    UnetConfig,
    VisionConfig,
)
from dp_hub.policies.diffusion import make_policy
from dp_hub.policies.foreign.lerobot import convert_lerobot
from dp_hub.policies.foreign.lerobot_config import TRAINING_ONLY, lerobot_plan
from dp_hub.policies.foreign.lerobot_export import export_lerobot
from dp_hub.policies.saving import load_policy, save_policy

B, TO, TP = 3, 2, 8
CASES = {"low-dim": (False, True), "image": (True, False), "both": (True, True)}


def observations(image: bool, environment: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    result = {"observation.state": 400 * torch.rand(B, TO, 2, generator=generator)}
    if environment:
        result["observation.environment_state"] = torch.randn(B, TO, 16, generator=generator)
    if image:
        pictures = torch.randint(0, 256, (B, TO, 96, 96, 3), generator=generator)
        result["observation.image"] = pictures.to(torch.uint8)
    return result


def scaled(value: torch.Tensor, mode: str, stats: dict[str, torch.Tensor]) -> torch.Tensor:
    """As LeRobot's processors do."""
    if mode == "MIN_MAX":
        return 2 * (value - stats["min"]) / (stats["max"] - stats["min"]) - 1
    if mode == "MEAN_STD":
        return (value - stats["mean"]) / (stats["std"] + 1e-8)
    return value


def acted(config: dict, weights: dict, obs: dict, noise: torch.Tensor, generator) -> torch.Tensor:
    """float (B, Tp, 2), from LeRobot's weights, settings and statistics."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    stats, mapping = statistics(), config["normalization_mapping"]
    parts = [scaled(obs["observation.state"], mapping["STATE"], stats["observation.state"])]
    if "observation.image" in obs:
        pictures = obs["observation.image"].float().movedim(-1, -3) / 255
        pictures = scaled(pictures, mapping["VISUAL"], stats["observation.image"])
        edge = (96 - CROP[0]) // 2
        crop = slice(edge, edge + CROP[0])
        parts.append(see(original_names(weights), "image", pictures.flatten(0, 1)[..., crop, crop]))
        parts[-1] = parts[-1].unflatten(0, (B, TO))
    if "observation.environment_state" in obs:
        name = "observation.environment_state"
        parts.append(scaled(obs[name], mapping.get("ENV", "IDENTITY"), stats[name]))
    cond = torch.cat(parts, dim=-1).flatten(1)
    state = original_names(weights)
    scheduler = DDPMScheduler(num_train_timesteps=20, beta_schedule="squaredcos_cap_v2")
    scheduler.set_timesteps(20)
    x = noise.clone()
    for step in scheduler.timesteps:
        predicted = unet(state, x, step.expand(B), cond=cond)
        x = scheduler.step(predicted, step, x, generator=generator).prev_sample
    low, high = stats["action"]["min"], stats["action"]["max"]
    if mapping["ACTION"] == "MEAN_STD":
        return x * stats["action"]["std"] + stats["action"]["mean"]
    return (x + 1) / 2 * (high - low) + low


def original_names(weights: dict) -> dict:
    """LeRobot's names of the U-Net and the picture encoder, as `original_networks` has them."""
    result = {}
    for name, value in weights.items():
        inner = name.removeprefix("diffusion.unet.")
        for number in (0, 1):
            inner = inner.replace(f".conv{number + 1}.", f".blocks.{number}.")
        if inner.startswith(("down_modules", "up_modules")) and inner.split(".")[2] == "2":
            inner = inner.replace(".2.weight", ".2.conv.weight").replace(".2.bias", ".2.conv.bias")
        result[inner] = value
        part = name.removeprefix("diffusion.rgb_encoder.")
        prefix = "obs_encoder.obs_nets.image."
        if part != name:
            part = part.replace("backbone.", "nets.0.nets.").replace("pool.nets.", "nets.1.nets.")
            result[prefix + part.replace("out.", "nets.3.")] = value
    if "diffusion.rgb_encoder.pool.pos_grid" in weights:
        grid = weights["diffusion.rgb_encoder.pool.pos_grid"]
        result |= {
            f"{prefix}nets.1.pos_x": grid[None, :, 0],
            f"{prefix}nets.1.pos_y": grid[None, :, 1],
        }
        result[f"{prefix}nets.1.temperature"] = torch.ones(1)
    return result


def predicted(policy, obs: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    noise = torch.randn(B, TP, 2, generator=torch.Generator().manual_seed(3))
    ours, theirs = (torch.Generator().manual_seed(4) for _ in range(2))
    return policy.predict_action(obs, noise=noise, generator=ours)["action_pred"], noise, theirs


@pytest.mark.parametrize("mode", ["MIN_MAX", "MEAN_STD"])
@pytest.mark.parametrize("generation", ["0.4", "2024"])
@pytest.mark.parametrize("name", CASES)
def test_a_policy_of_lerobots_acts_as_it_did(name, generation, mode, tmp_path: Path) -> None:
    image, environment = CASES[name]
    config = settings(image, environment=environment)
    config["normalization_mapping"] |= {"STATE": mode, "ACTION": mode}
    if mode == "MEAN_STD":
        config["normalization_mapping"]["ENV"] = mode
    weights = network(image, environment=environment)
    if generation == "2024":
        old, buffers = of_2024(config, statistics())
        folder = write(tmp_path / "theirs", old, weights | buffers, None)
    else:
        folder = write(tmp_path / "theirs", config, weights, processors(config, statistics()))

    convert_lerobot(folder, tmp_path / "ours")

    obs = observations(image, environment)
    result, noise, generator = predicted(load_policy(tmp_path / "ours"), obs)
    expected = acted(config, weights, obs, noise, generator)
    assert expected.std() > 10
    torch.testing.assert_close(result, expected, atol=0.02, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_there_and_back_is_the_same(name: str, tmp_path: Path) -> None:
    image, environment = CASES[name]
    config = settings(image, environment=environment)
    weights = network(image, environment=environment)
    folder = write(tmp_path / "theirs", config, weights, processors(config, statistics()))
    convert_lerobot(folder, tmp_path / "ours")
    export_lerobot(tmp_path / "ours", tmp_path / "back")
    again = load_file(tmp_path / "back" / "model.safetensors")
    assert set(again) == set(weights)
    for key, value in weights.items():
        torch.testing.assert_close(again[key], value, atol=1e-6, rtol=0)
    convert_lerobot(tmp_path / "back", tmp_path / "again")
    obs = observations(image, environment)
    first, second = (predicted(load_policy(tmp_path / one), obs)[0] for one in ("ours", "again"))
    torch.testing.assert_close(first, second, atol=0.02, rtol=1e-4)
    kept = json.loads((tmp_path / "back" / "config.json").read_text())
    for key in set(kept) - {"normalization_mapping", "num_inference_steps", "device"}:
        assert kept[key] == config[key], key


def pusht(**changes):
    """A policy with the state configuration of PushT, made small, whose normaliser is fitted."""
    values = {"horizon": 8, "n_action_steps": 4} | changes
    values.setdefault("denoiser", UnetConfig(step_embed_dim=8, down_dims=(16, 32)))
    values.setdefault("objective", DiffusionObjective(train_steps=20, num_inference_steps=20))
    config = DiffusionConfig(**values)
    widths = {"observation.environment_state": 18, "observation.state": 5, "action": 2}
    generator = torch.Generator().manual_seed(0)
    columns = {k: (500 * torch.rand(50, w, generator=generator)).numpy() for k, w in widths.items()}
    shapes = widths | {"observation.image": (96, 96, 3), "observation.wrist": (64, 64, 3)}
    needed = {
        k: v
        for k, v in columns.items()
        if any(one.startswith(k) for one in (*config.observations, "action"))
    }
    torch.manual_seed(0)
    return make_policy(
        config, shapes, normalizer=Normalizer.fit(needed, config.normalization)
    ).eval()


@pytest.mark.parametrize("normalization", ["limits", "gaussian", "identity"])
def test_a_policy_of_ours_keeps_acting_as_it_did(normalization: str, tmp_path: Path) -> None:
    # Its observations come in another order there, and only two of five numbers are there at all.
    policy = pusht(normalization=normalization)
    save_policy(policy, tmp_path / "ours")
    done = export_lerobot(tmp_path / "ours", tmp_path / "theirs")
    assert any("observation.state is numbers 0 to 2" in note for note in done.notes)
    back = load_policy(convert_lerobot(tmp_path / "theirs", tmp_path / "back").path)
    assert back.features["observation.state"] == 2
    assert back.config.observations == ("observation.state", "observation.environment_state")
    generator = torch.Generator().manual_seed(1)
    state = 500 * torch.rand(B, TO, 5, generator=generator)
    environment = 500 * torch.rand(B, TO, 18, generator=generator)
    obs = {"observation.environment_state": environment, "observation.state": state}
    first = predicted(policy, obs)[0]
    second = predicted(back, obs | {"observation.state": state[..., :2]})[0]
    torch.testing.assert_close(first, second, atol=0.02, rtol=1e-4)


IMAGE = {"observations": ("observation.image", "observation.state[:2]")}
REFUSED = {
    "mlp": ({"denoiser": MlpConfig()}, "`mlp`"),
    "inpainting": ({"conditioning": "inpainting"}, "`inpainting`"),
    "flow": ({"objective": FlowObjective()}, "flow_matching"),
    "v": ({"objective": DiffusionObjective(prediction="v")}, "`v`"),
    "solver": ({"objective": DiffusionObjective(solver="dpmsolver++")}, r"dpmsolver\+\+"),
    "horizon": ({"horizon": 6, "n_action_steps": 2}, "multiple of 4"),
    "groups": ({"denoiser": UnetConfig(down_dims=(16, 32), n_groups=4)}, "has 4"),
    "only the state": ({"observations": ("observation.state",)}, "environment_state"),
    "no state": ({"observations": ("observation.environment_state",)}, "observes"),
    "twice": (
        {"observations": ("observation.environment_state", *("observation.state[:2]",) * 2)},
        "once",
    ),
    "average pooling": (IMAGE | {"vision": VisionConfig(pool="average")}, "spatial softmax"),
    "no relu": (IMAGE | {"vision": VisionConfig(output_relu=False)}, "ReLU"),
    "another picture": (
        {"observations": ("observation.wrist", "observation.state[:2]")},
        "observation.image",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_lerobot_has_not_is_named_and_refused(name: str, tmp_path: Path) -> None:
    changes, words = REFUSED[name]
    save_policy(pusht(**changes), tmp_path / "ours")
    with pytest.raises(PolicyError, match=words):
        export_lerobot(tmp_path / "ours", tmp_path / "theirs")
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def low_dim(
    tmp_path: Path, weights: dict | None = None, made: dict | None = None, **changes
) -> Path:
    config = settings(False, environment=True, **changes)
    weights = weights or network(False, environment=True)
    return write(tmp_path / "theirs", config, weights, made or processors(config, statistics()))


def refused(folder: Path, words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        convert_lerobot(folder, folder.with_name("ours"))
    assert [path.name for path in folder.parent.iterdir()] == ["theirs"]


SETTINGS = {
    "another policy": ({"type": "act"}, "'act'"),
    "an unknown setting": ({"n_mixtures": 3}, "`n_mixtures`"),
    "another backbone": ({"vision_backbone": "resnet50"}, "resnet50"),
    "other groups": ({"n_groups": 4}, "n_groups"),
    "another range": ({"clip_sample_range": 2.0}, "clip_sample_range"),
    "another scheduler": ({"noise_scheduler_type": "PNDM"}, "PNDM"),
    "other weights": ({"down_dims": [16, 64]}, "down_modules"),
    "text for a number": ({"horizon": "8"}, "horizon"),
    "no features": ({"input_features": {}}, "observation.state"),
    "another normalisation": ({"normalization_mapping": {"STATE": "LOG"}}, "LOG"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_without_a_counterpart_are_refused(name: str, tmp_path: Path) -> None:
    changes, words = SETTINGS[name]
    refused(low_dim(tmp_path, **changes), words)


@pytest.mark.parametrize(
    ("step", "change", "words"),
    [
        (0, {"config": {"rename_map": {"a": "b"}}}, "rename_map"),
        (1, {"registry_name": "my_step"}, "my_step"),
        (1, {"registry_name": None, "class": "os.system"}, "registry_name"),
        (3, {"state_file": "../../secret.safetensors"}, "outside the folder"),
        (3, {"state_file": "none.safetensors"}, "no file at"),
        (3, {"config": {"features": {}, "norm_map": {}, "more": 1}}, "`more`"),
    ],
)
def test_processors_that_do_more_are_refused(step, change, words, tmp_path: Path) -> None:
    made = processors(settings(False, environment=True), statistics())
    folder = low_dim(tmp_path, made=made)
    made["policy_preprocessor"][step] |= change
    text = json.dumps({"name": "x", "steps": made["policy_preprocessor"]})
    (folder / "policy_preprocessor.json").write_text(text)
    refused(folder, words)


def test_statistics_that_were_never_set_are_refused(tmp_path: Path) -> None:
    stats = statistics()
    stats["action"]["min"] = torch.full((2,), float("inf"))
    made = processors(settings(False, environment=True), stats)
    refused(low_dim(tmp_path, made=made), "not finite")


def test_a_policy_without_statistics_is_refused(tmp_path: Path) -> None:
    folder = low_dim(tmp_path)
    (folder / "policy_preprocessor.json").unlink()
    refused(folder, "policy_preprocessor")


def test_what_never_changed_is_told_and_not_blown_up(tmp_path: Path) -> None:
    stats = statistics()
    for name in ("observation.state", "action"):
        stats[name]["max"] = stats[name]["min"].clone()
    made = processors(settings(False, environment=True), stats)
    done = convert_lerobot(low_dim(tmp_path, made=made), tmp_path / "ours")
    assert sum("never changed" in note for note in done.notes) == 2
    obs = observations(False, True)
    constant = stats["observation.state"]["min"].expand(B, TO, 2)
    policy = load_policy(tmp_path / "ours")
    seen = policy.normalizer.normalize("observation.state", constant)
    torch.testing.assert_close(seen, torch.full_like(seen, -1.0))
    result = predicted(policy, obs | {"observation.state": constant})[0]
    torch.testing.assert_close(result, stats["action"]["min"].expand_as(result), atol=1e-3, rtol=0)


ODD = [None, True, -1, 0, 10**9, 1.5, "x", "", [], [1], [[]], [-1, 2], {}, {"a": 1}, [10**9] * 3]


@pytest.mark.parametrize("key", settings(True, environment=True))
def test_no_odd_value_in_the_settings_gives_a_traceback(key: str, tmp_path: Path) -> None:
    folder = low_dim(tmp_path)
    refusals = 0
    for value in ODD:
        config = settings(False, environment=True) | {key: value}
        (folder / "config.json").write_text(json.dumps(config))
        try:
            lerobot_plan(folder / "config.json").config("imagenet", "here")
        except PolicyError:
            refusals += 1
    assert refusals or key in TRAINING_ONLY


def test_nesting_without_end_is_a_sentence(tmp_path: Path) -> None:
    folder = low_dim(tmp_path)
    (folder / "config.json").write_text('{"a": ' + "[" * 100_000)
    refused(folder, "not valid JSON")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"down_dims": [65_536, 65_536]}, "down_modules"),
        ({"down_dims": [800_000, 800_000]}, r"`denoiser\.down_dims\[0\]`.* less than or equal to"),
        ({"horizon": 9000}, r"`horizon`.* less than or equal to 8192"),
        ({"horizon": 10**9}, r"`horizon`.* only a whole number"),
        (
            {"input_features": {"observation.state": {"type": "STATE", "shape": [3, 9000, 9000]}}},
            r"observation\.state has shape \(3, 9000, 9000\), larger than any feature",
        ),
    ],
)
def test_what_no_machine_holds_is_refused_before_anything_is_made(changes, words, tmp_path) -> None:
    refused(low_dim(tmp_path, **changes), words)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "policy_preprocessor.json"])
def test_a_damaged_file_is_a_sentence(name: str, tmp_path: Path) -> None:
    folder = low_dim(tmp_path)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    refused(folder, name.replace(".", r"\."))


def test_a_missing_or_an_extra_weight_is_named(tmp_path: Path) -> None:
    weights = network(False, environment=True)
    folder = low_dim(tmp_path, weights)
    gone = "diffusion.unet.final_conv.1.bias"
    save_file({k: v for k, v in weights.items() if k != gone}, folder / "model.safetensors")
    refused(folder, r"final_conv\.1\.bias")
    save_file(weights | {"diffusion.more": torch.ones(1)}, folder / "model.safetensors")
    refused(folder, r"diffusion\.more")


def test_a_policy_of_ours_is_not_converted_again(tmp_path: Path) -> None:
    save_policy(pusht(), tmp_path / "theirs")
    refused(tmp_path / "theirs", "dp_hub policy already")


def test_nothing_there_and_something_there_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no policy of LeRobot's"):
        convert_lerobot(tmp_path / "none", tmp_path / "ours")
    folder = low_dim(tmp_path)
    with pytest.raises(PolicyError, match="is there already"):
        convert_lerobot(folder, folder)
    with pytest.raises(PolicyError, match="is there already"):
        export_lerobot(folder, folder)
