"""The original's checkpoints become policies that act as the original's networks do."""

import io
import json
import os
from pathlib import Path

import dill
import pytest
import torch
from original_checkpoints import (
    CROP,
    POLICIES,
    WIDTH,
    model_state,
    payload,
    settings,
    standing_in,
    write,
)
from original_networks import run_transformer, see, transformer, unet

from dp_hub.errors import PolicyError
from dp_hub.policies.foreign.checkpoint import convert_checkpoint
from dp_hub.policies.foreign.original_config import plan_of
from dp_hub.policies.saving import load_policy

REAL = Path(__file__).parent / "data" / "real_omegaconf.ckpt"
B, TO, TP, TA = 3, 2, 8, 4


def observations(image: bool) -> dict[str, torch.Tensor]:
    """In raw units, with as many numbers as the PushT demonstrations have."""
    generator = torch.Generator().manual_seed(1)
    state = 512 * torch.rand(B, TO, 5, generator=generator)
    if image:
        pictures = torch.randint(0, 256, (B, TO, 96, 96, 3), generator=generator)
        return {"observation.image": pictures.to(torch.uint8), "observation.state": state}
    keypoints = 512 * torch.rand(B, TO, 18, generator=generator)
    return {"observation.environment_state": keypoints, "observation.state": state}


def normalised(state: dict, key: str, value: torch.Tensor) -> torch.Tensor:
    name = f"normalizer.params_dict.{key}"
    return value * state[f"{name}.scale"] + state[f"{name}.offset"]


def seen(state: dict, obs: dict[str, torch.Tensor], image: bool) -> torch.Tensor:
    """float (B, To, Do), as the original lines the observations up."""
    agent = obs["observation.state"][..., :2]
    if not image:
        both = torch.cat([obs["observation.environment_state"], agent], dim=-1)
        return normalised(state, "obs", both)
    pictures = obs["observation.image"].float().movedim(-1, -3) / 255
    pictures = normalised(state, "image", pictures).flatten(0, 1)
    edge = (96 - CROP[0]) // 2
    pictures = pictures[..., edge : edge + CROP[0], edge : edge + CROP[1]]
    features = see(state, "image", pictures).unflatten(0, (B, TO))
    return torch.cat([features, normalised(state, "agent_pos", agent)], dim=-1)


def scheduler_of(policy: dict):
    """Of diffusers, as the original makes it from its settings."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    options = dict(policy["noise_scheduler"])
    target = options.pop("_target_").rpartition(".")[2]
    return {"DDPMScheduler": DDPMScheduler, "DDIMScheduler": DDIMScheduler}[target](**options)


def acted(kind: str, cfg: dict, state: dict, conditioning: str, noise, generator) -> torch.Tensor:
    """float (B, Tp, Da): the original's sampling, from its state dict."""
    policy = cfg["policy"]
    image = kind.startswith("image")
    encoded = seen(state, observations(image), image)
    network = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    later = torch.zeros(B, TP - TO, encoded.shape[-1])
    steps = torch.cat([encoded, later], dim=1)
    cond = encoded if conditioning == "global" else None
    if kind.endswith("transformer"):
        model = policy if image else policy["model"]
        shape = [model[name] for name in ("n_layer", "n_head", "n_emb", "n_cond_layers")]
        width = 0 if cond is None else encoded.shape[-1]
        built = transformer(noise.shape[-1], TP, TO, width, *shape, model["causal_attn"])
        built.load_state_dict(network)

        def predict(x, step):
            return run_transformer(built, x, step, cond)
    else:
        flat = None if cond is None else cond.flatten(1)
        local = steps if conditioning == "local" else None

        def predict(x, step):
            return unet(network, x, step, cond=flat, local=local)

    scheduler = scheduler_of(policy)
    scheduler.set_timesteps(policy["num_inference_steps"])
    x = noise.clone()
    for step in scheduler.timesteps:
        if conditioning == "inpainting":
            x[:, :TO, 2:] = encoded
        predicted = predict(x, step.expand(B))
        x = scheduler.step(predicted, step, x, generator=generator).prev_sample
    scale, offset = (state[f"normalizer.params_dict.action.{one}"] for one in ("scale", "offset"))
    return (x[..., :2] - offset) / scale


