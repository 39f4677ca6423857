"""All processes of a robot: started together, watched, told what to do, and ended together.

Who does what:

| process | does | when it ends or hangs |
|---|---|---|
| session (the caller's) | tells, watches, beats | controllers hold, then end by themselves |
| controller of an actuator | limits, interpolation, the driver | the session stops the others and says why |
| camera | frames into a ring | the session stops the actuators and says why |
| world (simulation only) | the physics | the session stops the actuators and says why |

What is lost on the way (late points, full queues, frames with impossible times) is counted in
`Session.counts`, never silently.
"""

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.clock import Clock, MonotonicClock
from dp_hub.robot.config import RobotConfig
from dp_hub.robot.motion.plan import Plan
from dp_hub.robot.session.parts import Parts, make_parts
from dp_hub.robot.shared.ring import Ring, Samples
from dp_hub.robot.worker import Scheduling

log = logging.getLogger(__name__)
READY_S = 30.0
FIRST_SAMPLES_S = 10.0


class Session:
    """A robot that is on. Use as a context manager.

    Args:
        config: of the robot.
        dry_run: everything but sending targets to the arms.
        scheduling: of controllers, cameras and the world; None: as every other process.
        clock: of the session.
    Raises:
        RobotError: a device is away, on entering.
    """

    def __init__(
        self,
        config: RobotConfig,
        *,
        dry_run: bool = False,
        scheduling: Scheduling | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config, self.dry_run = config, dry_run
        self.clock = clock or MonotonicClock()
        self._scheduling = scheduling
        self._parts: Parts | None = None
        self._plan_number = 0
        self.full_queues = 0
