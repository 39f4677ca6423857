"""PushT's mirror: reflecting the table over the line x + y = 512 maps the goal, the T and the walls
to themselves, so that every demonstration has a twin that is just as good.
"""

import math
from collections.abc import Mapping

import numpy as np

from dp_hub.envs.pusht.physics import T_KEYPOINTS, TABLE_PX, keypoints_of
from dp_hub.errors import DataError


def mirrored(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The frames seen in the mirror, in the columns' dtypes.

    Args:
        columns: ``observation.state`` (N, 5), ``observation.environment_state`` (N, 18) and
            ``action`` (N, 2), any of them, in px and radians; ``observation.image`` (N, H, H, C).
    Raises:
        DataError: a column that the mirror does not know, or of another width.
    """
    return {name: _mirror(name, column).astype(column.dtype) for name, column in columns.items()}


def mirrored_pictures(pictures: np.ndarray) -> np.ndarray:
    """Square pictures of the table, (..., H, H, C), seen in the mirror; a view."""
    return pictures[..., ::-1, ::-1, :].swapaxes(-3, -2)


def _mirror(name: str, column: np.ndarray) -> np.ndarray:
    match name, column.shape[1:]:
        case "action", (2,):
            return _point(column)
        case "observation.state", (5,):
            # A reflected body shows its own mirror image, which for the T is a turn.
            angle = (math.pi / 2 - column[:, 4:]) % (2 * math.pi)
            return np.concatenate([_point(column[:, :2]), _point(column[:, 2:4]), angle], axis=1)
        case "observation.environment_state", (18,):
            return _keypoints(column)
        case "observation.image", (height, width, _) if height == width:
            return mirrored_pictures(column)
    raise DataError(
        f"PushT's mirror does not know the feature {name} of shape {column.shape[1:]}",
        hint="it mirrors action (2), observation.state (5), observation.environment_state (18) "
        "and observation.image (square)",
    )


def _point(xy: np.ndarray) -> np.ndarray:
    return TABLE_PX - xy[:, ::-1]


def _keypoints(column: np.ndarray) -> np.ndarray:
    # The nine points do not lie symmetrically on the T: recover its pose, then mirror that.
    points = column.reshape(-1, len(T_KEYPOINTS), 2).astype(np.float64)
    centre, body_centre = points.mean(axis=1), T_KEYPOINTS.mean(axis=0)
    spread, body = points - centre[:, None], T_KEYPOINTS - body_centre
    cos = np.einsum("nki,ki->n", spread, body)
    sin = np.einsum("nk,k->n", spread[..., 1], body[:, 0]) - np.einsum(
        "nk,k->n", spread[..., 0], body[:, 1]
    )
    angle = np.arctan2(sin, cos)
    x = centre[:, 0] - (np.cos(angle) * body_centre[0] - np.sin(angle) * body_centre[1])
    y = centre[:, 1] - (np.sin(angle) * body_centre[0] + np.cos(angle) * body_centre[1])
    twin = keypoints_of(TABLE_PX - y, TABLE_PX - x, math.pi / 2 - angle)
    return twin.reshape(column.shape)
