"""``dp-hub check``: what is wrong with a dataset, and how to mend it."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dp_hub.dataset.checks import Finding, Report
    from dp_hub.dataset.checks.fix import Fixed


_MOST_NAMED = 20  # episodes in a command
_TITLES = {"fail": "failures", "warn": "warnings", "info": "for information"}


def check(
    dataset: Annotated[
        str, typer.Argument(metavar="DIR|NAME", help="A folder, or user/name[@revision].")
    ],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    horizon: Annotated[int, typer.Option(min=1, help="Steps a policy predicts.")] = 16,
    n_obs: Annotated[int, typer.Option("--n-obs", min=1, help="Steps a policy observes.")] = 2,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what can be mended, into --to NEW.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="NEW", help="The mended dataset: a new folder.")
    ] = None,
) -> None:
    """Look for everything that is wrong with a LeRobot v3.0 dataset, ours or others'.

    Exit status: 0 it passes, with or without warnings; 1 it fails; 2 wrong use.
    """
    from dp_hub.dataset.checks import check as examine

    if fix != (to is not None):
        raise typer.BadParameter("--fix and --to NEW belong together")
    folder = _folder(dataset)
    with _progress() as on_progress:
        report = examine(folder, horizon=horizon, n_obs=n_obs, on_progress=on_progress)
    fixed = None
    if fix and to is not None:
        from dp_hub.dataset.checks.fix import fix as mend

        fixed = mend(folder, to, report)
        with _progress() as on_progress:
            report = examine(fixed.path, horizon=horizon, n_obs=n_obs, on_progress=on_progress)
    if as_json:
        values = report.as_json() | ({"fixed": fixed.as_json()} if fixed else {})
        print(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False, default=float))
    else:
        if fixed:
            print(_mended(fixed))
        print(readable(report, strict=strict))
    if report.failed(strict=strict):
        raise typer.Exit(1)


def _folder(dataset: str) -> Path:
    """The folder itself, or where the dataset of that name was pulled to."""
    folder = Path(dataset)
    if folder.is_dir():
        return folder
    from dp_hub.hub import is_hub_name, pull
    from dp_hub.hub.client import no_folder

    if folder.exists() or not is_hub_name(dataset):
        raise typer.BadParameter(f"{dataset} is neither a folder nor user/name[@revision]")

    with no_folder(dataset):
        pulled = pull(dataset, kind="dataset")
    print(f"{pulled.repo_id}@{pulled.sha}", file=sys.stderr)
    return pulled.path


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = [TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("checking", total=None)
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total
        )


def readable(report: "Report", *, strict: bool = False) -> str:
    """The report for people: findings by severity, counts, verdict."""
    lines = []
    for severity, title in _TITLES.items():
        findings = [finding for finding in report.findings if finding.severity == severity]
        if findings:
            lines.append(f"{title}:")
            lines += [line for finding in findings for line in _lines(finding, report)]
            lines.append("")
    if report.unchecked:
        lines.append("not checked:")
        lines += [f"  {text}" for text in report.unchecked]
        lines.append("")
    counts = [_counted(report.count("fail"), "failure"), _counted(report.count("warn"), "warning")]
    lines.append(
        f"{report.root}: {_counted(report.n_episodes, 'episode')}, "
        f"{_counted(report.n_frames, 'frame')}; {', '.join(counts)}, in {report.seconds:.1f} s"
    )
    strictly = strict and report.failed(strict=True) and not report.failed(strict=False)
    lines.append(f"verdict: {'fail, as warnings count (--strict)' if strictly else report.verdict}")
    return "\n".join(lines)


def _lines(finding: "Finding", report: "Report") -> list[str]:
    from dp_hub.dataset.checks import listed

    noun = "episode" if len(finding.episodes) == 1 else "episodes"
    where = f" ({noun} {listed(finding.episodes)})" if finding.episodes else ""
    if len(finding.episodes) == report.n_episodes > 1:
        where = " (all episodes)"
    # All of them or a word: a part of them looks like an answer, and is none.
    few = len(finding.episodes) <= _MOST_NAMED
    episodes = (few and ",".join(map(str, finding.episodes))) or "EPISODES"
    remedy = finding.remedy.replace("{episodes}", episodes)
    remedy = remedy.replace("DIR", str(report.root))
    return [f"  {finding.id}  {finding.what}{where}", f"              {remedy}"]


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _mended(fixed: "Fixed") -> str:
    lines = [f"mended into {fixed.path}:"]
    lines += [f"  {text}" for text in fixed.done] or ["  nothing had to be mended"]
    if fixed.left:
        lines.append("not mended:")
        lines += [f"  {text}" for text in fixed.left]
    return "\n".join([*lines, ""])
