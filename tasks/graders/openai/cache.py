"""Judges' replies by request: in memory, and in a SQLite file where one is given, which several processes may share."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Cache:
    """Text by key. Raises ValueError for a file that is no cache."""

    def __init__(self, path: Path | None = None):
        self.memory: dict[str, str] = {}
        self.path = path
        if path:
            try:
                with self._file() as file:
                    file.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
            except sqlite3.Error as error:
                raise ValueError(f"{path}: {error}; give another path for the judge's cache, or delete it") from None

    def get(self, keys: list[str]) -> dict[str, str]:
        """Those of `keys` that are known."""
        missing = [key for key in keys if key not in self.memory]
        if self.path and missing:
            with self._file() as file:  # json_each: one statement, however many keys
                query = "SELECT key, reply FROM replies WHERE key IN (SELECT value FROM json_each(?))"
                self.memory |= dict(file.execute(query, [json.dumps(missing)]))
        return {key: self.memory[key] for key in keys if key in self.memory}

    def put(self, key: str, reply: str) -> None:
        self.memory[key] = reply
        if self.path:
            with self._file() as file:
                file.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", [key, reply])

    @contextmanager
    def _file(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own: they may not be shared between threads."""
        connection = sqlite3.connect(self.path, timeout=60)
        try:
            with connection:  # commits
                yield connection
        finally:
            connection.close()
