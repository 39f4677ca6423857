"""Streams of a robot become episodes of a dataset: synchronised, whole, with what was told."""

import resource
from pathlib import Path

import numpy as np
import pytest
from played_streams import (
    FEATURES,
    FPS,
    PlayedRobot,
    demonstrations,
    made_up,
    record,
    recorder_for,
    robot,
)

from dp_hub.dataset.checks.doctor import check
from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import Dataset, open_dataset
from dp_hub.errors import ConfigError, DataError, RobotError
from dp_hub.replay.mapping.config import load_mapping
from dp_hub.robot.recording.fitting import fits_of
from dp_hub.robot.recording.mapping import Numbers, Pictures, mapping_text, recording_mapping
from dp_hub.robot.recording.reading import read_raw
from dp_hub.robot.recording.saving import EpisodeSaver


def rows_of(dataset: Dataset, number: int) -> slice:
    return slice(int(dataset.episodes.starts[number]), int(dataset.episodes.stops[number]))


def test_real_demonstrations_come_back_frame_by_frame(
    pusht_first5_zip: Path, tmp_path: Path
) -> None:
    demos = demonstrations(pusht_first5_zip)[:3]
    with robot(demos[0]) as played:
        recorder = recorder_for(played, tmp_path / "D")
        for demo in demos:
            record(recorder, played, demo)
        recorder.close()
    dataset = open_dataset(tmp_path / "D")
    assert dataset.n_episodes == 3
    for number, demo in enumerate(demos):
        rows = rows_of(dataset, number)
        assert rows.stop - rows.start == len(demo.state)
        # Frame k is when action k began to be sent.
        assert np.array_equal(dataset.column("action")[rows], demo.action)
        # A straight line between readings 10 ms apart is 1/20 of a row's way off at most.
        assert np.allclose(dataset.column("observation.state")[rows], demo.state, atol=3.0)
        shown = dataset.column("observation.image")[rows]
        # The nearest picture is the step's own or, a few ms before it, the one of the step before.
        same = [np.array_equal(a, b) for a, b in zip(shown, demo.pictures, strict=True)]
        before = [np.array_equal(a, b) for a, b in zip(shown[1:], demo.pictures[:-1], strict=True)]
        assert all(a or b for a, b in zip(same[1:], before, strict=True))


def test_raw_streams_convert_to_the_same_dataset(pusht_first5_zip: Path, tmp_path: Path) -> None:
    demos = demonstrations(pusht_first5_zip)[:2]
    with robot(demos[0]) as played:
        recorder = recorder_for(played, tmp_path / "D", stage=True, intervention=True)
        for demo in demos:
            record(recorder, played, demo)
        recorder.close()
    raw = tmp_path / "D.raw"
    convert("folder", raw, tmp_path / "again", mapping=raw / "mapping.yaml")
    ours, theirs = open_dataset(tmp_path / "D"), open_dataset(tmp_path / "again")
    assert ours.fingerprint == theirs.fingerprint
    assert ours.features == theirs.features
    assert ours.features["action"].names == ["x", "y"]


@pytest.mark.parametrize("late_s", [0.0, 0.004])
def test_every_frame_is_within_half_a_period_of_its_values(tmp_path: Path, late_s: float) -> None:
    demo = made_up(8, length=30)
    with robot(demo, late_s=late_s) as played:
        recorder = recorder_for(played, tmp_path / "D")
        record(recorder, played, demo)
        recorder.close()
    raw = tmp_path / "D.raw"
    convert("folder", raw, tmp_path / "timed", mapping=_with_times(raw, tmp_path))
    dataset = open_dataset(tmp_path / "timed")
    frames_s = dataset.episodes.metadata[0]["start_s"] + np.arange(dataset.n_frames) / FPS
    for name, latency_s in (("observation.image", 0.0), ("action", 0.012)):
        used_s = dataset.column(f"times.{name}") - latency_s
        assert np.abs(used_s - frames_s).max() <= 0.5 / FPS
    [metadata] = open_dataset(tmp_path / "D").episodes.metadata
    assert "off_grid" not in metadata and "missing_frames" not in metadata


