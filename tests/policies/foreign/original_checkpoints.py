"""Checkpoints of the structure that the original writes, with random weights of our own.

``{cfg, state_dicts, pickles}``: hydra's settings as OmegaConf's objects, state dicts, and dill's
bytes; written by torch and dill as the original does. OmegaConf itself is not needed: its classes
are stood in for, with the attributes that pickles of OmegaConf 2.2 to 2.4 have. One file written by
the real one lies in ``data/``; ``real_omegaconf.py`` made it.
"""

import collections
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dill
import torch
from original_networks import encoder_state, transformer_state, unet_state

POLICIES = {
    "unet": "diffusion_unet_lowdim_policy.DiffusionUnetLowdimPolicy",
    "transformer": "diffusion_transformer_lowdim_policy.DiffusionTransformerLowdimPolicy",
    "image unet": "diffusion_unet_hybrid_image_policy.DiffusionUnetHybridImagePolicy",
    "image transformer": "diffusion_transformer_hybrid_image_policy."
    "DiffusionTransformerHybridImagePolicy",
}
WIDTH = {"obs": 20, "agent_pos": 2, "action": 2}
CROP = (84, 84)


def settings(kind: str, **changes: Any) -> dict[str, Any]:
    """What hydra resolves the original's yaml files to, with small networks.

    ``changes`` are of the policy; ``a__b`` is ``b`` of its part ``a``.
    """
    image = kind.startswith("image")
    policy: dict[str, Any] = {
        "_target_": f"diffusion_policy.policy.{POLICIES[kind]}",
        "noise_scheduler": {
            "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
            "num_train_timesteps": 20,
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "beta_schedule": "squaredcos_cap_v2",
            "variance_type": "fixed_small",
            "clip_sample": True,
            "prediction_type": "epsilon",
        },
        "horizon": 8,
        "n_obs_steps": 2,
        "n_action_steps": 4,
        "num_inference_steps": 20,
    }
    unet = {"diffusion_step_embed_dim": 8, "down_dims": [16, 32], "kernel_size": 5}
    unet |= {"n_groups": 8, "cond_predict_scale": True}
    layers = {"n_layer": 2, "n_head": 2, "n_emb": 16, "p_drop_emb": 0.0, "p_drop_attn": 0.01}
    layers |= {"causal_attn": True, "time_as_cond": True, "n_cond_layers": 0}
    models = "diffusion_policy.model.diffusion."
    if image:
        policy |= {"shape_meta": _shape_meta(), "crop_shape": list(CROP)}
        policy |= {"obs_encoder_group_norm": True, "eval_fixed_crop": True}
    else:
        policy |= {"obs_dim": WIDTH["obs"], "action_dim": WIDTH["action"]}
    if kind == "image unet":
        policy |= {"obs_as_global_cond": True, **unet}
    if kind == "image transformer":
        policy |= {"obs_as_cond": True, **layers}
    if kind == "unet":
        target = f"{models}conditional_unet1d.ConditionalUnet1D"
        model = {"_target_": target, "input_dim": 2, "local_cond_dim": None, "global_cond_dim": 40}
        policy |= {"model": model | unet, "obs_as_local_cond": False, "obs_as_global_cond": True}
        policy |= {"pred_action_steps_only": False, "oa_step_convention": True}
    if kind == "transformer":
        target = f"{models}transformer_for_diffusion.TransformerForDiffusion"
        model = {"_target_": target, "input_dim": 2, "output_dim": 2, "cond_dim": 20}
        model |= {"horizon": 8, "n_obs_steps": 2, "obs_as_cond": True}
        policy |= {"model": model | layers, "obs_as_cond": True, "pred_action_steps_only": False}
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = policy
        for part in parts:
            place = place[part]
        place[last] = value
    dataset = (
        "pusht_image_dataset.PushTImageDataset" if image else "pusht_dataset.PushTLowdimDataset"
    )
    return {
        "name": f"train_{kind}",
        "_target_": "diffusion_policy.workspace.some.Workspace",
        "task": {
            "name": "pusht",
            "dataset": {"_target_": f"diffusion_policy.dataset.{dataset}", "val_ratio": 0.02},
        },
        "policy": policy,
        "training": {"use_ema": True, "device": "cuda:0", "num_epochs": 3050, "debug": False},
        "logging": {"tags": ["a", "b"], "name": "${now:%Y.%m.%d}_${name}"},
    }


def _shape_meta() -> dict[str, Any]:
    return {
        "obs": {
            "image": {"shape": [3, 96, 96], "type": "rgb"},
            "agent_pos": {"shape": [2], "type": "low_dim"},
        },
        "action": {"shape": [2]},
    }


