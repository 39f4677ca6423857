"""``dp-hub record pusht`` as people type it."""

import subprocess
import sys

import pytest

from dp_hub.replay.buffer import open_replay


def dp_hub(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", "from dp_hub.cli.main import main; main()", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_demonstrator_is_recorded(tmp_path):
    done = dp_hub(
        *("record", "pusht", "--expert", "--episodes", "2", "--seed", "40", "--to", "a.zarr.zip"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    replay = open_replay(tmp_path / "a.zarr.zip")
    assert replay.n_episodes == 2
    assert done.stdout == f"a.zarr.zip: 2 episodes, {replay.n_steps} steps\n"
    assert "2/2 episodes" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--expert", "--to", "there.zarr.zip"], "there.zarr.zip already exists"),
        (["--expert", "--episodes", "0", "--to", "a.zarr.zip"], "--episodes is 0"),
        (["--workers", "2", "--to", "a.zarr"], "--workers is for the scripted demonstrator"),
        (["--images", "--to", "a.zarr"], "--images/--no-images is for the scripted"),
        (["--to", "a.zarr.zip"], "cannot be appended to a zip"),
        (["--episodes", "0", "--to", "a.zarr"], "--episodes is 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_explained_and_nothing_is_written(arguments, message, tmp_path):
    (tmp_path / "there.zarr.zip").write_text("mine")
    done = dp_hub("record", "pusht", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert f"error: {message}" in done.stderr or message in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there.zarr.zip"]
    assert (tmp_path / "there.zarr.zip").read_text() == "mine"


@pytest.mark.parametrize("driver", ["x11", None])
def test_without_a_display_the_window_is_explained(tmp_path, monkeypatch, driver):
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    if driver:
        monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = dp_hub("record", "pusht", "--to", "a.zarr", cwd=tmp_path)
    assert done.returncode == 1
    assert "error: no window can be opened here" in done.stderr
    assert "--expert" in done.stderr
    assert list(tmp_path.iterdir()) == []
