"""What the tests of the journal share: appends, what a crash leaves, a process to be killed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from airside.actors.journal.log import JOURNAL
from airside.actors.journal.store import JournalStore
from airside.stack.ids import RunId, TenantId
from airside.stack.journal.journaling import Append, AppendTogether, Entry
from airside.stack.journal.stream import entry_of
from airside.stack.reasons import ReasonCode
from airside.stack.run.events import RunEnded, encode_event
from airside.stack.values import Outcome, Usage
from tests.helpers import identity, submitted

KEY = b"k" * 32
WAL = f"{JOURNAL}-wal"
ENDED = encode_event(
    RunEnded(outcome=Outcome(status="completed", reason_code=ReasonCode.COMPLETED), usage=Usage(), at_us=1)
)
JOINED = [f"apr_{n}" for n in range(20)]
"""Streams that the process which is killed appends to in one write only."""
TABLES = ("events", "runs", "outcomes", "streams")


def note(stream: str, first: int, count: int, tenant: str = "acme", *, epoch: int = 0, fill: str = "") -> Append:
    """Return an append of so many notes; the first of a stream is its admission."""
    entries = [
        Entry(type="Note", step=1, at_us=10 + n, cause=-1, body=json.dumps({"n": n, "fill": fill}).encode())
        for n in range(first, first + count)
    ]
    if first == 0 and stream.startswith("run_"):
        whose = identity(tenant=TenantId(tenant))
        entries[0] = entry_of(msgspec.structs.replace(submitted(), run_id=RunId(stream), identity=whose))
    return Append(tenant=TenantId(tenant), stream=stream, epoch=epoch, first_seq=first, entries=tuple(entries))


def end(stream: str, first: int, tenant: str = "acme") -> Append:
    """Return the append of a run's end."""
    entry = Entry(type="RunEnded", step=1, at_us=1, cause=-1, body=ENDED)
    return Append(tenant=TenantId(tenant), stream=stream, epoch=0, first_seq=first, entries=(entry,))


def crashed(folder: Path, to: Path) -> Path:
    """Return a copy of a folder as its process leaves it that dies now: nothing closed, no lock held."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*-shm"))
    return to


def tables_of(store: JournalStore) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row a query can see."""
    return {
        table: store._projection.ask(store.last(), lambda db, t=table: db.execute(f"FROM {t} ORDER BY ALL").fetchall())
        for table in TABLES
    }


def append_until_killed(folder: Path, seed: int) -> None:
    """Append to the streams of a folder without end; say of each group what was acknowledged, a line each."""
    random = Random(seed)
    store = JournalStore(folder, KEY)
    store.start_feeding()
    lengths = {stream: len(bodies) for stream, bodies in store.bodies([f"run_{n}" for n in range(5)]).items()}
    joined = len(store.bodies(JOINED)[JOINED[0]])
    print("ready", flush=True)
    while True:
        group: list[Append | AppendTogether] = []
        for stream in random.sample(sorted(lengths), random.randint(1, 5)):
            count = random.randint(1, 20)
            group.append(
                note(stream, lengths[stream], count, f"tenant{stream[-1]}", fill="x" * random.randint(0, 3000))
            )
            lengths[stream] += count
        together = [note(stream, joined, 1, fill="y" * random.randint(0, 3000)) for stream in JOINED]
        group.insert(random.randint(0, len(group)), AppendTogether(appends=tuple(together)))
        joined += 1
        assert {reply.verdict for reply in store.commit(group)} == {"ok"}
        if random.random() < 0.1:
            store.checkpoint(1)
        if random.random() < 0.1:
            store._log.fold()
        print(json.dumps(lengths), flush=True)


if __name__ == "__main__":
    append_until_killed(Path(sys.argv[1]), int(sys.argv[2]))
