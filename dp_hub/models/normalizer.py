"""Normalisation as a part of the policy: fitted once, stored with its weights.

The rules are those of Diffusion Policy's ``LinearNormalizer`` (Chi et al., 2023): every dimension
is scaled and shifted, ``y = x * scale + offset``. The numbers and the statistics they came from
are buffers, so they travel inside the policy's safetensors file and need no file of their own.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from dp_hub.errors import DataError

Mode = Literal["limits", "gaussian", "gaussian_clipped", "identity"]
LEAST_DEVIATION = 1e-2
"""Of ``gaussian_clipped``, as ACT has it: what hardly moves is not blown up to unit deviation."""
STATISTICS = ("min", "max", "mean", "std")


class FeatureNormalizer(nn.Module):
    """``y = x * scale + offset`` along the last dimension of one feature.

    Buffers, all float32 (dim,): ``scale`` and ``offset``; ``min``, ``max``, ``mean``, ``std`` of
    the data they were fitted on (``std`` with N-1 in the denominator, as torch has it). A new one
    is the identity.
    """

    scale: Tensor
    offset: Tensor
    min: Tensor
    max: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        for name, value in zip(
            ("scale", "offset", *STATISTICS), (1.0, 0.0, -1.0, 1.0, 0.0, 1.0), strict=True
        ):
            self.register_buffer(name, torch.full((dim,), value))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., dim) in raw units to float32 (..., dim) in normalised units."""
        return x.to(self.scale) * self.scale + self.offset

    def inverse(self, y: Tensor) -> Tensor:
        """``y`` (..., dim) in normalised units to float32 (..., dim) in raw units."""
        return (y.to(self.scale) - self.offset) / self.scale

    @classmethod
    def fit(
        cls,
        array: np.ndarray,
        mode: Mode = "limits",
        *,
        range_eps: float = 1e-4,
        fit_offset: bool = True,
    ) -> "FeatureNormalizer":
        """Fit to the rows of ``array``.

        Args:
            array: (N, dim) numbers, N >= 1; computed in float32, as the original does.
            mode: ``limits`` maps each dimension's [min, max] to [-1, 1]; ``gaussian`` to zero mean
                and unit deviation; ``gaussian_clipped`` too, but a deviation below 0.01 counts
                as 0.01; ``identity`` changes nothing.
            range_eps: a dimension whose range (or deviation, for ``gaussian``) is smaller is
                constant: it keeps its scale, and its value maps to 0.
            fit_offset: False keeps 0 at 0: ``limits`` divides by the largest absolute value,
                ``gaussian`` only by the deviation.
        Raises:
            DataError: no rows, not two-dimensional, or a value that is not finite.
        """
        rows = _checked_rows(array)
        extremes = rows.min(dim=0).values, rows.max(dim=0).values
        moments = _moments(rows)
        return cls.of_statistics(
            *extremes, *moments, mode=mode, range_eps=range_eps, fit_offset=fit_offset
        )

    @classmethod
    def of_statistics(
        cls,
        low: Tensor,
        high: Tensor,
        mean: Tensor,
        std: Tensor,
        *,
        mode: Mode = "limits",
        range_eps: float = 1e-4,
        fit_offset: bool = True,
    ) -> "FeatureNormalizer":
        """As :meth:`fit`, from the statistics of the rows: each float32 (dim,)."""
        result = cls(len(low))
        result.min, result.max, result.mean, result.std = low, high, mean, std
        result.scale, result.offset = _scale_and_offset(result, mode, range_eps, fit_offset)
        return result


