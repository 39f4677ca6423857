"""The session's end of the live view: a line to show, keys back, and no harm if it dies."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.shared.messages import Messages
from dp_hub.robot.shared.ring import RingSpec
from dp_hub.robot.view.window import ViewJob, run
from dp_hub.robot.worker import Worker

log = logging.getLogger(__name__)
_READY_S = 30.0
_LONGEST = 300  # characters of a line
_EVERY_S = 0.1


class LiveView:
    """A window with all cameras; a `KeySource` too.

    Args:
        cameras: rings by name.
        references: by camera, a picture to lay over what it sees.
        title: of the window.
    """

    def __init__(
        self,
        cameras: Mapping[str, RingSpec],
        *,
        references: Mapping[str, np.ndarray] | None = None,
        title: str = "dp-hub",
    ) -> None:
        self._status, self._keys = Messages.create(capacity=8), Messages.create()
        job = ViewJob(cameras, self._status.spec, self._keys.spec, dict(references or {}), title)
        self._worker: Worker[Any] = Worker("live view", run, job)
        self._is_over = False
        self._shown: tuple[float, tuple[str, ...]] = (0.0, ())

    def start(self) -> None:
        """Open the window.

        Raises:
            RobotError: it cannot be opened.
        """
        self._worker.start()
        self._worker.wait_ready(_READY_S)

    @property
    def is_alive(self) -> bool:
        """Whether the window is there."""
        return not self._is_over and self._worker.is_alive

    def show(self, lines: Sequence[str]) -> None:
        """Show lines of text below the pictures. Never waits, and never fails."""
        if self._is_over:
            return
        now_s, told = time.monotonic(), tuple(line[:_LONGEST] for line in lines)
        if told != self._shown[1] and now_s - self._shown[0] >= _EVERY_S:
            self._shown = now_s, told
            self._status.send({"lines": told})

    def read(self) -> list[str]:
        """Keys since the last call; ``q`` when the window was closed. None once it has died."""
        if self._is_over:
            return []
        keys = [str(message["key"]) for message in self._keys.receive()]
        try:
            self._worker.check()
        except RobotError as error:
            self._end()
            if "q" not in keys:
                log.warning("the live view is gone: %s; the rest goes on", error.message)
        return keys

    def close(self) -> None:
        """Close the window."""
        if not self._is_over:
            self._end()

    def _end(self) -> None:
        self._is_over = True
        self._worker.stop(2.0)
        self._status.close()
        self._keys.close()


def first_frame(dataset: str, episode: int) -> dict[str, np.ndarray]:
    """The pictures of an episode's first frame, uint8 (H, W, 3) by feature, as references.

    Args:
        dataset: a folder, or a name on the Hub.
        episode: its number; from the end if below 0.
    Raises:
        DataError: there is no such dataset or episode, or it has no pictures.
    """
    from dp_hub.dataset.reader import open_dataset
    from dp_hub.errors import DataError

    opened = open_dataset(dataset)
    if not -opened.n_episodes <= episode < opened.n_episodes:
        raise DataError(
            f"{dataset} has no episode {episode}",
            hint=f"it has {opened.n_episodes}, numbered from 0",
        )
    row = int(opened.episodes.starts[episode])
    names = [name for name, feature in opened.features.items() if feature.is_visual]
    if not names:
        raise DataError(f"{dataset} has no pictures to lay over those of a camera")
    return {name: np.array(opened.column(name)[row]) for name in names}
