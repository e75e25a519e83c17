"""Runs that were shown a subject's record: what they said goes with it, and what they say afterwards is not kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.memory.in_memory import HashingEmbedder
from airside.memory.rules import MemoryRules, Weights
from airside.memory.service import MemoryService
from airside.memory.storage.erasure import Erasure
from airside.stack.contracts.memory import Candidate, LearnReply, RecallReply, RecallRequest
from airside.stack.cycle.cycle import Cycle
from airside.stack.cycle.cycle_ports import CyclePorts
from airside.stack.cycle.in_memory import InMemoryApprovals, InMemoryJournal, InMemoryPolicy
from airside.stack.ids import RunId, TenantId
from airside.stack.policy.bundle import load_bundle
from airside.stack.policy.gate import Gate
from airside.stack.run import events as ev
from airside.stack.run.agents import FunctionAgent, View
from airside.stack.run.machine import RunMachine
from airside.stack.run.state import Phase
from airside.stack.run.topology import SingleAgent
from airside.stack.security.identity import run_subject, seal_identity
from airside.stack.security.memory_access import Warrants
from airside.stack.values import Action, Finish, Limits, Request
from airside.tools.dispatch import Dispatcher
from airside.tools.in_memory import InMemoryTools
from airside.tools.keeping import remember
from tests.helpers import EXECUTOR, KEY, identity

ACME = TenantId("acme")
NOW_US = 1_700_000_000_000_000
TEXT = "Wilhelmina Quokka pays invoice 4711081509 by wire from Zanzibar within thirty days"
QUESTION = "how does Wilhelmina Quokka pay invoice 4711081509"
QUOKKA = Erasure(tenant=ACME, what="subject", target="wilhelmina quokka")

REPEATS = (
    "as we know Wilhelmina Quokka pays the invoice within thirty days",
    "invoice 4711081509 will be settled by the periwinkle department",
    "somebody pays by wire from Zanzibar as the sesquipedalian ledger says",
)
PARAPHRASES = (
    "this customer takes a month over it and then the bank moves the whistling amount",
    "everybody relies on her to settle what she owes a marzipan month later",
    "no reminder is needed for that flibbertigibbet account",
)
IGNORES = (
    "the umbrella stand of the lobby needs a new thingamajig",
    "water levels in the bumbershoot canal stay as they are",
)
Decide = Callable[[View], Awaitable[Action | Finish]]


class Port:
    """Memory as its actor serves it: to warrants alone."""

    def __init__(self, memory: MemoryService) -> None:
        self.memory = memory
        self.warrants = Warrants(KEY, lambda: NOW_US)

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Answer a question that has a warrant."""
        allowed = self.warrants.recall(request)
        assert allowed is not None
        return await self.memory.retrieve(allowed)

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep a candidate that has a warrant."""
        allowed = self.warrants.learn(candidate)
        assert allowed is not None
        return await self.memory.write_if_useful(allowed)


class Office:
    """Runs of one tenant over one memory."""

    def __init__(self, memory: MemoryService) -> None:
        self.memory, self.port, self.journal = memory, Port(memory), InMemoryJournal()
        self._runs = 0

    async def run(self, decide: Decide, question: str = QUESTION) -> RunMachine:
        """Return a run that has completed."""
        self._runs += 1
        run_id, count, who = RunId(f"run_{self._runs:024x}"), iter(range(10_000)), identity()
        gate = Gate(
            bundle=load_bundle("version: v1\nrules: [{id: all, outcome: allow}]\n"),
            tools=[remember.spec],
            seal_key=KEY,
            now_us=lambda: NOW_US,
            random=lambda n: next(count).to_bytes(n, "big"),
        )
        ports = CyclePorts(
            journal=self.journal,
            policy=InMemoryPolicy(gate),
            tools=InMemoryTools(self._dispatcher),
            approvals=InMemoryApprovals(KEY, lambda: NOW_US),
            memory=self.port,
            agents={"a": FunctionAgent(decide)},
            routes={"default": SingleAgent("a")},
            specs=[remember.spec],
            now_us=lambda: NOW_US,
            spawn=lambda *_: asyncio.sleep(0),
        )
        submitted = ev.RunSubmitted(
            at_us=NOW_US,
            run_id=run_id,
            identity=who,
            sealed=seal_identity(KEY, who, run_subject(run_id)),
            request=Request(text=question),
            limits=Limits(),
            app_version="1",
        )
        machine = RunMachine(submitted)
        first = machine.handle(ev.RunActivated(at_us=NOW_US, epoch=1))
        cycle = Cycle(machine, ports, durable=0)
        for event in machine.events:
            cycle.log.record(event)
        await cycle.advance(first)
        assert machine.state.phase is Phase.COMPLETED, machine.story()
        return machine

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(
            [remember],
            seal_key=KEY,
            executor_id=EXECUTOR,
            now_us=lambda: NOW_US,
            in_threads=False,
            journal=self.journal.append,
            memory=self.port,
        )

    async def texts(self) -> dict[str, str]:
        """Return what is kept, with its id."""
        return {record.text: record.record_id for record in await self.memory.records(ACME)}


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """An office whose memory lies in the test's folder; everything in it is recalled."""
    rules = MemoryRules(min_score=0.0, weights=Weights(diversity=0.0))
    memory = MemoryService(tmp_path / "memory", HashingEmbedder, lambda: NOW_US, rules)
    yield Office(memory)
    memory.close()


def answering(text: str, *, shown: str, until: Callable[[], Awaitable[Any]] | None = None) -> Decide:
    """Return an agent that is shown a text, waits for the others, and answers."""

    async def decide(view: View) -> Finish:
        assert shown in [record.text for record in view.recalled]
        if until is not None:
            await until()
        return Finish(answer=text)

    return decide


