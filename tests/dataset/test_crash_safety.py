"""Killed at any instant, a writer loses at most the episode at hand; going on leaves no trace."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
from crash_writer import episode, write

from dp_hub.dataset.checksums import read_checksums, verify
from dp_hub.dataset.episode_table import OpenEpisodes
from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.reader import open_dataset
from dp_hub.dataset.writer import DatasetWriter, WriteError
from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode

HERE = Path(__file__).parent


class Forge:
    """The process of crash_writer.py, which forks a writer for every trial."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "crash_writer.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def write(self, folder, n_episodes, kind, kill_after_s=None):
        """Let a child write; the number of episodes it reported, and whether it finished."""
        self.process.stdin.write(f"{folder} {n_episodes} {kind}\n")
        self.process.stdin.flush()
        word, pid = self.process.stdout.readline().split()
        assert word == "pid"
        if kill_after_s is not None:
            timer = threading.Timer(kill_after_s, os.kill, (int(pid), signal.SIGKILL))
            timer.start()
        n_reported, finished = 0, False
        while (line := self.process.stdout.readline().strip()) != "ended":
            assert line, "the process died"
            finished |= line == "finished"
            n_reported = n_reported if line == "finished" else int(line) + 1
        if kill_after_s is not None:
            timer.cancel()
            timer.join()
        return n_reported, finished

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(30) == 0


@pytest.fixture(scope="module")
def forge():
    one = Forge()
    yield one
    one.close()


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*") if p.is_file()}  # fmt: skip


def check_episodes(folder, kind, at_least):
    """The folder opens, holds the first episodes whole and equal, and at least so many."""
    found = open_dataset(folder)
    assert found.n_episodes >= at_least
    expected = [episode(i, kind) for i in range(found.n_episodes)]
    action = np.concatenate([e.data["action"] for e in expected])
    np.testing.assert_array_equal(found.column("action"), action)
    assert found.episodes.tasks == [e.task for e in expected]
    assert [m["number"] for m in found.episodes.metadata] == list(range(found.n_episodes))
    return found


@pytest.mark.parametrize(("kind", "n_kills"), [("low-dim", 120), ("webp", 50), ("video", 30)])
def test_kills_at_random_points_lose_nothing_and_leave_no_trace(
    tmp_path, monkeypatch, forge, kind, n_kills
):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))
    n_episodes = 30
    forge.write(tmp_path / "warm", n_episodes, kind)
    start = time.monotonic()
    assert forge.write(tmp_path / "whole", n_episodes, kind) == (n_episodes, True)
    took_s = time.monotonic() - start
    whole = files_of(tmp_path / "whole")
    rng = np.random.default_rng(7)
    folder, kills, n_done, endings = tmp_path / "ds0", 0, 0, 0
    while kills < n_kills:
        n_reported, finished = forge.write(folder, n_episodes, kind, rng.uniform(0, took_s))
        kills += not finished
        n_done = max(n_done, n_reported)
        if n_done or folder.exists():
            check_episodes(folder, kind, n_done)
        if finished:
            # Finished with whatever interruptions before it: the same bytes.
            assert files_of(folder) == whole
            assert verify(folder, read_checksums(folder)) == []
            endings += 1
            folder, n_done = tmp_path / f"ds{endings}", 0
    assert forge.write(folder, n_episodes, kind)[1]
    assert files_of(folder) == whole
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_folder_that_is_being_written_is_a_dataset_for_others_too(tmp_path):
    columns = plan_columns(episode(0, "webp").data)
    with DatasetWriter(tmp_path / "ds", columns, fps=10) as writer:
        for number in range(3):
            writer.add_episode(episode(number, "webp"))
            loaded = datasets.load_dataset(
                str(tmp_path / "ds"), split="train", cache_dir=str(tmp_path / f"cache{number}")
            )
            actions = [episode(i, "webp").data["action"] for i in range(number + 1)]
            np.testing.assert_array_equal(
                np.array(loaded["action"][:], np.float32), np.concatenate(actions)
            )


