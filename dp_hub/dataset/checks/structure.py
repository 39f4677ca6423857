"""meta/info.json, the features it declares, and the files that belong to the dataset."""

import re
from collections.abc import Iterator

from dp_hub.dataset.checks.bounds import Bounds, missing_files
from dp_hub.dataset.checks.finding import Finding, found, listed, some
from dp_hub.dataset.checks.thresholds import ROW_GROUP_BYTES
from dp_hub.dataset.checks.view import (
    View,
    column_fault,
    file_number,
    is_count,
    template_path,
    unnamed_index_columns,
)
from dp_hub.dataset.features import INDEX_DTYPES
from dp_hub.dataset.layout import DATA_PATH, VIDEO_PATH


def check_info(view: View) -> Iterator[Finding]:
    """What meta/info.json says by itself."""
    if view.info.error:
        yield found("STRUCT-001", f"meta/info.json cannot be used: {view.info.error}")
        return
    version = view.info.values.get("codebase_version")
    text = str(version).removeprefix("v")
    if not (text.startswith("3.") and isinstance(version, str)):
        yield found("STRUCT-002", f"codebase_version is {version!r}; v3.0 is checked here")
        return
    if version != "v3.0":
        yield found("STRUCT-003", f"codebase_version is spelled {version!r}, not 'v3.0'")
    if view.fps is None:
        yield found("STRUCT-004", f"fps is {view.info.values.get('fps')!r}, not a rate")
    for name, fault in view.feature_errors.items():
        yield found("STRUCT-005", f"the feature {name} {fault}")
    if missing := unnamed_index_columns(view):
        yield found("STRUCT-006", f"features don't declare {', '.join(missing)}")
    for feature in [*view.pictures, *view.videos]:
        if not (isinstance(feature.names, list) and len(feature.names) == 3):
            yield found("STRUCT-019", f"{feature.name} has the names {feature.names!r}")
    yield from _templates(view)
    if view.provenance.error and not view.provenance.missing:
        yield found("STRUCT-020", f"meta/dp_hub.json cannot be used: {view.provenance.error}")
    if view.provenance.values.get("state") == "open":
        yield found("STRUCT-018", "the dataset is still open: its recording was not finished")


def _templates(view: View) -> Iterator[Finding]:
    for kind, default in (("data", DATA_PATH), ("video", VIDEO_PATH)):
        template = view.info.values.get(f"{kind}_path")
        if template is None or template == default:
            continue
        if template_path(view, kind, 0, 0, "x") is None:
            yield found("STRUCT-009", f"{kind}_path is {template!r}")
        elif kind == "data" or view.videos:
            yield found("STRUCT-008", f"{kind}_path is {template!r}, the default is {default!r}")


def check_counts(view: View, bounds: Bounds, n_tasks: int | None) -> Iterator[Finding]:
    """The totals of meta/info.json against the tables."""
    if view.info.error:
        return
    whole = not missing_files(view) and all(p.schema is not None for p in view.data)
    beyond = view.episodes.n + view.episodes.n_beyond
    counted = {
        "total_episodes": beyond if view.episodes.files and not view.episodes.errors else None,
        "total_frames": view.n_frames if whole and view.data else None,
        "total_tasks": n_tasks,
    }
    wrong = []
    for name, truth in counted.items():
        said = view.info.values.get(name)
        if truth is None or said == truth:
            continue
        # Rows beyond total_episodes are what an interrupted recording leaves, if data/ agrees.
        left_over = name == "total_episodes" and is_count(said) and len(bounds.starts) == said
        if not left_over:
            wrong.append(f"{name} is {said!r}, the tables hold {truth}")
    if wrong:
        yield found("STRUCT-007", "; ".join(wrong))
    elif view.episodes.n_beyond:
        n = view.episodes.n_beyond
        yield found("INDEX-010", f"meta/episodes has {n} rows beyond total_episodes")


def check_files(view: View) -> Iterator[Finding]:
    """Data files: there, readable, numbered without gaps, and referred to."""
    if missing := missing_files(view):
        lost = _episodes_in(view, missing)
        yield found("STRUCT-013", f"{len(missing)} data files are missing: {some(missing)}", lost)
    elif not view.data:
        yield found("STRUCT-013", "data/ holds no Parquet file")
    for part in view.data:
        if part.error:
            yield found("STRUCT-014", f"{part.name} cannot be read: {part.error}",
                        _episodes_in(view, [part.name]))  # fmt: skip
        elif part.group_bytes > ROW_GROUP_BYTES:
            yield found("DATA-005", f"{part.name} has a row group of {part.group_bytes:,} bytes")
    if gaps := _gaps(list(view.episodes.files)):
        yield found("STRUCT-015", f"meta/episodes lacks {some(gaps)}")
    groups = [[p.name for p in view.data]]
    for feature in view.videos:
        folder = view.root / "videos" / feature.name
        groups.append([p.relative_to(view.root).as_posix() for p in sorted(folder.rglob("*.mp4"))])
    gaps = [name for group in groups if not missing for name in _gaps(group)]
    if gaps:
        yield found("STRUCT-016", f"the numbering of files skips {some(gaps)}")


