"""Logs that survive a crash and a resumed run."""

import io
import json

import pytest

from dp_hub.errors import ConfigError
from dp_hub.training.metrics import JsonLines, open_metrics
from dp_hub.training.progress import Progress, clock_time, progress_line


def steps_in(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_resumed_log_drops_what_is_done_again_and_a_cut_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    for step in (10, 20, 30):
        log.log(step, {"loss": step / 7})
    log.close()
    with path.open("a") as file:
        file.write('{"step": 40, "lo')
    log = JsonLines(path, resumed_step=20)
    log.log(25, {"loss": 1.0})
    assert steps_in(path) == [10, 20, 25]  # readable while it is open
    log.close()


def test_new_run_begins_an_empty_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5}\n')
    JsonLines(path).close()
    assert path.read_text() == ""


def test_tensorboard_gets_the_numbers(tmp_path):
    metrics = open_metrics(tmp_path, ["tensorboard"], project="p", config={})
    metrics.log(3, {"loss": 0.25})
    metrics.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.25)]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_logger_that_is_not_installed_says_how_to_get_it(tmp_path, monkeypatch, name):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ConfigError) as caught:
        open_metrics(tmp_path, [name], project="p", config={})
    assert caught.value.hint == f"pip install {name}"


def test_progress_tells_rate_and_remaining_time():
    line = progress_line(1500, 0.75, 40.0, begin=(20.0, 500, 0.25), loss=0.1234)
    assert line == "step 1,500  75 %  loss 0.1234  50.0 steps/s  0:10 left"
    assert clock_time(3723) == "1:02:03"


def test_progress_writes_at_intervals_only():
    now, stream = [0.0], io.StringIO()
    progress = Progress(stream=stream, clock=lambda: now[0])
    for step in range(1, 26):
        now[0] += 1.0
        progress.update(step, share=step / 25, elapsed_s=now[0])
    assert len(stream.getvalue().splitlines()) == 2
