"""What a diffusion policy is made of, as plain values: stored in its config.json.

Parts are chosen by ``kind`` from closed tables, never by an import path, so that a downloaded
configuration cannot name code. Every number has an upper bound, far above what anybody trains, so
that it cannot ask for all memory there is either.
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, ValidationInfo
from pydantic import field_validator as check

from dp_hub.config import Config
from dp_hub.policies.selection import MOST_PX, check_not_observed, parse_selection

Prediction = Literal["epsilon", "sample", "v"]
DiffusionSolver = Literal["ddpm", "ddim", "dpmsolver++"]
FlowSolver = Literal["euler"]
Conditioning = Literal["global", "local", "inpainting"]
Normalization = Literal["limits", "gaussian", "identity"]
Width = Annotated[int, Field(ge=1, le=65_536)]
Depth = Annotated[int, Field(ge=1, le=256)]
Steps = Annotated[int, Field(ge=1, le=8192)]
"""Of time, in a chunk."""
Calls = Annotated[int, Field(ge=1, le=10_000)]
"""Steps of a noise schedule, or network calls of a prediction."""
Px = Annotated[int, Field(ge=1, le=MOST_PX)]
Size = tuple[Px, Px]
Observations = Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]


class UnetConfig(Config):
    """The paper's convolutional network over time."""

    kind: Literal["unet"] = "unet"
    step_embed_dim: Width = 256
    """Width of the diffusion step's embedding."""
    down_dims: Annotated[tuple[Width, ...], Field(min_length=1, max_length=12)] = (256, 512, 1024)
    """Channels per level; every further level halves time."""
    kernel_size: Annotated[int, Field(ge=1, le=255)] = 5
    """Of the convolutions; odd."""
    n_groups: Width = 8
    """Of the group norms; divides every width."""
    cond_predict_scale: bool = True
    """FiLM scales and shifts, rather than only shifts."""

    @check("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("an even kernel would change the number of steps; take an odd one")
        return value

    @check("n_groups")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        uneven = [width for width in info.data.get("down_dims", ()) if width % value]
        if uneven:
            raise ValueError(f"does not divide the width {uneven[0]} of down_dims")
        return value


class MlpConfig(Config):
    """A residual MLP over the flattened chunk: fast on a CPU."""

    kind: Literal["mlp"] = "mlp"
    width: Width = 384
    """Of the residual stream."""
    depth: Depth = 4
    """Number of residual blocks."""
    expansion: Annotated[int, Field(ge=1, le=64)] = 2
    """Hidden width of a block over ``width``."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability, inside each block."""
    step_embed_dim: Width = Field(default=128, multiple_of=2)
    """Width of the step's embedding."""


class TransformerConfig(Config):
    """The paper's transformer over time: every action attends to the past and the observations."""

    kind: Literal["transformer"] = "transformer"
    n_layer: Depth = 8
    """Decoder layers."""
    n_head: Width = 4
    """Attention heads; divides ``n_emb``."""
    n_emb: Width = Field(default=256, multiple_of=2)
    """Width of a token."""
    p_drop_emb: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of the tokens."""
    p_drop_attn: float = Field(default=0.01, ge=0, lt=1)
    """Dropout inside the layers."""
    causal_attn: bool = True
    """An action attends only to actions and observations up to its own time."""
    n_cond_layers: Annotated[int, Field(ge=0, le=256)] = 0
    """Encoder layers over the observations; 0 for a two-layer MLP on each."""

    @check("n_emb")
    @classmethod
    def _divided(cls, value: int, info: ValidationInfo) -> int:
        heads = info.data.get("n_head", 1)
        if value % heads:
            raise ValueError(f"is not a multiple of the {heads} heads")
        return value


class PixelScale(Config):
    """Pixels of 0 to 1 become ``(pixel - mean) / std``, per colour."""

    mean: tuple[float, float, float]
    """Red, green, blue."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """Red, green, blue."""


class CameraConfig(Config):
    """What sees a picture: a ResNet18, trained from scratch."""

    resize: Size | None = None
    """Height and width, px, to which pictures are scaled before all else."""
    crop: Size | None = None
    """Height and width, px: cut at random while training, from the centre otherwise."""
    norm: Literal["group", "batch"] = "group"
    """Group norm, as the paper's; batch norm does not go well with averaged weights."""
    normalization: Literal["minus_one_one", "imagenet"] | PixelScale = "minus_one_one"
    """How pixels are scaled: by name, or by ``mean`` and ``std`` of red, green and blue."""
    share_weights: bool = False
    """One network for all cameras rather than one each."""


class VisionConfig(CameraConfig):
    """How every observed picture becomes numbers."""

    pool: Literal["spatial_softmax", "average"] = "spatial_softmax"
    """Keypoints and a linear layer (robomimic's encoder), or the mean of the last feature map."""
    n_keypoints: Width = 32
    """Of the spatial softmax."""
    feature_dim: Width = 64
    """Numbers per picture after the spatial softmax."""
    output_relu: bool = True
    """A ReLU behind the linear layer: robomimic's encoder of observations and LeRobot have one."""


class DiffusionObjective(Config):
    """Denoising diffusion (Ho et al. 2020), with schedules and solvers by diffusers' names."""

    kind: Literal["diffusion"] = "diffusion"
    prediction: Prediction = "epsilon"
    """What the network is trained to give: the noise, the clean chunk, or the velocity v."""
    noise_schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "squaredcos_cap_v2"
    """How noise grows over the steps, by diffusers' names."""
    beta_start: PositiveFloat = 1e-4
    """First beta; the squared cosine does not use it."""
    beta_end: PositiveFloat = 0.02
    """Last beta; the squared cosine does not use it."""
    train_steps: Calls = 100
    """Length of the noise schedule."""
    clip_sample: bool = True
    """DDPM and DDIM clip the clean chunk they expect to [-1, 1] at every step."""
    solver: DiffusionSolver = "ddpm"
    """How actions are sampled; may be chosen anew when the policy is loaded."""
    num_inference_steps: Calls = 100
    """Network calls per prediction; may be chosen anew when the policy is loaded."""

    @check("num_inference_steps")
    @classmethod
    def _within_the_schedule(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("train_steps", value):
            raise ValueError(f"more than the {info.data['train_steps']} steps of the schedule")
        return value


class FlowObjective(Config):
    """Flow matching on straight paths from noise to data (Lipman et al. 2023)."""

    kind: Literal["flow_matching"] = "flow_matching"
    solver: FlowSolver = "euler"
    """How actions are sampled."""
    num_inference_steps: Calls = 16
    """Network calls per prediction; may be chosen anew when the policy is loaded."""


DenoiserConfig = Annotated[UnetConfig | TransformerConfig | MlpConfig, Field(discriminator="kind")]
ObjectiveConfig = Annotated[DiffusionObjective | FlowObjective, Field(discriminator="kind")]


class DiffusionConfig(Config):
    """A diffusion policy. The defaults are the paper's state configuration for PushT."""

    kind: Literal["diffusion"] = "diffusion"
    observations: Observations = (
        "observation.environment_state",
        "observation.state[:2]",
    )
    """Features observed, in this order; ``name[a:b]`` takes a part of one. Pictures too."""
    vision: VisionConfig = VisionConfig()
    """How pictures are seen, where some are observed."""
    action: Annotated[str, Field(validate_default=True)] = "action"
    """The feature predicted."""
    horizon: Steps = 16
    """Tp: steps in a predicted chunk, the first of them the first observed step."""
    n_obs_steps: Steps = 2
    """To: observed steps."""
    n_action_steps: Annotated[Steps, Field(validate_default=True)] = 8
    """Ta: steps executed before the next prediction, from index To - 1 of the chunk."""
    conditioning: Conditioning = "global"
    """How observations steer the chunk: as one vector (FiLM), or tokens for the transformer;
    ``local``: step by step (U-Net only); ``inpainting``: as known parts of what is denoised."""
    denoiser: DenoiserConfig = Field(default=UnetConfig(), validate_default=True)
    """The network."""
    objective: ObjectiveConfig = DiffusionObjective()
    """What it learns and how chunks are drawn from it."""
    mask_padding: bool = False
    """Leave actions repeated past an episode's ends out of the loss (the original counts them)."""
    normalization: Normalization = "limits"
    """How observations (but pictures) and actions are scaled, per dimension, inside the policy."""

    @check("observations")
    @classmethod
    def _selections(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse_selection(text)
        return value

    @check("action")
    @classmethod
    def _not_observed(cls, value: str, info: ValidationInfo) -> str:
        return check_not_observed(value, info.data.get("observations", ()))

    @check("n_obs_steps")
    @classmethod
    def _within_the_chunk(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("horizon", value):
            raise ValueError(f"at most horizon = {info.data['horizon']} can be observed")
        return value

    @check("n_action_steps")
    @classmethod
    def _inside_the_chunk(cls, value: int, info: ValidationInfo) -> int:
        if "horizon" in info.data and "n_obs_steps" in info.data:
            most = info.data["horizon"] - info.data["n_obs_steps"] + 1
            if value > most:
                raise ValueError(f"at most horizon - n_obs_steps + 1 = {most} can be executed")
        return value

    @check("denoiser")
    @classmethod
    def _halves_evenly(cls, value: DenoiserConfig, info: ValidationInfo) -> DenoiserConfig:
        if isinstance(value, UnetConfig) and "horizon" in info.data:
            factor = 2 ** (len(value.down_dims) - 1)
            if info.data["horizon"] % factor:
                raise ValueError(
                    f"{len(value.down_dims)} levels need a horizon that is a multiple of {factor}, "
                    f"not {info.data['horizon']}"
                )
        if info.data.get("conditioning") == "local" and not isinstance(value, UnetConfig):
            raise ValueError("only the unet takes conditioning `local`; take `global`")
        return value

    @property
    def n_trained_obs_steps(self) -> int:
        """Observed steps in a training window: inpainting learns to predict observations too."""
        return self.horizon if self.conditioning == "inpainting" else self.n_obs_steps

    @property
    def pad_after(self) -> int:
        """Steps that a training window may reach past its episode's end."""
        return self.n_action_steps - 1
