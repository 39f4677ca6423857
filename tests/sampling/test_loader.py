"""Batches against a slow loop, and their order across epochs, processes and restarts."""

import multiprocessing
import os
import pickle  # noqa: TID251 - what torch does to send a dataset to a worker
import time
from itertools import chain

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from dp_hub.errors import ConfigError, DataError
from dp_hub.sampling import DeviceSampler, WindowDataset, make_loader, window_table
from dp_hub.sampling.frame_file import FrameFile
from dp_hub.sampling.order import EpochBatches

HORIZON, N_OBS_STEPS = 16, 2


@pytest.fixture(scope="module")
def pusht(pusht_first5_zip):
    """Columns and episode ends of five real demonstrations."""
    group = zarr.open_group(zarr.storage.ZipStore(pusht_first5_zip), mode="r")
    columns = {
        "observation.environment_state": group["data/keypoint"][:].reshape(-1, 18),
        "observation.state": group["data/state"][:],
        "observation.image": group["data/img"][:],
        "action": group["data/action"][:],
        "next.reward": np.zeros(738, np.float32),
    }
    return columns, group["meta/episode_ends"][:]


@pytest.fixture
def windows(pusht):
    columns, ends = pusht
    table = window_table(ends, HORIZON, pad_before=1, pad_after=7)
    return WindowDataset(columns, table, horizon=HORIZON, n_obs_steps=N_OBS_STEPS)


def slow_window(columns, ends, number):
    """Window ``number`` by walking over episodes and clamping every step."""
    begin = 0
    for end in ends:
        here = end - begin - HORIZON + 1 + 7 + 1
        if number < here:
            steps = [begin - 1 + number + k for k in range(HORIZON)]
            clamped = [min(max(step, begin), end - 1) for step in steps]
            window = {
                name: np.stack([column[step] for step in clamped[:N_OBS_STEPS]])
                for name, column in columns.items()
                if name.startswith("observation")
            }
            window["action"] = np.stack([columns["action"][step] for step in clamped])
            window["action_is_pad"] = np.array(
                [step != inside for step, inside in zip(steps, clamped, strict=True)]
            )
            return window
        number, begin = number - here, end
    raise IndexError


def small_windows(n_frames=40, horizon=4, n_obs_steps=2):
    columns = {
        "observation.state": np.arange(n_frames, dtype=np.float64)[:, None],
        "action": np.arange(n_frames, dtype=np.float32),
    }
    table = window_table(np.array([n_frames]), horizon, pad_before=1, pad_after=1)
    return WindowDataset(columns, table, horizon=horizon, n_obs_steps=n_obs_steps)


def test_every_window_of_real_data_equals_a_slow_loop(pusht, windows):
    columns, ends = pusht
    batch = windows.__getitems__(range(len(windows)))
    assert len(windows) == 738 - 7 * 5
    assert set(batch) == {
        "observation.environment_state",
        "observation.state",
        "observation.image",
        "action",
        "action_is_pad",
    }
    for number in range(len(windows)):
        expected = slow_window(columns, ends, number)
        for name, values in expected.items():
            np.testing.assert_array_equal(batch[name][number].numpy(), values, err_msg=name)


def test_shapes_and_types_are_the_batch_contract(windows):
    batch = windows.__getitems__([3, 700, 5])
    shapes = {name: (tuple(values.shape), values.dtype) for name, values in batch.items()}
    assert shapes == {
        "observation.environment_state": ((3, 2, 18), torch.float32),
        "observation.state": ((3, 2, 5), torch.float32),
        "observation.image": ((3, 2, 96, 96, 3), torch.uint8),
        "action": ((3, 16, 2), torch.float32),
        "action_is_pad": ((3, 16), torch.bool),
    }


def test_one_item_is_a_row_of_a_batch(windows):
    batch = windows.__getitems__([17])
    for name, values in windows[17].items():
        assert torch.equal(values, batch[name][0])


