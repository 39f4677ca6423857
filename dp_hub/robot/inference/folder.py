"""What a policy folder says of its policy, read without torch: robots need to know it at once.

Only what is needed here is looked at. The process that loads the policy reads all of it, strictly,
and compares.
"""

from pathlib import Path
from typing import Any

from dp_hub.config import read_json
from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.inference.info import PolicyInfo


def read_info(
    folder: Path, *, name: str | None = None, sha: str | None = None, period_s: float | None = None
) -> PolicyInfo:
    """Of the policy in ``folder``.

    Args:
        folder: a policy folder.
        name: as it was asked for; None: the folder's.
        sha: the commit that it was pulled at.
        period_s: seconds between steps, which policies do not tell.
    Raises:
        RobotError: it is no policy folder.
    """
    path = folder / "config.json"
    try:
        values = read_json(path)
        policy, features = values["policy"], values["features"]
        return PolicyInfo(
            name=name or str(folder),
            sha=sha,
            kind=str(policy["kind"]),
            n_obs_steps=int(policy["n_obs_steps"]),
            n_action_steps=int(policy["n_action_steps"]),
            horizon=int(policy["horizon"]),
            period_s=period_s,
            observations=tuple(str(text) for text in policy["observations"]),
            action=str(policy["action"]),
            features={str(name): _shape(shape) for name, shape in features.items()},
        )
    except ConfigError as error:
        raise RobotError(
            f"no policy can be read from {folder}: {error.message}",
            hint="a training run's policy is in its sub-folder `policy`",
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RobotError(
            f"{path} does not say what its policy observes and predicts ({error!r})",
            hint="load the policy and save it again with this version of dp_hub",
        ) from None


def _shape(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(int(size) for size in value)
