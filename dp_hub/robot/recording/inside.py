"""The inside of the recorder's process: see `dp_hub.robot.recording.process`."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dp_hub.errors import DpHubError, RobotError
from dp_hub.robot.clock import MonotonicClock, ticks
from dp_hub.robot.recording.job import RecorderArgument, RecorderJob
from dp_hub.robot.recording.state import RecorderState
from dp_hub.robot.shared.messages import Messages
from dp_hub.robot.worker import Context

if TYPE_CHECKING:
    from dp_hub.robot.recording.recorder import Recorder

_POLL_S = 0.02
_STATE_S = 0.1
_LONGEST = 600  # characters of a sentence: in any script a message has room for them


def run(context: Context, argument: RecorderArgument) -> None:
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
    import dp_hub.dataset.reader
    import dp_hub.dataset.video
    import dp_hub.dataset.writer  # noqa: F401  # now, not while an episode goes by
    from dp_hub.config import build
    from dp_hub.replay.mapping.config import MappingConfig
    from dp_hub.robot.recording.raw_folder import RawFolder
    from dp_hub.robot.recording.recorder import Recorder
    from dp_hub.robot.recording.saving import EpisodeSaver
    from dp_hub.robot.recording.streams import StreamSource
    from dp_hub.robot.recording.tables import warm_up
    from dp_hub.robot.shared.ring import Ring

    warm_up()
    sources = [
        StreamSource(
            name,
            Ring.attach(spec),
            spec.fields,
            job.rates_hz[name],
            has_before=name not in job.sent,
        )
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