def test_numbers_become_float32_and_scalars_get_a_dimension():
    batch = small_windows().__getitems__([0, 1])
    assert batch["observation.state"].dtype == torch.float32
    assert batch["action"].shape == (2, 4, 1)


def test_keys_choose_the_observed_columns(pusht):
    columns, ends = pusht
    table = window_table(ends, HORIZON, pad_before=1, pad_after=7)
    chosen = WindowDataset(
        columns, table, horizon=HORIZON, n_obs_steps=1, keys=["next.reward", "observation.state"]
    )
    assert set(chosen[0]) == {"next.reward", "observation.state", "action", "action_is_pad"}


def test_a_missing_column_is_named_with_those_there_are(pusht):
    columns, ends = pusht
    table = window_table(ends, HORIZON, pad_before=1, pad_after=7)
    with pytest.raises(DataError, match=r"no column 'observation.depth'[^$]*observation.image"):
        WindowDataset(columns, table, horizon=HORIZON, n_obs_steps=2, keys=["observation.depth"])


def test_what_does_not_fit_the_table_is_refused(pusht):
    columns, ends = pusht
    table = window_table(ends, HORIZON, pad_before=1, pad_after=7)
    with pytest.raises(ConfigError, match="horizon is 8"):
        WindowDataset(columns, table, horizon=8, n_obs_steps=2)
    with pytest.raises(ConfigError, match="n_obs_steps is 17"):
        WindowDataset(columns, table, horizon=HORIZON, n_obs_steps=17)
    short = {name: column[:-1] for name, column in columns.items()}
    with pytest.raises(DataError, match="737 frames, but the windows reach 738"):
        WindowDataset(short, table, horizon=HORIZON, n_obs_steps=2)


def rows_of(loader):
    """The first action of every window, which in ``small_windows`` tells them apart."""
    return [batch["action"][:, 1, 0].int().tolist() for batch in loader]


def test_an_epoch_has_every_window_once_and_the_next_one_another_order():
    loader = make_loader(small_windows(), batch_size=5, seed=3, drop_last=False)
    first, second = rows_of(loader), rows_of(loader)
    assert len(first) == len(loader) == 8
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(39))
    assert first != second


def test_order_depends_on_nothing_but_seed_and_epoch():
    one = make_loader(small_windows(), batch_size=5, seed=3)
    other = make_loader(small_windows(), batch_size=5, seed=3)
    rows_of(one)
    other.set_epoch(1)
    assert rows_of(one) == rows_of(other)
    other.set_epoch(0)
    another_seed = make_loader(small_windows(), batch_size=5, seed=4)
    assert rows_of(other) != rows_of(another_seed)


def test_a_pass_can_start_at_any_batch_of_an_epoch():
    whole = make_loader(small_windows(), batch_size=5, seed=3)
    whole.set_epoch(4)
    expected = rows_of(whole)
    resumed = make_loader(small_windows(), batch_size=5, seed=3)
    assert len(expected) == 7
    for start in range(len(expected) + 1):
        resumed.set_epoch(4, start)
        assert rows_of(resumed) == expected[start:]
    with pytest.raises(ConfigError, match="no batch 8 of epoch 4"):
        resumed.set_epoch(4, 8)


def test_without_shuffling_every_epoch_is_in_the_order_of_the_table():
    loader = make_loader(small_windows(), batch_size=39, shuffle=False)
    assert rows_of(loader) == rows_of(loader) == [list(range(39))]


