"""What cannot be converted ends the conversion, or is left out and told where that was asked."""

import json

import pytest
from conversions_made import files_of, interrupt_at, names_in, write_rows

from dp_hub.dataset.convert import convert
from dp_hub.dataset.exporting.zarr import export_zarr
from dp_hub.errors import DataError
from dp_hub.replay.buffer import open_replay


def provenance(folder):
    return json.loads((folder / "meta/dp_hub.json").read_text())["source"]


def source_of(made, kinds, name="rows.json"):
    """One episode for each word; ``ok`` is a good one."""
    listed = [{"steps": 3 + i % 4, "bad": None if k == "ok" else k} for i, k in enumerate(kinds)]
    return write_rows(made / name, listed)


ALL = ["read", "ok", "nan", "shape", "ok", "empty", "read", "read", "ok", "ok", "nan"]


@pytest.mark.parametrize("count", ["known", "unknown"])
def test_bad_episodes_are_left_out_and_listed_with_number_source_and_reason(made, count, caplog):
    source = source_of(made, ALL)
    done = convert("made-rows", source, made / "out/ds", options={"count": count}, skip_bad=True)
    assert done.written.n_episodes == 4
    listed = provenance(made / "out/ds")["left_out"]
    assert [one["number"] for one in listed] == [0, 2, 3, 5, 6, 7, 10]
    assert listed[0] == {"number": 0, "source": "episode 0", "reason": "episode 0 is cut short"}
    assert listed[1]["source"] == "e2.json" and "not finite" in listed[1]["reason"]
    assert "float64 (4,) per step" in listed[2]["reason"]
    assert "no steps" in listed[3]["reason"]
    assert [vars(one) for one in done.bad] == listed
    assert "left out: 2 (e2.json): action of episode 2 is" in caplog.text
    export_zarr(made / "out/ds", made / "out.zarr")
    facts = open_replay(made / "out.zarr").attrs["episodes"]
    assert [one["number"] for one in facts] == [1, 4, 8, 9]


def test_without_being_asked_the_first_bad_episode_ends_it(made):
    for kind, message in [("read", "cut short"), ("nan", "not finite"), ("shape", "per step")]:
        source = source_of(made, ["ok", "ok", kind, "ok"])
        with pytest.raises(DataError, match=message):
            convert("made-rows", source, made / "out/ds")
        assert names_in(made / "out") == []


def test_good_sources_come_out_the_same_with_and_without(made):
    source = source_of(made, ["ok"] * 5)
    convert("made-rows", source, made / "out/one")
    convert("made-rows", source, made / "out/two", skip_bad=True)
    assert files_of(made / "out/one") == files_of(made / "out/two")


@pytest.mark.parametrize("workers", [1, 2])
def test_left_out_and_interrupted_anywhere_it_ends_bit_equal(made, workers):
    source = source_of(made, ALL)
    convert("made-rows", source, made / "out/whole", skip_bad=True)
    tried = 0
    for n_episodes in (1, 2, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            convert(
                "made-rows", source, made / "out/ds", skip_bad=True, workers=workers,
                on_progress=interrupt_at(n_episodes),
            )  # fmt: skip
        tried += 1
    assert tried == 4
    done = convert("made-rows", source, made / "out/ds", skip_bad=True, workers=workers)
    assert len(done.bad) == 7
    assert files_of(made / "out/ds") == files_of(made / "out/whole")


def test_a_lost_journal_costs_time_only(made):
    source = source_of(made, ALL)
    convert("made-rows", source, made / "out/whole", skip_bad=True)
    for keep, cut in ((1, 0), (3, 0), (3, 7), (99, 5)):
        with pytest.raises(KeyboardInterrupt):
            convert(
                "made-rows", source, made / "out/ds", skip_bad=True, on_progress=interrupt_at(3)
            )
        note = made / "out/.ds.partial.json"
        lines = note.read_bytes().splitlines(keepends=True)
        assert len(lines) > 5
        kept = b"".join(lines[:keep])
        note.write_bytes(kept[: len(kept) - cut])
        convert("made-rows", source, made / "out/ds", skip_bad=True)
        assert files_of(made / "out/ds") == files_of(made / "out/whole")
        for path in sorted((made / "out/ds").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (made / "out/ds").rmdir()


def test_it_goes_on_only_as_it_was_asked_for(made):
    source = source_of(made, ALL)
    with pytest.raises(KeyboardInterrupt):
        convert("made-rows", source, made / "out/ds", skip_bad=True, on_progress=interrupt_at(2))
    with pytest.raises(DataError, match="skip_bad was True, is False"):
        convert("made-rows", source, made / "out/ds")


def test_a_source_of_bad_episodes_only_is_refused_with_the_first_reason(made):
    source = source_of(made, ["read", "nan", "empty"])
    with pytest.raises(DataError, match="none of the episodes") as caught:
        convert("made-rows", source, made / "out/ds", skip_bad=True)
    assert "episode 0 is cut short" in str(caught.value)
    assert names_in(made / "out") == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_source_that_always_fails_is_not_read_for_ever(made, workers):
    source = write_rows(made / "rows.json", [{"steps": 3}], broken=True)
    options = {"count": "unknown"}
    with pytest.raises(DataError, match="the source is broken"):
        convert(
            "made-rows", source, made / "out/ds", options=options, skip_bad=True, workers=workers
        )
    assert names_in(made / "out") == []


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_episodes_at_the_beginning_are_left_out(made, workers):
    source = source_of(made, ["empty", "nan", "ok", "ok"])
    done = convert("made-rows", source, made / "out/ds", skip_bad=True, workers=workers)
    assert [one.number for one in done.bad] == [0, 1]
    assert done.written.n_episodes == 2


def test_an_impossible_wish_is_refused_at_once_however_many_episodes_there_are(made):
    source = source_of(made, ["ok"] * 50)
    with pytest.raises(DataError, match="would both become action"):
        convert("made-rows", source, made / "out/ds", mapping={"state": "action"}, skip_bad=True)
