"""The seeds of a training, summed up as in the paper."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rollout_helpers import NoisyPusher

from dp_hub.errors import DataError
from dp_hub.rollout.evaluation import evaluate
from dp_hub.rollout.files import write_json
from dp_hub.rollout.intervals import t_mean
from dp_hub.rollout.run_plot import mean_curve, write_plot
from dp_hub.rollout.run_summary import sum_up
from dp_hub.rollout.runs import Curve, find_runs, held_out_scores, read_curve, read_curves

METRIC = "rollout/mean_max_reward"


def write_run(
    folder: Path,
    scores: Sequence[float],
    *,
    losses: Sequence[float] | None = None,
    every: int = 10,
) -> Path:
    """metrics.jsonl as recipes/train.py writes it: the loss in one line, the score in the next."""
    folder.mkdir(parents=True)
    lines = []
    for k, score in enumerate(scores, start=1):
        loss = 1 / k if losses is None else losses[k - 1]
        told = {"step": k * every, "train/loss": loss, "train/elapsed_s": 60.0 * k}
        lines += [told, {"step": k * every, "val/loss": 10 - loss, METRIC: score}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def curve(scores: Sequence[float], losses: Sequence[float]) -> Curve:
    n = np.arange(1, len(scores) + 1)
    return Curve("run", n, np.array(scores), np.array(losses), -np.array(losses), n / 2)


def figures(one: Curve) -> dict[str, float]:
    return {row.name: row.mean for row in sum_up([one])}


def test_each_figure_is_what_its_name_says() -> None:
    rng = np.random.default_rng(0)
    scores, losses = rng.uniform(size=40), rng.permutation(40) / 40
    scores[25] = 1.5
    found = figures(curve(scores.tolist(), losses.tolist()))
    by_loss = scores[np.argsort(losses)]
    assert found == pytest.approx(
        {
            "max": 1.5,
            "mean of last 10": scores[30:].mean(),
            "k_around_max": scores[20:30].mean(),
            "max_k_window": max(scores[i : i + 10].mean() for i in range(31)),
            "min_train_loss": by_loss[0],
            "k_min_train_loss": by_loss[:10].mean(),
            "min_val_loss": by_loss[-1],
            "k_min_val_loss": by_loss[-10:].mean(),
            "last": scores[-1],
        }
    )


def test_falling_loss_makes_its_ten_lowest_the_last_ten() -> None:
    found = figures(curve([k / 30 for k in range(30)], [1 / (k + 1) for k in range(30)]))
    assert found["k_min_train_loss"] == found["mean of last 10"]
    assert found["min_train_loss"] == found["last"] == found["max"]


def test_short_runs_average_what_they_have() -> None:
    found = figures(curve([0.2, 0.4], [2.0, 1.0]))
    assert found["mean of last 10"] == found["max_k_window"] == pytest.approx(0.3)
    assert found["k_around_max"] == pytest.approx(0.3)


def test_figures_are_averaged_over_seeds_and_a_missing_loss_is_told() -> None:
    one, other = curve([0.5, 0.9], [2.0, 1.0]), curve([0.7, 0.6], [2.0, math.nan])
    rows = {row.name: row for row in sum_up([one, other])}
    assert rows["max"].each == (0.9, 0.7) and rows["max"].mean == pytest.approx(0.8)
    assert rows["max"].std == pytest.approx(math.sqrt(0.02))
    assert math.isnan(rows["min_train_loss"].mean) and rows["min_train_loss"].each[0] == 0.9


def test_a_curve_takes_the_losses_last_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.1, 0.3, 0.2])
    text = (run / "metrics.jsonl").read_text()
    extra = '{"step": 35, "train/loss": 0.01}\n{"step": 40, "rollout/mean_max_reward": 0.8}\n'
    (run / "metrics.jsonl").write_text(text + extra + '{"step": 50, "rollo')  # cut by a crash
    read = read_curve(run, METRIC, name="run")
    assert read.step.tolist() == [10, 20, 30, 40]
    assert read.score.tolist() == [0.1, 0.3, 0.2, 0.8]
    assert read.train_loss.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 0.01])
    assert read.val_loss.tolist() == pytest.approx([9, 9.5, 29 / 3, 29 / 3])
    assert read.minutes.tolist() == [1, 2, 3, 3]
    assert len(read_curve(run, "rollout/unheard_of", name="run").score) == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not json", "line 1 of .*metrics.jsonl is not a metric"),
        ("[3]", "no object with a step"),
        ('{"step": 3, "train/loss": "low"}', "train/loss is not a number: low"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    run = write_run(tmp_path / "run", [0.1])
    path = run / "metrics.jsonl"
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(DataError, match=reason):
        read_curve(run, METRIC, name="run")


def test_runs_are_found_one_folder_down_and_named_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / top / "seed_42", [0.5]) for top in ("a", "b")]
    write_run(tmp_path / "a" / "seed_43", [0.5])
    assert find_runs([tmp_path / "a", runs[1], runs[0]]) == [
        tmp_path / "a" / "seed_42",
        tmp_path / "a" / "seed_43",
        runs[1],
    ]
    assert [one.name for one in read_curves(runs, METRIC)] == [str(run) for run in runs]
    assert [one.name for one in read_curves(runs[:1], METRIC)] == ["seed_42"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no training run.*\n.*\n?.*out_dir"):
        find_runs([tmp_path / "empty"])
    with pytest.raises(DataError, match="there is no folder"):
        find_runs([tmp_path / "nowhere"])


def test_held_out_evaluations_are_grouped_by_their_place(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"seed_{seed}", [0.5]) for seed in (1, 2)]
    values = evaluate(NoisyPusher(), episodes=2, max_steps=4).as_dict()
    for run in runs:
        write_json(values, run / "eval" / "scores.json")
    write_json(values, runs[0] / "other" / "scores.json")
    found = held_out_scores(runs)
    assert {path: len(scores) for path, scores in found.items()} == {
        "eval/scores.json": 2,
        "other/scores.json": 1,
    }


def test_student_interval_over_three_seeds() -> None:
    interval = t_mean(np.array([0.90, 0.94, 0.95]))
    half = 4.302653 * math.sqrt(0.0007) / math.sqrt(3)  # variance of the three: 0.0007
    assert (interval.low, interval.high) == pytest.approx((0.93 - half, 0.93 + half))
    assert math.isnan(t_mean(np.array([0.9])).low)


def test_the_mean_line_has_the_steps_that_all_runs_have() -> None:
    one, two = curve([0.1, 0.3, 0.5], [3, 2, 1]), curve([0.3, 0.5], [2, 1])
    step, score, minutes = mean_curve([one, two])
    assert step.tolist() == [1, 2]
    assert score == pytest.approx([0.2, 0.4]) and minutes == pytest.approx([0.5, 1.0])


def test_the_plot_is_a_picture_with_a_line_per_run(tmp_path: Path) -> None:
    from PIL import Image

    runs = [write_run(tmp_path / f"seed_{seed}", [0.1, 0.4, 0.4 + seed / 10]) for seed in (1, 2, 3)]
    path = write_plot(read_curves(runs, METRIC), tmp_path / "plot.png", metric=METRIC)
    picture = Image.open(path).convert("RGB")
    assert picture.width > 1000
    colours = {colour for _, colour in picture.getcolors(1 << 24) or []}
    # matplotlib's first three colours at 70 % over white, or close to it
    for wanted in ((98, 159, 202), (255, 165, 86), (107, 188, 107)):
        assert any(max(abs(a - b) for a, b in zip(c, wanted, strict=True)) < 14 for c in colours)