@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 5), st.booleans(), st.booleans())
def test_processes_share_what_one_process_would_see(n, batch_size, world_size, shuffle, drop_last):
    if drop_last and n < batch_size * world_size:
        return
    options = {"seed": 7, "shuffle": shuffle, "drop_last": drop_last}
    ranks = [
        list(EpochBatches(n, batch_size=batch_size, rank=rank, world_size=world_size, **options))
        for rank in range(world_size)
    ]
    alone = list(EpochBatches(n, batch_size=batch_size * world_size, **options))
    assert {len(batches) for batches in ranks} == {len(alone)}
    for number, expected in enumerate(alone):
        together = np.concatenate([batches[number] for batches in ranks])
        np.testing.assert_array_equal(together[: len(expected)], expected)
        assert len(together) - len(expected) < world_size
        assert len({len(batches[number]) for batches in ranks}) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 40}, "39 windows do not fill one batch of 40"),
        ({"batch_size": 20, "world_size": 2}, "for each of 2"),
        ({"batch_size": 2, "rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"batch_size": 2, "seed": -1}, "seed is -1"),
    ],
)
def test_sizes_that_give_no_batch_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        make_loader(small_windows(), **options)


def test_the_loader_survives_pickling_and_goes_on_the_same():
    loader = make_loader(small_windows(), batch_size=5, seed=3)
    loader.set_epoch(2, 1)
    copy = pickle.loads(pickle.dumps(loader))  # noqa: S301
    assert rows_of(copy) == rows_of(loader)


def test_worker_processes_give_the_same_batches():
    plain = make_loader(small_windows(), batch_size=10, seed=3)
    workers = make_loader(small_windows(), batch_size=10, seed=3, num_workers=1)
    assert rows_of(workers) == rows_of(plain)


def image_windows(path):
    images = np.memmap(path, np.uint8, "w+", shape=(40, 8, 8, 3), offset=128)
    images[:] = np.arange(40)[:, None, None, None]
    images.flush()
    columns = {
        "observation.image": np.memmap(path, np.uint8, "r", shape=images.shape, offset=128),
        "action": np.zeros((40, 2), np.float32),
    }
    table = window_table(np.array([40]), 4, pad_before=1, pad_after=1)
    return WindowDataset(columns, table, horizon=4, n_obs_steps=2)


def send_back_an_image(windows, queue):
    queue.put(windows[10]["observation.image"][:, 0, 0, 0].tolist())


def test_memory_maps_are_sent_to_another_process_by_name(tmp_path):
    windows = image_windows(tmp_path / "images.bin")
    assert len(pickle.dumps(windows)) < 5_000
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=send_back_an_image, args=(windows, queue))
    process.start()
    assert queue.get(timeout=60) == [9, 10]
    process.join()


@pytest.mark.parametrize("n_obs_steps", [1, 2, 5])
def test_windows_read_from_a_file_are_those_of_the_array(tmp_path, n_obs_steps):
    images = np.random.default_rng(0).integers(0, 256, (41, 3, 4, 3), np.uint8)
    path = tmp_path / "images.bin"
    path.write_bytes(b"head" + images.tobytes())
    mapped = np.memmap(path, np.uint8, mode="r", offset=4, shape=images.shape)
    # Episodes shorter than what is observed too: both edges repeat within one window.
    table = window_table(np.array([2, 13, 14, 41]), 8, pad_before=7, pad_after=7)
    actions = np.zeros((41, 1), np.float32)
    batches = [
        WindowDataset(
            {"observation.image": column, "action": actions},
            table,
            horizon=8,
            n_obs_steps=n_obs_steps,
        ).__getitems__(np.arange(len(table)))
        for column in (images, mapped)
    ]
    assert torch.equal(batches[0]["observation.image"], batches[1]["observation.image"])
    assert len(table) == 41 + 4 * 7


def test_slices_of_a_memory_map_are_read_where_they_lie(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (41, 3, 4, 3), np.uint8)
    path = tmp_path / "images.bin"
    path.write_bytes(bytes(5000) + images.tobytes())
    mapped = np.memmap(path, np.uint8, mode="r", offset=5000, shape=images.shape)
    frames = np.array([[3, 4], [0, 0]])
    for part in (mapped, mapped[7:], mapped[10:20]):
        file = pickle.loads(pickle.dumps(FrameFile.of(part)))  # noqa: S301
        np.testing.assert_array_equal(file.windows(frames), np.asarray(part)[frames])
    assert FrameFile.of(mapped[::2]) is None  # read through the map
    assert FrameFile.of(images) is None