def test_more_episodes_go_to_new_files_and_the_old_stay(tmp_path):
    write(tmp_path / "ds", 4, "video")
    before = files_of(tmp_path / "ds")
    (tmp_path / "ds/LICENSE").write_text("mine")
    with DatasetWriter.resume(tmp_path / "ds") as writer:
        assert writer.n_episodes == 4
        for number in range(4, 6):
            writer.add_episode(episode(number, "video"))
        assert open_dataset(tmp_path / "ds").n_episodes == 6
        writer.finish()
    after = files_of(tmp_path / "ds")
    kept = {name for name in before if name.startswith(("data/", "videos/", "meta/episodes/"))}
    assert len(kept) == 3
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert after.keys() - before.keys() == {
        "LICENSE",
        "data/chunk-000/file-001.parquet",
        "videos/observation.image/chunk-000/file-001.mp4",
        "meta/episodes/chunk-000/file-001.parquet",
    }
    check_episodes(tmp_path / "ds", "video", 6)
    assert verify(tmp_path / "ds", read_checksums(tmp_path / "ds")) == []


def test_a_row_of_an_unfinished_commit_does_not_count_and_is_written_over(tmp_path, monkeypatch):
    columns = plan_columns(episode(0, "low-dim").data)
    write(tmp_path / "whole", 3, "low-dim")
    with DatasetWriter(tmp_path / "ds", columns, fps=10, threads=1) as writer:
        writer.add_episode(episode(0, "low-dim"))
        commit = OpenEpisodes.commit

        def cut_off(self):
            commit(self)
            raise KeyboardInterrupt

        monkeypatch.setattr(OpenEpisodes, "commit", cut_off)
        with pytest.raises(KeyboardInterrupt):
            writer.add_episode(episode(1, "low-dim"))
        monkeypatch.undo()
        assert open_dataset(tmp_path / "ds").n_episodes == 1
        for number in (1, 2):  # the same writer goes on
            writer.add_episode(episode(number, "low-dim"))
        writer.finish()
    assert files_of(tmp_path / "ds") == files_of(tmp_path / "whole")


def test_a_full_disk_is_explained_and_costs_only_the_episode_at_hand(tmp_path, monkeypatch):
    columns = plan_columns(episode(0, "low-dim").data)
    fsync, full = os.fsync, [False]

    def failing(descriptor):
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with DatasetWriter(tmp_path / "ds", columns, fps=10) as writer:
        writer.add_episode(episode(0, "low-dim"))
        full[0] = True
        with pytest.raises(WriteError, match=r"No space left on device; its 1 committed"):
            writer.add_episode(episode(1, "low-dim"))
        full[0] = False
        assert open_dataset(tmp_path / "ds").n_episodes == 1
        writer.add_episode(episode(1, "low-dim"))
        full[0] = True
        with pytest.raises(WriteError, match=r"its 2 committed episodes are kept"):
            writer.finish()
        full[0] = False
        assert writer.finish().n_episodes == 2
    check_episodes(tmp_path / "ds", "low-dim", 2)


def test_files_reach_the_disk_before_what_counts_them(tmp_path, monkeypatch):
    columns = plan_columns(episode(0, "webp").data)
    events = []
    fsync, replace = os.fsync, os.replace
    names = {}

    def noted_fsync(descriptor):
        events.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def noted_replace(source, target):
        events.append(("rename", str(source), str(target)))
        replace(source, target)

    with DatasetWriter(tmp_path / "ds", columns, fps=10) as writer:
        writer.add_episode(episode(0, "webp"))
        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(os, "replace", noted_replace)
        writer.add_episode(episode(1, "webp"))
        monkeypatch.undo()
    renames = [(i, e) for i, e in enumerate(events) if e[0] == "rename"]
    for i, (_, source, target) in renames:
        assert ("fsync", source) in events[:i], target
        names[Path(target).name] = i
        synced = [j for j, e in enumerate(events) if e == ("fsync", str(Path(target).parent))]
        assert synced and max(synced) > i, f"the folder of {target} is not flushed after it"
    counted = names["info.json"]
    assert counted == max(names.values())
    folders = {str(Path(e[2]).parent) for _, e in renames if not e[2].endswith("info.json")}
    for folder in folders - {str(tmp_path / "ds/meta")}:
        assert ("fsync", folder) in events[:counted], folder


