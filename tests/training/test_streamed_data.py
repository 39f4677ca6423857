"""What a streamed run learns from, against the same run in memory."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import dp_hub
from dp_hub.config import build
from dp_hub.errors import DataError
from dp_hub.hub import push
from dp_hub.models.normalizer import Normalizer
from dp_hub.training.config import StreamingConfig, TrainConfig
from dp_hub.training.data import training_data

CPU = torch.device("cpu")


def configuration(**changes):
    values = {
        "dataset": "me/data",
        "out_dir": "unused",
        "split": {"val_ratio": 0.05},
        "batch_size": 32,
        "steps": 20,
    }
    return build(TrainConfig, values | changes, where="the test")


def both(folder, **changes):
    """The same training data in memory and streamed."""
    whole = training_data(dp_hub.open_dataset(folder), configuration(**changes), device=CPU)
    streaming = {"pool_mb": 1, "validation_episodes": 200}
    config = configuration(streaming=streaming, **changes)
    return whole, training_data(dp_hub.stream_dataset(folder), config, device=CPU)


def assert_close(one: Normalizer, other: Normalizer) -> None:
    """Minimum, maximum and what follows bit for bit; the rest to float32's last digits."""
    assert one.names == other.names and len(one.names) == 3
    for name in one.names:
        for key in ("min", "max"):
            assert torch.equal(getattr(one[name], key), getattr(other[name], key)), (name, key)
        for key in ("mean", "std"):
            torch.testing.assert_close(
                getattr(one[name], key), getattr(other[name], key), rtol=3e-7, atol=0
            )


@pytest.mark.parametrize("augment", [None, "pusht_mirror"])
@pytest.mark.parametrize("max_train_episodes", [None, 40])
def test_normaliser_is_that_of_the_fit_in_memory(pusht_206_files, augment, max_train_episodes):
    split = {"val_ratio": 0.05, "max_train_episodes": max_train_episodes}
    whole, streamed = both(pusht_206_files, augment=augment, split=split)
    assert_close(whole.normalizer, streamed.normalizer)
    for name in whole.normalizer.names:
        for key in ("scale", "offset"):
            one, other = (getattr(data.normalizer[name], key) for data in (whole, streamed))
            assert torch.equal(one, other), (name, key)
    assert whole.features == streamed.features and whole.record == streamed.record
    assert len(whole.batches) == len(streamed.batches)


def test_normaliser_needs_no_download(local_hub, pusht_206_files):
    push(pusht_206_files, "me/data", license="mit")
    dataset = dp_hub.stream_dataset("me/data")
    data = training_data(dataset, configuration(streaming=True), device=CPU)
    assert dataset.files.fetched == [] and data.normalizer["action"].max.max() > 500


def without_statistics(folder, to):
    shutil.copytree(folder, to)
    [path] = (to / "meta/episodes").rglob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(
        table.drop_columns([name for name in table.column_names if name.startswith("stats/")]), path
    )
    return to


def test_dataset_without_statistics_is_read_once_for_the_same_normaliser(pusht_206_files, tmp_path):
    folder = without_statistics(pusht_206_files, tmp_path / "plain")
    policy = {"normalization": "gaussian"}
    whole, streamed = both(folder, policy=policy)
    assert_close(whole.normalizer, streamed.normalizer)


def test_validation_windows_are_those_in_memory_if_all_episodes_are_taken(pusht_206_files):
    whole, streamed = both(pusht_206_files)
    assert len(whole.val) == len(streamed.val) > 500
    rows = np.arange(len(whole.val))
    one, other = whole.val.__getitems__(rows), streamed.val.__getitems__(rows)
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert torch.equal(values, other[name]), name


def test_held_out_episodes_are_a_bounded_sample_and_never_train(local_hub, pusht_206_files):
    push(pusht_206_files, "me/data", license="mit")
    dataset = dp_hub.stream_dataset("me/data")
    config = configuration(
        streaming={"validation_episodes": 3, "pool_mb": 1}, split={"val_ratio": 0.2}
    )
    data = training_data(dataset, config, device=CPU)
    assert 3 * 40 < len(data.val) < 3 * 300
    data.val.__getitems__([0])
    assert len(dataset.files.fetched) == 3
    held_out = set(dataset.files.fetched)
    trained = {name for pool in data.batches._pools for name in data.batches._files(pool)}
    assert len(trained) == 165 and not trained & held_out


def test_folder_with_a_missing_file_says_so(pusht_206_files, tmp_path):
    shutil.copytree(pusht_206_files, tmp_path / "data")
    (tmp_path / "data/data/chunk-000/file-100.parquet").unlink()
    config = configuration(streaming={"pool_mb": 1})
    data = training_data(dp_hub.stream_dataset(tmp_path / "data"), config, device=CPU)
    with pytest.raises(DataError, match=r"file-100\.parquet is missing"):
        for _ in range(len(data.batches)):
            next(data.batches)


@pytest.mark.parametrize(
    ("given", "made"),
    [(True, StreamingConfig()), (False, None), ({"pool_mb": 7}, StreamingConfig(pool_mb=7))],
)
def test_streaming_is_switched_on_by_true_or_by_its_settings(given, made):
    assert configuration(streaming=given).streaming == made
