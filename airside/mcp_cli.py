"""`airside mcp`: the tool servers of an app, what they offer now, and approving it; and being one (`serve`)."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airside.options import HERE, AppArgs, AppName, AsJson, StateDir, brief, table
from airside.output import json_line
from airside.stack.errors import AirsideError, Failed, InvalidInput, Misuse
from airside.stack.ids import parse_tenant
from airside.stack.run.story import printable

if TYPE_CHECKING:
    from airside.tools.mcp.offer import ServerOffer
    from airside.tools.mcp.server import McpServer
    from airside.tools.secrets.providers import SecretsProvider

mcp = typer.Typer(
    no_args_is_help=True, help="Tool servers (Model Context Protocol): what was approved of them; being one."
)

_CONNECT_S = 60.0
_SETTLE_S = 1.0
"""How long a server is given to say that its list changed, once it is there: some offer more when they have begun."""

_SHOWN = 400
"""Lines of a difference that are shown by `diff`; what is approved is shown whole."""

ServerArgument = Annotated[str, typer.Argument(help="the server's name in the app")]


WithSecretsOf = Annotated[str, typer.Option("--tenant", help="whose secrets are sent, where the server is given any")]


def _servers(app_name: str, app_args: list[str] | None) -> tuple[dict[str, McpServer], SecretsProvider | None]:
    """Return an app's servers by name, and where its secrets are."""
    from airside.cli import load_app
    from airside.tools.mcp.server import McpServer

    app = load_app(app_name, app_args or [])
    found = {item.name: item for item in app.tools if isinstance(item, McpServer)}
    if not found:
        raise Misuse(f"--app {app_name}: it has no McpServer(...) among its tools")
    return found, app.secrets


def _ask(name: str, app_name: str, app_args: list[str] | None, tenant: str) -> tuple[McpServer, ServerOffer]:
    """Reach a server; return it, and what it offers now."""
    from airside.tools.secrets.providers import read_secrets

    servers, provider = _servers(app_name, app_args)
    if name not in servers:
        raise Misuse(f"there is no server {name!r:.80}; the app has {sorted(servers)}")
    server = servers[name]
    if server.secrets and not tenant:
        raise Misuse(f"server {name} is given secrets: say whose, by --tenant")
    given = read_secrets(provider, parse_tenant(tenant), server.secrets.values()) if server.secrets else {}
    return server, _offer_of(server, given)


def _offer_of(server: McpServer, given: dict[str, str]) -> ServerOffer:
    from airside.tools.mcp.session import McpSession

    mapping, _ = server.read_mapping()
    address = server.address(mapping)

    async def ask() -> ServerOffer:
        offers: list[ServerOffer | InvalidInput] = []
        session = await McpSession.open(address, given, offers.append, _CONNECT_S)
        await asyncio.sleep(_SETTLE_S)
        await session.wait_listed(_CONNECT_S)
        await session.close()
        if isinstance(offers[-1], InvalidInput):
            raise Failed(f"server {server.name}: {offers[-1].message}")
        return offers[-1]

    try:
        return asyncio.run(ask())
    except AirsideError as error:
        raise Failed(error.message) from None


def _differences(server: McpServer, now: ServerOffer) -> list[str]:
    """Return what is otherwise than it was approved; all of it, if nothing was."""
    from airside.tools.mcp.offer import ServerOffer

    pin = server.read_pin()
    before = ServerOffer(launch={}, identity={}, instructions="", tools=()) if pin is None else pin.offer
    return before.differences(now)


def _say(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)


@mcp.command("list")
def list_servers(
    app_name: AppName, app_arg: AppArgs = None, as_json: AsJson = False, state_dir: StateDir = HERE
) -> None:
    """List an app's servers, their tools as policy sees them, and which are in quarantine in a running stack."""
    quarantined = _quarantined(state_dir)
    found = [_state(server) for server in _servers(app_name, app_arg)[0].values()]
    for each in found:
        each["quarantined"] = quarantined.get(each["server"], "")
    if as_json:
        typer.echo(json_line(found, indent=1))
        return
    for each in found:
        at = each["approved_at"]
        by = f"approved {at} by {each['approved_by']}, {each['digest'][:12]}" if at else "not approved"
        typer.echo(printable(f"{each['server']}: {each['reached_by']}: {by}"))
        for what in ("problem", "quarantined"):
            if each[what]:
                typer.echo(f"  {what.upper()}: {brief(each[what], 300)}")
        rows = [[tool["name"], tool["effect"], tool["risk"], " ".join(tool["scopes"])] for tool in each["tools"]]
        _say(["  " + line for line in table(["TOOL", "EFFECT", "RISK", "SCOPES"], rows)] if rows else [])


