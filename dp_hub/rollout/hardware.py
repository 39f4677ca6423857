"""What an evaluation ran on, in words, and how many cores it may use."""

import os
import platform
from pathlib import Path


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hardware(device: str) -> str:
    """The device that computed, such as ``NVIDIA H100`` or ``AMD EPYC 9B14, 2 cores``."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    cores = usable_cores()
    return f"{_cpu_name()}, {cores} core{'s' if cores > 1 else ''}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine() or "CPU"
