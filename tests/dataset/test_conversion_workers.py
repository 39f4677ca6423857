"""Several processes convert what one does, byte for byte, and end cleanly however they end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conversions_made import MAPPING, files_of, interrupt_at, names_in, write_rows, write_streams

from dp_hub.dataset.conversion import workers as conversion_workers
from dp_hub.dataset.conversion.request import StoppedError
from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

HERE = Path(__file__).parent


def rows(made, n=11, **others):
    return write_rows(made / "rows.json", [{"steps": 4 + i % 3} for i in range(n)], **others)


@pytest.mark.parametrize(
    ("options", "images"),
    [({"pictures": 0}, "auto"), ({"pictures": 16}, "webp"), ({"pictures": 32}, "video")],
)
def test_any_number_of_processes_writes_the_same_bytes(made, options, images):
    source = rows(made)
    for workers in (1, 2, 3):
        to = made / "out" / str(workers)
        done = convert("made-rows", source, to, options=options, images=images, workers=workers)
        assert done.written.n_episodes == 11
    one = files_of(made / "out/1")
    assert len(one) >= 6
    assert files_of(made / "out/2") == one
    assert files_of(made / "out/3") == one


def test_the_order_holds_over_many_turns_of_a_source_that_does_not_tell_its_length(made):
    source = write_rows(made / "rows.json", [{"steps": 2} for _ in range(150)])
    options = {"count": "unknown"}
    convert("made-rows", source, made / "out/1", options=options)
    convert("made-rows", source, made / "out/3", options=options, workers=3)
    assert files_of(made / "out/3") == files_of(made / "out/1")
    assert open_dataset(made / "out/3").n_episodes == 150


@pytest.mark.parametrize("split", ["flag", "recording"])
def test_recordings_come_out_the_same_split_or_not(made, split):
    flags = [[10, 4], [], [7], [3, 9, 5], [8]]
    source = write_streams(made / "streams.json", [{"flags": one} for one in flags])
    text = MAPPING if split == "flag" else MAPPING.replace("episodes:", "# episodes:")
    (made / "m.yaml").write_text(text)
    for workers in (1, 2, 3):
        done = convert(
            "made-streams", source, made / f"out/{workers}", mapping=made / "m.yaml",
            workers=workers,
        )  # fmt: skip
        assert done.written.n_episodes == (7 if split == "flag" else 5)
        assert done.alignment.episodes == done.written.n_episodes
    one = files_of(made / "out/1")
    assert "meta/alignment.json" in one
    assert files_of(made / "out/2") == one
    assert files_of(made / "out/3") == one


def test_real_demonstrations_come_out_the_same_of_two_processes(tmp_path, pusht_first5_zip):
    for workers in (1, 2):
        convert("zarr", pusht_first5_zip, tmp_path / str(workers), workers=workers)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


def test_interrupted_conversion_goes_on_with_another_number_of_processes(made):
    source = rows(made)
    convert("made-rows", source, made / "out/whole")
    for n_episodes, workers in ((2, 2), (5, 3), (9, 1)):
        with pytest.raises(KeyboardInterrupt):
            convert(
                "made-rows", source, made / "out/ds", workers=workers,
                on_progress=interrupt_at(n_episodes),
            )  # fmt: skip
        assert names_in(made / "out") == [".ds.partial", ".ds.partial.json", "whole"]
    convert("made-rows", source, made / "out/ds", workers=2)
    assert files_of(made / "out/ds") == files_of(made / "out/whole")


def test_an_episode_that_cannot_be_read_ends_the_conversion_as_with_one_process(made):
    listed = [{"steps": 3, "bad": "read" if i == 4 else None} for i in range(9)]
    source = write_rows(made / "rows.json", listed)
    told = []
    for workers in (1, 2):
        with pytest.raises(DataError, match="episode 4 is cut short") as caught:
            convert("made-rows", source, made / "out/ds", workers=workers)
        told.append(str(caught.value))
        assert names_in(made / "out") == []
    assert told[0] == told[1]


def test_a_process_that_is_killed_ends_the_conversion_which_goes_on(made, monkeypatch):
    source = rows(made, n=30)
    convert("made-rows", source, made / "out/whole", options={"pause_s": 0.05})
    monkeypatch.setattr("dp_hub.dataset.conversion.run._TURN_ITEMS", 2)

    def kill_one(progress):
        if progress.episodes == 3:
            here = os.getpid()
            for child in Path(f"/proc/{here}/task/{here}/children").read_text().split():
                if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                    os.kill(int(child), signal.SIGKILL)
                    return
            raise AssertionError("there is no process")

    with pytest.raises(StoppedError, match="ended with status -9"):
        convert(
            "made-rows", source, made / "out/ds", options={"pause_s": 0.05}, workers=2,
            on_progress=kill_one,
        )  # fmt: skip
    assert 3 <= open_dataset(made / "out/.ds.partial").n_episodes < 30
    convert("made-rows", source, made / "out/ds", options={"pause_s": 0.05}, workers=2)
    assert files_of(made / "out/ds") == files_of(made / "out/whole")


KILLED = """
import sys, time
if __name__ == "__main__":
    sys.path[:0] = sys.argv[1:3]
    from dp_hub.dataset.conversion import run as conversion_run
    conversion_run.COMMIT_S = 0.0
    from dp_hub.dataset.convert import convert
    def tell(progress):
        print(progress.episodes, flush=True)
        if progress.episodes == int(sys.argv[5]):
            time.sleep(60)  # here it ends
    convert("made-rows", sys.argv[3], sys.argv[4], options={"pause_s": 0.02}, workers=2,
            skip_bad=True, on_progress=tell)
