"""Code mode: what a model's code calls is a call of the run, whatever the code does, and whoever dies when."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_monty import MontySession

from airside.stack.contracts.models import ModelReply, Prompt, RequestedCall
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.ids import TenantId
from airside.stack.models.agent import ModelAgent
from airside.stack.models.interpreter import interpreter
from airside.stack.models.prompts import REFUSED_CALL
from airside.stack.models.snippets import (
    MAX_SNIPPET_CALLS,
    PYTHON_CODE,
    Playback,
    SnippetEnded,
    SnippetState,
)
from airside.stack.models.tool_stubs import check_names, parameters_of, python_name, stub_of
from airside.stack.reasons import ReasonCode
from airside.stack.run.agents import Decided
from airside.stack.run.state import StepRecord
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import MAX_CALLS, Action, Finish, Handoff, ToolResult
from airside.tools.builtin.python_code import python_code
from airside.tools.tool import Tool, tool
from tests.unit.stack.models.test_prompts import Models, view


@tool(effect="read")
def look(n: int, deep: bool = False) -> int:
    """Look a number up."""
    return n


@tool(effect="write")
def pay(to: str, cents: int) -> int:
    """Pay somebody."""
    return cents


TOOLS = (look.spec, pay.spec, python_code.spec)

Answers = Callable[[Action], Any]


class Denied(Exception):
    """A call is refused, for a reason."""

    def __init__(self, reason: ReasonCode = ReasonCode.POLICY_DENIED) -> None:
        super().__init__("not that")
        self.reason = reason


def result_of(action: Action, answers: Answers) -> ToolResult:
    try:
        return ToolResult(ok=True, output=msgspec.Raw(json.dumps(answers(action)).encode()))
    except Denied as denied:
        return ToolResult(ok=False, error=str(denied), reason_code=denied.reason)


class Played:
    """A run of one agent whose model first writes code, and then ends; decision by decision, in no stack at all."""

    def __init__(self, code: str, answers: Answers = lambda action: None, tools: Sequence[ToolSpec] = TOOLS) -> None:
        self.models = Models(ModelReply(calls=(RequestedCall(tool=PYTHON_CODE, arguments=json.dumps({"code": code})),)))
        self.agent = ModelAgent("m", "be a clerk", code_mode=True)
        self.answers, self.tools = answers, tuple(tools)
        self.history: list[StepRecord] = []
        self.decisions: list[list[Action]] = []

    async def decide(self) -> Decided:
        """Ask the agent what is next, twice: it depends on nothing but what it is shown."""
        asked = len(self.models.asked)
        seen = view(*self.history, step=len(self.history) + 1, models=self.models, tools=self.tools)
        first, again = await self.agent.decide(seen), await self.agent.decide(seen)
        assert first == again
        del self.models.asked[asked + 1 :]
        return first

    def take(self, decided: Decided) -> None:
        """Carry calls out as the run would."""
        actions = [decided] if isinstance(decided, Action) else list(decided)  # type: ignore[call-overload]
        self.decisions.append(actions)
        for action in actions:
            result = result_of(action, (lambda _: None) if action.tool == PYTHON_CODE else self.answers)
            step = len(self.history) + 1
            self.history.append(
                StepRecord(step=step, agent="clerk", tool=action.tool, arguments=action.arguments, result=result)
            )

    async def run(self, most: int = 600) -> dict[str, Any]:
        """Play until the code is over; return what the model is told of it."""
        self.take(await self.decide())
        self.models.reply = ModelReply(text="done")
        for _ in range(most):
            decided = await self.decide()
            if isinstance(decided, Finish):
                return self.told()
            self.take(decided)
        raise AssertionError("it never ended")

    def told(self) -> dict[str, Any]:
        """Return what the model was told of the code, which is one call with one result."""
        turns = self.models.asked[-1][1].turns
        assert [turn.role for turn in turns] == ["user", "assistant", "tool"]
        assert turns[1].calls[0].tool == PYTHON_CODE
        told: dict[str, Any] = json.loads(turns[2].text)
        return told

    @property
    def calls(self) -> list[list[tuple[str, dict[str, Any]]]]:
        """The calls of each decision but the first, which is the code itself."""
        return [[(each.tool, each.arguments) for each in actions] for actions in self.decisions[1:]]


async def test_a_loop_proposes_its_calls_one_after_the_other_and_computes_with_their_results() -> None:
    played = Played(
        "total = 0\nfor n in range(3):\n    total += await look(n)\nprint('sum', total)\ntotal",
        lambda action: action.arguments["n"] * 10,
    )
    told = await played.run()
    assert played.calls == [[("look", {"n": n})] for n in range(3)]
    assert told == {"ok": True, "trust": "untrusted", "result": 30, "printed": "sum 30\n", "calls": 3}
    assert len(played.models.asked) == 2, "the model is asked for the code, and what to do after it"


async def test_calls_that_wait_together_are_proposed_together() -> None:
    played = Played(
        "import asyncio\n"
        "async def both(n):\n    return await look(await look(n))\n"
        "await asyncio.gather(*[both(n) for n in range(3)])",
        lambda action: action.arguments["n"] + 100,
    )
    told = await played.run()
    assert played.calls == [[("look", {"n": n + first}) for n in range(3)] for first in (0, 100)]
    assert told["result"] == [200, 201, 202]


async def test_more_calls_than_a_decision_takes_come_in_several() -> None:
    played = Played(
        "import asyncio\nsum(await asyncio.gather(*[look(n) for n in range(150)]))", lambda a: a.arguments["n"]
    )
    told = await played.run()
    assert [len(actions) for actions in played.calls] == [MAX_CALLS, MAX_CALLS, 150 - 2 * MAX_CALLS]
    assert [a["n"] for actions in played.calls for _, a in actions] == list(range(150))
    assert told["result"] == sum(range(150))


async def test_large_calls_are_not_more_together_than_a_proposal_may_have() -> None:
    played = Played(
        "import asyncio\nlen(await asyncio.gather(*[pay(to='x' * 200000, cents=n) for n in range(6)]))", lambda a: 1
    )
    told = await played.run()
    assert told["result"] == 6 and [len(actions) for actions in played.calls] == [2, 2, 2]


async def test_after_two_hundred_calls_in_a_row_the_next_one_is_proposed() -> None:
    played = Played("n = 0\nwhile n < 300:\n    n = await look(n)\nn", lambda action: action.arguments["n"] + 1)
    played.take(await played.decide())
    for n in range(200):
        played.take(Action(tool="look", arguments={"n": n}))
    assert await played.decide() == Action(tool="look", arguments={"n": 200})


async def test_what_is_refused_or_fails_is_an_exception_that_code_can_catch() -> None:
    def answers(action: Action) -> Any:
        raise Denied(ReasonCode.TOOL_FAILED if action.arguments["n"] else ReasonCode.POLICY_DENIED)

    code = (
        "found = []\nfor n in range(2):\n    try:\n        await look(n)\n"
        "    except PermissionError as error:\n        found.append(['refused', str(error)])\n"
        "    except RuntimeError as error:\n        found.append(['failed', str(error)])\nfound"
    )
    told = await Played(code, answers).run()
    assert told["result"] == [
        ["refused", "look: policy_denied: not that"],
        ["failed", "look: tool_failed: not that"],
    ]
    assert told["failed"] == [
        'look({"n":0}): policy_denied: not that',
        'look({"n":1}): tool_failed: not that',
    ]


STATEMENTS = [
    ["x += await look(x)"],
    ["x += await look(x + 1, deep=True)"],
    ["pay('ann', x)"],
    ["y = look(x)", "x += 1", "x += await y"],
    ["x += sum(await asyncio.gather(look(x), look(3), look(5)))"],
    ["raise ValueError(str(x))"],
    ["print(x)"],
    ["x += hash(str(x)) % 7 + len({x, 3, 4})"],
    ["y = [dict(), [x], str]", "x += (id(y) + id(y[1]) + len(repr(look))) % 5"],
]


def programs() -> st.SearchStrategy[list[str]]:
    """Python that calls, waits, loops, catches and gathers."""

    def within(inner: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
        return st.one_of(
            inner.map(lambda body: ["for _ in range(2):", *_indented(body)]),
            inner.map(
                lambda body: ["try:", *_indented(body), "except Exception as error:", "    x += len(str(error))"]
            ),
            st.lists(inner, min_size=1, max_size=3).map(lambda bodies: [line for body in bodies for line in body]),
            st.tuples(inner, inner).map(lambda pair: [*_function("f", pair[0]), *_function("g", pair[1]), GATHER]),
        )

    return st.recursive(st.sampled_from(STATEMENTS), within, max_leaves=6).map(
        lambda body: ["import asyncio", *_function("main", body), "await main(1)"]
    )


GATHER = "x += sum(await asyncio.gather(f(x), g(x), f(x + 1)))"


def _function(name: str, body: list[str]) -> list[str]:
    return [f"async def {name}(x):", *_indented(["await look(0)", *body, "return x"])]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


@settings(max_examples=40, deadline=None)
@given(program=programs(), refused=st.integers(2, 9))
def test_code_goes_on_as_it_did_wherever_it_is_run_again(program: list[str], refused: int) -> None:
    """Asked twice at each decision, it proposes the same; and never anything that its past does not lead to."""

    def answers(action: Action) -> Any:
        if action.tool == "look" and action.arguments["n"] % refused == 1:
            raise Denied
        return action.arguments.get("n", 1) % 5

    played = Played("\n".join(program), answers)
    told = asyncio.run(played.run())
    assert "did not go on" not in told.get("error", "") and "waits for nothing" not in told.get("error", "")
    assert "Syntax" not in told.get("error", "") and "not yet support" not in told.get("error", "")
    assert told["calls"] == sum(len(actions) for actions in played.calls)


async def test_what_is_not_caught_ends_the_code_and_says_what_was_done() -> None:
    def answers(action: Action) -> Any:
        if action.arguments["n"] == 0:
            raise Denied
        return 1

    played = Played("import asyncio\nawait asyncio.gather(*[look(n) for n in range(3)])\nawait look(9)", answers)
    told = await played.run()
    assert "PermissionError: look: policy_denied: not that" in told["error"] and not told["ok"]
    assert told["calls"] == 3 and told["done"] == ['look({"n":1})', 'look({"n":2})']
    assert len(played.calls) == 1


async def test_code_goes_on_after_some_of_several_calls_failed() -> None:
    def answers(action: Action) -> Any:
        if action.arguments["n"] == 1:
            raise Denied
        return action.arguments["n"]

    code = (
        "import asyncio\ntry:\n    await asyncio.gather(*[look(n) for n in range(4)])\n"
        "except PermissionError:\n    pass\nawait look(7)"
    )
    played = Played(code, answers)
    told = await played.run()
    assert told["result"] == 7 and [len(actions) for actions in played.calls] == [4, 1]


async def test_what_is_not_awaited_is_not_made_and_said() -> None:
    played = Played("pay('eve', 5)\n1")
    told = await played.run()
    assert played.calls == [] and told["not_awaited"] == ["pay"] and told["result"] == 1


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("pay('eve', 5)", {"to": "eve", "cents": 5}),
        ("pay('eve', cents=5)", {"to": "eve", "cents": 5}),
        ("pay(cents=5, to='eve')", {"cents": 5, "to": "eve"}),
        ("pay(**{'to': 'eve', 'odd-name': [1, (2, None)]})", {"to": "eve", "odd-name": [1, [2, None]]}),
        ("pay()", {}),
        ("pay('eve', 'many')", {"to": "eve", "cents": "many"}),
    ],
)
async def test_arguments_are_those_of_the_tool_and_the_gate_validates_them(call: str, arguments: object) -> None:
    played = Played(f"await {call}")
    await played.run()
    assert played.calls == [[("pay", arguments)]]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("await pay('eve', 5, 6)", "TypeError: pay: takes 2 arguments by position, and 3 were given"),
        ("await pay('eve', to='ann')", "TypeError: pay: got several values for 'to'"),
        ("await pay({1, 2}, 5)", "TypeError: pay: to: a set is no JSON"),
        ("await pay(b'eve', 5)", "TypeError: pay: to: a bytes is no JSON"),
        ("await pay({1: 2}, 5)", "TypeError: pay: to: the keys of a dict are texts"),
        ("class A:\n    pass\nawait pay(A(), 5)", "no JSON"),
        ("await pay('eve', float('nan'))", "ValueError: pay"),
        ("await pay('eve', 10 ** 30)", "ValueError: pay"),
        ("await pay('eve', 10 ** 5000)", "ValueError: pay"),
        ("await pay('e\\x00ve', 5)", "ValueError: pay"),
        ("await pay('e' * 300_000, 5)", "ValueError: pay: arguments of 300"),
        ("x = []\nfor _ in range(100_000):\n    x = [x]\nawait pay(x, 5)", "is no JSON"),
        ("x = []\nx.append(x)\nawait pay(x, nope)", "NameError: name 'nope' is not defined"),
        ("await refund('eve')", "NameError: name 'refund' is not defined"),
        ("await python_code('1')", "NameError: name 'python_code' is not defined"),
        ("await final_answer(1)", "NameError"),
        ("await globals()", "NameError"),
        ("list(map(pay, ['eve']))", "NotImplementedError"),
        ("pay.__globals__", "AttributeError"),
        ("pay.__class__.__mro__", "AttributeError"),
        ("import subprocess", "ModuleNotFoundError"),
        ("import pay", "ModuleNotFoundError"),
        ("open('/etc/passwd').read()", "PermissionError"),
        ("open('/tmp/x', 'w')", "PermissionError"),
        ("from pathlib import Path\nPath('/proc/self/environ').read_text()", "PermissionError"),
        ("import os\nos.environ['HOME']", "not supported"),
        ("import os\nos.listdir('/')", "PermissionError"),
        ("import time\ntime.time()", "not supported"),
        ("import datetime\ndatetime.datetime.now()", "not supported"),
        ("import random\nrandom.random()", "not supported"),
        ("import asyncio\nawait asyncio.sleep(1)", "not supported"),
        ("1 / 0", "ZeroDivisionError"),
        ("x = 1 +", "Expected an expression"),
        ("with open('x') as f, g: yield", "Error"),
        ("(" * 5_000 + ")" * 5_000, "too deeply nested"),
        ("def f():\n    return f()\nf()", "RecursionError"),
        ("x = [1]\nwhile True:\n    x = x + x", "memory limit"),
        ("'x' * 10 ** 12", "memory limit"),
        ("10 ** 5000", "cannot be given"),
        ("raise SystemExit(3)", "rror"),
        ("raise ValueError('x' * 100_000)", "left out"),
    ],
)
async def test_what_goes_wrong_in_code_is_told_and_nothing_is_called(code: str, error: str) -> None:
    played = Played(code)
    told = await played.run()
    assert not told["ok"] and error in told["error"] and len(json.dumps(told)) < 5_000
    assert played.calls == []


@pytest.mark.parametrize(
    "code",
    [
        "while True:\n    pass",
        "while True:\n    print('x' * 1000)",
        "while True:\n    try:\n        1 / 0\n    except: pass",
    ],
)
async def test_code_that_never_ends_is_ended(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airside.stack.models.interpreter.MAX_SECONDS", 0.05)
    told = await Played(code).run()
    assert "TimeoutError" in told["error"] and len(told["printed"]) < 10_000


async def test_code_that_calls_for_ever_is_ended() -> None:
    played = Played("import asyncio\nwhile True:\n    await asyncio.gather(*[look(n) for n in range(50)])")
    told = await played.run()
    assert f"at most {MAX_SNIPPET_CALLS} calls" in told["error"] and told["calls"] == MAX_SNIPPET_CALLS
    again = await Played("while True:\n    try:\n        nope()\n    except NameError: pass").run()
    assert "suspension limit" in again["error"]


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("{'a': [1, 2.5, None, True]}", {"a": [1, 2.5, None, True]}),
        ("(1, 2)", [1, 2]),
        ("x = 1", None),
        ("{1: 2}", "{1: 2}"),
        ("{1, 2}", "{1, 2}"),
        ("float('inf')", "inf"),
    ],
)
async def test_the_value_of_code_is_told_as_json_or_as_python_writes_it(code: str, value: object) -> None:
    assert (await Played(code).run())["result"] == value


SHARED = "x = ['a']\nfor _ in range(25):\n    x = [x, x]\n"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (SHARED + "x", "too large"),
        (SHARED + "{'a': x}", "too large"),
        (SHARED + "class A:\n    pass\na = A()\na.x = x\n[a]", "too large"),
        (SHARED.replace("[x, x]", "(x, x)").replace("['a']", "('a',)") + "{1: x}", "too large"),
        ("[10 ** 4000] * 100_000", "too large"),
        ("['x' * 1_000_000] * 10_000", "too large"),
        ("'x' * 3_000_000", "2984000 characters left out"),
        (SHARED + "await pay(x, 5)", "ValueError: pay: arguments are over the bound"),
        (SHARED + "await pay(**{'to': {'a': x}})", "ValueError: pay: arguments are over the bound"),
        ("await pay(['x' * 200_000] * 10_000, 5)", "ValueError: pay: arguments are over the bound"),
    ],
)
async def test_a_value_that_has_others_many_times_is_measured_before_it_is_written(code: str, told: str) -> None:
    played = Played(code)
    summary = await played.run()
    assert told in str(summary) and len(str(summary)) < 18_000 and played.calls == []


async def test_a_long_value_is_cut_and_said_to_be() -> None:
    told = await Played("['x' * 100] * 1000").run()
    assert len(told["result"]) < 17_000 and "characters left out" in told["result"]


async def test_a_tool_can_be_passed_about_and_a_name_can_be_taken() -> None:
    played = Played("find = look\nlook = 3\n[await find(look), await find(n=4)]", lambda action: action.arguments["n"])
    assert (await played.run())["result"] == [3, 4]
    shadowed = Played("async def pay(to, cents):\n    return 'no'\nawait pay('eve', 5)")
    assert (await shadowed.run())["result"] == "no" and shadowed.calls == []


async def test_tools_with_names_that_python_has_no_room_for_are_called_by_others() -> None:
    odd = [
        Tool.from_schema(name, {"type": "object"}, lambda: None, effect="read")
        for name in ("crm.find-one", "list", "2nd")
    ]
    played = Played(
        "await crm_find_one()\nawait list_()\nawait _2nd()\nlist((1, 2))", tools=(*TOOLS, *(t.spec for t in odd))
    )
    assert (await played.run())["result"] == [1, 2]
    assert [name for ((name, _),) in played.calls] == ["crm.find-one", "list", "2nd"]
    with pytest.raises(InvalidConfig, match=r"a-b and a\.b are both a_b"):
        check_names(["a.b", "x", "a-b"])
    assert python_name("print") == "print_" and python_name("from") == "from_"


async def test_an_edited_call_goes_on_with_what_was_carried_out() -> None:
    """A person may approve a call with other arguments: the code is given the result of these."""
    played = Played("await pay('eve', 500)", lambda action: action.arguments["cents"])
    played.take(await played.decide())
    played.take(await played.decide())
    done = played.history[-1]
    played.history[-1] = msgspec.structs.replace(
        done, arguments={"to": "eve", "cents": 5}, result=ToolResult(ok=True, output=msgspec.Raw(b"5"))
    )
    played.models.reply = ModelReply(text="done")
    await played.decide()
    assert played.told()["result"] == 5


async def test_code_whose_past_is_another_one_is_left_and_its_calls_are_told() -> None:
    """A tool may be gone after a restart with a new version of the app: nothing is proposed twice."""
    played = Played("await look(1)\nawait look(2)", lambda action: action.arguments["n"])
    played.take(await played.decide())
    played.take(await played.decide())
    played.history[-1] = msgspec.structs.replace(played.history[-1], tool="pay")
    played.models.reply = ModelReply(text="done")
    assert await played.decide() == Finish(answer="done")
    turns = played.models.asked[-1][1].turns
    assert [turn.calls[0].tool for turn in turns if turn.role == "assistant"] == [PYTHON_CODE, "pay"]
    assert "did not go on as it had" in turns[2].text


async def test_the_model_is_told_what_a_person_changed_of_its_codes_calls() -> None:
    """And not that defaults were filled in."""
    played = Played("await look(1)\nawait pay('eve', 500)")
    played.take(await played.decide())
    for made in ({"n": 1, "deep": False}, {"to": "eve", "cents": 5}):
        played.take(await played.decide())
        played.history[-1] = msgspec.structs.replace(played.history[-1], arguments=made)
    played.models.reply = ModelReply(text="done")
    await played.decide()
    assert played.told()["edited"] == [
        'pay({"cents":500,"to":"eve"}): a person changed it to pay({"cents":5,"to":"eve"})'
    ]


async def test_lists_that_are_cut_say_how_much_is_not_there() -> None:
    def answers(action: Action) -> Any:
        if action.arguments["n"] % 2:
            raise Denied

    code = (
        "import asyncio\nasync def tried(n):\n    try:\n        await look(n)\n    except PermissionError:\n"
        "        pass\nawait asyncio.gather(*[tried(n) for n in range(50)])\n1 / 0"
    )
    told = await Played(code, answers).run()
    assert (len(told["done"]), told["done_left_out"]) == (20, 5) and told["done"][-1] == 'look({"n":48})'
    assert (len(told["failed"]), told["failed_left_out"]) == (20, 5) and "not_awaited_left_out" not in told


async def test_a_model_that_writes_code_calls_nothing_beside_it() -> None:
    """So code that was over does not come alive again by a call that it would have made itself."""
    played = Played("await look(1)\nfor n in range(10_000_000):\n    pass\nawait look(2)\nawait pay('bob', 5)")
    played.take(await played.decide())
    played.take(await played.decide())
    with pytest.MonkeyPatch.context() as slow:
        slow.setattr("airside.stack.models.interpreter.MAX_SECONDS", 0.01)
        played.models.reply = ModelReply(calls=(RequestedCall(tool="look", arguments='{"n": 2}'),))
        refused = await played.decide()
    assert isinstance(refused, Action) and refused.tool == "look" + REFUSED_CALL and PYTHON_CODE in str(refused)
    played.history.append(
        StepRecord(
            step=3,
            agent="clerk",
            tool=refused.tool,
            arguments=refused.arguments,
            result=ToolResult(ok=False, error="no", reason_code=ReasonCode.TOOL_UNKNOWN),
        )
    )
    played.models.reply = ModelReply(text="done")
    assert await played.decide() == Finish(answer="done")


async def test_a_model_that_writes_code_hands_over_and_answers_as_any() -> None:
    class Said(BaseModel):
        text: str

    agent = ModelAgent("m", "be a clerk", code_mode=True, handoffs=["boss"], answer=Said)

    async def decided(*calls: RequestedCall) -> Decided:
        return await agent.decide(view(models=Models(ModelReply(calls=calls)), tools=TOOLS))

    over = RequestedCall(tool="transfer_to_boss", arguments='{"message": "you"}')
    end = RequestedCall(tool="final_answer", arguments='{"text": "so"}')
    both = await decided(RequestedCall(tool="look", arguments="{}"), RequestedCall(tool="pay", arguments="{}"))
    assert await decided(over) == Handoff(agent="boss", message="you")
    assert await decided(end) == Finish(answer={"text": "so"})
    assert isinstance(both, Action) and both.tool == "look" + REFUSED_CALL


async def test_code_whose_interpreter_died_is_run_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not twice: it may have been the code that killed it."""
    killed: list[int] = []
    play = Playback.play

    def dying(self: Playback, session: MontySession) -> SnippetState:
        if len(killed) < deaths:
            pid = session.worker_pid
            assert pid is not None
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
        return play(self, session)

    monkeypatch.setattr(Playback, "play", dying)
    for deaths, is_over in ((1, False), (2, True)):
        killed.clear()
        state = await interpreter().run(TenantId("acme"), "await look(1)", {"look": look.spec}, [])
        assert isinstance(state, SnippetEnded) is is_over and len(killed) == deaths


