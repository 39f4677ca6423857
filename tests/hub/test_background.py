"""Threads in the background and the end of the program."""

import subprocess
import sys
import time

WAITS_SHORTLY = """
import threading, time
from dp_hub.hub.background import in_background
begun = threading.Event()

def work():
    begun.set()
    time.sleep(1)
    print("done", flush=True)

in_background(work)
begun.wait()
"""
WAITS_FOR_EVER = """
import threading
from dp_hub.hub.background import in_background, set_at_end
ended = threading.Event()
set_at_end(ended)

def heed():
    ended.wait()
    print("heard", flush=True)

in_background(heed)
in_background(threading.Event().wait)
"""


def ran(program: str) -> tuple[str, float]:
    """What it printed, and how long it took after that; it must end well."""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.readline()
        began_s = time.monotonic()
        assert process.wait(60) == 0
    return printed, time.monotonic() - began_s


def test_a_program_waits_for_work_that_is_all_but_done() -> None:
    assert ran(WAITS_SHORTLY)[0] == "done\n"


def test_work_that_waits_is_told_and_what_does_not_heed_is_left() -> None:
    printed, lasted_s = ran(WAITS_FOR_EVER)
    assert printed == "heard\n"
    assert lasted_s < 40  # 5, and what a busy machine takes
