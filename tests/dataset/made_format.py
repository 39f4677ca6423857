"""A format of a third party, installed for a test: recordings of an arm; another lacks its library.

``install(folder)`` makes what pip would make of it there; put the folder on the path.
"""

from pathlib import Path

MODULE = """
from pathlib import Path

import numpy as np
from dp_hub.replay.recording import Recording, Stream
from dp_hub.replay.source import Source


def _times(rate, seconds, seed=0, jitter=0.1):
    even = np.arange(round(rate * seconds)) / rate
    return 100 + np.sort(even + np.random.default_rng(seed).uniform(0, jitter, len(even)) / rate)


def _lines(t, n):
    return np.stack([i + (t - 100) * 0.1 for i in range(n)], axis=1)


class Arms:
    name = "arms"
    summary = "an arm, for a test"

    def __init__(self, *, command: str = "yes", seconds: float = 4.0) -> None:
        self._command, self._seconds = command, float(seconds)

    def recognises(self, path):
        return path.suffix == ".arms"

    def describe(self, path):
        names = self._streams()
        return Source({n: s.values.dtype.name for n, s in names.items()}, n_episodes=2,
                      attrs={"task": "Lift: the \\"cube\\"."}, notes=("a note",))

    def recordings(self, path, *, only=None, start=0):
        for i in range(start, 2):
            streams = self._streams()
            if i == 1:
                del streams["/rare"]
            if only is not None:
                streams = {n: s for n, s in streams.items() if n in only}
            yield Recording(f"part_{i}", streams, metadata={"source": f"part_{i}"})

    def _streams(self):
        state, cam, wrist = _times(100, self._seconds), _times(29.97, self._seconds, 1), _times(15, self._seconds, 2)
        pictures = np.zeros((len(cam), 16, 24, 3), np.uint8)
        pictures[...] = np.arange(len(cam))[:, None, None, None]
        names = ("shoulder", "elbow", "gripper")
        gap = np.concatenate([state[:50], state[50:] + 1.0])
        streams = {
            "/joints.position": Stream(_lines(state, 3), state, names=names, logged_s=state + 0.02),
            "/joints.velocity": Stream(_lines(state, 3), state),
            "/imu.values": Stream(_lines(gap, 4), gap),
            "/cam/image_raw": Stream(pictures, cam, kind="picture", about="bgr8"),
            "/wrist/image_raw": Stream(pictures[: len(wrist)], wrist, kind="picture"),
            "/depth": Stream(np.zeros((len(wrist), 16, 24), np.uint16), wrist, kind="picture"),
            "/episode/active": Stream(np.array([True, False]), np.array([100.0, 102.0]), kind="event"),
            "/said": Stream(np.array(["on", "no"], object), np.array([100.0, 102.0]), kind="event"),
            "/rare": Stream(_lines(state, 2), state),
        }
        if self._command == "yes":
            t = _times(25, self._seconds, 3)
            streams["/target: [odd] name".replace("[", "(").replace("]", ")")] = Stream(
                _lines(t, 3), t, kind="command", names=names)
        return streams
"""  # noqa: E501


def install(folder: Path) -> Path:
    """Make the package in ``folder``; the source to inspect is what is returned."""
    (folder / "third_party_arms.py").write_text(MODULE)
    (folder / "third_party_lacks.py").write_text("import a_library_that_is_not_there\n")
    info = folder / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third_party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dp_hub.converters]\n"
        "arms = third_party_arms:Arms\n"
        "lacks = third_party_lacks:Lacks [special]\n"
    )
    source = folder / "lab.arms"
    source.write_text("recorded")
    return source
