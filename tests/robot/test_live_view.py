"""The live view: what it draws, and that it harms nobody."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pygame
import pytest

from dp_hub.robot.fields import Field
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.view.drawing import Drawing, Shown, key_of
from dp_hub.robot.view.layout import Box, lay_out
from dp_hub.robot.view.live import LiveView


@contextmanager
def camera(shape: tuple[int, int, int] = (48, 64, 3)) -> Iterator[Ring]:
    ring = Ring.create([Field("picture", shape, "uint8")], rate_hz=30)
    try:
        yield ring
    finally:
        ring.close()
        ring.unlink()


def until(is_so: Callable[[], bool], most_s: float = 20.0) -> None:
    end_s = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < end_s, "it takes too long"
        time.sleep(0.01)


def gray(value: int, shape: tuple[int, ...] = (48, 64, 3)) -> np.ndarray:
    return np.full(shape, value, np.uint8)


def draw(shown: list[Shown], references: dict[str, np.ndarray], **options: bool) -> np.ndarray:
    layout = lay_out([(48, 64)] * len(shown), height_px=96)
    surface = pygame.Surface(layout.size)
    Drawing(surface, layout, references).draw(
        shown, ["recording 3.2 s", "c start | q quit"], **options
    )
    if folder := os.environ.get("DP_HUB_SHOW"):
        pygame.image.save(surface, str(Path(folder) / f"view{len(references)}.png"))
    return pygame.surfarray.array3d(surface).transpose(1, 0, 2)


def test_pictures_stand_side_by_side_in_one_height_and_wrap() -> None:
    layout = lay_out([(480, 640), (96, 96), (720, 1280)], height_px=360, most_width_px=1000)
    first, second, third = layout.pictures
    assert (first.width, first.height) == (480, 360)
    assert (second.width, second.height) == (360, 360)
    assert second.y == first.y and second.x > first.x + first.width
    assert third.y > first.y + first.height  # no room beside them
    assert third.x + third.width <= 1000 and third.width / third.height == pytest.approx(
        16 / 9, 0.01
    )
    for box in layout.pictures:
        assert box.x + box.width <= layout.size[0] and box.y + box.height <= layout.lines_y


def test_a_reference_is_blended_half_and_half_over_its_camera_alone() -> None:
    shown = [Shown("left", gray(200)), Shown("right", gray(200))]
    canvas = draw(shown, {"left": gray(100)})
    layout = lay_out([(48, 64)] * 2, height_px=96)
    left, right = (inside(canvas, box) for box in layout.pictures)
    assert np.abs(left.astype(int) - 150).max() <= 1
    assert (right == 200).all()
    hidden = draw(shown, {"left": gray(100)}, overlay=False)
    assert (inside(hidden, layout.pictures[0]) == 200).all()


def inside(canvas: np.ndarray, box: Box) -> np.ndarray:
    return canvas[box.y : box.y + box.height, box.x : box.x + box.width]


def test_a_camera_without_pictures_is_said_in_words() -> None:
    assert Shown("front", None).label == "front: no picture yet"
    assert Shown("front", gray(0), 2.34).label == "front: no picture for 2.3 s"
    assert Shown("front", gray(0), 0.1).label == "front"


def test_lines_of_text_are_drawn_below_the_pictures() -> None:
    canvas = draw([Shown("front", gray(200))], {})
    layout = lay_out([(48, 64)], height_px=96)
    assert canvas[layout.lines_y :].max() > 200


def test_keys_have_the_names_of_the_tables_and_closing_is_q() -> None:
    def pressed(key: int, unicode: str = "") -> str | None:
        return key_of(pygame.event.Event(pygame.KEYDOWN, key=key, unicode=unicode))

    assert pressed(pygame.K_SPACE, " ") == "space"
    assert pressed(pygame.K_BACKSPACE, "\b") == "backspace"
    assert pressed(pygame.K_ESCAPE, "\x1b") == "esc"
    assert pressed(pygame.K_c, "C") == "c"
    assert pressed(pygame.K_LSHIFT) is None
    assert key_of(pygame.event.Event(pygame.QUIT)) == "q"
    assert key_of(pygame.event.Event(pygame.KEYUP, key=pygame.K_c)) is None


def test_a_view_that_dies_is_told_once_and_everything_else_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with camera() as ring:
        ring.put(1.0, {"picture": gray(90)})
        view = LiveView({"front": ring.spec})
        try:
            view.start()
            view.show(["recording"])
            assert view.read() == [] and view.is_alive
            os.kill(view._worker.pid, signal.SIGKILL)
            until(lambda: not view.is_alive)
            assert view.read() == [] and view.read() == []
            for number in range(100):
                view.show([f"line {number}"])
            ring.put(2.0, {"picture": gray(91)})
            assert len([r for r in caplog.records if "live view is gone" in r.message]) == 1
        finally:
            view.close()


def test_a_view_that_hangs_takes_no_time() -> None:
    with camera() as ring:
        view = LiveView({"front": ring.spec})
        try:
            view.start()
            os.kill(view._worker.pid, signal.SIGSTOP)
            began_s = time.monotonic()
            for number in range(200):
                view._shown = (0.0, ())
                view.show([f"line {number}"])
                view.read()
            assert time.monotonic() - began_s < 5.0
            os.kill(view._worker.pid, signal.SIGCONT)
        finally:
            view.close()
