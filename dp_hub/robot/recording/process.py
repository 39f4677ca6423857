"""The recorder in a process of its own: whatever it does, the robot's loop does not wait for it."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from dp_hub.errors import RobotError
from dp_hub.robot.recording.inside import run
from dp_hub.robot.recording.job import RecorderArgument, RecorderJob
from dp_hub.robot.recording.state import RecorderState
from dp_hub.robot.shared.messages import Messages
from dp_hub.robot.worker import Worker

__all__ = ["RecorderJob", "RecorderProcess"]
log = logging.getLogger(__name__)
_POLL_S = 0.02
_READY_S = 60.0
_HANGS_S = 30.0  # it has to wait its turn on a busy machine, and nobody waits for it
_SEVERAL = 8  # seconds between sentences that finishing takes long


class RecorderProcess:
    """A `Recorder` elsewhere. Orders are sent and return at once; `told` says what became of them.

    Args:
        job: what to record.
    """

    def __init__(self, job: RecorderJob) -> None:
        self._orders, self._answers = Messages.create(), Messages.create()
        argument = RecorderArgument(job, self._orders.spec, self._answers.spec)
        self._worker = Worker("recorder", run, argument, beat_within_s=_HANGS_S)
        self._state = RecorderState(None, None, 0, 0, 0, 0)
        self._told: list[str] = []
        self._sent = self._done = 0
        self._is_open = True
        self._finished: dict[str, Any] | None = None

    def start_process(self) -> None:
        """Start it and wait until it has opened the dataset.

        Raises:
            RobotError, with the message of what `EpisodeSaver` raises.
        """
        self._worker.start()
        self._worker.wait_ready(_READY_S)
        self._listen()

    def check(self) -> None:
        """Raises RobotError if it has died or hangs. Episodes that were saved are kept."""
        self._listen()
        self._worker.check()

    @property
    def state(self) -> RecorderState:
        """What it was doing a moment ago; orders that were sent since may not be in it."""
        self._listen()
        return self._state

    @property
    def is_up_to_date(self) -> bool:
        """Whether it has done all orders, and nothing is on its way into the dataset."""
        self._listen()
        return self._done == self._sent and not self._state.saving

    def told(self) -> list[str]:
        """As `Recorder.told`."""
        self._listen()
        told, self._told = self._told, []
        return told

    def start(self, start_s: float, facts: Mapping[str, Any] | None = None) -> None:
        """As `Recorder.start`."""
        self._order("start", start_s, dict(facts or {}))

    def mark(self, event: str, value: Any, time_s: float) -> None:
        """As `Recorder.mark`."""
        self._order("mark", event, value, time_s)

    def stop(self, stop_s: float, facts: Mapping[str, Any] | None = None) -> None:
        """As `Recorder.stop`."""
        self._order("stop", stop_s, dict(facts or {}))

    def give_up(self) -> None:
        """As `Recorder.give_up`."""
        self._order("give_up")

    def drop_last(self) -> None:
        """As `Recorder.drop_last`."""
        self._order("drop_last")

    def close(self, *, timeout_s: float = 600.0) -> dict[str, Any] | None:
        """Save what is on its way, complete the dataset, end the process.

        Returns:
            ``n_episodes``, ``n_frames`` and ``fingerprint`` of the dataset; None without episodes,
            or if it takes longer than ``timeout_s``: it is valid, `dp-hub finish` completes it.
        Raises:
            RobotError: the process is gone, or the dataset cannot be completed.
        """
        began_s = said_s = time.monotonic()
        try:
            self._order("close")
            while self._finished is None and time.monotonic() - began_s < timeout_s:
                self.check()
                if time.monotonic() - said_s > _SEVERAL:
                    said_s = time.monotonic()
                    log.info("the dataset is being completed")
                time.sleep(_POLL_S)
        finally:
            self.kill()
        return self._finished or None

    def leave(self, *, timeout_s: float = 60.0) -> None:
        """Save the episodes that are over but complete nothing, and end the process. Never raises.

        One that hangs, or takes longer than ``timeout_s``, is killed.
        """
        self._worker.ask_to_stop()
        until_s = time.monotonic() + timeout_s
        while self._worker.is_alive and (now_s := time.monotonic()) < until_s:
            if self._worker.beat_age_s(now_s) > _HANGS_S:
                break
            time.sleep(_POLL_S)
        self.kill()

    def kill(self) -> None:
        """End the process without completing anything; what was saved is kept."""
        if self._is_open:
            self._worker.stop()
            self._listen()
            self._is_open = False
            self._orders.close()
            self._answers.close()

    def _order(self, what: str, *arguments: Any) -> None:
        """Raises RobotError: it has not taken orders for long."""
        if not self._orders.send({"do": what, "with": arguments}):
            raise RobotError(
                "the recorder does not take orders any more",
                hint="is the disk very slow? episodes that were saved are kept",
            )
        self._sent += 1

    def _listen(self) -> None:
        if not self._is_open:
            return
        for message in self._answers.receive():
            self._told += message.get("told", [])
            if "state" in message:
                self._state = RecorderState(**message["state"])
            self._done = message.get("done", self._done)
            if "finished" in message:
                self._finished = message["finished"]
