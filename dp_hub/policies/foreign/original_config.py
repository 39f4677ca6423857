"""The original's configuration (hydra's, inside a checkpoint) as a dp_hub configuration.

Classes are named by import paths there; they are looked up in the tables below and never imported.
Defaults are those of the original's constructors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dp_hub.config import build
from dp_hub.errors import ConfigError, PolicyError
from dp_hub.policies.config import DiffusionConfig
from dp_hub.policies.foreign.naming import Naming, feature_shapes
from dp_hub.policies.foreign.settings import Options
from dp_hub.policies.selection import Shape

Values = dict[str, Any]
Pixels = Callable[[Sequence[str]], Any]
_MOST_LAYERS = 1000
_MODELS = "diffusion_policy.model.diffusion."
_PREDICTIONS = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
_SCHEDULES = {name: name for name in ("squaredcos_cap_v2", "linear", "scaled_linear")}
_SOLVERS = {
    f"{module}.{name}Scheduler": name.lower()
    for name in ("DDPM", "DDIM")
    for module in (
        f"diffusers.schedulers.scheduling_{name.lower()}",
        "diffusers.schedulers",
        "diffusers",
    )
}


@dataclass(frozen=True)
class Source:
    """One key of the original's observations: what it is here, and its shape."""

    selections: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True)
class Plan:
    """What a checkpoint becomes.

    Args:
        config: of the policy.
        features: shape of everything it observes or predicts.
        sources: the keys of the original's observations, in its order.
        notes: what is different here, in sentences.
    """

    config: DiffusionConfig
    features: dict[str, Shape]
    sources: dict[str, Source]
    notes: tuple[str, ...]


def plan_of(cfg: Any, *, where: str, wanted: Mapping[str, str], pixels: Pixels) -> Plan:
    """What the settings of a checkpoint ask for.

    Args:
        cfg: plain values, as `plain_settings` gives.
        where: the file, for the messages.
        wanted: feature for a key of the original's, where the usual one is not wanted.
        pixels: how the policy scales the pictures of the given keys, ``vision.normalization``.
    Raises:
        PolicyError: a class or a setting that dp_hub has nothing for; it is named.
    """
    if not isinstance(cfg, dict):
        raise PolicyError(f"`cfg` in {where} is not a mapping of settings")
    options = Options(cfg.get("policy"), f"`cfg.policy` in {where}")
    draft = _Draft(options, Naming(_dataset(cfg), wanted), pixels)
    options.choice("_target_", _READERS)(draft)
    options.end()
    return draft.plan(where)


def _dataset(cfg: Mapping[str, Any]) -> str:
    task = cfg.get("task")
    dataset = task.get("dataset") if isinstance(task, dict) else None
    return str(dataset.get("_target_")) if isinstance(dataset, dict) else ""


@dataclass
class _Draft:
    """A plan on its way."""

    policy: Options
    naming: Naming
    pixels: Pixels
    values: Values = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    action_dim: int = 0

    def plan(self, where: str) -> Plan:
        self.naming.check_used(list(self.sources))
        observations = [one for source in self.sources.values() for one in source.selections]
        try:
            config = build(
                DiffusionConfig,
                self.values | {"observations": observations},
                where=f"the settings in {where}",
            )
        except ConfigError as error:
            raise PolicyError(error.message, hint=error.hint) from None
        features: dict[str, Shape] = {}
        for source in self.sources.values():
            features |= feature_shapes(source.selections, source.shape)
        features[config.action] = self.action_dim
        return Plan(config, features, self.sources, tuple(self.naming.notes))

    def steps(self) -> None:
        for name in ("horizon", "n_obs_steps", "n_action_steps"):
            self.values[name] = self.policy.whole(name)
        self.policy.same("pred_action_steps_only", False)
        self.values["objective"] = objective = _objective(self.policy)
        if (
            objective["solver"] == "ddpm"
            and objective["num_inference_steps"] < objective["train_steps"]
        ):
            self.naming.notes.append(
                "the original's diffusers took no account of DDPM's skipped steps; here they count"
            )


