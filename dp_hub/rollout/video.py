"""A video of a policy at work: some episodes side by side, with what it plans drawn in."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from dp_hub.envs.pusht.drawing import PushTDrawing
from dp_hub.envs.pusht.physics import CONTROL_HZ, TABLE_PX
from dp_hub.rollout.episodes import EpisodeResult
from dp_hub.rollout.evaluation import Evaluation
from dp_hub.rollout.files import replacing
from dp_hub.rollout.scenes import INK, PAPER, draw_plan, draw_target, font, label, replay

_TILE_PX, _LABEL_PX, _GAP_PX = 256, 20, 4
_HOLD_FRAMES = 15  # at the end, so that the last state can be seen


def episode_frames(
    result: EpisodeResult, drawing: PushTDrawing, *, first_executed: int, n_executed: int
) -> Iterator[Image.Image]:
    """Every step of an episode, RGB (256, 276): the table, the current plan, the score so far.

    A ring marks where the agent is told to go: with ensembling, not where the plan begins.
    """
    best = 0.0
    plans = {plan.step: plan for plan in result.plans}
    plan = None
    for step, table in enumerate(replay(result)):
        plan = plans.get(step, plan)
        best = max(best, min(table.coverage() / 0.95, 1.0))
        image = Image.fromarray(drawing.frame(table, TABLE_PX))
        over = step == result.steps
        if plan is not None and not over:
            pen, done = ImageDraw.Draw(image), step - plan.step
            draw_plan(pen, plan.chunk[first_executed + done :], n_executed - done)
            draw_target(pen, result.actions[step])
        tile = Image.new("RGB", (_TILE_PX, _TILE_PX + _LABEL_PX), PAPER)
        tile.paste(image.reduce(TABLE_PX // _TILE_PX), (0, 0))
        text, colour = label(result) if over else (f"step {step} · reward {best:.2f}", INK)
        ImageDraw.Draw(tile).text((6, _TILE_PX + 2), text, fill=colour, font=font(13))
        yield tile


def write_video(
    evaluation: Evaluation,
    path: str | Path,
    *,
    tiles: int = 8,
    columns: int = 4,
) -> Path:
    """Save the first episodes side by side as H.264, in real time (10 frames a second).

    Args:
        tiles: episodes shown, in the order of their seeds.
        columns: tiles in a row.
    """
    shown = evaluation.episodes[:tiles]
    drawing, n_executed = PushTDrawing(), evaluation.config["n_action_steps"]
    episodes = [
        episode_frames(
            result, drawing, first_executed=evaluation.first_executed, n_executed=n_executed
        )
        for result in shown
    ]
    with replacing(path) as draft:
        _encode(_grid(episodes, min(columns, len(shown))), draft)
    return Path(path)


def _grid(episodes: Sequence[Iterator[Image.Image]], columns: int) -> Iterator[np.ndarray]:
    """Frames uint8 (H, W, 3) until the longest episode has ended; ended ones stand still."""
    step_x, step_y = _TILE_PX + _GAP_PX, _TILE_PX + _LABEL_PX + _GAP_PX
    rows = -(-len(episodes) // columns)
    canvas = Image.new("RGB", (columns * step_x, rows * step_y), PAPER)
    running = dict(enumerate(episodes))
    while running:
        for k, frames in list(running.items()):
            tile = next(frames, None)
            if tile is None:
                del running[k]
            else:
                canvas.paste(tile, (k % columns * step_x, k // columns * step_y))
        if running:
            yield np.asarray(canvas)
    for _ in range(_HOLD_FRAMES):
        yield np.asarray(canvas)


def _encode(frames: Iterator[np.ndarray], path: Path) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(CONTROL_HZ))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"  # what browsers play
                stream.options = {"crf": "20", "preset": "medium"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())