def test_one_writer_at_a_time_and_the_message_names_the_other(tmp_path):
    columns = plan_columns(episode(0, "low-dim").data)
    with DatasetWriter(tmp_path / "ds", columns, fps=10) as writer:
        writer.add_episode(episode(0, "low-dim"))
        with pytest.raises(DataError, match=rf"is being written by .*process {os.getpid()}"):
            DatasetWriter.resume(tmp_path / "ds")
    with DatasetWriter.resume(tmp_path / "ds") as writer:
        assert writer.n_episodes == 1
    assert not list(tmp_path.glob(".*"))


def test_the_lock_of_a_dead_writer_is_taken_over(tmp_path, forge, caplog):
    n_reported, finished = 0, True
    while finished or not n_reported:
        folder = tmp_path / f"ds{time.monotonic_ns()}"
        n_reported, finished = forge.write(folder, 500, "low-dim", kill_after_s=0.3)
    assert folder.with_name(f".{folder.name}.lock").exists()
    with caplog.at_level("INFO", logger="dp_hub"), DatasetWriter.resume(folder) as writer:
        assert writer.n_episodes >= n_reported
    assert "took over from" in caplog.text and "which has ended" in caplog.text
    assert not list(tmp_path.glob(f".{folder.name}*"))  # of tries before, nobody took over


def test_a_dataset_of_another_program_is_not_added_to(tmp_path, shared_data):
    sample = shared_data / "samples/lerobot_v30_pusht"
    with pytest.raises(DataError, match="made by another program"):
        DatasetWriter.resume(sample)
    assert not sample.with_name(f".{sample.name}.lock").exists()


def test_an_exchange_that_the_system_cannot_do_is_two_renames(tmp_path, monkeypatch):
    import dp_hub.files

    monkeypatch.setattr(dp_hub.files, "_exchange", lambda a, b: False)
    write(tmp_path / "ds", 3, "low-dim")
    check_episodes(tmp_path / "ds", "low-dim", 3)
    # Cut off between the two: the next writer puts the old one back.
    (tmp_path / "ds").rename(tmp_path / ".ds.old")
    with DatasetWriter.resume(tmp_path / "ds") as writer:
        assert writer.n_episodes == 3
    assert not list(tmp_path.glob(".*"))


def test_a_link_to_a_dataset_stays_one_and_has_the_lock_of_the_dataset(tmp_path):
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk/real", 2, "low-dim")
    (tmp_path / "link").symlink_to(tmp_path / "disk/real")
    with DatasetWriter.resume(tmp_path / "link") as writer:
        with pytest.raises(DataError, match="is being written by"):
            DatasetWriter.resume(tmp_path / "disk/real")
        writer.add_episode(episode(2, "low-dim"))
        writer.finish()
    assert (tmp_path / "link").is_symlink()
    check_episodes(tmp_path / "disk/real", "low-dim", 3)


def test_a_relative_target_stays_where_it_was_when_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns = plan_columns(episode(0, "low-dim").data)
    with DatasetWriter("ds", columns, fps=10) as writer:
        writer.add_episode(episode(0, "low-dim"))
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        writer.add_episode(episode(1, "low-dim"))
        writer.finish()
    check_episodes(tmp_path / "ds", "low-dim", 2)
    assert sorted(os.listdir(tmp_path)) == ["ds", "other"]