async def test_code_of_an_earlier_visit_does_not_go_on_in_a_later_one() -> None:
    """It was over then, whatever it would do now: what ended it then need not end it again."""
    played = Played("await look(1)\nawait look(2)", lambda action: action.arguments["n"])
    played.take(await played.decide())
    played.take(await played.decide())
    played.models.reply = ModelReply(text="done")
    later = view(*played.history, step=4, models=played.models, tools=TOOLS)
    assert await played.agent.decide(later) == Finish(answer="done")
    turns = played.models.asked[-1][1].turns
    assert "left before its end" in turns[2].text
    assert await played.decide() == Action(tool="look", arguments={"n": 2}), "where it is not over"


async def test_snippets_and_refused_code_follow_one_another() -> None:
    """The results of each are its own, and a call that was no code is told as it is."""
    played = Played("await look(1)", lambda action: action.arguments["n"])
    for code, result in (("await look(1)", True), ("await look(2)", False), ("await look(3)", True)):
        call = RequestedCall(tool=PYTHON_CODE, arguments=json.dumps({"code": code}))
        played.models.reply = ModelReply(calls=(call,))
        played.take(await played.decide())
        if not result:
            refused = ToolResult(ok=False, error="no", reason_code=ReasonCode.POLICY_DENIED)
            played.history[-1] = msgspec.structs.replace(played.history[-1], result=refused)
            continue
        played.take(await played.decide())
    played.models.reply = ModelReply(text="done")
    await played.decide()
    results = [json.loads(turn.text) for turn in played.models.asked[-1][1].turns if turn.role == "tool"]
    assert [each.get("result", each.get("reason")) for each in results] == [1, "policy_denied", 3]


