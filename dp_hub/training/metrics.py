"""Where numbers of a run go: JSON lines always; TensorBoard, wandb and trackio when asked for."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from dp_hub.errors import ConfigError
from dp_hub.files import write_atomic

LoggerName = Literal["tensorboard", "wandb", "trackio"]


class Logger(Protocol):
    """Takes numbers by name, each set with its step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the numbers of a step."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class JsonLines:
    """One JSON object a line, written through at once; readable while the run goes on.

    Args:
        path: the file; when a run continues, lines after ``resumed_step`` are dropped, since the
            steps they tell of are about to be done again.
        resumed_step: 0 for a new run.
    """

    def __init__(self, path: Path, *, resumed_step: int = 0) -> None:
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= resumed_step]
        # Whole or not at all: killed in here, the lines of days must not be lost.
        write_atomic(path, "".join(f"{line}\n" for line in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line with the step, the time and the numbers."""
        entry = {"step": step, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Event files for ``tensorboard --logdir``."""

    def __init__(self, folder: Path, *, resumed_step: int = 0) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        purge = resumed_step + 1 if resumed_step else None
        self._writer = SummaryWriter(str(folder), purge_step=purge)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add each number as a scalar."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class Tracker:
    """wandb, or trackio, which has the same interface."""

    def __init__(self, name: str, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        try:
            self._module = __import__(name)
        except ImportError:
            raise ConfigError(
                f"`loggers` asks for {name}, which is not installed", hint=f"pip install {name}"
            ) from None
        options = {"dir": str(folder)} if name == "wandb" else {}
        self._module.init(project=project, name=folder.name, config=dict(config), **options)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers."""
        self._module.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run there."""
        self._module.finish()


class Metrics:
    """Several loggers as one. On processes but the first, give it none."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = loggers

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tell every logger."""
        for logger in self._loggers:
            logger.log(step, values)

    def close(self) -> None:
        """Close every logger."""
        for logger in self._loggers:
            logger.close()


def open_metrics(
    folder: Path,
    names: Sequence[LoggerName],
    *,
    project: str,
    config: Mapping[str, Any],
    resumed_step: int = 0,
) -> Metrics:
    """``folder/metrics.jsonl`` and the loggers asked for.

    Raises:
        ConfigError: one of them is not installed.
    """
    loggers: list[Logger] = []
    for name in names:
        if name == "tensorboard":
            loggers.append(TensorBoard(folder / "tensorboard", resumed_step=resumed_step))
        else:
            loggers.append(Tracker(name, folder, project, config))
    return Metrics([JsonLines(folder / "metrics.jsonl", resumed_step=resumed_step), *loggers])


def _lines(path: Path) -> list[str]:
    # A crash may have cut the last line; what does not parse is dropped.
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line for line in lines if _parses(line)]


def _parses(line: str) -> bool:
    try:
        return "step" in json.loads(line)
    except (ValueError, TypeError):
        return False
