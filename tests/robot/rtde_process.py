"""The stand-in for a UR controller in a process of its own, asked and told through a pipe.

Not in the test's process: ur_rtde's constructors hold Python's lock while they wait for an answer.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from rtde_robot import RtdeRobot


class RobotProcess:
    """A robot in a process of its own."""

    def __init__(self, host: str, process: BaseProcess, pipe: Connection) -> None:
        self.host, self._process, self._pipe = host, process, pipe

    def do(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of the robot."""
        return self._ask("do", name, arguments, named)

    def see(self, name: str) -> Any:
        """An attribute of the robot."""
        return self._ask("see", name)

    def set(self, name: str, value: Any) -> None:
        """Set an attribute of the robot."""
        self._ask("set", name, value)

    def _ask(self, *request: Any) -> Any:
        self._pipe.send(request)
        return self._pipe.recv()

    def freeze(self) -> None:
        """It neither answers nor hangs up from now on, as after its cable was pulled."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def end(self) -> None:
        """Gone, as if its plug were pulled."""
        self._process.kill()
        self._process.join(5)


@contextlib.contextmanager
def robot_at_a_free_address(**options: float) -> Iterator[RobotProcess]:
    """A robot at the first address of 127.0.0.2 ... 127.0.0.60 whose ports nobody holds."""
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(its, options), daemon=True)
    process.start()
    its.close()
    robot = RobotProcess(ours.recv(), process, ours)
    try:
        yield robot
    finally:
        robot.end()
        ours.close()


def _serve(pipe: Connection, options: dict[str, float]) -> None:
    with _first_free(options) as robot:
        pipe.send(robot.host)
        while True:
            what, name, *rest = pipe.recv()
            if what == "do":
                pipe.send(getattr(robot, name)(*rest[0], **rest[1]))
            elif what == "see":
                pipe.send(getattr(robot, name))
            else:
                pipe.send(setattr(robot, name, rest[0]))


def _first_free(options: dict[str, float]) -> RtdeRobot:
    for number in range(2, 61):
        with contextlib.suppress(OSError):
            return RtdeRobot(f"127.0.0.{number}", **options)
    raise AssertionError("no address left for a robot")
