"""Which videos of a source are taken over packet by packet instead of being encoded again.

Encoding again costs time and loses a little once more. But packets only stand on their own from a
key frame on, in the order they are shown in, and at the dataset's rate.
"""

from collections.abc import Mapping
from typing import Any

from dp_hub.dataset.features import ImageMode
from dp_hub.replay.clip import VideoClip

COPYABLE = ("av1", "h264", "hevc", "vp9")


def plan_copies(
    first: Mapping[str, Any],
    *,
    images: ImageMode,
    codec: str | None,
    fps: float,
    recode: Mapping[str, str],
) -> tuple[dict[str, str], dict[str, str]]:
    """What is copied, and what is not although nothing else was asked for.

    Args:
        first: the values of the first episode by key; those that are a `VideoClip` are looked at.
        images: ``webp`` and ``png`` copy nothing.
        codec: the codec asked for; None: any.
        fps: of the dataset.
        recode: by key, why the source says that it cannot be copied.
    Returns:
        By key, the pixel format of what is copied; by key, why the others are not.
    """
    copied: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for key, clip in first.items():
        if not isinstance(clip, VideoClip) or images not in ("auto", "video"):
            continue
        if codec not in (None, clip.codec):
            continue
        reason = recode.get(key) or _why_not(clip, fps)
        if reason:
            reasons[key] = reason
        else:
            copied[key] = clip.pix_fmt()
    return copied, reasons


def _why_not(clip: VideoClip, fps: float) -> str | None:
    from dp_hub.dataset.packets import NotCopyableError, clips_sha256
    from dp_hub.dataset.video import exact_rate

    if clip.codec not in COPYABLE:
        return f"{clip.codec} is not a codec that datasets are read with"
    if clip.rate != exact_rate(fps):
        return f"it has {float(clip.rate):g} frames a second, the dataset {fps:g}"
    try:
        clips_sha256([clip])
    except NotCopyableError as error:
        return str(error)
    return None