def test_what_people_keep_in_the_folder_stays_as_it_is(tmp_path):
    root = tmp_path / "ds"
    write(root, 2, "low-dim")
    (tmp_path / "outside.txt").write_text("outside")
    (root / "README.md").write_text("my own words")
    (root / "notes/empty").mkdir(parents=True)
    (root / "notes/link").symlink_to("../../outside.txt")
    (root / "meta/mine.json").write_text("{}")
    (root / ".dp_hub").mkdir()
    (root / ".dp_hub/remote.json").write_text("{}")
    with DatasetWriter.resume(root) as writer:
        writer.add_episode(episode(2, "low-dim"))
        writer.finish()
    assert (root / "README.md").read_text() == "my own words"
    assert (root / "notes/empty").is_dir() and os.readlink(root / "notes/link")
    assert (root / "meta/mine.json").exists() and (root / ".dp_hub/remote.json").exists()
    assert verify(root, read_checksums(root)) == []


def test_an_interrupt_right_after_finishing_costs_nothing(tmp_path, monkeypatch):
    import dp_hub.files

    write(tmp_path / "ds", 2, "low-dim")
    exchange = dp_hub.files._exchange

    def interrupted(a, b):
        exchange(a, b)
        raise KeyboardInterrupt

    with DatasetWriter.resume(tmp_path / "ds") as writer:
        writer.add_episode(episode(2, "low-dim"))
        monkeypatch.setattr(dp_hub.files, "_exchange", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.finish()
        monkeypatch.undo()
        assert verify(tmp_path / "ds", read_checksums(tmp_path / "ds")) == []
        writer.add_episode(episode(3, "low-dim"))
        writer.finish()
    check_episodes(tmp_path / "ds", "low-dim", 4)
    assert verify(tmp_path / "ds", read_checksums(tmp_path / "ds")) == []
    assert os.listdir(tmp_path) == ["ds"]


def test_a_finished_dataset_that_is_reopened_has_no_checksums_left_that_do_not_hold(
    tmp_path, monkeypatch
):
    """Cut off at every step of being reopened."""
    for step in range(6):
        root = tmp_path / f"ds{step}"
        write(root, 2, "low-dim")
        fsync, left = os.fsync, [step]

        def cut_off(descriptor, fsync=fsync, left=left):
            fsync(descriptor)
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        writer = DatasetWriter.resume(root)
        monkeypatch.setattr(os, "fsync", cut_off)
        with pytest.raises(KeyboardInterrupt):
            writer.add_episode(episode(2, "low-dim"))
        monkeypatch.undo()
        writer.close()
        sums = read_checksums(root)
        assert sums is None or verify(root, sums) == []
        with DatasetWriter.resume(root) as writer:
            for number in range(writer.n_episodes, 4):
                writer.add_episode(episode(number, "low-dim"))
            assert (root / "meta/checksums.json").exists() is False
            writer.finish()
        check_episodes(root, "low-dim", 4)
        assert verify(root, read_checksums(root)) == []


def test_a_slow_fade_is_no_reordering(tmp_path):
    ramp = np.linspace(40, 120, 32).astype(np.uint8)
    frames = np.stack([np.tile((ramp + i)[:, None, None], (1, 32, 3)) for i in range(20)])
    data = {"action": np.zeros((20, 2)), "img": frames}
    columns = plan_columns(data, images="video")
    with DatasetWriter(tmp_path / "ds", columns, fps=10) as writer:
        writer.add_episode(Episode(data))
        assert writer.finish().n_frames == 20


def test_an_interrupt_waits_until_an_episode_is_whole(tmp_path, monkeypatch, request):
    columns = plan_columns(episode(0, "low-dim").data)
    commit = OpenEpisodes.commit
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
        commit(self)

    with (
        pytest.raises(KeyboardInterrupt),
        DatasetWriter(tmp_path / "ds", columns, fps=10) as writer,
    ):
        monkeypatch.setattr(OpenEpisodes, "commit", interrupted)
        writer.add_episode(episode(0, "low-dim"))
    check_episodes(tmp_path / "ds", "low-dim", 1)
