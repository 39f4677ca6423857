"""The mapping file: which features a dataset gets, from which streams, and what is done to them.

A stream is whatever a source has a name for: a topic's field, a camera, an array of rows. The file
is YAML and strict; what it means is in docs/recordings.md.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from dp_hub.config import Config, build, read_yaml
from dp_hub.replay.mapping.selection import Selection, read_selection, split_name
from dp_hub.replay.timeline import Method, OnGap

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1, le=16384)]
PICTURE_KEYS = ("colour", "rotate", "flip", "crop", "resize")
NUMBER_KEYS = ("degrees", "rotation", "scale", "offset", "invert")
TIME_KEYS = ("method", "latency_s", "max_gap_s")


# What is dumped can be read again; the file's own words are the aliases.
_ALIASED = ConfigDict(populate_by_name=True, serialize_by_alias=True)


class RotationChange(Config):
    """How rotations are written in the source, and how they shall be."""

    model_config = _ALIASED

    source: str = Field(alias="from")
    to: str

    @field_validator("source", "to")
    @classmethod
    def _known(cls, name: str) -> str:
        from dp_hub.errors import DataError
        from dp_hub.replay.rotations import size_of

        try:
            size_of(name)
        except DataError as error:
            raise ValueError(" - ".join(filter(None, (error.message, error.hint)))) from None
        return name


class Numbers(Config):
    """What may be done to numbers, in this order, and how they follow the grid."""

    degrees: Literal["to_rad", "to_deg"] | None = None  # to_rad before a rotation, to_deg after it
    rotation: RotationChange | None = None
    scale: Finite | list[Finite] | None = None  # times this, one for all or for each
    offset: Finite | list[Finite] | None = None  # then plus this
    invert: bool | tuple[Finite, Finite] | None = None  # then 1 - x, or low + high - x
    method: Method | None = None
    latency_s: Finite | None = None
    max_gap_s: Positive | None = None


class Term(Numbers):
    """One stream, or some numbers of it. A plain text ``/joints[0:6]`` is one too."""

    stream: str = Field(min_length=1)
    at: str = ""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, at = split_name(value)
        read_selection(at)
        return {"stream": name, "at": at}

    @field_validator("at")
    @classmethod
    def _written(cls, text: str) -> str:
        read_selection(text)
        return text

    @field_validator("stream")
    @classmethod
    def _only_name(cls, name: str) -> str:
        if "[" in name or "]" in name:
            stem, at = split_name(name)
            raise ValueError(f'beside other settings it is stream: {stem}, at: "{at}"')
        return name

    @property
    def selection(self) -> Selection:
        """Which numbers are meant."""
        return read_selection(self.at)


class Feature(Numbers):
    """One feature of the dataset: joined streams, or another feature one step later."""

    model_config = _ALIASED

    terms: list[Term] | None = Field(None, alias="from", min_length=1)
    next: list[str] | None = Field(None, min_length=1)
    shift: int = Field(0, ge=-100_000, le=100_000)  # 1: the value of one step later
    drop_last: bool = False  # steps after whose end a value would be, instead of repeating the last
    dtype: Literal["float32", "float64", "int32", "int64", "uint8", "bool"] | None = None
    names: list[str] | None = None
    colour: Literal["rgb", "bgr", "rgba", "bgra"] | None = None
    rotate: Literal[0, 90, 180, 270] = 0  # clockwise
    flip: Literal["vertical", "horizontal"] | None = None  # vertical: what was up is down
    crop: tuple[int, int, Pixels, Pixels] | None = None  # top, left, height, width
    resize: tuple[Pixels, Pixels] | None = None  # height, width

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {"from": value} if isinstance(value, str | list) else value

    @field_validator("terms", "next", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Mapping) else value

    @field_validator("crop")
    @classmethod
    def _inside(cls, crop: tuple[int, int, int, int] | None) -> Any:
        if crop and min(crop[:2]) < 0:
            raise ValueError("a crop is [top, left, height, width], counted from the top left")
        return crop

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.terms is None) == (self.next is None):
            raise ValueError("it needs either `from` (streams) or `next` (another feature)")
        if self.next is None:
            if any(part.method == "slerp" and not part.rotation for part in self.parts()):
                raise ValueError(
                    "slerp turns rotations; say how they are written, such as "
                    "rotation: {from: quat_xyzw, to: quat_xyzw}"
                )
            if self.drop_last and self.shift <= 0:
                raise ValueError("`drop_last` goes with `next` or a `shift` above 0")
            return self
        for name in next_names(self):
            read_selection(split_name(name)[1])
        own = {"terms", "next", "drop_last", "dtype", "names"}
        if other := [key for key, value in self if value and key not in own]:
            raise ValueError(f"`next` takes values as the other feature has them: no `{other[0]}`")
        return self

    def parts(self) -> list[Term]:
        """The terms, with what is set for all of them where they set nothing themselves."""
        common = {key: getattr(self, key) for key in (*NUMBER_KEYS, *TIME_KEYS)}
        return [
            term.model_copy(update={k: v for k, v in common.items() if getattr(term, k) is None})
            for term in self.terms or ()
        ]

    @property
    def edits_pictures(self) -> bool:
        """Whether anything is done to pictures."""
        return any(bool(getattr(self, key)) for key in PICTURE_KEYS if key != "colour") or (
            self.colour not in (None, "rgb")
        )


def next_names(feature: Feature) -> list[str]:
    """The texts after ``next``."""
    return feature.next or []


class Episodes(Config):
    """What an episode is, within a recording."""

    split: Literal["recording", "gap", "change", "flag"] = "recording"
    stream: str | None = None  # whose gaps or values split; gap: by default any of those used
    gap_s: Positive = 5.0
    value: Any = None  # change: only these; flag: an episode while it is this, by default true
    ignore: tuple[Any, ...] = ()  # change: values that are no episode
    min_s: NotNegative = 0.0  # what is shorter is left out

    @model_validator(mode="after")
    def _whose(self) -> Self:
        if self.split in ("change", "flag") and not self.stream:
            raise ValueError(f"split: {self.split} needs `stream`: whose values split")
        spare = {"gap": ("value", "ignore"), "flag": ("gap_s", "ignore"), "change": ("gap_s",)}
        extra = spare.get(self.split, ("stream", "gap_s", "value", "ignore"))
        usual = {key: type(self).model_fields[key].default for key in extra}
        if other := [key for key in extra if getattr(self, key) != usual[key]]:
            raise ValueError(f"split: {self.split} has no use for `{other[0]}`")
        return self


class TaskStream(Config):
    """A stream of texts: an episode's task is the one that holds when it begins."""

    stream: str


