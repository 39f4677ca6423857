"""Bags of ROS 2 in SQLite: a table of topics and one of messages."""

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from dp_hub_converters.bags.storage import Channel, Message, Place, damage_told, damaged


class SqliteFile:
    """A `Storage`.

    Args:
        where: the file to read.
        path: what to call it in messages.
        folder: kept for as long as this is.
    """

    counts: Mapping[int, int] | None = None  # there is no count beside the messages themselves

    def __init__(self, where: Path, path: Path, folder: object) -> None:
        self.path, self._where, self._folder = path, where, folder
        self.notes: list[str] = []
        with closing(self._connect()) as base:
            # Not views, which could be queries that never end.
            listed = base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in listed}
            if not {"topics", "messages"} <= tables:
                raise damaged(path, "it has no tables topics and messages; is it another database?")
            definition = self._definition if "message_definitions" in tables else _no_definition
            self.channels = {
                int(number): Channel(*_texts(topic, kind, encoding), *definition(base, kind))
                for number, topic, kind, encoding in base.execute(
                    "SELECT id, name, type, serialization_format FROM topics"
                )
            }

    def messages(self, wanted: Collection[int]) -> Iterator[Message]:
        """As `Storage.messages`."""
        numbers = ",".join(str(int(number)) for number in sorted(wanted))
        query = "SELECT id, topic_id, timestamp, data FROM messages "
        query += f"WHERE topic_id IN ({numbers}) ORDER BY id"
        with damage_told(self.path), closing(self._connect()) as base:
            for row, channel, logged_ns, data in base.execute(query):
                if not (isinstance(logged_ns, int) and isinstance(data, bytes)):
                    raise damaged(self.path, f"row {row} of its messages is not one")
                yield Message(channel, logged_ns, memoryview(data), Place(-1, row, len(data)))

    def read(self, places: Sequence[Place]) -> Iterator[memoryview]:
        """As `Storage.read`."""
        with damage_told(self.path), closing(self._connect()) as base:
            for place in places:
                found = base.execute("SELECT data FROM messages WHERE id = ?", (place.offset,))
                row = found.fetchone()
                if row is None or not isinstance(row[0], bytes):
                    raise damaged(self.path, f"message {place.offset} is gone")
                yield memoryview(row[0])

    def _connect(self) -> sqlite3.Connection:
        # With a log of changes beside it SQLite has to see that; else nothing is locked or made.
        log = self._where.with_name(self._where.name + "-wal")
        flags = "mode=ro" if log.exists() else "mode=ro&immutable=1"
        name = quote(str(self._where.absolute()))
        base = sqlite3.connect(f"file:{name}?{flags}", uri=True, check_same_thread=False)
        base.execute("PRAGMA trusted_schema=OFF")
        return base

    @staticmethod
    def _definition(base: sqlite3.Connection, kind: str) -> tuple[str, bytes]:
        """Language and text of a type's definition."""
        found = base.execute(
            "SELECT encoding, encoded_message_definition FROM message_definitions "
            "WHERE topic_type = ?",
            (kind,),
        ).fetchone()
        language, text = found or ("", "")
        return (str(language), text.encode()) if isinstance(text, str) and text else ("", b"")


def _no_definition(base: sqlite3.Connection, kind: str) -> tuple[str, bytes]:
    """Of older bags, which have none."""
    return "", b""


def _texts(*values: object) -> Iterator[str]:
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"a text was expected, not {value!r}")
        yield value
