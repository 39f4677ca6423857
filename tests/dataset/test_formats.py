"""Formats are listed without being imported, take their own options, and say what they need."""

import subprocess
import sys
from typing import Literal

import pytest

from dp_hub.dataset.conversion.format_list import installed_formats
from dp_hub.dataset.conversion.format_options import check_options, option_texts
from dp_hub.dataset.conversion.formats import load_converter
from dp_hub.errors import DataError


def test_formats_of_others_are_listed_from_their_source_text(made):
    listed = {one.name: one for one in installed_formats()}
    assert listed["made-rows"].summary == "made up for tests"
    assert listed["made-rows"].options[:3] == (
        "pictures=<int>", "count=known|unknown", "pause_s=<float>",
    )  # fmt: skip
    assert listed["made-rows"].install is None
    assert listed["made-lost"].install == "made_formats[hdf5]"
    assert listed["made-lost"].summary == "a format of a lost library"
    assert listed["made-absent"].summary == ""
    assert "missing_chunks=error|fill" in listed["zarr"].options


def test_listing_imports_neither_converters_nor_their_packages(made):
    code = (
        "import sys; from dp_hub.dataset.conversion.format_list import installed_formats\n"
        "assert len(installed_formats()) >= 9\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'dp_hub_converters', 'numpy', 'zarr', 'h5py', 'pyarrow'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_format_of_ours_has_a_summary_and_needs_what_its_entry_says():
    ours = [one for one in installed_formats() if not one.name.startswith("made-")]
    assert len(ours) >= 9
    there = [one for one in ours if one.summary]
    assert {"zarr", "lerobot"} <= {one.name for one in there}
    needs = {one.name: one.install for one in ours}
    assert needs["mcap"] == "dp_hub[ros]"
    assert needs["robomimic"] == "dp_hub[hdf5]"
    assert needs["zarr"] is None


def test_a_lost_library_is_told_with_the_line_that_installs_it(made):
    with pytest.raises(DataError, match="No module named 'no_such_library'") as caught:
        load_converter("made-lost")
    assert caught.value.hint == 'pip install "made_formats[hdf5]"'
    with pytest.raises(DataError, match="cannot be loaded"):
        load_converter("made-absent")


class Kind:
    """Every kind of option."""

    def __init__(
        self,
        *,
        colours: Literal["rgb", "bgr"] = "rgb",
        level: Literal[1, 2] = 1,
        count: int = 3,
        rate: float | None = None,
        flip: bool = False,
        name: str | None = None,
        keys: tuple[str, ...] = (),
    ) -> None: ...


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("colours=bgr", "bgr"),
        ("level=2", 2),
        ("count=12", 12),
        ("rate=2.5", 2.5),
        ("rate=none", None),
        ("rate=1e-3", 0.001),
        ("flip=true", True),
        ("flip=no", False),
        ("name=a=b", "a=b"),
        ("name=none", None),
        ("keys=a,b", ("a", "b")),
        ("keys=a", ("a",)),
    ],
)
def test_texts_become_what_the_annotation_says(text, value):
    [found] = check_options(Kind, option_texts([text]), format_name="kind").values()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("colours=grey", "colours=rgb|bgr"),
        ("level=3", "level=1|2"),
        ("count=2.5", "count=<int>"),
        ("count=none", "count=<int>"),
        ("rate=fast", "rate=<float>|none"),
        ("rate=nan", "rate=<float>|none"),
        ("flip=maybe", "flip=true|false"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_what_does(text, shown):
    name, _, value = text.partition("=")
    with pytest.raises(DataError) as caught:
        check_options(Kind, option_texts([text]), format_name="kind")
    assert caught.value.message == f"the option {name} of kind cannot be {value!r}"
    assert caught.value.hint == f"it is --option {shown}"


def test_options_that_do_not_exist_are_refused_with_those_that_do():
    with pytest.raises(DataError, match="kind has no option 'colour'") as caught:
        check_options(Kind, {"colour": "bgr"}, format_name="kind")
    assert caught.value.hint.startswith("did you mean `colours`? it has: colours=rgb|bgr, ")
    with pytest.raises(DataError, match="plain has no option 'x'") as caught:
        check_options(object, {"x": 1}, format_name="plain")
    assert caught.value.hint == "plain has no options"
    for texts in (["colours"], ["=x"], ["count=1", "count=2"]):
        with pytest.raises(DataError, match="--option"):
            option_texts(texts)


def test_plain_values_of_a_mapping_are_checked_alike():
    given = {"count": 4, "rate": 2, "flip": True, "keys": ["a"], "name": "x"}
    assert check_options(Kind, given, format_name="kind") == given | {"rate": 2.0, "keys": ("a",)}
    for wrong in ({"count": True}, {"count": 2.5}, {"flip": 1}, {"name": 3}, {"colours": 1}):
        with pytest.raises(DataError, match="cannot be"):
            check_options(Kind, wrong, format_name="kind")
