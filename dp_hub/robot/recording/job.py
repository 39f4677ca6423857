"""What a recorder's process is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp_hub.robot.shared.queue import QueueSpec
from dp_hub.robot.shared.ring import RingSpec

if TYPE_CHECKING:
    from dp_hub.dataset.features import ImageMode


@dataclass(frozen=True)
class RecorderJob:
    """What to record, and where to.

    Args:
        rings: of the streams, by name.
        rates_hz: how often samples come, by stream.
        sent: streams of what was sent: of these nothing from before an episode counts.
        mapping: `MappingConfig` as plain values, by its file's words.
        to: the dataset.
        raw: folder of the raw streams.
        keep_raw: whether they stay when the dataset has an episode.
        source: see `EpisodeSaver`; images and codec too.
    """

    rings: Mapping[str, RingSpec]
    rates_hz: Mapping[str, float]
    mapping: Mapping[str, Any]
    to: Path
    raw: Path
    sent: frozenset[str] = frozenset()
    keep_raw: bool = True
    source: Mapping[str, Any] = field(default_factory=dict)
    images: "ImageMode" = "auto"
    codec: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class RecorderArgument:
    """What its process is given."""

    job: RecorderJob
    orders: QueueSpec
    answers: QueueSpec
