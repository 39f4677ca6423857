"""Whether a mapping and a source belong together, told before anything is converted."""

import difflib
from collections.abc import Collection, Mapping, Sequence

from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode
from dp_hub.replay.mapping.config import Episodes, MappingConfig, next_names
from dp_hub.replay.mapping.selection import read_selection, split_name
from dp_hub.replay.recording import Recording
from dp_hub.replay.source import Source

_MOST_NAMES = 30


def check_mapping(mapping: MappingConfig, found: Source | Recording | Episode) -> None:
    """Whether all streams are there, and the settings make sense for such a source.

    Args:
        mapping: a mapping file.
        found: what a source holds by its description, or one recording or episode of it.
    Raises:
        DataError: a stream that is named is not there (with the nearest one that is), streams
            without a rate to put them on, or rows that shall be split.
    """
    if isinstance(found, Source):
        check_names(mapping, found.dtypes, "the source")
    elif isinstance(found, Recording):
        check_names(mapping, found.streams, found.name)
        if mapping.fps is None:
            raise DataError(
                "streams with times of their own need a rate to be put on",
                hint="begin the mapping with fps: 30, or what it shall be",
            )
    else:
        check_names(mapping, found.data, "an episode of the source")
        _check_rows(mapping)


def check_names(mapping: MappingConfig, names: Collection[str], where: str) -> None:
    """Raises DataError if a stream that the mapping names is not among ``names``."""
    for stream, place in mapping.places():
        if stream in names:
            continue
        shown = list(names)[:_MOST_NAMES]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        have = f"there are: {', '.join(shown)}{more}"
        near = _nearest(stream, names)
        raise DataError(
            f"`{place}` names the stream {stream!r}, which is not in {where}",
            hint=f"did you mean `{near}`? {have}" if near else have,
        )


def _nearest(stream: str, names: Collection[str]) -> str | None:
    near = difflib.get_close_matches(stream, names, n=1)
    parts = [name for name in names if name.rsplit("/", 1)[-1] == stream.rsplit("/", 1)[-1]]
    return next(iter(near or parts), None)


def _check_rows(mapping: MappingConfig) -> None:
    if mapping.episodes != Episodes():
        raise DataError(
            "`episodes` splits recordings; the rows of this source are episodes already",
            hint="leave it out of the mapping",
        )


def feature_names(
    mapping: MappingConfig, names: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Names of the numbers of every feature for which all are known.

    Args:
        mapping: which features there are.
        names: of the numbers of a value, by stream, as `Source.names` or `Stream.names` tell.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, feature in mapping.features.items():
        parts: list[Sequence[str]] = []
        for term in feature.parts():
            turned = term.rotation is not None and term.rotation.source != term.rotation.to
            parts.append(() if turned else term.selection.names(names.get(term.stream, ())))
        found[name] = _all_of(parts)
    for name, feature in mapping.features.items():
        if feature.next is not None:
            split = [split_name(text) for text in next_names(feature)]
            parts = [read_selection(at).names(found[other]) for other, at in split]
            found[name] = _all_of(parts)
        if feature.names:
            found[name] = tuple(feature.names)
    return {name: known for name, known in found.items() if known}


def _all_of(parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    together = tuple(name for part in parts for name in part)
    return together if all(parts) and len(set(together)) == len(together) else ()