def model_state(kind: str, seed: int, *, conditioning: str = "global", **options: Any) -> dict:
    """A policy's state dict; ``options`` are the network's."""
    image = kind.startswith("image")
    obs_dim = 66 if image else WIDTH["obs"]
    inpaints = conditioning == "inpainting"
    width = WIDTH["action"] + (obs_dim if inpaints else 0)
    if kind.endswith("unet"):
        glob, local = 2 * obs_dim * (conditioning == "global"), obs_dim * (conditioning == "local")
        network = unet_state(
            width, global_cond_dim=glob, local_cond_dim=local, seed=seed, **options
        )
    else:
        options = {"horizon": 8, "n_obs_steps": 2, "cond_dim": 0 if inpaints else obs_dim} | options
        network = transformer_state(width, seed=seed, **options)
    state = {f"model.{name}": value for name, value in network.items()}
    state |= {"_dummy_variable": torch.zeros(0), "mask_generator._dummy_variable": torch.zeros(0)}
    if image:
        state |= encoder_state("image", seed=seed)
    return state | normalizer_state(["agent_pos", "action"] if image else ["obs", "action"], image)


def normalizer_state(keys: list[str], image: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    state = {}
    for key in keys:
        low = 100 * torch.rand(WIDTH[key], generator=generator)
        high = low + 50 + 300 * torch.rand(WIDTH[key], generator=generator)
        scale = 2 / (high - low)
        values = {"scale": scale, "offset": -1 - scale * low}
        values |= {"input_stats.min": low, "input_stats.max": high}
        values |= {"input_stats.mean": (low + high) / 2, "input_stats.std": (high - low) / 4}
        state |= {f"normalizer.params_dict.{key}.{name}": one for name, one in values.items()}
    if image:
        values = {"scale": [2.0], "offset": [-1.0], "input_stats.min": [0.0]}
        values |= {"input_stats.max": [1.0], "input_stats.mean": [0.5], "input_stats.std": [0.3]}
        for name, one in values.items():
            state[f"normalizer.params_dict.image.{name}"] = torch.tensor(one)
    return state


def payload(cfg: Any, model: dict, ema: dict | None) -> dict[str, Any]:
    states = {
        "model": collections.OrderedDict(model),
        "optimizer": {"state": {}, "param_groups": []},
    }
    if ema is not None:
        states["ema_model"] = collections.OrderedDict(ema)
    pickles = {"global_step": dill.dumps(210_000), "epoch": dill.dumps(5000)}
    pickles["_output_dir"] = dill.dumps("/home/someone/outputs")
    return {"cfg": cfg, "state_dicts": states, "pickles": pickles}


def write(
    path: Path, cfg: dict[str, Any], model: dict, ema: dict | None, *, zipped: bool = True
) -> Path:
    """A checkpoint as the original's workspace writes it."""
    with standing_in() as wrap, path.open("wb") as file:
        torch.save(
            payload(wrap(cfg), model, ema),
            file,
            pickle_module=dill,
            _use_new_zipfile_serialization=zipped,
        )
    return path


@contextmanager
def standing_in() -> Iterator[Any]:
    """A function from plain settings to OmegaConf's objects, which can be pickled inside."""
    modules = {name: types.ModuleType(f"omegaconf.{name}") for name in ("base", "nodes")}
    modules |= {
        name: types.ModuleType(f"omegaconf.{name}") for name in ("dictconfig", "listconfig")
    }

    def made(module: str, name: str) -> Any:
        kind = type(name, (), {"__module__": f"omegaconf.{module}", "__qualname__": name})
        setattr(modules[module], name, kind)
        return kind

    classes = {
        name: made(module, name)
        for module, name in (
            *(("base", "ContainerMetadata"), ("base", "Metadata"), ("nodes", "AnyNode")),
            *(("dictconfig", "DictConfig"), ("listconfig", "ListConfig")),
        )
    }

    def instance(name: str, **fields: Any) -> Any:
        result = object.__new__(classes[name])
        result.__dict__.update(fields)
        return result

    def metadata(name: str, key: Any, kind: Any, **more: Any) -> Any:
        fields = {"ref_type": Any, "object_type": kind, "optional": True, "key": key, "flags": {}}
        fields |= {"flags_root": False, "resolver_cache": collections.defaultdict(dict)}
        return instance(name, **fields, **more)

    def wrap(value: Any, parent: Any = None, key: Any = None) -> Any:
        if not isinstance(value, dict | list):
            note = metadata("Metadata", key, None)
            return instance("AnyNode", _metadata=note, _parent=parent, _val=value)
        types_of = {"key_type": Any, "element_type": Any}
        note = metadata("ContainerMetadata", key, type(value), **types_of)
        name = "DictConfig" if isinstance(value, dict) else "ListConfig"
        result = instance(name, _metadata=note, _parent=parent, _content=None)
        result._content = (
            {one: wrap(inner, result, one) for one, inner in value.items()}
            if isinstance(value, dict)
            else [wrap(inner, result, one) for one, inner in enumerate(value)]
        )
        return result

    names = {f"omegaconf.{name}": module for name, module in modules.items()}
    names["omegaconf"] = types.ModuleType("omegaconf")
    vars(names["omegaconf"]).update(modules)
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    try:
        yield wrap
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
