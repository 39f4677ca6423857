"""Watches a robot from outside: how it moves by the world's own states, and what it leaves behind.

The world's ring of states is read by this process, so that what is seen does not depend on the
processes that are stopped and killed.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import faults_robot
import numpy as np

from dp_hub.robot.motion.motion import STATES
from dp_hub.robot.shared.board import Board
from dp_hub.robot.shared.ring import Ring

HERE = Path(__file__).parent
MARK = "DP_HUB_FAULTS"
PATIENCE_S = 60.0
_POLL_S = 0.005
WILD_CLOCK = """
import itertools, time
_real, _steps = time.time, itertools.cycle([0.0, 3600.0, -3600.0, 1e6])
time.time = lambda: _real() + next(_steps)
time.time_ns = lambda: int(time.time() * 1e9)
"""


class NotAsDocumented(AssertionError):
    """What was seen is not what docs/robots.md says."""


def wait_until(true: Callable[[], bool], within_s: float, what: str | Callable[[], str]) -> float:
    """Seconds until ``true()``. Raises NotAsDocumented: it did not become so."""
    began_s = time.monotonic()
    while not true():
        if time.monotonic() - began_s > within_s:
            told = what if isinstance(what, str) else what()
            raise NotAsDocumented(f"{told}: not within {within_s:g} s")
        time.sleep(_POLL_S)
    return time.monotonic() - began_s


class Marked:
    """A process whose descendants are known by a mark in their environment, orphans too.

    Args:
        command: its program and arguments.
        env: more of its environment.
    """

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str]) -> None:
        self.mark = secrets.token_hex(8)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        self.seen_pids: set[int] = set()
        self.process = subprocess.Popen(
            list(command),
            env=os.environ | {MARK: self.mark} | env,
            stdin=subprocess.DEVNULL,
            stderr=self._errors,
        )

    def errors(self) -> str:
        """The end of what it wrote to stderr."""
        # Without moving the place in the file, which is also the child's.
        file = self._errors.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")[-3000:]

    def pids(self) -> set[int]:
        """All processes of it that live, itself and the descendants of its descendants."""
        processes = Path("/proc").glob("[0-9]*")
        found = {int(one.name) for one in processes if _is_marked(one, self.mark)}
        self.seen_pids |= found
        return found

    def segments(self) -> set[str]:
        """Names of shared memory of any of its processes."""
        names = {path.name for path in Path("/dev/shm").glob("dphub-*")}
        pids = {str(pid) for pid in self.seen_pids}
        return {name for name in names if name.split("-")[1] in pids}

    def gone(self, within_s: float = 20.0) -> float:
        """Seconds until nothing of it is left. Raises NotAsDocumented: something is."""
        took_s = wait_until(lambda: not self.pids(), within_s, f"processes left {self.pids()}")
        if left := self.segments():
            raise NotAsDocumented(f"shared memory is left: {sorted(left)}")
        if "leaked shared_memory" in self.errors():
            raise NotAsDocumented("the resource tracker found leaked shared memory")
        return took_s

    def end(self) -> None:
        """Whatever is left of it."""
        for pid in self.pids():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._errors.close()


class Child(Marked):
    """A process of `faults_robot`; what it says is heard by a thread."""

    def __init__(self, role: str, *arguments: Any, env: Mapping[str, str] | None = None) -> None:
        # An abstract address: nothing is left of it.
        address = f"dp-hub-faults-{secrets.token_hex(8)}"
        with Listener(f"\0{address}", family="AF_UNIX") as listener:
            super().__init__([sys.executable, HERE / "faults_robot.py", role, address], env or {})
            self._connection: Connection = listener.accept()
        self.send(arguments)
        self.said: list[Any] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def send(self, message: Any) -> None:
        """Tell it something; nothing if it is gone."""
        with suppress(OSError):
            self._connection.send(message)

    def heard(self, kind: type[Any], within_s: float = PATIENCE_S) -> Any:
        """The first it said of a kind."""
        wait_until(lambda: self._first(kind) is not None or self.has_ended, within_s, f"{kind}")
        found = self._first(kind)
        if found is None:
            raise NotAsDocumented(f"it has ended without a word of {kind}: {self.errors()}")
        return found

    @property
    def has_ended(self) -> bool:
        """Whether the process has, and all it said was heard."""
        return self.process.poll() is not None and not self._listener.is_alive()

    def end(self) -> None:
        """See `Marked`."""
        super().end()
        self._listener.join(5.0)
        self._connection.close()

    def _first(self, kind: type[Any]) -> Any:
        return next((one for one in self.said if isinstance(one, kind)), None)

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                message = self._connection.recv()
                if self.said and type(self.said[-1]) is type(message):
                    self.said[-1] = message
                else:
                    self.said.append(message)


def _is_marked(process: Path, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (process / "environ").read_bytes()
    except OSError:
        return False


@dataclass
class Trace:
    """The agent's motion: times, positions (k, 2) px and velocities (k, 2) px/s."""

    times_s: list[float] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    velocities: list[np.ndarray] = field(default_factory=list)
    lost: int = 0

    def take(self, ring: Ring, after: int) -> int:
        """What is new in a ring; the number of the next sample."""
        fresh = ring.since(after)
        self.times_s += fresh.times_s.tolist()
        self.positions += list(fresh.values["position"])
        self.velocities += list(fresh.values["velocity"])
        self.lost += fresh.lost
        return int(fresh.numbers[-1]) + 1 if len(fresh) else after

    def since(self, time_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times, positions and speeds from a time on."""
        n = len(self.times_s)
        first = int(np.searchsorted(np.array(self.times_s[:n]), time_s))
        positions = np.array(self.positions[first:n]).reshape(-1, 2)
        velocities = np.array(self.velocities[first:n]).reshape(-1, 2)
        return np.array(self.times_s[first:n]), positions, np.linalg.norm(velocities, axis=1)


class Robot(Child):
    """A robot that is on, and watched."""

    def __init__(self, setup: faults_robot.Setup, *, wild_clock: bool = False) -> None:
        self.setup = setup
        super().__init__("robot", setup, env=_environment(setup, wild_clock))
        try:
            self.up: faults_robot.Up = self.heard(faults_robot.Up)
            self._world, self.board = Ring.attach(self.up.world), Board.attach(self.up.board)
        except BaseException:
            self.end()
            raise
        self.trace = Trace()
        self._watching = True
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self.pids()

    @property
    def state(self) -> str:
        """Of the arm's controller, as it last said."""
        return STATES[int(self.board["arm.state"])]

    def count(self, what: str) -> int:
        """One of the controller's counters."""
        return int(self.board[f"arm.{what}"])

    @property
    def status(self) -> faults_robot.Status:
        """What the robot's loop said last."""
        for one in reversed(self.said):
            if isinstance(one, faults_robot.Status):
                return one
        return faults_robot.Status(False, 0, 0, 0, 0, (), 0)

    @property
    def over(self) -> faults_robot.Over | None:
        """How it ended."""
        return self._first(faults_robot.Over)

    def key(self, key: str) -> None:
        """Press one."""
        self.send(("key", key))

    def order(self, what: str, value: Any = None) -> None:
        """See `faults_robot`."""
        self.send((what, value))

    def signal(self, name: str, number: int) -> None:
        """To one of its processes."""
        os.kill(self.pid(name), number)

    def pid(self, name: str) -> int:
        """Of one of its processes."""
        return self.status.policy if name == "policy" else self.up.pids[name]

    @property
    def speed(self) -> float:
        """Of the agent, px/s: the highest of the last 0.2 s."""
        _, _, speeds = self.trace.since(time.monotonic() - 0.2)
        return float(speeds.max()) if len(speeds) else 0.0

    def goes_on(self, within_s: float = 40.0) -> float:
        """Seconds until the policy drives it: asked, answered and moving."""
        asked = self.status.asked

        def moves() -> bool:
            if self.over is not None or self.has_ended:
                raise NotAsDocumented(f"it has ended, {self.over}: {self.errors()}")
            new = self.status.asked >= asked + 2 and self.status.drives
            return new and self.state == "moving" and self.speed > 20.0

        def how() -> str:
            seen = f"{self.state}, {self.speed:.0f} px/s, {self.status}, {self.errors()[-600:]}"
            return f"it goes on ({seen})"

        return wait_until(moves, within_s, how)

    def end(self) -> None:
        """See `Child`."""
        self._watching = False
        if hasattr(self, "_watcher"):
            self._watcher.join()
            self._world.close()
            self.board.close()
        super().end()

    def _watch(self) -> None:
        after = 0
        while self._watching:
            after = self.trace.take(self._world, after)
            time.sleep(0.02)


def _environment(setup: faults_robot.Setup, wild_clock: bool) -> dict[str, str]:
    """With a camera of its own, known by its entry point, and a wall clock that jumps."""
    folder = Path(setup.folder) / ("wild" if wild_clock else "site")
    info = folder / "faulty_clock-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty_clock\nVersion: 1.0\n")
    points = "[dp_hub.cameras]\nfaulty_clock = faulty_clock:FaultyClock\n"
    (info / "entry_points.txt").write_text(points)
    if wild_clock:
        (folder / "sitecustomize.py").write_text(WILD_CLOCK)
    return {
        "PYTHONPATH": os.pathsep.join([str(folder), str(HERE)]),
        "SDL_VIDEODRIVER": "dummy",
        "OMP_NUM_THREADS": "1",
    }
