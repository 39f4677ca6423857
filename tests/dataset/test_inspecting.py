"""What ``dp-hub inspect`` finds in real and made sources, and mappings that work as proposed."""

import sys
from pathlib import Path

import made_format
import numpy as np
import pytest
import yaml

from dp_hub.dataset.conversion.formats import load_converter
from dp_hub.dataset.convert import convert
from dp_hub.dataset.inspection.inspecting import inspect, recognised_formats
from dp_hub.dataset.inspection.proposing import propose, round_rate
from dp_hub.dataset.inspection.stream_facts import StreamFacts, StreamMeter
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError
from dp_hub.replay.buffer import open_replay, write_replay
from dp_hub.replay.mapping.apply import episodes_of, mapped_episode
from dp_hub.replay.mapping.config import load_mapping
from dp_hub.replay.recording import Stream
from dp_hub.replay.source import Source


@pytest.fixture
def arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    yield made_format.install(tmp_path)
    sys.modules.pop("third_party_arms", None)


def proposed(text: str, folder: Path):
    path = folder / "proposed.yaml"
    path.write_text(text)
    return load_mapping(path)


def test_rate_jitter_gaps_and_clocks_are_measured():
    rng = np.random.default_rng(0)
    times = np.arange(300) * 0.1 + rng.normal(0, 0.005, 300)
    times[100:] += 2.0
    times[200:] += 0.3  # four periods: no gap yet
    stream = Stream(np.zeros((300, 2)), np.sort(times), logged_s=np.sort(times) + 0.03)
    meter = StreamMeter("/s", stream)
    meter.add(stream, "one")
    meter.add(stream, "two")
    found = meter.facts()
    between = np.diff(np.sort(times))
    steady = between[between < 1]
    assert (found.values, found.recordings, found.gaps) == (600, 2, 2)
    assert found.rate_hz == pytest.approx(len(steady) / steady.sum())
    assert found.jitter_s == pytest.approx(steady.std())
    assert found.longest_s == between.max() > 2
    assert found.logged_s == pytest.approx(0.03) and found.logged_p95_s == pytest.approx(0.03)
    assert found.duration_s == pytest.approx(2 * (times[-1] - times[0]), rel=1e-3)


def test_recordings_of_different_robots_are_told():
    meter = StreamMeter("/s", Stream(np.zeros((3, 2)), np.arange(3.0)))
    meter.add(meter.first, "one")
    with pytest.raises(DataError, match=r"/s of two is float64 \(3,\), before it was"):
        meter.add(Stream(np.zeros((3, 3)), np.arange(3.0)), "two")


@pytest.mark.parametrize(
    ("seen", "meant", "below"),
    [(29.6, 30, 30), (14.8, 15, 15), (47.3, 47, 40), (99.2, 100, 100), (0.4, 0.4, 0.4), (7, 7, 6)],
)
def test_rates_are_rounded_to_what_is_meant(seen, meant, below):
    assert round_rate(seen) == meant
    assert round_rate(seen, below=True) == below


def test_a_mapping_is_proposed_for_streams_and_works(arms, tmp_path):
    found = inspect(arms)
    assert (found.format_name, found.has_rows, found.looked_at) == ("arms", False, 2)
    assert found.missing["lacks"] == 'pip install "third_party[special]"'
    by_name = {s.name: s for s in found.streams}
    assert by_name["/imu.values"].gaps == 2 and by_name["/joints.position"].gaps == 0
    assert by_name["/joints.position"].logged_s == pytest.approx(0.02)
    assert by_name["/rare"].recordings == 1

    mapping = proposed(found.mapping, tmp_path)
    assert mapping.fps == 15
    assert mapping.task == 'Lift: the "cube".'
    features = {n: [t.stream for t in f.parts()] for n, f in mapping.features.items()}
    assert features == {
        "observation.state": ["/joints.position"],
        "action": ["/target: (odd) name"],
        "observation.images.cam": ["/cam/image_raw"],
        "observation.images.wrist": ["/wrist/image_raw"],
    }
    for unused in ("/joints.velocity", "/imu.values", "/depth", "/said", "/rare"):
        assert f"{unused}" in found.mapping
    assert "# episodes: {split: flag, stream: /episode/active" in found.mapping

    converter = load_converter("arms")
    made = [
        episode
        for recording in converter.recordings(arms, only=mapping.streams())
        for episode in episodes_of(recording, mapping)
    ]
    assert len(made) == 2
    for episode in made:
        when = episode.metadata["start_s"] + np.arange(episode.length) / 15
        expected = np.arange(3) + (when[:, None] - 100) * 0.1
        np.testing.assert_allclose(episode.data["observation.state"], expected, atol=1e-9)
        assert episode.data["observation.images.cam"][:].shape == (episode.length, 16, 24, 3)


def test_without_a_command_the_action_is_the_next_state(arms, tmp_path):
    found = inspect(arms, options={"command": "no", "seconds": "2"})
    mapping = proposed(found.mapping, tmp_path)
    assert mapping.features["action"].next == ["observation.state"]
    assert mapping.options == {"command": "no", "seconds": "2"}