def _objective(policy: Options) -> Values:
    scheduler = policy.part("noise_scheduler")
    solver = scheduler.choice("_target_", _SOLVERS)
    steps = scheduler.whole("num_train_timesteps", 1000)
    inference = policy.whole_or_none("num_inference_steps")
    values = {
        "kind": "diffusion",
        "solver": solver,
        "train_steps": steps,
        "num_inference_steps": steps if inference is None else inference,
        "beta_start": scheduler.number("beta_start", 1e-4),
        "beta_end": scheduler.number("beta_end", 0.02),
        "noise_schedule": scheduler.choice("beta_schedule", _SCHEDULES, "linear"),
        "prediction": scheduler.choice("prediction_type", _PREDICTIONS, "epsilon"),
        "clip_sample": scheduler.flag("clip_sample", True),
    }
    fixed: Values = {"trained_betas": None, "steps_offset": 0, "clip_sample_range": 1.0}
    fixed |= {"variance_type": "fixed_small"} if solver == "ddpm" else {"set_alpha_to_one": True}
    for name, only in (fixed | {"thresholding": False, "timestep_spacing": "leading"}).items():
        scheduler.same(name, only)
    scheduler.end()
    return values


def _low_dim(draft: _Draft) -> None:
    draft.steps()
    width = draft.policy.whole("obs_dim")
    draft.action_dim = draft.policy.whole("action_dim")
    draft.sources["obs"] = Source(draft.naming.numbers("obs", width), width)


def _unet_low_dim(draft: _Draft) -> None:
    _low_dim(draft)
    policy = draft.policy
    # Without it the original executes from index To rather than To - 1.
    policy.same("oa_step_convention", True, False)
    local, glob = policy.flag("obs_as_local_cond", False), policy.flag("obs_as_global_cond", False)
    draft.values["conditioning"] = "global" if glob else "local" if local else "inpainting"
    model = policy.part("model")
    model.same("_target_", f"{_MODELS}conditional_unet1d.ConditionalUnet1D", None)
    model.without_meaning(
        "input_dim", "local_cond_dim", "global_cond_dim"
    )  # as the weights have it
    draft.values["denoiser"] = _unet(model, step_embed_dim=256, kernel_size=3, scale=False)
    model.end()


def _unet(options: Options, *, step_embed_dim: int, kernel_size: int, scale: bool) -> Values:
    # The last convolution has eight groups whatever is asked for.
    options.same("n_groups", 8)
    return {
        "kind": "unet",
        "step_embed_dim": options.whole("diffusion_step_embed_dim", step_embed_dim),
        "down_dims": options.wholes("down_dims", (256, 512, 1024)),
        "kernel_size": options.whole("kernel_size", kernel_size),
        "cond_predict_scale": options.flag("cond_predict_scale", scale),
    }


def _transformer_low_dim(draft: _Draft) -> None:
    _low_dim(draft)
    as_cond = draft.policy.flag("obs_as_cond", False)
    model = draft.policy.part("model")
    model.same("_target_", f"{_MODELS}transformer_for_diffusion.TransformerForDiffusion", None)
    for name in ("horizon", "n_obs_steps"):
        model.same(name, draft.values[name])
    model.without_meaning("input_dim", "output_dim", "cond_dim", "obs_as_cond")
    usual = {"n_layer": 12, "n_head": 12, "n_emb": 768, "p_drop_emb": 0.1, "p_drop_attn": 0.1}
    _transformer(draft, model, as_cond, usual, causal=False)
    model.end()


