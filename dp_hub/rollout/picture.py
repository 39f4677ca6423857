"""One image that shows what a policy does: some of its episodes, side by side."""

from pathlib import Path

from PIL import Image, ImageDraw

from dp_hub.envs.pusht.drawing import PushTDrawing
from dp_hub.rollout.evaluation import Evaluation
from dp_hub.rollout.files import replacing
from dp_hub.rollout.scenes import INK, PAPER, QUIET, START, episode_picture, font, label

_TILE_PX, _GAP_PX, _LABEL_PX, _HEAD_PX = 256, 12, 40, 86
_LEAST_PX = 680  # the legend fits


def headline(evaluation: Evaluation) -> str:
    """Both scores with their intervals, in one line."""
    reward, success = evaluation.reward, evaluation.success
    return (
        f"mean max reward {reward.value:.3f} [{reward.low:.3f}, {reward.high:.3f}]    "
        f"success {success.value:.0%} [{success.low:.0%}, {success.high:.0%}]    "
        f"{len(evaluation.episodes)} episodes"
    )


def contact_sheet(
    evaluation: Evaluation, *, title: str, tiles: int = 12, columns: int = 4
) -> Image.Image:
    """The first episodes as tiles: the end of each, the start dashed, the agent's path.

    Args:
        title: what was evaluated.
        tiles: episodes shown, in the order of their seeds.
        columns: tiles in a row.
    """
    shown = evaluation.episodes[:tiles]
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    step_x, step_y = _TILE_PX + _GAP_PX, _TILE_PX + _LABEL_PX + _GAP_PX
    width = max(columns * step_x + _GAP_PX, _LEAST_PX)
    sheet = Image.new("RGB", (width, _HEAD_PX + rows * step_y), PAPER)
    pen, drawing = ImageDraw.Draw(sheet), PushTDrawing()
    _write_head(pen, title, evaluation)
    for k, result in enumerate(shown):
        x, y = _GAP_PX + k % columns * step_x, _HEAD_PX + k // columns * step_y
        sheet.paste(episode_picture(result, drawing, _TILE_PX), (x, y))
        text, colour = label(result)
        pen.rectangle((x - 1, y - 1, x + _TILE_PX, y + _TILE_PX), outline=colour, width=2)
        pen.text((x, y + _TILE_PX + 4), text, fill=colour, font=font(14))
        pen.text((x, y + _TILE_PX + 21), f"seed {result.seed}", fill=QUIET, font=font(12))
    return sheet


def _write_head(pen: ImageDraw.ImageDraw, title: str, evaluation: Evaluation) -> None:
    pen.text((_GAP_PX, 10), title, fill=INK, font=font(20))
    pen.text((_GAP_PX, 38), headline(evaluation), fill=INK, font=font(14))
    legend = (
        "green: the goal   ·   grey T: where it ended   ·   path of the agent: yellow to crimson"
    )
    pen.text((_GAP_PX, 60), legend, fill=QUIET, font=font(12))
    end = _GAP_PX + pen.textlength(legend, font=font(12))
    pen.text((end, 60), "   ·   brown: where T and agent began", fill=START, font=font(12))


def write_picture(evaluation: Evaluation, path: str | Path, *, title: str) -> Path:
    """Save the contact sheet as PNG."""
    with replacing(path) as draft:
        contact_sheet(evaluation, title=title).save(draft, format="PNG", optimize=True)
    return Path(path)
