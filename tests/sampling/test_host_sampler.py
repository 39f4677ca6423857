"""Batches read ahead on the host are those of the sampler on the device, and continue like them."""

import json

import numpy as np
import pytest
import torch

from dp_hub.errors import ConfigError
from dp_hub.sampling import DeviceSampler, HostSampler, WindowDataset, window_table

ENDS = np.array([7, 19, 40])


def columns():
    rng = np.random.default_rng(0)
    return {
        "observation.state": rng.normal(size=(40, 3)).astype(np.float32),
        "observation.image": rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8),
        "action": rng.normal(size=(40, 2)).astype(np.float32),
    }


def samplers(**options):
    table = window_table(ENDS, 8, pad_before=1, pad_after=3)
    windows = WindowDataset(columns(), table, horizon=8, n_obs_steps=2)
    options = {"batch_size": 4, "seed": 3} | options
    host = HostSampler(windows, **options)
    return host, DeviceSampler(columns(), table, n_obs_steps=2, **options)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("options", [{}, {"rank": 1, "world_size": 2}], ids=["alone", "second"])
def test_batches_and_positions_are_those_of_the_device_sampler_over_epochs(options):
    host, device = samplers(**options)
    assert len(host) == len(device) > 2
    for _ in range(2 * len(host) + 1):
        assert same(next(host), next(device))
        assert host.state_dict() == device.state_dict()


def test_continues_from_any_position_also_at_the_end_of_an_epoch():
    host, _ = samplers()
    states, batches = [], []
    for _ in range(2 * len(host) + 2):
        states.append(json.loads(json.dumps(host.state_dict())))
        batches.append(next(host))
    for state, batch in zip(states, batches, strict=True):
        other, _ = samplers()
        next(other)
        other.load_state_dict(state)
        assert same(next(other), batch)


def test_position_of_other_settings_is_refused():
    host, _ = samplers()
    with pytest.raises(ConfigError, match="seed was 4, is 3"):
        host.load_state_dict(host.state_dict() | {"seed": 4})


def test_trouble_while_reading_ahead_is_raised_where_the_batch_is_asked_for(tmp_path):
    path = tmp_path / "pictures.npy"
    np.save(path, columns()["observation.image"])
    mapped = columns() | {"observation.image": np.load(path, mmap_mode="r")}
    table = window_table(ENDS, 8, pad_before=1, pad_after=3)
    windows = WindowDataset(mapped, table, horizon=8, n_obs_steps=2)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(Exception, match="it was longer when opened"):
        for _ in HostSampler(windows, batch_size=4):
            pass