def _transformer(
    draft: _Draft, options: Options, as_cond: bool, usual: Values, *, causal: bool
) -> None:
    # Without observations to attend to, the network here takes the diffusion step as a token.
    options.same("time_as_cond", as_cond, True, why="as `obs_as_cond`")
    draft.values["conditioning"] = "global" if as_cond else "inpainting"
    draft.values["denoiser"] = {
        "kind": "transformer",
        "n_layer": options.whole("n_layer", usual["n_layer"], most=_MOST_LAYERS),
        **{name: options.whole(name, usual[name]) for name in ("n_head", "n_emb")},
        **{name: options.number(name, usual[name]) for name in ("p_drop_emb", "p_drop_attn")},
        "causal_attn": options.flag("causal_attn", causal),
        "n_cond_layers": options.whole("n_cond_layers", 0, most=_MOST_LAYERS),
    }


def _unet_hybrid(draft: _Draft) -> None:
    _hybrid(draft)
    glob = draft.policy.flag("obs_as_global_cond", True)
    draft.values["conditioning"] = "global" if glob else "inpainting"
    draft.values["denoiser"] = _unet(draft.policy, step_embed_dim=256, kernel_size=5, scale=True)


def _transformer_hybrid(draft: _Draft) -> None:
    _hybrid(draft)
    # The original cannot predict with False: it looks for pictures of the whole horizon.
    draft.policy.same("obs_as_cond", True)
    usual = {"n_layer": 8, "n_head": 4, "n_emb": 256, "p_drop_emb": 0.0, "p_drop_attn": 0.3}
    _transformer(draft, draft.policy, True, usual, causal=True)


def _hybrid(draft: _Draft) -> None:
    """Numbers, and pictures through robomimic's encoder."""
    draft.steps()
    meta = draft.policy.part("shape_meta")
    shape = meta.part("action").wholes("shape")
    if len(shape) != 1:
        raise PolicyError(f"actions are of shape {shape}; only lists of numbers can be converted")
    draft.action_dim = shape[0]
    keys = meta.raw("obs")
    for key in keys if isinstance(keys, dict) else ():
        draft.sources[key] = _source(
            draft.naming, key, Options(keys[key], f"`shape_meta.obs.{key}`")
        )
    crop = draft.policy.size("crop_shape", (76, 76))
    group = draft.policy.flag("obs_encoder_group_norm", False)
    if crop is not None and not draft.policy.flag("eval_fixed_crop", False):
        draft.naming.notes.append(
            "the original also crops at random when it is evaluated; here the centre is taken"
        )
    pictures = [key for key, source in draft.sources.items() if not isinstance(source.shape, int)]
    draft.values["vision"] = {
        "crop": crop,
        "norm": "group" if group else "batch",
        "normalization": draft.pixels(pictures),
    }


def _source(naming: Naming, key: str, options: Options) -> Source:
    shape = options.wholes("shape")
    kind = options.choice("type", {"rgb": "rgb", "low_dim": "low_dim"}, "low_dim")
    if kind == "rgb" and len(shape) == 3 and shape[0] == 3:
        return Source((naming.picture(key),), (shape[1], shape[2], 3))
    if kind == "low_dim" and len(shape) == 1:
        return Source(naming.numbers(key, shape[0]), shape[0])
    raise PolicyError(
        f"`{key}` is of shape {shape}, of type {kind}; only pictures (3, height, "
        "width) and numbers (width,) can be converted"
    )


_READERS: dict[str, Callable[[_Draft], None]] = {
    f"diffusion_policy.policy.{module}.{name}": read
    for module, name, read in (
        ("diffusion_unet_lowdim_policy", "DiffusionUnetLowdimPolicy", _unet_low_dim),
        (
            "diffusion_transformer_lowdim_policy",
            "DiffusionTransformerLowdimPolicy",
            _transformer_low_dim,
        ),
        (
            "diffusion_unet_hybrid_image_policy",
            "DiffusionUnetHybridImagePolicy",
            _unet_hybrid,
        ),
        (
            "diffusion_transformer_hybrid_image_policy",
            "DiffusionTransformerHybridImagePolicy",
            _transformer_hybrid,
        ),
    )
}