def test_a_file_that_was_cut_short_is_told(tmp_path):
    path = tmp_path / "images.bin"
    windows = image_windows(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"images.bin ends at byte \d+; it was longer"):
        windows.__getitems__(np.arange(len(windows)))


def test_the_cache_is_closed_with_the_windows(tmp_path):
    windows = image_windows(tmp_path / "images.bin")
    descriptor = windows.observed["observation.image"]._descriptor
    os.fstat(descriptor)
    del windows
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_the_device_sampler_draws_the_loaders_batches(pusht, windows):
    loader = make_loader(windows, batch_size=100, seed=5)
    sampler = DeviceSampler(
        pusht[0], windows.table, n_obs_steps=N_OBS_STEPS, batch_size=100, seed=5
    )
    assert len(sampler) == len(loader) == 7
    n_batches = 0
    for _ in range(2):
        for expected in loader:
            batch = next(sampler)
            assert set(batch) == set(expected)
            assert all(torch.equal(batch[name], expected[name]) for name in expected)
            n_batches += 1
    assert n_batches == 14


def test_the_device_sampler_resumes_exactly_in_mid_epoch_and_at_its_end():
    windows = small_windows()
    columns = {"observation.state": np.arange(40.0)[:, None], "action": np.arange(40.0)}

    def sampler(**options):
        return DeviceSampler(
            columns, windows.table, n_obs_steps=2, batch_size=13, seed=1, **options
        )

    running = sampler()
    states, batches = [], []
    for _ in range(8):
        states.append(running.state_dict())
        batches.append(next(running)["action"])
    for number, state in enumerate(states):
        resumed = sampler()
        resumed.load_state_dict(state)
        for expected in batches[number:]:
            assert torch.equal(next(resumed)["action"], expected)
    with pytest.raises(ConfigError, match="world_size was 1, is 3"):
        sampler(rank=1, world_size=3).load_state_dict(states[0])


def test_the_device_samplers_of_a_training_share_the_windows():
    windows = small_windows()
    columns = {"action": np.arange(40.0)}
    seen = []
    for rank in range(3):
        mine = DeviceSampler(
            columns, windows.table, n_obs_steps=1, batch_size=13, rank=rank, world_size=3
        )
        seen += next(mine)["action"][:, 1, 0].tolist()
    assert sorted(seen) == list(range(39))


def test_the_loader_is_fast(pusht):
    columns, ends = pusht
    low = {name: column for name, column in columns.items() if column.ndim == 2}
    table = window_table(ends, HORIZON, pad_before=1, pad_after=7)
    windows = WindowDataset(low, table, horizon=HORIZON, n_obs_steps=N_OBS_STEPS)
    loader = make_loader(windows, batch_size=256)
    rates = []
    for _ in range(20):
        began, n_windows = time.perf_counter(), 0
        for batch in loader:
            n_windows += len(batch["action"])
        rates.append(n_windows / (time.perf_counter() - began))
    assert max(rates) > 300_000  # over 3 million a second on a quiet core: benchmarks/windows.py


@given(
    n=st.integers(1, 200),
    size=st.integers(1, 12),
    group=st.integers(1, 4),
    epoch=st.integers(0, 2),
)
@settings(max_examples=50)
def test_epoch_has_the_same_windows_however_a_steps_are_split_into_batches(n, size, group, epoch):
    if n < size * group:
        with pytest.raises(ConfigError, match="do not fill"):
            EpochBatches(n, batch_size=size, group=group)
        return
    whole, parts = (
        EpochBatches(n, batch_size=size * group),
        EpochBatches(n, batch_size=size, group=group),
    )
    for batches in (whole, parts):
        batches.set_epoch(epoch)
    assert len(parts) == group * len(whole)
    assert np.array_equal(np.concatenate(list(whole)), np.concatenate(list(parts)))
