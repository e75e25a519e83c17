"""What an order to erase takes: what it names, and what was said by runs that had been shown that.

Pure.  That a text repeats what was erased can be seen; that it paraphrases it cannot.  So all that derives from it
goes, unless the order says otherwise; why each goes is said beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from airside.memory.lineage import MANY, UNTRACED, subject_mark
from airside.memory.records import Record
from airside.memory.storage.erasure import Erasure, What
from airside.memory.text import named_stems, normal, stems, words
from airside.stack.ids import TenantId
from airside.stack.values import Value

Why = Literal["own", "repeats", "shown", "many"]
WHYS: Mapping[Why, str] = {
    "own": "what the order names",
    "repeats": "derives from it, and has a name, number or phrase of it",
    "shown": "its run was shown it, or what derives from it",
    "many": "derives from more than is kept of its lineage",
}

_PHRASE = 3
"""Terms in a row that two texts do not share by chance."""


class Reached(Value):
    """A record that an order reaches, and why; `digest` is of its text.

    `others`: it is about another subject than the order, or names one.
    """

    record_id: str
    why: Why
    digest: str
    others: bool = False


class ErasurePlan(Value):
    """What an order takes, what it reaches and leaves, and how many that stay have a lineage that is not known."""

    taken: tuple[Reached, ...] = ()
    left: tuple[Reached, ...] = ()
    untraced: int = 0

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of what goes."""
        return tuple(each.record_id for each in self.taken)


class ErasureReceipt(ErasurePlan):
    """What was erased: no result, file, old version, index or cache holds it any more.  Of texts it has digests.

    `records` are the ids.  With `dry_run` it is what would be.  The journal is the audit log: what a run's steps said
    there stays as long as the journal.
    """

    tenant: TenantId
    what: What
    target: str
    records: tuple[str, ...]
    at_us: int
    dry_run: bool = False

    def summary(self) -> str:
        """Return in one line how many went by what rule, and what stays."""
        whys = Counter(each.why for each in self.taken)
        counts = ", ".join(f"{whys[why]} {why}" for why in WHYS if whys[why]) or "none"
        others = sum(each.others for each in self.taken)
        parts = [f"{len(self.taken)} records {'would be erased' if self.dry_run else 'erased'}: {counts}"]
        parts += [f"{others} of them are about other subjects too"] if others else []
        parts += [f"{len(self.left)} that derive from it are left"] if self.left else []
        parts += [f"{self.untraced} records of before have no lineage"] if self.untraced else []
        return "; ".join(parts)


def plan_erasure(order: Erasure, records: Collection[Record]) -> ErasurePlan:
    """Return what an order does to a tenant's records."""
    own, derived, of_many = reached(order, records)
    seen = _Echo(order, own, records if derived or of_many else ())
    found = [Reached(record_id=record.record_id, why="own", digest=record.digest) for record in own]
    found += [
        Reached(
            record_id=record.record_id,
            why="repeats" if seen.repeats(record) else "shown" if number < len(derived) else "many",
            digest=record.digest,
            others=seen.is_about_others(record),
        )
        for number, record in enumerate((*derived, *of_many))
    ]
    kept = frozenset(order.keep)
    taken = tuple(r for r in found if r.why == "own" or (r.record_id not in kept and order.only in ("", r.why)))
    ids = {each.record_id for each in taken}
    return ErasurePlan(
        taken=taken,
        left=tuple(each for each in found if each.record_id not in ids),
        untraced=sum(UNTRACED in record.lineage and record.record_id not in ids for record in records),
    )


def reached(order: Erasure, records: Collection[Record]) -> tuple[list[Record], list[Record], list[Record]]:
    """Return what an order names, what derives from that, and what may because its lineage was too long to keep.

    The last only if there is anything of the first two: a subject that memory knows nothing of is a slip of the pen.
    What derives from a record that is kept by name derives, by it, from nothing that goes.
    """
    own = [record for record in records if order.covers(record)]
    if order.what == "tenant":
        return own, [], []
    found = {record.record_id: record for record in own}
    kept = frozenset(order.keep)
    marks = [*found, *([subject_mark(order.target)] if order.what == "subject" else [])]
    begin = {*marks, MANY}
    deriving = [record for record in records if record.lineage]
    if all(begin.isdisjoint(record.lineage) for record in deriving):
        return own, [], []
    by_mark: dict[str, list[Record]] = {}
    for record in deriving:
        for mark in record.lineage:
            by_mark.setdefault(mark, []).append(record)
    while marks:
        for record in by_mark.get(marks.pop(), ()):
            if record.record_id not in found:
                found[record.record_id] = record
                if record.record_id not in kept:
                    marks.append(record.record_id)
    of_many = [record for record in by_mark.get(MANY, ()) if found and record.record_id not in found]
    return own, list(found.values())[len(own) :], of_many


_Names = Mapping[str, Mapping[int, set[tuple[str, ...]]]]
"""Names as words, by the first of them and how many they are."""


class _Echo:
    """What of the texts that go is heard in another."""

    def __init__(self, order: Erasure, own: Collection[Record], records: Iterable[Record]) -> None:
        subjects = {normal(record.subject) for record in own if record.subject}
        subjects |= {normal(order.target)} if order.what == "subject" else set()
        self._names = {name for record in own for name in named_stems(record.text)}
        self._phrases = {phrase for record in own for phrase in _phrases(stems(record.text))}
        self._own_subjects = {"", *subjects}
        self._subjects = _by_first_word(subjects)
        self._others = _by_first_word({normal(record.subject) for record in records} - self._own_subjects)

    def repeats(self, record: Record) -> bool:
        """Whether a text has a name, a number or a phrase of those that go, or names their subject."""
        said = stems(record.text)
        return (
            not self._names.isdisjoint(said)
            or not self._phrases.isdisjoint(_phrases(said))
            or _names_one_of(record.text, self._subjects)
        )

    def is_about_others(self, record: Record) -> bool:
        """Whether a record is about another subject that memory knows, or names it."""
        return normal(record.subject) not in self._own_subjects or _names_one_of(record.text, self._others)


def _phrases(said: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return zip(*(said[at:] for at in range(_PHRASE)), strict=False)


def _by_first_word(subjects: Iterable[str]) -> _Names:
    found: dict[str, dict[int, set[tuple[str, ...]]]] = {}
    for subject in subjects:
        if name := tuple(words(subject)):
            found.setdefault(name[0], {}).setdefault(len(name), set()).add(name)
    return found


def _names_one_of(text: str, subjects: _Names) -> bool:
    said = words(text) if subjects else []
    return any(
        tuple(said[at : at + count]) in names
        for at, word in enumerate(said)
        for count, names in subjects.get(word, {}).items()
    )
