"""The Memory actor under SIGKILL while it writes, compacts and erases: nothing acknowledged is lost, none doubled.

    python -m benchmarks.memory_kills [--seeds 50]

A seed is a tenant of its own and one of three cases.  *Writes*: four clients offer the same sixty facts at once, each
in an order of its own, and the actor is killed when some number of them was acknowledged.  *Compaction*: one client
writes one fact after the other, and the actor is killed in the commit that compacts the table.  *Erase*: half of sixty
facts are about one subject, twenty more are said by somebody who was shown one of those, half of them while the subject
is erased; the actor is killed meanwhile, and the order is given again if it was not acknowledged.  Then: the table
opens; what was acknowledged is there, once; and of what was erased, or derives from it, no record is left and no file
has a word.

Last line: seeds; `lost` acknowledged records that are gone; `doubled` records that say the same; `unerased` records or
words that an acknowledged erase left; tables that could not be read (`unopened`); kills.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import ray

import airside
from airside import App, ReplayAgent
from airside.actors.client.client import Stack
from airside.memory.in_memory import HashingEmbedder
from airside.memory.rules import MemoryRules
from airside.memory.storage.store import OPTIMIZE_EVERY
from airside.stack.contracts.memory import Candidate
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.errors import AirsideError
from airside.stack.ids import TenantId
from airside.tools.keeping import remember
from benchmarks.measure import last_line, machine

FACTS = 60
CLIENTS = 4
DERIVED = 20
CASES = ("writes", "compaction", "erase")
SUBJECT = "parcels to be forgotten"


def create_app() -> App:
    """Return an app with a memory."""
    tenant = Tenant(principals={"ana": Principal()})
    return App(
        agents={"clerk": ReplayAgent()},
        tools=[remember],
        policy=airside.DEFAULT_POLICY,
        directory=Directory(tenants={"bench": tenant}),
        memory=MemoryRules(),
        embedder=HashingEmbedder,
    )


class Fact(NamedTuple):
    """A text in which a word is nobody else's, whether it is to be erased, and whether because it derives from that."""

    text: str
    word: bytes
    is_about: bool
    derives: bool = False


def facts(seed: int) -> list[Fact]:
    """Return a seed's facts, of which none resembles another; the last ones derive from those to be erased."""
    rng = Random(seed)
    found = []
    for number in range(FACTS + DERIVED):
        letters = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(6)]
        derives = number >= FACTS
        found.append(Fact(" ".join(letters), letters[0].encode(), derives or number % 2 == 0, derives))
    return found


class Victim:
    """The Memory actor's process, and what was acknowledged to the clients."""

    def __init__(self, stack: Stack, tenant: TenantId) -> None:
        self._stack = stack
        self._tenant = tenant
        self._pid = stack.status()["memory"]["pid"]
        self._lock = threading.Lock()
        self.acknowledged: dict[str, Fact] = {}
        self.replies = 0
        self._at = FACTS * CLIENTS + 1
        self._delay_s = 0.0
        self.kills = 0

    def die_at(self, replies: int, delay_s: float = 0.0) -> None:
        """Kill it when so many were answered, and a moment later."""
        self._at, self._delay_s = replies, delay_s

    def kill(self, delay_s: float = 0.0) -> None:
        """Kill it."""
        time.sleep(delay_s)
        os.kill(self._pid, signal.SIGKILL)
        self.kills += 1

    def offer(self, fact: Fact) -> None:
        """Offer a fact; a call that the kill cut off acknowledges nothing."""
        about = [record_id for record_id, other in self.acknowledged.copy().items() if other.is_about]
        candidate = Candidate(
            tenant=self._tenant,
            text=fact.text,
            kind="fact",
            source="benchmark",
            subject=SUBJECT if fact.is_about and not fact.derives else "",
            shown=tuple(Random(fact.text).sample(about, 2)) if fact.derives else (),
        )
        try:
            reply = self._stack.memory.remember(candidate)
        except AirsideError:
            return
        with self._lock:
            if reply.kept:
                self.acknowledged[reply.record_id] = fact
            self.replies += 1
            is_due = self.replies == self._at
        if is_due:
            threading.Thread(target=self.kill, args=(self._delay_s,)).start()


