"""What features and tasks a mended dataset has: meta/info.json, meta/tasks.parquet, the card."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from dp_hub.dataset.card import plain_card
from dp_hub.dataset.checks.bounds import Bounds
from dp_hub.dataset.checks.frames import Frames
from dp_hub.dataset.checks.pictures import DECODE_ERRORS
from dp_hub.dataset.checks.tasks import read_tasks
from dp_hub.dataset.checks.view import (
    View,
    unnamed_index_columns,
)
from dp_hub.dataset.features import INDEX_DTYPES
from dp_hub.dataset.shards import (
    CHUNKS_SIZE,
    DATA_FILE_MB,
    DATA_PATH,
    VIDEO_FILE_MB,
    VIDEO_PATH,
)
from dp_hub.dataset.tables import tasks_table
from dp_hub.errors import HubError
from dp_hub.hub.cards import FRONT_MATTER, front_matter


@dataclass(frozen=True)
class FeaturePlan:
    """``features`` as they will be.

    Attributes:
        entries: for meta/info.json.
        changed: whether they mean another content than before, so that hashes no longer fit.
    """

    entries: dict[str, Any]
    changed: bool
    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TaskPlan:
    """The tasks as they will be.

    Attributes:
        texts: by new number.
        numbers: new number by old one.
    """

    texts: list[str]
    numbers: dict[int, int]
    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def plan_features(view: View) -> FeaturePlan:
    """Declare what is there, take out what is not, name the dimensions of cameras."""
    entries = {name: dict(entry) for name, entry in view.info.values["features"].items()
               if isinstance(entry, dict)}  # fmt: skip
    done: list[str] = []
    left: list[str] = []
    changed = False
    schemas = [part.schema for part in view.data if part.schema is not None]
    for name in unnamed_index_columns(view):
        entries[name] = {"dtype": INDEX_DTYPES[name], "shape": [1], "names": None}
        done.append(f"{name} declared in meta/info.json")
    for name, feature in view.features.items():
        if feature.dtype == "video" or name in INDEX_DTYPES:
            continue
        if not any(name in schema.names for schema in schemas):
            del entries[name]
            changed = True
            done.append(f"{name} taken out of meta/info.json: no data file has it")
    known = set(schemas[0].names).intersection(*(schema.names for schema in schemas))
    for name in sorted(known - set(view.info.values["features"]) - set(INDEX_DTYPES)):
        entry = _entry_of(view, name, schemas[0].field(name).type)
        if entry is None:
            left.append(f"the column {name}: its shape cannot be told")
            continue
        entries[name] = entry
        changed = True
        done.append(f"{name} declared in meta/info.json as {entry['dtype']} {entry['shape']}")
    for feature in [*view.pictures, *view.videos]:
        named = isinstance(feature.names, list) and len(feature.names) == 3
        if feature.name in entries and not named:
            entries[feature.name]["names"] = _camera_names(feature.shape)
            done.append(f"dimensions of {feature.name} named in meta/info.json")
    return FeaturePlan(entries, changed, done, left)


def _camera_names(shape: tuple[int, ...]) -> list[str]:
    last = shape[2] in (1, 3) or shape[0] not in (1, 3)
    return ["height", "width", "channels"] if last else ["channels", "height", "width"]


def _entry_of(view: View, name: str, kind: Any) -> dict[str, Any] | None:
    """An entry of ``features`` for a column that has none."""
    if pa.types.is_struct(kind):
        return _picture_entry(view, name)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return {"dtype": "string", "shape": [1], "names": None}
    shape = []
    while pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    try:
        dtype = np.dtype(kind.to_pandas_dtype())
    except (NotImplementedError, TypeError):
        return None
    if dtype.kind not in "biuf":
        return None
    return {"dtype": dtype.name, "shape": shape or [1], "names": None}


def _picture_entry(view: View, name: str) -> dict[str, Any] | None:
    with pq.ParquetFile(view.data[0].path) as file:
        batch = next(file.iter_batches(1, columns=[name]))
    entry = batch.column(name)[0].as_py()
    data = entry.get("bytes") if isinstance(entry, dict) else None
    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            shape = [image.height, image.width, len(image.getbands())]
    except DECODE_ERRORS:
        return None
    return {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}


def plan_tasks(view: View, bounds: Bounds) -> TaskPlan:
    """Numbers 0, 1, 2 ... for the tasks; from meta/episodes if the table is lost."""
    table = read_tasks(view.root)
    if table.texts is None:
        return _tasks_from_rows(view, bounds)
    old = sorted(table.texts)
    mapping = {number: i for i, number in enumerate(old)}
    listed = [table.texts[number] for number in old]
    done = []
    if table.findings:
        done.append(f"meta/tasks.parquet written again with its pandas index ({len(old)} tasks)")
    if any(a != b for a, b in mapping.items()):
        done.append("tasks renumbered")
    return TaskPlan(listed, mapping, done)


def _tasks_from_rows(view: View, bounds: Bounds) -> TaskPlan:
    frames = Frames(view, bounds)
    features = [f for f in view.numeric if f.name == "task_index"]
    by_number: dict[int, set[str]] = {}
    if features and view.episodes.tasks is not None:
        for run in frames.runs(features):
            row = int(bounds.row[run.at])
            entry = view.episodes.tasks[row] if row >= 0 else None
            used = np.unique(run.columns["task_index"]).tolist()
            if len(used) == 1 and isinstance(entry, list) and len(entry) == 1:
                by_number.setdefault(used[0], set()).add(str(entry[0]))
    whole = by_number and all(len(found) == 1 for found in by_number.values())
    if not whole:
        return TaskPlan([""], {0: 0}, left=["meta/tasks.parquet: meta/episodes doesn't tell "
                                            "the texts; it has one empty task now"])  # fmt: skip
    old = sorted(by_number)
    mapping = {number: i for i, number in enumerate(old)}
    listed = [next(iter(by_number[number])) for number in old]
    done = [f"meta/tasks.parquet made from meta/episodes ({len(old)} tasks)"]
    return TaskPlan(listed, mapping, done)


def write_tasks(folder: Path, plan: TaskPlan) -> None:
    """meta/tasks.parquet."""
    (folder / "meta").mkdir(exist_ok=True)
    pq.write_table(tasks_table(plan.texts), folder / "meta" / "tasks.parquet")


def write_info(
    view: View, bounds: Bounds, folder: Path, plan: FeaturePlan, *, n_tasks: int
) -> None:
    """meta/info.json: every key as it was, but counts, templates and features."""
    n = len(bounds.starts)
    sizes = {"chunks_size": CHUNKS_SIZE, "data_files_size_in_mb": DATA_FILE_MB,
             "video_files_size_in_mb": VIDEO_FILE_MB}  # fmt: skip
    info = {
        **sizes,
        **view.info.values,
        "codebase_version": "v3.0",
        "total_episodes": n,
        "total_frames": int(bounds.lengths.sum()),
        "total_tasks": n_tasks,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if view.videos else view.info.values.get("video_path"),
        "features": plan.entries,
    }
    if view.info.values.get("total_episodes") != n or "splits" not in info:
        info["splits"] = {"train": f"0:{n}"}
    if not view.videos and info["video_path"] not in (None, VIDEO_PATH):
        info["video_path"] = None
    write_json(folder / "meta" / "info.json", info)


def write_json(path: Path, values: Any) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_card(view: View, folder: Path) -> list[str]:
    """README.md with the front matter that the Hub's viewer needs; the text stays."""
    path = view.root / "README.md"
    try:
        text = path.read_text(encoding="utf-8")
        matter = front_matter(text)
    except OSError:
        (folder / "README.md").write_text(plain_card(folder), encoding="utf-8")
        return ["README.md written"]
    except (HubError, UnicodeDecodeError):
        return []  # CARD-003 remains
    tags = matter.get("tags")
    tags = tags if isinstance(tags, list) else [tags] if tags else []
    add: dict[str, Any] = {}
    if not matter.get("configs"):
        add["configs"] = [{"config_name": "default", "data_files": "data/*/*.parquet"}]
    if "LeRobot" not in tags:
        add["tags"] = [*tags, "LeRobot"]
    if not add:
        return []
    block = yaml.safe_dump({**matter, **add}, sort_keys=False, allow_unicode=True)
    match = FRONT_MATTER.match(text)
    body = text[match.end() :] if match else f"\n{text}"
    (folder / "README.md").write_text(f"---\n{block}---\n{body}", encoding="utf-8")
    return [f"{' and '.join(add)} added to the front matter of README.md"]
