"""``dp-hub convert`` and ``dp-hub export`` as a person types them."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dp_hub.replay.buffer import write_replay


def dp_hub(*arguments, **options):
    command = [sys.executable, "-m", "dp_hub.cli.main", *map(str, arguments)]
    code = "from dp_hub.cli.main import main; main()"
    command[1:3] = ["-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(scope="module")
def converted(tmp_path_factory, pusht_first5_zip):
    folder = tmp_path_factory.mktemp("cli")
    return folder, dp_hub(
        "convert", "zarr", pusht_first5_zip, "--to", folder / "ds",
        "--map", "n_contacts=contacts", "--task", "Push the T.", "--robot", "pusht",
    )  # fmt: skip


def test_summary_names_counts_mapping_and_what_to_do_next(converted):
    folder, done = converted
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 episodes, 738 frames at 10 Hz" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["img", "observation.image", "image", "(webp)", "96x96x3"] in lines
    assert ["n_contacts", "contacts", "float32", "1"] in lines
    assert "Push the T." in done.stdout
    assert f"next: dp-hub push {folder / 'ds'} USER/NAME" in done.stdout


def test_export_command_lists_keys_as_in_the_source(converted):
    folder, _ = converted
    done = dp_hub("export", "zarr", folder / "ds", "--to", folder / "out.zarr.zip")
    assert (done.returncode, done.stderr) == (0, "")
    assert "data/keypoint  float32  9x2" in done.stdout
    assert (folder / "out.zarr.zip").is_file()


def test_existing_target_is_two_lines_on_stderr(converted, pusht_first5_zip):
    folder, _ = converted
    done = dp_hub("convert", "zarr", pusht_first5_zip, "--to", folder / "ds")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {folder / 'ds'} already exists\n\nhint: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--map", "state"], "is not KEY=FEATURE"),
        (["--map", "state=a", "--map", "state=b"], "names state twice"),
        (["--drop", "stat"], "did you mean `state`?"),
        (["--option", "missing_chunks=maybe"], "it is --option missing_chunks=error|fill"),
    ],
)
def test_wrong_options_say_what_is_wrong(tmp_path, pusht_first5_zip, arguments, message):
    done = dp_hub("convert", "zarr", pusht_first5_zip, "--to", tmp_path / "ds", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_real_buffer_with_a_missing_chunk_is_refused(tmp_path, shared_data):
    source = shared_data / "samples/blockpush/multimodal_push_seed.zarr"
    done = dp_hub("convert", "zarr", source, "--to", tmp_path / "ds")
    assert done.returncode == 1
    assert "data/obs has no chunk 0.0" in done.stderr
    filled = dp_hub(
        "convert", "zarr", source, "--to", tmp_path / "ds", "--option", "missing_chunks=fill"
    )
    assert filled.returncode == 0
    assert "note: data/obs: 1 chunks are not stored, read as fill" in filled.stdout


def test_help_lists_the_installed_formats_with_options_and_what_they_need():
    began = time.monotonic()
    done = dp_hub("convert", "--help")
    text = " ".join(done.stdout.partition("Formats:")[2].split())
    assert time.monotonic() - began < 5  # 0.3 s on a machine at rest
    assert "zarr Diffusion Policy's replay buffer" in text
    assert "options: missing_chunks=error|fill" in text
    assert 'needs: pip install "dp_hub[hdf5]"' in text


def test_left_out_episodes_are_told_at_once_and_in_the_end(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [{"action": rng.normal(size=(4, 2))} for _ in range(4)]
    episodes[2]["action"][1] = np.nan
    source = write_replay(tmp_path / "in.zarr", episodes, {})
    words = ["convert", "zarr", source, "--to", tmp_path / "ds"]
    stopped = dp_hub(*words)
    assert stopped.returncode == 1 and "action of episode 2 is" in stopped.stderr
    done = dp_hub(*words, "--skip-bad", "--workers", "2")
    assert done.returncode == 0
    assert "left out: episode 2: action of episode 2 is" in done.stderr
    told = "1 bad episode was left out (also listed in meta/dp_hub.json):\n  episode 2: action"
    assert told in done.stdout
    assert "3 episodes, 12 frames" in done.stdout


def test_a_mapping_and_names_for_keys_exclude_each_other(tmp_path, pusht_first5_zip):
    (tmp_path / "m.yaml").write_text("features: {action: {from: action}}\n")
    words = ["convert", "zarr", pusht_first5_zip, "--to", tmp_path / "ds"]
    words += ["--mapping", tmp_path / "m.yaml"]
    assert "both --mapping and --map" in dp_hub(*words, "--map", "state=x").stderr
    done = dp_hub(*words)
    assert done.returncode == 0
    assert "5 episodes, 738 frames at 10 Hz" in done.stdout


def test_interrupt_leaves_nothing_at_the_target_and_the_same_command_goes_on(tmp_path, pusht_zip):
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = heed + "from dp_hub.cli.main import main; main()"  # a shell may have it ignored
    words = ["convert", "zarr", str(pusht_zip), "--to", str(tmp_path / "ds")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".ds.*/data/*/.*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr and "the same command goes on from there" in stderr
    assert sorted(os.listdir(tmp_path)) == [".ds.partial", ".ds.partial.json"]
    done = dp_hub(*words)
    assert done.returncode == 0 and "continuing after" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["ds"]


def test_export_command_to_lerobots_older_format_says_what_it_made(converted):
    folder, _ = converted
    done = dp_hub("export", "lerobot-v21", folder / "ds", "--to", folder / "v21")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder / 'v21'}: 5 episodes, 738 frames (LeRobot v2.1)\n"
    again = dp_hub("export", "lerobot-v21", folder / "ds", "--to", folder / "v21")
    assert again.returncode == 1 and "already exists" in again.stderr
