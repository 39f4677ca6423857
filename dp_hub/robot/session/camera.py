"""The process of a camera: its frames into a ring of shared memory, as they come.

A camera that gives nothing is no error here: its stream grows old, and who observes it holds. A
frame whose time cannot be, since the device's own clock stepped, has the time at which it came. A
driver that fails or hangs ends the session, which stops all arms.
"""

import logging
from dataclasses import dataclass

from dp_hub.errors import RobotError
from dp_hub.robot.clock import MonotonicClock
from dp_hub.robot.devices.protocols import Camera
from dp_hub.robot.devices.registry import DeviceCall
from dp_hub.robot.fields import Field
from dp_hub.robot.shared.board import Board, BoardSpec
from dp_hub.robot.shared.ring import Ring, RingSpec
from dp_hub.robot.worker import Context
from dp_hub.robot.worlds.ports import Ports

log = logging.getLogger(__name__)

WAIT_S = 0.1
PICTURE = "picture"
_COUNTED = ("frames", "restamped", "waits")


def picture_field(shape: tuple[int, int, int]) -> Field:
    """What the ring of a camera holds: uint8 (H, W, 3), RGB."""
    return Field(PICTURE, shape, "uint8")


@dataclass(frozen=True)
class CameraJob:
    """What the process is told.

    Args:
        name: of the camera.
        make: its driver.
        ring: where its frames go.
        board: has the cells of `board_cells`.
        ports: of the world it belongs to, if any.
    """

    name: str
    make: DeviceCall
    ring: RingSpec
    board: BoardSpec
    ports: Ports | None = None


def board_cells(name: str) -> tuple[str, ...]:
    """Counters of a camera: frames, those whose time was impossible, waits in vain."""
    return tuple(f"{name}.{what}" for what in _COUNTED)


def counts(board: Board, name: str) -> dict[str, int]:
    """What these cells of a camera say."""
    return {what: int(board[f"{name}.{what}"]) for what in _COUNTED}


def run(context: Context, job: CameraJob) -> None:
    """Open the camera and store its frames until asked to stop. A worker's main."""
    ring, board = Ring.attach(job.ring), Board.attach(job.board)
    camera: Camera = job.make.make(job.ports)
    clock = MonotonicClock()
    try:
        camera.open()
        _check_shape(camera, job)
        context.ready()
        newest_s = float("-inf")
        while not context.stopping:
            context.beat(clock.now_s())
            frame = camera.grab(WAIT_S)
            if frame is None:
                board[f"{job.name}.waits"] += 1
                continue
            time_s, now_s = frame.time_s, clock.now_s()
            if not newest_s < time_s <= now_s:
                # A device whose clock stepped. When the frame came is known in any case.
                board[f"{job.name}.restamped"] += 1
                log.debug("camera %s: a frame of %.3f s came at %.3f s", job.name, time_s, now_s)
                time_s = now_s
            ring.put(time_s, {PICTURE: frame.picture})
            newest_s = time_s
            board[f"{job.name}.frames"] += 1
    finally:
        camera.close()
        ring.close()
        board.close()


def _check_shape(camera: Camera, job: CameraJob) -> None:
    planned = job.ring.fields[0].shape
    if tuple(camera.shape) != tuple(planned):
        raise RobotError(
            f"camera {job.name} gives pictures of {list(camera.shape)}, not {list(planned)}",
            hint="set its options to a size that it has",
        )
