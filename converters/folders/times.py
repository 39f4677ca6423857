"""When the rows of an episode's tables and its pictures were: which column is whose time.

One rule: a column called like ``action_time`` tells when the values of ``action`` were, one called
``time`` when all rows of its table were. What has neither is row-aligned, at a given rate.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from dp_hub_converters.folders.tables import seconds_of

from dp_hub.errors import DataError

_TIME = re.compile(
    r"(?:(?P<of>.+)[_./])?(?:time|times|timestamp|timestamps)(?:_(?P<unit>s|ms|us|ns))?"
    r"|(?P<t>t)(?:_(?P<unit_t>s|ms|us|ns))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Times:
    """The times in an episode.

    Args:
        own: float64 ``(n,)`` in s by stream.
        of_table: likewise of all rows of a table, by its place.
        columns: the names, by table, of those that are times and so no streams.
    """

    own: Mapping[str, np.ndarray]
    of_table: Mapping[int, np.ndarray]
    columns: Mapping[int, frozenset[str]]


def find_times(
    tables: Mapping[int, Mapping[str, Any]],
    pictures: Mapping[str, int],
    *,
    column: str | None,
    unit: str | None,
    where: str,
) -> Times:
    """The columns of times.

    Args:
        tables: columns by their full names, by the table's place.
        pictures: number of pictures by stream.
        column: the name of the column of times in every table, instead of the usual ones.
        unit: of all of them, unless their name tells.
        where: the episode, for messages.
    Raises:
        DataError: one holds no times, or another number than its stream has values.
    """
    streams = dict(pictures)
    for columns in tables.values():
        streams |= {name: len(values) for name, values in columns.items()}
    own, of_table = dict[str, np.ndarray](), dict[int, np.ndarray]()
    used: dict[int, set[str]] = {}
    for place, columns in tables.items():
        for name, values in columns.items():
            whose, told = _meaning(name, columns, streams, column)
            if whose is None:
                continue
            times_s = seconds_of(np.asarray(values), told or unit, f"{name} of {where}")
            used.setdefault(place, set()).add(name)
            if whose == "":
                of_table.setdefault(place, times_s)
            elif len(times_s) == streams[whose]:
                own[whose] = times_s
            else:
                raise DataError(
                    f"{where} has {streams[whose]} of {whose}, and {len(times_s)} times in {name}"
                )
    return Times(own, of_table, {place: frozenset(names) for place, names in used.items()})


def _meaning(
    name: str, columns: Mapping[str, Any], streams: Mapping[str, int], column: str | None
) -> tuple[str | None, str | None]:
    """Whose times a column holds ("": its table's; None: it holds none), and their unit."""
    bare = name.rpartition("/")[2]
    if column is not None:
        match = _TIME.fullmatch(bare)
        return ("" if bare == column else None), (match["unit"] if match else None)
    match = _TIME.fullmatch(name)
    if match is None:
        return None, None
    unit = match["unit"] or match["unit_t"]
    unit = unit.lower() if unit else None
    whose = match["of"]
    if whose in streams and whose != name:
        return whose, unit
    # The column `front/timestamp` of a table front.csv: of its own table.
    alone = _TIME.fullmatch(bare)
    return ("" if alone is not None and not alone["of"] else None), unit


def row_times(count: int, fps: float, start_s: float) -> np.ndarray:
    """Times of rows at a rate, float64 ``(count,)``."""
    times: np.ndarray = start_s + np.arange(count) / fps
    return times