def offer_all(victim: Victim, chosen: list[Fact], clients: int, rng: Random) -> None:
    """Let clients offer all facts at once, each in its own order, one after the other."""

    def client(order: list[Fact]) -> None:
        for fact in order:
            victim.offer(fact)

    with ThreadPoolExecutor(clients) as threads:
        for _ in range(clients):
            threads.submit(client, rng.sample(chosen, len(chosen)))


def erase(stack: Stack, victim: Victim, tenant: TenantId, rng: Random, derived: list[Fact]) -> None:
    """Erase what is about the subject while the actor is killed, until that is acknowledged; others learn meanwhile."""
    killer = threading.Thread(target=victim.kill, args=(rng.random() * 0.06,))
    learner = threading.Thread(target=offer_all, args=(victim, derived, 1, rng))
    killer.start()
    learner.start()
    for _ in range(5):
        try:
            stack.memory.erase(tenant=tenant, subject=SUBJECT)
            break
        except AirsideError:
            continue
    killer.join()
    learner.join()


def one(stack: Stack, seed: int) -> Counter[str]:
    """Run one seed and count what went wrong."""
    rng, tenant = Random(seed), TenantId(f"s{seed}")
    chosen, derived = facts(seed)[:FACTS], facts(seed)[FACTS:]
    case, victim = CASES[seed % len(CASES)], Victim(stack, tenant)
    if case == "writes":
        victim.die_at(rng.randint(1, FACTS * CLIENTS // 2))
        offer_all(victim, chosen, CLIENTS, rng)
    elif case == "compaction":
        victim.die_at(OPTIMIZE_EVERY - 1, rng.random() * 0.05)
        offer_all(victim, chosen, 1, rng)
    else:
        offer_all(victim, chosen, CLIENTS, rng)
        offer_all(victim, derived[: DERIVED // 2], 1, rng)
        erase(stack, victim, tenant, rng, derived[DERIVED // 2 :])
        chosen += derived
    found: Counter[str] = Counter(kills=victim.kills)
    try:
        records = patiently(lambda: stack.memory.records(tenant=tenant))
    except AirsideError:
        return found + Counter(unopened=1)
    there = {record.record_id for record in records}
    is_gone = case == "erase"
    found["doubled"] = len(records) - len({record.digest for record in records})
    found["lost"] = sum(i not in there for i, fact in victim.acknowledged.items() if not (is_gone and fact.is_about))
    if is_gone:
        files = [p.read_bytes() for p in (stack.state_dir / "memory" / f"t_{tenant}.lance").rglob("*") if p.is_file()]
        found["unerased"] = sum(record.subject == SUBJECT for record in records)
        found["unerased"] += sum(any(fact.word in data for data in files) for fact in chosen if fact.is_about)
    print(f"seed {seed}: {case}, {len(victim.acknowledged)} acknowledged, {dict(+found)}", flush=True)
    return found


def patiently(ask: Callable[[], Any]) -> Any:
    """Ask again while the actor is being restarted."""
    for _ in range(4):
        try:
            return ask()
        except AirsideError:
            continue
    return ask()


@contextmanager
def a_stack() -> Iterator[Stack]:
    """Start a stack in a folder of its own; nothing is left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="airside-memory-kills-"))
    ray.init(address="local", namespace="airside", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        stack = airside.start(create_app(), stack="memory-kills", state_dir=folder, mode="pooled", executors=1)
        try:
            yield stack
        finally:
            stack.shutdown()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run all seeds and print the summary last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    options = parser.parse_args()
    print(machine(), flush=True)
    total: Counter[str] = Counter()
    with a_stack() as stack:
        for seed in range(options.seeds):
            total += one(stack, seed)
    names = ("lost", "doubled", "unerased", "unopened", "kills")
    last_line({"seeds": options.seeds, **{name: total[name] for name in names}})


if __name__ == "__main__":
    main()
