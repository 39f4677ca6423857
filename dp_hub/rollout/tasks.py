"""The environments a policy can be evaluated in, by name."""

from collections.abc import Mapping, Sequence

from dp_hub.envs.pusht.physics import MAX_EPISODE_STEPS
from dp_hub.envs.pusht.vector import PushTVector
from dp_hub.errors import PolicyError

IMAGE_PX = 96
SHAPES: dict[str, dict[str, int | tuple[int, int, int]]] = {
    "pusht": {
        "observation.state": 5,
        "observation.environment_state": 18,
        "observation.image": (IMAGE_PX, IMAGE_PX, 3),
    }
}
ONLY_FIRST = {("pusht", "observation.state"): {2: "the agent's position, as in LeRobot's PushT"}}
"""Where a policy may observe only the first numbers of a feature: how many, and what they are."""
MAX_STEPS = {"pusht": MAX_EPISODE_STEPS}


def check_env(env: str) -> None:
    """Raises PolicyError for an environment we do not have."""
    if env not in SHAPES:
        raise PolicyError(
            f"no environment is called {env!r}", hint=f"there is {', '.join(sorted(SHAPES))}"
        )


def needed_features(observations: Sequence[str], env: str) -> tuple[str, ...]:
    """Feature names in a policy's ``observations``, such as ``observation.state[:2]``.

    Raises:
        PolicyError: the environment does not give one of them.
    """
    names = tuple(dict.fromkeys(entry.partition("[")[0] for entry in observations))
    for name in names:
        if name not in SHAPES[env]:
            raise PolicyError(
                f"the policy observes `{name}`, which {env} does not give",
                hint=f"{env} gives {', '.join(SHAPES[env])}",
            )
    return names


def only_first(
    features: Mapping[str, int | tuple[int, int, int]], names: Sequence[str], env: str
) -> dict[str, int]:
    """Features of which a policy is given the first numbers only, and how many.

    LeRobot's PushT has less in a feature than ours of the same name.

    Args:
        features: shape of everything the policy reads or predicts.
        names: what it observes.
        env: the environment.
    Raises:
        PolicyError: it observes another form of a feature than the environment gives.
    """
    result = {}
    for name in names:
        wanted, given = features[name], SHAPES[env][name]
        if wanted == given:
            continue
        if not isinstance(wanted, int) or wanted not in ONLY_FIRST.get((env, name), {}):
            raise PolicyError(
                f"the policy observes {_in_words(wanted)} as `{name}`, {env} gives "
                f"{_in_words(given)}",
                hint="it was trained on another form of the task, and cannot be scored in this one",
            )
        result[name] = wanted
    return result


def _in_words(shape: int | tuple[int, int, int]) -> str:
    if isinstance(shape, int):
        return f"{shape} numbers"
    return f"pictures of {' x '.join(map(str, shape))}"


def make_tables(env: str, n: int, features: Sequence[str], max_steps: int) -> PushTVector:
    """``n`` environments in one process; images are drawn only for a policy that looks at them."""
    check_env(env)
    draws = "observation.image" in features
    return PushTVector(n, render_px=IMAGE_PX if draws else None, max_steps=max_steps)
