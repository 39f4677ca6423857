"""Real-time loops: what keeps other work of the machine, and of Python, from making them late."""

import gc
import logging
import os
import threading
from dataclasses import dataclass

from dp_hub.errors import ConfigError, RobotError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scheduling:
    """How a real-time loop is run.

    Its process collects no garbage from then on: objects that refer to each other in circles stay.

    Args:
        fifo: priority of SCHED_FIFO, 1 to 99, if that is permitted; None: as any process.
        spin_s: see `dp_hub.robot.clock.Clock.sleep_until`.
        cpu: number of the only CPU it runs on; None: any.
    """

    fifo: int | None = None
    spin_s: float = 0.0
    cpu: int | None = None

    def __post_init__(self) -> None:
        if self.fifo is not None and not 1 <= self.fifo <= 99:
            raise ConfigError(
                f"a SCHED_FIFO priority of {self.fifo}", hint="it is 1 to 99; 50 is a good one"
            )
        if self.spin_s < 0:
            raise ConfigError(f"spinning for {self.spin_s} s", hint="0.001 is much already")


def be_realtime(name: str, scheduling: Scheduling) -> None:
    """Run this thread as ``scheduling`` says, as far as this user is permitted to.

    So are other threads of Python, and those that it starts from now on.

    Raises:
        RobotError: there is no such CPU.
    """
    # Collecting garbage stops a loop for milliseconds; what is there now is never looked at again.
    gc.collect()
    gc.freeze()
    gc.disable()
    if scheduling.cpu is not None:
        _pin(name, scheduling.cpu)
    if scheduling.fifo is not None:
        _go_first(name, scheduling.fifo)


def _pin(name: str, cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})
    except AttributeError:
        log.warning("%s runs on any CPU: this system cannot say on which", name)
    except OSError as error:
        raise RobotError(
            f"{name} cannot run on CPU {cpu}: {error.strerror}",
            hint=f"CPUs of this process are {sorted(os.sched_getaffinity(os.getppid()))}",
        ) from None


def _go_first(name: str, priority: int) -> None:
    if not hasattr(os, "sched_setscheduler"):
        log.warning("%s runs without SCHED_FIFO, which this system does not have", name)
        return
    try:
        # All of Python's threads: one that holds the interpreter and is not run holds up the loop.
        for thread in threading.enumerate():
            if thread.native_id is not None:
                param = os.sched_param(priority)
                os.sched_setscheduler(thread.native_id, os.SCHED_FIFO, param)
    except PermissionError:
        log.warning(
            "%s runs without SCHED_FIFO, so other programs can make it late: this user is not"
            " permitted to use it. `@realtime - rtprio 90` in /etc/security/limits.conf for the"
            " users of that group, LimitRTPRIO=90 for a systemd service, `--cap-add SYS_NICE` for"
            " docker, or CAP_SYS_NICE otherwise, permit it",
            name,
        )
