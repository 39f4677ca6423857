"""Everything that goes by is stored with its own times, and the robot never waits for it."""

import json
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import yaml
from dp_hub_converters.folder import EpisodeFolders
from played_streams import (
    CAMERA_HZ,
    STATE_HZ,
    Demonstration,
    PlayedRobot,
    made_up,
    record,
    recorder_for,
    robot,
)

from dp_hub.dataset.convert import convert
from dp_hub.dataset.inspection.inspecting import inspect
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.fields import Field
from dp_hub.robot.recording.raw_episode import RawEpisode
from dp_hub.robot.recording.raw_folder import CUT_OFF, RawFolder
from dp_hub.robot.recording.reading import read_raw
from dp_hub.robot.recording.streams import StreamSource, check_sources
from dp_hub.robot.recording.tables import (
    GROWING,
    GrowingTable,
    as_parquet,
    column_of,
    growing_rows,
    read_columns,
)
from dp_hub.robot.recording.video import VideoSink, encoding_for
from dp_hub.robot.shared.ring import Ring


def recorded(tmp_path: Path, demo: Demonstration, **options: bool) -> Path:
    """One episode, and where its raw streams are."""
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D", **options)
        record(recorder, played, demo, facts={"seed": 7})
        recorder.close()
    return tmp_path / "D.raw"


def grow(raw: Path, demo: Demonstration, played: PlayedRobot, lasts_s: float) -> RawEpisode:
    """An episode that is still being recorded."""
    raw.mkdir()
    episode = RawEpisode(RawFolder(raw).growing(0, 1), played.sources, start_s=0.5)
    while played.now_s < 0.5 + lasts_s:
        played.go_on(played.now_s + 0.05, demo, 0.5)
        episode.take()
    return episode


def grown(raw: Path, stream: str) -> int:
    """Rows of the growing episode that are on the disk."""
    path = raw / ".recording_000000_1" / f"{stream}{GROWING}"
    return growing_rows(path) if path.exists() else 0


def test_every_sample_of_every_ring_is_stored_with_its_time(tmp_path: Path) -> None:
    demo = made_up(3, length=20)
    raw = recorded(tmp_path, demo)
    recording = read_raw(raw / "episode_000000")
    starts = recording.metadata
    assert starts["seed"] == 7 and starts["success"] is True and recording.task == "push"
    arm, sent = recording.streams["arm/position"], recording.streams["arm_sent/target"]
    top = recording.streams["top"]
    for stream, rate, before_s in (
        (arm, STATE_HZ, 0.5),
        (sent, STATE_HZ, 0),
        (top, CAMERA_HZ, 0.5),
    ):
        # To a little after the last frame; what was sent, from the first one on.
        assert len(stream) == pytest.approx((2.15 + before_s) * rate, abs=7)
        assert np.abs(np.diff(stream.times_s) * rate - 1).max() < 0.31  # none is missing
    assert arm.names == ("x", "y") and arm.kind == "state" and sent.kind == "command"
    on = recording.streams["recording/on"]
    assert on.values.tolist() == [True, False]
    assert on.times_s[1] - on.times_s[0] == pytest.approx(2.0)
    assert np.array_equal(sent.values[0], demo.action[0])


def test_small_pictures_are_stored_without_loss_and_large_ones_as_datasets_do(
    tmp_path: Path,
) -> None:
    demo = made_up(5, length=6)
    raw = recorded(tmp_path, demo)
    shown = np.asarray(read_raw(raw / "episode_000000").streams["top"].values)
    assert {picture.tobytes() for picture in shown} == {p.tobytes() for p in demo.pictures}
    assert encoding_for((96, 96, 3)).codec == "ffv1"
    assert encoding_for((480, 640, 3)).codec == "h264"
    assert encoding_for((481, 640, 3)).codec == "ffv1"  # H.264 has even sizes only


def test_large_pictures_come_back_recognisably(tmp_path: Path) -> None:
    smooth = np.linspace(0, 200, 256).astype(np.uint8)
    base = np.broadcast_to(smooth[None, :, None], (160, 256, 3))
    demo = made_up(1, length=8)
    pictures = np.stack([np.roll(base, 8 * k, axis=1) for k in range(8)])
    demo = Demonstration(demo.state, demo.action, pictures)
    raw = recorded(tmp_path, demo)
    clip = read_raw(raw / "episode_000000").streams["top"].values
    assert clip.codec == "h264"
    last = clip[len(clip) - 1 : len(clip)][0]
    assert np.abs(last.astype(int) - pictures[-1]).mean() < 4
    assert open_dataset(tmp_path / "D").features["observation.image"].dtype == "video"


