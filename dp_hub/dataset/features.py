"""Which source key becomes which feature of the dataset, and how its values are stored.

LeRobot takes a feature's role from its name (``observation.state``, ``action`` ...), stores vectors
one-dimensional and pictures as uint8 ``(H, W, C)``. A `Column` says how one source key gets there
and back, so that an export returns the source's arrays bit for bit.
"""

import difflib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dp_hub.errors import DataError

ImageMode = Literal["auto", "webp", "png", "video"]
DEFAULT_NAMES = {
    "action": "action",
    "state": "observation.state",
    "keypoint": "observation.environment_state",
}
DEFAULT_PICTURE_NAMES = {"img": "observation.image"}
# Every LeRobot dataset has these; they are made from the episode index, not from the source.
INDEX_DTYPES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
_RESERVED = {*INDEX_DTYPES, "task"}
_SMALL_IMAGE_PX = 128
_MIN_IMAGE_PX = 8


@dataclass(frozen=True)
class Column:
    """One source key and the feature it becomes.

    Args:
        key: name in the source.
        feature: name in the dataset.
        source_shape: shape of one step in the source.
        source_dtype: type of the source's values, as numpy spells it.
        dtype: the feature's type: a numpy type, ``"image"`` or ``"video"``.
        shape: the feature's shape: ``(n,)``, or ``(H, W, C)`` for pictures.
        layout: ``"chw"`` for pictures that the source holds channels first, else None.
        scale: what picture values are multiplied with to be 0..255 (1 or 255); None: not yet known.
        encoding: ``webp`` or ``png`` for images, ``h264`` or ``av1`` for videos (copied ones: as
            FFmpeg calls it), else None.
        copied: the video's packets are the source's.
        pix_fmt: how a copied video stores pixels, as FFmpeg calls it; None: ``yuv420p``.
        names: of the feature's numbers, where the source has names; None: made from the feature's.
    """

    key: str
    feature: str
    source_shape: tuple[int, ...]
    source_dtype: str
    dtype: str
    shape: tuple[int, ...]
    layout: str | None = None
    scale: int | None = None
    encoding: str | None = None
    copied: bool = False
    pix_fmt: str | None = None
    names: tuple[str, ...] | None = None

    @property
    def is_visual(self) -> bool:
        """Whether the feature holds pictures."""
        return self.dtype in ("image", "video")

    @property
    def note(self) -> str | None:
        """What was done to the values, in words; None if they are stored as they were."""
        if not self.is_visual:
            return None
        done = []
        if self.source_dtype != "uint8":
            values = "0..255" if self.scale == 1 else "k/255"
            done.append(f"{self.source_dtype} {values} to uint8")
        if self.layout == "chw":
            done.append("channels last")
        if self.copied:
            done.append("copied as it is encoded")
        return ", ".join(done) or None

    def to_stored(self, values: np.ndarray, *, episode: int, first: int = 0) -> np.ndarray:
        """The stored form of frames: ``(T, n)`` as in the source, or uint8 ``(T, H, W, C)``.

        Args:
            values: frames of one episode, ``(T, *source_shape)``.
            episode: its number, for messages.
            first: number of the first of these frames in the episode, for messages.

        Raises:
            DataError: shape or type differ from the first episode's, or picture values that do
                not fit into uint8 without loss.
        """
        kinds = {self.source_dtype, "uint8"} if self.is_visual else {self.source_dtype}
        if values.shape[1:] != self.source_shape or values.dtype.name not in kinds:
            raise DataError(
                f"{self.key} of episode {episode} is {values.dtype} {values.shape[1:]} per step; "
                f"in episode 0 it is {self.source_dtype} {self.source_shape}"
            )
        if not self.is_visual:
            # In the machine's byte order, (T, n).
            return np.ascontiguousarray(values, dtype=self.dtype).reshape(len(values), -1)
        if values.dtype != np.uint8:
            values = _to_uint8(values, self.scale or 1, self.key, episode, first)
        if self.layout == "chw":
            values = values.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(values).reshape(len(values), *self.shape)

    def to_source(self, stored: np.ndarray) -> np.ndarray:
        """The inverse of `to_stored`: ``(T, *source_shape)`` in the source's type."""
        if self.layout == "chw":
            stored = stored.transpose(0, 3, 1, 2)
        values = stored.reshape(len(stored), *self.source_shape)
        dtype = np.dtype(self.source_dtype)
        if self.scale == 255:
            return (values.astype(dtype) / dtype.type(255)).astype(dtype, copy=False)
        return np.ascontiguousarray(values).astype(dtype, copy=False)

    def info(self) -> dict[str, Any]:
        """The feature's entry in meta/info.json."""
        names: list[str] | None = None
        if self.is_visual:
            names = ["height", "width", "channels"]
        elif self.names:
            names = list(self.names)
        elif self.shape != (1,):
            stem = self.feature.rsplit(".", 1)[-1]
            names = [f"{stem}_{i}" for i in range(self.shape[0])]
        return {"dtype": self.dtype, "shape": list(self.shape), "names": names}

    def provenance(self) -> dict[str, Any]:
        """The key's entry in meta/dp_hub.json; `from_provenance` reads it."""
        entry: dict[str, Any] = {
            "feature": self.feature,
            "shape": list(self.source_shape),
            "dtype": self.source_dtype,
        }
        if self.layout:
            entry["layout"] = self.layout
        if self.scale not in (None, 1):
            entry["scale"] = self.scale
        if self.encoding:
            entry["encoding"] = self.encoding
        if self.copied:
            entry["copied"] = True
        if self.pix_fmt:
            entry["pix_fmt"] = self.pix_fmt
        if self.names:
            entry["names"] = list(self.names)
        return entry

    @classmethod
    def from_provenance(
        cls, key: str, entry: Mapping[str, Any], info: Mapping[str, Any]
    ) -> "Column":
        """The column of a written dataset, from meta/dp_hub.json and the feature's info."""
        visual = info["dtype"] in ("image", "video")
        names = entry.get("names")
        return cls(
            key=key,
            feature=entry["feature"],
            source_shape=tuple(entry["shape"]),
            source_dtype=entry["dtype"],
            dtype=info["dtype"],
            shape=tuple(info["shape"]),
            layout=entry.get("layout"),
            scale=entry.get("scale", 1) if visual else None,
            encoding=entry.get("encoding") if visual else None,
            copied=entry.get("copied") is True,
            pix_fmt=entry.get("pix_fmt"),
            names=tuple(map(str, names)) if names else None,
        )


