"""A policy on this machine, in a process of its own: when it hangs or dies, the robot does not.

>>> with LocalInference("runs/pusht/policy") as inference:
...     inference.ask({"observation.state": state}, seed=0)
...     while (answer := inference.answer()) is None:
...         ...  # the loop goes on
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dp_hub.errors import RobotError
from dp_hub.robot.inference.folder import read_info
from dp_hub.robot.inference.info import (
    Answer,
    Observed,
    PolicyInfo,
    Prefix,
    Question,
    Refused,
    checked,
    checked_prefix,
)
from dp_hub.robot.inference.mailbox import Mailbox, MailSpec
from dp_hub.robot.worker import Context, Worker

_LOOK_S = 0.0005
_IDLE_S, _BUSY_S = 10.0, 1.0
"""How long a process may take to end; one with a question may hang."""
READY_WITHIN_S = 120.0


@dataclass(frozen=True)
class Loading:
    """How the policy is loaded and run; see `LocalInference`."""

    folder: str
    device: str
    scheduler: str | None
    steps: int | None
    precision: str
    threads: int | None
    delay_s: float
    realtime: bool


@dataclass(frozen=True)
class PolicyJob:
    """What the policy's process is given."""

    info: PolicyInfo
    mail: MailSpec
    loading: Loading


class LocalInference:
    """An `Inference` over a policy folder.

    Args:
        folder: of the policy.
        name, sha, period_s: for its `PolicyInfo`, see `read_info`.
        device, scheduler, steps, precision: as of `dp_hub.load_policy`.
        threads: of torch; more than one can make a controller on the same machine late. None: as
            many as torch takes.
        realtime: a prefix will come with questions; the first one is slow too, by seconds.
        delay_s: waited before every answer, to see what slower inference would do.
        answer_within_s: a process that does not answer in that time counts as gone.
        main: what the process does, for one that is no policy.
    Raises:
        RobotError: there is no policy.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str | None = None,
        sha: str | None = None,
        period_s: float | None = None,
        device: str = "cpu",
        scheduler: str | None = None,
        steps: int | None = None,
        precision: str = "no",
        threads: int | None = 1,
        realtime: bool = False,
        delay_s: float = 0.0,
        answer_within_s: float = 60.0,
        main: Callable[[Context, PolicyJob], None] | None = None,
    ) -> None:
        if (threads is not None and threads < 1) or delay_s < 0 or answer_within_s <= 0:
            raise RobotError(
                f"threads {threads}, delay_s {delay_s} and answer_within_s {answer_within_s}"
                " cannot be: one thread or more, no negative times"
            )
        self.info = read_info(Path(folder), name=name, sha=sha, period_s=period_s)
        self._answer_within_s = answer_within_s
        self._loading = Loading(
            str(folder), device, scheduler, steps, precision, threads, delay_s, realtime
        )
        self._main = main or _run
        self._worker: Worker[PolicyJob] | None = None
        self._mailbox: Mailbox | None = None
        self._number = 0
        self._asked_s: float | None = None
        self._ending: list[threading.Thread] = []

    def start(self) -> None:
        """Start the process and return at once; one that is there is ended."""
        self._let_go()
        self._mailbox = Mailbox.create(self.info)
        job = PolicyJob(self.info, self._mailbox.spec, self._loading)
        self._worker = Worker(f"policy {self.info.name}", self._main, job)
        self._worker.start()

    @property
    def pid(self) -> int:
        """Of the policy's process."""
        return self._there()[0].pid

    @property
    def ready(self) -> bool:
        """Whether questions can be asked. Raises RobotError: the reason why they never can."""
        worker, _ = self._there()
        worker.check()
        return math.isfinite(worker.beat_age_s(time.monotonic()))

    def wait_ready(self, timeout_s: float = READY_WITHIN_S) -> None:
        """Wait until questions can be asked. Raises RobotError: the reason why they cannot."""
        worker, _ = self._there()
        worker.wait_ready(timeout_s)

    def ask(self, obs: Observed, *, seed: int | None = None, prefix: Prefix | None = None) -> None:
        """See `Inference.ask`."""
        if self.waiting:
            raise RobotError("the policy was asked before and has not answered", hint="`reset`")
        _, mailbox = self._there()
        if not self.ready:
            raise RobotError(f"policy {self.info.name} is not ready yet")
        values, kept = checked(obs, self.info), checked_prefix(prefix, self.info)
        if seed is not None and not 0 <= seed < 2**63:
            raise Refused(f"seed is {seed}, expected 0 to 2**63 - 1")
        self._number += 1
        asked_s = time.monotonic()
        mailbox.ask(Question(self._number, values, seed, kept))
        self._asked_s = asked_s

    def answer(self) -> Answer | None:
        """See `Inference.answer`."""
        worker, mailbox = self._there()
        asked_s = self._asked_s
        reply = None if asked_s is None else mailbox.answer(self._number)
        now_s = time.monotonic()
        if asked_s is None or reply is None:
            self._check(worker, now_s)
            return None
        self._asked_s = None
        if reply.chunk is None:
            raise Refused(f"the policy refused the question: {reply.refused}")
        return Answer(reply.chunk, asked_s, now_s, reply.compute_s)

    @property
    def waiting(self) -> bool:
        """Whether a question is in flight."""
        return self._asked_s is not None

    def wait(self, timeout_s: float) -> bool:
        """See `Inference.wait`."""
        worker, mailbox = self._there()
        until_s = time.monotonic() + timeout_s
        while self.waiting and mailbox.answer(self._number) is None:
            try:
                self._check(worker, time.monotonic())
            except RobotError:
                return True
            if time.monotonic() >= until_s:
                return False
            time.sleep(_LOOK_S)
        return self.waiting

    def reset(self) -> None:
        """See `Inference.reset`."""
        self._asked_s = None

    def close(self) -> None:
        """End the process."""
        self._let_go()
        for thread in self._ending:
            thread.join()
        self._ending.clear()

    def _check(self, worker: Worker[PolicyJob], now_s: float) -> None:
        worker.check()
        if self._asked_s is not None and now_s - self._asked_s > self._answer_within_s:
            raise RobotError(
                f"policy {self.info.name} hangs: no answer within {self._answer_within_s:g} s"
            )

    def _there(self) -> tuple[Worker[PolicyJob], Mailbox]:
        if self._worker is None or self._mailbox is None:
            raise RobotError(f"policy {self.info.name} was not started")
        return self._worker, self._mailbox

    def _let_go(self) -> None:
        worker, mailbox = self._worker, self._mailbox
        patience_s = _BUSY_S if self.waiting else _IDLE_S
        self._worker = self._mailbox = self._asked_s = None
        if worker is not None and mailbox is not None:
            # One that hangs takes a while to end, which the robot's loop must not wait for.
            ending = threading.Thread(target=_end, args=(worker, mailbox, patience_s), daemon=True)
            ending.start()
            self._ending.append(ending)

    def __enter__(self) -> "LocalInference":
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _run(context: Context, job: PolicyJob) -> None:
    from dp_hub.robot.inference import predicting

    predicting.run(context, job)


def _end(worker: Worker[PolicyJob], mailbox: Mailbox, patience_s: float) -> None:
    worker.stop(patience_s)
    mailbox.close()
