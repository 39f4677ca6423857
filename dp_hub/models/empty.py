"""Networks without numbers, for weights that are about to be loaded.

Nothing is allocated for a weight, whatever size it claims, and none is drawn: torch's own way, the
meta device for everything, leaves buffers without values, and drawing there imports the compiler,
which takes two seconds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import init_empty_weights
from torch.overrides import TorchFunctionMode

_FILLING = ("normal_", "uniform_", "fill_", "zero_")


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules made inside have parameters on the meta device, and their buffers as always."""
    with init_empty_weights(include_buffers=False), _NothingFilled():
        yield


class _NothingFilled(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:  # with which torch's layers begin their parameters
            return func(*args, **{**kwargs, "device": "meta"})
        of_init = getattr(func, "__module__", None) == "torch.nn.init"
        filling = of_init or getattr(func, "__name__", None) in _FILLING
        tensor = args[0] if args else kwargs.get("tensor")
        if filling and isinstance(tensor, torch.Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **kwargs)
