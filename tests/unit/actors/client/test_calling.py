"""A call that does not fit says what is wrong, which names there are, what may be meant, and how to write it."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import cloudpickle

import airside
from airside.actors.client.batch_handle import BatchHandle
from airside.actors.client.client import Stack
from airside.actors.client.memory_client import MemoryClient
from airside.actors.jobs import BadLine, jobs_of
from airside.memory.rules import MemoryRules
from airside.stack.calling import explain_absent, explain_misuse
from airside.stack.contracts.memory import Candidate
from airside.stack.directory import Budget, Directory, Principal, Tenant
from airside.stack.errors import InvalidConfig, InvalidInput, Misuse, WrongCall
from airside.stack.operations.overview import RunDetail
from airside.stack.resources import Resource
from airside.stack.run.topology import Branch, Done, FanOut, GiveUp, Visit
from airside.tools.resolving import resolver
from airside.tools.tool import ProcessLimits
from tests.unit.actors.client.display.samples import approval, batch, result, summary

CALLS: dict[str, Callable[..., Any]] = {
    "Action": airside.Action,
    "Finish": airside.Finish,
    "Handoff": airside.Handoff,
    "Spend": airside.Spend,
    "Limits": airside.Limits,
    "Visit": Visit,
    "Branch": Branch,
    "FanOut": FanOut,
    "Done": Done,
    "GiveUp": GiveUp,
    "App": airside.App,
    "Job": airside.Job,
    "Directory": Directory,
    "Tenant": Tenant,
    "Principal": Principal,
    "Budget": Budget,
    "MemoryRules": MemoryRules,
    "ProcessLimits": ProcessLimits,
    "FunctionAgent": airside.FunctionAgent,
    "ReplayAgent": airside.ReplayAgent,
    "SingleAgent": airside.SingleAgent,
    "Pipeline": airside.Pipeline,
    "Handoffs": airside.Handoffs,
    "FanOutFanIn": airside.FanOutFanIn,
    "Toolset": airside.Toolset,
    "Tool.from_schema": airside.Tool.from_schema,
    "@tool": airside.tool,
    "start": airside.start,
    "connect": airside.connect,
    "priced": airside.priced,
    "Resource": Resource,
    "@resolver": resolver,
    "Candidate": Candidate,
}


@pytest.mark.parametrize("name", CALLS)
def test_a_name_that_does_not_exist_is_a_typed_error_whatever_is_called(name: str) -> None:
    """It says whose the name is not, and how the call is written; whoever caught `TypeError` still does."""
    with pytest.raises(WrongCall) as caught:
        CALLS[name](colour="red")
    message = caught.value.message
    assert message.startswith(f"{name}: ") and "colour" in message and ": write " in message
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, InvalidInput | InvalidConfig)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert pickle.loads(pickle.dumps(caught.value)).message == message


APP = airside.App(agents={}, tools=[], policy="", directory="")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: airside.Action("look"),
            r"^Action: a value of type str has no name: give every argument by its name; "
            r"there are tool, arguments, spend: write Action\(tool=\.\.\.\)$",
        ),
        (lambda: airside.Action("look", {"a": 1}), r"write Action\(tool=\.\.\., arguments=\.\.\.\)$"),
        (
            lambda: airside.Action(tool="look", args={}),
            r"no argument 'args' \(do you mean arguments\?\); there are tool",
        ),
        (
            lambda: airside.Action(tol="look"),
            r"^Action: no argument 'tol' \(do you mean tool\?\); there are [^:]*: write",
        ),
        (lambda: airside.Action(), r"^Action: tool: required, and not given; .*: write Action\(tool=\.\.\.\)$"),
        (lambda: airside.Finish("done"), r"write Finish\(answer=\.\.\.\)"),
        (lambda: airside.Handoff(agnt="desk"), r"'agnt' \(do you mean agent\?\); .*write Handoff\(agent=\.\.\.\)"),
        (
            lambda: airside.Job("pay"),
            r"^Job: a value of type str has no name: .*write Job\(request=\.\.\., tenant=\.\.\., principal",
        ),
        (
            lambda: airside.Job(request="r", tenant="t", principal="p", imputs={}),
            r"^Job: imputs: unknown field \(do you mean inputs.*there are request, tenant, .*write Job\(request=",
        ),
        (lambda: airside.Job(request=5, tenant="t", principal="p"), r"^Job: request: text is needed, not a number"),
        (lambda: airside.Job(request="r"), "give tenant and principal, or a token"),
        (lambda: airside.Limits(max_step=3), r"do you mean max_steps\?"),
        (lambda: airside.App(agent={}), r"no argument 'agent' \(do you mean agents\?\); tools, policy, directory: req"),
        (lambda: airside.App(), r"agents, tools, policy, directory: required.*write App\(agents=\.\.\., tools="),
        (
            lambda: airside.tool(efect="read"),
            r"^@tool: no argument 'efect' \(do you mean effect\?\).*write @tool\(effec",
        ),
        (lambda: airside.tool(effect="read", timeot=3), r"do you mean timeout\?"),
        (lambda: airside.Tool.from_schema("x", {}, print, effct="read"), r"'effct' \(do you mean effect\?\)"),
        (lambda: airside.start(), r"^start: app: required"),
        (
            lambda: airside.start(APP, stat_dir="x"),
            r"^start: no argument 'stat_dir' \(do you mean state_dir\?\); there a",
        ),
        (lambda: airside.start(APP, adress="auto"), r"do you mean address\?"),
        (lambda: airside.start(APP, "x"), r"^start: a value of type str has no name: only app may stand without"),
        (lambda: airside.connect(stack_dir="x"), r"do you mean state_dir\?"),
        (
            lambda: Tenant(principal={}),
            r"^Tenant: principal: unknown field \(do you mean principals\?\).*Tenant\(princip",
        ),
        (lambda: Directory(tenants={"a": {"colour": 1}}), r"^Directory: tenants\.a\.colour: unknown field"),
        (lambda: airside.FunctionAgent(), r"write FunctionAgent\(function\)"),
        (lambda: airside.FunctionAgent(print, 3), "a value of type int has no name: only function may stand without"),
        (lambda: airside.Pipeline(stages=["a"]), "write Pipeline\\('first agent', 'second agent'\\)"),
        (lambda: airside.Handoffs("a", entry="b"), "entry is given twice"),
        (lambda: Resource(tenant="acme", ownr="ana"), r"^Resource: no argument 'ownr' \(do you mean owner\?\)"),
        (lambda: Resource(), r"^Resource: tenant: required, and not given; .*: write Resource\(tenant=\.\.\.\)$"),
        (lambda: resolver(timout=3), r"^@resolver: no argument 'timout' \(do you mean timeout\?\)"),
        (lambda: resolver(print), r"^@resolver: a value of type \S+ has no name: give every argument by its name"),
        (lambda: Candidate(tenant="acme", txt="x"), r"^Candidate: no argument 'txt' \(do you mean text\?\)"),
        (lambda: airside.priced(token=3), r"do you mean tokens\?.*write @priced\(tokens"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_meant(call: Callable[[], Any], says: str) -> None:
    """In one sentence of one form."""
    with pytest.raises(WrongCall, match=says):
        call()


SECRET = "tk-0123456789"


@given(
    st.sampled_from([SECRET, [SECRET], {"token": SECRET}, (SECRET,), {SECRET}, b"tk-0123456789"]),
    st.sampled_from([*sorted(CALLS), "submit", "map"]),
    st.integers(2, 9),
)
def test_no_value_is_said(value: Any, called: str, many: int) -> None:
    """A value given by position may be a token: only its type is said."""
    stack = Stack.__new__(Stack)
    methods: dict[str, Callable[..., Any]] = {"submit": stack.submit, "map": stack.map}
    with pytest.raises((airside.AirsideError, TypeError)) as caught:
        (CALLS | methods)[called](*[value] * many, colour=value)
    assert SECRET not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize(
    "given",
    [SECRET, {"request": "r", "token": SECRET}, b"tk-0123456789", 5, airside.Job(request="r", token=SECRET)],
)
def test_of_what_is_no_batch_only_the_type_is_said(given: Any) -> None:
    """And of what is no job in one."""
    with pytest.raises(InvalidInput, match=rf"of type {type(given).__name__}, is no list of jobs") as caught:
        jobs_of(given)
    assert SECRET not in str(caught.value)
    for odd in ([SECRET], {1: SECRET}, SECRET):
        (bad,) = jobs_of([odd])  # type: ignore[list-item]
        assert isinstance(bad, BadLine) and SECRET not in bad.message and type(odd).__name__ in bad.message


@pytest.mark.parametrize("wrong", ["x", -1, 2.5, True, None, [1]])
@pytest.mark.parametrize("name", ["max_steps", "max_repeats", "max_rejections"])
def test_a_limit_that_is_no_amount_is_refused_when_it_is_given(name: str, wrong: Any) -> None:
    with pytest.raises(WrongCall, match=rf"^Limits: Expected `int`.* - at `\$\.{name}`$"):
        airside.Limits(**{name: wrong})


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: airside.connect(5), r"^connect: state_dir is a path, not of type int$"),
        (lambda: airside.connect(None), r"^connect: state_dir is a path, not of type NoneType$"),
        (lambda: airside.connect(b"here"), r"^connect: state_dir is a path, not of type bytes$"),
        (lambda: airside.connect("a\0b"), r"^connect: state_dir: .*null"),
        (lambda: airside.connect("~nobody-is-called-so/x"), r"^connect: state_dir: .*home"),
        (lambda: airside.connect(address=5), r"^connect: address is a text, not of type int$"),
        (lambda: airside.connect(stack=5), r"^connect: stack is a text, not of type int$"),
        (lambda: airside.start(APP, address=5), r"^start: address is a text, not of type int$"),
    ],
)
def test_what_is_no_folder_address_or_name_is_a_typed_error(call: Callable[[], Any], says: str) -> None:
    """Before anything is started or asked."""
    with pytest.raises(InvalidConfig, match=says):
        call()


def _called(method: Callable[..., Any], *args: Any) -> Any:
    answer = method(*args)
    return asyncio.run(answer) if inspect.iscoroutine(answer) else answer


@pytest.mark.parametrize("kind", [Stack, airside.RunHandle, MemoryClient])
def test_every_method_that_people_call_says_it(kind: type) -> None:
    methods = [name for name, method in vars(kind).items() if inspect.isfunction(method) and name[0] != "_"]
    for name in methods:
        with pytest.raises(WrongCall, match=rf"^{kind.__name__}\.{name}: a value of type int has no name"):
            _called(getattr(kind, name), kind.__new__(kind), *range(9))
    assert len(methods) >= 3


def test_methods_of_a_stack_say_it_too() -> None:
    """Before anything is asked of it; also those that are awaited."""
    stack = Stack.__new__(Stack)
    with pytest.raises(WrongCall, match=r"^Stack\.submit: request: required"):
        stack.submit(tenant="acme")  # type: ignore[call-arg]
    with pytest.raises(WrongCall, match=r"^Stack\.map: no argument 'timout' \(do you mean timeout\?\)"):
        stack.map([], timout=3)  # type: ignore[call-arg]
    with pytest.raises(WrongCall, match=r"^Stack\.amap: no argument 'timout'"):
        asyncio.run(stack.amap([], timout=3))  # type: ignore[call-arg]
    assert asyncio.iscoroutinefunction(Stack.asubmit)


def test_a_call_of_a_name_that_means_something_else_says_what_does() -> None:
    """A switch is of something, which is named; a batch is run by another function."""
    stack = Stack.__new__(Stack)
    with pytest.raises(
        WrongCall, match=r'there are tenant, principal, tool, .*: write Stack\.switch_off\(tool="charge"'
    ):
        stack.switch_off("tool", "charge")  # type: ignore[misc]
    with pytest.raises(WrongCall, match=r"no argument 'out'.* airside\.batches\.run_batch\(stack, jobs, out=\.\.\.\)"):
        stack.batch([{"request": "x"}], out="results")  # type: ignore[call-arg,arg-type]


@pytest.mark.parametrize(
    ("value", "name", "said"),
    [
        (Stack.__new__(Stack), "stop", r"'Stack' object has no attribute 'stop': write \.shutdown\(\)"),
        (Stack.__new__(Stack), "aprovals", r"write \.approvals$"),
        (airside.RunHandle.__new__(airside.RunHandle), "wait", r"write \.result\(\)"),
        (airside.RunHandle.__new__(airside.RunHandle), "status", r"write \.result\(\)\.status"),
        (airside.RunHandle.__new__(airside.RunHandle), "id", r"write \.run_id"),
        (airside.RunHandle.__new__(airside.RunHandle), "kill", r"write \.cancel\(\), or stack\.kill\(run=handle\)"),
        (batch(), "batch", r"write \.id$"),
        (BatchHandle.__new__(BatchHandle), "name", r"write \.id$"),
        (approval(), "id", r"write \.approval_id"),
        (summary(), "id", r"write \.run_id"),
        (result(), "id", r"write \.run_id"),
        (RunDetail(run=summary(), request=""), "status", r"write \.run\.status"),
        (summary(), "xyz", r"no attribute 'xyz'$"),
        (summary(), "_run_id", r"no attribute '_run_id'$"),
    ],
)
def test_a_name_that_there_is_not_says_which_is_meant(value: object, name: str, said: str) -> None:
    """Whoever guesses it is told; `hasattr`, copies and pickles are what they were."""
    with pytest.raises(AttributeError, match=said):
        getattr(value, name)
    assert not hasattr(value, name) and copy.copy(value) is not None


def test_an_error_within_a_call_that_fits_is_left_alone() -> None:
    """A `TypeError` of the code that is called is no wrong call."""

    @explain_misuse()
    def called(a: int) -> int:
        raise TypeError("inside")

    @explain_misuse("later")
    async def later(a: int) -> int:
        raise TypeError("inside")

    with pytest.raises(TypeError, match=r"^inside$"):
        called(1)
    with pytest.raises(TypeError, match=r"^inside$"):
        asyncio.run(later(1))
    with pytest.raises(WrongCall, match=r"^later: a: required"):
        asyncio.run(later())  # type: ignore[call-arg]


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@given(st.text(max_size=200) | st.sampled_from(["self", "cls", "\ud800", "x" * 10_000]), st.sampled_from(sorted(CALLS)))
def test_any_name_and_any_value_can_be_said(name: str, called: str) -> None:
    """The message is bounded, and can be encoded."""
    with pytest.raises(airside.AirsideError) as caught:
        CALLS[called](Unspeakable(), **{name: Unspeakable()})
    assert len(caught.value.message.encode()) < 3_000


def test_values_are_made_copied_and_sent_as_before() -> None:
    """What says it stands in nobody's way."""
    action = airside.Action(tool="look", arguments={"a": 1})
    for again in (
        copy.copy(action),
        pickle.loads(pickle.dumps(action)),
        cloudpickle.loads(cloudpickle.dumps(action)),
        msgspec.structs.replace(action),
        msgspec.json.decode(msgspec.json.encode(action), type=airside.Action),
    ):
        assert again == action
    job = airside.Job(request="r", tenant="t", principal="p")
    assert pickle.loads(pickle.dumps(job)) == job == airside.Job.model_validate(job.model_dump())


