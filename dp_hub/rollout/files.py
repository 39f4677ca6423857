"""Results that appear whole or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dp_hub.errors import DataError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A draft beside ``path`` that takes its place when the block ends without an error.

    Raises:
        DataError: the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from None
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(values: dict[str, Any], path: str | Path) -> Path:
    """Save plain values as indented JSON."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Path(path)
