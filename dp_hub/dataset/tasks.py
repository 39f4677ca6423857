"""The text of each episode's task, for datasets whose meta/episodes does not have it.

LeRobot keeps it in meta/episodes too, but only needs meta/tasks.parquet and the ``task_index`` of
the frames, so some tools write no more than those.
"""

from pathlib import Path

import numpy as np

from dp_hub.dataset.columns import DataFile, batches, open_parquet
from dp_hub.errors import DataError

_TEXT_COLUMNS = ("task", "__index_level_0__")  # pandas names an index without a name like that


def tasks_of_frames(root: Path, files: list[DataFile], starts: np.ndarray) -> list[str]:
    """The task of each episode's first frame; "" if the dataset does not tell.

    Args:
        root: the dataset's folder.
        files: with its frames.
        starts: int (E,), the first frame of every episode.
    Raises:
        DataError: meta/tasks.parquet has no such columns, or lacks a task that frames have.
    """
    texts = task_texts(root)
    numbers = _task_numbers(files, starts) if texts else None
    if numbers is None:
        return [""] * len(starts)
    if missing := sorted(set(numbers) - set(texts)):
        raise DataError(
            f"{root}/meta/tasks.parquet has no task {missing[0]}, but there are frames of it",
            hint="copy or pull the dataset again, it is not complete",
        )
    return [texts[number] for number in numbers]


def task_texts(root: Path) -> dict[int, str]:
    """The texts in meta/tasks.parquet by their numbers; none without the file. Raises DataError."""
    path = root / "meta" / "tasks.parquet"
    if not path.exists():
        return {}
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        text = next((name for name in _TEXT_COLUMNS if name in names), None)
        if text is None or "task_index" not in names:
            raise DataError(f"{path} has the columns {names}, not `task` and `task_index`")
        pairs = [
            (row["task_index"], str(row[text]))
            for batch in batches(file, path, ["task_index", text])
            for row in batch.to_pylist()
        ]
    return dict(pairs)


def _task_numbers(files: list[DataFile], starts: np.ndarray) -> list[int] | None:
    found: list[int] = []
    for file in files:
        row = file.start
        with open_parquet(file.path) as parquet:
            if "task_index" not in parquet.schema_arrow.names:
                return None
            for batch in batches(parquet, file.path, ["task_index"]):
                here = starts[(starts >= row) & (starts < row + len(batch))] - row
                found += [batch.column(0)[int(i)].as_py() for i in here]
                row += len(batch)
    return found
