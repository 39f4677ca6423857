"""Cameras that can be tried without one: video files, OpenCV on files, options, clocks."""

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.clock import Clock, MonotonicClock, VirtualClock
from dp_hub.robot.devices.device_clock import DeviceClock
from dp_hub.robot.devices.protocols import Camera, Frame
from dp_hub.robot.devices.realsense import RealSense, taken_s
from dp_hub.robot.devices.video_file import VideoFile
from dp_hub.robot.devices.webcam import Webcam

RATE_HZ = 50
REAL = "samples/lerobot_v21_g1/videos/chunk-000/observation.images.cam_high/episode_000001.mp4"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures of 64x48 at 50 Hz; picture k is orange of brightness 5 k."""
    import av

    path = tmp_path_factory.mktemp("video") / "steps.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE_HZ, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for number in range(40):
            picture = np.empty((48, 64, 3), dtype=np.uint8)
            picture[:] = (5 * number, 5 * number // 2, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def number_of(frame: Frame) -> int:
    return round(float(frame.picture[:, :, 0].mean()) / 5)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """That video files play by: time passes only where they wait."""
    clock = VirtualClock(1000.0)
    time_there = SimpleNamespace(monotonic=clock.now_s, sleep=clock.advance)
    monkeypatch.setattr("dp_hub.robot.devices.video_file.time", time_there)
    return clock


def grabbed(camera: Camera, seconds: float, clock: Clock, *, pause_s: float = 0.0) -> list[Frame]:
    frames, end_s = [], clock.now_s() + seconds
    while clock.now_s() < end_s:
        frame = camera.grab(0.05)
        if frame is not None:
            frames.append(frame)
        clock.sleep_until(clock.now_s() + pause_s)
    return frames


def test_a_video_plays_in_real_time_and_its_pictures_are_timed_on_its_own_grid(video):
    camera, clock = VideoFile(path=str(video)), MonotonicClock()
    before_s = clock.now_s()
    camera.open()
    begin_s = clock.now_s()
    frames = grabbed(camera, 0.6, clock)
    camera.close()
    assert camera.shape == (48, 64, 3)
    numbers = np.array([number_of(one) for one in frames])
    times_s = np.array([one.time_s for one in frames])
    assert (np.diff(numbers) > 0).all()
    np.testing.assert_allclose(times_s - times_s[0], (numbers - numbers[0]) / RATE_HZ, atol=1e-6)
    assert before_s <= times_s[0] - numbers[0] / RATE_HZ <= begin_s
    assert (times_s <= clock.now_s()).all()
    assert all(
        one.picture.shape == camera.shape and one.picture.dtype == np.uint8 for one in frames
    )
    assert (frames[-1].picture[:, :, 2] < 20).all(), "red first"


def test_who_comes_late_gets_the_newest_picture(video, clock):
    camera = VideoFile(path=str(video))
    camera.open()
    camera.grab(0.1)
    clock.advance(0.309)
    frame = camera.grab(0.0)
    camera.close()
    assert frame is not None
    assert number_of(frame) == 15 and frame.time_s == pytest.approx(1000.3)


def test_a_grab_ends_at_its_time_limit_without_a_picture(video, clock):
    camera = VideoFile(path=str(video), speed=0.05)
    camera.open()
    assert camera.grab(0.1) is not None
    assert camera.grab(0.05) is None
    assert clock.now_s() == pytest.approx(1000.05)
    camera.close()


def test_a_video_begins_again_at_its_end_or_is_gone(video, clock):
    looping = VideoFile(path=str(video), speed=4)
    looping.open()
    frames = grabbed(looping, 0.6, clock)
    looping.close()
    assert [number_of(one) for one in frames][:80] == [*range(40), *range(40)]
    np.testing.assert_allclose(np.diff([one.time_s for one in frames]), 0.005, atol=1e-9)
    ending = VideoFile(path=str(video), speed=4, at_end="gone")
    ending.open()
    with pytest.raises(RobotError, match=r"steps\.mp4 is over"):
        grabbed(ending, 2.0, clock)
    ending.close()


def test_a_real_recording_plays(shared_data: Path, clock: VirtualClock):
    camera = VideoFile(path=str(shared_data / REAL), speed=2)
    camera.open()
    frames = grabbed(camera, 0.5, clock, pause_s=0.02)
    camera.close()
    assert len(frames) >= 20
    assert frames[0].picture.shape == camera.shape and min(camera.shape[:2]) >= 96
    assert 5 < frames[0].picture.mean() < 250


def test_what_is_no_video_is_told(tmp_path: Path):
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    for path in (text, tmp_path / "missing.mp4"):
        with pytest.raises(RobotError, match=f"{path.name} cannot be opened"):
            VideoFile(path=str(path)).open()


def test_opencv_gives_the_newest_picture_red_first_and_then_the_camera_is_gone(video):
    pytest.importorskip("cv2")
    camera = Webcam(device=str(video))
    before = set(threading.enumerate())
    camera.open()
    assert camera.shape == (48, 64, 3)
    frame = camera.grab(1.0)
    assert frame is not None
    assert frame.picture.shape == camera.shape and frame.picture.flags.c_contiguous
    assert (frame.picture[:, :, 2] < 20).all(), "red first"
    assert 0 <= time.monotonic() - frame.time_s < 1
    with pytest.raises(RobotError, match="is gone"):  # a file gives all it has at once
        grabbed(camera, 30.0, MonotonicClock())
    camera.close()
    camera.close()
    assert set(threading.enumerate()) <= before


def test_a_webcam_that_is_not_there_or_gives_another_size_is_told(video):
    pytest.importorskip("cv2")
    with pytest.raises(RobotError, match="the webcam 'nowhere' cannot be opened"):
        Webcam(device="nowhere").open()
    with pytest.raises(RobotError, match="gives pictures of 64x48, not 640x480"):
        Webcam(device=str(video), width=640, height=480).open()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Webcam, {"width": 640}, "width and height"),
        (Webcam, {"fourcc": "MJPEG"}, "four letters"),
        (RealSense, {"gain": 16.0}, "only together with exposure_us"),
        (VideoFile, {"path": "x", "speed": 0.0}, "more than 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(make, options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_without_a_realsense_camera_opening_says_so():
    with pytest.raises(RobotError, match=r"not installed|does not load|is not there"):
        RealSense(serial="0123").open()


class FakeRealSense:
    """What the driver asks of pyrealsense2, with one camera of 4x2 that can be unplugged."""

    def __init__(self) -> None:
        self.there, self.silent, self.options, self.n_frames = True, False, {}, 0
        self.stream = SimpleNamespace(color="color")
        self.format = SimpleNamespace(rgb8="rgb8")
        self.camera_info = SimpleNamespace(serial_number="serial_number")
        names = ("exposure", "enable_auto_exposure", "gain", "white_balance")
        self.option = SimpleNamespace(
            **{name: name for name in (*names, "enable_auto_white_balance")}
        )

    def context(self) -> Any:
        one = SimpleNamespace(get_info=lambda _: "0123")
        return SimpleNamespace(query_devices=lambda: [one] if self.there else [])

    def config(self) -> Any:
        return SimpleNamespace(enable_device=lambda _: None, enable_stream=self._enable)

    def _enable(self, stream: str, width: int, height: int, layout: str, rate_hz: int) -> None:
        self.asked = (width, height, rate_hz)

    def pipeline(self) -> Any:
        sensor = SimpleNamespace(set_option=self.options.__setitem__)
        device = SimpleNamespace(first_color_sensor=lambda: sensor)
        profile = SimpleNamespace(get_device=lambda: device)
        return SimpleNamespace(
            start=lambda _: profile, stop=lambda: None, try_wait_for_frames=self._wait
        )

    def _wait(self, timeout_ms: int) -> tuple[bool, Any]:
        time.sleep(0.001)
        if self.silent or not self.there:
            return False, None
        self.n_frames += 1
        picture = np.full((2, 4, 3), (self.n_frames, 0, 0), dtype=np.uint8)
        frame = SimpleNamespace(
            get_data=lambda: picture,
            get_timestamp=lambda: time.monotonic() * 1000 - 40.0 + 777_000,
            get_frame_timestamp_domain=lambda: SimpleNamespace(name="hardware_clock"),
        )
        return True, SimpleNamespace(get_color_frame=lambda: frame)


def test_a_realsense_is_set_up_read_and_missed_when_it_is_unplugged(monkeypatch):
    fake = FakeRealSense()
    monkeypatch.setitem(sys.modules, "pyrealsense2", fake)
    camera = RealSense(width=4, height=2, fps=15, exposure_us=12_000, gain=0, white_balance_k=5900)
    camera.open()
    assert fake.asked == (4, 2, 15)
    assert fake.options["exposure"] == 120 and fake.options["enable_auto_exposure"] == 0
    assert fake.options["white_balance"] == 5900 and not fake.options["enable_auto_white_balance"]
    frame = camera.grab(1.0)
    assert frame is not None
    assert frame.picture.shape == camera.shape and frame.picture[0, 0, 0] == fake.n_frames
    assert abs(time.monotonic() - frame.time_s) < 1
    fake.silent = True
    assert camera.grab(0.01) is None
    fake.there = False
    with pytest.raises(RobotError, match="the RealSense camera is gone"):
        camera.grab(0.01)
    camera.close()
    with pytest.raises(RobotError, match="is not there; connected: none"):
        camera.open()


def test_stamps_on_the_wall_clock_are_told_in_monotonic_seconds():
    clock = DeviceClock("a camera")
    for domain in ("global_time", "system_time"):
        at_s = taken_s(clock, 1.7e9 + 0.97, domain, now_s=50.0, wall_s=1.7e9 + 1.0)
        assert at_s == pytest.approx(49.97, abs=1e-6)
    set_back = taken_s(clock, 1.7e9 + 3600, "global_time", now_s=51.0, wall_s=1.7e9 + 2)
    assert set_back == pytest.approx(51.0)


def test_delays_of_messages_do_not_move_a_clock_and_the_least_delayed_sets_it():
    clock, rng = DeviceClock("a device"), np.random.default_rng(0)
    stamps_s = np.arange(3000) * 0.008
    delays_s = 0.001 + rng.exponential(0.004, 3000)
    delays_s[1000:1030] += 0.2
    told_s = [
        clock.monotonic_s(at_s, 500 + at_s + late_s)
        for at_s, late_s in zip(stamps_s, delays_s, strict=True)
    ]
    error_s = np.array(told_s) - (500 + stamps_s)
    assert (np.diff(told_s) > 0).all()
    assert np.abs(error_s[200:] - 0.001).max() < 0.001
    assert clock.steps == 0


def test_a_clock_that_runs_faster_or_slower_is_followed_for_hours():
    for drift in (1e-4, -1e-4):
        clock = DeviceClock("a device")
        for at_s in np.arange(0, 3600, 0.5):
            told_s = clock.monotonic_s(7 + at_s * (1 + drift), at_s + 0.001)
        assert told_s - at_s == pytest.approx(0.001, abs=0.0025)


@pytest.mark.parametrize("step_s", [-1e6, -0.5, 0.5, 1e6])
def test_a_step_of_the_devices_clock_is_noticed_and_followed_at_once(step_s):
    clock = DeviceClock("a device")
    for number in range(200):
        offset_s = step_s if number >= 100 else 0.0
        at_s = 0.008 * number
        told_s = clock.monotonic_s(1000 + at_s + offset_s, at_s + 0.001)
        assert told_s == pytest.approx(at_s + 0.001, abs=2e-6)
    assert clock.steps == 1


def test_the_same_message_keeps_its_time():
    clock = DeviceClock("a device")
    first_s = clock.monotonic_s(5.0, 100.0)
    assert clock.monotonic_s(5.0, 100.004) == first_s == 100.0