class MappingConfig(Config):
    """A whole mapping file."""

    fps: Positive | None = None
    source_fps: Positive | None = None  # of rows, where the source does not say
    task: str | TaskStream | None = None
    robot_type: str | None = None
    options: Mapping[str, Any] = Field(default_factory=dict)  # the format's own
    episodes: Episodes = Episodes()
    on_gap: OnGap = "split"
    keep_times: bool = False
    features: dict[str, Feature] = Field(min_length=1)

    @field_validator("features")
    @classmethod
    def _named(cls, features: dict[str, Feature]) -> dict[str, Feature]:
        for name in features:
            if not name or "/" in name or name != name.strip():
                raise ValueError(f"{name!r} is no feature name: they have no '/' and no edges")
        return features

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for name, feature in self.features.items():
            _check_next(name, feature, self.features)
            _check_action(name, feature)
            if self.keep_times and name.startswith("times."):
                raise ValueError(f"`features.{name}` takes the place of a time that is kept")
        return self

    def streams(self) -> set[str]:
        """Names of all streams that are needed: the features', and those that split or name."""
        named = {term.stream for f in self.features.values() for term in f.terms or ()}
        if self.episodes.stream:
            named.add(split_name(self.episodes.stream)[0])
        return named | ({self.task.stream} if isinstance(self.task, TaskStream) else set())

    def places(self) -> Iterator[tuple[str, str]]:
        """Every stream that is named, with its place in the file."""
        for name, feature in self.features.items():
            for i, term in enumerate(feature.terms or ()):
                alone = len(feature.terms or ()) == 1
                yield term.stream, f"features.{name}.from" + ("" if alone else f"[{i}]")
        if self.episodes.stream:
            yield split_name(self.episodes.stream)[0], "episodes.stream"
        if isinstance(self.task, TaskStream):
            yield self.task.stream, "task.stream"


def is_action(name: str) -> bool:
    """Whether a feature is what a policy shall do: it must not know what comes after."""
    return name == "action" or name.startswith("action.")


def load_mapping(path: str | Path) -> MappingConfig:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file is missing or not valid, or has an unknown key (with the nearest known
            one) or a value that does not fit; the place is named like ``features.action.from[1]``.
    """
    path = Path(path)
    return build(MappingConfig, read_yaml(path), where=str(path))


def _check_next(name: str, feature: Feature, features: Mapping[str, Feature]) -> None:
    import difflib

    for text in next_names(feature):
        other, _ = split_name(text)
        if other not in features:
            near = difflib.get_close_matches(other, features, n=1)
            more = f"; did you mean `{near[0]}`?" if near else f" among {', '.join(features)}"
            raise ValueError(f"`features.{name}.next` names {other!r}, which is no feature{more}")
        if features[other].next is not None or features[other].shift:
            raise ValueError(
                f"`features.{name}.next` is {other!r}, which is moved in time itself; name a "
                "feature that is taken as it is"
            )


def _check_action(name: str, feature: Feature) -> None:
    if not is_action(name):
        return
    for part in feature.parts():
        if part.method not in (None, "hold"):
            raise ValueError(
                f"`features.{name}` is {part.method}: that looks at values from after the step; an "
                "action holds, or is moved with `shift` or `next` where that is meant"
            )