def test_a_command_that_is_silent_now_and_then_holds_until_the_next(arms, tmp_path):
    facts = list(inspect(arms).streams)
    regular, gaps = np.arange(100) * 0.1, np.zeros(100)
    gaps[50:] = 1.5
    meter = StreamMeter("/cmd", Stream(np.zeros((100, 2)), regular + gaps, kind="command"))
    meter.add(meter.first, "one")
    meter.add(meter.first, "two")
    facts = [s for s in facts if s.kind not in ("command", "picture")] + [meter.facts()]
    text = propose(facts, Source({s.name: s.dtype for s in facts}), has_rows=False, fps=None,
                   fps_from=None, looked_at=2, options={}, title="made")  # fmt: skip
    mapping = proposed(text, tmp_path)
    assert mapping.features["action"].parts()[0].max_gap_s == 2.0
    assert "silent for up to 1.6 s" in text
    assert mapping.fps == 100  # no camera: that of the joints, not of what is left out


def test_every_line_that_is_commented_out_works_too(arms, tmp_path):
    lines = inspect(arms).mapping.splitlines()
    rest = [line.split("#", 2)[1] for line in lines if line.startswith("#   ")]
    assert len(rest) == 6
    for line in rest:
        [(name, feature)] = yaml.safe_load(line).items()
        assert set(feature) == {"from"} and "/" not in name
    splits = [line[2:] for line in lines if line.startswith("# episodes:")]
    assert len(splits) == 1
    text = "\n".join(splits + [line for line in lines if not line.startswith("episodes")])
    assert proposed(text, tmp_path).episodes.split == "flag"


def test_real_rows_are_inspected_and_their_mapping_converts(pusht_first5_zip, tmp_path):
    found = inspect(pusht_first5_zip, format_name="zarr")
    assert (found.n_episodes, found.n_frames, found.has_rows) == (5, 738, True)
    shapes = {s.name: (s.dtype, s.shape) for s in found.streams}
    assert shapes["keypoint"] == ("float32", (9, 2)) and shapes["img"] == ("uint8", (96, 96, 3))
    mapping = proposed(found.mapping, tmp_path)
    assert mapping.streams() == {"action", "state", "keypoint", "n_contacts", "img"}
    source = open_replay(pusht_first5_zip)
    names = {"state": "observation.state", "action": "action", "img": "observation.image",
             "keypoint": "observation.environment_state", "n_contacts": "n_contacts"}  # fmt: skip
    seen = 0
    originals = source.episodes(list(source))
    for episode, original in zip(
        load_converter("zarr").episodes(pusht_first5_zip), originals, strict=True
    ):
        made = mapped_episode(episode, mapping, None)
        assert set(made.data) == set(names.values())
        for key, name in names.items():
            np.testing.assert_array_equal(made.data[name], original[key])
        seen += 1
    assert seen == 5


def test_real_rows_at_twice_and_half_their_rate(pusht_first5_zip, tmp_path):
    text = """
        fps: {}
        features:
          observation.state: "state[0:2]"
          action: {{next: observation.state}}
          command: action
          action.held: action
          observation.image: {{from: img, resize: [48, 48]}}
    """
    first = next(iter(load_converter("zarr").episodes(pusht_first5_zip)))
    state, action = first.data["state"], first.data["action"]
    made = mapped_episode(first, proposed(text.format(5), tmp_path), 10.0)
    assert made.length == (first.length + 1) // 2
    np.testing.assert_array_equal(made.data["observation.state"], state[::2, :2])
    np.testing.assert_array_equal(made.data["action"][:-1], state[2::2, :2])
    small = np.asarray(first.data["img"])[::2].reshape(-1, 48, 2, 48, 2, 3).mean(axis=(2, 4))
    assert np.abs(made.data["observation.image"][:] - small).max() <= 0.5
    made = mapped_episode(first, proposed(text.format(20), tmp_path), 10.0)
    np.testing.assert_array_equal(made.data["observation.state"][::2], state[:, :2])
    between = (state[:-1, :2].astype(float) + state[1:, :2]) / 2
    np.testing.assert_allclose(made.data["observation.state"][1:-1:2], between, rtol=1e-6)
    held = np.repeat(action, 2, axis=0)[: made.length]
    np.testing.assert_array_equal(made.data["action.held"], held)


def test_umis_layout_gets_a_joined_state_and_its_next_step_as_action(tmp_path):
    rng = np.random.default_rng(0)
    data = {
        "robot0_eef_pos": rng.normal(size=(20, 3)).astype(np.float32),
        "robot0_eef_rot_axis_angle": rng.normal(size=(20, 3)).astype(np.float32),
        "robot0_gripper_width": rng.uniform(size=(20, 1)).astype(np.float32),
        "robot0_demo_start_pose": rng.normal(size=(20, 6)),
        "timestamp": np.arange(20) / 59.94,
    }
    write_replay(tmp_path / "umi.zarr", [data], attrs={})
    found = inspect(tmp_path / "umi.zarr", format_name="zarr")
    assert found.fps == pytest.approx(59.94) and found.fps_from == "timestamp"
    assert "by timestamp the first episode has a row every 16.68 ms, jitter" in found.notes[-1]
    mapping = proposed(found.mapping, tmp_path)
    assert (mapping.fps, mapping.source_fps) == (59.94, 59.94)
    assert len(mapping.features["observation.state"].parts()) == 3
    episode = next(iter(load_converter("zarr").episodes(tmp_path / "umi.zarr")))
    made = mapped_episode(episode, mapping, None)
    assert made.length == 20
    joined = np.concatenate([data[key] for key in list(data)[:3]], axis=1)
    np.testing.assert_array_equal(made.data["observation.state"], joined)
    np.testing.assert_array_equal(made.data["action"][:-1], joined[1:])


