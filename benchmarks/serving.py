"""Sides of a benchmark in processes of their own, measured in turn; needs nothing but Python.

`Side` is the parent's end of one process, `serve` the process's. A request is a JSON object on
a line; its answer the wall and CPU seconds it took.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spent:
    """Seconds of one measurement; CPU seconds are of all threads."""

    wall_s: float
    cpu_s: float


class Side:
    """A process that waits for requests."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def run(self, request: dict[str, Any]) -> Spent:
        """Have a request done, and how long that took."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Spent(**self._answer())

    def ready(self) -> dict[str, Any]:
        """Wait until it is set up; what it says of itself."""
        return self._answer()

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        sys.exit(f"a side of the benchmark ended: {self._process.args}")


def serve(run: Callable[..., object], **facts: object) -> None:
    """Answer requests, given to ``run`` by keyword, until the parent hangs up."""
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        run(**request)
        spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        print(json.dumps(spent), flush=True)
