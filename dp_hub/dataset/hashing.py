"""sha256 of what an episode holds, and the fingerprint of a dataset made of them.

The hash covers feature names, types, shapes, decoded values and the task, not how they are encoded:
the same episode as WebP or PNG, in one file or in many, has the same hash. Video loses something,
so there the hash covers the recorded frames and the codec with its settings.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dp_hub.dataset.features import Column


def episode_sha256(
    columns: Sequence[Column], stored: Mapping[str, np.ndarray], task: str, *, video: str = ""
) -> str:
    """sha256 of one episode, hex.

    Args:
        columns: the dataset's columns.
        stored: by feature: ``(T, n)`` in the feature's type, or uint8 ``(T, H, W, C)``.
        task: the task's text.
        video: what describes the video encoding, for features of dtype ``video``.
    """
    ordered = sorted(columns, key=lambda column: column.feature)
    kinds = {"image": "uint8", "video": video}
    header = {
        "features": [[c.feature, kinds.get(c.dtype, c.dtype), list(c.shape)] for c in ordered],
        "length": len(stored[ordered[0].feature]),
        "task": task,
    }
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for column in ordered:
        values = stored[column.feature]
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        digest.update(np.ascontiguousarray(little).data)
    return digest.hexdigest()


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