def plan_columns(
    first: Mapping[str, np.ndarray],
    *,
    dtypes: Mapping[str, str] | None = None,
    mapping: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    images: ImageMode = "auto",
    codec: str | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    copied: Mapping[str, str] | None = None,
) -> list[Column]:
    """How every key of the first episode is stored.

    Args:
        first: the arrays ``(T, ...)`` of the first episode.
        dtypes: the source's types, for pictures that come as uint8 but are stored as floats.
        mapping: feature names for keys that should not get their default one.
        drop: keys to leave out.
        images: how pictures are stored; ``auto``: lossless WebP up to 128 px, else
                video if the size is even.
        codec: ``h264`` or ``av1``, for videos; default: ``h264``.
        names: of the numbers of a step, by key; used where there is one for each.
        copied: keys whose values are a `VideoClip` that is taken over packet by packet, with their
            pixel format; see `dp_hub.dataset.conversion.copying`.
    Raises:
        DataError: unknown keys, two keys for one feature, or values no feature can hold.
    """
    mapping = dict(mapping or {})
    check_known_keys(mapping, first)
    columns = []
    for key, values in first.items():
        if key not in drop:
            column = _plan(key, values, mapping.get(key))
            if column.is_visual and dtypes and key in dtypes:
                column = replace(column, source_dtype=dtypes[key])
            if not column.is_visual:
                columns.append(_with_names(column, (names or {}).get(key, ())))
            elif copied and key in copied:
                columns.append(_copying(column, first[key], copied[key]))
            else:
                columns.append(_with_encoding(column, images, codec or "h264"))
    _check_distinct(columns)
    if not columns:
        raise DataError("nothing is left to store: every key was dropped")
    return columns


