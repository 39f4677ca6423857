"""Small messages between two processes, over a `Queue`: JSON texts that never make anybody wait."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.fields import Field
from dp_hub.robot.shared.queue import Queue, QueueFull, QueueSpec

_BYTES = 4096
_FIELDS = (Field("size", (), "int64"), Field("text", (_BYTES,), "uint8"))


class Messages:
    """One direction. Made by `create`, given to the other process as `spec`, and attached there.

    Args:
        queue: of its own fields.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    @classmethod
    def create(cls, *, capacity: int = 64) -> "Messages":
        """Make one for so many messages that wait. Raises RobotError: memory is full."""
        return cls(Queue.create(_FIELDS, capacity=capacity))

    @classmethod
    def attach(cls, spec: QueueSpec) -> "Messages":
        """Map one that another process made. Raises RobotError: it is gone."""
        return cls(Queue.attach(spec))

    @property
    def spec(self) -> QueueSpec:
        """What another process needs to attach."""
        return self._queue.spec

    def send(self, message: Mapping[str, Any]) -> bool:
        """Leave a message that JSON can hold; False if there is no room: the other one is late.

        Raises:
            RobotError: it is longer than 4096 bytes.
        """
        data = json.dumps(dict(message)).encode()
        if len(data) > _BYTES:
            raise RobotError(f"a message has {len(data)} bytes; there is room for {_BYTES}")
        text = np.zeros(_BYTES, np.uint8)
        text[: len(data)] = np.frombuffer(data, np.uint8)
        try:
            self._queue.put({"size": np.array(len(data)), "text": text})
        except QueueFull:
            return False
        return True

    def receive(self) -> list[dict[str, Any]]:
        """All messages that are there, oldest first."""
        records = self._queue.take()
        return [json.loads(bytes(one["text"][: int(one["size"])])) for one in records]

    def close(self) -> None:
        """Let go, and remove it in the process that made it."""
        self._queue.close()
        self._queue.unlink()
