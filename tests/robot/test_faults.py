"""One of each kind of fault that `benchmarks/robot_faults.py` injects by the hundred."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from faults_kinds import KINDS, Bench

pytestmark = pytest.mark.slow

CHOSEN = (
    "camera stalls 1.5 s",
    "policy killed",
    "command queue full",
    "hold into a full queue",
    "session stopped 3 s",
    "plan outside the workspace",
    "plan not finite",
    "controller killed",
    "camera's clock steps",
    "wall clock jumps",
    "policy server killed",
    "recorder killed",
    "live view killed",
    "session killed",
    "session interrupted (Ctrl-C)",
)
BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Iterator[Bench]:
    """Robots that are kept on from test to test where that is possible."""
    one = Bench(tmp_path_factory.mktemp("faults"))
    yield one
    assert one.close() == []


@pytest.mark.parametrize("name", CHOSEN)
def test_a_fault_ends_in_the_documented_state_at_rest_and_with_nothing_left(name, bench):
    assert bench.try_out(BY_NAME[name], np.random.default_rng(len(name))).failed is None


def test_every_kind_of_fault_has_a_name_of_its_own():
    assert len(BY_NAME) == len(KINDS) and len(KINDS) > 30
