"""Observations named with slices."""

import pytest
import torch

from dp_hub.errors import PolicyError
from dp_hub.policies.selection import Selection, parse_selection, selected_features


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("observation.state", Selection("observation.state")),
        ("observation.state[:2]", Selection("observation.state", 0, 2)),
        ("observation.state[2:5]", Selection("observation.state", 2, 5)),
        ("observation.state[3:]", Selection("observation.state", 3)),
        ("observation.state[4]", Selection("observation.state", 4, 5)),
    ],
)
def test_names_and_slices_are_parsed(text, expected):
    assert parse_selection(text) == expected


@pytest.mark.parametrize("text", ["", "a[", "a[]", "a[-1]", "a[::2]", "a[1:2][0]", "a b", "a[3:3]"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"not a feature name|selects nothing"):
        parse_selection(text)


def test_take_selects_along_the_last_dimension():
    x = torch.arange(10).reshape(2, 5)
    assert parse_selection("s[1:3]").take(x).tolist() == [[1, 2], [6, 7]]
    assert parse_selection("s").take(x) is x


def test_slice_past_the_end_is_refused_with_the_width():
    with pytest.raises(PolicyError, match=r"observation\.state has 5 entries"):
        parse_selection("observation.state[:6]").width({"observation.state": 5})


def test_two_slices_of_one_feature_need_it_once():
    selections = [parse_selection(text) for text in ("b[:2]", "a", "b[3:]")]
    assert selected_features(selections) == ["b", "a"]
