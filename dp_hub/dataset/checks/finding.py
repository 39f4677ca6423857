"""What a check says: a finding with its remedy, and the report that gathers them."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dp_hub.dataset.checks.rules import RULES, Severity

_NOUNS = "episode|file|video|link|step|picture|spike|frame|pair|dimension|quantile|row|statistic"
SEVERITIES: tuple[Severity, ...] = ("fail", "warn", "info")


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        id: of the rule, for example ``STRUCT-003``; see `dp_hub.dataset.checks.rules`.
        severity: ``info``, ``warn`` or ``fail``.
        what: a sentence with what was seen.
        episodes: the episodes concerned, ascending; empty if it is not about single episodes.
        remedy: what to do.
        fixable: whether ``--fix`` mends it.
    """

    id: str
    severity: Severity
    what: str
    episodes: tuple[int, ...] = ()
    remedy: str = ""
    fixable: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "id": self.id,
            "severity": self.severity,
            "what": self.what,
            "episodes": list(self.episodes),
            "remedy": self.remedy,
            "fixable": self.fixable,
        }


def found(
    id: str,
    what: str,
    episodes: Iterable[Any] = (),
    *,
    remedy: str | None = None,
    severity: Severity | None = None,
) -> Finding:
    """A finding of the rule ``id``, with the rule's severity and remedy unless others are given."""
    rule = RULES[id]
    numbers = tuple(sorted({int(episode) for episode in episodes}))
    return Finding(
        id=id,
        severity=severity or rule.severity,
        what=singular(what),
        episodes=numbers,
        remedy=rule.remedy if remedy is None else remedy,
        fixable=rule.fixable,
    )


@dataclass(frozen=True)
class Report:
    """All that was found in a dataset.

    Attributes:
        root: the folder.
        n_episodes, n_frames: what its tables hold.
        findings: gravest first.
        unchecked: what could not be looked at, and why, a sentence each.
        facts: numbers that were measured on the way, by name.
        seconds: wall time.
    """

    root: Path
    n_episodes: int
    n_frames: int
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, severity: Severity) -> int:
        """How many findings there are of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def failed(self, *, strict: bool = False) -> bool:
        """Whether the dataset fails; with ``strict`` warnings count as failures."""
        return bool(self.count("fail") or (strict and self.count("warn")))

    @property
    def verdict(self) -> str:
        """``pass``, ``pass with warnings`` or ``fail``."""
        if self.count("fail"):
            return "fail"
        return "pass with warnings" if self.count("warn") else "pass"

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "dataset": str(self.root),
            "verdict": self.verdict,
            "episodes": self.n_episodes,
            "frames": self.n_frames,
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "findings": [finding.as_json() for finding in self.findings],
            "unchecked": list(self.unchecked),
            "facts": _plain(dict(self.facts)),
            "seconds": round(self.seconds, 3),
        }


def _plain(value: Any) -> Any:
    """Without what JSON has no word for: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def by_gravity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Failures first, then warnings, then the rest, each in the order of their ids."""
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.id)))


def listed(numbers: Iterable[int], *, limit: int = 12) -> str:
    """Numbers in few words: ``3, 7-9, 12 and 40 more``."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in ranges[:limit]]
    rest = sum(b - a + 1 for a, b in ranges[limit:])
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def singular(text: str) -> str:
    """``1 files are missing`` as ``1 file is missing``."""
    one = re.sub(rf"\b1 ((?:[a-z]+ )?)({_NOUNS})s\b", r"1 \1\2", text)
    if one != text and re.match(r"1 ", one):
        verbs = {"are": "is", "have": "has", "hold": "holds", "belong": "belongs", "lead": "leads"}
        one = re.sub(r"\b(are|have|hold|belong|lead)\b", lambda m: verbs[m[1]], one, count=1)
    return one


def some(names: Iterable[str], *, limit: int = 3) -> str:
    """The first few of many names: ``a, b, c and 5 more``."""
    names = list(names)
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