def test_the_format_folder_reads_the_same_streams(tmp_path: Path) -> None:
    raw = recorded(tmp_path, made_up(2), stage=True, intervention=True)
    assert EpisodeFolders().recognises(raw)
    [theirs] = EpisodeFolders().recordings(raw)
    ours = read_raw(raw / "episode_000000")
    assert set(theirs.streams) == set(ours.streams)
    for name, stream in ours.streams.items():
        other = theirs.streams[name]
        assert np.array_equal(other.times_s, stream.times_s), name
        assert other.names == stream.names and other.kind == stream.kind, name
        assert np.array_equal(np.asarray(other.values), np.asarray(stream.values)), name
    assert theirs.metadata["source"] == "teleoperation" and theirs.task == "push"


def test_another_rate_is_made_of_the_same_recording(tmp_path: Path) -> None:
    raw = recorded(tmp_path, made_up(4, length=20))
    mapping = yaml.safe_load((raw / "mapping.yaml").read_text())
    assert mapping["fps"] == 10
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({**mapping, "fps": 25}))
    convert("folder", raw, tmp_path / "faster", mapping=tmp_path / "m.yaml")
    slow, fast = open_dataset(tmp_path / "D"), open_dataset(tmp_path / "faster")
    assert (slow.n_frames, fast.n_frames) == (20, 50)
    # Every fifth of them is every second of the others.
    assert np.allclose(
        fast.column("observation.state")[::5], slow.column("observation.state")[::2], atol=1e-9
    )


def test_inspecting_a_raw_folder_tells_its_streams(tmp_path: Path) -> None:
    found = inspect(recorded(tmp_path, made_up(4)), format_name="folder")
    text = repr(found)
    for name in ("arm/position", "arm_sent/target", "top", "recording/on"):
        assert repr(name) in text


def test_an_encoder_that_is_behind_drops_pictures_which_are_counted_and_nobody_waits(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (60, 240, 320, 3), np.uint8)  # noise: slow to encode
    sink = VideoSink(tmp_path / "v.mkv", (240, 320, 3), Fraction(30), buffer_bytes=4 * 230_400)
    slowest_s, taken = 0.0, 0
    for picture in pictures:
        began_s = time.monotonic()
        taken += sink.add(picture)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    sink.close()
    assert sink.dropped > 0 and taken + sink.dropped == len(pictures)
    assert slowest_s < 2.0  # all of them take far longer
    import av

    with av.open(str(tmp_path / "v.mkv")) as container:
        assert sum(1 for _ in container.decode(video=0)) == taken


def test_losses_are_written_down_and_told(tmp_path: Path) -> None:
    demo = made_up(3, length=20)
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D")
        start_s = 0.6
        played.go_on(0.5, demo, start_s)
        recorder.start(start_s)
        recorder.poll(played.now_s)
        played.go_on(2.4, demo, start_s)  # the recorder is asleep: the rings turn
        recorder.poll(played.now_s)
        lost = recorder.state.lost
        recorder.stop(2.5)
        played.go_on(2.7, demo, start_s)
        recorder.poll(played.now_s)
        recorder.wait()
        told = recorder.told()
        recorder.close()
    assert lost > 0
    assert any("samples were missed" in one for one in told)
    facts = json.loads((tmp_path / "D.raw" / "episode_000000" / "metadata.json").read_text())
    assert sum(one["missed"] for one in facts["not_recorded"].values()) == lost
    [metadata] = open_dataset(tmp_path / "D").episodes.metadata
    assert metadata["not_recorded"] == facts["not_recorded"]
    assert metadata["missing_frames"] > 0  # nothing of what was sent at the beginning is left


def test_a_video_that_cannot_be_written_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("a file, not a folder")
    sink = VideoSink(tmp_path / "no" / "v.mkv", (32, 32, 3), Fraction(30))
    with pytest.raises(RobotError, match="cannot be written"):
        for _ in range(200):
            sink.add(np.zeros((32, 32, 3), np.uint8))
            time.sleep(0.01)
    with pytest.raises(RobotError, match="cannot be written"):
        sink.close()


