"""What controllers are told: plans, which may find no room, and orders, which must not be lost."""

import logging
from collections.abc import Mapping

import numpy as np

from dp_hub.robot.motion.plan import Order, Plan, pack
from dp_hub.robot.shared.queue import Queue, QueueFull
from dp_hub.robot.space import Space

log = logging.getLogger(__name__)


class Orders:
    """The session's end of the controllers' queues.

    Args:
        queues: by actuator.
        spaces: of the actuators.

    Attributes:
        full: how often a queue had no room.
    """

    def __init__(self, queues: Mapping[str, Queue], spaces: Mapping[str, Space]) -> None:
        self._queues, self._spaces = queues, spaces
        self._owed: dict[str, list[Order]] = {}
        self._number = 0
        self.full = 0

    @property
    def are_taken(self) -> bool:
        """Whether the controllers have taken all they were told."""
        return not self._owed and not any(queue.waiting for queue in self._queues.values())

    def move(
        self, actuator: str, times_s: np.ndarray, targets: np.ndarray, replace_from_s: float
    ) -> bool:
        """Send a plan: targets float64 (K, D) at times; False if there was no room.

        Plans are numbered in the order in which they are sent.
        """
        self._number += 1
        plan = Plan(self._number, times_s, targets, replace_from_s)
        if self._pay(actuator):
            try:
                self._queues[actuator].put(pack(plan, self._spaces[actuator].size))
                return True
            except QueueFull:
                pass
        self._is_full(actuator, "the plan is thrown away")
        return False

    def give(self, order: Order) -> None:
        """To every controller. Without room it is owed, and goes before any later plan."""
        for actuator in self._queues:
            owed = [] if order is Order.HOLD else self._owed.get(actuator, [])
            self._owed[actuator] = owed if order in owed else [*owed, order]
            if not self._pay(actuator):
                self._is_full(actuator, "it is told as soon as there is room")

    def pay(self) -> None:
        """Send what is owed, as far as there is room; to be called often."""
        for actuator in list(self._owed):
            self._pay(actuator)

    def _pay(self, actuator: str) -> bool:
        """Whether nothing is owed any more."""
        queue, owed = self._queues[actuator], self._owed.pop(actuator, [])
        while owed and queue.waiting < queue.spec.capacity:
            queue.put(pack(owed.pop(0), self._spaces[actuator].size))
        if owed:
            self._owed[actuator] = owed
        return not owed

    def _is_full(self, actuator: str, what: str) -> None:
        self.full += 1
        log.warning("the controller of %s takes no commands: %s", actuator, what)
