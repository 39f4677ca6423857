"""A policy with converted weights: every one must be there and fit."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from dp_hub.errors import PolicyError
from dp_hub.models.empty import without_weights
from dp_hub.policies.config import DiffusionConfig
from dp_hub.policies.diffusion import DiffusionPolicy, make_policy
from dp_hub.policies.selection import Shape


def policy_with(
    config: DiffusionConfig, features: Mapping[str, Shape], state: Mapping[str, Tensor], where: str
) -> DiffusionPolicy:
    """The policy, in evaluation mode.

    Args:
        config: of it.
        features: shape of everything it observes or predicts.
        state: its weights, by our names.
        where: what they were read from, for the messages.
    Raises:
        PolicyError: weights are missing, left over or of other shapes; they are named.
    """
    with without_weights():  # of settings that claim too much, nothing is ever made
        policy = make_policy(config, features)
    expected = {name: tuple(value.shape) for name, value in policy.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    for name in [*expected, *found]:
        here, there = expected.get(name), found.get(name)
        if here != there:
            raise PolicyError(
                f"the weights in {where} are not those its settings speak of: `{name}` is "
                f"{_shape(there)}, and should be {_shape(here)}"
            )
    policy.load_state_dict(dict(state), assign=True)
    return policy.eval()


def check_new(folder: Path) -> None:
    """Raises PolicyError unless there is nothing at ``folder``, or an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PolicyError(f"{folder} is there already", hint="name another folder")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else f"of shape {shape}"