DDIM = {
    "_target_": "diffusers.schedulers.scheduling_ddim.DDIMScheduler",
    "num_train_timesteps": 20,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "clip_sample": True,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "prediction_type": "epsilon",
}
TOKEN = {"obs_as_cond": False, "model__time_as_cond": False}
# Name: kind, conditioning, settings changed, options of the network.
CASES = {
    "FiLM": ("unet", "global", {}, {}),
    "local": ("unet", "local", {"obs_as_global_cond": False, "obs_as_local_cond": True}, {}),
    "inpainting": ("unet", "inpainting", {"obs_as_global_cond": False}, {}),
    "shift only": ("unet", "global", {"model__cond_predict_scale": False}, {"scale": False}),
    "three levels": ("unet", "global", {"model__down_dims": [8, 16, 24]}, {"dims": (8, 16, 24)}),
    "kernel 3": ("unet", "global", {"model__kernel_size": 3}, {"kernel": 3}),
    "DDIM": ("unet", "global", {"noise_scheduler": DDIM, "num_inference_steps": 5}, {}),
    "sample": ("unet", "global", {"noise_scheduler__prediction_type": "sample"}, {}),
    "transformer": ("transformer", "global", {}, {}),
    "sees the future": ("transformer", "global", {"model__causal_attn": False}, {"causal": False}),
    "cond layers": ("transformer", "global", {"model__n_cond_layers": 2}, {"n_cond_layers": 2}),
    "encoder only": ("transformer", "inpainting", TOKEN, {}),
    "image unet": ("image unet", "global", {}, {}),
    "image inpainting": ("image unet", "inpainting", {"obs_as_global_cond": False}, {}),
    "image transformer": ("image transformer", "global", {"noise_scheduler": DDIM}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_converted_policy_acts_as_the_originals_network(name: str, tmp_path: Path) -> None:
    kind, conditioning, changes, options = CASES[name]
    cfg = settings(kind, **changes)
    state = model_state(kind, 1, conditioning=conditioning, **options)
    other = model_state(kind, 2, conditioning=conditioning, **options)
    source = write(tmp_path / "x.ckpt", cfg, other, state)

    convert_checkpoint(source, tmp_path / "policy")

    policy = load_policy(tmp_path / "policy")
    image = kind.startswith("image")
    width = 2 if conditioning != "inpainting" else 2 + (66 if image else 20)
    noise = torch.randn(B, TP, width, generator=torch.Generator().manual_seed(3))
    ours, theirs = (torch.Generator().manual_seed(4) for _ in range(2))
    result = policy.predict_action(observations(image), noise=noise, generator=ours)
    expected = acted(kind, cfg, state, conditioning, noise, theirs)
    assert expected.std() > 10  # pixels: the network matters
    torch.testing.assert_close(result["action_pred"], expected, atol=0.02, rtol=1e-4)
    assert torch.equal(result["action"], result["action_pred"][:, TO - 1 : TO - 1 + TA])


def plain(tmp_path: Path, weights: dict | None = None, **changes) -> Path:
    state = model_state("unet", 1) if weights is None else weights
    return write(tmp_path / "x.ckpt", settings("unet", **changes), state, state)


def refused(source: Path, *words: str, **options) -> PolicyError:
    """Converting fails with a sentence that has these words, and writes nothing."""
    target = source.with_name("policy")
    with pytest.raises(PolicyError) as caught:
        convert_checkpoint(source, target, **options)
    assert not target.exists()
    assert sorted(path.name for path in source.parent.iterdir()) == [source.name]
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


def test_the_averaged_weights_are_taken_where_they_were_used(tmp_path: Path) -> None:
    model, ema = model_state("unet", 1), model_state("unet", 2)
    name = "mid_modules.0.blocks.0.block.0.weight"
    for used in (True, False):
        cfg = settings("unet")
        cfg["training"]["use_ema"] = used
        source = write(tmp_path / "x.ckpt", cfg, model, ema)
        done = convert_checkpoint(source, tmp_path / f"{used}")
        taken = done.policy.state_dict()[f"denoiser.{name}"]
        assert torch.equal(taken, (ema if used else model)[f"model.{name}"])
        assert ("EMA" in done.origin["its weights"]) and (("no EMA" in str(done.origin)) != used)


def test_numbers_go_where_the_demonstrations_have_them(tmp_path: Path) -> None:
    state = model_state("unet", 1)
    done = convert_checkpoint(plain(tmp_path, state), tmp_path / "p")
    policy = done.policy
    assert policy.config.observations == ("observation.environment_state", "observation.state[:2]")
    assert policy.features == {
        "observation.environment_state": 18,
        "observation.state": 5,
        "action": 2,
    }
    name = "normalizer.params_dict.obs"
    for ours, theirs in [
        ("scale", "scale"),
        ("min", "input_stats.min"),
        ("std", "input_stats.std"),
    ]:
        whole = state[f"{name}.{theirs}"]
        environment = getattr(policy.normalizer["observation.environment_state"], ours)
        assert torch.equal(environment, whole[:18])
        assert torch.equal(getattr(policy.normalizer["observation.state"], ours)[:2], whole[18:])
    assert torch.equal(policy.normalizer["observation.state"].scale[2:], torch.ones(3))


def test_other_tasks_keep_their_names_and_can_be_given_others(tmp_path: Path) -> None:
    cfg = settings("unet")
    cfg["task"]["dataset"]["_target_"] = "diffusion_policy.dataset.kitchen.KitchenDataset"
    source = write(tmp_path / "x.ckpt", cfg, model_state("unet", 1), model_state("unet", 1))
    done = convert_checkpoint(source, tmp_path / "p")
    assert done.policy.config.observations == ("observation.state",)
    assert any("--map obs=" in note for note in done.notes)
    names = {"obs": "observation.all[3:23]"}
    done = convert_checkpoint(source, tmp_path / "q", names=names)
    assert done.policy.features == {"observation.all": 23, "action": 2}
    assert torch.equal(done.policy.normalizer["observation.all"].scale[:3], torch.ones(3))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"img": "observation.image"}, ["img", "obs"]),
        ({"obs": "observation.state[:3]"}, ["3 numbers wide", "20"]),
        ({"obs": "observation.state[x]"}, ["observation.state[x]"]),
    ],
)
def test_names_that_do_not_fit_are_refused(names, words, tmp_path: Path) -> None:
    refused(plain(tmp_path), *words, names=names)


