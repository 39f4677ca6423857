"""Processes that record made-up episodes into one dataset until somebody kills them.

It imports everything once and forks a recorder for every line on its standard input, the folder and
how many episodes it shall have. The recorder prints its process id, then a line for every episode
that it says it has saved, then ``end``.
"""

import contextlib
import os
import sys
import time
import traceback
from multiprocessing import resource_tracker
from pathlib import Path

from played_streams import PlayedRobot, made_up, record, recorder_for

import dp_hub.dataset.editing
import dp_hub.dataset.reader
import dp_hub.dataset.video
import dp_hub.dataset.writer  # noqa: F401  # all before the first fork
from dp_hub.dataset.lock import InUseError
from dp_hub.robot.shared import segment


def keep_recording(to: Path, total: int) -> None:
    """Go on where the dataset ends. What an episode is depends on its number alone."""
    played = PlayedRobot((32, 32, 3))
    recorder = None
    for _ in range(1000):  # the lock of one that was killed is free a little later
        with contextlib.suppress(InUseError):
            recorder = recorder_for(played, to)
            break
        time.sleep(0.01)
    assert recorder is not None, "somebody has its lock"
    print("ready", recorder.state.n_episodes, flush=True)
    while (number := recorder.state.n_episodes) < total:
        demo, start_s = made_up(number, length=8), 10.0 * number + 1.0
        played.skip_to(start_s - 0.5)
        record(recorder, played, demo, facts={"seed": number}, start_s=start_s)
        print("saved", recorder.state.n_episodes, flush=True)
    recorder.close()
    played.close()
    print("end", flush=True)


def main() -> None:
    resource_tracker.ensure_running()  # one for all
    for line in sys.stdin:
        to, total = line.split()
        pid = os.fork()
        if pid == 0:
            try:
                print("pid", os.getpid(), flush=True)
                keep_recording(Path(to), int(total))
            except Exception:  # noqa: BLE001 - told, and the next one goes on
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        segment.remove_of(pid)
        print("gone", flush=True)


main()
