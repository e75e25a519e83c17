"""What the tests' tools did, in an SQLite file that outlives every process."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_SCHEMA = "CREATE TABLE IF NOT EXISTS effects (key TEXT, tool TEXT, text TEXT, amount INTEGER)"


@dataclass(frozen=True)
class Ledger:
    """One row an effect.  Only `once` looks at the key; `append` shows an effect that happened twice as two rows."""

    path: Path

    def once(self, key: str, tool: str, text: str) -> None:
        """Add an effect unless its key has one."""
        with closing(self._open()) as db:
            db.execute("BEGIN IMMEDIATE")
            if not db.execute("SELECT 1 FROM effects WHERE key = ?", [key]).fetchall():
                db.execute("INSERT INTO effects VALUES (?, ?, ?, 0)", [key, tool, text])
            db.execute("COMMIT")

    def append(self, key: str, tool: str, text: str, amount: int) -> None:
        """Add an effect, whatever is there."""
        with closing(self._open()) as db:
            db.execute("INSERT INTO effects VALUES (?, ?, ?, ?)", [key, tool, text, amount])

    def amount(self, key: str) -> int | None:
        """Return the amount of a key's effect."""
        with closing(self._open()) as db:
            found = db.execute("SELECT amount FROM effects WHERE key = ?", [key]).fetchone()
        return None if found is None else int(found[0])

    def texts(self, prefix: str = "") -> list[str]:
        """Return the texts of all effects that begin with `prefix`, sorted, doubles included."""
        with closing(self._open()) as db:
            rows = db.execute("SELECT text FROM effects ORDER BY text").fetchall()
        return [text for (text,) in rows if text.startswith(prefix)]

    def amounts(self, text: str) -> list[int]:
        """Return the amounts of the effects of a text, oldest first."""
        with closing(self._open()) as db:
            rows = db.execute("SELECT amount FROM effects WHERE text = ? ORDER BY rowid", [text]).fetchall()
        return [amount for (amount,) in rows]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return tool, text and key of every effect, in the order they had."""
        with closing(self._open()) as db:
            return [tuple(row) for row in db.execute("SELECT tool, text, key FROM effects ORDER BY rowid")]

    def clear(self) -> None:
        """Forget all effects."""
        with closing(self._open()) as db:
            db.execute("DELETE FROM effects")

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        db.execute("PRAGMA synchronous = OFF")  # a killed process loses nothing by it
        db.execute(_SCHEMA)
        return db
