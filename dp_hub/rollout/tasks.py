"""The environments a policy can be evaluated in, by name."""

from collections.abc import Sequence

from dp_hub.envs.pusht.physics import MAX_EPISODE_STEPS
from dp_hub.envs.pusht.vector import PushTVector
from dp_hub.errors import PolicyError

OBSERVATIONS = {
    "pusht": ("observation.state", "observation.environment_state", "observation.image"),
}
MAX_STEPS = {"pusht": MAX_EPISODE_STEPS}
IMAGE_PX = 96


def check_env(env: str) -> None:
    """Raises PolicyError for an environment we do not have."""
    if env not in OBSERVATIONS:
        raise PolicyError(
            f"no environment is called {env!r}", hint=f"there is {', '.join(sorted(OBSERVATIONS))}"
        )


def needed_features(observations: Sequence[str], env: str) -> tuple[str, ...]:
    """Feature names in a policy's ``observations``, such as ``observation.state[:2]``.

    Raises:
        PolicyError: the environment does not give one of them.
    """
    names = tuple(dict.fromkeys(entry.partition("[")[0] for entry in observations))
    for name in names:
        if name not in OBSERVATIONS[env]:
            raise PolicyError(
                f"the policy observes `{name}`, which {env} does not give",
                hint=f"{env} gives {', '.join(OBSERVATIONS[env])}",
            )
    return names


def make_tables(env: str, n: int, features: Sequence[str], max_steps: int) -> PushTVector:
    """``n`` environments in one process; images are drawn only for a policy that looks at them."""
    check_env(env)
    draws = "observation.image" in features
    return PushTVector(n, render_px=IMAGE_PX if draws else None, max_steps=max_steps)
