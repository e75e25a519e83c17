"""The query `attempts_since`: attempts at questions to models as a restarted model caller reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from airside.actors.journal.store import JournalStore
from airside.stack.ids import TenantId
from airside.stack.journal.journaling import Append, Entry
from airside.stack.models.events import ModelAnswered, ModelAsked, ModelEvent, ModelFailed, model_entry
from airside.stack.models.recent_attempts import AttemptEntry
from airside.stack.values import FREE, MOST, Spend
from tests.journals import KEY, note

ASKED = ModelAsked(
    at_us=100,
    step=1,
    epoch=1,
    nth=0,
    attempt=1,
    model="a",
    prompt_sha256="",
    reserved=Spend(tokens=900, cost_microusd=5),
    prices="own",
)
ANSWERED = ModelAnswered(
    at_us=120,
    step=1,
    attempt=1,
    model="a-1",
    finish="stop",
    text='{"spent":{"tokens":1}}',
    calls=(),
    input_tokens=60,
    output_tokens=10,
    spent=Spend(tokens=70, cost_microusd=1),
    took_ms=1,
)
FAILED = ModelFailed(at_us=130, step=1, attempt=2, error="busy", spent=FREE, took_ms=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JournalStore]:
    """A journal."""
    with closing(JournalStore(tmp_path, KEY)) as made:
        yield made


def write(store: JournalStore, stream: str, *events: ModelEvent, tenant: str = "acme") -> None:
    """Write a stream's events."""
    entries = tuple(map(model_entry, events))
    append = Append(tenant=TenantId(tenant), stream=stream, epoch=0, first_seq=0, entries=entries)
    assert [reply.verdict for reply in store.commit([append])] == ["ok"]


def found(store: JournalStore, since_us: int = 0, most: int = 99) -> list[AttemptEntry]:
    """Return what the query says."""
    return [AttemptEntry(*row) for row in store.rows("attempts_since", since_us, most)]


def test_attempts_of_all_tenants_are_told_latest_first_at_what_they_took(store: JournalStore) -> None:
    again = msgspec.structs.replace(ASKED, attempt=2, at_us=125)
    write(store, "model/run_1:1", ASKED, ANSWERED, again, FAILED)
    store.commit([note("run_x", 0, 2)])
    write(store, "model/run_2:1", msgspec.structs.replace(ASKED, at_us=90), tenant="globex")
    assert found(store) == [
        AttemptEntry("model/run_2:1", 90, True, 1, "a", 900),
        AttemptEntry("model/run_1:1", 130, False, 2, "", 0),
        AttemptEntry("model/run_1:1", 125, True, 2, "a", 900),
        AttemptEntry("model/run_1:1", 120, False, 1, "a-1", 70),
        AttemptEntry("model/run_1:1", 100, True, 1, "a", 900),
    ]
    assert found(store, most=1) == found(store)[:1]


def test_all_that_follows_the_first_entry_of_the_time_is_told(store: JournalStore) -> None:
    """Also what a clock stamped that was put back after it."""
    for number, at_us in enumerate((50, 100, 40)):
        write(store, f"model/run_{number}:1", msgspec.structs.replace(ASKED, at_us=at_us))
    assert [each.at_us for each in found(store, 60)] == [40, 100]
    assert found(store, 101) == []


def test_what_went_into_a_batch_and_what_is_no_attempt_is_not_told(store: JournalStore) -> None:
    """Nor does it keep a caller from beginning, whoever wrote it."""
    write(store, "model/run_1:1", msgspec.structs.replace(ASKED, batch="b"))
    bodies = [b"{}", b"null", b'{"attempt":1,"reserved":{"tokens":"x"}}', b'{"attempt":1,"reserved":{"tokens":1e300}}']
    bodies += [b"no json", b'{"attempt":99999999999999999999,"reserved":{"tokens":1}}', b'{"attempt":[1]}']
    huge = b'{"attempt":1,"model":null,"reserved":{"tokens":9223372036854775807},"batch":null}'
    entries = tuple(Entry(type="ModelAsked", step=1, at_us=1, cause=-1, body=body) for body in [*bodies, huge])
    append = Append(tenant=TenantId("acme"), stream="model/x", epoch=0, first_seq=0, entries=entries)
    assert [reply.verdict for reply in store.commit([append])] == ["ok"]
    assert found(store) == [AttemptEntry("model/x", 1, True, 1, "", MOST)]
