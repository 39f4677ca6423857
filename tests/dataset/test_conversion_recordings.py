"""Recordings become episodes by a mapping, any number of each, and go on where they stopped."""

import json

import numpy as np
import pytest
from conversions_made import MAPPING, files_of, interrupt_at, names_in, write_streams

from dp_hub.dataset.conversion.alignment_report import read_report
from dp_hub.dataset.conversion.journal import BadEpisode, Entry, Place, entries_up_to, lines_of
from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError
from dp_hub.replay.mapping.config import MappingConfig, load_mapping
from dp_hub.replay.timeline import AlignmentReport, StreamReport

FLAGS = [[], [10, 4, 6], [7], [], [3, 9], [8]]


def load_again(plain):
    return MappingConfig.model_validate(plain)


@pytest.fixture
def streams(made):
    (made / "m.yaml").write_text(MAPPING)
    return write_streams(made / "streams.json", [{"flags": one} for one in FLAGS])


def test_every_flag_becomes_an_episode_with_the_values_at_its_times(made, streams):
    done = convert("made-streams", streams, made / "out/ds", mapping=made / "m.yaml")
    lengths = [tenths for one in FLAGS for tenths in one]
    assert done.written.n_episodes == len(lengths) == 7
    assert (done.written.fps, done.written.tasks) == (10, ("wave",))
    assert [c.feature for c in done.written.columns] == ["observation.state", "action"]
    found = np.diff(open_dataset(made / "out/ds").episodes.stops, prepend=0)
    assert np.abs(found - lengths).max() <= 1


