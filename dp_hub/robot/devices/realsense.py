"""The colour stream of Intel RealSense cameras, through pyrealsense2. Not tried on a camera.

Its stamps are of the moment the sensor was read out. They come on the host's wall clock ("global
time", where the camera keeps both clocks together) or on the camera's own; either is told in
monotonic seconds.
"""

import time
from contextlib import suppress
from typing import Any

import numpy as np

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices.device_clock import DeviceClock
from dp_hub.robot.devices.libraries import library
from dp_hub.robot.devices.protocols import Frame

SKIPPED = 5
"""Pictures passed over while a camera settles."""


class RealSense:
    """A RealSense camera's colour pictures.

    Args:
        serial: of the camera, in quotes as it is digits; None: the only one there is.
        width: of pictures, px.
        height: px.
        fps: pictures a second; 6, 15, 30 or 60 for most sizes.
        exposure_us: of each picture, us; None: automatic.
        gain: with ``exposure_us``; None: the camera's default.
        white_balance_k: 2800 to 6500; None: automatic.
    """

    summary = "colour pictures of an Intel RealSense; not tried on hardware"

    def __init__(
        self,
        *,
        serial: str | None = None,
        width: int = 640,
        height: int = 480,
        fps: int = 30,
        exposure_us: float | None = None,
        gain: float | None = None,
        white_balance_k: float | None = None,
    ) -> None:
        if gain is not None and exposure_us is None:
            raise ConfigError("gain of a RealSense is set only together with exposure_us")
        self.shape = (height, width, 3)
        self._serial, self._fps = serial, fps
        self._exposure_us, self._gain, self._white_balance_k = exposure_us, gain, white_balance_k
        self._name = f"the RealSense camera {serial}" if serial else "the RealSense camera"
        self._clock = DeviceClock(self._name)
        self._library: Any = None
        self._pipeline: Any = None

    def open(self) -> None:
        """Connect, set exposure and white balance, let it settle. Raises RobotError."""
        self._library = library("pyrealsense2", extra="realsense")
        rs = self._library
        serials = self._serials()
        if not serials or (self._serial is not None and self._serial not in serials):
            raise RobotError(
                f"{self._name} is not there; connected: {', '.join(serials) or 'none'}",
                hint="is it plugged into a USB 3 port? rs-enumerate-devices lists what is seen",
            )
        if self._serial is None and len(serials) > 1:
            raise RobotError(
                f"there are {len(serials)} RealSense cameras: {', '.join(serials)}",
                hint=f'say which: serial: "{serials[0]}"',
            )
        config, pipeline = rs.config(), rs.pipeline()
        config.enable_device(self._serial or serials[0])
        height, width, _ = self.shape
        config.enable_stream(rs.stream.color, width, height, rs.format.rgb8, self._fps)
        try:
            profile = pipeline.start(config)
            self._pipeline = pipeline
            self._set(profile.get_device().first_color_sensor())
            for _ in range(SKIPPED):
                self.grab(1.0)
        except RuntimeError as error:
            self.close()
            raise RobotError(
                f"{self._name} does not give {width}x{height} at {self._fps} Hz: {error}",
                hint="rs-enumerate-devices lists its sizes and rates",
            ) from error
        except RobotError:
            self.close()
            raise

    def grab(self, timeout_s: float) -> Frame | None:
        """The next picture, or None if none came within ``timeout_s``.

        Raises:
            RobotError: the camera is gone.
        """
        assert self._pipeline is not None, "open it first"
        try:
            came, frames = self._pipeline.try_wait_for_frames(max(1, round(timeout_s * 1000)))
            now_s, wall_s = time.monotonic(), time.time()
            colour = frames.get_color_frame() if came else None
            if colour:
                domain = colour.get_frame_timestamp_domain().name
                stamp_s = colour.get_timestamp() / 1000
                at_s = taken_s(self._clock, stamp_s, domain, now_s=now_s, wall_s=wall_s)
                return Frame(at_s, np.array(colour.get_data(), dtype=np.uint8))
            there = self._serials()
        except RuntimeError as error:
            raise RobotError(f"{self._name} is gone: {error}") from error
        if (self._serial is None and not there) or (self._serial and self._serial not in there):
            raise RobotError(f"{self._name} is gone", hint="see its cable, and start again")
        return None

    def close(self) -> None:
        """Stop the stream."""
        if self._pipeline is not None:
            with suppress(RuntimeError):  # it has gone already
                self._pipeline.stop()
        self._pipeline = None

    def _serials(self) -> list[str]:
        rs = self._library
        found = rs.context().query_devices()
        return [one.get_info(rs.camera_info.serial_number) for one in found]

    def _set(self, sensor: Any) -> None:
        option = self._library.option
        if self._exposure_us is None:
            sensor.set_option(option.enable_auto_exposure, 1)
        else:
            sensor.set_option(option.enable_auto_exposure, 0)
            # A colour sensor's exposure is counted in steps of 100 us.
            sensor.set_option(option.exposure, self._exposure_us / 100)
        if self._gain is not None:
            sensor.set_option(option.gain, self._gain)
        sensor.set_option(option.enable_auto_white_balance, self._white_balance_k is None)
        if self._white_balance_k is not None:
            sensor.set_option(option.white_balance, self._white_balance_k)


def taken_s(
    clock: DeviceClock, stamp_s: float, domain: str, *, now_s: float, wall_s: float
) -> float:
    """When a picture was taken, in monotonic seconds.

    Args:
        clock: follows the camera's own clock.
        stamp_s: the picture's stamp.
        domain: pyrealsense2's name of the clock it is on.
        now_s: monotonic seconds, when the picture came.
        wall_s: `time.time` at the same moment.
    """
    if domain in ("global_time", "system_time"):
        age_s = wall_s - stamp_s
        if 0 <= age_s < 1:  # else the wall clock was set in between
            return now_s - age_s
    return clock.monotonic_s(stamp_s, now_s)
