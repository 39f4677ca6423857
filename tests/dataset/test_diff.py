"""What ``diff`` finds between a dataset and edited ones."""

import json
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from made_datasets import (
    edit_json,
    episodes,
    rewrite_episodes,
    with_leftover_row,
    without_hashes,
    write,
)

from dp_hub.dataset.diff import THRESHOLD, diff, runs
from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode

LENGTHS = (7, 3, 12, 5, 9)


@pytest.fixture
def made():
    return episodes(LENGTHS)


@pytest.fixture
def compare(tmp_path, made):
    """``compare(episodes)``: the difference from the dataset of ``made`` to one of these."""

    def run(other, **options):
        a = write(tmp_path / "a", made)
        return diff(a, write(tmp_path / "b", other, **options))

    return run


def with_action(episode, change):
    return replace(episode, data={**episode.data, "action": change(episode.data["action"])})


def test_a_copy_is_equal(compare, made):
    found = compare(made)
    assert found.equal
    assert (len(found.same), found.compared_by, found.note) == (5, "sha256", "")


def test_the_same_pictures_in_another_encoding_are_the_same_content(tmp_path):
    made = episodes(size=(16, 16))
    a, b = write(tmp_path / "a", made), write(tmp_path / "b", made, images="png")
    assert diff(a, b).equal


def test_appended_episodes_are_added(compare, made):
    found = compare([*made, *episodes((4, 6), seed=9)])
    assert (found.added, found.removed, found.changed, found.renumbered) == ((5, 6), (), (), ())
    assert not found.equal


def test_a_removed_episode_renumbers_those_after_it(compare, made):
    found = compare(made[:1] + made[2:])
    assert (found.added, found.removed, found.changed) == ((), (1,), ())
    assert runs(found.renumbered) == [(2, 1, 3)]


def test_another_order_is_renumbered_and_nothing_else(compare, made):
    found = compare(made[::-1])
    assert found.renumbered == ((0, 4), (1, 3), (3, 1), (4, 0))
    assert not (found.added or found.removed or found.changed or found.equal)


def test_a_changed_episode_says_in_which_feature_it_changed(compare, made):
    other = [*made[:2], with_action(made[2], lambda v: v + np.float32(1)), *made[3:]]
    [change] = compare(other).changed
    assert (change.a, change.b, change.length, change.task) == (2, 2, None, None)
    assert [name for name, _ in change.statistics] == ["action"]
    assert {"min", "max", "mean"} <= set(dict(change.statistics)["action"])


def test_a_cut_episode_says_its_lengths(compare, made):
    cut = Episode({k: v[:-2] for k, v in made[3].data.items()}, made[3].task, made[3].metadata)
    [change] = compare([*made[:3], cut, made[4]]).changed
    assert (change.a, change.b, change.length) == (3, 3, (5, 3))


def test_another_task_is_a_change_of_the_episode_and_of_the_tasks(compare, made):
    found = compare([replace(made[0], task="pull"), *made[1:]])
    [change] = found.changed
    assert (change.task, change.statistics) == (("push", "pull"), ())
    assert (found.tasks_added, found.tasks_removed) == (("pull",), ())


def test_other_metadata_of_equal_content_is_a_change(compare, made):
    [change] = compare([replace(made[0], metadata={"seed": 99}), *made[1:]]).changed
    assert (change.a, change.metadata, change.is_visible) == (0, True, True)
    assert (change.length, change.task, change.statistics) == (None, None, ())


def test_a_change_that_statistics_do_not_show_is_still_a_change(compare, made):
    swapped = with_action(made[0], lambda v: v[::-1])
    [change] = compare([swapped, *made[1:]]).changed
    assert (change.a, change.is_visible) == (0, False)


def test_rate_and_robot_are_compared(compare, made):
    found = compare(made, fps=20, robot_type="arm")
    assert (found.a.fps, found.b.fps) == (10, 20)
    assert (found.a.robot_type, found.b.robot_type) == (None, "arm")
    assert len(found.same) == 5
    assert not found.equal


def test_with_a_feature_more_equal_episodes_are_recognised_by_their_statistics(compare, made):
    more = [replace(e, data={**e.data, "gripper": e.data["state"][:, :1]}) for e in made]
    found = compare(more[1:])
    assert (found.features_added, found.features_removed) == (("gripper",), ())
    assert (found.removed, found.changed) == ((0,), ())
    assert runs(found.renumbered) == [(1, 0, 4)]
    assert found.compared_by == "statistics"
    assert "the features differ" in found.note


def test_another_type_of_a_feature_is_named(compare, made):
    other = [with_action(e, lambda v: v.astype(np.float64)) for e in made]
    [change] = compare(other).features_changed
    assert (change.name, change.before, change.after) == ("action", "float32 2", "float64 2")


