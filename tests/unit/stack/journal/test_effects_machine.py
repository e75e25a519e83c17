"""Of one grant comes one call, and of one key one effect, whoever presents what how often, and whoever dies between."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from airside.stack.canonical import digest
from airside.stack.contracts.execution import ExecuteRequest
from airside.stack.cycle.in_memory import InMemoryJournal
from airside.stack.errors import LayerUnavailable
from airside.stack.ids import ExecutorId, IssuerId, PrincipalId, RunId, TenantId, effect_key
from airside.stack.journal.effect_claims import MAX_CLAIM_ATTEMPTS, withdraw
from airside.stack.journal.journaling import Append, AppendReply
from airside.stack.policy.kill_switches import KillSwitchChanged
from airside.stack.security.grants import GRANT_LIFE_US, Grant, GrantRefused, mint
from airside.tools.dispatch import Dispatcher
from airside.tools.tool import NOT_DONE, Tool, ToolContext, tool
from tests.helpers import KEY

RUNS = [RunId("run_" + str(i) * 24) for i in (1, 2)]
ARGUMENTS = b"{}"


class EffectsMachine(RuleBasedStateMachine):
    """An executor that is restarted, gates that follow one another, a journal that is away now and then."""

    grants = Bundle("grants")

    def __init__(self) -> None:
        super().__init__()
        self.now, self.incarnation, self.issuer, self.count = 1_000_000, 1, 1, 0
        self.journal, self.is_away, self.claimed = InMemoryJournal(), False, dict[str, int]()
        self.withdrawn: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.by_nonce: Counter[bytes] = Counter()
        self.burnt: set[bytes] = set()
        self.epochs: dict[str, int] = {}
        self.latest: dict[str, tuple[int, int]] = {}
        self.tool_of: dict[str, str] = {}
        self.off: set[str] = set()
        self.refusals = self.expected_refusals = 0
        self.loop = asyncio.new_event_loop()

    def teardown(self) -> None:
        """Let go of the loop."""
        self.loop.close()

    def tools(self) -> list[Tool]:
        """Return a tool that must not be sent twice, and one that may."""

        @tool(effect="external")
        async def once(context: ToolContext) -> int:
            """Have an effect, whatever the key."""
            self.done[context.idempotency_key] += 1
            return self.done[context.idempotency_key]

        @tool(effect="write", idempotent=True)
        async def keyed(context: ToolContext) -> int:
            """Have an effect once a key."""
            return 1

        def became(context: ToolContext) -> Any:
            return self.done[context.idempotency_key] or NOT_DONE

        @tool(effect="external", reconcile=became)
        async def asked(context: ToolContext) -> int:
            """Have an effect, whatever the key; it can be asked."""
            self.done[context.idempotency_key] += 1
            return self.done[context.idempotency_key]

        return [once, keyed, asked]

    @initialize()
    def begin(self) -> None:
        """Start the first executor."""
        self.toolbox = self.tools()
        self.specs = {each.name: each.spec for each in self.toolbox}
        self.start()

    def start(self) -> None:
        """Start an executor, which knows nothing of the one before."""
        self.executor = Dispatcher(
            self.toolbox,
            seal_key=KEY,
            executor_id=ExecutorId(f"exe_{self.incarnation}"),
            now_us=lambda: self.now,
            in_threads=False,
            issuer=IssuerId(f"iss_{self.issuer}"),
            on_refusal=self.refused,
            journal=self.append,
        )
        for name in self.off:
            self.executor.grants.switches.apply(self.thrown(name, off=True))

    def refused(self, refused: GrantRefused, tenant: TenantId | None) -> None:
        """Count what the executor would journal."""
        self.refusals += 1

    async def append(self, append: Append) -> AppendReply:
        """Be the journal."""
        if self.is_away:
            raise LayerUnavailable("the journal is away")
        return self.journal.append_now(append)

    def thrown(self, name: str, *, off: bool) -> KillSwitchChanged:
        """Return a switch of a tool."""
        return KillSwitchChanged(at_us=self.now, scope="tool", target=name, off=off, by=PrincipalId("op"))

    @rule(
        target=grants,
        run=st.sampled_from(RUNS),
        step=st.integers(1, 2),
        epoch=st.integers(1, 3),
        attempt=st.sampled_from([1, 1, 2, 3, MAX_CLAIM_ATTEMPTS + 1]),
        name=st.sampled_from(["once", "keyed", "asked"]),
        behind=st.sampled_from([0, 0, 0, 1]),
        behind_gate=st.sampled_from([0, 0, 0, 1]),
    )
    def grant(self, run: RunId, step: int, epoch: int, attempt: int, name: str, behind: int, behind_gate: int) -> Grant:
        """A gate grants; perhaps for an executor that is no more, or as a gate that is no more."""
        self.count += 1
        return Grant(
            tenant=TenantId("acme"),
            principal=PrincipalId("ann"),
            run_id=run,
            step=step,
            attempt=attempt,
            epoch=epoch,
            tool=self.tool_of.setdefault(effect_key(run, step), name),  # a key is one call's: of one tool
            tool_version=self.specs[self.tool_of[effect_key(run, step)]].version,
            arguments_sha256=digest(ARGUMENTS),
            key=effect_key(run, step),
            policy_version="v1",
            approval_id="",
            executor=ExecutorId(f"exe_{self.incarnation - behind}"),
            timeout_ms=1000,
            expires_us=self.now + GRANT_LIFE_US,
            issuer=IssuerId(f"iss_{self.issuer - behind_gate}"),
            nonce=self.count.to_bytes(12, "big"),
        )

    def expected(self, grant: Grant) -> str:
        """Return what the rules say of a grant that is presented now."""
        if grant.executor != f"exe_{self.incarnation}":
            return "grant_invalid"
        if grant.issuer != f"iss_{self.issuer}":
            return "grant_stale"
        if grant.expires_us <= self.now:
            return "grant_invalid"
        if grant.epoch < self.epochs.get(grant.run_id, 0):
            return "grant_stale"
        if grant.attempt > MAX_CLAIM_ATTEMPTS or grant.nonce in self.burnt:
            return "grant_invalid"
        return "switched_off" if grant.tool in self.off else ""

    def outcome(self, grant: Grant) -> str:
        """Return what a grant that passes comes to, and note it."""
        self.burnt.add(grant.nonce)
        self.epochs[grant.run_id] = grant.epoch
        made = grant.epoch, grant.attempt
        latest = made
        if grant.tool == "asked":
            latest = self.latest[grant.key] = max(made, self.latest.get(grant.key, made))
        if grant.tool != "keyed" and self.is_away:
            return "tool_unavailable"
        if grant.tool == "asked" and grant.key not in self.claimed and grant.attempt > self.withdrawn[grant.key]:
            self.claimed[grant.key] = grant.attempt
        if made < latest and not self.done[grant.key]:  # the later one asks, and must not hear "nothing" too soon
            self.expected_refusals += 1
            return "grant_stale"
        if grant.tool == "once":
            if grant.key in self.claimed or grant.attempt <= self.withdrawn[grant.key]:
                return "tool_in_doubt"
            self.claimed[grant.key] = grant.attempt
        self.by_nonce[grant.nonce] += 1
        return "completed"

    @rule(grant=grants, times=st.integers(1, 3))
    def present(self, grant: Grant, times: int) -> None:
        """Somebody presents a grant, perhaps several times at the same moment; at most one of them is carried out."""
        request = ExecuteRequest(grant=mint(KEY, grant), arguments=ARGUMENTS)

        async def at_once() -> list[str]:
            replies = await asyncio.gather(*(self.executor.execute(request) for _ in range(times)))
            return [str(reply.result.reason_code) for reply in replies]

        wanted = []
        for _ in range(times):
            refusal = self.expected(grant)
            self.expected_refusals += bool(refusal)
            wanted.append(refusal or self.outcome(grant))
        assert self.loop.run_until_complete(at_once()) == wanted

    @rule(grant=grants)
    def withdraw(self, grant: Grant) -> None:
        """Who sent a grant's call heard nothing, and asks whether it can still happen."""
        asked = withdraw(self.append, grant.tenant, grant.key, grant.attempt, step=grant.step, at_us=self.now)
        if self.is_away:
            with pytest.raises(LayerUnavailable):
                self.loop.run_until_complete(asked)
            return
        never = self.loop.run_until_complete(asked)
        assert never is (grant.attempt < self.claimed.get(grant.key, grant.attempt + 1))
        if never:
            self.withdrawn[grant.key] = max(grant.attempt, self.withdrawn[grant.key])

    @rule(grant=grants, place=st.integers(0, 10**6))
    def present_a_forgery(self, grant: Grant, place: int) -> None:
        """A grant with one bit flipped is nobody's."""
        sealed = bytearray(mint(KEY, grant))
        sealed[place // 8 % len(sealed)] ^= 1 << place % 8
        request = ExecuteRequest(grant=bytes(sealed), arguments=ARGUMENTS)
        reply = self.loop.run_until_complete(self.executor.execute(request))
        self.expected_refusals += 1
        assert reply.result.reason_code == "grant_invalid"

    @rule()
    def the_executor_dies(self) -> None:
        """Its memory is gone; the claims in the journal are not."""
        self.incarnation += 1
        self.burnt.clear()
        self.epochs.clear()
        self.latest.clear()
        self.start()

    @rule()
    def the_gate_dies(self) -> None:
        """Its successor makes itself known to the executor."""
        self.issuer += 1
        self.executor.grants.issuer = IssuerId(f"iss_{self.issuer}")

    @rule()
    def the_journal_comes_and_goes(self) -> None:
        """Claims cannot be made while it is away."""
        self.is_away = not self.is_away

    @rule(name=st.sampled_from(["once", "keyed"]))
    def a_switch_is_thrown(self, name: str) -> None:
        """An operator switches a tool off, or on again."""
        self.off ^= {name}
        self.executor.grants.switches.apply(self.thrown(name, off=name in self.off))

    @rule(seconds=st.sampled_from([1, 60, 119, 121]))
    def wait(self, seconds: int) -> None:
        """Time goes on."""
        self.now += seconds * 1_000_000

    @invariant()
    def one_call_of_a_grant_and_one_effect_of_a_key(self) -> None:
        """What must hold."""
        assert all(times == 1 for times in self.by_nonce.values())
        assert all(times == 1 for times in self.done.values())
        known = set(self.claimed) | {key for key, attempt in self.withdrawn.items() if attempt}
        assert set(+self.done) <= known and self.refusals == self.expected_refusals


TestEffects = EffectsMachine.TestCase
TestEffects.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class EffectsMachineAtLength(EffectsMachine):
    """The same, for longer."""


def at_length(machine: Any) -> Any:
    """Return a machine's test as one of the slow ones."""
    case = pytest.mark.slow(machine.TestCase)
    case.settings = settings(max_examples=2000, stateful_step_count=50, deadline=None)
    return case


TestEffectsAtLength = at_length(EffectsMachineAtLength)
