"""Which record was said of which, kept apart from memory: what erasing a subject must reach, and what it may."""

from __future__ import annotations

from collections.abc import Collection


class Ancestry:
    """Every record that ever was, with its subject, the subjects behind it, and the records it was said of."""

    def __init__(self) -> None:
        self._subjects: dict[str, str] = {}
        self._behind: dict[str, set[str]] = {}
        self._shown: dict[str, set[str]] = {}

    def add(self, record_id: str, subject: str, shown: Collection[str]) -> None:
        """Take in that a record was said, perhaps again, by somebody who was shown records."""
        self._subjects.setdefault(record_id, subject)
        behind = self._behind.setdefault(record_id, set())
        for each in shown:
            behind |= self._behind.get(each, set()) | ({self._subjects.get(each, "")} - {""})
        self._shown.setdefault(record_id, set()).update(set(shown) - {record_id})

    def of(self, subject: str, there: Collection[str]) -> set[str]:
        """Return the records that are about a subject, or were said of what was."""
        return {each for each in there if self._subjects.get(each) == subject or subject in self._behind.get(each, ())}

    def reached(self, subject: str, there: Collection[str]) -> set[str]:
        """Return those, and what was said of one of them before it was said of the subject."""
        found = self.of(subject, there)
        while more := {each for each in there if self._shown.get(each, set()) & found} - found:
            found |= more
        return found