def check_feature_name(name: str, key: str) -> None:
    """Raises DataError if ``name`` cannot be a feature's name."""
    if not name or "/" in name or name != name.strip():
        raise DataError(
            f"{key} cannot become the feature {name!r}: feature names have no '/' and are not empty"
        )
    if name in _RESERVED:
        raise DataError(
            f"{key} cannot become the feature {name!r}: every dataset has its own {name}",
            hint=f"for example --map {key}=observation.{name}",
        )


def plan_feature_name(key: str, *, picture: bool) -> str:
    """The name that a key of a source has as a feature if nobody says another."""
    return _feature_name(key, None, picture=picture)


def info_features(columns: Iterable[Column]) -> dict[str, dict[str, Any]]:
    """``features`` of meta/info.json: the columns', then LeRobot's index columns."""
    features = {column.feature: column.info() for column in columns}
    for name, dtype in INDEX_DTYPES.items():
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    return features


def fingerprint_header(columns: Iterable[Column], fps: float) -> bytes:
    """What a dataset's fingerprint begins with: features and rate, in one spelling."""
    features = {c.feature: [c.dtype, list(c.shape)] for c in columns}
    return json.dumps({"features": features, "fps": fps}, sort_keys=True).encode()


def _plan(key: str, values: np.ndarray, name: str | None) -> Column:
    shape, dtype = values.shape[1:], values.dtype
    if dtype.kind not in "biuf" or dtype.name in ("float128", "longdouble"):
        raise DataError(
            f"{key} holds {dtype} values; a dataset stores numbers and pictures",
            hint=f"leave it out with --drop {key}",
        )
    if 0 in shape:
        raise DataError(f"{key} is empty: {shape} per step", hint=f"--drop {key}")
    layout = _picture_layout(key, shape, dtype)
    if layout:
        h, w, c = shape if layout == "hwc" else (*shape[1:], shape[0])
        scale = 1 if dtype == np.uint8 else _picture_scale(key, values)
        return Column(
            key=key,
            feature=_feature_name(key, name, picture=True),
            source_shape=shape,
            source_dtype=dtype.name,
            dtype="image",
            shape=(h, w, c),
            layout="chw" if layout == "chw" else None,
            scale=scale,
        )
    size = math.prod(shape)
    return Column(
        key, _feature_name(key, name, picture=False), shape, dtype.name, dtype.name, (size,)
    )


def _feature_name(key: str, name: str | None, *, picture: bool) -> str:
    if name is not None:
        check_feature_name(name, key)
        return name
    usual = DEFAULT_PICTURE_NAMES if picture else DEFAULT_NAMES
    if key in usual:
        return usual[key]
    plain = key.replace("/", ".")
    if picture:
        stem = plain.removeprefix("observation.images.").removeprefix("observation.")
        return plain if plain.startswith("observation.image") else f"observation.images.{stem}"
    return f"source.{plain}" if plain in _RESERVED else plain


def _picture_layout(key: str, shape: tuple[int, ...], dtype: np.dtype) -> str | None:
    """``hwc`` or ``chw`` if the steps are pictures, told from the shape alone; else None."""
    if len(shape) != 3 or not (dtype == np.uint8 or dtype.kind == "f"):
        return None
    last = shape[2] in (1, 3) and min(shape[:2]) >= _MIN_IMAGE_PX
    first = shape[0] in (1, 3) and min(shape[1:]) >= _MIN_IMAGE_PX
    if last or first:
        return "hwc" if last else "chw"
    if dtype == np.uint8 and min(sorted(shape)[1:]) >= _MIN_IMAGE_PX:
        raise DataError(
            f"{key} looks like pictures of {shape} but has neither 1 nor 3 channels",
            hint=f"split it in the source, or leave it out with --drop {key}",
        )
    return None


