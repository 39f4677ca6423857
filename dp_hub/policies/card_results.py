"""Scores in a policy's README.md: a table for people, ``model-index`` for the Hub.

Everything else in the file stays as it is, to the letter. The same evaluation (environment, seeds
and settings) has one row, the newest.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dp_hub.errors import HubError, PolicyError
from dp_hub.files import write_atomic
from dp_hub.hub.cards import FRONT_MATTER, front_matter

MARK = "<!-- scores: made by dp-hub eval, which replaces the row of the same evaluation -->"
COLUMNS = (
    "environment",
    "seeds",
    "settings",
    "mean maximum reward (95 %)",
    "success rate (95 %)",
    "measured with",
)
_KEY = 3  # so many columns tell which evaluation a row is of
_MODEL_INDEX = re.compile(r"^model-index[ \t]*:.*(?:\n(?:[ \t#-].*)?(?=\n|\Z))*\n?", re.MULTILINE)
_TASK = {"type": "robotics", "name": "robotics"}


@dataclass(frozen=True)
class Score:
    """A number and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CardResult:
    """One evaluation, as plain values.

    Args:
        env: name of the environment.
        seed: of the first episode.
        episodes: how many, with consecutive seeds.
        reward: mean of the episodes' maximum rewards.
        success: share of successful episodes.
        settings: how the policy was run: solver, steps, execution.
        facts: what else the numbers hang on, by name: weights, dataset, hardware, versions.
    """

    env: str
    seed: int
    episodes: int
    reward: Score
    success: Score
    settings: Mapping[str, str]
    facts: Mapping[str, str]

    @property
    def seeds(self) -> str:
        """Such as ``100000 to 100049``."""
        return f"{self.seed} to {self.seed + self.episodes - 1}"


def add_result(folder: Path, result: CardResult, *, name: str) -> Path:
    """Write an evaluation into the card of a policy folder; the file is replaced at once.

    Args:
        folder: a policy folder of the user's own; a card is begun where there is none.
        result: what was measured.
        name: of the policy, for a model-index that has to be begun.
    Raises:
        PolicyError: the card cannot be read or is not the user's to change.
    """
    path = folder / "README.md"
    check_writable(folder)
    try:
        text = path.read_bytes().decode("utf-8") if path.exists() else f"# {name}\n"
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path} is not UTF-8 text: {error}") from None
    try:
        new = with_result(text, result, name=name)
    except (HubError, PolicyError) as error:
        raise PolicyError(f"{path}: {error.message}", hint=error.hint) from None
    write_atomic(path, new.encode())
    return path


def check_writable(folder: Path) -> None:
    """Raises PolicyError for a folder in the Hugging Face cache, whose files are links."""
    if (folder / "README.md").is_symlink():
        raise PolicyError(
            f"{folder} lies in a cache, whose files must not be changed",
            hint="`dp-hub pull user/name --to DIR` makes a folder of your own",
        )


def with_result(text: str, result: CardResult, *, name: str) -> str:
    """A card with an evaluation in its table and its front matter.

    Raises:
        HubError: the front matter is not YAML.
        PolicyError: its ``model-index`` is not one.
    """
    return _with_row(_with_model_index(text, result, name), result)


def _row(result: CardResult) -> list[str]:
    reward, success = result.reward, result.success
    return [
        result.env,
        result.seeds,
        _words(result.settings),
        f"{reward.value:.3f} ({reward.low:.3f} to {reward.high:.3f})",
        f"{success.value:.1%} ({success.low:.1%} to {success.high:.1%})",
        _words(result.facts),
    ]


def _words(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()).replace("|", "/")


def _with_row(text: str, result: CardResult) -> str:
    before, mark, after = text.partition(MARK)
    lines = after.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    last = first
    while last < len(lines) and lines[last].startswith("|"):
        last += 1
    if not mark:
        before = before.rstrip("\n") + "\n\n## Scores in simulation\n\n"
    rows = [_cells(line) for line in lines[first:last]][2:]  # without the head
    mine = _row(result)
    place = next((i for i, row in enumerate(rows) if row[:_KEY] == mine[:_KEY]), len(rows))
    rows[place : place + 1] = [mine]
    table = "".join(f"| {' | '.join(row)} |\n" for row in [list(COLUMNS), *rows])
    head, _, body = table.partition("\n")
    table = f"{head}\n{'|---' * len(COLUMNS)}|\n{body}"
    rest = "".join(lines[last:]) if mark else ""
    return f"{before}{MARK}\n\n{table}{rest}"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _with_model_index(text: str, result: CardResult, name: str) -> str:
    index = _new_index(front_matter(text).get("model-index"), result, name)
    block = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True)
    match = FRONT_MATTER.match(text)
    if match is None:
        return f"---\n{block}---\n\n{text}"
    kept = _MODEL_INDEX.sub("", match[1] + "\n")
    kept = kept if kept.endswith("\n") or not kept else kept + "\n"
    return f"---\n{kept}{block}---\n{text[match.end() :]}"


def _new_index(found: Any, result: CardResult, name: str) -> list[dict[str, Any]]:
    if found is None:
        return [{"name": name, "results": [_entry(result)]}]
    if not _is_index(found):
        raise PolicyError(
            "`model-index` in the front matter is not a list of models with results",
            hint="mend or remove it",
        )
    first, *others = found
    mine, results = _entry(result), list(first.get("results") or [])
    same = [i for i, one in enumerate(results) if one.get("dataset") == mine["dataset"]]
    place = same[0] if same else len(results)
    results[place : place + 1] = [mine]
    return [{**first, "results": results}, *others]


def _is_index(found: Any) -> bool:
    def is_model(model: Any) -> bool:
        results = model.get("results") or [] if isinstance(model, dict) else None
        return isinstance(results, list) and all(isinstance(one, dict) for one in results)

    return isinstance(found, list) and len(found) > 0 and all(map(is_model, found))


def _entry(result: CardResult) -> dict[str, Any]:
    return {
        "task": dict(_TASK),
        "dataset": {
            "name": f"{result.env}, seeds {result.seeds}",
            "type": result.env,
            "args": dict(result.settings),
        },
        "metrics": [
            _metric("mean_max_reward", "mean maximum reward", result.reward),
            _metric("success_rate", "success rate", result.success),
        ],
    }


def _metric(type_: str, name: str, score: Score) -> dict[str, Any]:
    interval: Sequence[float] = [round(score.low, 4), round(score.high, 4)]
    return {
        "type": type_,
        "name": name,
        "value": round(score.value, 4),
        "args": {"interval_95": interval},
    }
