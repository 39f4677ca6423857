"""What depends on the machine: threads, the faster precision, and being asked to stop."""

import copy
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from dp_hub.errors import ConfigError

log = logging.getLogger(__name__)

PATIENCE = timedelta(hours=12)
"""How long processes wait for each other: the first one evaluates alone, by rollouts too, while the
others wait in a collective, and NCCL's own limit is ten minutes. Launchers end the processes of a
run in which one has died, so that none waits for it."""
SPLITTING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""What ``accelerate launch`` sets for trainings that split weights over processes."""


def cpu_threads(environ: Mapping[str, str], *, cores: int, local_processes: int) -> int:
    """Threads for one process that trains on the CPU.

    ``accelerate launch`` sets OMP_NUM_THREADS to 1 unless told otherwise, which halves the speed
    of a single process on two cores; so its 1 does not count, while a person's does.
    """
    asked, launched = environ.get("OMP_NUM_THREADS", ""), "ACCELERATE_MIXED_PRECISION" in environ
    if asked.isdigit() and not (launched and asked == "1"):
        return int(asked)
    return max(1, cores // local_processes)


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def join_processes(environ: Mapping[str, str]) -> PartialState:
    """This process among those that train together, and its device.

    Started by ``accelerate launch``, ``torchrun``, or alone.

    Raises:
        ConfigError: it was started for training that splits weights over processes.
    """
    _refuse_split_weights(environ)
    asked_for_cpu = environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    # accelerate joins processes without an accelerator only where it is told that they have none.
    on_cpu = asked_for_cpu or not torch.accelerator.is_available()
    process = PartialState(cpu=on_cpu, **InitProcessGroupKwargs(timeout=PATIENCE).to_kwargs())
    if asked_for_cpu and "MASTER_ADDR" in environ and process.num_processes == 1:
        log.warning(
            "accelerate launch --cpu starts one process only, unless MPI is installed; for "
            "several: accelerate launch --config_file recipes/accelerate/two_cpus.yaml ..."
        )
    return process


def _refuse_split_weights(environ: Mapping[str, str]) -> None:
    for name, title in SPLITTING.items():
        if environ.get(name, "").lower() in ("1", "true", "yes"):
            raise ConfigError(
                f"this recipe does not train with {title}: its average of the weights and its "
                "checkpoints need them whole in every process",
                hint="use recipes/accelerate/four_gpus.yaml; the paper's largest network with its "
                "optimiser and average takes some 6 GB, which every GPU has room for",
            )


def new_accelerator(mixed_precision: str, grad_accumulation: int) -> Accelerator:
    """An Accelerator that does not inherit the settings of an earlier run in this process."""
    # accelerate keeps them in singletons and refuses a second run with another precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    GradientState._reset_state()
    return Accelerator(
        cpu=PartialState().device.type == "cpu",
        mixed_precision=mixed_precision,
        gradient_accumulation_steps=grad_accumulation,
    )


def faster_precision(policy: nn.Module, batch: Mapping[str, Tensor], device: torch.device) -> str:
    """``bf16`` if a training step of the network is faster with it on this machine, else ``no``.

    Tries both for a moment, on a copy: weights, statistics, gradients and random states are left
    as they were.
    """
    tried = copy.deepcopy(policy)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        full = _seconds(lambda: _step(tried, batch, device, bf16=False), device)
        half = _seconds(lambda: _step(tried, batch, device, bf16=True), device)
    chosen = "bf16" if half < full else "no"
    log.info(
        "precision %s: forward and backward take %.1f ms in fp32, %.1f ms in bf16",
        chosen,
        1000 * full,
        1000 * half,
    )
    return chosen


def _step(
    policy: nn.Module, batch: Mapping[str, Tensor], device: torch.device, *, bf16: bool
) -> None:
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        loss = policy(batch)
    loss.backward()


def _seconds(run: Callable[[], None], device: torch.device, repeats: int = 5) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


@dataclass
class StopRequest:
    """Whether someone asked the run to stop."""

    received: str | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request, so that a run can end in order.

    Another Ctrl-C, later than two seconds after, interrupts at once; launchers of several
    processes repeat a signal sooner than that.
    """
    request = StopRequest()
    first = time.monotonic()

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if request.received is not None:
            if number == signal.SIGINT and time.monotonic() - first > 2.0:
                raise KeyboardInterrupt
            return
        first = time.monotonic()
        request.received = signal.Signals(number).name
        log.warning("%s: finishing this step and saving", request.received)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def compile_networks(policy: nn.Module, device: torch.device) -> None:
    """Compile each part of a policy that has weights, in place, when it is first called.

    Weights keep their names, and copies made before are not compiled.

    Raises:
        ConfigError: there is no compiler of C++, which torch needs on a CPU.
    """
    compilers = [name for name in (os.environ.get("CXX"), "g++", "clang++") if name]
    if device.type == "cpu" and not any(shutil.which(name) for name in compilers):
        raise ConfigError(
            f"`compile` is true, but none of {', '.join(compilers)} is there to compile with",
            hint="install g++, or leave compile out",
        )
    for part in _called_parts(policy):
        part.compile()


def _called_parts(module: nn.Module) -> Iterator[nn.Module]:
    """The largest parts with weights that are called as they are, not by verbs of their own."""
    for part in module.children():
        if not any(True for _ in part.parameters()):
            continue
        if type(part).forward is not nn.Module.forward:
            yield part
        else:
            yield from _called_parts(part)
