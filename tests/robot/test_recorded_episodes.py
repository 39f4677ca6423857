"""Streams of a robot become episodes of a dataset: synchronised, whole, with what was told."""

from pathlib import Path

import numpy as np
import pytest
from played_streams import (
    CAMERA_HZ,
    FPS,
    PlayedRobot,
    demonstrations,
    made_up,
    record,
    recorder_for,
    robot,
)

from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset


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
        rows = slice(int(dataset.episodes.starts[number]), int(dataset.episodes.stops[number]))
        assert rows.stop - rows.start == len(demo.state)
        # Frame k is when action k began to be sent.
        assert np.array_equal(dataset.column("action")[rows], demo.action)
        assert np.allclose(dataset.column("observation.state")[rows], demo.state, atol=3.0)
        shown = dataset.column("observation.image")[rows]
        # The nearest picture is the step's own or, a few ms before it, the one of the step before.
        same = [np.array_equal(a, b) for a, b in zip(shown, demo.pictures, strict=True)]
        before = [np.array_equal(a, b) for a, b in zip(shown[1:], demo.pictures[:-1], strict=True)]
        assert all(a or b for a, b in zip(same[1:], before, strict=True))


def test_raw_streams_convert_to_the_same_dataset(pusht_first5_zip: Path, tmp_path: Path) -> None:
    demos = demonstrations(pusht_first5_zip)[:2]
    with robot(demos[0]) as played:
        recorder = recorder_for(played, tmp_path / "D")
        for demo in demos:
            record(recorder, played, demo)
        recorder.close()
    raw = tmp_path / "D.raw"
    convert("folder", raw, tmp_path / "again", mapping=raw / "mapping.yaml")
    assert open_dataset(tmp_path / "again").fingerprint == open_dataset(tmp_path / "D").fingerprint