def _state(server: McpServer) -> dict[str, Any]:
    pin = server.read_pin()
    tools, problem = [], ""
    try:
        tools = [tool.spec for tool in server.read_toolset().tools]
    except AirsideError as error:
        problem = error.message
    return {
        "server": server.name,
        "reached_by": server.url or _command(server.command),
        "digest": "" if pin is None else pin.digest,
        "approved_at": "" if pin is None else pin.approved_at,
        "approved_by": "" if pin is None else pin.approved_by,
        "problem": problem,
        "tools": [
            {"name": spec.name, "effect": spec.effect, "risk": spec.risk, "scopes": list(spec.scopes)} for spec in tools
        ],
    }


def _command(command: Sequence[str]) -> str:
    """Return a command as one line; what is none is shown as it is, beside the problem."""
    return command if isinstance(command, str) else " ".join(map(str, command))


def _quarantined(state_dir: Path) -> dict[str, str]:
    """Return which servers are in quarantine in a stack that runs, and why; none where no stack does."""
    from airside.actors.client.stack_record import read_record
    from airside.cli import attached

    try:
        if not read_record(state_dir):
            return {}
        with attached(state_dir) as stack:
            layers = stack.status()
    except AirsideError:
        return {}
    return {name: why for layer in layers.values() for name, why in layer.get("quarantined", {}).items()}


@mcp.command()
def diff(server: ServerArgument, app_name: AppName, app_arg: AppArgs = None, tenant: WithSecretsOf = "") -> None:
    """Reach a server and show what it offers otherwise than approved; exit code 1 if anything."""
    found, now = _ask(server, app_name, app_arg, tenant)
    lines = _differences(found, now)
    _say(lines[:_SHOWN] or [f"{found.name} is what was approved"])
    if len(lines) > _SHOWN:
        typer.echo(f"... and {len(lines) - _SHOWN} more lines, which `airside mcp approve` shows", err=True)
    raise typer.Exit(1 if lines else 0)


@mcp.command()
def approve(
    server: ServerArgument,
    app_name: AppName,
    app_arg: AppArgs = None,
    yes: Annotated[bool, typer.Option("--yes", help="approve without being asked")] = False,
    tenant: WithSecretsOf = "",
    by: Annotated[str, typer.Option("--as", help="who approves, for the file; else the user of this computer")] = "",
) -> None:
    """Reach a server, show what is new, and pin it; a running stack takes it up when it is reloaded or started anew."""
    from airside.tools.mcp.pins import ApprovedOffer, write_pin

    found, now = _ask(server, app_name, app_arg, tenant)
    lines = _differences(found, now)
    if not lines:
        typer.echo(f"{found.name} is what was approved")
        return
    _say(lines)
    mapping, at = found.read_mapping()
    tools = found.tools_of(now, mapping, at)
    _say(table(["TOOL", "EFFECT", "RISK"], [[tool.name, tool.spec.effect, tool.spec.risk] for tool in tools]))
    if not yes and not typer.confirm(f"Approve this of {found.name}?"):
        raise typer.Exit(1)
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    pin = ApprovedOffer(digest=now.digest, approved_at=when, approved_by=by or getpass.getuser(), offer=now)
    write_pin(Path(found.pin), found.name, pin)
    where = Path(found.pin).resolve()
    typer.echo(
        f"approved {found.name} ({now.digest[:12]}) in {where}; a running stack takes it up by `stack.reload(app)`"
    )


@mcp.command()
def serve(
    http: Annotated[
        str, typer.Option("--http", help="HOST:PORT to listen on; 127.0.0.1 unless others are to reach it")
    ] = "",
    stdio: Annotated[
        bool, typer.Option("--stdio", help="over standard streams, with the token in AIRSIDE_TOKEN")
    ] = False,
    host: Annotated[list[str] | None, typer.Option("--host", help="a name that it is reached by; repeatable")] = None,
    state_dir: StateDir = HERE,
) -> None:
    """Serve the tools of a running stack to MCP clients; each call is a run of whoever makes it."""
    import airside
    from airside.actors.gateway.calls import GatewayCalls
    from airside.actors.gateway.http import PATH, http_app
    from airside.actors.gateway.stdio import serve_stdio
    from airside.actors.web.listening import listen, serve_http
    from airside.stack.security.keyring import gateway_key

    if bool(http) == stdio:
        raise Misuse("say how it is served: --http HOST:PORT, or --stdio")
    credential = os.environ.get("AIRSIDE_TOKEN", "")
    if stdio and not credential:
        raise Misuse("--stdio: who calls is said by AIRSIDE_TOKEN, a token or an API key: set it")
    names = tuple(host or ())
    stack = airside.connect(state_dir)
    with contextlib.closing(GatewayCalls(stack, lambda: airside.connect(state_dir))) as calls:
        key, audience = gateway_key(stack.state_dir / "keys"), stack.cell.stack
        if stdio:
            asyncio.run(serve_stdio(calls, credential, key, audience))
            return
        listener = listen(http, names, option="--http", name_option="--host")
        typer.echo(f"serving on {listener.url}{PATH}", err=True)
        asyncio.run(serve_http(http_app(calls, key, audience, names), listener))