def test_of_a_table_that_was_cut_anywhere_the_whole_batches_can_be_read(tmp_path: Path) -> None:
    field = Field("position", (2,))
    path = tmp_path / f"a{GROWING}"
    table = GrowingTable(path, [column_of(field)])
    for k in range(10):
        table.add(np.arange(3.0) + 3 * k, {"position": np.full((3, 2), float(k))})
        table.flush()
    size = path.stat().st_size
    data = path.read_bytes()
    table.close()
    seen = set()
    for cut in range(0, size + 1, 97):
        (tmp_path / "cut").write_bytes(data[:cut])
        try:
            n_rows = as_parquet(tmp_path / "cut", tmp_path / "cut.parquet")
        except OSError:
            continue
        columns = read_columns(tmp_path / "cut.parquet")
        assert n_rows % 3 == 0 and np.array_equal(columns["time_s"], np.arange(float(n_rows)))
        assert columns["position"].shape == (n_rows, 2)
        seen.add(n_rows)
    assert len(seen) >= 9 and max(seen) >= 27


@pytest.mark.parametrize("early", [False, True])
def test_what_there_is_of_an_episode_that_was_cut_off_is_kept_apart(
    tmp_path: Path, early: bool
) -> None:
    demo, raw = made_up(6, length=40), tmp_path / "D.raw"
    with robot(demo) as played:
        episode = grow(raw, demo, played, 3.0)  # and nothing more, as after SIGKILL
        rows = {"arm": 0.7 * 3.0 * STATE_HZ, "top": 0.5 * 3.0 * CAMERA_HZ}
        until_s = time.monotonic() + 60
        while not (episode.backlog == 0 and all(n < grown(raw, name) for name, n in rows.items())):
            assert time.monotonic() < until_s, "it is not written"
            time.sleep(0.01)
        if early:  # as when it was killed between the first table and the last
            (raw / ".recording_000000_1" / f"stage{GROWING}").write_bytes(b"")
        recorder = recorder_for(played, tmp_path / "D")
        [sentence] = recorder.told()
        recorder.close()
    place = raw / CUT_OFF / "episode_000000_0"
    assert str(place) in sentence and "does not have it" in sentence
    assert RawFolder(raw).episodes() == []
    recording = read_raw(place)
    assert recording.metadata["cut_off"] is True
    assert len(recording.streams["arm/position"]) > 0.7 * 3.0 * STATE_HZ
    top = recording.streams["top"]
    assert len(np.asarray(top.values)) == len(top.times_s) > 0.5 * 3.0 * CAMERA_HZ
    [theirs] = EpisodeFolders().recordings(place)
    assert len(theirs.streams["top"]) == len(top)


def test_without_raw_streams_nothing_is_left_beside_the_dataset(tmp_path: Path) -> None:
    demo = made_up(3)
    with robot(demo) as played:
        recorder = recorder_for(played, tmp_path / "D", keep=False)
        for _ in range(2):
            record(recorder, played, demo)
        recorder.close()
    assert [path.name for path in tmp_path.iterdir()] == ["D"]
    names = [m["recording"] for m in open_dataset(tmp_path / "D").episodes.metadata]
    assert names == ["episode_000000", "episode_000001"]


def test_memory_stays_flat_over_a_long_episode(tmp_path: Path) -> None:
    import tracemalloc

    demo, raw = made_up(6, length=40), tmp_path / "raw"
    with robot(demo) as played:
        episode = grow(raw, demo, played, 2.0)
        tracemalloc.start()
        sizes = []
        for _ in range(5):
            for _ in range(40):
                played.go_on(played.now_s + 0.05, demo, 0.5)
                episode.take()
            while episode.backlog:
                time.sleep(0.001)
            sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        episode.abandon()
    assert sizes[-1] - sizes[1] < 200_000, sizes


@pytest.mark.parametrize("name", ["arm.sent", "", "2nd", "stage"])
def test_names_that_no_files_could_have_are_refused(name: str) -> None:
    ring = Ring.create([Field("position", ())], rate_hz=10)
    try:
        with pytest.raises(ConfigError):
            check_sources([StreamSource(name, ring, ring.spec.fields, 10)])
    finally:
        ring.close()
        ring.unlink()
