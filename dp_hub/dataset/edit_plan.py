"""What an edited dataset consists of: which frames of which episodes of which datasets, in order.

Everything here is a function of counts and words; nothing is read.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dp_hub.errors import DataError

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_TRIM = re.compile(r"(\d+):(\d*):(\d*)")
_SHARE = re.compile(r"0?\.\d+|1\.0*|\d+(\.\d*)?%")
_PART_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Piece:
    """Some frames of an episode, all of it as a rule.

    Args:
        source: number of the dataset it is in.
        episode: its number there.
        start, stop: its first frame and the one after its last, counted in the episode.
        whole: whether that is all of it.
        task: another task text, None to keep its own.
    """

    source: int
    episode: int
    start: int
    stop: int
    whole: bool = True
    task: str | None = None


def parse_episodes(text: str, n_episodes: int, option: str) -> list[int]:
    """Episode numbers from words like ``3,7-9``, in this order.

    Raises:
        DataError: another form, an episode that there is not, or one named twice.
    """
    numbers: list[int] = []
    for word in text.split(","):
        match = _RANGE.fullmatch(word.strip())
        if match is None:
            raise DataError(
                f"{option} {text!r}: {word.strip()!r} is no episode number",
                hint="numbers and ranges, counted from 0: 3,7-9",
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= n_episodes or first > last:
            raise DataError(
                f"{option} {text!r}: there is no episode {word.strip()}; the dataset has 0 to "
                f"{n_episodes - 1}"
            )
        numbers += range(first, last + 1)
    if len(set(numbers)) < len(numbers):
        raise DataError(f"{option} {text!r} names an episode twice")
    return numbers


def all_pieces(lengths: Sequence[Sequence[int]]) -> list[Piece]:
    """Every episode of every dataset, by their lengths."""
    return [
        Piece(source, episode, 0, length)
        for source, some in enumerate(lengths)
        for episode, length in enumerate(some)
    ]


def chosen(pieces: Sequence[Piece], *, keep: str | None, delete: str | None) -> list[Piece]:
    """``pieces`` without the deleted ones, or only the kept ones, always in their old order."""
    if keep is not None and delete is not None:
        raise DataError("both --keep and --delete are given", hint="give one of them")
    if keep is not None:
        wanted = set(parse_episodes(keep, len(pieces), "--keep"))
    else:
        wanted = set(range(len(pieces)))
        wanted -= set(parse_episodes(delete, len(pieces), "--delete") if delete else [])
    if not wanted:
        raise DataError("no episode would be left", hint="keep at least one")
    return [piece for i, piece in enumerate(pieces) if i in wanted]


def trimmed(pieces: Sequence[Piece], trims: Sequence[str]) -> list[Piece]:
    """``pieces`` with ``EPISODE:START:STOP`` cut to frames START up to, not including, STOP."""
    result = list(pieces)
    done: set[int] = set()
    for text in trims:
        match = _TRIM.fullmatch(text)
        if match is None:
            raise DataError(
                f"--trim {text!r} is not EPISODE:START:STOP", hint="for example 5:0:120"
            )
        [number] = parse_episodes(match[1], len(pieces), "--trim")
        if number in done:
            raise DataError(f"--trim cuts episode {number} twice", hint="once says it all")
        done.add(number)
        old = result[number]
        start = old.start + int(match[2] or 0)
        stop = old.start + int(match[3]) if match[3] else old.stop
        if stop > old.stop:
            raise DataError(
                f"--trim {text!r}: episode {number} has only {old.stop - old.start} frames",
                hint=f"leave STOP out for all of the rest: {number}:{match[2]}:",
            )
        if start >= stop:
            raise DataError(f"--trim {text!r} leaves nothing of the {old.stop - old.start} frames")
        whole = old.whole and (start, stop) == (old.start, old.stop)
        result[number] = replace(old, start=start, stop=stop, whole=whole)
    return result


def with_tasks(pieces: Sequence[Piece], tasks: Sequence[str]) -> list[Piece]:
    """``pieces`` with other tasks: ``TEXT`` for all, ``EPISODES=TEXT`` for some."""
    result = list(pieces)
    for text in tasks:
        numbers, equals, words = text.partition("=")
        if not (words if equals else text).strip():
            raise DataError(f"--task {text!r} has no words", hint="what was to be done?")
        if equals and re.fullmatch(r"[\d,\s-]+", numbers):
            wanted = parse_episodes(numbers, len(pieces), "--task")
        else:
            wanted, words = list(range(len(pieces))), text
        for number in wanted:
            result[number] = replace(result[number], task=words)
    return result


def split(
    pieces: Sequence[Piece], parts: Sequence[str], *, seed: int | None
) -> dict[str, list[Piece]]:
    """``pieces`` by part: ``NAME=EPISODES``, or ``NAME=SHARE`` (0.9 or 90%) of what is left by
    then in order, or at random with a seed.

    Raises:
        DataError: another form, an episode in two parts, or in none.
    """
    left = list(range(len(pieces)))
    order = list(left) if seed is None else np.random.default_rng(seed).permutation(left).tolist()
    result: dict[str, list[Piece]] = {}
    shares: dict[str, float] = {}
    for text in parts:
        name, equals, words = text.partition("=")
        if not equals or not _PART_NAME.fullmatch(name) or name in result or name in shares:
            raise DataError(
                f"--split {text!r} is not NAME=EPISODES or NAME=SHARE, each name once",
                hint="for example --split train=0.9 --split val=0.1",
            )
        if _SHARE.fullmatch(words):
            shares[name] = float(words[:-1]) / 100 if words.endswith("%") else float(words)
            continue
        wanted = parse_episodes(words, len(pieces), "--split")
        if taken := sorted(set(wanted) - set(left)):
            raise DataError(f"--split puts episode {taken[0]} into two parts")
        left = [i for i in left if i not in set(wanted)]
        result[name] = [pieces[i] for i in sorted(wanted)]
    result |= _by_share(pieces, [i for i in order if i in set(left)], shares)
    named = sum(map(len, result.values()))
    if named < len(pieces):
        raise DataError(
            f"--split leaves {len(pieces) - named} of {len(pieces)} episodes in no part",
            hint="name them all, or leave some out with --delete",
        )
    if empty := [name for name, some in result.items() if not some]:
        raise DataError(f"--split leaves the part {empty[0]} without episodes")
    return result


def _by_share(
    pieces: Sequence[Piece], order: Sequence[int], shares: Mapping[str, float]
) -> dict[str, list[Piece]]:
    total = sum(shares.values())
    if total > 1 + 1e-9:
        raise DataError(f"the shares of --split sum to {total:g}, more than 1")
    result, start, upto = {}, 0, 0.0
    for name, share in shares.items():
        upto += share
        stop = round(upto * len(order))
        result[name] = [pieces[i] for i in sorted(order[start:stop])]
        start = stop
    return result
