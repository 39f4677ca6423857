"""Batches streamed from a Hub: the windows of the in-memory loader, exactly resumable, bounded."""

import collections
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import dp_hub
from dp_hub.dataset.layout import DATA_PATH
from dp_hub.envs.pusht.symmetry import mirrored
from dp_hub.errors import ConfigError, DataError, HubError
from dp_hub.hub import LocalHub, push
from dp_hub.sampling import DeviceSampler, WindowDataset, window_table
from dp_hub.sampling import streaming as streaming_module
from dp_hub.sampling.streaming import StreamingSampler

HORIZON, N_OBS_STEPS = 16, 2
WINDOWS = {"horizon": HORIZON, "n_obs_steps": N_OBS_STEPS, "pad_before": 1, "pad_after": 7}
ONE_EPISODE_MB = 5.5  # with pictures


def sampler(dataset, *, pool_mb=ONE_EPISODE_MB, batch_size=16, **changes):
    options = WINDOWS | {"batch_size": batch_size, "pool_bytes": int(pool_mb * 1e6)} | changes
    return StreamingSampler(dataset, **options)


def in_memory(folder, *, mask=None, twin=None, keys=None):
    """All windows of a folder, read whole."""
    dataset = dp_hub.open_dataset(folder)
    stops = dataset.episodes.stops
    names = [
        name for name in dataset.features if name.startswith("observation") or name == "action"
    ]
    columns = {name: dataset.column(name) for name in names}
    if twin:
        columns = {
            name: np.concatenate([column, twin(columns)[name]]) for name, column in columns.items()
        }
        stops = np.concatenate([stops, stops + stops[-1]])
    table = window_table(stops, HORIZON, pad_before=1, pad_after=7, episode_mask=mask)
    return WindowDataset(columns, table, horizon=HORIZON, n_obs_steps=N_OBS_STEPS, keys=keys)


def fingerprints(batch):
    """What each window of a batch holds, to the last bit, as one hashable thing."""
    names = sorted(batch)
    return [
        hash(tuple((name, batch[name][row].numpy().tobytes()) for name in names))
        for row in range(len(batch["action"]))
    ]


def all_of(windows):
    return collections.Counter(fingerprints(windows.__getitems__(np.arange(len(windows)))))


def epoch_of(batches):
    return collections.Counter(
        key for batch in islice(batches, len(batches)) for key in fingerprints(batch)
    )


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def stream(hub, folder, name="me/data", **options):
    push(folder, name, license="mit")
    return dp_hub.stream_dataset(name, **options)


@pytest.fixture(params=["webp", "video"])
def pictures(request):
    return request.getfixturevalue(f"pusht_{request.param}")