def test_statistics_that_moved_are_named_with_their_share_of_the_range(tmp_path):
    made = [Episode({"action": np.linspace(0, 1, 101, dtype=np.float32)[:, None]}, "t")]
    near = [Episode({"action": made[0].data["action"] + np.float32(0.005)}, "t")]
    far = [Episode({"action": made[0].data["action"] + np.float32(0.25)}, "t")]
    a = write(tmp_path / "a", made)
    small, large = diff(a, write(tmp_path / "b", near)), diff(a, write(tmp_path / "c", far))
    assert small.moves == ()
    assert 0.004 < small.largest_share < THRESHOLD
    moved = {move.stat: move for move in large.moves}
    assert moved["max"].share == pytest.approx(0.25 / 1.25, abs=1e-4)
    assert (moved["max"].before, moved["max"].after) == (1, 1.25)
    assert "std" not in moved


def test_without_hashes_equal_datasets_show_no_difference_and_the_note_says_why(tmp_path, made):
    a, b = write(tmp_path / "a", made), without_hashes(write(tmp_path / "b", made))
    found = diff(a, b)
    assert found.equal
    assert (found.compared_by, len(found.same)) == ("statistics", 5)
    assert f"{b} has no episode hashes" in found.note


def test_without_hashes_changes_are_found_by_statistics(tmp_path, made):
    other = [made[0], *[with_action(made[1], lambda v: v * 2)], *made[3:]]
    a, b = write(tmp_path / "a", made), without_hashes(write(tmp_path / "b", other))
    found = diff(a, b)
    assert [(c.a, c.b) for c in found.changed] == [(1, 1)]
    assert (found.removed, runs(found.renumbered)) == ((2,), [(3, 2, 2)])


def test_statistics_rounded_by_another_program_are_no_change(tmp_path, made):
    def rounded(table):
        for i, name in enumerate(table.schema.names):
            if name.startswith("stats/") and not name.endswith("count"):
                values = [[float(np.float32(v) * (1 + 1e-6)) for v in row]
                          for row in table.column(name).to_pylist()]  # fmt: skip
                table = table.set_column(i, name, pa.array(values))
        return table

    a, b = write(tmp_path / "a", made), without_hashes(write(tmp_path / "b", made))
    rewrite_episodes(b, rounded)
    assert diff(a, b).equal


def test_rows_that_a_killed_writer_left_are_not_compared(tmp_path, made):
    a = write(tmp_path / "a", made)
    assert diff(a, with_leftover_row(write(tmp_path / "b", made))).equal


def test_real_demonstrations_are_recognised_in_lerobots_own_conversion(shared_data, tmp_path):
    from dp_hub.dataset.convert import convert

    task = "Push the T-shaped block onto the T-shaped target."
    zarr = shared_data / "pusht" / "pusht_first5.zarr.zip"
    convert("zarr", zarr, tmp_path / "ours", task=task)
    found = diff(tmp_path / "ours", shared_data / "samples" / "lerobot_v30_pusht")
    assert [i for i, _ in found.same] == [0, 1, 2, 3, 4]
    assert (found.changed, found.removed, found.added) == ((), (), tuple(range(5, 206)))
    assert {c.name for c in found.features_changed} == {"observation.state", "observation.image"}


def test_ten_thousand_episodes_are_compared_within_seconds(tmp_path):
    a = write(tmp_path / "a", episodes([2]))
    hashes = np.random.default_rng(0).bytes(32 * 10_000).hex()
    names = [hashes[64 * i : 64 * i + 64] for i in range(10_000)]

    def many(order):
        def change(table):
            first = table.slice(0, 1)
            columns = {name: pa.array(first.column(name).to_pylist() * 10_000,
                                      first.schema.field(name).type)
                       for name in ("tasks", "length", "stats/action/mean")}  # fmt: skip
            columns["sha256"] = pa.array([names[i] for i in order])
            columns["episode_index"] = pa.array(range(10_000))
            return pa.table(columns)

        return change

    b = write(tmp_path / "b", episodes([2]))
    rewrite_episodes(a, many(range(10_000)))
    rewrite_episodes(b, many([*range(1, 10_000), 0]))
    for root in (a, b):
        edit_json(root / "meta" / "info.json", total_episodes=10_000, total_frames=20_000)
    began = time.monotonic()
    found = diff(a, b)
    assert time.monotonic() - began < 5
    assert runs(found.renumbered) == [(0, 9999, 1), (1, 0, 9999)]


def test_the_json_form_can_be_read_back(compare, made):
    values = json.loads(json.dumps(compare([*made[1:], *episodes((4,), seed=5)]).as_json()))
    assert (values["equal"], values["removed"], values["added"]) == (False, [0], [4])
    assert values["renumbered"] == [{"a": [1, 4], "b": [0, 3]}]
    assert values["n_same"] == 4


def test_what_is_no_dataset_is_an_error(tmp_path, made):
    a = write(tmp_path / "a", made)
    with pytest.raises(DataError, match=r"it has no meta/info\.json"):
        diff(a, tmp_path)
    (a / "meta" / "stats.json").write_text("[")
    with pytest.raises(DataError, match=r"stats\.json is not valid JSON"):
        diff(a, a)