def test_the_mapping_and_the_report_are_kept_in_the_dataset(made, streams):
    done = convert("made-streams", streams, made / "out/ds", mapping=made / "m.yaml")
    source = json.loads((made / "out/ds/meta/dp_hub.json").read_text())["source"]
    assert source["converter"] == "made-streams"
    assert source["mapping"]["fps"] == 10
    assert load_again(source["mapping"]) == load_mapping(made / "m.yaml")
    report = read_report(made / "out/ds")
    assert report.to_json() == done.alignment.to_json()
    assert report.episodes == 7
    assert set(report.streams) == {"/joints", "/command"}
    assert done.origins == {"observation.state": "/joints", "action": "/command"}
    assert "| `/joints` |" in (made / "out/ds/README.md").read_text()
    assert (made / "out/ds/meta/alignment.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_after_every_episode_it_ends_bit_equal(made, streams, workers):
    settings = {"mapping": made / "m.yaml", "workers": workers}
    convert("made-streams", streams, made / "out/whole", mapping=made / "m.yaml")
    tried = 0
    for n_episodes in range(1, 8):
        with pytest.raises(KeyboardInterrupt):
            convert(
                "made-streams", streams, made / "out/ds", **settings,
                on_progress=interrupt_at(n_episodes),
            )  # fmt: skip
        assert open_dataset(made / "out/.ds.partial").n_episodes == n_episodes
        tried += 1
    assert tried == 7
    convert("made-streams", streams, made / "out/ds", **settings)
    assert files_of(made / "out/ds") == files_of(made / "out/whole")


BAD = [
    {"flags": [5]},
    {"flags": [5, 6], "bad": "read"},
    {"flags": [4, 4, 4], "nan_s": [4.2, 5.2]},
    {"flags": [6], "bad": "nan"},
    {"flags": [7, 7]},
]


@pytest.mark.parametrize("workers", [1, 3])
def test_bad_recordings_and_bad_parts_of_them_are_left_out_and_it_goes_on(made, workers):
    (made / "m.yaml").write_text(MAPPING)
    source = write_streams(made / "streams.json", BAD)
    settings = {"mapping": made / "m.yaml", "skip_bad": True}
    whole = convert("made-streams", source, made / "out/whole", **settings)
    told = [(one.number, one.source) for one in whole.bad]
    assert told == [(1, "recording 1"), (2, "bag_2"), (3, "bag_3")]
    assert "action of episode 1 is" in whole.bad[1].reason
    n_good = whole.written.n_episodes
    assert n_good == 5
    for n_episodes in range(1, n_good + 1):
        with pytest.raises(KeyboardInterrupt):
            convert(
                "made-streams", source, made / "out/ds", **settings, workers=workers,
                on_progress=interrupt_at(n_episodes),
            )  # fmt: skip
    again = convert("made-streams", source, made / "out/ds", **settings, workers=workers)
    assert again.bad == whole.bad
    assert files_of(made / "out/ds") == files_of(made / "out/whole")


def test_without_a_mapping_streams_are_refused_with_what_to_do(made, streams):
    with pytest.raises(DataError, match="a mapping has to say") as caught:
        convert("made-streams", streams, made / "out/ds")
    assert f"dp-hub inspect {streams} --mapping M.yaml" in caught.value.hint
    assert names_in(made / "out") == []


def test_a_mapping_without_a_rate_takes_the_one_that_is_given(made, streams):
    (made / "m.yaml").write_text(MAPPING.replace("fps: 10", ""))
    with pytest.raises(DataError, match="need a rate"):
        convert("made-streams", streams, made / "out/ds", mapping=made / "m.yaml")
    done = convert("made-streams", streams, made / "out/ds", mapping=made / "m.yaml", fps=5)
    assert done.written.fps == 5


def test_recordings_that_are_all_too_short_are_told(made, streams):
    (made / "m.yaml").write_text(MAPPING.replace("split: flag", "min_s: 60, split: flag"))
    with pytest.raises(DataError, match=r"no episodes .* min_s: 60"):
        convert("made-streams", streams, made / "out/ds", mapping=made / "m.yaml")


def test_another_mapping_does_not_go_on(made, streams):
    with pytest.raises(KeyboardInterrupt):
        convert(
            "made-streams", streams, made / "out/ds", mapping=made / "m.yaml",
            on_progress=interrupt_at(2),
        )  # fmt: skip
    (made / "m.yaml").write_text(MAPPING.replace("wave", "rest"))
    with pytest.raises(DataError, match=r"else: mapping\.task was 'wave', is 'rest'\n"):
        convert("made-streams", streams, made / "out/ds", mapping=made / "m.yaml")


def test_streams_that_are_not_there_are_refused_before_anything_is_read(made, streams):
    (made / "m.yaml").write_text(MAPPING.replace("/joints", "/joint"))
    with pytest.raises(DataError, match="/joint"):
        convert("made-streams", streams, made / "out/ds", mapping=made / "m.yaml")
    with pytest.raises(DataError, match="both a mapping and keys to leave out"):
        convert("made-streams", streams, made / "out/ds", mapping=made / "m.yaml", drop=["/joints"])


def test_rows_go_through_a_mapping_too(made, pusht_first5_zip):
    (made / "m.yaml").write_text(
        "features:\n"
        '  observation.state: {from: "state[0:2]"}\n'
        "  action: {next: observation.state}\n"
    )
    done = convert("zarr", pusht_first5_zip, made / "out/ds", mapping=made / "m.yaml")
    assert [c.feature for c in done.written.columns] == ["observation.state", "action"]
    assert done.written.n_frames == 738
    assert done.written.fps == 10
    convert("zarr", pusht_first5_zip, made / "out/two", mapping=made / "m.yaml", workers=2)
    assert files_of(made / "out/ds") == files_of(made / "out/two")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_mapping_tells_is_heard_from_other_processes_once(made, caplog, workers):
    # The command begins late: an episode before it is left out, which is told.
    (made / "m.yaml").write_text(MAPPING)
    source = write_streams(
        made / "streams.json", [{"flags": [5]}, {"flags": [5, 6, 7], "command_from_s": 4.4}]
    )
    with caplog.at_level("INFO"):
        done = convert(
            "made-streams", source, made / "out/ds", mapping=made / "m.yaml", workers=workers
        )
    assert done.written.n_episodes == 3
    told = [r.message for r in caplog.records if "bag_1" in r.message]
    assert len(told) == 1, told


def test_a_journal_is_read_as_the_sum_of_its_reports():
    """Not as thousands of reports, each of which is as long as a recording."""
    rng = np.random.default_rng(0)
    reports, lines = [], []
    for number in range(200):
        steps, sum_s = int(rng.integers(1, 100)), float(rng.normal())
        one = StreamReport("hold", 0.0, steps=steps, offset_sum_s=sum_s, ages={number % 7: steps})
        reports.append(AlignmentReport(10.0, 1, {"/joints": one}))
        bad = BadEpisode(number, f"r{number}", "no camera") if number % 50 == 9 else None
        place, report = Place(number + 1), reports[-1].to_json()
        lines.append(Entry(place, number, bad, None if bad else report))
    expected = None
    for number, report in enumerate(reports[:150]):
        if number % 50 != 9:
            expected = report if expected is None else expected.then(report)
    found = entries_up_to(149, lines_of(lines).splitlines())
    assert [one.bad.number for one in found[:-1]] == [9, 59, 109]
    assert all(one.report is None for one in found[:-1])
    assert (found[-1].after, found[-1].episodes, found[-1].bad) == (Place(150), 149, None)
    assert AlignmentReport.from_json(found[-1].report).to_json() == expected.to_json()
    assert entries_up_to(149, lines_of(found).splitlines()) == found
