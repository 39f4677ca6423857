"""RLDS: episodes as TensorFlow Datasets writes them (TFRecord files), read without TensorFlow."""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from dp_hub_converters.tfrecords.features import Leaf
from dp_hub_converters.tfrecords.files import Shard, Tree, find_trees, shards_of
from dp_hub_converters.tfrecords.records import count_records, parse_example, records
from dp_hub_converters.tfrecords.values import Example, facts_of, step_values

from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Source

_INSTRUCTIONS = ("language_instruction", "natural_language_instruction", "instruction", "task")
_FPS_HINT = (
    "RLDS does not store it, it is what the robot was recorded at: Bridge 5, DROID 15, RT-1 "
    "(fractal) 3: --fps N"
)


class Rlds:
    """Reads the folder of a version, one above it, or a single TFRecord file of it.

    Args:
        split: only this split; default: all, in the order of dataset_info.json.
        last_step: ``"drop"`` leaves out the step that is_last marks (without such a feature: the
            last), whose action means nothing where the convention of RLDS was followed.
    """

    name = "rlds"
    summary = "RLDS, as TensorFlow Datasets and Open X-Embodiment write it (TFRecord)"

    def __init__(
        self, *, split: str | None = None, last_step: Literal["keep", "drop"] = "keep"
    ) -> None:
        self._split, self._drop_last = split, last_step == "drop"
        self._found: tuple[Path, list[Tree], list[Shard]] | None = None
        self._counts: dict[Path, tuple[int, DataError | None]] = {}

    def recognises(self, path: Path) -> bool:
        """Whether there is a features.json, at most two folders down, or a TFRecord file."""
        try:
            if path.is_file():
                return ".tfrecord" in path.name and (path.parent / "features.json").is_file()
            patterns = ("features.json", "*/features.json", "*/*/features.json")
            return any(next(path.glob(pattern), None) is not None for pattern in patterns)
        except (OSError, ValueError):
            return False

    def describe(self, path: Path, *, skip_bad: bool = False) -> Source:
        """What the dataset holds; every record's length is checked, and the first of each file.

        With ``skip_bad`` in spite of files that are cut short: what is missing of one counts as one
        episode.

        Raises:
            DataError: it does not hold together, or has no such split.
        """
        trees, shards = self._look(path)
        leaves, errors = trees[0].leaves, list[DataError]()
        for shard in shards:
            errors += [error] if (error := self._count_of(shard)[1]) else []
        found = sum(self._count_of(shard)[0] for shard in shards)
        if errors and (not skip_bad or not found):
            raise errors[0]
        if not found:
            raise DataError(f"{path} holds no episodes")
        if not skip_bad:
            for shard in shards:
                _check_first(shard)
        notes = [note for tree in trees for note in tree.notes(self._split)]
        notes += [error.message for error in errors]
        notes += [
            f"{leaf.key} is {leaf.why}, which has no place in a dataset: --drop {leaf.key}"
            for leaf in leaves
            if leaf.in_steps and leaf.kind == "unknown"
        ]
        return Source(
            dtypes={leaf.key: leaf.dtype for leaf in leaves if leaf.in_steps},
            n_episodes=found + len(errors),
            attrs={"name": trees[0].name} if len(trees) == 1 else {},
            notes=tuple(notes),
            fps_hint=_FPS_HINT,
        )

    def episodes(
        self, path: Path, *, drop: Collection[str] = (), start: int = 0
    ) -> Iterator[Episode]:
        """Its episodes from number ``start`` on, file by file; what a text says of every step of
        an episode is in its metadata. An instruction is its task, even if it is in ``drop``.

        Raises:
            DataError: a record is damaged, or not as features.json says.
        """
        for shard in self._look(path)[1]:
            count, error = self._count_of(shard)
            n_items = count + (error is not None)
            if start >= n_items:
                start -= n_items
                continue
            for number, data in enumerate(islice(records(shard.path, start), count - start), start):
                where = f"record {number} of {shard.path}"
                example = Example(parse_example(data, where), shard.tree.leaves, where)
                yield self._episode(example, shard, number, drop)
            if error is not None:
                raise DataError(error.message, hint=error.hint)
            start = 0

    def _episode(
        self, example: Example, shard: Shard, number: int, drop: Collection[str]
    ) -> Episode:
        steps = [leaf for leaf in example.leaves if leaf.in_steps]
        texts, data = dict[str, str](), dict[str, Any]()
        count = self._count(example)
        for leaf in steps:
            kept = leaf.key not in drop
            if leaf.kind == "text" and (kept or _is_instruction(leaf.key)):
                texts[leaf.key] = _one_text(example, leaf, count, needed=kept)
            elif kept:
                values = step_values(example, leaf)
                data[leaf.key] = values if count == len(values) else _cut(values, count)
        facts = facts_of(example) | {key: text for key, text in texts.items() if text}
        task = _task(facts, [leaf.key for leaf in example.leaves])
        facts = {key: value for key, value in facts.items() if key not in drop}
        place = {"source": shard.name, "split": shard.split, "record": number}
        return Episode(data, task=task, metadata={**facts, **place})

    def _count(self, example: Example) -> int:
        """How many steps of an episode there are to give."""
        flags = {leaf.key: leaf for leaf in example.leaves if leaf.in_steps}
        count = example.n_steps
        marked = False
        for key, place in (("is_first", 0), ("is_last", count - 1)):
            leaf = flags.get(key)
            if leaf is None or leaf.kind != "number" or leaf.shape:
                continue
            at = np.flatnonzero(step_values(example, leaf))
            if len(at) and at.tolist() != [place]:
                raise DataError(
                    f"{example.where} is not one episode: {key} is true at step {at[-1]} "
                    f"of {count}",
                    hint="was it written with steps out of order?",
                )
            marked = marked or (key == "is_last" and len(at) > 0)
        drops = self._drop_last and (marked or "is_last" not in flags)
        if drops and count == 1:
            raise DataError(
                f"{example.where} has no steps but the last", hint="keep it: last_step=keep"
            )
        return count - 1 if drops else count

    def _count_of(self, shard: Shard) -> tuple[int, DataError | None]:
        """How many records of a file can be read, and what is wrong with the rest."""
        if shard.path not in self._counts:
            self._counts[shard.path] = _checked_count(shard)
        return self._counts[shard.path]

    def _look(self, path: Path) -> tuple[list[Tree], list[Shard]]:
        if self._found is None or self._found[0] != path:
            self._found = path, *self._listed(path)
            self._counts = {}
        return self._found[1:]

    def _listed(self, path: Path) -> tuple[list[Tree], list[Shard]]:
        trees = find_trees(path)
        shards = [shard for tree in trees for shard in shards_of(tree, path, self._split)]
        if not shards:
            have = sorted({split for tree in trees for split in tree.present})
            raise DataError(
                f"{path} has no files of the split {self._split!r}"
                if self._split
                else f"{path} has no TFRecord files beside its features.json",
                hint=f"there is: {', '.join(have) or 'none'}",
            )
        return trees, shards


