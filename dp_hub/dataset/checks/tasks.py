"""meta/tasks.parquet and what the rows say about it; the words of the tasks."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.checks.finding import Finding, found, listed
from dp_hub.dataset.checks.thresholds import ONE_TASK_SHARE, PLACEHOLDERS
from dp_hub.dataset.checks.view import READ_ERRORS, EpisodeRows, short


@dataclass(frozen=True)
class Tasks:
    """The task table.

    Attributes:
        texts: by task_index; None if the table can't be read.
        n_rows: of the table; None if it can't be read.
        findings: what is wrong with it.
    """

    texts: dict[int, str] | None
    n_rows: int | None
    findings: tuple[Finding, ...]


def read_tasks(root: Path) -> Tasks:
    """Read and check meta/tasks.parquet."""
    path = root / "meta" / "tasks.parquet"
    try:
        table = pq.read_table(path, partitioning=None)
        numbers, texts = _columns(table)
    except FileNotFoundError:
        return Tasks(None, None, (found("TASK-001", "meta/tasks.parquet is missing"),))
    except READ_ERRORS as error:
        what = f"meta/tasks.parquet cannot be used: {short(error)}"
        return Tasks(None, None, (found("TASK-002", what),))
    findings = []
    if _text_index(table) is None:
        what = "meta/tasks.parquet has the text in a plain column, not as the pandas index"
        findings.append(found("TASK-003", what))
    wrong = [i for i, number in enumerate(numbers) if number != i]
    if wrong:
        i = wrong[0]
        findings.append(found("TASK-004", f"row {i} of meta/tasks.parquet is task {numbers[i]}"))
    twice = [text for text, count in Counter(texts).items() if count > 1]
    if twice:
        findings.append(found("TASK-006", f"meta/tasks.parquet has {twice[0]!r} more than once"))
    return Tasks(dict(zip(numbers, texts, strict=True)), len(numbers), tuple(findings))


def _columns(table: pa.Table) -> tuple[list[int], list[str]]:
    """task_index and the texts. Raises ValueError if they are not there."""
    if "task_index" not in table.schema.names:
        raise ValueError("it has no column task_index")
    name = _text_index(table) or next(
        (field.name for field in table.schema if _is_text(field.type)), None
    )
    if name is None:
        raise ValueError("it has no column of texts")
    numbers, texts = table.column("task_index").to_pylist(), table.column(name).to_pylist()
    if not all(isinstance(number, int) for number in numbers):
        raise ValueError("task_index has entries that are no whole numbers")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} has empty entries")
    return numbers, texts


def _is_text(kind: Any) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _text_index(table: pa.Table) -> str | None:
    """The column that pandas makes the index of, if it holds texts."""
    try:
        columns = json.loads((table.schema.metadata or {})[b"pandas"])["index_columns"]
        name = columns[0]
        return name if _is_text(table.schema.field(name).type) else None
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def check_tasks(
    rows: EpisodeRows, tasks: Tasks, used: Sequence[tuple[int, ...]], row_of: Sequence[int]
) -> Iterator[Finding]:
    """The task numbers of the rows, and the words.

    Args:
        used: task numbers in the rows of each episode of data/.
        row_of: the row of meta/episodes of each; -1 for none.
    """
    yield from tasks.findings
    if tasks.texts is not None:
        lost = {n for numbers in used for n in numbers} - set(tasks.texts)
        if lost:
            where = [i for i, numbers in enumerate(used) if lost & set(numbers)]
            yield found("TASK-005", f"task_index {listed(lost)} is not in meta/tasks.parquet",
                        where)  # fmt: skip
        yield from _contradictions(rows, tasks.texts, used, row_of)
        yield from _words([[tasks.texts.get(n) for n in numbers] for numbers in used])
    elif rows.tasks is not None:
        yield from _words([_texts(entry) for entry in rows.tasks])


def _contradictions(
    rows: EpisodeRows,
    texts: dict[int, str],
    used: Sequence[tuple[int, ...]],
    row_of: Sequence[int],
) -> Iterator[Finding]:
    if rows.tasks is None:
        return
    wrong = []
    for i, (numbers, row) in enumerate(zip(used, row_of, strict=True)):
        own = {texts[n] for n in numbers if n in texts}
        if row >= 0 and own and not own <= set(_texts(rows.tasks[row])):
            wrong.append(i)
    if wrong:
        i = wrong[0]
        said, told = _texts(rows.tasks[row_of[i]]), [texts.get(n) for n in used[i]]
        what = f"meta/episodes says {said!r} of episode {i}, its rows {told!r}"
        yield found("TASK-007", f"{what} ({len(wrong)} episodes)", wrong)


def _texts(entry: Any) -> list[str]:
    return [str(t) for t in entry] if isinstance(entry, list) else [str(entry)] if entry else []


def _words(per_episode: Sequence[Sequence[str | None]]) -> Iterator[Finding]:
    plain = [[(text or "").strip() for text in texts] or [""] for texts in per_episode]
    empty = [i for i, texts in enumerate(plain) if all(t.lower() in PLACEHOLDERS for t in texts)]
    if empty:
        seen = sorted({text for i in empty for text in plain[i]})
        yield found("TEXT-001", f"{len(empty)} episodes have no task{_but(seen)}", empty)
    counts = Counter(text for texts in plain for text in set(texts))
    if len(counts) > 1:
        text, n = counts.most_common(1)[0]
        if n > ONE_TASK_SHARE * len(plain):
            yield found("TEXT-002", f"{n} of {len(plain)} episodes are {text!r}")
    same: dict[str, set[str]] = {}
    for text in {t or "" for texts in per_episode for t in texts}:
        same.setdefault(re.sub(r"[\s.]+", " ", text).strip().casefold(), set()).add(text)
    for spellings in (sorted(s) for s in same.values() if len(s) > 1):
        yield found("TEXT-003", f"tasks differ in spelling only: {spellings[:3]!r}")


def _but(seen: list[str]) -> str:
    words = ", ".join(repr(text) for text in seen[:3] if text)
    return f" but {words}" if words else ""