def _picture_scale(key: str, values: np.ndarray) -> int:
    """1 for whole values 0..255, 255 for multiples of 1/255."""
    low, high = float(values.min()), float(values.max())
    for scale in (1, 255):
        if (scale == 1 or high <= 1) and _as_uint8(values, scale) is not None:
            return scale
    raise DataError(
        f"{key} holds {values.dtype} pictures with values {low:.6g}..{high:.6g} that are neither "
        "whole numbers 0..255 nor multiples of 1/255, so uint8 would lose some of them",
        hint=f"round them in the source, or leave them out with --drop {key}",
    )


def _to_uint8(values: np.ndarray, scale: int, key: str, episode: int, first: int) -> np.ndarray:
    stored = _as_uint8(values, scale)
    if stored is not None:
        return stored
    frame = next(i for i, picture in enumerate(values) if _as_uint8(picture, scale) is None)
    low, high = float(values[frame].min()), float(values[frame].max())
    wanted = "whole numbers 0..255" if scale == 1 else "multiples of 1/255"
    raise DataError(
        f"{key} of episode {episode}, frame {first + frame}: values {low:.6g}..{high:.6g} are not "
        f"all {wanted} as in episode 0, so uint8 would lose some of them",
        hint=f"mend the source, or leave the pictures out with --drop {key}",
    )


def _as_uint8(values: np.ndarray, scale: int) -> np.ndarray | None:
    """Values as uint8, or None if that would change any of them."""
    with np.errstate(invalid="ignore"):
        if scale == 1:
            stored = values.astype(np.uint8)
            back: np.ndarray = stored
        else:
            stored = np.rint(values * values.dtype.type(scale)).astype(np.uint8)
            back = (stored.astype(values.dtype) / values.dtype.type(scale)).astype(values.dtype)
        return stored if np.array_equal(back, values) else None


def _with_names(column: Column, names: Sequence[str]) -> Column:
    return replace(column, names=tuple(names)) if len(names) == column.shape[0] else column


def _copying(column: Column, clip: Any, pix_fmt: str) -> Column:
    usual = None if pix_fmt == "yuv420p" else pix_fmt
    return replace(column, dtype="video", encoding=clip.codec, copied=True, pix_fmt=usual)


def _with_encoding(column: Column, images: ImageMode, codec: str) -> Column:
    h, w, channels = column.shape
    mode = images
    fits_video = h % 2 == 0 and w % 2 == 0 and channels == 3
    if images == "auto":
        mode = "video" if max(h, w) > _SMALL_IMAGE_PX and fits_video else "webp"
    if mode == "video":
        if not fits_video:
            raise DataError(
                f"{column.key} is {h}x{w}x{channels}; video needs an even height and width and "
                "3 channels",
                hint="store it with --images webp or --images png",
            )
        return replace(column, dtype="video", encoding=codec)
    # WebP has no single-channel pictures.
    return replace(column, encoding="png" if channels == 1 else mode)


def check_known_keys(named: Iterable[str], known: Collection[str]) -> None:
    """Raises DataError, with the nearest known key, if a key that was named is not known."""
    for key in named:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            have = f"the source has: {', '.join(known)}"
            hint = f"did you mean `{near[0]}`? {have}" if near else have
            raise DataError(f"there is no key {key!r} in the source", hint=hint)


def _check_distinct(columns: Sequence[Column]) -> None:
    seen: dict[str, str] = {}
    for column in columns:
        if column.feature in seen:
            raise DataError(
                f"{seen[column.feature]} and {column.key} would both become {column.feature}",
                hint=f"give one another name with --map {column.key}=NAME",
            )
        seen[column.feature] = column.key
