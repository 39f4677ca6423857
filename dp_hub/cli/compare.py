"""``dp-hub compare``."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dp_hub.cli.scoring import Settings, say

if TYPE_CHECKING:
    from dp_hub.rollout.comparison import Comparison, Scores


def compare(
    a: str = typer.Argument(..., help="A policy (folder or Hub name), or a scores.json of one."),
    b: str = typer.Argument(..., help="The other; differences are A - B."),
    env: str = typer.Option("pusht", help="The environment: pusht."),
    episodes: int | None = typer.Option(
        None, min=1, help="How many, with consecutive seeds; default 200, or those of a file."
    ),
    seed: int | None = typer.Option(
        None, min=0, help="Seed of the first episode; default 100000, or a file's."
    ),
    json: Path | None = typer.Option(None, help="Write the comparison to this file."),
    device: str = typer.Option("auto", help="cpu, cuda, mps; auto takes the best there is."),
    processes: int | None = typer.Option(
        None, min=1, help="At most so many; default: the cores on a CPU, else 1."
    ),
    batch_size: int | None = typer.Option(
        None, min=1, help="So many seeds run as one batch; default 25 on a CPU, else 100."
    ),
) -> None:
    """Compare two policies on the same episodes, pair by pair.

    Policies are evaluated; files of ``dp-hub eval --json`` are read. To compare one policy with
    other settings, evaluate it twice and compare the files. A table goes to stdout.
    """
    from dp_hub.cli.evaluate import check_suffix
    from dp_hub.rollout import comparison
    from dp_hub.rollout.files import write_json

    check_suffix(json, ".json")
    seed, episodes = _wanted_seeds([a, b], seed, episodes)
    settings = Settings(env, episodes, seed, processes, batch_size, device)
    found = comparison.compare(_scores(a, settings), _scores(b, settings))
    _print_table(found)
    if json is not None:
        say(write_json(found.as_dict(), json))


def _wanted_seeds(names: list[str], seed: int | None, episodes: int | None) -> tuple[int, int]:
    """First seed and number of episodes: as told, or those of a file, which is read for it.

    Raises:
        DataError: a file holds no scores, or not those that were asked for.
    """
    from dp_hub.rollout.comparison import check_seeds, read_scores

    files = [read_scores(Path(name)) for name in names if _is_file(name)]
    if files and len(files) < len(names):  # before the other side takes minutes
        seed = files[0].seeds[0] if seed is None else seed
        episodes = len(files[0].seeds) if episodes is None else episodes
        check_seeds(files[0], seed, episodes)
    return 100_000 if seed is None else seed, 200 if episodes is None else episodes


def _is_file(name: str) -> bool:
    return Path(name).is_file() or (name.endswith(".json") and not Path(name).exists())


def _scores(name: str, settings: Settings) -> "Scores":
    from dp_hub.rollout.comparison import read_scores, scores_from

    if _is_file(name):
        return read_scores(Path(name))
    from dp_hub.cli.scoring import score

    typer.echo(f"evaluating {name}", err=True)
    return scores_from(score(name, settings).values, name=name)


def _print_table(found: "Comparison") -> None:
    from rich.console import Console
    from rich.table import Table

    a, b, n = found.a, found.b, len(found.a.seeds)
    console = Console()
    console.print(f"A  {a.name}\nB  {b.name}", highlight=False, soft_wrap=True)
    table = Table("", "A", "B", "A - B", "", title=f"{a.env}, the same {n} episodes")
    low, high = found.reward.low, found.reward.high
    table.add_row(
        "mean max reward",
        f"{a.max_reward.mean():.4f}",
        f"{b.max_reward.mean():.4f}",
        f"{found.reward.value:+.4f}",
        f"95 %: {low:+.4f} to {high:+.4f}",
    )
    table.add_row(
        "success rate",
        f"{a.success.mean():.1%}",
        f"{b.success.mean():.1%}",
        f"{found.success:+.1%}",
        f"McNemar p = {found.p_success:.3g}",
    )
    table.add_row("succeeded alone", str(found.only_a), str(found.only_b), "", "episodes")
    table.add_row("higher reward", str(found.wins), str(found.losses), "", f"{found.ties} ties")
    for key, value in a.settings.items():
        if value != b.settings[key]:
            table.add_row(key, str(value), str(b.settings[key]), "", "differs")
    console.print(table)
