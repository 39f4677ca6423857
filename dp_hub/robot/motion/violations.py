"""What a controller has to tell: one event for a violation from its begin to its end."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dp_hub.robot.motion.limiting import Excess

MOST_EVENTS = 1000
_QUIET_S = 0.5


@dataclass(frozen=True)
class Event:
    """Something that was not as planned.

    Args:
        kind: ``box``, ``step``, ``speed``, ``acceleration``, ``refused``, ``dry``, ``hold``,
            ``stop`` or ``resume``.
        text: what, for people.
        began_s: monotonic seconds.
        ended_s: the last tick it was seen at; ``began_s`` for what takes no time.
        worst: the largest amount seen, or 0.
        limit: what is allowed of it, or 0.
        ticks: at how many ticks it was seen.
    """

    kind: str
    text: str
    began_s: float
    ended_s: float
    worst: float = 0.0
    limit: float = 0.0
    ticks: int = 1

    def __str__(self) -> str:
        if not self.limit and not self.worst:
            return self.text
        lasted = self.ended_s - self.began_s
        return f"{self.text}: {self.worst:.4g}, limit {self.limit:.4g}, for {lasted:.3g} s"


_TEXTS = {
    "box": "a target is outside `low` and `high`, by",
    "step": "a target is farther from the measured position than `step`",
    "speed": "a plan is faster than `speed`",
    "rotation_speed": "a plan turns faster than `rotation_speed`",
    "acceleration": "the command falls behind its plan because of `acceleration`",
    "rotation_acceleration": "the command falls behind its plan because of `rotation_acceleration`",
}


class Events:
    """The last ``MOST_EVENTS`` of them. A violation that comes back within 0.5 s is the same one,
    so that a robot pressed to the edge of its limits does not fill the log."""

    def __init__(self) -> None:
        self._over: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._open: dict[str, Event] = {}

    def tell(self, kind: str, text: str, now_s: float) -> None:
        """Of something that takes no time."""
        self._over.append(Event(kind, text, now_s, now_s))

    def see(self, excess: Iterable[Excess], now_s: float) -> None:
        """The limits run into at one tick."""
        for one in excess:
            before = self._open.get(one.what)
            if before is None:
                text = _TEXTS.get(one.what, _TEXTS[one.kind])
                before = Event(one.kind, text, now_s, now_s, one.amount, one.limit, ticks=0)
            self._open[one.what] = replace(
                before,
                ended_s=now_s,
                worst=max(before.worst, one.amount),
                ticks=before.ticks + 1,
            )
        for what, event in list(self._open.items()):
            if now_s - event.ended_s > _QUIET_S:
                self._over.append(self._open.pop(what))

    def close(self) -> None:
        """End what has not ended."""
        self._over.extend(self._open.values())
        self._open.clear()

    def take(self) -> list[Event]:
        """Those that are over, once."""
        taken = list(self._over)
        self._over.clear()
        return taken
