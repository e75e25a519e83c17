"""A call gets its tenant's secrets, and nothing that leaves it shows one, wherever it runs and however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airside.stack.canonical import digest
from airside.stack.contracts.memory import Candidate, LearnReply, RecallReply, RecallRequest
from airside.stack.cycle.output_source import output_from
from airside.stack.ids import RunId, TenantId
from airside.stack.reasons import MemoryCode
from airside.stack.values import ToolResult
from airside.tools.dispatch import Dispatcher
from airside.tools.runners.output import MAX_CHARACTERS, MarkedStream, redact_output
from airside.tools.secrets.known import KnownSecrets
from airside.tools.secrets.redaction import REDACTED
from airside.tools.tool import InDoubt, Tool, ToolContext, ToolError, Toolset, tool
from benchmarks.secret_formats import known_secrets, leaks_in
from tests.helpers import EXECUTOR, KEY, granted

SECRETS = known_secrets()
NAMES = tuple(SECRETS)


class Provider:
    """Knows thirty secrets of acme, and none of anybody else's."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.wait: Callable[[], object] = lambda: None

    def secret(self, tenant: str, name: str) -> str:
        """Return one."""
        self.asked.append((tenant, name))
        self.wait()
        if tenant != "acme":
            raise LookupError(name)
        return SECRETS[name]


def behave(how: str, context: ToolContext) -> Any:
    """Show all secrets, in some way."""
    shown = list(context.secrets.values())
    assert len(shown) == len(SECRETS)
    match how:
        case "return":
            return {"list": shown, "text": "; ".join(shown), **{secret: {"deep": [secret]} for secret in shown}}
        case "refuse":
            raise ToolError("\n".join(shown))
        case "doubt":
            raise InDoubt(" ".join(shown))
        case "raise":
            raise KeyError(*shown)
        case "unfit":
            return {shown[0]: {1, 2}, shown[-1]: object()}
        case "long":
            raise ValueError("x" * 3_900 + shown[0] * 100)
        case "print":
            for secret in shown:
                print("here:", secret)
                print(secret[:9])
                print(secret[9:])
                print(secret, file=sys.stderr)
        case "log":
            for secret in shown:
                logging.getLogger("some.library").error("token %s", secret)
        case "log_exception":
            try:
                raise ValueError(" ".join(shown))
            except ValueError:
                logging.getLogger("some.library").exception("it broke")
    return "done"


async def behave_later(how: str, context: ToolContext) -> Any:
    """Do the same on an event loop."""
    await asyncio.sleep(0)
    return behave(how, context)


def tools(effect: str = "read") -> dict[str, Tool]:
    """Return the tool in each of the ways in which tools run."""
    options: dict[str, Any] = {"effect": effect, "secrets": NAMES}
    return {
        "thread": tool(name="thread", **options)(behave),
        "loop": tool(name="loop", **options)(behave_later),
        "process": tool(name="process", process=True, **options)(behave),
    }


