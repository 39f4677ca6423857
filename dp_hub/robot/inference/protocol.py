"""Asking a policy that runs elsewhere, in another process or on another machine, without waiting.

One question at a time: `ask`, then `answer` on each turn of the loop until it is there. Nothing
here waits for a policy but `wait_ready` and `wait`, which take a limit.
"""

from typing import Protocol

from dp_hub.robot.inference.info import Answer, Observed, PolicyInfo, Prefix


class Inference(Protocol):
    """A policy to ask. Used by one thread."""

    @property
    def info(self) -> PolicyInfo:
        """What it asks for. Raises RobotError before it was ready once."""

    def start(self) -> None:
        """Begin to get ready and return at once; after a failure, again and from the beginning."""

    @property
    def ready(self) -> bool:
        """Whether questions can be asked. Raises RobotError: the reason why they never can."""

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until questions can be asked. Raises RobotError: the reason why they cannot."""

    def ask(self, obs: Observed, *, seed: int | None = None, prefix: Prefix | None = None) -> None:
        """Ask for a chunk, and return as soon as the question is handed over.

        Args:
            obs: what the policy observes, numbers float (To, D) and pictures uint8 (To, H, W, 3);
                they may be changed when this returns.
            seed: of the policy's noise; None for noise of its own.
            prefix: for real-time chunking.
        Raises:
            RobotError: a question is in flight, the observations do not fit, or the policy is not
                there.
        """

    def answer(self) -> Answer | None:
        """The answer if it is there, once. Returns at once.

        Raises:
            Refused: the question does not suit the policy; another may be asked.
            RobotError: the policy is gone; `start` begins again.
        """

    @property
    def waiting(self) -> bool:
        """Whether a question is in flight."""

    def wait(self, timeout_s: float) -> bool:
        """Wait until `answer` has something to say, an answer or an error; whether it has."""

    def reset(self) -> None:
        """Forget the question in flight: its answer is never given, the next may be asked."""

    def close(self) -> None:
        """End it; never raises."""
