"""Webcams and other cameras that OpenCV opens. Tried with video files; not on a camera.

OpenCV waits for a picture as long as it likes (10 s on Linux), so a thread waits in its place.

A picture's time is the moment OpenCV handed it over. Exposure, reading out, and the way through USB
lie before it, often 30 to 100 ms: that is the stream's latency, which `dp-hub latency` measures;
nothing is taken off here. The queue of pictures inside OpenCV is asked to hold one, so that none is
older than that.
"""

import threading
import time
from typing import Any

import numpy as np

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices.libraries import library
from dp_hub.robot.devices.protocols import Frame


class Webcam:
    """A camera by its number or by the path of its device.

    Args:
        device: 0 for the first camera, or a path such as ``/dev/v4l/by-id/...``, which stays the
            same when cameras are plugged in in another order.
        width: of pictures to ask for, px; None: as the camera likes. With ``height``.
        height: px.
        fps: to ask for.
        fourcc: how the camera packs pictures, such as ``MJPG``, without which many give 5 a second
            in their full size.
    """

    summary = "a webcam through OpenCV; not tried on hardware"

    def __init__(
        self,
        *,
        device: int | str = 0,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
        fourcc: str | None = None,
    ) -> None:
        if (width is None) != (height is None):
            raise ConfigError("a webcam's width and height are given together, or neither")
        if fourcc is not None and len(fourcc) != 4:
            raise ConfigError(f"fourcc of a webcam is {fourcc!r}: four letters, such as MJPG")
        self.shape = (0, 0, 3)
        self._device, self._size, self._fps, self._fourcc = device, (width, height), fps, fourcc
        self._capture: Any = None
        self._thread: threading.Thread | None = None
        self._came = threading.Condition()
        self._newest: Frame | None = None
        self._gone = self._closing = False

    def open(self) -> None:
        """Connect and wait for a first picture. Raises RobotError."""
        cv2 = library("cv2", extra="webcam")
        self._capture = cv2.VideoCapture(self._device)
        if not self._capture.isOpened():
            self._capture = None
            raise RobotError(
                f"the webcam {self._device!r} cannot be opened",
                hint="is it plugged in, and not in use by another program? see ls /dev/v4l/by-id",
            )
        self._ask(cv2)
        well, picture = self._capture.read()
        if not well:
            self.close()
            raise RobotError(f"the webcam {self._device!r} gives no pictures")
        self.shape = (picture.shape[0], picture.shape[1], 3)
        self._check_size()
        self._gone = self._closing = False
        self._thread = threading.Thread(target=self._run, name="webcam", daemon=True)
        self._thread.start()

    def grab(self, timeout_s: float) -> Frame | None:
        """The newest picture nobody has fetched yet, or the next one within ``timeout_s``.

        Raises:
            RobotError: the camera is gone.
        """
        with self._came:
            self._came.wait_for(lambda: self._newest is not None or self._gone, timeout_s)
            frame, self._newest = self._newest, None
            if frame is None and self._gone:
                raise RobotError(
                    f"the webcam {self._device!r} is gone: it gives no pictures any more",
                    hint="see its cable, and start again",
                )
            return frame

    def close(self) -> None:
        """Let go of the camera."""
        self._closing = True
        if self._thread is not None:
            self._thread.join(2.0)
        elif self._capture is not None:
            self._capture.release()
        self._capture = self._thread = self._newest = None

    def _ask(self, cv2: Any) -> None:
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if self._fourcc is not None:  # first: it decides which sizes there are
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*self._fourcc))
        width, height = self._size
        if width is not None:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        if self._fps is not None:
            self._capture.set(cv2.CAP_PROP_FPS, self._fps)

    def _check_size(self) -> None:
        (width, height), (is_height, is_width, _) = self._size, self.shape
        if width is not None and (width, height) != (is_width, is_height):
            self.close()
            raise RobotError(
                f"the webcam {self._device!r} gives pictures of {is_width}x{is_height}, "
                f"not {width}x{height}",
                hint="v4l2-ctl --list-formats-ext lists its sizes; some need another fourcc",
            )

    def _run(self) -> None:
        capture = self._capture
        while not self._closing:
            well = capture.grab()
            now_s = time.monotonic()
            well, picture = capture.retrieve() if well else (False, None)
            with self._came:
                if picture is not None:
                    self._newest = Frame(now_s, rgb(picture))
                self._gone = not well
                self._came.notify()
            if not well:
                break
        capture.release()


def rgb(picture: np.ndarray) -> np.ndarray:
    """OpenCV's uint8 (H, W, 3), blue first, as uint8 (H, W, 3), red first."""
    return np.ascontiguousarray(picture[:, :, ::-1])