def remembering(text: str, subject: str = "", until: Callable[[], Awaitable[Any]] | None = None) -> Decide:
    """Return an agent that proposes a memory once it was shown something."""

    async def decide(view: View) -> Action | Finish:
        if view.history:
            return Finish(answer=view.history[-1].result.value()["code"])
        assert view.recalled
        if until is not None:
            await until()
        return Action(tool="remember", arguments={"text": text, "subject": subject})

    return decide


def traces(text: str) -> list[bytes]:
    """Return bytes of a text, of each of its rare words, and of its vector, that nothing else has."""
    rare = [word.encode() for word in text.split() if len(word) > 9]
    return [text.encode(), *rare, HashingEmbedder().embed([text])[0].tobytes()]


def files_of(folder: Path) -> list[bytes]:
    """Return what is in every file of a folder."""
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def fill(office: Office) -> None:
    """Have ten runs be shown a subject's record, nine at once and the last by what another one answered."""
    await office.memory.write_if_useful(
        Candidate(tenant=ACME, text=TEXT, kind="fact", source="crm", subject="Wilhelmina Quokka", trust="high")
    )
    together = asyncio.Barrier(9)
    answers = [answering(text, shown=TEXT, until=together.wait) for text in (*REPEATS, *PARAPHRASES, *IGNORES)]
    nadia = remembering("Nadia Ekwueme was told that 4711081509 is the oldest bill", "nadia", together.wait)
    runs = [office.run(decide) for decide in (*answers, nadia)]
    await asyncio.gather(*runs)
    own = (await office.texts())[TEXT]
    assert await office.memory.change(ACME, own, "quarantine")
    second_hand = answering("accounts of the gobbledygook kind are closed", shown=PARAPHRASES[2])
    machine = await office.run(second_hand, "is a reminder needed for that flibbertigibbet account")
    assert own not in machine.state.shown


async def test_what_runs_said_of_a_subject_goes_with_it_and_no_file_has_a_byte_of_it(
    office: Office, tmp_path: Path
) -> None:
    """What repeats it, paraphrases it, ignores it, is about somebody else, or heard of it at second hand."""
    before = "the crane of the northern pier is painted green"
    await office.run(lambda view: asyncio.sleep(0, Finish(answer=before)), "what colour is it")
    await fill(office)
    texts = await office.texts()
    assert len(texts) == 12
    planned = await office.memory.plan_erasure(QUOKKA)
    whys = {text: each.why for each in planned.taken for text, i in texts.items() if i == each.record_id}
    assert whys.pop(TEXT) == "own" and {whys.pop(text) for text in REPEATS} == {"repeats"}
    assert whys.pop("Nadia Ekwueme was told that 4711081509 is the oldest bill") == "repeats"
    assert Counter(whys.values()) == {"shown": 6} and before not in whys and set(whys) >= {*PARAPHRASES, *IGNORES}
    assert sum(each.others for each in planned.taken) == 1 and await office.texts() == texts

    receipt = await office.memory.erase(QUOKKA)
    assert msgspec.structs.replace(planned, dry_run=False, at_us=receipt.at_us) == receipt
    assert receipt.summary() == "11 records erased: 1 own, 4 repeats, 6 shown; 1 of them are about other subjects too"
    assert list(await office.texts()) == [before]
    gone = set(texts) - {before}
    files = files_of(tmp_path)
    assert files and not [(t, trace) for t in gone for trace in traces(t) for data in files if trace in data]
    assert not any(text.encode() in msgspec.msgpack.encode(receipt) for text in gone)
    found = [any(trace in data for data in files) for trace in traces(before)]
    assert found[0] and found[-1], "text and vector of what stays are found in the same way"


async def test_the_journal_has_of_what_a_run_was_shown_the_id_alone(office: Office) -> None:
    """What the run said of it stands there, and stays."""
    await fill(office)
    bodies = [body for stream in list(office.journal.streams) for body in office.journal.bodies_of(stream)]
    assert not any(TEXT.encode() in body for body in bodies)
    assert any(PARAPHRASES[0].encode() in body for body in bodies)


@pytest.mark.parametrize("only", ["own", "repeats"])
async def test_an_operator_may_leave_what_only_heard_of_it(office: Office, only: Any) -> None:
    await fill(office)
    receipt = await office.memory.erase(msgspec.structs.replace(QUOKKA, only=only))
    assert len(receipt.taken) == (1 if only == "own" else 5) and len(receipt.taken) + len(receipt.left) == 11
    assert f"{len(receipt.left)} that derive from it are left" in receipt.summary()
    assert len(await office.texts()) == len(receipt.left)
    assert len((await office.memory.erase(QUOKKA)).taken) == len(receipt.left), "they are still known to derive from it"


async def test_what_a_run_says_after_what_it_was_shown_was_erased_is_not_kept(office: Office) -> None:
    """Neither its answer nor what it proposes to remember, though it says it in words of its own."""
    await office.memory.write_if_useful(
        Candidate(tenant=ACME, text=TEXT, kind="fact", source="crm", subject="wilhelmina quokka", trust="high")
    )

    async def erase() -> None:
        if TEXT in await office.texts():
            await office.memory.erase(QUOKKA)

    answered = office.run(answering(PARAPHRASES[0], shown=TEXT, until=erase))
    proposed = office.run(remembering(PARAPHRASES[1], until=erase))
    machines = await asyncio.gather(answered, proposed)
    learned = [event.code for event in machines[0].events if isinstance(event, ev.MemoryLearned)]
    outcome = machines[1].state.outcome
    assert learned == ["source_gone"] and outcome is not None and bytes(outcome.answer) == b'"source_gone"'
    assert await office.texts() == {}