@pytest.fixture
async def dispatchers() -> AsyncIterator[Callable[..., Dispatcher]]:
    """What makes dispatchers that end with the test."""
    made: list[Dispatcher] = []

    def make(*given: Tool | Toolset, **options: Any) -> Dispatcher:
        made.append(
            Dispatcher(
                given, seal_key=KEY, executor_id=EXECUTOR, now_us=lambda: 0, **{"secrets": Provider(), **options}
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


async def run(dispatcher: Dispatcher, found: Tool, how: str = "", **grant: Any) -> ToolResult:
    """Execute a call under a key of its own."""
    arguments = msgspec.json.encode({"how": how} if how else {})
    given = {"timeout_ms": 20_000, "nonce": os.urandom(12), "key": os.urandom(4).hex()} | grant
    return (await dispatcher.execute(granted(found.spec, arguments, **given))).result


def shown_by(result: ToolResult) -> str:
    """Return everything of a result."""
    return f"{bytes(result.output).decode()} {result.error}"


@pytest.mark.parametrize("way", ["thread", "loop", "process"])
async def test_no_result_shows_a_secret(dispatchers: Callable[..., Dispatcher], way: str) -> None:
    found = tools()[way]
    dispatcher = dispatchers(found)
    ends = {"return": "completed", "refuse": "tool_failed", "doubt": "tool_in_doubt", "raise": "tool_failed"}
    for how, reason in {**ends, "unfit": "tool_output_invalid", "long": "tool_failed"}.items():
        result = await run(dispatcher, found, how)
        assert result.reason_code == reason, how
        assert leaks_in(shown_by(result), SECRETS) == [], how
        assert REDACTED in shown_by(result) or how == "unfit"
    value = (await run(dispatcher, found, "return")).value()
    assert value["list"] == [REDACTED] * 30 and len(value) == 32, "every key is still there"


@contextlib.contextmanager
def written(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Callable[[], str]]:
    """Have this process print to a file, and log to another one; what is in them is returned."""
    log = logging.FileHandler(folder / "log")
    monkeypatch.setattr(logging.Logger, "handle", logging.Logger.handle)
    with (folder / "out").open("w") as stream:

        def read() -> str:
            stream.flush()
            return (folder / "out").read_text() + (folder / "log").read_text()

        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, stream)
        logging.getLogger().addHandler(log)
        yield read
        monkeypatch.undo()
        logging.getLogger().removeHandler(log)


@pytest.mark.parametrize("way", ["thread", "loop"])
async def test_nothing_that_is_printed_or_logged_shows_a_secret(
    dispatchers: Callable[..., Dispatcher], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    known, found = KnownSecrets(), tools()[way]
    dispatcher = dispatchers(found, known_secrets=known)
    with written(monkeypatch, tmp_path) as read:
        redact_output(known)
        for how in ("print", "log", "log_exception"):
            assert (await run(dispatcher, found, how)).value() == "done"
        print("the process itself says", *SECRETS.values())
        logging.getLogger("airside").error("the process itself logs %s", list(SECRETS.values()))
        text = read()
    assert leaks_in(text, SECRETS) == []
    assert text.count(f"here: {REDACTED}") >= 30 and "token [redacted]" in text and "it broke" in text
    assert "the process itself says [redacted]" in text and "the process itself logs" in text
    half = [name for name, secret in SECRETS.items() if secret[9:30] in text]
    assert half == [], "a secret that is printed in two lines is found"


def test_what_is_logged_beside_a_message_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Handlers that write documents write all of it."""
    monkeypatch.setattr(logging.Logger, "handle", logging.Logger.handle)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    token, known = "sk_live_51H8xyzABCDEFGHIJKL", KnownSecrets()
    known.learn(TenantId("acme"), [token])
    redact_output(known)
    extra = {"header": f"Bearer {token}", "sent": {"a": [token]}, "error": ValueError(token), "count": 3}
    logging.getLogger("x").warning("sent", extra=extra)
    found = vars(caplog.records[-1])
    assert (found["header"], found["sent"], found["count"]) == (f"Bearer {REDACTED}", {"a": [REDACTED]}, 3)
    assert found["error"] == REDACTED and token not in repr(found)


async def test_nothing_that_a_process_of_its_own_prints_shows_a_secret(
    dispatchers: Callable[..., Dispatcher], capfd: pytest.CaptureFixture[str]
) -> None:
    found = tools()["process"]
    dispatcher = dispatchers(found)
    for how in ("print", "log", "log_exception"):
        assert (await run(dispatcher, found, how)).value() == "done"
    dispatcher.close()
    text = "".join(capfd.readouterr())
    assert f"here: {REDACTED}" in text and "it broke" in text and leaks_in(text, SECRETS) == []


def test_a_text_that_may_be_the_beginning_of_a_secret_waits_for_the_rest_or_the_calls_end(tmp_path: Path) -> None:
    token, known = "sk_live_51H8xyzABCDEFGHIJKL", KnownSecrets()
    known.learn(TenantId("acme"), [token])
    with (tmp_path / "out").open("w") as out:
        stream = MarkedStream(out, "", known)
        who = ("pay", TenantId("acme"), RunId("run_1"))
        with output_from(*who):
            stream.write(f"one\nends: {token[:4]}\n")
            stream.write(f"{token[4:]} two\n")
            stream.write("x" * MAX_CHARACTERS + token[:10])
            stream.write(token[10:] + "\nlast: sk_l")
        stream.finish(who)
    text = (tmp_path / "out").read_text()
    assert text.splitlines()[0].endswith("] one") and text.splitlines()[1].endswith(f"] ends: {REDACTED} two")
    assert text.endswith("last: sk_l\n") and leaks_in(text, {"token": token}) == [] and token[:8] not in text


@tool(effect="write", secrets=("password",))
def pay(amount: int, context: ToolContext) -> str:
    """Pay."""
    assert context.secrets["password"] == SECRETS["password"]
    return "paid"


async def test_a_call_whose_secret_is_not_there_is_not_begun(dispatchers: Callable[..., Dispatcher]) -> None:
    dispatcher = dispatchers(pay)
    request = granted(pay.spec, b'{"amount":1}', tenant=TenantId("globex"))
    result = (await dispatcher.execute(request)).result
    assert (result.ok, result.reason_code) == (False, "secret_unavailable")
    assert result.error == "globex has no secret 'password'"
    later = granted(pay.spec, b'{"amount":1}', tenant=TenantId("globex"), attempt=2, nonce=b"2")
    assert (await dispatcher.execute(later)).result.reason_code == "tool_unavailable", "the first may have happened"


async def test_a_provider_that_hangs_holds_up_nothing_and_the_call_is_not_begun(
    dispatchers: Callable[..., Dispatcher],
) -> None:
    provider, hold = Provider(), threading.Event()
    provider.wait = hold.wait
    dispatcher = dispatchers(pay, secrets=provider)
    result = (await dispatcher.execute(granted(pay.spec, b'{"amount":1}', timeout_ms=40))).result
    hold.set()
    assert result.reason_code == "secret_unavailable" and "did not answer in 0.02 s" in result.error


async def test_a_call_gets_what_its_tool_declares_and_no_other_tool_gets_it(
    dispatchers: Callable[..., Dispatcher],
) -> None:
    seen: list[dict[str, str]] = []

    @tool(effect="read", secrets=["jwt"])
    def one(context: ToolContext) -> None:
        seen.append(dict(context.secrets))

    @tool(effect="read")
    def none(context: ToolContext) -> str:
        seen.append(dict(context.secrets))
        return f"{context!r} {SECRETS['jwt']}"

    provider = Provider()
    dispatcher = dispatchers(one, none, secrets=provider)
    await run(dispatcher, one)
    result = await run(dispatcher, none)
    assert seen == [{"jwt": SECRETS["jwt"]}, {}] and provider.asked == [("acme", "jwt")]
    assert leaks_in(shown_by(result), SECRETS) == [], "what one tool was given, no other of the tenant's shows"


async def test_the_state_of_a_toolset_is_opened_with_its_secrets_and_its_errors_show_none(
    dispatchers: Callable[..., Dispatcher],
) -> None:
    broken: list[str] = []

    def open_state(context: ToolContext) -> str:
        if "open" in broken:
            raise RuntimeError(f"login with {context.secrets['jwt']} failed")
        return context.secrets["jwt"]

    def offers(state: str) -> list[Tool]:
        if "offers" in broken:
            raise RuntimeError(f"not with {state}")
        return [look]

    @tool(effect="read")
    def look(context: ToolContext) -> Any:
        assert context.state == SECRETS["jwt"] and not context.secrets
        return {"state": context.state}

    shelf = Toolset("shelf", (look,), open=open_state, offers=offers, secrets=("jwt",), lifetime="run")
    dispatcher = dispatchers(shelf)
    assert (await run(dispatcher, look)).value() == {"state": REDACTED}
    broken.append("offers")
    result = await run(dispatcher, look)
    assert f"not with {REDACTED}" in result.error and leaks_in(shown_by(result), SECRETS) == []
    broken.append("open")
    result = await run(dispatcher, look)
    assert f"login with {REDACTED} failed" in result.error and leaks_in(shown_by(result), SECRETS) == []
    other = await run(dispatcher, look, tenant=TenantId("globex"))
    assert other.reason_code == "secret_unavailable"


async def test_what_is_found_out_of_a_key_and_what_an_undo_says_shows_none(
    dispatchers: Callable[..., Dispatcher],
) -> None:
    def asked(context: ToolContext) -> Any:
        return {"key": context.secrets["jwt"]}

    def undo(context: ToolContext, arguments: dict[str, Any], output: Any) -> None:
        raise ToolError(f"no undo with {context.secrets['jwt']}")

    @tool(effect="write", secrets=("jwt",), reconcile=asked, undo=undo)
    def write(context: ToolContext) -> str:
        return context.secrets["jwt"]

    dispatcher = dispatchers(write)
    result = await run(dispatcher, write, attempt=2)
    assert result.value() == {"key": REDACTED}
    result = await run(dispatcher, write, undo=True, output_sha256=digest(b"null"))
    assert result.error == f"no undo with {REDACTED}"


class Memory:
    """Keeps what it is offered."""

    def __init__(self) -> None:
        self.offered: list[Candidate] = []

    async def write_if_useful(self, candidate: Candidate) -> LearnReply:
        """Keep it."""
        self.offered.append(candidate)
        return LearnReply(code=MemoryCode.STORED)

    async def retrieve(self, request: RecallRequest) -> RecallReply:
        """Know nothing."""
        return RecallReply()


async def test_memory_is_offered_no_secret(dispatchers: Callable[..., Dispatcher]) -> None:
    @tool(effect="write", secrets=("jwt",))
    async def remember(context: ToolContext) -> None:
        assert context.keep is not None
        secret = context.secrets["jwt"]
        await context.keep(Candidate(tenant=context.tenant, text=f"It is {secret}.", kind="fact", source=secret))

    memory = Memory()
    assert (await run(dispatchers(remember, memory=memory), remember)).ok
    assert [(each.text, each.source) for each in memory.offered] == [(f"It is {REDACTED}.", REDACTED)]