def test_the_card_tells_where_it_comes_from(tmp_path: Path) -> None:
    import hashlib

    source = plain(tmp_path)
    convert_checkpoint(source, tmp_path / "p")
    card = (tmp_path / "p" / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(source.read_bytes()).hexdigest() in card
    assert "`x.ckpt`" in card and "210,000" in card and "5,000" in card
    assert "trained with dp_hub" not in card
    record = json.loads((tmp_path / "p" / "config.json").read_text())
    assert record["policy"]["objective"]["train_steps"] == 20


def test_a_file_written_by_the_real_omegaconf_is_read(tmp_path: Path) -> None:
    done = convert_checkpoint(REAL, tmp_path / "p")
    expected = model_state("unet", 2, dims=(8, 16))
    assert done.policy.config.denoiser.down_dims == (8, 16)
    name = "mid_modules.0.blocks.0.block.0.weight"
    assert torch.equal(done.policy.state_dict()[f"denoiser.{name}"], expected[f"model.{name}"])


def test_the_older_layout_of_torch_is_read_too(tmp_path: Path) -> None:
    state = model_state("unet", 1)
    source = write(tmp_path / "x.ckpt", settings("unet"), state, state, zipped=False)
    convert_checkpoint(source, tmp_path / "p")
    assert load_policy(tmp_path / "p").config.horizon == 8


def test_settings_that_refer_to_others_are_followed_but_expressions_are_not(tmp_path) -> None:
    cfg = settings("unet", horizon="${horizon}", n_obs_steps="${task.steps}")
    cfg |= {"horizon": 8, "task": cfg["task"] | {"steps": "${policy.model.steps}"}}
    state = model_state("unet", 1)
    cfg["policy"]["model"]["steps"] = 2
    source = write(tmp_path / "x.ckpt", cfg, state, state)
    refused(source, "`steps`")  # followed, and then found to be unknown where it lies
    del cfg["policy"]["model"]["steps"]
    cfg["task"]["steps"] = 2
    done = convert_checkpoint(write(source, cfg, state, state), tmp_path / "p")
    assert done.policy.config.n_obs_steps == 2


@pytest.mark.parametrize(
    "text", ["${eval:'1+1'}", "${horizon}", "${policy.horizon}", "${a.b}", "${now:%Y}"]
)
def test_an_expression_is_named_and_never_evaluated(text: str, tmp_path: Path) -> None:
    refused(plain(tmp_path, horizon=text), "`horizon`", "not evaluated")


REFUSALS = {
    "another policy": ({"_target_": "my.Policy"}, ["my.Policy", "_target_"]),
    "code as a target": ({"_target_": "os.system"}, ["os.system"]),
    "another network": ({"model___target_": "my.Net"}, ["my.Net"]),
    "another scheduler": ({"noise_scheduler___target_": "my.Scheduler"}, ["my.Scheduler"]),
    "another variance": ({"noise_scheduler__variance_type": "learned"}, ["learned", "fixed_small"]),
    "betas of its own": ({"noise_scheduler__trained_betas": [0.1]}, ["trained_betas"]),
    "another schedule": ({"noise_scheduler__beta_schedule": "sigmoid"}, ["sigmoid"]),
    "an unknown setting": ({"eta": 0.5}, ["`eta`"]),
    "an unknown setting within": ({"model__dropout": 0.5}, ["`dropout`"]),
    "another convention": ({"oa_step_convention": False}, ["oa_step_convention"]),
    "action steps only": ({"pred_action_steps_only": True}, ["pred_action_steps_only"]),
    "other groups": ({"model__n_groups": 4}, ["n_groups"]),
    "text for a number": ({"horizon": "8"}, ["horizon", "'8'"]),
    "a flag for a number": ({"horizon": True}, ["horizon"]),
    "nothing for a number": ({"n_obs_steps": None}, ["n_obs_steps", "nothing"]),
    "a horizon that does not halve": ({"horizon": 9}, ["9"]),
    "too many steps": ({"n_action_steps": 8}, ["7"]),
    "other weights": ({"model__down_dims": [16, 64]}, ["down_modules", "(64"]),
    "more than any machine holds": ({"model__down_dims": [65_536] * 2}, ["down_modules"]),
    "more than is allowed": ({"model__down_dims": [800_000] * 2}, ["down_dims[0]", "65536"]),
    "a network that is not there": ({"model": None}, ["model"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_has_no_counterpart_is_named_and_refused(name: str, tmp_path: Path) -> None:
    changes, words = REFUSALS[name]
    refused(plain(tmp_path, **changes), *words)


ODD = [None, True, -1, 0, 10**9, 1.5, "x", "", [], [1], [[]], [-1, 2], {}, {"a": 1}, [10**9] * 3]


@pytest.mark.parametrize("kind", POLICIES)
def test_no_odd_value_in_the_settings_gives_a_traceback(kind: str) -> None:
    policy = settings(kind)["policy"]
    places = [(name,) for name in policy]
    places += [
        (name, inner) for name, part in policy.items() if isinstance(part, dict) for inner in part
    ]
    tried = refusals = 0
    for place in places:
        for value in ODD:
            cfg = settings(kind, **{"__".join(place): value})
            tried += 1
            try:
                plan_of(cfg, where="x.ckpt", wanted={}, pixels=lambda keys: "imagenet")
            except PolicyError:
                refusals += 1
    assert tried > 200 and refusals > 0.8 * tried


def test_a_transformer_that_inpaints_with_the_step_as_condition_is_refused(tmp_path) -> None:
    cfg = settings("transformer", obs_as_cond=False)
    state = model_state("transformer", 1, conditioning="inpainting")
    refused(write(tmp_path / "x.ckpt", cfg, state, state), "time_as_cond")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("model.final_conv.1.bias"), ["final_conv.1.bias", "not there"]),
        (lambda s: s.update({"model.extra": torch.ones(1)}), ["denoiser.extra"]),
        (lambda s: s.update({"other.extra": torch.ones(1)}), ["other.extra"]),
        (lambda s: s.pop("normalizer.params_dict.obs.scale"), ["obs.scale"]),
        (
            lambda s: s.update({"normalizer.params_dict.obs.scale": torch.zeros(20)}),
            ["`obs`", "cannot be undone"],
        ),
        (
            lambda s: s.update({"normalizer.params_dict.obs.scale": torch.ones(3)}),
            ["`obs`", "(3,)"],
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(change, words, tmp_path: Path) -> None:
    state = model_state("unet", 1)
    change(state)
    refused(plain(tmp_path, state), *words)


def test_another_temperature_of_the_spatial_softmax_is_refused(tmp_path: Path) -> None:
    state = model_state("image unet", 1)
    state["obs_encoder.obs_nets.image.pool.temperature"] = torch.tensor([0.5])
    refused(write(tmp_path / "x.ckpt", settings("image unet"), state, state), "temperature")


class Attack:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


@pytest.mark.parametrize("place", ["cfg", "weights", "optimizer", "global_step", "beside"])
def test_code_anywhere_in_it_is_refused_and_not_run(place: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    state = model_state("unet", 1)
    with standing_in() as wrap:
        made = payload(wrap(settings("unet")), state, state)
        attack = Attack(sentinel)
        match place:
            case "cfg":
                made["cfg"]._content["policy"] = attack
            case "weights":
                made["state_dicts"]["ema_model"]["model.x"] = attack
            case "optimizer":
                made["state_dicts"]["optimizer"]["state"][0] = attack
            case "global_step":
                made["pickles"]["global_step"] = dill.dumps(attack)
            case "beside":
                made["more"] = attack
        buffer = io.BytesIO()
        torch.save(made, buffer, pickle_module=dill)
    source = tmp_path / "x.ckpt"
    source.write_bytes(buffer.getvalue())
    refused(source, "`posix.system`")
    assert not sentinel.exists()


def test_pickles_that_are_not_needed_are_not_opened(tmp_path: Path) -> None:
    state = model_state("unet", 1)
    sentinel = tmp_path / "sentinel"
    with standing_in() as wrap:
        made = payload(wrap(settings("unet")), state, state)
        made["pickles"]["_output_dir"] = dill.dumps(Attack(sentinel))
        torch.save(made, tmp_path / "x.ckpt", pickle_module=dill)
    convert_checkpoint(tmp_path / "x.ckpt", tmp_path / "p")
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "value",
    [
        1,
        {"model": 1},
        {"cfg": {}, "state_dicts": {}},
        {"cfg": {"policy": 3}, "state_dicts": {"model": {"a": torch.ones(1)}}},
        {"cfg": None, "state_dicts": {"model": {"a": torch.ones(1)}}},
        {"cfg": {}, "state_dicts": {"model": torch.ones(1)}},
        {"cfg": {}, "state_dicts": [1]},
        {"cfg": {"training": {"use_ema": True}}, "state_dicts": {"model": {"a": torch.ones(1)}}},
    ],
)
def test_another_payload_is_a_sentence(value, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "x.ckpt", pickle_module=dill)
    refused(tmp_path / "x.ckpt", "x.ckpt")


def test_settings_that_never_end_are_refused(tmp_path: Path) -> None:
    settings_in_settings: dict = {}
    settings_in_settings["policy"] = settings_in_settings
    state = {"model": {"a": torch.ones(1)}}
    torch.save({"cfg": settings_in_settings, "state_dicts": state}, tmp_path / "x.ckpt")
    refused(tmp_path / "x.ckpt", "have no end")
    doubling: list = [1]
    for _ in range(50):
        doubling = [doubling, doubling]
    torch.save({"cfg": {"policy": doubling}, "state_dicts": state}, tmp_path / "x.ckpt")
    refused(tmp_path / "x.ckpt", "have no end")


def test_references_that_never_end_are_refused(tmp_path: Path) -> None:
    state = {"model": {"a": torch.ones(1)}}
    circle = {"a": "${b.x}", "b": "${a.y}"}
    torch.save({"cfg": circle, "state_dicts": state}, tmp_path / "x.ckpt")
    refused(tmp_path / "x.ckpt", "have no end")
    doubling = {f"k{n}": f"${{d.k{n + 1}.k{n + 1}}}" for n in range(40)} | {"k40": "${d}"}
    torch.save({"cfg": {"d": doubling}, "state_dicts": state}, tmp_path / "x.ckpt")
    refused(tmp_path / "x.ckpt", "have no end")


def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "p"
    convert_checkpoint(plain(tmp_path), target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(PolicyError, match="is there already"):
        convert_checkpoint(plain(tmp_path), target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_widths_of_the_test_are_those_of_pusht() -> None:
    assert WIDTH == {"obs": 20, "agent_pos": 2, "action": 2}
