"""sha256 of what an episode holds, and the fingerprint of a dataset made of them.

The hash covers feature names, types, shapes, decoded values and the task, not how they are stored:
the same episode as WebP or PNG, in one file or in many, has the same hash. Of a video it covers the
encoded packets, which are what is kept, and which stay the same when they move to another file.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np

from dp_hub.dataset.features import Column


class EpisodeHash:
    """sha256 of one episode, taken feature by feature.

    Args:
        columns: the dataset's columns.
        length: number of frames T.
        task: the task's text.
    """

    def __init__(self, columns: Sequence[Column], length: int, task: str) -> None:
        self.order = sorted(columns, key=lambda column: column.feature)
        """The features in the order in which they must be added."""
        kinds = {"image": "uint8", "video": "packets"}
        header = {
            "features": [
                [c.feature, kinds.get(c.dtype, c.dtype), list(c.shape)] for c in self.order
            ],
            "length": length,
            "task": task,
        }
        self._digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())

    def add(self, values: np.ndarray) -> None:
        """Some frames of a feature, in order: ``(t, n)`` in its type, or uint8 ``(t, H, W, C)``."""
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        self._digest.update(np.ascontiguousarray(little).data)

    def add_video(self, sha256: str) -> None:
        """A video feature, by `dp_hub.dataset.packets.clips_sha256`."""
        self._digest.update(bytes.fromhex(sha256))

    def hexdigest(self) -> str:
        """The hash, hex."""
        return self._digest.hexdigest()


class Fingerprint:
    """The dataset's fingerprint, built episode by episode.

    Args:
        header: features and rate, see `dp_hub.dataset.features.fingerprint_header`.
    """

    def __init__(self, header: bytes) -> None:
        self._digest = hashlib.sha256(header)

    def add(self, episode_sha256: str) -> None:
        """Take the next episode in."""
        self._digest.update(bytes.fromhex(episode_sha256))

    def hexdigest(self) -> str:
        """The fingerprint of the episodes so far."""
        return self._digest.hexdigest()


def fingerprint(header: bytes, episodes: Iterable[str]) -> str:
    """The fingerprint of a dataset with these features and episode hashes, in order."""
    result = Fingerprint(header)
    for sha256 in episodes:
        result.add(sha256)
    return result.hexdigest()