def _with_times(raw: Path, tmp_path: Path) -> Path:
    path = tmp_path / "timed.yaml"
    path.write_text((raw / "mapping.yaml").read_text() + "keep_times: true\n")
    return path


def test_frames_that_are_farther_from_their_values_are_counted_and_told(tmp_path: Path) -> None:
    demo = made_up(8, length=30)
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D")
        original = played.camera.put

        def stalls(time_s: float, values: dict[str, np.ndarray]) -> None:
            if not 1.0 < time_s - 0.5 < 2.0:  # no picture for a second
                original(time_s, values)

        played.camera.put = stalls  # type: ignore[assignment]
        record(recorder, played, demo, start_s=0.5)
        told = recorder.told()
        recorder.close()
    [metadata] = open_dataset(tmp_path / "D").episodes.metadata
    # Of the frames from 1.0 to 2.0 s, those more than 50 ms from either end of the gap.
    assert metadata["off_grid"] == {"observation.image": pytest.approx(9, abs=1)}
    assert any("from observation.image than half a period" in one for one in told)
    assert open_dataset(tmp_path / "D").n_frames == 30


def test_what_was_sent_before_an_episode_is_no_action_of_it(tmp_path: Path) -> None:
    demo = made_up(9, length=20)
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D")
        original = played.sent.put

        def rests(time_s: float, values: dict[str, np.ndarray]) -> None:
            if not 0.5 <= time_s < 1.0:  # the arm had held, and is moved half a second later
                original(time_s, values)

        played.sent.put = rests  # type: ignore[assignment]
        record(recorder, played, demo, start_s=0.5)
        recorder.close()
    dataset = open_dataset(tmp_path / "D")
    [metadata] = dataset.episodes.metadata
    assert dataset.n_frames in (15, 16) and metadata["missing_frames"] == 20 - dataset.n_frames
    assert "off_grid" not in metadata
    np.testing.assert_array_equal(dataset.column("action")[0], demo.action[5])


def test_frames_without_a_stream_are_counted_as_missing(tmp_path: Path) -> None:
    demo = made_up(8, length=20)
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D")
        original = played.camera.put

        def begins_late(time_s: float, values: dict[str, np.ndarray]) -> None:
            if time_s > 1.0:
                original(time_s, values)

        played.camera.put = begins_late  # type: ignore[assignment]
        record(recorder, played, demo, start_s=0.5)
        told = recorder.told()
        recorder.close()
    [metadata] = open_dataset(tmp_path / "D").episodes.metadata
    assert metadata["missing_frames"] == 5 and open_dataset(tmp_path / "D").n_frames == 15
    assert any("15 frames saved; 5 left out" in one for one in told)


def test_fits_of_interpolated_values_look_at_both_neighbours(tmp_path: Path) -> None:
    demo = made_up(8)
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D")
        record(recorder, played, demo)
        recorder.close()
    recording = read_raw(tmp_path / "D.raw" / "episode_000000")
    mapping = load_mapping(tmp_path / "D.raw" / "mapping.yaml")
    from dp_hub.replay.mapping.apply import episodes_of

    timed = mapping.model_copy(update={"keep_times": True})
    [episode] = episodes_of(recording, timed)
    fits = fits_of(episode, recording, timed, start_s=episode.metadata["start_s"])
    assert fits["observation.state"].worst_s <= 0.5 * 1.3 / 100
    assert fits["observation.image"].worst_s <= 0.5 * 1.3 / 30
    assert all(fit.outside == 0 for fit in fits.values())


def test_stages_and_interventions_are_columns_where_they_were_told(tmp_path: Path) -> None:
    demo = made_up(9, length=20)
    told = {0.5: ("stage", 1), 0.8: ("intervention", True), 1.2: ("intervention", False),
            1.5: ("stage", 2)}  # fmt: skip
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D", stage=True, intervention=True)

        def tell(since_s: float) -> None:
            for at_s in [at_s for at_s in told if at_s <= since_s + 1e-9]:
                event, value = told.pop(at_s)
                recorder.mark(event, value, played.now_s - since_s + at_s)

        record(recorder, played, demo, on_poll=tell)
        recorder.close()
    dataset = open_dataset(tmp_path / "D")
    frames = np.arange(20) / FPS
    stage, hand = dataset.column("stage"), dataset.column("intervention")
    assert stage.dtype == np.int64 and hand.dtype == bool
    assert stage.tolist() == np.searchsorted([0.5, 1.5], frames + 1e-6, side="right").tolist()
    assert hand.tolist() == ((frames > 0.79) & (frames < 1.19)).tolist()


