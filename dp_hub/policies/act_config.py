"""What an ACT policy is made of, as plain values: stored in its config.json."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, ValidationInfo
from pydantic import field_validator as check

from dp_hub.config import Config
from dp_hub.policies.config import CameraConfig, Depth, Observations, Steps, Width
from dp_hub.policies.selection import check_not_observed, parse_selection


class ActConfig(Config):
    """Action chunking with transformers. The defaults are the paper's sizes and weights."""

    kind: Literal["act"] = "act"
    observations: Observations = (
        "observation.environment_state",
        "observation.state[:2]",
    )
    """Features observed; ``name[a:b]`` takes a part of one. Pictures too."""
    environment: tuple[str, ...] = ("observation.environment_state",)
    """Features that tell of the surroundings: where observed, a token of their own, which the style
    is not drawn from. The other numbers are the robot's state."""
    vision: CameraConfig = CameraConfig(normalization="imagenet")
    """How pictures are seen, where some are observed: each place of a camera's last feature map is
    a token."""
    action: Annotated[str, Field(validate_default=True)] = "action"
    """The feature predicted."""
    horizon: Steps = 100
    """Tp: steps in a predicted chunk, the first of them the observed step."""
    n_obs_steps: Literal[1] = 1
    """To: ACT observes one step."""
    n_action_steps: Annotated[Steps, Field(validate_default=True)] = 100
    """Ta: steps executed before the next prediction, from the start of the chunk."""
    hidden_dim: Annotated[Width, Field(multiple_of=4)] = 512
    """Width of every token."""
    feedforward_dim: Width = 3200
    """Inner width of the layers."""
    n_heads: Annotated[Width, Field(validate_default=True)] = 8
    """Of every attention; divides ``hidden_dim``."""
    n_encoder_layers: Depth = 4
    """Over the observed tokens."""
    n_style_layers: Depth = 4
    """Of the encoder that draws the style from a demonstrated chunk."""
    n_decoder_layers: Depth = 1
    """Over the queries. LEGACY: the original has 7 but takes the output of the first."""
    latent_dim: Width = 32
    """Width of the style variable."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability, in every layer."""
    kl_weight: NonNegativeFloat = 10.0
    """Of the style's divergence from a standard normal, beside the mean absolute error."""
    count_padding: bool = True
    """Steps past an episode's end count in the mean error, as zeros. LEGACY: the original's mean is
    over all entries; false takes the mean over real steps."""
    normalization: Literal["gaussian_clipped", "gaussian", "limits", "identity"] = (
        "gaussian_clipped"
    )
    """How observations and actions are scaled, per dimension, inside the policy. The default is
    the original's: zero mean, unit deviation, deviations below 0.01 taken for 0.01."""

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

    @check("n_action_steps")
    @classmethod
    def _inside_the_chunk(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("horizon", value):
            raise ValueError(f"at most horizon = {info.data['horizon']} can be executed")
        return value

    @check("n_heads")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("hidden_dim", value) % value:
            raise ValueError(f"does not divide hidden_dim, {info.data['hidden_dim']}")
        return value

    @property
    def n_trained_obs_steps(self) -> int:
        """Observed steps in a training window."""
        return self.n_obs_steps

    @property
    def pad_after(self) -> int:
        """Steps that a training window may reach past its episode's end: as many as there are.

        Every step of an episode begins a window, as in the original.
        """
        return self.horizon - 1
