"""`McpServer`: the tools of a server, as an app declares them.

What agents and policies are told of the tools is what a person approved (`pins.py`), under the operator's mapping
(`mapping.py`); a server is first reached when a call needs it, and is compared with its pin before any call of it is
begun.  One that offers anything else is in quarantine: none of its tools is called, for what it changed to reach is
not known, until a person has seen the difference and approved it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airside.stack.calling import explain_misuse
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.values import ApprovalRule
from airside.tools.builtin.addresses import refused_address
from airside.tools.builtin.urls import parse_url
from airside.tools.mcp.address import ServerAddress
from airside.tools.mcp.mapping import UNMAPPED, AskingMapping, ServerMapping, ToolMapping, read_mapping, with_hints
from airside.tools.mcp.offer import ServerOffer
from airside.tools.mcp.pins import PIN_FILE, ApprovedOffer, read_pins
from airside.tools.mcp.results import output_of
from airside.tools.mcp.rounds import AskedFor, input_needed, responses_of
from airside.tools.runners.outcomes import ToolQuarantined
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.tool import InDoubt, Tool, ToolContext, ToolError, Toolset, checked_name

if TYPE_CHECKING:
    from airside.tools.mcp.session import McpSession

logger = logging.getLogger("airside")

TIMEOUT_S = 30.0
OPEN_S = 20.0
_MARGIN_S = 5.0
"""By how much the tool's own timeout is longer than the request's, so that what is said of it is the request's."""

_EARLIER = "an earlier attempt may have been carried out; now: "
_MAX_DESCRIPTION = 16_384
_RESERVED = frozenset({"PATH", "LD_PRELOAD", "LD_LIBRARY_PATH"})
"""Variables by which a sandbox's own programs would be others."""


