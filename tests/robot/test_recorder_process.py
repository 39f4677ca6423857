"""The recorder in a process of its own: orders go there, sentences and the state come back."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from played_streams import CAMERA_HZ, FEATURES, FPS, STATE_HZ, PlayedRobot, made_up, robot

from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import RobotError
from dp_hub.robot.recording.mapping import recording_mapping
from dp_hub.robot.recording.process import RecorderJob, RecorderProcess
from dp_hub.robot.recording.reading import read_raw

RATES = {"arm": STATE_HZ, "arm_sent": STATE_HZ, "top": CAMERA_HZ}


def job_for(played: PlayedRobot, to: Path, **options: bool) -> RecorderJob:
    mapping = recording_mapping(FEATURES, fps=FPS, stage=True)
    return RecorderJob(
        rings={source.name: source.ring.spec for source in played.sources},
        rates_hz=RATES,
        mapping=mapping.model_dump(mode="json", exclude_defaults=True, by_alias=True),
        to=to,
        raw=to.with_name(f"{to.name}.raw"),
        **options,
    )


def until(is_so: Callable[[], bool], most_s: float = 20.0) -> None:
    end_s = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < end_s, "it takes too long"
        time.sleep(0.01)


def test_two_episodes_and_a_dropped_one_in_real_time(tmp_path: Path) -> None:
    demo = made_up(1, length=10)
    with robot(demo) as played:
        process = RecorderProcess(job_for(played, tmp_path / "D"))
        process.start_process()
        try:
            now_s = time.monotonic()
            played.skip_to(now_s)
            for number in range(3):
                start_s = played.now_s + 0.1
                process.start(start_s, {"task": "push", "number": number})
                for _ in range(12):
                    time.sleep(0.05)
                    played.go_on(played.now_s + 0.05, demo, start_s)
                    process.mark("stage", 1, played.now_s)
                process.stop(start_s + 0.5, {"success": True})
                played.go_on(played.now_s + 0.1, demo, start_s)
                until(lambda: process.is_up_to_date and process.state.recording is None)
                played.go_on(max(played.now_s, time.monotonic()), demo, start_s)
            process.drop_last()
            until(lambda: process.is_up_to_date)
            assert process.state.n_episodes == 2
            told = process.told()
            assert [one for one in told if "is dropped" in one] == ["episode_000002 is dropped"]
            written = process.close()
        finally:
            process.kill()
    dataset = open_dataset(tmp_path / "D")
    assert written is not None and written["n_episodes"] == dataset.n_episodes == 2
    assert [one["number"] for one in dataset.episodes.metadata] == [0, 1]
    assert dataset.episodes.lengths.tolist() == [5, 5]
    assert dataset.column("stage").max() == 1


def test_what_cannot_be_opened_is_said_by_the_parent(tmp_path: Path) -> None:
    (tmp_path / "D").mkdir()
    with robot(made_up(1)) as played:
        process = RecorderProcess(job_for(played, tmp_path / "D"))
        try:
            with pytest.raises(RobotError, match="is not a dataset"):
                process.start_process()
        finally:
            process.kill()


def test_a_recorder_that_is_killed_says_so_and_the_next_keeps_what_there_is(tmp_path: Path) -> None:
    demo = made_up(1, length=10)
    with robot(demo) as played:
        process = RecorderProcess(job_for(played, tmp_path / "D"))
        process.start_process()
        try:
            played.skip_to(time.monotonic())
            start_s = played.now_s + 0.1
            process.start(start_s)
            for _ in range(20):
                time.sleep(0.05)
                played.go_on(played.now_s + 0.05, demo, start_s)
            until(lambda: process.state.recording == "episode_000000")
            time.sleep(0.7)  # what was read reaches the disk twice a second
            os.kill(process._worker.pid, signal.SIGKILL)
            until(lambda: not process._worker.is_alive)
            with pytest.raises(RobotError, match="recorder was killed by SIGKILL"):
                process.check()
            process.mark("stage", 1, played.now_s)  # nobody waits for it
        finally:
            process.kill()
        again = RecorderProcess(job_for(played, tmp_path / "D"))
        again.start_process()
        try:
            until(lambda: any("cut off" in one for one in again.told()))
            assert again.close() is None
        finally:
            again.kill()
    assert not (tmp_path / "D").exists()
    kept = read_raw(tmp_path / "D.raw" / ".cut_off" / "episode_000000_0")
    assert len(kept.streams["arm/position"]) > 20
