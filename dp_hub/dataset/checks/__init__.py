"""A dataset's doctor: everything that is wrong with a LeRobot v3.0 dataset, ours or others'.

`check` reads tolerantly and goes on after a fault. One file holds one family of checks;
`rules` is the table of them all, `thresholds` holds every number.
"""

from dp_hub.dataset.checks.doctor import check
from dp_hub.dataset.checks.finding import Finding, Report, found, listed
from dp_hub.dataset.checks.rules import RULES, Rule

__all__ = ["RULES", "Finding", "Report", "Rule", "check", "found", "listed"]
