"""What a robot's processes cost each other, and how late a loop is.

    python benchmarks/robot.py [rings] [start] [jitter] [--repeat N] [--seconds S]
        [--hz 100 125 500] [--modes default fifo spin fifo+spin]

rings   Putting samples into a ring of shared memory and reading them, a camera's picture and an
        arm's state, beside the limit: `np.copyto` of the same bytes between as many places.
start   From starting a worker to its being ready, beside Python that imports numpy.
jitter  A periodic loop in a worker that does nothing else: how late it wakes, with and without
        SCHED_FIFO and spinning, while the machine does whatever else it does.

What is compared runs in turns in the same process, so that a busy machine is busy for both. The
machine's load is printed with the results.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dp_hub.robot.clock import MonotonicClock, ticks
from dp_hub.robot.fields import Field
from dp_hub.robot.scheduling import Scheduling
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.worker import Context, Worker

MODES = {
    "default": Scheduling(),
    "spin": Scheduling(spin_s=0.001),
    "fifo": Scheduling(fifo=50),
    "fifo+spin": Scheduling(fifo=50, spin_s=0.001),
}


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--repeat", type=int, default=300, help="rings: how often each is timed")
    parser.add_argument("--seconds", type=float, default=10.0, help="jitter: of each line")
    parser.add_argument("--hz", nargs="+", type=float, default=[100.0, 125.0, 500.0])
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    options = parser.parse_args()
    for part in options.parts:
        print(f"\n### {part} ({_machine()})\n", flush=True)
        for line in PARTS[part](options):
            print(line, flush=True)


def rings(options: argparse.Namespace) -> Iterator[str]:
    """A ring, beside copying."""
    yield "| sample | bytes | what | µs, median | np.copyto, µs | of the limit | above it, µs |"
    yield "|---|---|---|---|---|---|---|"
    state = [Field(name, (6,)) for name in ("position", "velocity", "pose", "target")]
    kinds = {
        "picture 480x640x3, 30 Hz": ([Field("picture", (480, 640, 3), "uint8")], 30.0),
        "state of 4 x 6 float64, 500 Hz": (state, 500.0),
    }
    for kind, (fields, rate_hz) in kinds.items():
        sides = Sides(fields, rate_hz)
        for k in (0, 1, 2, 16):
            what = f"last({k})" if k else "put"
            ours_us, limit_us = _in_turns(sides, k, options.repeat)
            cells = [f"{max(1, k) * sum(one.n_bytes for one in fields):,}", what]
            cells += [f"{us:,.1f}" for us in (ours_us, limit_us)]
            cells += [f"{ours_us / limit_us:.2f}", f"{ours_us - limit_us:,.1f}"]
            yield f"| {kind} | {' | '.join(cells)} |"
        sides.close()


class Sides:
    """A ring, and arrays of its size in memory of this process."""

    def __init__(self, fields: list[Field], rate_hz: float) -> None:
        self._ring = Ring.create(fields, rate_hz=rate_hz)
        rng, slots = np.random.default_rng(0), self._ring.spec.slots
        self._sample = {one.name: (rng.random(one.shape) * 250).astype(one.dtype) for one in fields}
        self._arrays = {name: np.stack([one] * slots) for name, one in self._sample.items()}
        self._number = 0
        for _ in range(2 * slots):
            self.put()
            self.copy_in()

    def put(self) -> None:
        """A sample into the ring."""
        self._number += 1
        self._ring.put(float(self._number), self._sample)

    def copy_in(self) -> None:
        """A sample into the arrays."""
        for name, one in self._sample.items():
            np.copyto(self._arrays[name][self._number % len(self._arrays[name])], one)

    def last(self, k: int) -> None:
        """Some out of the ring."""
        assert len(self._ring.last(k)) == k

    def copy_out(self, k: int) -> None:
        """Some out of the arrays, into new memory, as a reader needs it."""
        for array in self._arrays.values():
            first = min(self._number % len(array), len(array) - k)
            np.copyto(np.empty((k, *array.shape[1:]), array.dtype), array[first : first + k])

    def close(self) -> None:
        """Let go of the memory."""
        self._ring.close()
        self._ring.unlink()


def _in_turns(sides: Sides, k: int, n: int) -> list[float]:
    """Medians of the ring and of its limit, µs: of ``last(k)``, or of a put if ``k`` is 0."""
    spent: list[list[int]] = [[], []]
    sides_of = ((sides.put, sides.last), (sides.copy_in, sides.copy_out))
    for _ in range(n):
        for (fill, read), times in zip(sides_of, spent, strict=True):
            filled_ns = _ns(fill)
            times.append(_ns(lambda: read(k)) if k else filled_ns)  # noqa: B023
    return [float(np.median(times)) / 1000 for times in spent]


def _ns(one: Callable[[], object]) -> int:
    before = time.perf_counter_ns()
    one()
    return time.perf_counter_ns() - before


def start(options: argparse.Namespace) -> Iterator[str]:
    """A worker that only becomes ready."""
    yield "| what | median, s | shortest |"
    yield "|---|---|---|"
    spent: dict[str, list[float]] = {"worker": [], "python -c 'import numpy'": []}
    for _ in range(15):
        before = time.perf_counter()
        worker = Worker("ready", standing_ready, None)
        worker.start()
        worker.wait_ready(30)
        spent["worker"].append(time.perf_counter() - before)
        worker.stop()
        before = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import numpy"], check=True)
        spent["python -c 'import numpy'"].append(time.perf_counter() - before)
    for name, times in spent.items():
        yield f"| {name} | {np.median(times):.3f} | {min(times):.3f} |"


def standing_ready(context: Context, _: None) -> None:
    """In a process of its own: as little as a worker can do."""
    context.ready()
    while not context.stopping:
        time.sleep(0.01)


@dataclass(frozen=True)
class Loop:
    """So many seconds at a rate; what was seen goes to a file."""

    hz: float
    seconds: float
    to: Path


def jitter(options: argparse.Namespace) -> Iterator[str]:
    """Lateness of loops."""
    yield "| loop | scheduling | p50, ms | p99 | p99.9 | max | within 1 ms | missed | ticks |"
    yield "|---|---|---|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as name:
        for hz in options.hz:
            for mode in options.modes:
                loop = Loop(hz, options.seconds, Path(name) / "late.npy")
                late_ms, missed = _run(loop, MODES[mode])
                cells = [f"{np.percentile(late_ms, q):.3f}" for q in (50, 99, 99.9, 100)]
                cells += [f"{np.mean(late_ms <= 1):.3%}", f"{missed}", f"{len(late_ms):,}"]
                yield f"| {hz:g} Hz | {mode} | {' | '.join(cells)} |"


def _run(loop: Loop, scheduling: Scheduling) -> tuple[np.ndarray, int]:
    worker = Worker("loop", run_loop, loop, scheduling=scheduling)
    worker.start()
    try:
        worker.wait_ready(30)
        while worker.is_alive:
            time.sleep(0.1)
    finally:
        worker.stop()
    late_s, missed = np.load(loop.to)
    return late_s * 1000, int(missed.sum())


def run_loop(context: Context, loop: Loop) -> None:
    """In a process of its own: note how late each tick is."""
    n = int(loop.hz * loop.seconds)
    seen = np.zeros((2, n))
    clock = MonotonicClock()
    context.ready()
    start_s = clock.now_s() + 0.05
    at = 0
    for tick in ticks(1 / loop.hz, clock, start_s=start_s, spin_s=context.scheduling.spin_s):
        if tick.number >= n or context.stopping:
            break
        seen[:, at] = tick.late_s, tick.missed
        at += 1
    np.save(loop.to, seen[:, :at])


PARTS = {"rings": rings, "start": start, "jitter": jitter}


def _machine() -> str:
    load = f"load {os.getloadavg()[0]:.1f} before"
    model = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((one.split(":")[1].strip() for one in lines if "model name" in one), "")
    return ", ".join(filter(None, [f"{len(os.sched_getaffinity(0))} cores", model, load]))


if __name__ == "__main__":
    main()