class Normalizer(nn.Module):
    """One :class:`FeatureNormalizer` per feature.

    Its state dict has the entries ``features.<name>.scale`` and so on, where the dots of a feature
    name are written ``__`` (``observation.state`` is ``observation__state``), for torch takes a
    dot for a submodule.
    """

    def __init__(self, features: Mapping[str, FeatureNormalizer]) -> None:
        super().__init__()
        self.names = tuple(features)
        keys = [_key(name) for name in features]
        if len(set(keys)) < len(keys):
            raise DataError(
                f"two of the features {', '.join(self.names)} differ only in `.` and `__`",
                hint="rename one of them",
            )
        self.features = nn.ModuleDict(dict(zip(keys, features.values(), strict=True)))

    def normalize(self, name: str, x: Tensor) -> Tensor:
        """Feature ``name``, (..., dim), to float32 normalised units."""
        return self[name](x)

    def unnormalize(self, name: str, y: Tensor) -> Tensor:
        """Feature ``name``, (..., dim), from normalised units back to float32 raw units."""
        return self[name].inverse(y)

    def __getitem__(self, name: str) -> FeatureNormalizer:
        module = self.features[_key(name)]
        assert isinstance(module, FeatureNormalizer)
        return module

    def __contains__(self, name: str) -> bool:
        return _key(name) in self.features

    @classmethod
    def fit(
        cls,
        columns: Mapping[str, np.ndarray],
        mode: Mode = "limits",
        *,
        range_eps: float = 1e-4,
    ) -> "Normalizer":
        """Fit every column, (N, dim), on its own. Raises DataError as FeatureNormalizer.fit."""
        fitted = {}
        for name, column in columns.items():
            try:
                fitted[name] = FeatureNormalizer.fit(column, mode, range_eps=range_eps)
            except DataError as error:
                raise DataError(f"cannot normalise {name}: {error.message}") from None
        return cls(fitted)

    @classmethod
    def empty(cls, dims: Mapping[str, int]) -> "Normalizer":
        """Identities of the given dimensions, to load a state dict into."""
        return cls({name: FeatureNormalizer(dim) for name, dim in dims.items()})


def fit_normalizer(
    columns: Mapping[str, np.ndarray],
    features: Iterable[str],
    *,
    frame_mask: np.ndarray | None = None,
    modes: Mapping[str, Mode] | None = None,
) -> Normalizer:
    """Fit ``features`` on the frames a policy may learn from.

    Args:
        columns: whole columns, (N, dim), or (N,) for dim 1.
        features: which of them.
        frame_mask: bool (N,), True for the frames of the training split; None for all.
        modes: the rule of single features; the others take ``limits``.
    Raises:
        DataError: a feature that is not there, a mask of another length, or unfit values.
    """
    fitted = {}
    for name in features:
        rows = _masked(_column(columns, name), frame_mask, name)
        fitted[name] = Normalizer.fit({name: rows}, (modes or {}).get(name, "limits"))[name]
    return Normalizer(fitted)


def _column(columns: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in columns:
        known = ", ".join(columns)
        raise DataError(f"no feature {name!r} to normalise", hint=f"there are: {known}")
    column = columns[name]
    return column[:, None] if column.ndim == 1 else column


def _masked(column: np.ndarray, mask: np.ndarray | None, name: str) -> np.ndarray:
    if mask is None:
        return column
    if mask.shape != column.shape[:1] or mask.dtype != np.bool_:
        raise DataError(
            f"the frame mask is {mask.dtype} {mask.shape}, but {name} has {len(column)} frames",
            hint="one bool per frame",
        )
    return column[mask]


def _key(name: str) -> str:
    return name.replace(".", "__")


def _checked_rows(array: np.ndarray) -> Tensor:
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"expected rows of numbers, (N, dim), but the shape is {array.shape}")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise DataError(
            f"{int((~finite).sum())} of {len(array)} rows hold NaN or infinity, the first is row "
            f"{first}: {array[first].tolist()}"
        )
    return torch.from_numpy(array.astype(np.float32))  # a copy: columns are read-only


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    # In float64: a float32 sum over a million frames loses digits that a policy would feel.
    wide = rows.double()
    std = wide.std(dim=0) if len(rows) > 1 else torch.zeros(rows.shape[1])
    return wide.mean(dim=0).float(), std.float()


def _scale_and_offset(
    fitted: FeatureNormalizer, mode: Mode, range_eps: float, fit_offset: bool
) -> tuple[Tensor, Tensor]:
    match mode:
        case "limits" if fit_offset:
            extent = fitted.max - fitted.min
            constant = extent < range_eps
            scale = 2.0 / torch.where(constant, 2.0, extent)
            return scale, torch.where(constant, -fitted.min, -1.0 - scale * fitted.min)
        case "limits":
            largest = torch.maximum(fitted.min.abs(), fitted.max.abs())
            return 1.0 / torch.where(largest < range_eps, 1.0, largest), fitted.offset
        case "gaussian":
            scale = 1.0 / torch.where(fitted.std < range_eps, 1.0, fitted.std)
            return scale, -fitted.mean * scale if fit_offset else fitted.offset
        case "gaussian_clipped":
            scale = 1.0 / fitted.std.clamp(min=LEAST_DEVIATION)
            return scale, -fitted.mean * scale if fit_offset else fitted.offset
        case "identity":
            return fitted.scale, fitted.offset
    raise ValueError(f"normalisation mode {mode!r} is none of {', '.join(get_args(Mode))}")
