"""A program with one controller, run by a test that kills it: prints the controller's process."""

import sys
import time
from pathlib import Path

import numpy as np
from controller_rig import Rig
from made_actuator import MakeActuator

from dp_hub.robot.motion.plan import Plan


def main(diary: Path) -> None:
    """Move, and wait to be killed."""
    rig = Rig(MakeActuator(diary))
    rig.start()
    rig.beat()
    now_s = time.monotonic()
    rig.tell(Plan(0, np.array([now_s + 20.0]), np.array([[9.0, 0.0]]), 0.0))
    print(rig.worker.pid, flush=True)
    while True:
        rig.beat()
        time.sleep(0.01)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
