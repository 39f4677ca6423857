"""What a user wishes of a conversion beyond the defaults: names for keys, or a whole mapping."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp_hub.dataset.conversion.source import has_recordings
from dp_hub.dataset.features import check_feature_name, check_known_keys
from dp_hub.errors import DataError
from dp_hub.replay.source import Converter, RecordingConverter, Source

if TYPE_CHECKING:
    from dp_hub.replay.mapping.config import MappingConfig


@dataclass(frozen=True)
class Wish:
    """What was asked for.

    Args:
        names: feature names by source key.
        drop: source keys to leave out.
        mapping: a whole mapping instead of both.
        robot_type: of the robot.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    mapping: "MappingConfig | None" = None
    robot_type: str | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        """The format's own options that the mapping gives."""
        return self.mapping.options if self.mapping else {}

    @property
    def fps(self) -> float | None:
        """Frames per second that the mapping gives."""
        return (self.mapping.fps or self.mapping.source_fps) if self.mapping else None

    @property
    def plain(self) -> dict[str, Any] | None:
        """The mapping as plain values, from which it can be built again; only what was set."""
        if self.mapping is None:
            return None
        return self.mapping.model_dump(mode="json", by_alias=True, exclude_unset=True)


def read_wish(
    mapping: "Mapping[str, str] | MappingConfig | str | Path | None",
    *,
    drop: Sequence[str],
    fps: float | None,
    task: str | None,
    robot_type: str | None,
) -> Wish:
    """What `dp_hub.dataset.convert.convert` was asked for. What is given comes before the mapping.

    Raises:
        ConfigError: the mapping's file is not valid.
        DataError: a name that no feature can have, or both a mapping and ``drop``.
    """
    if mapping is None or isinstance(mapping, Mapping):
        for key, feature in (mapping or {}).items():
            check_feature_name(feature, key)
        return Wish(mapping or {}, tuple(drop), robot_type=robot_type)
    from dp_hub.replay.mapping.config import load_mapping

    whole = load_mapping(mapping) if isinstance(mapping, str | Path) else mapping
    if drop:
        raise DataError(
            f"both a mapping and keys to leave out ({', '.join(drop)})",
            hint="only what the mapping names is taken; leave it out there",
        )
    changed: dict[str, Any] = {} if fps is None else {"fps": fps}
    if task is not None and isinstance(whole.task, str):
        changed["task"] = task
    return Wish(mapping=whole.model_copy(update=changed), robot_type=robot_type or whole.robot_type)


def check_wish(
    wish: Wish, converter: Converter | RecordingConverter, found: Source, path: Path
) -> None:
    """Whether it goes with the source.

    Raises:
        DataError: keys or streams that the source does not have, or streams that each have times of
            their own without a mapping.
    """
    if wish.mapping is not None:
        from dp_hub.replay.mapping.check import check_mapping

        check_mapping(wish.mapping, found)
        if has_recordings(converter) and wish.mapping.fps is None:
            raise DataError(
                "streams with times of their own need a rate to be put on",
                hint="begin the mapping with fps: 30, or what it shall be, or give --fps",
            )
    elif has_recordings(converter):
        raise DataError(
            f"{path} holds streams that each have times of their own; a mapping has to say which "
            "features become of them, and how",
            hint=f"dp-hub inspect {path} --mapping M.yaml proposes one; look at it, then convert "
            "with --mapping M.yaml",
        )
    else:
        check_known_keys([*wish.drop, *wish.names], found.dtypes)


def spare_keys(wish: Wish, found: Source) -> frozenset[str]:
    """Keys that nobody asked for."""
    return frozenset(found.dtypes) - wish.mapping.streams() if wish.mapping else frozenset()


def as_features(wish: Wish, found: Source) -> Source:
    """What is known of the source's keys, told of the features that a mapping makes of them."""
    if wish.mapping is None:
        return found
    from dp_hub.replay.mapping.check import feature_names

    names, recode = feature_names(wish.mapping, found.names), {}
    for feature, made in wish.mapping.features.items():
        only = made.terms[0].stream if made.terms and len(made.terms) == 1 else ""
        if only in found.recode:
            recode[feature] = found.recode[only]
    return replace(found, dtypes={}, features={}, names=names, recode=recode)