def test_batches_are_those_of_the_window_dataset(local_hub, pictures):
    batch = next(sampler(stream(local_hub, pictures)))
    shapes = {name: (tuple(values.shape), values.dtype) for name, values in batch.items()}
    assert shapes == {
        "observation.image": ((16, 2, 96, 96, 3), torch.uint8),
        "observation.state": ((16, 2, 5), torch.float32),
        "observation.environment_state": ((16, 2, 18), torch.float32),
        "action": ((16, 16, 2), torch.float32),
        "action_is_pad": ((16, 16), torch.bool),
    }


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_holds_every_window_once_over_all_processes(local_hub, pictures, world_size):
    dataset = stream(local_hub, pictures)
    expected = all_of(in_memory(pictures))
    assert expected.total() == 738 - 7 * 5
    # Batches of one window leave nothing over but what does not divide among the processes.
    samplers = [
        sampler(dataset, batch_size=1, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert {len(one) for one in samplers} == {703 // world_size}
    drawn = sum((epoch_of(one) for one in samplers), collections.Counter())
    assert drawn <= expected
    assert (expected - drawn).total() == 703 % world_size


def test_pools_of_many_files_and_of_parts_of_one_hold_the_same_windows(
    local_hub, pusht_206_files, pusht_zip, tmp_path
):
    from dp_hub.dataset.convert import convert

    convert("zarr", pusht_zip, tmp_path / "one_file", drop=["img"])
    assert len(list((tmp_path / "one_file" / "data").rglob("*.parquet"))) == 1
    expected = all_of(in_memory(pusht_206_files))
    for folder in (pusht_206_files, tmp_path / "one_file"):
        batches = sampler(dp_hub.stream_dataset(folder), pool_mb=0.3, batch_size=8)
        assert len(batches._pools) > 5
        assert epoch_of(batches) == expected


@pytest.mark.parametrize("world_size", [1, 3])
def test_mirrored_twins_are_those_of_the_whole_dataset(pusht_206_files, world_size):
    expected = all_of(in_memory(pusht_206_files, twin=mirrored))
    dataset = dp_hub.stream_dataset(pusht_206_files)
    options = {"pool_mb": 0.8, "batch_size": 61, "twin": mirrored, "world_size": world_size}
    samplers = [sampler(dataset, rank=rank, **options) for rank in range(world_size)]
    drawn = sum((epoch_of(one) for one in samplers), collections.Counter())
    assert drawn <= expected
    assert drawn.total() == expected.total() // (61 * world_size) * 61 * world_size


def test_epochs_differ_and_follow_from_the_seed(local_hub, pusht_webp):
    dataset = stream(local_hub, pusht_webp)
    batches, again = sampler(dataset, seed=5), sampler(dataset, seed=5)
    first = [fingerprints(batch) for batch in islice(batches, len(batches))]
    second = [fingerprints(batch) for batch in islice(batches, len(batches))]
    assert first != second
    assert [fingerprints(batch) for batch in islice(again, len(again))] == first
    other = sampler(dataset, seed=6)
    assert [fingerprints(batch) for batch in islice(other, len(other))] != first
    assert batches.state_dict()["epoch"] == 1


def test_windows_of_a_pool_are_mixed(pusht_webp):
    batches = sampler(dp_hub.stream_dataset(pusht_webp), pool_mb=1000, batch_size=64)
    whole = in_memory(pusht_webp)
    table = {key: row for row in range(len(whole)) for key in fingerprints(_row(whole, row))}
    rows = np.array([table[key] for key in fingerprints(next(batches))])
    episodes = np.searchsorted(np.unique(whole.table.lo), whole.table.lo[rows])
    assert len(np.unique(episodes)) == 5
    assert np.abs(np.diff(rows)).mean() > 50


def _row(windows, row):
    return windows.__getitems__([row])


@pytest.mark.parametrize("world_size", [1, 2])
def test_resuming_at_any_batch_continues_exactly(local_hub, pictures, world_size):
    dataset = stream(local_hub, pictures)
    options = {"rank": world_size - 1, "world_size": world_size, "seed": 3}
    straight = sampler(dataset, **options)
    n = len(straight)
    expected = [fingerprints(batch) for batch in islice(straight, 2 * n + 3)]
    for stop in [0, n, n - 1, *np.random.default_rng(0).integers(1, 2 * n, 4).tolist()]:
        before = sampler(dataset, **options)
        epoch, batch = divmod(stop, n)
        before.load_state_dict(before.state_dict() | {"epoch": epoch, "batch": batch})
        state = before.state_dict()
        if stop:
            next(before)
        after = sampler(dp_hub.stream_dataset("me/data"), **options)
        after.load_state_dict(state)
        found = [fingerprints(batch) for batch in islice(after, 5)]
        assert found == expected[stop : stop + 5], stop


def test_resuming_fetches_only_the_files_of_the_pools_from_there(local_hub, pusht_webp):
    push(pusht_webp, "me/data", license="mit")
    first = sampler(dp_hub.stream_dataset("me/data"), pool_mb=1)
    for _ in range(len(first)):
        next(first)
    last = first.state_dict() | {"batch": len(first) - 1}
    shutil.rmtree(first.dataset.files.folder)
    later = sampler(dp_hub.stream_dataset("me/data"), pool_mb=1)
    later.load_state_dict(last)
    next(later)
    assert later.dataset.files.fetched[0] == later._files(later._pools[-1])[0]
    assert not set(later._files(later._pools[0])) & set(later.dataset.files.fetched[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed was 1, is 0"),
        ({"batch_size": 8}, "batch_size was 8, is 16"),
        ({"world_size": 2}, "world_size was 2, is 1"),
        ({"pool_mb": 7}, "pool_bytes was 7000000, is 5500000"),
        ({"keys": ["observation.state"]}, "layout was .*, is "),
        ({"episode_mask": np.array([1, 1, 1, 1, 0], bool)}, "n_windows was .*, is 703"),
    ],
)
def test_other_settings_than_the_order_began_with_are_refused(pusht_webp, change, message):
    dataset = dp_hub.stream_dataset(pusht_webp)
    state = sampler(dataset, **change).state_dict()
    with pytest.raises(ConfigError, match=f"cannot continue the order of batches: {message}"):
        sampler(dataset).load_state_dict(state)


def test_other_data_or_another_sampler_are_refused(pusht_webp):
    dataset = dp_hub.stream_dataset(pusht_webp)
    state = sampler(dataset).state_dict()
    with pytest.raises(ConfigError, match="fingerprint was 0000"):
        sampler(dataset).load_state_dict(state | {"fingerprint": "0000"})
    whole = in_memory(pusht_webp)
    columns = {"observation.state": np.zeros((len(whole.actions), 5)), "action": whole.actions}
    device = DeviceSampler(columns, whole.table, n_obs_steps=N_OBS_STEPS, batch_size=16)
    with pytest.raises(ConfigError, match="it was not drawn by streaming"):
        sampler(dataset).load_state_dict(device.state_dict())
    with pytest.raises(ConfigError, match="it was drawn by streaming"):
        device.load_state_dict(state)


def largest_store(dataset, batches, n):
    """The most bytes there are in the store while ``n`` batches are drawn, looked at all along."""
    sizes, done = [], threading.Event()

    def look():
        while not done.is_set():
            try:
                sizes.append(sum(path.stat().st_size for path in _shards(dataset.files.folder)))
            except FileNotFoundError:
                continue  # deleted while it was looked at
            time.sleep(0.0005)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(n):
            next(batches)
    finally:
        done.set()
        watcher.join()
    assert len(sizes) > 20
    return max(sizes)


def _shards(folder):
    parts = [folder / "data", folder / "videos"]
    return [path for part in parts for path in part.rglob("*") if path.is_file()]


def test_store_stays_below_its_limit_and_files_come_and_go(local_hub, pictures):
    push(pictures, "me/data", license="mit")
    files = {
        path.relative_to(pictures).as_posix(): path.stat().st_size for path in _shards(pictures)
    }
    episode = sum(files.values()) / 5
    limit_gb = 2.6 * episode / 1e9
    dataset = dp_hub.stream_dataset("me/data", store_gb=limit_gb)
    batches = sampler(dataset, pool_mb=0.1)  # every episode is a pool
    assert largest_store(dataset, batches, 3 * len(batches)) <= limit_gb * 1e9
    assert set(dataset.files.fetched) == set(files)
    # Two episodes fit: the others had to be fetched again in every epoch.
    assert len(dataset.files.fetched) > 2 * len(files)
    wait_until(lambda: all(future.done() for future in batches._coming.values()))
    assert 0 < dataset.files.stored_bytes() <= limit_gb * 1e9


def test_nothing_is_fetched_before_it_is_needed(local_hub, pusht_webp):
    dataset = stream(local_hub, pusht_webp)
    batches = sampler(dataset, pool_mb=0.1)
    state = batches.state_dict()
    assert dataset.files.fetched == [] and dataset.n_episodes == 5 and state["n_windows"] == 703
    next(batches)
    needed = [batches._files(pool)[0] for pool in batches._pools]
    wait_until(lambda: len(dataset.files.fetched) == 3)
    time.sleep(0.2)
    # In use, being decoded, and the one after; the last two may come in any order.
    assert dataset.files.fetched[0] == needed[0]
    assert sorted(dataset.files.fetched) == sorted(needed[:3])


def wait_until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_files_without_chosen_episodes_or_features_are_never_fetched(local_hub, pusht_video):
    dataset = stream(local_hub, pusht_video)
    mask = np.array([True, False, True, False, False])
    batches = sampler(dataset, episode_mask=mask, keys=["observation.state"])
    expected = all_of(in_memory(pusht_video, mask=mask, keys=["observation.state"]))
    assert (
        epoch_of(sampler(dataset, episode_mask=mask, keys=["observation.state"], batch_size=1))
        == expected
    )
    for _ in range(len(batches) + 1):
        next(batches)
    names = {DATA_PATH.format(chunk_index=0, file_index=number) for number in (0, 2)}
    assert set(dataset.files.fetched) == names


def object_files(hub_folder, path):
    """Where the Hub keeps the content of a file."""
    content = path.read_bytes()
    found = [one for one in hub_folder.rglob("*") if one.is_file() and one.read_bytes() == content]
    assert found
    return found


def flip_a_byte(path, at):
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_damaged_download_is_refused(local_hub, pusht_webp, tmp_path):
    dataset = stream(local_hub, pusht_webp)
    for path in object_files(tmp_path / "server", pusht_webp / "data/chunk-000/file-003.parquet"):
        flip_a_byte(path, 1000)
    batches = sampler(dataset, pool_mb=0.1)
    with pytest.raises(HubError, match=r"the checksum of data/chunk-000/file-003\.parquet is wr"):
        for _ in range(len(batches)):
            next(batches)
    wait_until(lambda: not list(dataset.files.folder.parent.parent.glob(".coming/*")))
    assert "file-003.parquet" not in [path.name for path in _shards(dataset.files.folder)]


def test_file_damaged_in_the_store_is_fetched_again(local_hub, pusht_webp, caplog):
    expected = epoch_of(sampler(stream(local_hub, pusht_webp)))
    [path] = dp_hub.stream_dataset("me/data").files.folder.rglob("file-002.parquet")
    flip_a_byte(path, 5000)
    dataset = dp_hub.stream_dataset("me/data")
    assert epoch_of(sampler(dataset)) == expected
    assert dataset.files.fetched == ["data/chunk-000/file-002.parquet"]
    assert "is damaged; fetching it again" in caplog.text


def test_hub_that_goes_away_is_explained_and_the_order_continues(
    local_hub, pusht_webp, tmp_path, caplog
):
    straight = sampler(stream(local_hub, pusht_webp), pool_mb=0.1)
    expected = [fingerprints(batch) for batch in islice(straight, len(straight))]
    straight.close()
    shutil.rmtree(straight.dataset.files.folder)
    dataset = dp_hub.stream_dataset("me/data", patience_s=4)
    batches, found = sampler(dataset, pool_mb=0.1), []
    found += [fingerprints(batch) for batch in islice(batches, 2)]
    wait_until(lambda: len(dataset.files.fetched) == 3)  # the library itself is patient, if midway
    port = int(local_hub.endpoint.rsplit(":", 1)[1])
    local_hub.__exit__(None, None, None)
    with pytest.raises(HubError, match=r"cannot be fetched, after .* s of trying") as caught:
        for batch in batches:
            found.append(fingerprints(batch))
    assert f"epoch 0, batch {len(found)}," in caught.value.hint and "--resume" in caught.value.hint
    assert "can't be reached" in caplog.text and "trying again in 1 s" in caplog.text
    assert 2 <= len(found) < len(expected)
    with LocalHub(tmp_path / "server", port=port):
        missing = len(expected) - len(found)
        found += [fingerprints(batch) for batch in islice(batches, missing)]
    assert found == expected


def test_hub_that_comes_back_in_time_is_waited_for(local_hub, pusht_webp, tmp_path, caplog):
    dataset = stream(local_hub, pusht_webp, patience_s=30)
    port = int(local_hub.endpoint.rsplit(":", 1)[1])
    local_hub.__exit__(None, None, None)
    running = []

    def start():
        running.append(LocalHub(tmp_path / "server", port=port).__enter__())

    timer = threading.Timer(1.5, start)
    timer.start()
    try:
        batches = sampler(dataset)
        next(batches)
    finally:
        timer.join()
        running[0].__exit__(None, None, None)
    assert "trying again" in caplog.text and batches.waited_s > 1


def test_folder_streams_the_same_batches_as_the_hub(local_hub, pictures):
    remote, local = stream(local_hub, pictures), dp_hub.stream_dataset(pictures)
    assert remote.fingerprint == local.fingerprint == dp_hub.open_dataset(pictures).fingerprint
    for one, other in islice(zip(sampler(remote), sampler(local), strict=True), 30):
        assert same(one, other)


def test_dataset_of_another_program_has_the_fingerprint_of_the_whole_one(
    local_hub, pusht_webp, tmp_path
):
    folder = tmp_path / "foreign"
    shutil.copytree(pusht_webp, folder)
    for name in ("dp_hub.json", "checksums.json"):
        (folder / "meta" / name).unlink(missing_ok=True)
    dataset = stream(local_hub, folder, "me/foreign")
    assert dataset.fingerprint == dp_hub.open_dataset(folder).fingerprint
    assert dataset.files.fetched == []


@pytest.mark.alone
def test_no_more_than_two_pools_are_in_memory(pusht_webp):
    def alive():
        return sum(type(one) is streaming_module._Loaded for one in gc.get_objects())

    gc.collect()
    before = alive()
    batches = sampler(dp_hub.stream_dataset(pusht_webp), pool_mb=0.1, batch_size=32)
    counts = []
    for _ in range(2 * len(batches)):
        next(batches)
        counts.append(alive() - before)
    assert 1 <= max(counts) <= 2


def test_pool_that_holds_everything_is_decoded_once(pusht_webp, monkeypatch):
    read = []
    original = streaming_module.read_episodes

    def counted(dataset, episodes, *args, **options):
        read.extend(episodes.tolist())
        return original(dataset, episodes, *args, **options)

    monkeypatch.setattr(streaming_module, "read_episodes", counted)
    batches = sampler(dp_hub.stream_dataset(pusht_webp), pool_mb=100)
    for _ in range(3 * len(batches)):
        next(batches)
    assert sorted(read) == [0, 1, 2, 3, 4]


PROCESS = """
import sys, dp_hub
from dp_hub.sampling.streaming import StreamingSampler
rank, world = int(sys.argv[1]), int(sys.argv[2])
dataset = dp_hub.stream_dataset("me/data")
batches = StreamingSampler(dataset, horizon=16, n_obs_steps=2, pad_before=1, pad_after=7,
    batch_size=8, pool_bytes=100_000, rank=rank, world_size=world)
for _ in range(2 * len(batches)):
    next(batches)
batches.close()
dataset.files.hold(dataset.files_of(["action"], list(range(dataset.n_episodes)))).release()
print(" ".join(dataset.files.fetched))
"""


def test_processes_of_a_machine_fetch_each_file_once(local_hub, pusht_webp, tmp_path):
    push(pusht_webp, "me/data", license="mit")
    env = os.environ | {"HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), "3"],
            env=env, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(3)
    ]  # fmt: skip
    fetched = [name for one in running for name in one.communicate(timeout=60)[0].split()]
    assert [one.returncode for one in running] == [0, 0, 0]
    assert sorted(fetched) == [DATA_PATH.format(chunk_index=0, file_index=i) for i in range(5)]


def test_process_that_is_killed_leaves_a_store_that_works(local_hub, pusht_webp, tmp_path):
    push(pusht_webp, "me/data", license="mit")
    env = os.environ | {"HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    code = PROCESS + "\nprint('ready', flush=True)\nimport time; time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, "0", "1"], env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        while process.stdout.readline() != "ready\n":
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    dataset = dp_hub.stream_dataset("me/data", store_gb=1e-6)
    batches = sampler(dataset, pool_mb=0.1)
    assert len(epoch_of(batches)) > 600
    batches.close()
    # Far below the size of a file: only what is in use is kept, and nothing of the dead process.
    wait_until(lambda: len(_shards(dataset.files.folder)) <= 2)
    assert len(dataset.files.fetched) >= 5


class InAWorker(IterableDataset):
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_process_draws_the_same_batches(local_hub, pusht_webp, start):
    dataset = stream(local_hub, pusht_webp)
    expected = [fingerprints(batch) for batch in islice(sampler(dataset), 12)]
    batches = sampler(dataset)
    found = [fingerprints(next(batches)) for _ in range(3)]  # threads and pools are under way
    loader = DataLoader(
        InAWorker(batches), batch_size=None, num_workers=1, multiprocessing_context=start
    )
    iterator = iter(loader)
    found += [fingerprints(next(iterator)) for _ in range(9)]
    del iterator
    assert found == expected


def test_several_workers_would_repeat_batches_and_are_refused(pusht_webp):
    loader = DataLoader(
        InAWorker(sampler(dp_hub.stream_dataset(pusht_webp))), batch_size=None, num_workers=2
    )
    with pytest.raises(ConfigError, match="2 workers would each draw all batches"):
        next(iter(loader))


def rewrite(path, change):
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def test_rows_out_of_order_are_refused_when_their_file_is_read(pusht_webp, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(pusht_webp, folder)
    order = pa.array([1, 0, *range(2, 118)])
    path = folder / "data/chunk-000/file-001.parquet"
    rewrite(path, lambda table: table.take(order.slice(0, min(len(order), table.num_rows))))
    with pytest.raises(DataError, match=r"file-001\.parquet (is not in order|has .* rows)"):
        epoch_of(sampler(dp_hub.stream_dataset(folder)))


def test_numbers_that_are_not_finite_are_refused_on_request(pusht_206_files, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(pusht_206_files, folder)

    def spoil(table):
        at = table.schema.get_field_index("observation.state")
        values = np.array(table.column(at).to_pylist(), np.float32)
        values[7, 2] = np.nan
        array = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 5)
        return table.set_column(at, table.field(at).name, array)

    rewrite(folder / "data/chunk-000/file-004.parquet", spoil)
    epoch_of(sampler(dp_hub.stream_dataset(folder)))
    with pytest.raises(DataError, match=r"observation\.state holds NaN or infinity"):
        epoch_of(sampler(dp_hub.stream_dataset(folder), require_finite=True))


def test_missing_feature_and_impossible_sizes_are_refused_at_once(pusht_webp):
    dataset = dp_hub.stream_dataset(pusht_webp)
    with pytest.raises(DataError, match=r"no column .observation\.touch"):
        sampler(dataset, keys=["observation.touch"])
    with pytest.raises(ConfigError, match="n_obs_steps is 17 with a horizon of 16"):
        sampler(dataset, n_obs_steps=17)
    with pytest.raises(ConfigError, match="do not fill one batch"):
        sampler(dataset, batch_size=1000)
    with pytest.raises(ConfigError, match="pool_bytes is 0"):
        sampler(dataset, pool_bytes=0)


def test_names_that_are_no_datasets_are_explained(local_hub, tmp_path):
    with pytest.raises(DataError, match=r"is not a dataset: it has no meta/info\.json"):
        dp_hub.stream_dataset(tmp_path)
    with pytest.raises(HubError, match="no dataset me/nothing"):
        dp_hub.stream_dataset("me/nothing")
    with pytest.raises(DataError, match="there is no folder nowhere, and it is not a name"):
        dp_hub.stream_dataset("nowhere")
    with pytest.raises(DataError, match="is a folder, which has no revision"):
        dp_hub.stream_dataset(Path(tmp_path), revision="main")