async def test_code_comes_alone() -> None:
    agent = ModelAgent("m", "be a clerk", code_mode=True)
    call = RequestedCall(tool=PYTHON_CODE, arguments='{"code": "1"}')
    made = await agent.decide(view(models=Models(ModelReply(calls=(call, call))), tools=TOOLS))
    assert isinstance(made, Action) and made.tool == PYTHON_CODE + REFUSED_CALL and "alone" in made.arguments["why"]


async def test_the_model_is_offered_code_with_the_tools_as_functions() -> None:
    played = Played("1")
    await played.decide()
    prompt: Prompt = played.models.asked[0][1]
    assert [each.name for each in prompt.tools] == [PYTHON_CODE]
    description = prompt.tools[0].description
    assert "async def look(n: int, deep: bool = False) -> Any:" in description and "Pay somebody." in description
    assert "async def python_code" not in description
    with pytest.raises(InvalidInput, match="may not use python_code"):
        await played.agent.decide(view(models=played.models, tools=(look.spec,)))


async def test_an_agent_without_code_mode_is_not_offered_code() -> None:
    models = Models(ModelReply(text="done"))
    await ModelAgent("m", "be a clerk").decide(view(models=models, tools=TOOLS))
    assert [each.name for each in models.asked[0][1].tools] == ["look", "pay"]


