"""What a recorder is doing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RecorderState:
    """What to show.

    Args:
        recording: the name of the episode that is being recorded, or that waits for its end.
        since_s: when that began.
        saving: episodes on their way into the dataset.
        n_episodes: that the dataset has.
        lost: pictures and samples of the episode that went by unrecorded.
        backlog: pictures that wait for their encoders.
    """

    recording: str | None
    since_s: float | None
    saving: int
    n_episodes: int
    lost: int
    backlog: int