def _checked_count(shard: Shard) -> tuple[int, DataError | None]:
    count, error = count_records(shard.path)
    if error is None and shard.expected not in (None, count):
        error = DataError(
            f"{shard.path} holds {count} records; dataset_info.json says {shard.expected}",
            hint="copy or download the file again from where it came from",
        )
    return count, error


def _check_first(shard: Shard) -> None:
    """Raises DataError if the first record of a file is not as features.json says."""
    for data in islice(records(shard.path), 1):
        where = f"record 0 of {shard.path}"
        _ = Example(parse_example(data, where), shard.tree.leaves, where).n_steps


def _one_text(example: Example, leaf: Leaf, count: int, *, needed: bool) -> str:
    """What a text says in all steps, empty ones aside.

    Raises:
        DataError: it changes, or is missing; if it is not ``needed`` it is empty then.
    """
    if not needed and leaf.path not in example.features:
        return ""
    each = list(dict.fromkeys(text for text in step_values(example, leaf)[:count] if text))
    if len(each) > 1 and needed:
        raise DataError(
            f"{leaf.key} is text that changes within {example.where} ({each[0][:60]!r}, "
            f"{each[1][:60]!r}); a dataset stores texts by episode",
            hint=f"leave it out with --drop {leaf.key}",
        )
    return each[0] if len(each) == 1 else ""


def _is_instruction(key: str) -> bool:
    return key.rpartition("/")[2] in _INSTRUCTIONS


def _task(facts: dict[str, Any], keys: Sequence[str]) -> str | None:
    """The instruction among the texts, which is taken out of them."""
    for name in _INSTRUCTIONS:
        for key in (*keys, *list(facts)):
            if key.rpartition("/")[2] == name and isinstance(facts.get(key), str):
                return str(facts.pop(key))
    return None


def _cut(values: Any, count: int) -> Any:
    """The first ``count`` rows; of pictures without decoding one."""
    return values[:count] if isinstance(values, np.ndarray) else values.first(count)
