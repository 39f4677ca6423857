"""What a converter is: a named format that describes a source and yields its episodes.

A format is added by a class like this under the entry-point group ``dp_hub.converters``; checking,
hashing, statistics, encoding and writing are the dataset writer's, once for all formats.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dp_hub.replay.episode import Episode
from dp_hub.replay.recording import Recording


@dataclass(frozen=True)
class Source:
    """What there is to convert.

    Args:
        dtypes: numpy's name of the stored type, by key. Pictures stored as floats may come as
            uint8 in the episodes, where that changes no value.
        n_episodes: number of episodes, None if it cannot be told beforehand.
        n_frames: number of steps over all episodes, likewise.
        attrs: facts the source states; ``fps``, ``task`` and ``robot_type`` serve as defaults,
            ``license`` becomes the dataset's.
        notes: things the user should know about what was read and how.
        features: names that keys have as features by default, where the source has them.
        names: of the numbers of a step, by key, where the source has names for them.
        recode: by key, why its videos cannot be taken over packet by packet.
        sources: if it is a dataset itself, its ``name``, ``revision``, ``fingerprint`` and
            ``license``.
        fps_hint: why the rate must be given where ``attrs`` does not state it, in words that say
            how: for formats whose rate is known to nobody but the user.
    """

    dtypes: Mapping[str, str]
    n_episodes: int | None = None
    n_frames: int | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    features: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    recode: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[Mapping[str, Any], ...] = ()
    fps_hint: str | None = None


class Converter(Protocol):
    """One source format. Made without arguments, or with the format's own options by keyword.

    A format that is found on the Hub too says so with the attribute ``on_hub = True``. One that
    needs libraries of its own names their extra in its entry point: ``aloha = "...:Aloha [hdf5]"``.
    """

    name: str
    summary: str

    def recognises(self, path: Path) -> bool:
        """Whether ``path`` looks like this format; from names and the first bytes, at once."""
        ...

    def describe(self, path: Path) -> Source:
        """What is at ``path``. Raises DataError where it does not hold together.

        Of many files one may be bad. A format that takes ``skip_bad`` by keyword as well is asked
        with ``skip_bad=True`` where bad episodes are to be left out, and describes the others:
        ``n_episodes`` counts the bad ones too, `episodes` raises when their turn comes.
        """
        ...

    def episodes(
        self, path: Path, *, drop: Collection[str] = (), start: int = 0
    ) -> Iterator[Episode]:
        """Its episodes in order, from number ``start`` on, without the keys in ``drop``.

        Entered again behind an episode that raised, and by several processes at places of their
        own: to begin at any ``start`` should cost little more than the episode itself.
        """
        ...


class RecordingConverter(Protocol):
    """A format of streams that each have times of their own."""

    name: str
    summary: str

    def recognises(self, path: Path) -> bool:
        """As `Converter.recognises`."""
        ...

    def describe(self, path: Path) -> Source:
        """As `Converter.describe`: ``dtypes`` by stream, over all recordings."""
        ...

    def recordings(
        self, path: Path, *, only: Collection[str] | None = None, start: int = 0
    ) -> Iterator[Recording]:
        """Its recordings in order, from number ``start`` on, with all streams or those in ``only``.

        Values are read when they are sliced; times at once.
        """
        ...
