"""Scores in a policy's README.md."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from dp_hub.errors import PolicyError
from dp_hub.policies.card_results import MARK, CardResult, Score, add_result, with_result

CARD = """---
# a comment that stays
license: mit
tags:
- robotics  # so does this
datasets: [me/pusht]
---

# My policy

Words of mine, with a | bar.
"""
RESULT = CardResult(
    env="pusht",
    seed=100_000,
    episodes=50,
    reward=Score(0.95123, 0.93, 0.97),
    success=Score(0.62, 0.48, 0.74),
    settings={"solver": "ddim", "steps": "10"},
    facts={"weights": "`0123456789ab`", "date": "2026-01-01"},
)


def rows(text: str) -> list[str]:
    return [line for line in text.partition(MARK)[2].splitlines() if line.startswith("| pusht")]


def results(text: str) -> list[dict]:
    return yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"]


def test_a_card_keeps_all_its_own_text() -> None:
    text = with_result(CARD, RESULT, name="mine")
    front, _, body = CARD.removeprefix("---\n").partition("---\n")
    assert text.startswith(f"---\n{front}model-index:\n")
    assert body in text
    assert "0.951 (0.930 to 0.970)" in rows(text)[0] and "62.0% (48.0% to 74.0%)" in rows(text)[0]
    assert "weights `0123456789ab`, date 2026-01-01" in rows(text)[0]


def test_the_same_evaluation_replaces_its_row_and_another_gets_its_own() -> None:
    text = with_result(CARD, RESULT, name="mine")
    assert with_result(text, RESULT, name="mine") == text
    again = replace(RESULT, reward=Score(0.9, 0.8, 1.0), facts={"date": "2026-02-02"})
    newer = with_result(text, again, name="mine")
    assert len(rows(newer)) == 1 and "0.900" in rows(newer)[0] and "2026-01" not in newer
    assert results(newer)[0]["metrics"][0]["value"] == 0.9
    other = with_result(newer, replace(RESULT, seed=200_000), name="mine")
    more = with_result(other, replace(RESULT, settings={"solver": "ddpm"}), name="mine")
    assert len(rows(more)) == len(results(more)) == 3
    first = with_result(more, RESULT, name="mine")
    assert [row.split("|")[2].strip() for row in rows(first)] == [
        "100000 to 100049",
        "200000 to 200049",
        "100000 to 100049",
    ]
    assert "0.951" in rows(first)[0]


def test_text_written_after_the_table_stays_after_it() -> None:
    text = with_result(CARD, RESULT, name="mine") + "\n## Licence\n\nMIT\n"
    more = with_result(text, replace(RESULT, seed=5), name="mine")
    assert more.endswith("|\n\n## Licence\n\nMIT\n")
    assert len(rows(more)) == 2


def test_the_hub_reads_the_model_index() -> None:
    text = with_result(CARD, RESULT, name="mine")
    data = ModelCard(text).data
    assert data.license == "mit" and data.model_name == "mine"
    assert [one.metric_type for one in data.eval_results] == ["mean_max_reward", "success_rate"]
    assert data.eval_results[0].metric_value == 0.9512
    assert data.eval_results[0].dataset_args == RESULT.settings


@pytest.mark.parametrize("indented", [True, False])
def test_results_of_others_in_the_model_index_stay(indented: bool) -> None:
    other = {"task": {"type": "robotics"}, "dataset": {"type": "aloha", "name": "Aloha"}}
    index = {"model-index": [{"name": "theirs", "results": [other]}, {"name": "second"}]}
    block = yaml.safe_dump(index)
    if indented:
        block = block.replace("\n- ", "\n  - ").replace("\n  name", "\n    name")
        block = "model-index:\n" + "".join(
            f"  {line}\n" for line in yaml.safe_dump(index["model-index"]).splitlines()
        )
    card = CARD.replace("license: mit\n", f"{block}license: mit\n")
    text = with_result(card, RESULT, name="mine")
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["license"] == "mit" and header["datasets"] == ["me/pusht"]
    assert [model["name"] for model in header["model-index"]] == ["theirs", "second"]
    assert header["model-index"][0]["results"][0] == other
    assert len(header["model-index"][0]["results"]) == 2
    assert text.count("model-index") == 1


def test_a_card_without_front_matter_or_none_at_all_gets_them(tmp_path: Path) -> None:
    text = with_result("Only words.\n", RESULT, name="mine")
    assert text.startswith("---\nmodel-index:\n") and "\nOnly words.\n" in text
    path = add_result(tmp_path, RESULT, name="mine")
    assert rows(path.read_text()) == rows(text)
    assert [item.name for item in tmp_path.iterdir()] == ["README.md"]


def test_cards_that_cannot_be_changed_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    for text, reason in (
        (b"---\n{ no: yaml\n---\n", "front matter of README.md is not YAML"),
        (b"---\nmodel-index: 3\n---\n", "`model-index` in the front matter is not a list"),
        (b"caf\xe9\n", "not UTF-8"),
    ):
        path.write_bytes(text)
        with pytest.raises(PolicyError, match=reason):
            add_result(tmp_path, RESULT, name="mine")
        assert path.read_bytes() == text
    path.unlink()
    (tmp_path / "blob").write_text(CARD)
    path.symlink_to("blob")
    with pytest.raises(PolicyError, match=r"lies in a cache.*\n.*\n?.*dp-hub pull"):
        add_result(tmp_path, RESULT, name="mine")
