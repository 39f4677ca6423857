"""What the tests of conversions share: made sources, a mapping, comparing folders, interrupting."""

from pathlib import Path

from made_formats import install, write_rows, write_streams

MAPPING = """
fps: 10
task: wave
episodes: {split: flag, stream: /flag}
features:
  observation.state: {from: /joints}
  action: {from: /command}
"""


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*") if p.is_file()}  # fmt: skip


def names_in(folder: Path) -> list[str]:
    """What stands in a folder, hidden or not."""
    return sorted(p.name for p in folder.iterdir())


def interrupt_at(n_episodes: int):
    """An on_progress that stops when so many episodes are written."""

    def interrupt(progress):
        if progress.episodes == n_episodes:
            raise KeyboardInterrupt

    return interrupt


__all__ = ["MAPPING", "files_of", "install", "interrupt_at", "names_in", "write_rows"]
__all__ += ["write_streams"]
