"""``dp-hub export hdf5`` as a person types it."""

import subprocess
import sys

import h5py
import numpy as np

from dp_hub.dataset.convert import convert
from dp_hub.replay.buffer import write_replay


def test_export_command_to_hdf5_says_what_it_made(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [{"action": rng.normal(size=(5, 2)), "state": rng.normal(size=(5, 3))}]
    source = write_replay(tmp_path / "in.zarr", episodes, {"fps": 10})
    convert("zarr", source, tmp_path / "ds")
    run = [sys.executable, "-c", "from dp_hub.cli.main import main; main()", "export", "hdf5"]
    run += [str(tmp_path / "ds"), "--to", str(tmp_path / "out.hdf5")]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 episodes, 5 frames (robomimic HDF5)" in done.stdout
    assert "actions  float64  2" in done.stdout
    assert "obs/state  float64  3" in done.stdout
    with h5py.File(tmp_path / "out.hdf5") as file:
        np.testing.assert_array_equal(file["data/demo_0/actions"][:], episodes[0]["action"])
    again = subprocess.run(run, capture_output=True, text=True)
    assert again.returncode != 0
    assert "already exists" in again.stderr
    assert "Traceback" not in again.stderr
