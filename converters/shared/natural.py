"""Names with numbers in the order that people mean: ``episode_2`` before ``episode_10``."""

import re
from pathlib import Path
from typing import Any


def natural(name: Path | str) -> list[Any]:
    """A key to sort names or paths by."""
    text = name.as_posix() if isinstance(name, Path) else name
    parts = re.split(r"(\d+)", text)
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(parts)] + [text]