@explain_misuse(how="McpServer('files', command=['mcp-server-files', '/data'], mapping=Path('files.yaml'))")
@dataclass(frozen=True, slots=True)
class McpServer:
    """A server that speaks the Model Context Protocol, whose tools an app uses: `App(tools=[McpServer(...)])`.

    `command` is what is started, in a sandbox, for each tenant and executor; `url` a server that runs elsewhere.  Its
    tools are called NAME.TOOL.  `mapping` says what each does (a YAML file, or a dictionary): one that is not mapped is
    `external`.  `pin` is the file of what a person approved by `airside mcp approve NAME`; without that the app is
    refused.  `env` are variables of a command's environment, `headers` of a URL's requests; `secrets` say which of the
    tenant's (`App(secrets=...)`) is the value of another one.  `timeout` is in seconds, for each call.
    """

    name: str
    command: Sequence[str] = ()
    url: str = ""
    mapping: Path | Mapping[str, Any] = field(default_factory=dict)
    pin: Path = PIN_FILE
    env: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    timeout: float = TIMEOUT_S
    ca_file: str | Path = ""

    def read_toolset(self) -> Toolset:
        """Return the approved tools; raise `InvalidConfig` if there are none, or they are not what is declared."""
        mapping, at = self.read_mapping()
        address = self.address(mapping)
        if find_spec("mcp") is None:
            raise InvalidConfig(f"server {self.name}: the library of its protocol is missing: install airside[mcp]")
        pin = self.read_pin()
        if pin is None:
            raise InvalidConfig(
                f"server {self.name}: nobody has approved its tools ({self.pin} has no pin of it): "
                f"look at them and approve them with `airside mcp approve {self.name} --app ...`"
            )
        if pin.offer.launch != address.launch:
            raise InvalidConfig(
                f"server {self.name}: it was approved as {pin.offer.launch}, and is declared as {address.launch}: "
                f"approve it anew with `airside mcp approve {self.name} --app ...`"
            )
        tools = self.tools_of(pin.offer, mapping, at)
        source = ServerTools(address, pin.offer, tools)
        return Toolset(
            self.name,
            tools,
            source.open,
            _close,
            lifetime="executor",
            offers=source.offers,
            secrets=tuple(sorted(set(self.secrets.values()))),
        )

    def read_pin(self) -> ApprovedOffer | None:
        """Return what was approved of it, None if nothing was."""
        return read_pins(Path(self.pin)).get(self.name)

    def read_mapping(self) -> tuple[ServerMapping, Callable[[str], str]]:
        """Return the mapping, and where it says something of a tool."""
        found, lines = read_mapping(self.mapping, self.name)
        where = f"server {self.name}: mapping"
        return found, lambda tool: where if lines is None else lines.at(("tools", tool))

    def address(self, mapping: ServerMapping) -> ServerAddress:
        """Return how it is reached; raise `InvalidConfig` for what is no address, or means nothing there."""
        shown = f"server {self.name}"
        checked_name(self.name)
        if isinstance(self.command, str) and self.command:
            parts = self.command.split()
            raise InvalidConfig(
                f"{shown}: command {self.command!r:.200} is one text: give a list, command={parts!r:.200}"
            )
        if bool(self.command) == bool(self.url):
            raise InvalidConfig(f"{shown}: give either command=['program', 'argument'] or url='https://...'")
        if not 0.1 <= self.timeout <= 3_600:
            raise InvalidConfig(f"{shown}: timeout {self.timeout!r} is not between 0.1 and 3,600 seconds")
        address = ServerAddress(
            name=self.name,
            command=tuple(str(part) for part in self.command),
            secrets=dict(self.secrets),
            private=mapping.private,
            read=tuple(mapping.read),
            workspace=mapping.workspace,
            limits=SandboxLimits(
                network=mapping.network, memory_bytes=mapping.memory_bytes, processes=mapping.processes
            ),
            ca_file=str(self.ca_file),
            asks=mapping.asks is not None,
        )
        return self._of_command(shown, address) if self.command else self._of_url(shown, address)

    def _of_command(self, shown: str, address: ServerAddress) -> ServerAddress:
        if self.headers or address.private or self.ca_file:
            raise InvalidConfig(f"{shown}: headers, ca_file and private are those of a url; it has a command")
        taken = sorted((self.env.keys() | self.secrets.keys()) & _RESERVED)
        if taken:
            raise InvalidConfig(f"{shown}: env: {taken[0]} is the sandbox's to set: name the program by its path")
        paths = [*address.read, *([address.workspace] if address.workspace else [])]
        relative = [path for path in paths if not Path(path).is_absolute()]
        if relative:
            raise InvalidConfig(f"{shown}: mapping: {relative[0]!r:.200} is no absolute path")
        return replace(address, given=dict(self.env))

    def _of_url(self, shown: str, address: ServerAddress) -> ServerAddress:
        if self.env or address.limits.network or address.read or address.workspace:
            raise InvalidConfig(f"{shown}: env, network, read and workspace are those of a command; it has a url")
        try:
            url = parse_url(self.url)
        except InvalidInput as error:
            raise InvalidConfig(f"{shown}: {error.message}") from None
        if url.scheme == "http" and not address.private:
            raise InvalidConfig(f"{shown}: {url} is not https: within a private network the mapping says private: true")
        if url.address is not None and (problem := refused_address(url.address, private=address.private)):
            raise InvalidConfig(f"{shown}: {problem.replace('no entry says private=True', 'private: is not said')}")
        _check_headers(shown, [*self.headers, *self.secrets])
        return replace(address, url=url, given=dict(self.headers))

    def tools_of(self, offer: ServerOffer, mapping: ServerMapping, at: Callable[[str], str]) -> tuple[Tool, ...]:
        """Return the tools of an offer under a mapping; raise `InvalidConfig` naming the tool that cannot be one."""
        names = {tool["name"] for tool in offer.tools}
        for name in mapping.tools:
            if name not in names:
                raise InvalidConfig(f"{at(name)}: {self.name} offers no tool {name!r:.80}; it has {sorted(names)[:20]}")
        tools = []
        for tool in offer.tools:
            mapped = with_hints(mapping.tools.get(tool["name"], UNMAPPED), tool.get("annotations") or {})
            if not mapped.hidden:
                tools.append(self._tool(tool, mapped, mapping.asks))
        if not tools:
            raise InvalidConfig(f"server {self.name}: it offers no tool that is not hidden")
        return tuple(tools)

    def _tool(self, tool: Mapping[str, Any], mapped: ToolMapping, asks: AskingMapping | None) -> Tool:
        name = checked_name(f"{self.name}.{tool['name']}")
        description = mapped.description or tool.get("description") or tool.get("title") or ""
        if len(description) > _MAX_DESCRIPTION:
            raise InvalidConfig(
                f"tool {name}: its description has {len(description):,} characters, of at most {_MAX_DESCRIPTION:,}: "
                "the mapping may give another, or say hidden: true"
            )
        seconds = self.timeout if mapped.timeout is None else mapped.timeout
        try:
            spec = ToolSpec.build(
                name=name,
                description=description,
                effect=mapped.effect,
                risk=mapped.risk,
                parameters=tool["inputSchema"],
                scopes=tuple(mapped.scopes),
                repeatable=mapped.idempotent,
                timeout_ms=int((seconds + _MARGIN_S) * 1000),
                cost_microusd=mapped.cost_microusd,
                max_output_bytes=mapped.max_output_bytes,
                content=tuple(sorted(set(mapped.content))),
                trusted_output=mapped.trusted_output,
                asks=_terms(asks),
            )
        except InvalidConfig as error:
            raise InvalidConfig(f"{error.message} (server {self.name}; a tool is left out by hidden: true)") from None
        request = ToolRequest(server=self.name, name=tool["name"], spec=spec, seconds=seconds)
        return Tool(spec, partial(call_tool, request), _as_arguments, context_parameter="context")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequest:
    """What a call of one tool needs to know: its server, what that calls it, and its own timeout in seconds."""

    server: str
    name: str
    spec: ToolSpec
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What a tenant has of a server in one executor: its session, none with a server that is in quarantine.

    `whose` is the tenant where the server is given secrets of it, else "".
    """

    source: ServerTools
    whose: str
    session: McpSession | None


class ServerTools:
    """The tools of one server in one executor: opens a session for each tenant, and compares them with the pin.

    `quarantined` says what is otherwise than it was approved, by whose it is.  A server that all tenants reach alike is
    everybody's: what one session has seen stops the calls of all.  One that is given a tenant's secrets may offer what
    that tenant's account has, and stops that tenant alone.
    """

    def __init__(self, address: ServerAddress, pin: ServerOffer, tools: tuple[Tool, ...]) -> None:
        self.quarantined: dict[str, str] = {}
        self._address = address
        self._pin = pin
        self._digest = pin.digest
        self._tools = tools

    async def open(self, context: ToolContext) -> ServerState:
        """Open a tenant's session; none with a server that is in quarantine, or is seen to belong there."""
        from airside.tools.mcp.session import McpSession

        whose = context.tenant if self._address.secrets else ""
        session = None
        if whose not in self.quarantined:
            seconds = min(OPEN_S, 0.8 * context.deadline_s)
            on_offer = partial(self._compare, whose)
            session = await McpSession.open(self._address, context.secrets, on_offer, seconds)
        if session is not None and whose in self.quarantined:
            await session.close()
            session = None
        return ServerState(source=self, whose=whose, session=session)

    def _compare(self, whose: str, offer: ServerOffer | InvalidInput) -> bool:
        """Return whether the session goes on: one with a server that is in quarantine ends."""
        if whose in self.quarantined:
            return False
        if isinstance(offer, ServerOffer) and offer.digest == self._digest:
            return True
        why = offer.message if isinstance(offer, InvalidInput) else self._pin.summary(offer)
        self.quarantined[whose] = why
        logger.error(
            "server %s is in quarantine%s: it is not what was approved: %s",
            self._address.name,
            f" for {whose}" if whose else "",
            why,
            extra={"action": "mcp_quarantined"},
        )
        return False

    def offers(self, state: ServerState) -> tuple[Tool, ...]:
        """Return the tools; raise why none of them is begun now."""
        self.check(state.whose)
        if state.session is None or state.session.problem:
            raise ConnectionError("it has no session" if state.session is None else state.session.problem)
        return self._tools

    def check(self, whose: str) -> None:
        """Raise `ToolQuarantined` if it is in quarantine."""
        name, why = self._address.name, self.quarantined.get(whose)
        if why is not None:
            raise ToolQuarantined(
                f"server {name} is in quarantine, for it is not what was approved: {why}. "
                f"`airside mcp diff {name} --app ...` shows it, `airside mcp approve {name} --app ...` approves it; "
                "then reload the stack, or start it anew"
            )


