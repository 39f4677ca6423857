"""The recorder in a process of its own: whatever it does, the robot's loop does not wait for it."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp_hub.errors import DpHubError, RobotError
from dp_hub.robot.clock import MonotonicClock, ticks
from dp_hub.robot.recording.recorder import RecorderState
from dp_hub.robot.shared.messages import Messages
from dp_hub.robot.shared.queue import QueueSpec
from dp_hub.robot.shared.ring import RingSpec
from dp_hub.robot.worker import Context, Worker

if TYPE_CHECKING:
    from dp_hub.dataset.features import ImageMode
    from dp_hub.robot.recording.recorder import Recorder

log = logging.getLogger(__name__)
_POLL_S = 0.02
_STATE_S = 0.1
_READY_S = 60.0
_HANGS_S = 10.0
_SEVERAL = 8  # seconds between sentences that finishing takes long
_LONGEST = 1000  # characters of a sentence


@dataclass(frozen=True)
class RecorderJob:
    """What to record, and where to.

    Args:
        rings: of the streams, by name.
        rates_hz: how often samples come, by stream.
        mapping: `MappingConfig` as plain values, by its file's words.
        to: the dataset.
        raw: folder of the raw streams.
        keep_raw: whether they stay when the dataset has an episode.
        source: see `EpisodeSaver`; images and codec too.
    """

    rings: Mapping[str, RingSpec]
    rates_hz: Mapping[str, float]
    mapping: Mapping[str, Any]
    to: Path
    raw: Path
    keep_raw: bool = True
    source: Mapping[str, Any] = field(default_factory=dict)
    images: "ImageMode" = "auto"
    codec: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class _Argument:
    job: RecorderJob
    orders: QueueSpec
    answers: QueueSpec


class RecorderProcess:
    """A `Recorder` elsewhere. Orders are sent and return at once; `told` says what became of them.

    Args:
        job: what to record.
    """

    def __init__(self, job: RecorderJob) -> None:
        self._orders, self._answers = Messages.create(), Messages.create()
        argument = _Argument(job, self._orders.spec, self._answers.spec)
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
        """What it was doing a moment ago; `saving` counts orders it has not seen yet too."""
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


def run(context: Context, argument: _Argument) -> None:
    """What the process does. Raises what `EpisodeSaver` and `Recorder` raise."""
    orders, report = Messages.attach(argument.orders), _Report(Messages.attach(argument.answers))
    clock, finish = MonotonicClock(), False
    recorder = _recorder_of(argument.job)
    written = None
    try:
        context.ready()
        for _ in ticks(_POLL_S, clock):
            now_s = clock.now_s()
            for order in orders.receive():
                finish |= order["do"] == "close"
                report.did(_do(recorder, order))
            report.say(_polled(recorder, now_s), recorder.state, now_s)
            context.beat(now_s)
            if finish or context.stopping:
                break
    finally:
        written = _closed(context, recorder, clock, finish=finish)
    report.end(recorder.told(), written)


class _Report:
    """What goes back: sentences are kept until there is room for them."""

    def __init__(self, answers: Messages) -> None:
        self._answers = answers
        self._waiting: list[str] = []
        self._done, self._said_s = 0, 0.0

    def did(self, problem: str | None) -> None:
        """An order was followed, or not."""
        self._done += 1
        self._said_s = 0.0
        self._waiting += [problem] if problem else []

    def say(self, told: list[str], state: RecorderState, now_s: float) -> None:
        """Send the state, ten times a second or when there is something to tell."""
        self._waiting += told
        if not self._waiting and now_s - self._said_s < _STATE_S:
            return
        self._said_s = now_s
        self._tell()
        self._answers.send({"state": asdict(state), "done": self._done})

    def end(self, told: list[str], written: Any) -> None:
        """The last words."""
        self._waiting += told
        self._tell()
        names = ("n_episodes", "n_frames", "fingerprint")
        facts = {name: getattr(written, name) for name in names} if written else {}
        self._answers.send({"finished": facts})

    def _tell(self) -> None:
        while self._waiting and self._answers.send({"told": [self._waiting[0][:_LONGEST]]}):
            self._waiting.pop(0)


def _recorder_of(job: RecorderJob) -> "Recorder":
    from dp_hub.config import build
    from dp_hub.replay.mapping.config import MappingConfig
    from dp_hub.robot.recording.raw_folder import RawFolder
    from dp_hub.robot.recording.recorder import Recorder
    from dp_hub.robot.recording.saving import EpisodeSaver
    from dp_hub.robot.recording.streams import StreamSource
    from dp_hub.robot.shared.ring import Ring

    sources = [
        StreamSource(name, Ring.attach(spec), spec.fields, job.rates_hz[name])
        for name, spec in job.rings.items()
    ]
    raw = RawFolder(job.raw, keep=job.keep_raw)
    mapping = build(MappingConfig, dict(job.mapping), where="the recorder's mapping")
    saver = EpisodeSaver(
        job.to, mapping, raw, source=job.source, images=job.images, codec=job.codec,
        threads=job.threads,
    )  # fmt: skip
    return Recorder(sources, raw, saver)


def _do(recorder: "Recorder", order: Mapping[str, Any]) -> str | None:
    """Follow an order. Returns what went wrong, in words."""
    if order["do"] == "close":
        return None
    actions: dict[str, Callable[..., Any]] = {
        "start": recorder.start,
        "mark": recorder.mark,
        "stop": recorder.stop,
        "give_up": recorder.give_up,
        "drop_last": recorder.drop_last,
    }
    try:
        actions[order["do"]](*order["with"])
    except DpHubError as error:
        return str(error)
    return None


def _polled(recorder: "Recorder", now_s: float) -> list[str]:
    """Take what has come. Returns sentences for the person."""
    try:
        recorder.poll(now_s)
    except RobotError as error:
        return [*recorder.told(), str(error)]
    return recorder.told()


def _closed(context: Context, recorder: "Recorder", clock: MonotonicClock, *, finish: bool) -> Any:
    """Save what is on its way, and beat meanwhile."""
    import threading

    made: list[Any] = []
    failed: list[BaseException] = []

    def close() -> None:
        try:
            made.append(recorder.close(finish=finish))
        except DpHubError as error:
            failed.append(error)

    thread = threading.Thread(target=close, name="complete")
    thread.start()
    while thread.is_alive():
        context.beat(clock.now_s())
        thread.join(_STATE_S)
    if failed:
        raise failed[0]
    return made[0] if made else None
