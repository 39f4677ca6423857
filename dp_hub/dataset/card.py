"""The dataset's README.md: what ``load_dataset`` and the Hub's viewer need, and facts."""

from collections.abc import Sequence
from typing import Any

from dp_hub.dataset.features import Column

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(
    info: dict[str, Any],
    columns: Sequence[Column],
    tasks: Sequence[str],
    *,
    license: str | None = None,
) -> str:
    """The text of README.md.

    Args:
        info: the contents of meta/info.json.
        columns: the dataset's columns.
        tasks: the task texts.
        license: identifier, if known.
    """
    rows = "\n".join(
        f"| `{c.feature}` | {c.dtype} | {list(c.shape)} | `{c.key}` |" for c in columns
    )
    listed = "\n".join(f"- {task}" for task in tasks if task) or "- (not stated)"
    return _CARD.format(
        license=f"license: {license}\n" if license else "",
        size=_size(info["total_frames"]),
        episodes=info["total_episodes"],
        frames=info["total_frames"],
        fps=info["fps"],
        robot=info["robot_type"] or "not stated",
        rows=rows,
        tasks=listed,
    )


def _size(n_frames: int) -> str:
    return next((name for limit, name in _SIZES if n_frames < limit), "1M<n<10M")


# Without `configs`, readers would take the tables under meta/ for data too.
_CARD = """---
{license}task_categories:
- robotics
tags:
- LeRobot
- dp_hub
size_categories:
- {size}
configs:
- config_name: default
  data_files: data/*/*.parquet
---

# Robot demonstrations

{episodes} episodes, {frames} frames at {fps} Hz, robot: {robot}. LeRobot v3.0 layout.

Tasks:

{tasks}

| feature | type | shape | key in the source |
|---|---|---|---|
{rows}

```python
import dp_hub

dataset = dp_hub.open_dataset("path/or/user/name")
```
"""