async def call_tool(request: ToolRequest, arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    """Have a server's tool called once; raise `ToolError` where nothing was changed, `InDoubt` where nobody knows.

    A server that says its tools changed is asked what they are before anything is sent.  Raises `InputNeeded` for what
    it asks people before it completes the call.
    """
    from airside.tools.mcp.session import CallLost, CallNotSent, CallRejected

    state: ServerState = context.state
    session = state.session
    assert session is not None, "else the call had not begun"
    reads = request.spec.effect == "read"
    try:
        result = await _called(request, arguments, context, session)
    except CallNotSent as error:
        if reads or context.attempt == 1:
            raise ToolError(f"nothing was sent: {error.message}", **error.details) from None
        raise InDoubt(_EARLIER + error.message, **error.details) from None
    except CallLost as error:
        if reads:
            raise ToolError(error.message, **error.details) from None
        raise InDoubt(f"it was sent, and may have been carried out: {error.message}", **error.details) from None
    except CallRejected as error:
        if reads:
            raise ToolError(error.message) from None
        if context.attempt > 1:
            raise InDoubt(_EARLIER + error.message) from None
        return {"is_error": True, "text": session.redactor.text(error.message)}
    output = output_of(result, request.spec.max_output_bytes, session.redactor)
    if reads and output.get("is_error"):
        raise ToolError(output["text"] or "the server says it failed")
    return output


async def _called(
    request: ToolRequest, arguments: dict[str, Any], context: ToolContext, session: McpSession
) -> dict[str, Any]:
    """Return what the server answered; what it asks instead is for people, or is a call that it does not take."""
    from airside.tools.mcp.session import CallRejected

    state: ServerState = context.state
    seconds = min(request.seconds, max(0.1, context.deadline_s - _MARGIN_S))
    before = context.asked
    said = None if before is None else responses_of(before, context.answer)
    await session.wait_listed(seconds)
    state.source.check(state.whose)
    try:
        return await session.call(request.name, arguments, key=context.idempotency_key, seconds=seconds, said=said)
    except AskedFor as asked:
        if request.spec.asks is None:
            raise CallRejected(f"{asked.message}, and its mapping does not say who is asked (`asks`)") from None
        number = 1 if before is None else before.round + 1
        try:
            needed = input_needed(asked, request.server, request.name, arguments, number, session.redactor)
        except InvalidInput as error:
            raise CallRejected(error.message) from None
        raise needed from None


async def _close(state: ServerState) -> None:
    if state.session is not None:
        await state.session.close()


def _terms(asks: AskingMapping | None) -> ApprovalRule | None:
    if asks is None:
        return None
    return ApprovalRule(roles=tuple(asks.roles), expires_after_s=asks.expires_after, answer=True)


def _as_arguments(given: dict[str, Any]) -> dict[str, Any]:
    return {"arguments": given}


_HEADERS_OF_OURS = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "cookie", "host"}
    | {"transfer-encoding", "user-agent"}
)


def _check_headers(shown: str, names: Sequence[str]) -> None:
    for name in names:
        lower = name.lower()
        plain = lower.replace("-", "").isalnum() and lower.isascii()
        if not plain or lower in _HEADERS_OF_OURS or lower.startswith(("mcp-", "proxy-")):
            raise InvalidConfig(f"{shown}: {name!r:.80} is no header that a server may be given")
