"""Mappings applied to recordings and to rows: every value is what it has to be at its time."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_recordings import arm, joints, mapping, pictures, times
from scipy.spatial.transform import Rotation

from dp_hub.dataset.video import encode_clip
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip
from dp_hub.replay.episode import Episode
from dp_hub.replay.mapping.apply import episodes_of, mapped_episode
from dp_hub.replay.mapping.check import check_mapping, feature_names
from dp_hub.replay.recording import Recording, Stream
from dp_hub.replay.source import Source
from dp_hub.replay.timeline import AlignmentReport, exact_fps

BASIC = """
    fps: 10
    keep_times: true
    features:
      observation.state: "/joints.position[0:6]"
      action: /target
      observation.images.front: /cam
"""


def only(recording: Recording, *args) -> Episode:
    [episode] = episodes_of(recording, mapping(*args))
    return episode


def test_state_is_interpolated_and_nothing_else_is_from_after_its_step(tmp_path: Path) -> None:
    episode = only(arm(), tmp_path, BASIC)
    when = episode.metadata["start_s"] + np.arange(episode.length) / 10
    assert episode.length in (39, 40)
    np.testing.assert_allclose(episode.data["observation.state"], joints(when)[:, :6], atol=1e-9)
    for name, rate in (("action", 25), ("observation.images.front", 15)):
        used = episode.data[f"times.{name}"]
        assert used.shape == (episode.length,) and used.dtype == np.float64
        assert ((used <= when + 1e-6) & (used > when - 1 / rate - 1e-6)).all()
    np.testing.assert_allclose(
        episode.data["action"], joints(episode.data["times.action"]), atol=1e-9
    )
    number = np.rint((episode.data["times.observation.images.front"] - 100) * 15)
    shown = episode.data["observation.images.front"][:]
    np.testing.assert_array_equal(shown, pictures(60)[number.astype(int)])
    assert episode.task == "Lift."
    assert episode.metadata["recording"] == "bag_0"


def test_an_action_from_a_measured_stream_holds_too(tmp_path: Path) -> None:
    recording = Recording("r", {"/s": Stream(joints(times(30, 2)), times(30, 2))})
    text = "{fps: 7, keep_times: true, features: {action: /s, observation.state: /s}}"
    episode = only(recording, tmp_path, text)
    when = episode.metadata["start_s"] + np.arange(episode.length) / 7
    assert (episode.data["times.action"] <= when + 1e-6).all()
    np.testing.assert_allclose(episode.data["action"], joints(episode.data["times.action"]))
    np.testing.assert_allclose(episode.data["observation.state"], joints(when), atol=1e-9)
    assert np.abs(episode.data["action"] - episode.data["observation.state"]).max() > 0.01


def test_a_latency_takes_the_value_that_was_true(tmp_path: Path) -> None:
    text = "{fps: 10, features: {s: {from: '/joints.position', latency_s: 0.025}, c: /cam}}"
    episode = only(arm(), tmp_path, text)
    when = episode.metadata["start_s"] + np.arange(episode.length) / 10
    np.testing.assert_allclose(episode.data["s"], joints(when + 0.025), atol=1e-9)


def test_next_is_the_state_of_the_next_step_and_the_last_repeats(tmp_path: Path) -> None:
    text = """
        fps: 10
        keep_times: true
        features:
          observation.state: /joints.position
          action: {next: "observation.state[0:2, 6]"}
    """
    episode = only(arm(), tmp_path, text)
    state = episode.data["observation.state"][:, [0, 1, 6]]
    np.testing.assert_array_equal(episode.data["action"][:-1], state[1:])
    np.testing.assert_array_equal(episode.data["action"][-1], state[-1])
    used = episode.data["times.observation.state"]
    np.testing.assert_array_equal(episode.data["times.action"][:-1], used[1:])
    dropped = only(arm(), tmp_path, text.replace('6]"}', '6]", drop_last: true}'))
    assert dropped.length == episode.length - 1
    np.testing.assert_array_equal(dropped.data["action"], state[1:])
    np.testing.assert_array_equal(dropped.data["times.action"], used[1:])


@pytest.mark.parametrize("steps", [1, 2, -1])
def test_shift_takes_the_value_of_later_or_earlier_steps(tmp_path: Path, steps: int) -> None:
    text = f"{{fps: 10, features: {{a: /target, action: {{from: /target, shift: {steps}}}}}}}"
    episode = only(arm(), tmp_path, text)
    rows = np.clip(np.arange(episode.length) + steps, 0, episode.length - 1)
    np.testing.assert_array_equal(episode.data["action"], episode.data["a"][rows])


def test_drop_last_cuts_pictures_without_reading_them(tmp_path: Path) -> None:
    text = "{fps: 15, features: {c: /cam, action: {from: /target, shift: 3, drop_last: true}}}"
    whole = only(arm(), tmp_path, text.replace(", drop_last: true", ""))
    episode = only(arm(), tmp_path, text)
    assert episode.length == whole.length - 3
    assert not isinstance(episode.data["c"], np.ndarray)
    np.testing.assert_array_equal(episode.data["c"][:], whole.data["c"][:-3])


def test_numbers_are_sliced_scaled_inverted_and_joined_in_order(tmp_path: Path) -> None:
    text = """
        fps: 10
        features:
          s:
            from:
              - "/joints.position[0:2]"
              - {stream: /joints.position, at: "[-1]", scale: 0.01, offset: 0.5, invert: true}
              - {stream: /joints.position, at: "[2, 0]", degrees: to_rad, scale: [2, 3]}
              - {stream: /joints.position, at: "[5]", invert: [0, 100], degrees: to_deg}
    """
    episode = only(arm(), tmp_path, text)
    q = joints(episode.metadata["start_s"] + np.arange(episode.length) / 10)
    expected = np.stack([
        q[:, 0], q[:, 1], 1 - (q[:, 6] * 0.01 + 0.5), np.deg2rad(q[:, 2]) * 2,
        np.deg2rad(q[:, 0]) * 3, 100 - np.rad2deg(q[:, 5]),
    ], axis=1)  # fmt: skip
    np.testing.assert_allclose(episode.data["s"], expected, atol=1e-9)


def test_whole_numbers_without_a_sign_are_inverted_below_zero_too(tmp_path: Path) -> None:
    t = times(10, 1, start=0)
    widths = np.arange(len(t), dtype=np.uint8)
    text = "fps: 10\nfeatures: {g: {from: /gripper, invert: true}}"
    episode = only(Recording("r", {"/gripper": Stream(widths, t, "command")}), tmp_path, text)
    assert episode.length >= 9
    np.testing.assert_array_equal(episode.data["g"], 1 - np.arange(episode.length))


def turning(t: np.ndarray) -> Rotation:
    return Rotation.from_euler("xyz", np.stack([0.1 * t, 0.2 * t, 0.9 * t], axis=1))


def test_rotations_are_turned_on_the_way_and_written_anew(tmp_path: Path) -> None:
    t = times(20, 3, start=0)
    quats = turning(t).as_quat() * np.where(np.arange(len(t)) % 2, 1, -1)[:, None]  # flips
    pose = np.concatenate([np.stack([t, t, t], axis=1), quats], axis=1).astype(np.float32)
    text = """
        fps: 7
        features:
          pose:
            - "/pose[0:3]"
            - {stream: /pose, at: "[3:7]", rotation: {from: quat_xyzw, to: rot6d}}
    """
    episode = only(Recording("r", {"/pose": Stream(pose, t)}), tmp_path, text)
    when = episode.metadata["start_s"] + np.arange(episode.length) / 7
    assert episode.data["pose"].dtype == np.float32
    np.testing.assert_allclose(episode.data["pose"][:, :3], when[:, None].repeat(3, 1), atol=1e-5)
    expected = turning(when).as_matrix()[:, :2].reshape(-1, 6)
    np.testing.assert_allclose(episode.data["pose"][:, 3:], expected, atol=2e-3)


def test_angles_in_degrees_are_rotations_in_radians(tmp_path: Path) -> None:
    t = times(20, 3, start=0)
    degrees = turning(t).as_euler("xyz", degrees=True)
    text = """{fps: 20, features: {r: {from: /e, degrees: to_rad,
               rotation: {from: euler_xyz, to: rotvec}}}}"""
    episode = only(Recording("r", {"/e": Stream(degrees, t)}), tmp_path, text)
    np.testing.assert_allclose(episode.data["r"], turning(t).as_rotvec(), atol=1e-9)


def test_pictures_are_edited_when_they_are_looked_at(tmp_path: Path) -> None:
    text = """
        fps: 15
        features:
          c: {from: /cam, colour: bgr, rotate: 90, flip: horizontal, crop: [2, 1, 12, 8],
              resize: [6, 4]}
          raw: /cam
    """
    episode = only(arm(), tmp_path, text)
    raw = episode.data["raw"][:].astype(float)
    upright = np.rot90(raw[..., ::-1], -1, axes=(1, 2))[:, :, ::-1]
    expected = upright[:, 2:14, 1:9].reshape(-1, 6, 2, 4, 2, 3).mean(axis=(2, 4))
    assert episode.data["c"].shape == (episode.length, 6, 4, 3)
    np.testing.assert_allclose(episode.data["c"][:], expected, atol=0.51)


SPLITS = {
    "recording": ("{}", [(100.0, 104.0)]),
    "gap": ("{split: gap, gap_s: 1.0}", [(100.0, 101.0), (103.0, 104.0)]),
    "gap in a stream": (
        "{split: gap, gap_s: 1.0, stream: /joints}", [(100.0, 101.0), (103.0, 104.0)]),
    "change": ("{split: change, stream: /stage}",
               [(100.0, 100.5), (100.5, 101.0), (103.0, 104.0)]),
    "change, some": ("{split: change, stream: /stage, ignore: [2]}",
                     [(100.0, 100.5), (103.0, 104.0)]),
    "change, one": ("{split: change, stream: /stage, value: 2}", [(100.5, 101.0)]),
    "flag": ("{split: flag, stream: /on}", [(100.25, 100.75), (103.5, 104.0)]),
    "no flag": ("{split: flag, stream: /on, value: false}", [(100.0, 100.25), (100.75, 101.0),
                                                              (103.0, 103.5)]),
    "short ones left out": ("{split: change, stream: /stage, min_s: 0.6}", [(103.0, 104.0)]),
}  # fmt: skip


@pytest.mark.parametrize("name", SPLITS)
def test_recordings_are_split(tmp_path: Path, name: str) -> None:
    how, expected = SPLITS[name]
    t = np.concatenate([times(20, 1), times(20, 1, start=103)])
    streams = {
        "/joints": Stream(joints(t), t),
        "/stage": Stream(np.array([1, 1, 2, 2, 3]), np.array([100, 100.2, 100.5, 101, 103]),
                         kind="event"),
        "/on": Stream(np.array([False, True, True, False, True]),
                      np.array([100, 100.25, 100.5, 100.75, 103.5]), kind="event"),
    }  # fmt: skip
    on_gap = "keep" if name == "recording" else "split"
    text = f"{{fps: 20, episodes: {how}, features: {{s: /joints}}, on_gap: {on_gap}}}"
    parts: list[AlignmentReport] = []
    found = list(episodes_of(Recording("r", streams), mapping(tmp_path, text), report=parts.append))
    short = ["r: 0.50 s, shorter than min_s (0.6)"] * 2 if "min_s" in how else []
    assert [why for part in parts for why in part.left_out] == short
    assert sum(part.n_left_out for part in parts) == len(short)
    spans = [(e.metadata["start_s"], e.metadata["start_s"] + e.length / 20) for e in found]
    np.testing.assert_allclose(spans, expected, atol=0.051)
    for episode in found:
        when = episode.metadata["start_s"] + np.arange(episode.length) / 20
        np.testing.assert_allclose(episode.data["s"], joints(when), atol=1e-9)
    if name == "change":
        assert [e.metadata["/stage"] for e in found] == [1, 2, 3]


def test_a_task_comes_from_a_stream_of_texts(tmp_path: Path) -> None:
    t = times(20, 2)
    texts = Stream(np.array(["Lift.", "Push."], object), np.array([100.0, 101.0]), kind="event")
    recording = Recording("r", {"/s": Stream(joints(t), t), "/task": texts}, task="Nothing.")
    text = """{fps: 20, task: {stream: /task}, episodes: {split: change, stream: /task},
               features: {s: /s}}"""
    found = list(episodes_of(recording, mapping(tmp_path, text)))
    assert [e.task for e in found] == ["Lift.", "Push."]


def test_an_episode_before_the_camera_runs_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    t, late = times(20, 3), times(15, 1, start=101.5)
    streams = {
        "/s": Stream(joints(t), t),
        "/cam": Stream(pictures(15), late, kind="picture"),
        "/n": Stream(np.arange(3), np.array([100.0, 101.0, 102.0]), kind="event"),
    }
    text = "{fps: 15, episodes: {split: change, stream: /n}, features: {s: /s, c: /cam}}"
    found = list(episodes_of(Recording("r", streams), mapping(tmp_path, text)))
    assert [e.metadata["/n"] for e in found] == [1, 2]
    assert "r: the streams are there together from" in caplog.text


def test_the_report_counts_steps_and_gaps(tmp_path: Path) -> None:
    t = np.concatenate([times(20, 1), times(20, 1, start=103)])
    parts: list = []
    read = mapping(tmp_path, "{fps: 20, features: {s: /joints, a: {from: /joints, method: hold}}}")
    found = list(episodes_of(Recording("r", {"/joints": Stream(joints(t), t)}), read,
                             report=parts.append))  # fmt: skip
    assert len(found) == 2
    report = parts[0]
    for part in parts[1:]:
        report = report.then(part)
    assert report.episodes == 2
    assert set(report.streams) == {"/joints", "/joints for a"}
    assert report.streams["/joints"].method == "linear"
    assert report.streams["/joints for a"].steps == sum(e.length for e in found)
    assert report.streams["/joints"].gaps == 1


def test_no_action_is_from_after_its_step_whatever_the_rates(tmp_path: Path) -> None:
    rng, seen = np.random.default_rng(5), 0
    for seed in range(60):
        rates, fps = rng.uniform(3, 120, 3), rng.uniform(2, 60)
        kinds = rng.choice(["state", "command"], 2)
        streams = {
            name: Stream(joints(t), t, kind=kind)
            for name, kind, rate in zip("ab", kinds, rates, strict=False)
            if len(t := times(rate, 5, jitter=0.4, seed=seed)) > 3
        }
        text = f"""{{fps: {fps}, keep_times: true, on_gap: keep,
                    features: {{action: a, action.other: [b, a], s: {{from: b, method: hold}}}}}}"""
        for episode in episodes_of(Recording("r", streams), mapping(tmp_path, text)):
            exact = float(exact_fps(fps))
            when = episode.metadata["start_s"] + np.arange(episode.length) / exact
            for name in ("action", "action.other", "s"):
                used = episode.data[f"times.{name}"].reshape(episode.length, -1)
                assert (used <= when[:, None] + 2e-6).all()
            held = joints(episode.data["times.action"])
            np.testing.assert_array_equal(episode.data["action"], held)
            seen += episode.length
    assert seen > 3000


def test_a_video_at_the_rate_of_the_grid_stays_a_video_unless_edited(tmp_path: Path) -> None:
    frames = np.broadcast_to(
        np.arange(40, 80, dtype=np.uint8)[:, None, None, None], (40, 32, 48, 3)
    )
    clip = encode_clip(frames.copy(), rate=Fraction(20), codec="h264")
    t = times(20, 2)
    streams = {"/cam": Stream(clip, t, kind="picture"), "/s": Stream(joints(t), t)}
    text = """{fps: 20, features: {s: /s, c: {from: /cam, resize: [32, 48]},
               small: {from: /cam, resize: [16, 24]}, action: {next: s, drop_last: true}}}"""
    episode = only(Recording("r", streams), tmp_path, text)
    assert isinstance(episode.data["c"], VideoClip) and len(episode.data["c"]) == episode.length
    whole = clip[:][: episode.length]
    np.testing.assert_array_equal(episode.data["c"][:], whole)
    blocks = whole.reshape(-1, 16, 2, 24, 2, 3).mean(axis=(2, 4))
    assert np.abs(episode.data["small"][:] - blocks).max() <= 0.5


def rows(count: int, fps: float) -> Episode:
    t = 100 + np.arange(count) / fps
    data = {"q": joints(t), "target": joints(t), "img": pictures(count),
            "contact": np.arange(count) % 2 == 0}  # fmt: skip
    return Episode(data, task="Lift.", metadata={"seed": 3})


def test_rows_stay_as_they_are_at_their_own_rate(tmp_path: Path) -> None:
    source = rows(20, 10)
    text = """
        fps: 10
        keep_times: true
        features:
          observation.state: ["q[0:6]", {stream: contact, invert: true}]
          observation.image: {from: img, colour: bgr}
          action: target
    """
    episode = mapped_episode(source, mapping(tmp_path, text), 10.0)
    assert list(episode.data)[:3] == ["observation.state", "observation.image", "action"]
    assert episode.data["action"] is source.data["target"]
    np.testing.assert_array_equal(episode.data["observation.state"][:, :6], joints(
        100 + np.arange(20) / 10)[:, :6])  # fmt: skip
    np.testing.assert_array_equal(episode.data["observation.state"][:, 6], np.arange(20) % 2)
    np.testing.assert_array_equal(episode.data["observation.image"][:], pictures(20)[..., ::-1])
    np.testing.assert_array_equal(episode.data["times.action"], np.arange(20) / 10)
    assert (episode.task, episode.metadata) == ("Lift.", {"seed": 3})


@pytest.mark.parametrize(("source_fps", "fps"), [(10, 5), (10, 30), (30, 29.97), (50, 15)])
def test_rows_are_put_on_another_rate(tmp_path: Path, source_fps: float, fps: float) -> None:
    text = f"{{fps: {fps}, keep_times: true, features: {{s: q, action: target, c: img}}}}"
    episode = mapped_episode(rows(60, source_fps), mapping(tmp_path, text), source_fps)
    exact = fps if fps != 29.97 else 30000 / 1001
    when = np.arange(episode.length) / exact
    assert abs(when[-1] - 59 / source_fps) <= 1 / fps
    np.testing.assert_allclose(episode.data["s"], joints(100 + when), atol=1e-9)
    row = np.floor(when * source_fps + 1e-6).astype(int)
    np.testing.assert_allclose(episode.data["times.action"], row / source_fps)
    np.testing.assert_allclose(episode.data["action"], joints(100 + row / source_fps))
    np.testing.assert_array_equal(episode.data["c"][:][:, 0, 0, 0], row)


def test_rows_of_an_unknown_rate_are_what_the_mapping_says(tmp_path: Path) -> None:
    text = "{fps: 30, features: {s: q}}"
    assert mapped_episode(rows(20, 10), mapping(tmp_path, text), None).length == 20
    told = "{fps: 30, source_fps: 10, features: {s: q}}"
    assert mapped_episode(rows(20, 10), mapping(tmp_path, told), None).length in (57, 58)


WRONG = {
    "{fps: 5, features: {a: /joint.position}}": (
        "`features.a.from` names the stream '/joint.position', which is not in bag_0",
        "did you mean `/joints.position`? there are: /joints.position, /target, /cam"),
    "{fps: 5, features: {a: [/target, /x/cam]}}": (
        "`features.a.from[1]` names the stream '/x/cam'", "did you mean `/cam`?"),
    "{fps: 5, episodes: {split: flag, stream: /on}, features: {a: /target}}": (
        "`episodes.stream` names the stream '/on'", "there are: "),
    "{features: {a: /target}}": ("streams with times of their own need a rate", "fps: 30"),
    "{fps: 5, features: {a: '/target[0:8]'}}": (
        "`features.a.from`: /target of bag_0[0:8]: there is no [0:8] where there are 7 numbers",
        "numbered 0 to 6"),
    "{fps: 5, features: {a: [/target, '/target[7]']}}": (
        "`features.a.from[1]`: /target of bag_0[7]: there is no [7]", "numbered 0 to 6"),
    "{fps: 5, features: {a: {from: /target, crop: [0, 0, 5, 5]}}}": (
        "`features.a.from`: /target of bag_0 holds no pictures", ""),
    "{fps: 5, features: {a: '/cam[0]'}}": (
        "`features.a.from`: /cam of bag_0 holds pictures, for which there is no at", ""),
    "{fps: 5, features: {a: [/cam, /target]}}": (
        "`features.a.from[0]`: /cam of bag_0 holds pictures, for which there is no joining", ""),
    "{fps: 5, features: {a: {from: /cam, crop: [0, 0, 13, 5]}}}": (
        "/cam of bag_0 is 12x16; the crop [0, 0, 13, 5] ends at row 13", "[top, left,"),
    "{fps: 5, features: {a: {from: /cam, colour: bgra}}}": (
        "/cam of bag_0 has 3 channels, `colour: bgra` 4", ""),
    "{fps: 5, features: {a: {from: /target, rotation: {from: quat_xyzw, to: rot6d}}}}": (
        "`features.a.from`: /target of bag_0 has 7 numbers, a rotation written as quat_xyzw has 4",
        "[3:7]"),
    "{fps: 5, features: {a: {from: /target, scale: [1, 2]}}}": (
        "/target of bag_0: scale has 2 entries for 7 numbers", ""),
    "{fps: 5, features: {a: {from: '/target[0:2]', names: [x, y, z]}}}": (
        "`features.a.names` has 3 names for 2 numbers", ""),
    "{fps: 5, features: {a: {from: /target, dtype: uint8}}}": (
        "`features.a.dtype` is uint8, which would change values such as", "float32"),
    "{fps: 5, features: {a: {from: /cam, shift: 1}}}": ("pictures, for which there is no shi", ""),
    "{fps: 5, features: {a: /cam, action: {next: a}}}": (
        "`features.action.next`: a holds pictures", ""),
    "{fps: 5, features: {a: /text}}": ("`features.a.from`: /text of bag_0 holds texts", "task"),
    "{fps: 5, episodes: {split: change, stream: /target}, features: {a: /cam}}": (
        "/target of bag_0 holds (7,) numbers a value; one is needed", '"/target[0]"'),
    "{fps: 5, episodes: {split: flag, stream: '/target[0]'}, features: {a: /cam}}": (
        "/target of bag_0 is 0.04 at some time; a flag is true or false", "`value:`"),
    "{fps: 0.1, features: {s: /target, a: {from: /target, shift: 9, drop_last: true}}}": (
        "an episode of 1 steps has none left", "min_s"),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_does_not_fit_is_one_sentence_with_the_place(tmp_path: Path, text: str) -> None:
    said = Stream(np.array(["a", "b"], object), np.array([100.0, 101.0]), kind="event")
    recording = arm(**({"/text": said} if "/text" in text else {}))
    with pytest.raises(DataError) as caught:
        for episode in episodes_of(recording, mapping(tmp_path, text)):
            [values[:] for values in episode.data.values()]
    message, hint = WRONG[text]
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert "\n" not in caught.value.message


def test_rows_are_not_split_and_sources_are_checked_by_their_description(tmp_path: Path) -> None:
    text = "{episodes: {split: gap}, features: {a: q}}"
    with pytest.raises(DataError, match="the rows of this source are episodes already"):
        mapped_episode(rows(5, 10), mapping(tmp_path, text), 10)
    with pytest.raises(DataError, match="'qq', which is not in the source"):
        check_mapping(mapping(tmp_path, "features: {a: qq}"), Source({"q": "float64"}))
    check_mapping(mapping(tmp_path, "features: {a: q}"), Source({"q": "float64"}))


def test_names_of_numbers_follow_slices_joins_and_next(tmp_path: Path) -> None:
    text = """
        features:
          s: ["/j[1:3]", {stream: /g, scale: 2}]
          action: {next: "s[0, 2]"}
          r: {from: "/j", rotation: {from: quat_xyzw, to: rot6d}}
          own: {from: /x, names: [a, b]}
          unknown: [/j, /x]
    """
    names = {"/j": ("a", "b", "c", "d"), "/g": ("grip",)}
    assert feature_names(mapping(tmp_path, text), names) == {
        "s": ("b", "c", "grip"), "action": ("b", "grip"), "own": ("a", "b"),
    }  # fmt: skip
