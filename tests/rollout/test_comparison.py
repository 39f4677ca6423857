"""Paired comparison of two evaluations."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from rollout_helpers import NoisyPusher

from dp_hub.errors import DataError
from dp_hub.rollout.comparison import Scores, compare, mcnemar_exact, read_scores, scores_from
from dp_hub.rollout.evaluation import evaluate
from dp_hub.rollout.files import write_json


def scores(rewards: list[float], *, name: str = "one", seed: int = 0, **changes: object) -> Scores:
    values = {
        "name": name,
        "env": "pusht",
        "seeds": tuple(range(seed, seed + len(rewards))),
        "max_steps": 300,
        "max_reward": np.array(rewards),
        "success": np.array(rewards) == 1.0,
        "settings": {"steps": 16},
        **changes,
    }
    return Scores(**values)  # type: ignore[arg-type]


def test_wins_ties_losses_and_lone_successes_are_counted() -> None:
    found = compare(scores([1.0, 0.5, 1.0, 0.2, 0.3]), scores([0.9, 0.5, 1.0, 1.0, 0.1]))
    assert (found.wins, found.ties, found.losses) == (2, 2, 1)
    assert (found.only_a, found.only_b, found.success) == (1, 1, 0.0)
    assert found.reward.value == pytest.approx((0.1 - 0.8 + 0.2) / 5)
    assert found.p_success == 1.0


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 5) == 1.0
    assert mcnemar_exact(0, 5) == mcnemar_exact(5, 0) == 2 / 32
    # by the definition, with a sum over both tails
    both = sum(math.comb(30, k) for k in range(31) if abs(k - 15) >= 6) / 2**30
    assert mcnemar_exact(9, 21) == pytest.approx(both, rel=1e-12)
    assert mcnemar_exact(0, 2000) == pytest.approx(2.0**-1999)


def test_pairing_finds_a_small_difference_that_start_states_hide() -> None:
    rng = np.random.default_rng(1)
    hard = rng.uniform(0, 0.9, 200)
    better, worse = hard + 0.02 + rng.normal(0, 0.01, 200), hard
    found = compare(scores(better.tolist()), scores(worse.tolist()))
    assert 0.017 < found.reward.low < found.reward.value < found.reward.high < 0.022
    assert found.wins > 180


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed": 5}, r"seeds: 0 to 2 and 5 to 7"),
        ({"env": "kitchen"}, "env: pusht and kitchen"),
        ({"max_steps": 100}, "max_steps: 300 and 100"),
        ({"seeds": (0, 7, 3)}, r"seeds: 0 to 2 and 3 seeds, 0, 7, 3"),
    ],
)
def test_other_episodes_are_refused_by_what_differs(changes: dict, reason: str) -> None:
    one, other = scores([1.0, 0.5, 0.2]), scores([1.0, 0.5, 0.2], name="two", **changes)
    with pytest.raises(DataError, match=f"one and two were not run on the same episodes: {reason}"):
        compare(one, other)


def test_scores_survive_their_file(tmp_path: Path) -> None:
    evaluation = evaluate(NoisyPusher(), episodes=3, max_steps=8)
    path = write_json(evaluation.as_dict(), tmp_path / "scores.json")
    read = read_scores(path)
    assert read.seeds == (100_000, 100_001, 100_002) and read.max_steps == 8
    assert read.max_reward.tolist() == [one.max_reward for one in evaluation.episodes]
    assert read.settings["n_action_steps"] == 8
    itself = compare(read, scores_from(evaluation.as_dict(), name="now"))
    assert (itself.ties, itself.reward.low, itself.reward.high) == (3, 0.0, 0.0)
    assert json.loads(json.dumps(itself.as_dict(), allow_nan=False))["mcnemar_p"] == 1.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "does not hold scores: Expecting"),
        ("[1]", "does not hold scores"),
        ('{"env": "pusht"}', "it lacks 'episodes'"),
        ('{"env": "pusht", "episodes": [], "config": {}}', "no episodes"),
        ('{"env": "p", "episodes": [{"seed": 1}], "config": {"max_steps": 3}}', "'max_reward'"),
    ],
)
def test_a_file_without_scores_is_explained(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(DataError, match=reason):
        read_scores(path)
