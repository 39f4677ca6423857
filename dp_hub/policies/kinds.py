"""The kinds of policies there are, told apart by ``kind`` in their configurations."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from dp_hub.models.normalizer import Normalizer
from dp_hub.policies import act, diffusion
from dp_hub.policies.act import ActPolicy
from dp_hub.policies.act_config import ActConfig
from dp_hub.policies.config import DiffusionConfig
from dp_hub.policies.diffusion import DiffusionPolicy
from dp_hub.policies.selection import Shape, parse_selection, selected_features

Policy = DiffusionPolicy | ActPolicy
PolicyConfig = Annotated[DiffusionConfig | ActConfig, Field(discriminator="kind")]


def required_features(config: PolicyConfig) -> list[str]:
    """The features a policy reads or predicts: what it must be given the shapes of."""
    observed = selected_features(parse_selection(text) for text in config.observations)
    return list(dict.fromkeys([*observed, config.action]))


def make_policy(
    config: PolicyConfig,
    features: Mapping[str, Shape],
    *,
    normalizer: Normalizer | None = None,
) -> Policy:
    """A policy of the configuration's kind with fresh weights.

    Args:
        config: what to build.
        features: shape of every feature of `required_features`; others are left out.
        normalizer: fitted to the data; None for the identity, to load weights into.
    Raises:
        PolicyError: a feature is missing or narrower than an observed slice.
    """
    match config:
        case DiffusionConfig():
            return diffusion.make_policy(config, features, normalizer=normalizer)
        case ActConfig():
            return act.make_policy(config, features, normalizer=normalizer)