def test_what_is_known_of_an_episode_is_in_its_metadata(tmp_path: Path) -> None:
    demo = made_up(1)
    facts = {"seed": 100_003, "policy": "me/pusht@3f2c1a0", "robot": "0123abcd", "task": "sort"}
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D")
        record(recorder, played, demo, facts={**facts, "source": "rollout"})
        recorder.close()
    dataset = open_dataset(tmp_path / "D")
    [metadata] = dataset.episodes.metadata
    expected = {**facts, "source": "rollout", "success": True, "recording": "episode_000000"}
    del expected["task"]
    assert expected.items() <= metadata.items()
    assert dataset.episodes.tasks == ["sort"]
    source = dataset.provenance["source"]
    assert source["units"]["arm/position"] == ["px", "px"]
    assert source["mapping"]["fps"] == FPS
    assert dataset.info["robot_type"] == "pusht"


def test_the_dataset_is_without_fault_and_goes_on_in_another_session(tmp_path: Path) -> None:
    demos = [made_up(number) for number in range(3)]
    for part in (demos[:2], demos[2:]):
        with robot(demos[0]) as played:
            recorder = recorder_for(played, tmp_path / "D")
            for demo in part:
                record(recorder, played, demo)
            written = recorder.close()
    assert written.n_episodes == 3
    names = [m["recording"] for m in open_dataset(tmp_path / "D").episodes.metadata]
    assert names == ["episode_000000", "episode_000001", "episode_000002"]
    assert [one for one in check(tmp_path / "D").findings if one.severity == "error"] == []
    assert not list((tmp_path / "D.raw").glob("*/.pending"))


def test_the_last_episode_can_be_dropped_while_it_is_recorded_and_after(tmp_path: Path) -> None:
    demos = [made_up(number) for number in range(3)]
    with robot(demos[0]) as played:
        recorder = recorder_for(played, tmp_path / "D")
        assert recorder.drop_last() is None
        record(recorder, played, demos[0])
        kept = open_dataset(tmp_path / "D").episodes.sha256
        record(recorder, played, demos[1])
        assert recorder.drop_last() == "episode_000001"
        recorder.wait()
        assert recorder.state.n_episodes == 1
        assert open_dataset(tmp_path / "D").episodes.sha256 == kept
        recorder.start(played.now_s + 0.1)
        assert recorder.drop_last() == "episode_000002"
        record(recorder, played, demos[2])
        recorder.close()
    dataset = open_dataset(tmp_path / "D")
    assert dataset.n_episodes == 2 and dataset.episodes.sha256[:1] == kept
    raws = sorted(path.name for path in (tmp_path / "D.raw").iterdir())
    assert raws == ["episode_000000", "episode_000002", "mapping.yaml"]


def test_dropping_the_only_episode_leaves_no_dataset(tmp_path: Path) -> None:
    demo = made_up(1)
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D")
        record(recorder, played, demo)
        recorder.drop_last()
        recorder.wait()
        assert recorder.state.n_episodes == 0
        assert recorder.close() is None
    assert list(tmp_path.iterdir()) == []


def test_episodes_before_this_session_are_not_dropped_by_a_key(tmp_path: Path) -> None:
    demo = made_up(1)
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D")
        record(recorder, played, demo)
        recorder.close()
        recorder = recorder_for(played, tmp_path / "D")
        assert recorder.drop_last() is None
        recorder.close()
    assert open_dataset(tmp_path / "D").n_episodes == 1


