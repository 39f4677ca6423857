"""Policies of a run's checkpoints on their way to the Hub, beside the training and never before it.

Each push is a process of its own: training shares neither its interpreter nor its connections, and
a Hub that is away costs it nothing but a warning.
"""

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dp_hub.errors import HubError

log = logging.getLogger(__name__)

PROGRAM = "from dp_hub.cli.main import main; main()"
RETRY_S = 5.0


def check_can_push(name: str) -> None:
    """Refuse at the start what no retry would mend. Asks nobody.

    Raises:
        HubError: there is no token.
    """
    from dp_hub.hub.client import TOKEN, endpoint, has_token

    if not has_token():
        raise HubError(
            f"`push` is {name}, but there is no token to push to {endpoint()} with", hint=TOKEN
        )


class Pusher:
    """Pushes policy folders one after the other; of those that wait, only the newest.

    A push that fails is told of and tried again when the next folder comes, and by `finish`.

    Args:
        name: ``user/name`` on the Hub.
        folder: where policies lie until they are pushed; an earlier run's are removed.
        retry_s: pause between attempts at the end.
    """

    def __init__(self, name: str, folder: Path, *, retry_s: float = RETRY_S) -> None:
        self.name = name
        self.newest: int | None = None
        """The step of the newest policy that was offered."""
        self._folder = folder
        self._retry_s = retry_s
        self._process: subprocess.Popen[bytes] | None = None
        self._sending: Path | None = None
        self._waiting: Path | None = None
        shutil.rmtree(folder, ignore_errors=True)

    def offer(self, step: int, write: Callable[[Path], Path]) -> None:
        """Write the policy of a step with ``write(folder)``, and have it pushed meanwhile."""
        self._collect()
        self.newest = step
        self._replace(write(self._folder / f"step_{step:08d}"))
        self._begin()

    def finish(self, *, patience_s: float) -> bool:
        """Wait for the newest policy to arrive, trying again; whether it did."""
        deadline = time.monotonic() + patience_s
        while True:
            self._begin()
            if self._process is None:
                break
            try:
                self._process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            arrived = self._collect()
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if not arrived:
                time.sleep(min(self._retry_s, left))
        arrived = self._waiting is None
        if arrived:
            shutil.rmtree(self._folder, ignore_errors=True)
        return arrived

    def _begin(self) -> None:
        """Push what waits, unless something is on its way."""
        if self._process is not None or self._waiting is None:
            return
        self._sending, self._waiting = self._waiting, None
        step = int(self._sending.name.removeprefix("step_"))
        words = ["push", str(self._sending), self.name, "--message", f"Step {step:,}"]
        with self._said().open("wb") as said:
            # A session of its own: Ctrl-C is for the training.
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *words],
                env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )

    def _collect(self) -> bool:
        """Look whether the push has ended; False if it failed, and then its policy waits again."""
        if self._process is None or self._sending is None or self._process.poll() is None:
            return True
        status, sent = self._process.returncode, self._sending
        self._process = self._sending = None
        if status == 0:
            log.info("pushed the policy of %s to %s", sent.name, self.name)
            shutil.rmtree(sent)
            return True
        log.warning("the policy of %s was not pushed: %s", sent.name, self._reason(status))
        if self._waiting is None:
            self._waiting = sent
        return False

    def _replace(self, newest: Path) -> None:
        if self._waiting is not None and self._waiting != newest:
            shutil.rmtree(self._waiting)
        self._waiting = newest

    def _said(self) -> Path:
        return self._folder / "log.txt"

    def _reason(self, status: int) -> str:
        lines = self._said().read_text(errors="replace").strip().splitlines()
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return said[-1] if said else (lines[-1] if lines else f"it ended with status {status}")
