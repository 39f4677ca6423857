"""A program with workers and shared memory, run by tests that kill it: prints its processes."""

import json
import logging
import sys
import time
import wave  # noqa: F401 - something that only this program imports
from typing import Any

import numpy as np
import worker_mains as mains

from dp_hub.robot.shared.board import Board
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.shared.segment import sweep
from dp_hub.robot.worker import Context, Worker


def mine(context: Context, _: None) -> None:
    """A worker of the program itself."""
    mains.tells_of_itself(context, False)


def main(kind: str, to: str) -> None:
    """Start what ``kind`` says; wait, end, or fail."""
    logging.basicConfig(level=logging.INFO, format="%(processName)s: %(message)s")
    if kind == "sweep":
        print(json.dumps(sweep()), flush=True)
        return
    ring = Ring.create(mains.FIELDS, rate_hz=10)
    ring.put(1.0, {"picture": np.zeros((480, 640, 3), np.uint8)})
    board = Board.create(["one"])
    workers = start(kind, to)
    pids = [one.pid for one in workers]
    print(json.dumps({"pids": pids, "segments": [ring.spec.segment, board.spec.segment]}))
    sys.stdout.flush()
    if kind == "fails":
        raise ValueError("the program has a bug")
    if kind == "forgets":
        return
    if kind == "logs":
        time.sleep(0.3)
        for worker in workers:
            worker.stop()
        return
    time.sleep(600)


def start(kind: str, to: str) -> list[Worker[Any]]:
    of_kind: dict[str, list[tuple[Any, Any]]] = {
        "alone": [],
        "forgets": [(mains.holds_first, to), (mains.makes_memory, f"{to}.memory")],
        "logs": [(mains.logs, 0), (mains.tells_of_itself, False), (mine, None)],
    }
    usual = [(mains.holds_first, to), (mains.makes_memory, f"{to}.memory"), (mains.hangs, None)]
    workers = []
    for number, (function, argument) in enumerate(of_kind.get(kind, usual)):
        orphan_s = 1.0 if function is mains.hangs else 20.0
        worker = Worker(f"worker {number}", function, argument, orphan_s=orphan_s)
        worker.start()
        worker.wait_ready(30)
        workers.append(worker)
    return workers


if __name__ == "__main__":
    main(*sys.argv[1:])
