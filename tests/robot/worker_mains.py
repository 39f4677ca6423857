"""What workers do in tests."""

import gc
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from dp_hub.errors import DataError
from dp_hub.robot.fields import Field
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.worker import Context

log = logging.getLogger("dp_hub.robot.mains")
FIELDS = (Field("picture", (480, 640, 3), "uint8"),)


def beats(context: Context, stop_after_s: float) -> None:
    """Works as it should, but beats only so long."""
    context.ready()
    start_s = time.monotonic()
    while not context.stopping:
        now_s = time.monotonic()
        if now_s - start_s < stop_after_s:
            context.beat(now_s)
        time.sleep(0.005)


def fails(context: Context, when: str) -> None:
    """As a device does that is not there."""
    if when == "after":
        context.ready()
    raise DataError("there is no arm at 10.0.0.7", hint="switch it on")


def has_a_bug(context: Context, _: None) -> None:
    context.ready()
    {}["key"]


def returns(context: Context, _: None) -> None:
    context.ready()


def exits(context: Context, status: int) -> None:
    os._exit(status)


def sleeps(context: Context, to: str) -> None:
    """Never looks whether it should stop; writes a file when it is made to end."""
    context.ready()
    try:
        time.sleep(600)
    finally:
        Path(to).write_text("closed")


def hangs(context: Context, _: object) -> None:
    """Cannot be ended but by force, and has memory of its own."""
    ring = Ring.create(FIELDS, rate_hz=10)
    context.ready()
    assert ring.count == 0
    while True:
        with suppress(SystemExit):
            time.sleep(600)


def is_never_ready(context: Context, _: None) -> None:
    while not context.stopping:
        time.sleep(0.01)


def logs(context: Context, n: int) -> None:
    context.ready()
    log.debug("a detail")
    log.info("some %s", "news")
    log.warning("a warning of %s", os.getpid())
    for number in range(n):
        log.info("line %d %s", number, "." * 1000)
    while not context.stopping:
        time.sleep(0.01)


def tells_of_itself(context: Context, to_nobody: bool) -> None:
    """How it is run."""
    if to_nobody:
        os.setresuid(65534, 65534, 65534)
    context.ready()
    facts = {
        "policy": os.sched_getscheduler(0),
        "priority": os.sched_getparam(0).sched_priority,
        "cpus": sorted(os.sched_getaffinity(0)),
        "threads": sorted({os.sched_getscheduler(t.native_id or 0) for t in threading.enumerate()}),
        "collects": gc.isenabled(),
        "main": sorted(set(sys.modules) & {"pytest", "wave"}),
    }
    log.warning("facts %s", facts)
    while not context.stopping:
        time.sleep(0.01)


def makes_memory(context: Context, to: str) -> None:
    """A ring of its own, which it forgets."""
    ring = Ring.create(FIELDS, rate_hz=10)
    ring.put(1.0, {"picture": np.zeros((480, 640, 3), np.uint8)})
    Path(to).write_text(ring.spec.segment)
    beats(context, 600)


def holds_first(context: Context, to: str) -> None:
    """As a controller: what it does when it should end takes it some time."""
    context.ready()
    while not context.stopping:
        time.sleep(0.005)
    time.sleep(0.3)
    Path(to).write_text(f"orphaned {context.orphaned}")