def _episodes_in(view: View, names: list[str]) -> list[int]:
    chunks, files = view.episodes.ints("data/chunk_index"), view.episodes.ints("data/file_index")
    if chunks is None or files is None:
        return []
    wanted = {file_number(name) for name in names}
    pairs = zip(chunks.tolist(), files.tolist(), strict=True)
    return [i for i, pair in enumerate(pairs) if pair in wanted]


def _gaps(names: list[str]) -> list[str]:
    """Names that are missing before the last of numbered files."""
    numbers = [number for name in names if (number := file_number(name))]
    if not numbers:
        return []
    per_chunk: dict[int, list[int]] = {}
    for chunk, file in numbers:
        per_chunk.setdefault(chunk, []).append(file)
    gaps = [(c, f) for c, files in per_chunk.items() for f in range(max(files)) if f not in files]
    gaps += [(c, 0) for c in range(max(per_chunk)) if c not in per_chunk]
    folder = re.sub(r"chunk-\d+/file-\d+\..*", "", names[0])
    return [f"{folder}chunk-{c:03d}/file-{f:03d}" for c, f in sorted(gaps)]


def check_columns(view: View) -> Iterator[Finding]:
    """Every declared feature has a column, every column is declared, and they fit."""
    parts = [part for part in view.data if part.schema is not None]
    if not parts or view.info.error:
        return
    absent: dict[str, list[str]] = {}
    extra: dict[str, list[str]] = {}
    misfit: dict[str, str] = {}
    declared = {**view.features, **dict.fromkeys(view.feature_errors)}
    for part in parts:
        names = part.schema.names
        for name, feature in view.features.items():
            if feature.dtype == "video":
                continue
            if name not in names:
                absent.setdefault(name, []).append(part.name)
            elif fault := column_fault(part.schema.field(name).type, feature):
                misfit.setdefault(name, f"{name} in {part.name} {fault}")
        for name in set(names) - set(declared) - set(INDEX_DTYPES):
            extra.setdefault(name, []).append(part.name)
        for name in (n for n in names if n in declared and n in view.features):
            if view.features[name].dtype == "video":
                extra.setdefault(name, []).append(part.name)
        for name in set(INDEX_DTYPES) - set(names) - set(view.features):
            absent.setdefault(name, []).append(part.name)
    for name, where in absent.items():
        yield found("STRUCT-010", f"{name} has no column in {some(where)}")
    for name, where in sorted(extra.items()):
        yield found("STRUCT-011", f"the column {name} of {some(where)} is not declared")
    for text in misfit.values():
        yield found("STRUCT-012", text)


def check_index(view: View) -> Iterator[Finding]:
    """meta/episodes by itself: columns, order, bounds, empty entries."""
    from dp_hub.dataset.checks.bounds import end_to_end, episode_order

    rows = view.episodes
    for name, reason in rows.errors.items():
        yield found("INDEX-001", f"{name} cannot be read: {reason}")
    if not rows.files:
        yield found("INDEX-001", "meta/episodes holds no Parquet file")
    if not rows.n:
        if rows.files and not rows.errors:
            yield found("INDEX-001", "meta/episodes lists no episodes")
        return
    yield from _index_columns(view)
    numbers = rows.ints("episode_index")
    if numbers is not None:
        wrong = [i for i, number in enumerate(numbers.tolist()) if i != number]
        if wrong and "episode_index" not in _with_empty(view):
            i = wrong[0]
            yield found("INDEX-004", f"row {i} of meta/episodes is episode {numbers[i]}", wrong)
    order = episode_order(rows)
    faults = end_to_end(rows, order)
    starts, stops = rows.ints("dataset_from_index"), rows.ints("dataset_to_index")
    length = rows.ints("length")
    if faults is None or starts is None or stops is None:
        return
    if len(faults):
        i = int(faults[0])
        row = order[i]
        before = stops[order[i - 1]] if i else 0
        yield found(
            "INDEX-005",
            f"row {row} of meta/episodes is frames {starts[row]} to {stops[row]}, the one before "
            f"ends at {before}",
            order[faults],
        )
    elif length is not None:
        wrong = [i for i in range(rows.n) if length[i] != stops[i] - starts[i]]
        if wrong and "length" not in _with_empty(view):
            i = wrong[0]
            yield found(
                "INDEX-006",
                f"row {i} of meta/episodes has the length {length[i]}, its bounds say "
                f"{stops[i] - starts[i]}",
                wrong,
            )


def _index_columns(view: View) -> Iterator[Finding]:
    rows = view.episodes
    needed = ["episode_index", "dataset_from_index", "dataset_to_index", "data/chunk_index",
              "data/file_index"]  # fmt: skip
    places = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    needed += [f"videos/{feature.name}/{place}" for feature in view.videos for place in places]
    if absent := [name for name in needed if name not in rows.names]:
        yield found("INDEX-002", f"meta/episodes has no column {some(absent)}")
    if absent := [name for name in ("length", "tasks") if name not in rows.names]:
        yield found("INDEX-003", f"meta/episodes has no column {some(absent)}")
    for name, where in _with_empty(view).items():
        yield found(
            "INDEX-009",
            f"{name} in meta/episodes is empty or no number in {len(where)} rows: {listed(where)}",
            where,
        )


def _with_empty(view: View) -> dict[str, list[int]]:
    empty = {}
    for name, values in view.episodes.values.items():
        if where := [i for i, value in enumerate(values.tolist()) if value != value]:
            empty[name] = where
    return empty