"""


@pytest.mark.parametrize("after", [1, 13])
def test_killed_conversion_leaves_no_process_and_goes_on_to_the_same_bytes(made, after):
    listed = [{"steps": 3, "bad": "nan" if i % 5 == 2 else None} for i in range(30)]
    source = write_rows(made / "rows.json", listed)
    settings = {"options": {"pause_s": 0.02}, "skip_bad": True}
    convert("made-rows", source, made / "out/whole", **settings)
    script = made / "killed.py"
    script.write_text(KILLED)
    installed = next(p for p in sys.path if list(Path(p).glob("made_formats-*.dist-info")))
    process = subprocess.Popen(
        [
            sys.executable,
            str(script),
            installed,
            str(HERE),
            str(source),
            str(made / "out/ds"),
            str(after),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if int(line) == after:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.kill()
            break
    process.wait()
    assert len(children) >= 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}/cmdline").exists() for child in children):
        assert time.monotonic() < deadline, "a process lives on"
        time.sleep(0.05)
    assert after <= open_dataset(made / "out/.ds.partial").n_episodes < 24
    done = convert("made-rows", source, made / "out/ds", workers=2, **settings)
    assert [one.number for one in done.bad] == [2, 7, 12, 17, 22, 27]
    assert files_of(made / "out/ds") == files_of(made / "out/whole")


def test_no_process_waits_with_more_than_the_limit(made, monkeypatch):
    monkeypatch.setattr(conversion_workers, "_HELD_BYTES", 1)
    source = rows(made, n=40)
    convert("made-rows", source, made / "out/1")
    convert("made-rows", source, made / "out/3", workers=3)
    assert files_of(made / "out/3") == files_of(made / "out/1")


def test_a_failure_of_ours_in_a_process_is_told_whole(made):
    source = rows(made)
    source.write_text(json.dumps({"episodes": [{"steps": 3}, {"steps": 3}, {}]}))
    with pytest.raises(KeyError, match="steps"):
        convert("made-rows", source, made / "out/ds")


def test_ctrl_c_in_a_terminal_ends_all_processes_quietly(made):
    source = rows(made, n=60)
    script = made / "killed.py"
    script.write_text(KILLED)
    installed = next(p for p in sys.path if list(Path(p).glob("made_formats-*.dist-info")))
    process = subprocess.Popen(
        [sys.executable, str(script), installed, str(HERE), str(source), str(made / "out/ds"), "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    watch = threading.Timer(60, process.kill)
    watch.start()
    for line in process.stdout:
        if int(line) == 3:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            break
    stderr = process.communicate(timeout=30)[1]
    watch.cancel()
    assert stderr.count("Traceback") <= 1, stderr  # the script's own
    assert open_dataset(made / "out/.ds.partial").n_episodes >= 3
