"""A healthy dataset broken in one way after the other: each breach gives its own finding, no other
failure, and is gone after --fix where that is promised."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checks_helpers import (
    LENGTHS,
    as_others_write,
    changed,
    copy,
    edit_data,
    edit_json,
    edit_rows,
    healthy_episodes,
    ids,
    split_data,
    with_column,
    write_episodes,
)

from dp_hub.dataset.checks import RULES, check
from dp_hub.dataset.checks.fix import fix
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

INFO, STATS = "meta/info.json", "meta/stats.json"
DATA0 = "data/chunk-000/file-000.parquet"
DATA1 = "data/chunk-000/file-001.parquet"
ROWS = "meta/episodes/chunk-000/file-000.parquet"
ENDS = np.cumsum(LENGTHS)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("checks") / "healthy"
    return split_data(as_others_write(write_episodes(root, healthy_episodes())))


def info(change: Callable) -> Callable[[Path], None]:
    return lambda root: edit_json(root, INFO, change)


def statistics(change: Callable) -> Callable[[Path], None]:
    return lambda root: edit_json(root, STATS, change)


def rows(name: str, change: Callable) -> Callable[[Path], None]:
    return lambda root: edit_rows(root, lambda table: changed(table, name, change))


def data(name: str, change: Callable, file: int = 0) -> Callable[[Path], None]:
    return lambda root: edit_data(root, lambda table: changed(table, name, change), file)


def without_rows(*names: str) -> Callable[[Path], None]:
    return lambda root: edit_rows(root, lambda table: table.drop_columns(list(names)))


def put(values: np.ndarray, at: int | slice, value: float) -> None:
    values[at] = value


def plain_tasks(root: Path) -> None:
    path = root / "meta/tasks.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)


def swapped_tasks(root: Path) -> None:
    path = root / "meta/tasks.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take([1, 0]), path)


def undeclared_column(root: Path) -> None:
    for file in (0, 1):
        edit_data(root, lambda t: t.append_column("force", pa.array([0.5] * len(t))), file)


def absent_column(root: Path) -> None:
    def declare(values: dict) -> None:
        values["features"]["force"] = {"dtype": "float32", "shape": [1], "names": None}

    edit_json(root, INFO, declare)


def no_index_column(root: Path) -> None:
    for file in (0, 1):
        edit_data(root, lambda t: t.drop_columns(["frame_index"]), file)


def empty_entry(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        values = table["observation.state"].to_pylist()
        values[4] = None
        kind = table.schema.field("observation.state").type
        at = table.schema.get_field_index("observation.state")
        return table.set_column(at, "observation.state", pa.array(values, kind))

    edit_data(root, change)


def other_picture(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        values = table["observation.image"].to_pylist()
        values[5]["bytes"] = b"no picture"
        at = table.schema.get_field_index("observation.image")
        kind = table.schema.field("observation.image").type
        return table.set_column(at, "observation.image", pa.array(values, kind))

    edit_data(root, change)


def picture_elsewhere(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        values = table["observation.image"].to_pylist()
        values[7] = {"bytes": None, "path": "/mnt/robot/frame_000007.png"}
        at = table.schema.get_field_index("observation.image")
        kind = table.schema.field("observation.image").type
        return table.set_column(at, "observation.image", pa.array(values, kind))

    edit_data(root, change)


def gap_in_data(root: Path) -> None:
    os.rename(root / DATA1, root / "data/chunk-000/file-002.parquet")
    edit_rows(root, lambda t: changed(t, "data/file_index", lambda v: v * 2))


def gap_in_rows(root: Path) -> None:
    table = pq.read_table(root / ROWS)
    pq.write_table(table.slice(0, 3), root / ROWS)
    pq.write_table(table.slice(3), root / "meta/episodes/chunk-000/file-002.parquet")


def moved_files(root: Path) -> None:
    for name in (DATA0, DATA1):
        os.rename(root / name, root / "data" / Path(name).name.replace("file", "part"))
    (root / "data/chunk-000").rmdir()
    template = "data/part-{file_index:03d}.parquet"
    edit_json(root, INFO, lambda v: v.update(data_path=template))


def shuffled_rows(root: Path) -> None:
    edit_rows(root, lambda table: table.take([0, 2, 1, 3, 5, 4]))


def all_but_last_row(root: Path) -> None:
    edit_rows(root, lambda table: table.slice(0, len(table) - 1))


def wrong_bounds(root: Path) -> None:
    """One frame too many for episode 1, one too few for episode 2: they still lie end to end."""

    def change(table: pa.Table) -> pa.Table:
        table = changed(table, "dataset_to_index", lambda v: put(v, 1, v[1] + 1))
        table = changed(table, "dataset_from_index", lambda v: put(v, 2, v[2] + 1))
        return changed(table, "length", lambda v: np.add(v, [0, 1, -1, 0, 0, 0]))

    edit_rows(root, change)


def absent(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def garbage(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(b"PAR1 is not enough")  # and cut short


def shape(values: dict) -> None:
    values["features"]["observation.state"]["shape"] = [4]


def null_names(values: dict) -> None:
    values["features"]["observation.image"]["names"] = None


def drift(values: np.ndarray) -> np.ndarray:
    return values * np.float32(1.02)


def dropped(values: np.ndarray) -> None:
    values[20 : LENGTHS[0]] += 0.2  # two frames are missing before frame 20 of episode 0


def bad_bool(values: dict) -> None:
    values["action"]["mean"] = ["many", 1]


def swap_extremes(values: dict) -> None:
    entry = values["action"]
    entry["min"], entry["max"] = entry["max"], entry["min"]


def other_episode_stats(table: pa.Table) -> pa.Table:
    values = table["stats/action/mean"].to_pylist()
    values[2] = [values[2][0] + 5, values[2][1]]
    return with_column(table, "stats/action/mean", values)


def add(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return write


def stray_shard(root: Path) -> None:
    (root / "data/chunk-000/file-002.parquet").write_bytes((root / DATA0).read_bytes())


def card(old: str, new: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        path = root / "README.md"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return write


def linked(root: Path) -> None:
    other = root.parent / f"{root.name}-elsewhere.parquet"
    os.rename(root / DATA0, other)
    (root / DATA0).symlink_to(other)


def empty_tasks(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("task")
        texts = pa.array(["TODO", "pull the block"])
        return table.set_column(at, "task", texts)

    path = root / "meta/tasks.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    tasks = [["TODO"], ["pull the block"]] * 3
    edit_rows(root, lambda table: with_column(table, "tasks", tasks))


def near_tasks(root: Path) -> None:
    path = root / "meta/tasks.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("task")
    texts = pa.array(["Push the block.", "push  the block"])
    pq.write_table(table.set_column(at, "task", texts), path)
    tasks = [["Push the block."], ["push  the block"]] * 3
    edit_rows(root, lambda rows: with_column(rows, "tasks", tasks))


HALF = slice(0, LENGTHS[0])
MUTATIONS = {
    # lerobot.md 1.9: the ablations that were tried on LeRobot
    "tasks without pandas index": ("TASK-003", plain_tasks),
    "episode rows not in order": ("INDEX-004", shuffled_rows),
    "no dataset_from_index": ("INDEX-002", without_rows("dataset_from_index")),
    "no dataset_to_index": ("INDEX-002", without_rows("dataset_to_index")),
    "no data locations": ("INDEX-002", without_rows("data/chunk_index", "data/file_index")),
    "no tasks in the rows": ("INDEX-003", without_rows("tasks")),
    "no length in the rows": ("INDEX-003", without_rows("length")),
    "no stats.json": ("STATS-001", absent(STATS)),
    "no tasks.parquet": ("TASK-001", absent("meta/tasks.parquet")),
    "feature without a column": ("STRUCT-010", absent_column),
    "column without a feature": ("STRUCT-011", undeclared_column),
    "wrong shape": ("STRUCT-012", info(shape)),
    # info.json
    "no info.json": ("STRUCT-001", absent(INFO)),
    "info.json cut short": ("STRUCT-001", garbage(INFO)),
    "version 2.1": ("STRUCT-002", info(lambda v: v.update(codebase_version="v2.1"))),
    "version without v": ("STRUCT-003", info(lambda v: v.update(codebase_version="3.0"))),
    "fps 0": ("STRUCT-004", info(lambda v: v.update(fps=0))),
    "feature without a dtype": ("STRUCT-005", info(lambda v: v["features"]["action"].pop("dtype"))),
    "feature with a slash": ("STRUCT-005", info(lambda v: v["features"].update({"a/b": {}}))),
    "index not declared": ("STRUCT-006", info(lambda v: v["features"].pop("index"))),
    "episodes miscounted": ("STRUCT-007", info(lambda v: v.update(total_episodes=7))),
    "frames miscounted": ("STRUCT-007", info(lambda v: v.update(total_frames=9))),
    "tasks miscounted": ("STRUCT-007", info(lambda v: v.pop("total_tasks"))),
    "other template": ("STRUCT-008", moved_files),
    "template leads out": ("STRUCT-009", info(lambda v: v.update(data_path="../{file_index}.x"))),
    "wrong dtype": (
        "STRUCT-012",
        info(lambda v: v["features"]["action"].update(dtype="float64")),
    ),
    "camera without names": ("STRUCT-019", info(null_names)),
    # files
    "data file missing": ("STRUCT-013", absent(DATA1)),
    "data file cut short": ("STRUCT-014", garbage(DATA1)),
    "gap in meta/episodes": ("STRUCT-015", gap_in_rows),
    "gap in data/": ("STRUCT-016", gap_in_data),
    "stray shard": ("STRUCT-017", stray_shard),
    "recording scratch left": ("STRUCT-017", add("images/cam/frame_000000.png")),
    "dp_hub.json broken": ("STRUCT-020", add("meta/dp_hub.json", b"{")),
    # meta/episodes
    "no meta/episodes": ("INDEX-001", absent(ROWS)),
    "meta/episodes cut short": ("INDEX-001", garbage(ROWS)),
    "episode numbers skip": ("INDEX-004", rows("episode_index", lambda v: v + (v > 2))),
    "bounds overlap": ("INDEX-005", rows("dataset_from_index", lambda v: put(v, 2, v[2] - 1))),
    "length contradicts bounds": ("INDEX-006", rows("length", lambda v: put(v, 3, 5))),
    "bounds are not the rows'": ("INDEX-007", wrong_bounds),
    "wrong data file": ("INDEX-008", rows("data/file_index", lambda v: put(v, 3, 0))),
    "empty location": (
        "INDEX-009",
        lambda root: edit_rows(
            root, lambda t: with_column(t, "data/file_index", [0, 0, None, 1, 1, 1])
        ),
    ),
    "row beyond total": (
        "INDEX-010",
        lambda root: edit_rows(root, lambda t: pa.concat_tables([t, t.slice(5)])),
    ),
    # rows
    "index starts at 1": ("DATA-001", data("index", lambda v: v + 1, 1)),
    "episode_index of one row": ("DATA-002", data("episode_index", lambda v: put(v, 10, 4))),
    "episode_index all 0": ("DATA-002", data("episode_index", lambda v: v * 0)),
    "frame_index goes on": ("DATA-003", data("frame_index", lambda v: np.arange(len(v)))),
    "no frame_index": ("STRUCT-010", no_index_column),
    "empty entry": ("DATA-004", empty_entry),
    # time
    "jitter": ("TIME-001", data("timestamp", lambda v: put(v, slice(3, None, 7), v[3::7] + 0.013))),
    "timestamps stand": ("TIME-002", data("timestamp", lambda v: put(v, slice(5, 9), 0.5))),
    "timestamp not a number": ("TIME-002", data("timestamp", lambda v: put(v, 5, np.nan))),
    "frames dropped": ("TIME-003", data("timestamp", dropped)),
    "other rate": ("TIME-004", data("timestamp", lambda v: v * np.float32(1.2))),
    "drift": ("TIME-005", data("timestamp", drift)),
    # tasks
    "tasks.parquet cut short": ("TASK-002", garbage("meta/tasks.parquet")),
    "tasks not in order": ("TASK-004", swapped_tasks),
    "unknown task": ("TASK-005", data("task_index", lambda v: put(v, HALF, 7))),
    "tasks contradict": ("TASK-007", data("task_index", lambda v: put(v, HALF, 1))),
    "placeholder": ("TEXT-001", empty_tasks),
    "one task twice": ("TEXT-003", near_tasks),
    # pictures
    "no picture": ("IMAGE-001", other_picture),
    "other size": (
        "IMAGE-002",
        info(lambda v: v["features"]["observation.image"].update(shape=[24, 16, 3])),
    ),
    "picture in another place": ("PORT-001", picture_elsewhere),
    # statistics
    "stats.json broken": ("STATS-002", garbage(STATS)),
    "other mean": ("STATS-003", statistics(lambda v: v["action"]["mean"].reverse())),
    "other count": ("STATS-003", statistics(lambda v: v["action"].update(count=[9]))),
    "other quantile": ("STATS-004", statistics(lambda v: v["action"].update(q90=[0, 0]))),
    "no statistics of the action": ("STATS-005", statistics(lambda v: v.pop("action"))),
    "no quantiles": ("STATS-006", statistics(lambda v: v["action"].pop("q99"))),
    "no numbers": ("STATS-007", statistics(bad_bool)),
    "min above max": ("STATS-007", statistics(swap_extremes)),
    "null in the statistics": (
        "STATS-007",
        statistics(lambda v: v["action"].update(std=[None, 1.0])),
    ),
    "statistics of an episode": ("STATS-008", lambda root: edit_rows(root, other_episode_stats)),
    "pictures in 0..255": (
        "STATS-009",
        statistics(lambda v: v["observation.image"].update(max=[[[255]], [[255]], [[255]]])),
    ),
    # the folder
    "no README": ("CARD-001", absent("README.md")),
    "no configs": ("CARD-001", card("configs:", "other:")),
    "no licence": ("CARD-002", card("license: mit\n", "")),
    "front matter is no YAML": ("CARD-003", card("license: mit", "license: [mit")),
    "no tag": ("CARD-004", card("- LeRobot\n", "")),
    "link": ("PORT-002", linked),
    "names in two cases": ("PORT-003", add("readme.MD")),
    "home folder": ("PORT-005", card("# Robot", "recorded in /home/jane/robot\n\n# Robot")),
}
# With these, other failures cannot be avoided: they are what follows from the first.
FOLLOWS = {
    "frames dropped": {"TIME-001"},
    "unknown task": {"STATS-003", "STATS-008"},
    "tasks contradict": {"STATS-003", "STATS-008"},
    "min above max": {"STATS-003"},
}


def test_the_healthy_dataset_passes_without_a_warning(healthy: Path) -> None:
    report = check(healthy)
    assert ids(report) == {"SUM-003"}
    assert report.verdict == "pass" and not report.unchecked
    assert (report.n_episodes, report.n_frames) == (len(LENGTHS), sum(LENGTHS))


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_breach_is_found_alone_and_mended(healthy: Path, tmp_path: Path, name: str) -> None:
    id, mutate = MUTATIONS[name]
    root = copy(healthy, tmp_path / "broken")
    mutate(root)
    report = check(root)
    assert id in ids(report), [f.what for f in report.findings]
    alone = {id} if RULES[id].severity == "fail" else set()
    assert ids(report, "fail") - FOLLOWS.get(name, set()) == alone - FOLLOWS.get(name, set()), [
        (f.id, f.what) for f in report.findings
    ]
    json.dumps(report.as_json())
    if not RULES[id].fixable:
        return
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    fixed = fix(root, tmp_path / "mended", report)
    after = check(fixed.path)
    gone = {f.id for f in after.findings if f.severity == "fail"}
    assert gone == set(), [(f.id, f.what) for f in after.findings]
    assert id not in ids(after)
    assert open_dataset(fixed.path).n_frames == sum(LENGTHS)
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


def test_every_rule_has_a_mutation_or_a_test_of_its_own() -> None:
    """So that no rule is only words: the others are in test_check_content and its neighbours."""
    here = {id for id, _ in MUTATIONS.values()}
    others = ""
    folder = Path(__file__).parent
    for path in folder.glob("test_check_*.py"):
        if path != Path(__file__):
            others += path.read_text()
    untested = [id for id in RULES if id not in here and id not in others]
    # Files of 5 GB and row groups of 300 MB are not made for a test.
    assert set(untested) == {"DATA-005", "PORT-004"}


def test_several_faults_are_all_reported(healthy: Path, tmp_path: Path) -> None:
    root = copy(healthy, tmp_path / "broken")
    for name in ("jitter", "tasks without pandas index", "other mean", "frames miscounted"):
        MUTATIONS[name][1](root)
    report = check(root)
    expected = {"TIME-001", "TASK-003", "STATS-003", "STRUCT-007"}
    assert ids(report, "fail") == expected
    after = check(fix(root, tmp_path / "mended", report).path)
    assert not ids(after, "fail")


def test_after_a_missing_file_the_rest_is_still_checked(healthy: Path, tmp_path: Path) -> None:
    root = copy(healthy, tmp_path / "broken")
    (root / DATA0).unlink()
    edit_data(root, lambda t: changed(t, "index", lambda v: v + 5), 1)
    report = check(root)
    assert ids(report, "fail") == {"STRUCT-013", "DATA-001"}
    assert next(f for f in report.findings if f.id == "STRUCT-013").episodes == (0, 1, 2)
    assert next(f for f in report.findings if f.id == "DATA-001").episodes == (3, 4, 5)
    assert any("statistics" in text for text in report.unchecked)


def test_fix_refuses_what_it_would_have_to_guess(healthy: Path, tmp_path: Path) -> None:
    root = copy(healthy, tmp_path / "broken")
    (root / DATA1).unlink()
    with pytest.raises(DataError, match="STRUCT-013"):
        fix(root, tmp_path / "mended", check(root))
    assert not (tmp_path / "mended").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken"]


def test_fix_links_tables_that_are_right_and_leaves_the_values_of_others(
    healthy: Path, tmp_path: Path
) -> None:
    root = copy(healthy, tmp_path / "broken")
    MUTATIONS["jitter"][1](root)
    new = fix(root, tmp_path / "mended", check(root)).path
    assert (new / DATA1).stat().st_ino == (root / DATA1).stat().st_ino
    assert (new / DATA0).stat().st_ino != (root / DATA0).stat().st_ino
    old_table, table = pq.read_table(root / DATA0), pq.read_table(new / DATA0)
    assert table.drop_columns(["timestamp"]).equals(old_table.drop_columns(["timestamp"]))
    assert pq.ParquetFile(new / DATA0).num_row_groups == 3
    grid = (table["frame_index"].to_numpy() / 10).astype(np.float32)
    assert np.array_equal(table["timestamp"].to_numpy(), grid)


def test_a_deleted_episode_is_closed_up(healthy: Path, tmp_path: Path) -> None:
    """As after a careless deletion: rows and numbers of episode 1 are simply gone."""
    root = copy(healthy, tmp_path / "broken")
    edit_data(root, lambda t: pa.concat_tables([t.slice(0, 36), t.slice(67)]))
    edit_rows(root, lambda t: pa.concat_tables([t.slice(0, 1), t.slice(2)]))
    report = check(root)
    assert {"INDEX-004", "INDEX-005", "DATA-001", "DATA-002", "STRUCT-007"} <= ids(report, "fail")
    new = fix(root, tmp_path / "mended", report).path
    assert not ids(check(new), "fail")
    kept = open_dataset(new)
    assert [m["seed"] for m in kept.episodes.metadata] == [0, 2, 3, 4, 5]
    assert kept.episodes.lengths.tolist() == [36, 42, 33, 38, 35]
