"""Healthy datasets for the tests of the checks, and ways to break them."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.checks import Report, check
from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.replay.episode import Episode

LENGTHS = (36, 31, 42, 33, 38, 35)
TASKS = ("push the block", "pull the block")
FPS = 10


def make_episode(number: int, length: int, *, size: int = 16) -> dict[str, np.ndarray]:
    """A smooth motion that the state follows two frames later, and a picture that shows it."""
    rng = np.random.default_rng(number)
    t = np.arange(length + 2) / FPS
    phase, speed = rng.uniform(0, 6, 2), rng.uniform(0.8, 1.6, 2)
    path = 100 * np.sin(np.outer(t, speed) + phase) + 3 * rng.normal(size=(length + 2, 2))
    state = np.concatenate([path[:length], np.cos(t[:length, None] * speed[0])], axis=1)
    slope = np.linspace(40, 200, size)
    scene = np.stack(
        [slope[:, None] + 0 * slope, 0 * slope[:, None] + slope, slope[::-1] + slope[:, None] / 4],
        axis=2,
    )
    pictures = np.clip(scene + rng.integers(0, 20), 0, 255)[None].repeat(length, axis=0)
    for i in range(length):
        part = size // 4
        row, column = ((path[i] + 130) / 260 * (size - part)).astype(int).clip(0, size - part)
        pictures[i, row : row + part, column : column + part] = (255 * (i % 2), 120, 60 + i)
    return {
        "action": path[2:].astype(np.float32),
        "state": state.astype(np.float32),
        "img": pictures.astype(np.uint8),
    }


def write_episodes(
    target: Path, episodes: list[dict[str, np.ndarray]], *, images: str = "webp", **options: Any
) -> Path:
    """A dataset that dp_hub wrote; with a licence in its card."""
    tasks = options.pop("tasks", TASKS)
    columns = plan_columns(episodes[0], images=images, **options)
    with DatasetWriter(target, columns, fps=FPS) as writer:
        for i, data in enumerate(episodes):
            writer.add_episode(Episode(data, task=tasks[i % len(tasks)], metadata={"seed": i}))
        writer.finish()
    card = target / "README.md"
    card.write_text(card.read_text().replace("---\n", "---\nlicense: mit\n", 1))
    return target


def as_others_write(root: Path) -> Path:
    """The same without dp_hub's own files, so that a mutation breaks no hash besides."""
    (root / "meta/dp_hub.json").unlink()
    (root / "meta/checksums.json").unlink(missing_ok=True)
    return root


def healthy_episodes(size: int = 16) -> list[dict[str, np.ndarray]]:
    """Episodes with nothing to find."""
    return [make_episode(i, n, size=size) for i, n in enumerate(LENGTHS)]


def split_data(root: Path, at: int = 3) -> Path:
    """Put the episodes from ``at`` on into a second data file."""
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    first = int(np.searchsorted(table["episode_index"].to_numpy(), at))
    for number, part in enumerate((table.slice(0, first), table.slice(first))):
        write_by_episode(root / f"data/chunk-000/file-{number:03d}.parquet", part)
    files = [int(i >= at) for i in range(len(LENGTHS))]
    edit_rows(root, lambda rows: with_column(rows, "data/file_index", files))
    return root


def write_by_episode(path: Path, table: pa.Table) -> None:
    """One row group per episode."""
    numbers = table["episode_index"].to_numpy()
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(table)]
    with pq.ParquetWriter(path, table.schema) as writer:
        for a, b in itertools.pairwise(edges):
            writer.write_table(table.slice(a, b - a))


def copy(source: Path, target: Path) -> Path:
    """A copy to break."""
    shutil.copytree(source, target)
    return target


def edit_json(root: Path, name: str, change: Callable[[dict], Any]) -> None:
    """Change a JSON file in place."""
    path = root / name
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a Parquet file."""
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def edit_rows(root: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change meta/episodes."""
    edit_table(root / "meta/episodes/chunk-000/file-000.parquet", change)


def edit_data(root: Path, change: Callable[[pa.Table], pa.Table], file: int = 0) -> None:
    """Change a data file."""
    edit_table(root / f"data/chunk-000/file-{file:03d}.parquet", change)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """``table`` with other values in a column, of the same type."""
    at = table.schema.get_field_index(name)
    array = pa.array(np.asarray(values).tolist(), table.schema.field(name).type)
    return table.set_column(at, table.schema.field(name), array)


def changed(table: pa.Table, name: str, change: Callable[[np.ndarray], Any]) -> pa.Table:
    """``table`` with a column of plain numbers changed in place by a function."""
    values = table[name].to_numpy().copy()
    result = change(values)
    return with_column(table, name, values if result is None else result)


def ids(report: Report, severity: str | None = None) -> set[str]:
    """The rules that were broken."""
    return {f.id for f in report.findings if severity in (None, f.severity)}


def examined(root: Path) -> Report:
    """`check`, for one line."""
    return check(root)
