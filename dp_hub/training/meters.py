"""Numbers of training itself, added up on the device so that no step waits for them."""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor


class NotFiniteError(Exception):
    """Losses or gradients were not finite numbers; the weights have been kept from them.

    Args:
        steps: that were looked at together.
        broken: how many of them had such a gradient.
    """

    def __init__(self, *, steps: int, broken: int) -> None:
        super().__init__(steps, broken)
        self.steps, self.broken = steps, broken


class StepMeter:
    """Loss, gradient, speed and memory since the last look.

    Args:
        device: where losses live.
        windows_per_step: of all processes together.
        elapsed_s: seconds of training before.
        clock: seconds, for the time spent waiting for data.
    """

    def __init__(
        self,
        device: torch.device,
        windows_per_step: int,
        *,
        elapsed_s: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device, self._clock = device, clock
        self._windows_per_step = windows_per_step
        self._clear(elapsed_s)

    def add_loss(self, loss: Tensor) -> None:
        """Count the loss of a network call, a scalar."""
        self._loss += loss.detach()
        self._calls += 1

    def add_gradient(self, norm: Tensor) -> None:
        """Count the norm of an optimiser step's gradient, a scalar."""
        finite = norm.isfinite()
        self._broken += ~finite
        self._norm += torch.where(finite, norm, 0.0)
        self._steps += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as spent waiting for data."""
        began = self._clock()
        yield
        self._waited_s += self._clock() - began

    def take(self, accelerator: Accelerator, *, elapsed_s: float) -> dict[str, float]:
        """The numbers by name, the loss as the mean over all processes; counting begins anew.

        Args:
            accelerator: of the processes that train together.
            elapsed_s: seconds of training since the run began.
        Raises:
            NotFiniteError: a loss or a gradient was not a finite number.
        """
        seconds, steps = elapsed_s - self._since_s, max(1, self._steps)
        loss = accelerator.reduce(self._loss / max(1, self._calls), "mean")
        mean, norm, broken = torch.stack([loss, self._norm / steps, self._broken]).tolist()
        windows, waited_s = self._steps * self._windows_per_step, self._waited_s
        self._clear(elapsed_s)
        if broken or not math.isfinite(mean):
            raise NotFiniteError(steps=steps, broken=int(broken))
        numbers = {"train/loss": mean, "train/grad_norm": norm, "train/elapsed_s": elapsed_s}
        if seconds > 0 and windows:
            numbers["train/windows_per_s"] = windows / seconds
            numbers["train/data_wait_share"] = min(1.0, waited_s / seconds)
        return numbers | {"train/memory_gb": peak_memory_gb(self._device)}

    def _clear(self, elapsed_s: float) -> None:
        self._loss, self._norm, self._broken = torch.zeros(3, device=self._device).unbind()
        self._calls = self._steps = 0
        self._waited_s, self._since_s = 0.0, elapsed_s


def peak_memory_gb(device: torch.device) -> float:
    """The most memory this process has had: the GPU's where it trains on one, else its own."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts in bytes there, else in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