def test_a_method_by_its_old_name_does_the_same_and_warns_of_the_new_one() -> None:
    """For one version."""
    orders: list[Any] = []

    class Resolves:
        def resolve(self, run: str, **said: Any) -> int:
            orders.append((run, said))
            return 1

    with pytest.warns(DeprecationWarning, match=r"Stack\.settle is called Stack\.resolve now") as warned:
        assert Stack.settle(cast("Stack", Resolves()), "run_x", happened=True, why="asked") == 1
    assert orders == [("run_x", {"happened": True, "output": None, "why": "asked"})]
    assert warned[0].filename == __file__


@pytest.mark.parametrize(
    "order",
    [
        lambda stack: stack.switch_off(tenant="acme", tool=""),
        lambda stack: stack.switch_off(tool=""),
        lambda stack: stack.switch_off(run=""),
        lambda stack: stack.switch_on(),
        lambda stack: stack.switch_on(tenant="acme", all=True),
        lambda stack: stack.kill(tenant="acme", run=""),
        lambda stack: stack.kill(tenant=""),
        lambda stack: stack.kill(),
        lambda stack: stack.kill(run="run_" + "a" * 24, all=True),
    ],
)
def test_a_target_that_is_empty_is_not_left_out(order: Callable[[Stack], object]) -> None:
    """What a variable did not have would let an order reach more than was meant."""
    with pytest.raises(Misuse, match="say "):
        order(Stack.__new__(Stack))


def test_a_property_that_fails_says_how_and_is_not_said_to_be_absent() -> None:
    @explain_absent()
    class Thing:
        @property
        def size(self) -> int:
            return int(None.size)  # type: ignore[attr-defined]

        @functools.cached_property
        def sizes(self) -> int:
            return int(self.syze)  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match=r"^'NoneType' object has no attribute 'size'$"):
        _ = Thing().size
    with pytest.raises(AttributeError, match=r"^'Thing' object has no attribute 'syze': write \.size$"):
        _ = Thing().sizes
    with pytest.raises(AttributeError, match=r"no attribute 'sise': write \.size$"):
        _ = Thing().sise  # type: ignore[attr-defined]
