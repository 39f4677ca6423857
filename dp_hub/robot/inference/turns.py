"""Questions of several clients to one policy, in the order they came."""

import asyncio
import logging
import time
from collections.abc import Callable

from dp_hub.errors import RobotError
from dp_hub.robot.inference.info import Answer, Observed, Prefix, Refused
from dp_hub.robot.inference.protocol import Inference

log = logging.getLogger(__name__)
_LOOK_S = 0.25


class Turns:
    """Lets whoever asks wait for their turn. A policy that is gone is started again.

    Args:
        inference: ready; nobody else asks it.
    """

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._turn = asyncio.Lock()  # it is given in the order it was asked for
        self._starting: asyncio.Task[None] | None = None
        self._ending = False

    async def ask(
        self,
        obs: Observed,
        *,
        seed: int | None,
        prefix: Prefix | None,
        wanted: Callable[[], bool],
    ) -> tuple[Answer, float]:
        """The answer, and the seconds that the question waited for its turn.

        Args:
            obs, seed, prefix: as of `Inference.ask`.
            wanted: whether whoever asked is still there, asked when the turn comes.
        Raises:
            Refused: the question does not suit the policy, or is not wanted any more.
            RobotError: the policy is gone, or still being started.
        """
        began_s = time.monotonic()
        async with self._turn:
            waited_s = time.monotonic() - began_s
            if not wanted():
                raise Refused("whoever asked is gone")
            return await self._answer(obs, seed, prefix), waited_s

    async def end(self) -> None:
        """Let go of whoever waits."""
        self._ending = True
        if self._starting is not None:
            await self._starting

    async def _answer(self, obs: Observed, seed: int | None, prefix: Prefix | None) -> Answer:
        if self._starting is not None and not self._starting.done():
            raise RobotError("the policy is being started again", hint="ask again in a while")
        try:
            self._inference.ask(obs, seed=seed, prefix=prefix)
            while True:
                await asyncio.to_thread(self._inference.wait, _LOOK_S)
                if self._ending:
                    raise Refused("the server is ending")
                answer = self._inference.answer()
                if answer is not None:
                    return answer
        except Refused:
            raise
        except RobotError as error:
            log.warning("the policy is gone and is started again: %s", error.message)
            self._starting = asyncio.create_task(self._start_again())
            raise
        finally:
            if self._inference.waiting:
                self._inference.reset()

    async def _start_again(self) -> None:
        """If it cannot be, who asks next is told why, and it is tried once more."""
        try:
            self._inference.start()
            while not (self._ending or self._inference.ready):
                await asyncio.sleep(_LOOK_S)
        except RobotError as error:
            log.warning("the policy cannot be started: %s", error.message)
        else:
            log.info("the policy is there again")
