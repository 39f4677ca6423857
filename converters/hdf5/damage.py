"""What is said of HDF5 files that are damaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dp_hub.errors import DataError

AGAIN = "copy or download it again from where it came from"
# What h5py raises on bytes that are not what they should be.
DAMAGE = (OSError, KeyError, ValueError, RuntimeError, TypeError, OverflowError, MemoryError)


@contextmanager
def damage_told(where: Any) -> Iterator[None]:
    """What h5py raises inside becomes a DataError about ``where``."""
    try:
        yield
    except DAMAGE as error:
        text = str(error).strip("'\"") or type(error).__name__
        if "truncated" in text:
            raise DataError(f"{where} is cut short: {text}", hint=AGAIN) from None
        if "lock" in text:
            hint = "is a program still writing it? close that first"
            raise DataError(f"{where} cannot be opened: {text}", hint=hint) from None
        raise DataError(f"{where} cannot be read: {text}", hint=AGAIN) from None
