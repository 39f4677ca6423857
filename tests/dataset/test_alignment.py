"""Which episode of one dataset is which of another, on letters instead of hashes."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp_hub.dataset.alignment import align


def aligned(a, b):
    """Letters are episodes; every letter has a length of its own, upper case the same as lower."""
    return align(a, b, [ord(c.lower()) for c in a], [ord(c.lower()) for c in b])


@pytest.mark.parametrize(
    ("a", "b", "changed", "removed", "added"),
    [
        ("abc", "abc", (), (), ()),
        ("abc", "abcd", (), (), (3,)),
        ("abc", "bc", (), (0,), ()),
        ("abc", "aXc", ((1, 1),), (), ()),
        ("abc", "acb", (), (), ()),  # another order is neither
        ("abcd", "axyd", ((1, 1), (2, 2)), (), ()),
        ("abcd", "aCd", ((2, 1),), (1,), ()),  # of b and c, the one of C's length is it
        ("abcd", "aBd", ((1, 1),), (2,), ()),
        ("ad", "axCd", (), (), (1, 2)),
        ("abcdef", "xbcdef", ((0, 0),), (), ()),
        ("", "ab", (), (), (0, 1)),
        ("ab", "", (), (0, 1), ()),
        ("aab", "ab", (), (1,), ()),  # copies of one episode
        ("abxcd", "cdyab", (), (2,), (2,)),  # not between the same neighbours any more
    ],
)
def test_alignment_of(a, b, changed, removed, added):
    found = aligned(a, b)
    assert (found.changed, found.removed, found.added) == (changed, removed, added)
    assert all(a[i] == b[j] for i, j in found.same)


letters = st.text("abcdeABCDE", max_size=12)


@given(letters, letters)
def test_every_episode_is_accounted_for_once(a, b):
    found = aligned(a, b)
    in_a = [i for i, _ in (*found.same, *found.changed)] + list(found.removed)
    in_b = [j for _, j in (*found.same, *found.changed)] + list(found.added)
    assert sorted(in_a) == list(range(len(a)))
    assert sorted(in_b) == list(range(len(b)))
    assert all(a[i] == b[j] for i, j in found.same)
    assert all(a[i] != b[j] for i, j in found.changed)


@pytest.mark.parametrize("kind", ["shuffled", "all new", "every second new", "all alike"])
def test_a_hundred_thousand_episodes_take_no_quadratic_time(kind):
    n = 100_000
    a = list(range(n))
    b = {
        "shuffled": random.Random(0).sample(a, n),
        "all new": [-i - 1 for i in a],
        "every second new": [i if i % 2 else -i - 1 for i in a],
        "all alike": [0] * n,
    }[kind]
    began = time.monotonic()
    found = align(a if kind != "all alike" else [0] * (n + 1), b, [5] * (n + 1), [5] * n)
    assert time.monotonic() - began < 5
    assert len(found.same) == {"all new": 0, "every second new": n // 2}.get(kind, n)
