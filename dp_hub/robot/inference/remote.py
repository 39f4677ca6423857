"""A policy on another machine as an `Inference`: the thin client in a thread of its own.

The thread waits for the network; whoever asks never does.
"""

import threading
import time
from pathlib import Path

from dp_hub.errors import RobotError
from dp_hub.robot.inference.client import PolicyClient
from dp_hub.robot.inference.info import (
    Answer,
    Observed,
    PolicyInfo,
    Prefix,
    Question,
    checked,
    checked_prefix,
)

_LOOK_S = 0.0005
_PATIENCE_S = 2.0


class RemoteInference:
    """An `Inference` over a server that `dp-hub serve-policy` runs.

    A lost connection is an error of the question it was lost with; the next question connects
    again. Without a question nothing is noticed, and nothing needs to be.

    Args:
        url, token, token_file, certificate, connect_within_s, answer_within_s: as of
            `PolicyClient`.
    Raises:
        RobotError: as `PolicyClient` does.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        token_file: str | Path | None = None,
        certificate: str | Path | None = None,
        connect_within_s: float = 5.0,
        answer_within_s: float = 30.0,
    ) -> None:
        self._client = PolicyClient(
            url,
            token,
            token_file=token_file,
            certificate=certificate,
            connect_within_s=connect_within_s,
            answer_within_s=answer_within_s,
        )
        self._url = url
        self._wake = threading.Condition()
        self._info: PolicyInfo | None = None
        self._asked: Question | None = None  # not taken up yet
        self._told: tuple[int, Answer | RobotError] | None = None
        self._number = 0
        self._waiting = self._ending = False
        self._failed: RobotError | None = None
        self._thread: threading.Thread | None = None

    @property
    def info(self) -> PolicyInfo:
        """See `Inference.info`."""
        if self._info is None:
            raise RobotError(f"the policy server at {self._url} has not said hello yet")
        return self._info

    def start(self) -> None:
        """Begin to connect and return at once."""
        with self._wake:
            if self._thread is not None and self._thread.is_alive():
                return  # it connects with the next question
            self._failed, self._waiting, self._ending = None, False, False
            self._thread = threading.Thread(target=self._run, name="policy client", daemon=True)
            self._thread.start()

    @property
    def ready(self) -> bool:
        """See `Inference.ready`."""
        if self._failed is not None:
            raise _again(self._failed)
        if self._thread is None:
            raise RobotError(f"the client of {self._url} was not started")
        return self._info is not None

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """See `Inference.wait_ready`."""
        until_s = time.monotonic() + timeout_s
        while not self.ready:
            if time.monotonic() >= until_s:
                raise RobotError(f"no hello from {self._url} within {timeout_s:g} s")
            time.sleep(_LOOK_S)

    def ask(self, obs: Observed, *, seed: int | None = None, prefix: Prefix | None = None) -> None:
        """See `Inference.ask`."""
        if self._waiting:
            raise RobotError("the policy was asked before and has not answered", hint="`reset`")
        if not self.ready:
            raise RobotError(f"the policy server at {self._url} has not said hello yet")
        # Copies: what was given may be changed when this returns.
        values = {name: value.copy() for name, value in checked(obs, self.info).items()}
        kept = checked_prefix(prefix, self.info)
        with self._wake:
            self._number += 1
            self._asked = Question(self._number, values, seed, kept)
            self._waiting = True
            self._wake.notify()

    def answer(self) -> Answer | None:
        """See `Inference.answer`."""
        told = self._told
        if not self._waiting or told is None or told[0] != self._number:
            _ = self.ready  # says what is wrong
            return None
        self._waiting = False
        if isinstance(told[1], RobotError):
            raise _again(told[1])
        return told[1]

    @property
    def waiting(self) -> bool:
        """Whether a question is in flight."""
        return self._waiting

    def wait(self, timeout_s: float) -> bool:
        """See `Inference.wait`."""
        with self._wake:
            self._wake.wait_for(self._has_news, timeout_s)
            return self._has_news()

    def reset(self) -> None:
        """See `Inference.reset`."""
        self._waiting = False

    def close(self) -> None:
        """Close the connection."""
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._client.abort()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)

    def _has_news(self) -> bool:
        told = self._told
        return self._waiting and told is not None and told[0] == self._number

    def _run(self) -> None:
        """The thread."""
        try:
            self._info = self._client.info
        except RobotError as error:
            self._failed = error
            return
        while (asked := self._next()) is not None:
            told: Answer | RobotError
            try:
                told = self._client.predict(asked.obs, seed=asked.seed, prefix=asked.prefix)
            except RobotError as error:
                told = error
            with self._wake:
                self._told = (asked.number, told)
                self._wake.notify_all()
        self._client.close()

    def _next(self) -> Question | None:
        with self._wake:
            self._wake.wait_for(lambda: self._asked is not None or self._ending)
            asked, self._asked = self._asked, None
            return None if self._ending else asked

    def __enter__(self) -> "RemoteInference":
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _again(error: RobotError) -> RobotError:
    """The same for another raise, without the first one's traceback."""
    return type(error)(error.message, hint=error.hint)
