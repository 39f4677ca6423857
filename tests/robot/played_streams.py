"""A robot of rings whose samples follow a recorded demonstration, on a clock of our own."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.replay.buffer import open_replay
from dp_hub.robot.fields import Field
from dp_hub.robot.recording.mapping import Numbers, Pictures, recording_mapping
from dp_hub.robot.recording.raw_folder import RawFolder
from dp_hub.robot.recording.recorder import Recorder
from dp_hub.robot.recording.saving import EpisodeSaver
from dp_hub.robot.recording.streams import StreamSource
from dp_hub.robot.shared.ring import Ring

FPS = 10
STATE_HZ, CAMERA_HZ = 100, 30
XY = {"units": ("px", "px"), "names": ("x", "y")}
STATE = Field("position", (2,), **XY)
TARGET = Field("target", (2,), **XY)
FEATURES = {
    "observation.state": [Numbers("arm/position")],
    "observation.image": Pictures("top"),
    "action": [Numbers("arm_sent/target", latency_s=0.012)],
}


@dataclass(frozen=True)
class Demonstration:
    """What was done: rows at 10 Hz."""

    state: np.ndarray  # float64 (T, 2)
    action: np.ndarray  # float64 (T, 2)
    pictures: np.ndarray  # uint8 (T, H, W, 3)

    @property
    def length_s(self) -> float:
        return len(self.state) / FPS

    def at(self, t_s: float) -> int:
        return int(np.clip(np.floor(t_s * FPS + 1e-6), 0, len(self.state) - 1))

    def state_at(self, t_s: float) -> np.ndarray:
        rows = np.arange(len(self.state)) / FPS
        return np.array([np.interp(t_s, rows, self.state[:, i]) for i in range(2)])


def demonstrations(path: Path, *, most_s: float = 4.0) -> list[Demonstration]:
    """The first seconds of real PushT demonstrations."""
    most, found = int(most_s * FPS), []
    for episode in open_replay(path).episodes():
        data = {key: np.asarray(values)[:most] for key, values in episode.items()}
        state, action = data["state"].astype(np.float64), data["action"].astype(np.float64)
        found.append(Demonstration(state[:, :2], action, data["img"].astype(np.uint8)))
    return found


def made_up(seed: int, *, length: int = 20, size: tuple[int, int] = (32, 32)) -> Demonstration:
    """A smooth way, and pictures of noise that changes."""
    rng = np.random.default_rng(seed)
    way = np.cumsum(rng.normal(0, 3, (length, 2)), axis=0) + 256
    base = rng.integers(0, 200, (*size, 3))
    pictures = np.stack([np.roll(base, k, axis=1) for k in range(length)]).astype(np.uint8)
    return Demonstration(way, way + rng.normal(0, 2, (length, 2)), pictures)


class PlayedRobot:
    """Its rings, and the time on them."""

    def __init__(self, shape: tuple[int, ...], *, late_s: float = 0.0) -> None:
        self.arm = Ring.create([STATE], rate_hz=STATE_HZ, keep=100)
        self.sent = Ring.create([TARGET], rate_hz=STATE_HZ, keep=100)
        self.camera = Ring.create([Field("picture", shape, "uint8")], rate_hz=CAMERA_HZ, keep=30)
        self.rings = (self.arm, self.sent, self.camera)
        self.now_s, self.late_s = 0.0, late_s
        self._next = {id(ring): 0 for ring in self.rings}

    @property
    def sources(self) -> list[StreamSource]:
        return [
            StreamSource("arm", self.arm, self.arm.spec.fields, STATE_HZ),
            StreamSource("arm_sent", self.sent, self.sent.spec.fields, STATE_HZ, has_before=False),
            StreamSource("top", self.camera, self.camera.spec.fields, CAMERA_HZ),
        ]

    def go_on(self, until_s: float, demo: Demonstration, start_s: float) -> None:
        """Give all samples up to a time. Times jitter by a fixed pattern."""
        for ring, rate in ((self.arm, STATE_HZ), (self.sent, STATE_HZ), (self.camera, CAMERA_HZ)):
            while (t_s := _time(self._next[id(ring)], rate)) <= until_s:
                since = t_s - start_s
                if ring is self.arm:
                    ring.put(t_s, {"position": demo.state_at(since)})
                elif ring is self.sent:
                    ring.put(t_s, {"target": demo.action[demo.at(since)]})
                else:
                    ring.put(t_s, {"picture": demo.pictures[demo.at(since - self.late_s)]})
                self._next[id(ring)] += 1
        self.now_s = until_s

    def skip_to(self, t_s: float) -> None:
        """Go on there, with nothing in between."""
        self.now_s = t_s
        for ring, rate in ((self.arm, STATE_HZ), (self.sent, STATE_HZ), (self.camera, CAMERA_HZ)):
            self._next[id(ring)] = int(np.ceil(t_s * rate))

    def close(self) -> None:
        for ring in self.rings:
            ring.close()
            ring.unlink()


def _time(number: int, rate_hz: float) -> float:
    jitter = 0.15 * np.sin(12.9898 * number + rate_hz)
    return 0.02 + (number + jitter) / rate_hz


@contextmanager
def robot(demo: Demonstration, **options: float) -> Iterator[PlayedRobot]:
    made = PlayedRobot(demo.pictures.shape[1:], **options)
    try:
        yield made
    finally:
        made.close()


def recorder_for(robot: PlayedRobot, to: Path, *, keep: bool = True, **extra: bool) -> Recorder:
    """As ``dp-hub record --to`` makes it."""
    raw = RawFolder(to.with_name(f"{to.name}.raw"), keep=keep)
    mapping = recording_mapping(FEATURES, fps=FPS, robot_type="pusht", **extra)
    saver = EpisodeSaver(to, mapping, raw, source={"recorder": "a test"}, threads=1)
    return Recorder(robot.sources, raw, saver)


def record(
    recorder: Recorder,
    robot: PlayedRobot,
    demo: Demonstration,
    *,
    facts: dict[str, Any] | None = None,
    start_s: float | None = None,
    on_poll: Callable[[float], None] = lambda since_s: None,
) -> str:
    """One episode, from start to saved. ``on_poll`` is told the time since its beginning."""
    start_s = robot.now_s + 0.5 if start_s is None else start_s
    robot.go_on(start_s - 0.2, demo, start_s)
    name = recorder.start(start_s, {"task": "push", "source": "teleoperation", **(facts or {})})
    stop_s, over_s = start_s + demo.length_s, start_s + demo.length_s + 0.2
    stopped = False
    while robot.now_s < over_s:
        robot.go_on(robot.now_s + 0.05, demo, start_s)
        recorder.poll(robot.now_s)
        on_poll(robot.now_s - start_s)
        if not stopped and robot.now_s >= stop_s:
            recorder.stop(stop_s, {"success": True})
            stopped = True
        while recorder.state.backlog > 20:
            time.sleep(0.001)
    recorder.wait()
    return name