def test_a_dataset_of_another_robot_or_rate_is_refused_before_anything_is_recorded(
    tmp_path: Path,
) -> None:
    demo = made_up(1)
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D")
        record(recorder, played, demo)
        recorder.close()
        with pytest.raises(DataError, match="record into a new folder"):
            recorder_for(played, tmp_path / "D", stage=True)
        (tmp_path / "other").mkdir()
        with pytest.raises(DataError, match="is not a dataset"):
            recorder_for(played, tmp_path / "other")
        recorder_for(played, tmp_path / "D").close()  # and nothing holds it


def test_two_recorders_do_not_write_one_dataset(tmp_path: Path) -> None:
    with robot(made_up(1)) as played:
        recorder = recorder_for(played, tmp_path / "D")
        with pytest.raises(DataError, match="is being written"):
            recorder_for(played, tmp_path / "D")
        recorder.close()


def test_an_episode_that_cannot_be_saved_is_told_and_its_streams_are_kept(tmp_path: Path) -> None:
    demo = made_up(1)
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D")
        record(recorder, played, demo)
        demo.action[3] = np.nan
        record(recorder, played, demo)
        told = recorder.told()
        assert recorder.state.n_episodes == 1
        assert recorder.drop_last() == "episode_000001"  # never the one before, which is good
        recorder.wait()
        assert recorder.state.n_episodes == 1
        assert any("nothing to drop" in one for one in recorder.told())
        recorder.close()
    assert any("not finite" in one for one in told)
    assert sorted(p.name for p in (tmp_path / "D.raw").glob("episode_*")) == [
        "episode_000000",
        "episode_000001",
    ]


def test_a_full_disk_costs_the_episode_at_hand_and_no_other(tmp_path: Path) -> None:
    demo = made_up(1, length=10, size=(64, 64))
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D")
        record(recorder, played, demo)
        kept = open_dataset(tmp_path / "D").episodes.sha256
        recorder.told()
        problems: list[str] = []
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            record(recorder, played, demo)
            recorder.wait()
        except RobotError as error:
            problems.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        problems += recorder.told()
        assert open_dataset(tmp_path / "D").episodes.sha256 == kept
        record(recorder, played, demo)
        recorder.close()
    assert any("cannot be written" in one for one in problems), problems
    dataset = open_dataset(tmp_path / "D")
    assert dataset.n_episodes == 2 and dataset.episodes.sha256[:1] == kept
    assert not list((tmp_path / "D.raw").glob(".recording_*"))


def test_starting_twice_and_stopping_nothing_are_refused(tmp_path: Path) -> None:
    with robot(made_up(1)) as played:
        recorder = recorder_for(played, tmp_path / "D")
        with pytest.raises(RobotError, match="no episode is being recorded"):
            recorder.stop(1.0)
        recorder.start(1.0)
        with pytest.raises(RobotError, match="already"):
            recorder.start(2.0)
        recorder.close()


def test_mappings_of_poses_turn_rotations_and_are_files(tmp_path: Path) -> None:
    features = {
        "observation.state": [Numbers("arm/pose", 0.01, size=7, rotation_at=3)],
        "observation.images.front": Pictures("front", 0.1, {"resize": [24, 32]}),
        "action": [Numbers("arm_sent/target"), Numbers("hand_sent/target")],
    }
    mapping = recording_mapping(features, fps=10, intervention=True)
    terms = mapping.features["observation.state"].terms or []
    assert [term.at for term in terms] == ["[0:3]", "[3:6]", "[6:7]"]
    assert terms[1].rotation is not None and terms[1].latency_s == 0.01
    picture = mapping.features["observation.images.front"]
    assert picture.method == "nearest" and picture.resize == (24, 32)
    (tmp_path / "m.yaml").write_text(mapping_text(mapping))
    assert load_mapping(tmp_path / "m.yaml") == mapping
    with pytest.raises(ConfigError):
        recording_mapping({"a/b": [Numbers("arm/pose")]}, fps=10)


def test_features_of_the_test_are_those_of_the_saver(tmp_path: Path) -> None:
    with robot(made_up(1)) as played:
        assert isinstance(played, PlayedRobot)
        recorder = recorder_for(played, tmp_path / "D")
        assert isinstance(recorder._saver, EpisodeSaver)
        assert set(recorder._saver.mapping.features) == set(FEATURES)
        recorder.close()