def test_a_stub_says_types_names_and_descriptions() -> None:
    schema = {
        "type": "object",
        "properties": {
            "note": {"type": ["string", "null"], "default": None, "description": "What to write."},
            "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
            "kind": {"enum": ["a", "b"]},
            "odd-name": {"type": "number", "description": "How odd."},
            "free": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
        "required": ["lines", "kind"],
        "$defs": {
            "Line": {
                "type": "object",
                "properties": {"sku": {"type": "string"}, "more": {"$ref": "#/$defs/Line"}},
                "required": ["sku"],
            }
        },
    }
    made = Tool.from_schema("order.new", schema, lambda **_: None, effect="write", description='Say """hello""".')
    assert parameters_of(made.spec) == ["lines", "kind", "note", "free"]
    text = stub_of(made.spec)
    assert text.splitlines()[:3] == ["class OrderNewLine(TypedDict):", "    sku: str", "    more: NotRequired[Any]"]
    assert (
        "async def order_new(lines: list[OrderNewLine], kind: Literal['a', 'b'], note: str | None = None, "
        "free: dict[str, int] = ...) -> Any:" in text
    )
    assert "note: What to write." in text and "Give 'odd-name' (float) as **{'odd-name': ...}. How odd." in text
    assert text.count('"""') == 2
    compile(text, "stub", "exec")


async def test_a_tenant_whose_code_never_ends_keeps_no_other_waiting() -> None:
    """Two of its snippets are run at a time, and the others wait for these."""
    code, others = interpreter(), list[asyncio.Future[Any]]()
    for _ in range(6):
        others.append(asyncio.ensure_future(code.run(TenantId("busy"), "while True: pass", {}, [])))
    await asyncio.sleep(0)
    state = await code.run(TenantId("acme"), "1 + 1", {}, [])
    assert isinstance(state, SnippetEnded) and json.loads(state.result)["result"] == 2
    assert not any(each.done() for each in others)
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def test_snippets_side_by_side_do_not_know_of_each_other() -> None:
    played = [Played(f"secret = {n}\nprint(secret)\nawait look({n})", lambda a: a.arguments["n"]) for n in range(6)]
    told = await asyncio.gather(*[each.run() for each in played])
    assert [(each["result"], each["printed"]) for each in told] == [(n, f"{n}\n") for n in range(6)]
    fresh = await Played("secret").run()
    assert "NameError" in fresh["error"]


def test_an_agent_without_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidConfig, match=r"airside\[code\]"):
        ModelAgent("m", "be a clerk", code_mode=True).check([PYTHON_CODE], ["clerk"])
    with pytest.raises(InvalidConfig, match="code_mode"):
        ModelAgent("m", "be a clerk", code_mode=1)  # type: ignore[arg-type]
