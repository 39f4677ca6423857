"""Tables come and go by the thousand in an evaluation; a crash in C would take the process."""

import subprocess
import sys

import pytest

SCRIPT = """
import gc, sys
from dp_hub.envs.pusht.physics import PushTPhysics

gc.set_threshold(5, 2, 2)  # as often as a large program would, and more
count = sys.argv[1] == "counting"
tables = [PushTPhysics(count_contacts=count) for _ in range(5)]
for k in range(400):
    table = tables[k % 5]
    table.reset(k)
    for _ in range(3):
        table.step(*table.state()[2:4])
    if k % 20 == 0:
        tables[k % 5] = PushTPhysics(count_contacts=count)
        gc.collect()
print("alive")
"""


@pytest.mark.parametrize("kind", ["plain", "counting"])
def test_many_resets_under_a_busy_garbage_collector(kind: str) -> None:
    command = [sys.executable, "-X", "faulthandler", "-c", SCRIPT, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("alive")


def test_resets_do_not_grow_memory() -> None:
    script = """
import resource
from dp_hub.envs.pusht.physics import PushTPhysics

table = PushTPhysics(count_contacts=True)
sizes = []
for k in range(3000):
    table.reset(k)
    if k in (999, 2999):
        sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(sizes[1] - sizes[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[-1]) < 4_000  # KB over 2,000 resets
