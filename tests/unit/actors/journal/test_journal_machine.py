"""Whatever is appended, and however often the process dies on the way, the journal is what was acknowledged."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from airside.actors.audit import journal_file
from airside.actors.journal import projection as journal_projection
from airside.actors.journal.projection import PROJECTION, Projection
from airside.actors.journal.store import JournalStore
from airside.stack.journal.journaling import Append, AppendTogether
from tests.journals import KEY, TABLES, WAL, crashed, end, note, tables_of

STREAMS = [f"run_{n}" for n in range(4)] + ["apr_0"]
TENANTS = dict(zip(STREAMS, ["acme", "acme", "globex", "initech", "acme"], strict=True))
groups = st.dictionaries(st.sampled_from(STREAMS), st.integers(1, 4), min_size=1)


def writes_of(group: list[Append], is_one: bool) -> list[Append | AppendTogether]:
    """Return a group as so many writes, or as one."""
    return [AppendTogether(appends=tuple(group))] if is_one and group else [*group]


class Died(BaseException):
    """The process is gone."""


class JournalMachine(RuleBasedStateMachine):
    """A journal against a list of what was acknowledged; `n` numbers the lives of its process."""

    @initialize()
    def begin(self) -> None:
        """Make a journal."""
        self.place = Path(tempfile.mkdtemp(prefix="journal-"))
        self.lives = 0
        self.store = JournalStore(self.place / "0", KEY)
        self.known: dict[str, list[str]] = {stream: [] for stream in STREAMS}
        self.ended: set[str] = set()

    @property
    def folder(self) -> Path:
        """Where the present process's journal is."""
        return self.place / str(self.lives)

    def group(self, counts: dict[str, int]) -> list[Append]:
        """Return appends to streams, behind what they have; an ended one is retried from its start."""
        return [
            note(stream, len(self.known[stream]), count, TENANTS[stream], fill="y" * 700)
            for stream, count in counts.items()
            if stream not in self.ended
        ]

    def take_in(self, appends: list[Append]) -> None:
        """Note what was acknowledged."""
        for append in appends:
            self.known[append.stream] += [entry.body.decode() for entry in append.entries]

    def live_again(self, left: Path) -> None:
        """Open, as the next process, what the last one left."""
        self.store.release()
        self.lives += 1
        left.rename(self.folder)
        self.store = JournalStore(self.folder, KEY)
        assert self.store.bodies(STREAMS) == self.known

    def left(self) -> Path:
        """Return what the process leaves if it dies now."""
        return crashed(self.folder, self.place / "left")

    @rule(counts=groups, is_one=st.booleans())
    def append(self, counts: dict[str, int], is_one: bool) -> None:
        """Append a group, or all of it as one write, and send it again: the answer may have been lost."""
        group = self.group(counts)
        for _ in range(2):
            assert {reply.verdict for reply in self.store.commit(writes_of(group, is_one))} <= {"ok"}
        self.take_in(group)

    @rule(counts=groups, place=st.integers(0, 5), others=groups)
    def refuse(self, counts: dict[str, int], place: int, others: dict[str, int]) -> None:
        """Of a write of which one append is refused nothing is taken in; what is committed with it is."""
        appends = self.group(counts)
        appends.insert(min(place, len(appends)), note("apr_1", 7, 1))
        group = self.group(others)
        replies = self.store.commit([AppendTogether(appends=tuple(appends)), *group])
        assert [reply.verdict for reply in replies] == ["gap"] + ["ok"] * len(group)
        self.take_in(group)

    @rule(stream=st.sampled_from(STREAMS[:4]))
    def finish(self, stream: str) -> None:
        """End a run, which takes nothing more in."""
        if self.known[stream] and stream not in self.ended:
            last = end(stream, len(self.known[stream]), TENANTS[stream])
            assert self.store.commit([last])[0].verdict == "ok"
            self.take_in([last])
            self.ended.add(stream)
            more = note(stream, len(self.known[stream]), 1, TENANTS[stream])
            assert self.store.commit([more])[0].verdict == "fenced"

    @rule()
    def project(self) -> None:
        """Let the projection take in what is durable."""
        self.store.catch_up()
        assert self.store.behind == 0

    @rule()
    def checkpoint(self) -> None:
        """Seal the heads."""
        self.store.checkpoint(1)

    @rule()
    def fold(self) -> None:
        """Move the write-ahead log into the file, whatever its length."""
        with patch("airside.actors.journal.log.FOLD_BYTES", 0):
            self.store._log.fold()

    @rule()
    def restart(self) -> None:
        """Stop in good order, and start again."""
        self.store.close()
        self.store = JournalStore(self.folder, KEY)

    @rule(counts=groups, is_answered=st.booleans())
    def die_after_a_commit(self, counts: dict[str, int], is_answered: bool) -> None:
        """Die between the log's commit and the projection's, the answer sent or not: a retry is answered alike."""
        group = self.group(counts)
        self.store.commit(group)
        left = self.left()
        self.take_in(group)
        self.live_again(left)
        if not is_answered:
            assert {reply.verdict for reply in self.store.commit(group)} <= {"ok"}

    @rule(counts=groups, part=st.floats(0, 1), noise=st.binary(max_size=5000), is_one=st.booleans())
    def die_in_a_commit(self, counts: dict[str, int], part: float, noise: bytes, is_one: bool) -> None:
        """Die while a group is written: nothing before it is lost, and of it there is all or nothing."""
        before = self.left()
        size = (before / WAL).stat().st_size if (before / WAL).exists() else 0
        shutil.rmtree(before)
        group = self.group(counts)
        self.store.commit(writes_of(group, is_one))
        left = self.left()
        whole = (left / WAL).stat().st_size if (left / WAL).exists() else 0
        if whole <= size:  # the file was begun anew: what is torn is not behind what was there
            shutil.rmtree(left)
            return self.take_in(group)
        cut = size + int(part * (whole - size))
        os.truncate(left / WAL, cut)
        with (left / WAL).open("ab") as file:
            file.write(noise)
        self.store.release()
        self.lives += 1
        left.rename(self.folder)
        self.store = JournalStore(self.folder, KEY)
        found = self.store.bodies(STREAMS)
        if found != self.known:
            self.take_in(group)
            assert found == self.known and cut == whole
        elif group:
            assert {reply.verdict for reply in self.store.commit(group)} == {"ok"}
            self.take_in(group)

    @rule(table=st.sampled_from(["events", "runs", "streams"]))
    def die_while_it_is_projected(self, table: str) -> None:
        """Die in the middle of a transaction of the projection."""
        place = self.place / "left"

        def die(database: object, name: str, data: object) -> None:
            if name == table:
                crashed(self.folder, place)
                raise Died
            journal_projection_insert(database, name, data)

        journal_projection_insert = journal_projection._insert
        with patch.object(journal_projection, "_insert", die), suppress(Died):
            self.store.catch_up()
        if place.exists():
            self.live_again(place)

    @rule(damage=st.sampled_from(["gone", "cut", "noise", "empty", "another", "log gone"]))
    def lose_the_projection(self, damage: str) -> None:
        """Die, and lose what was projected, or part of it."""
        left = self.left()
        for path in (left / PROJECTION).parent.glob("*"):
            data = path.read_bytes()
            made = {"cut": data[: len(data) // 2], "noise": os.urandom(len(data)), "empty": b"", "another": b"x" * 9999}
            if damage == "gone" or (damage == "log gone" and path.suffix == ".wal"):
                path.unlink()
            elif damage in made and path.suffix != ".wal":
                path.write_bytes(made[damage])
        self.live_again(left)

    @rule()
    def look(self) -> None:
        """The journal is whole and its tables are those of a projection made anew, for others too who read it."""
        assert self.store.verify() == []
        assert self.store.bodies(STREAMS) == self.known
        tables = tables_of(self.store)
        fresh = Projection(self.place / "fresh" / "p.duckdb", self.store._reader)
        for name in TABLES:
            assert (
                fresh.ask(self.store.last(), lambda db, n=name: db.execute(f"FROM {n} ORDER BY ALL").fetchall())
                == (tables[name])
            )
        fresh.close()
        shutil.rmtree(self.place / "fresh")
        assert sorted(row[9] for row in tables["events"]) == sorted(b for bodies in self.known.values() for b in bodies)
        assert {row[0] for row in tables["outcomes"]} == self.ended
        left = self.left()
        copy = journal_file(left)
        assert copy.bodies(STREAMS) == self.known
        assert [tuple(r.values()) for r in copy.query("FROM events ORDER BY ALL").to_pylist()] == tables["events"]
        copy.close()
        shutil.rmtree(left)

    def teardown(self) -> None:
        """Remove everything."""
        if hasattr(self, "store"):
            self.look()
            self.store.close()
            shutil.rmtree(self.place)


FEW = settings(max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(FEW, max_examples=400, stateful_step_count=30)


class JournalMachineAtLength(JournalMachine):
    """The same, for long."""


TestJournal = JournalMachine.TestCase
TestJournal.settings = FEW
JournalMachineAtLength.TestCase.settings = MANY
TestJournalAtLength = pytest.mark.slow(JournalMachineAtLength.TestCase)
