"""Threads in the background, the end of the program, and programs that fork."""

import os
import signal
import subprocess
import sys
import threading
import time

from huggingface_hub import close_session
from huggingface_hub.utils import get_session

from dp_hub.hub.client import connect

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


def test_a_process_forked_while_the_librarys_connections_are_in_use_goes_on(local_hub):
    """It would wait for ever for the lock of a thread that it does not have."""
    api = connect()
    assert api.whoami()["name"] == "me"
    client, closed = get_session(), []
    lock, close = threading.Lock(), client.close

    def waits() -> None:
        with lock:
            closed.append(True)
            close()

    client.close = waits  # type: ignore[method-assign]
    with lock:  # as by a thread that takes a connection
        if (pid := os.fork()) == 0:
            os._exit(0 if connect().whoami()["name"] == "me" else 1)
        until_s = time.monotonic() + 30
        while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > until_s:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
    assert ended == (pid, 0)
    assert get_session() is client and api.whoami()["name"] == "me" and not closed
    close_session()
    assert closed == [True]
