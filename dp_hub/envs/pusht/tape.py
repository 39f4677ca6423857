"""One PushT episode as it is recorded: the original's keys, one row a control step."""

from typing import Any

import numpy as np

from dp_hub.envs.pusht.physics import PushTPhysics, keypoints_of

IMAGE_PX = 96


class Tape:
    """Collects what a table shows and the action taken there, as the original's collector does.

    Args:
        table: the table in play; made with ``count_contacts`` if contacts are recorded.
        images: record ``img``.
        contacts: record ``n_contacts``.
    """

    def __init__(self, table: PushTPhysics, *, images: bool, contacts: bool) -> None:
        self._table, self._contacts = table, contacts
        self._drawing: Any = None
        if images:
            from dp_hub.envs.pusht.drawing import PushTDrawing  # pygame, only where it draws

            self._drawing = PushTDrawing()
        self._rows: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self._rows.get("action", ()))

    def clear(self) -> None:
        """Forget all rows: the episode starts again."""
        self._rows = {}

    def add(self, action: np.ndarray) -> None:
        """Record the table as it is now and the action (2,) about to be taken, in px."""
        state = self._table.state()
        row: dict[str, Any] = {
            "state": state,
            "keypoint": keypoints_of(*self._table.block_pose()),
            "action": action,
        }
        if self._contacts:
            row["n_contacts"] = [self._table.n_contacts()]
        if self._drawing is not None:
            row["img"] = self._drawing.frame(self._table, IMAGE_PX)
        for key, value in row.items():
            self._rows.setdefault(key, []).append(value)

    def arrays(self) -> dict[str, np.ndarray]:
        """The episode, T rows each.

        Returns:
            ``state`` float32 (T, 5): agent x, y, block x, y, angle in [0, 2 pi);
            ``keypoint`` float32 (T, 9, 2); ``action`` float32 (T, 2), applied at ``state[t]``;
            if asked for, ``n_contacts`` float32 (T, 1) and ``img`` uint8 (T, 96, 96, 3).
        """
        return {
            key: np.array(rows, dtype=np.uint8 if key == "img" else np.float32)
            for key, rows in self._rows.items()
        }


def keys_of(*, images: bool, contacts: bool) -> set[str]:
    """Names of the arrays that a tape makes."""
    extra = {"img": images, "n_contacts": contacts}
    return {"state", "keypoint", "action", *(key for key, wanted in extra.items() if wanted)}