def test_a_proposed_mapping_of_streams_becomes_a_dataset(arms, tmp_path):
    proposed(inspect(arms).mapping, tmp_path)
    done = convert("arms", arms, tmp_path / "ds", mapping=tmp_path / "proposed.yaml", images="webp")
    assert (done.written.n_episodes, done.written.fps) == (2, 15)
    dataset = open_dataset(tmp_path / "ds")
    assert set(dataset.features) >= {"observation.state", "action", "observation.images.cam",
                                     "observation.images.wrist"}  # fmt: skip
    assert dataset.features["observation.state"].names == ["shoulder", "elbow", "gripper"]
    state = dataset.column("observation.state")
    np.testing.assert_allclose(np.diff(state[:20], axis=0), 0.1 / 15, atol=1e-9)
    assert done.alignment.episodes == 2


def test_streams_may_have_any_name(tmp_path):
    names = ["on", "no", "1", "a: b", "# x", "it's", 'say "x"', "{}", "\U0001f600/cam", "\u2028",
             "\x85\x00", "größe", "-", "a b", "~", "null", "y", "*x", "!t", "%", "@"]  # fmt: skip
    for name in names:
        facts = [
            StreamFacts(name, "state", "float64", (2,), (name, name + "2"), values=9, rate_hz=5),
            StreamFacts(f"{name}/cmd", "command", "float64", (2,), values=99, rate_hz=5, gaps=1,
                        longest_s=1.0),
            StreamFacts(f"/{name}", "event", "object", (), about=name, values=9),
        ]  # fmt: skip
        text = propose(facts, Source({s.name: s.dtype for s in facts}), has_rows=False, fps=None,
                       fps_from=None, looked_at=1, options={"a": name}, title=name)  # fmt: skip
        mapping = proposed(text, tmp_path)
        assert mapping.streams() == {name, f"{name}/cmd"}
        assert mapping.features["observation.state"].names == [name, name + "2"]
        assert mapping.options == {"a": name}


def test_nothing_to_map_is_told_and_no_file_is_written():
    facts = [StreamFacts("/said", "event", "object", (), values=5)]
    assert propose(facts, Source({}), has_rows=False, fps=None, fps_from=None, looked_at=1,
                   options={}, title="made") == ""  # fmt: skip


def test_nothing_and_nothing_known_are_one_sentence(arms, tmp_path):
    with pytest.raises(DataError, match="there is nothing at"):
        inspect(tmp_path / "none")
    (tmp_path / "a.xyz").write_bytes(b"?")
    with pytest.raises(DataError, match="no installed format recognises") as caught:
        inspect(tmp_path / "a.xyz")
    assert 'missing for lacks: pip install "third_party[special]"' in caught.value.hint
    assert recognised_formats(arms)[0] == ["arms"]


def stream(name, kind, dtype="float64", shape=(1,), rate_hz=30.0, **more):
    return StreamFacts(
        name, kind, dtype, shape, values=300, rate_hz=rate_hz, jitter_s=0.001, **more
    )


def proposal(*streams, source=None, **how):
    how = {"has_rows": False, "fps": None, "fps_from": None, "looked_at": 1, "options": {}} | how
    return propose(streams, source or Source({}), title="made", **how)


def test_regular_commands_slower_than_the_camera_set_the_rate():
    camera = stream("cam", "picture", "uint8", (48, 64, 3))
    text = proposal(camera, stream("joints", "state"), stream("action", "command", rate_hz=10.0))
    assert "fps: 10  # that of action, 10 Hz" in text
    rare = stream("action", "command", rate_hz=10.0, gaps=3, longest_s=4.0)
    assert "fps: 30  # that of cam" in proposal(camera, stream("joints", "state"), rare)


def test_a_gripper_of_whole_numbers_is_state_and_a_numbered_stage_may_split():
    text = proposal(
        stream("joint", "state"), stream("gripper", "event", "int64"),
        stream("stage", "event", "int64"),
    )  # fmt: skip
    state = text.partition("observation.state:")[2].partition("action:")[0]
    assert "- joint" in state and "- gripper" in state and "stage" not in state
    assert "# episodes: {split: change, stream: stage" in text


def test_a_rate_that_has_to_be_given_is_said_to_be():
    source = Source({}, fps_hint="the robot has 50 Hz: --fps 50")
    text = proposal(stream("state", "state", rate_hz=None), has_rows=True, source=source)
    assert "# fps: 10  # has to be given: the robot has 50 Hz: --fps 50" in text
