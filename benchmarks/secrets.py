"""Tools that are given thirty secrets and show them in every way they can: nobody sees one.

    python -m benchmarks.secrets

One run on a stack calls a tool in each way in which tools run (a thread, an event loop, a process of its own).  It
returns the secrets in values, in keys, in texts, encoded and broken over lines, raises them, prints and logs them.
Then the results, each byte of the state directory, each row of the journal, each span (sent by OTLP to a receiver on
loopback) and each byte of the logs is looked through for them, by forms that are written down apart from those the
redactor looks for.

Last line: formats; calls; `leaks` (secrets found, in a form, in a place); `places`, with how many bytes of each were
looked through and how many times a mark that stood beside the secrets was found there, so that it was the right place.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import ray

import airside
from airside import Action, App, Finish, ToolContext, ToolError, View, tool
from airside.actors.client.client import Stack
from airside.stack.directory import Directory, Principal, Tenant
from airside.tools import EnvironmentSecrets, InDoubt
from benchmarks.canaries import Collector
from benchmarks.measure import last_line, machine
from benchmarks.secret_formats import known_secrets, leaks_in

MARK = "shown-here"
NAMES = tuple(known_secrets())
VARIABLES = {name: f"AIRSIDE_BENCHMARK_{name.upper()}" for name in NAMES}
RETURNED = ("values", "keys", "text", "broken", "json", "url", "hex", "base64", "basic")
RAISED = ("refuse", "doubt", "raise", "long", "unfit")
SAID = ("print", "log", "log_exception")
WAYS = ("thread", "loop", "process")
CALLS = [(way, how) for way in WAYS for how in (*RETURNED, *RAISED, *SAID)]


def returned(how: str, shown: list[str]) -> Any:
    """Return the secrets in some form."""
    each = {
        "text": lambda secret: f"the secret {secret} of all",
        "broken": lambda secret: "\n".join(secret[at : at + 11] for at in range(0, len(secret), 11)),
        "json": lambda secret: json.dumps({"in": json.dumps(secret)}),
        "url": lambda secret: f"https://example.com/?key={quote(secret, safe='')}",
        "hex": lambda secret: secret.encode().hex(),
        "base64": lambda secret: base64.encodebytes(secret.encode()).decode(),
        "basic": lambda secret: "Basic " + base64.b64encode(f"user:{secret}".encode()).decode(),
    }
    if how == "values":
        return {"mark": MARK, "deep": [{"deeper": shown}]}
    if how == "keys":
        return {"mark": MARK, **{secret: {secret: 1} for secret in shown}}
    return [MARK, *map(each[how], shown)]


def said(how: str, shown: list[str]) -> str:
    """Print or log the secrets."""
    if how == "print":
        for secret in shown:
            print(MARK, secret)
            print(secret[:10])
            print(secret[10:])
            print(MARK, secret, file=sys.stderr)
    elif how == "log":
        for secret in shown:
            logging.getLogger("some.client").error("%s %s", MARK, secret)
    else:
        try:
            raise ValueError(" ".join([MARK, *shown]))
        except ValueError:
            logging.getLogger("some.client").exception(MARK)
    return MARK


def show(how: str, context: ToolContext) -> Any:
    """Show all secrets in one way."""
    shown = list(context.secrets.values())
    assert len(shown) == len(NAMES)
    if how in RETURNED:
        return returned(how, shown)
    if how in SAID:
        return said(how, shown)
    text = f"{MARK} " + "\n".join(shown)
    match how:
        case "refuse":
            raise ToolError(text)
        case "doubt":
            raise InDoubt(text)
        case "raise":
            raise PermissionError(text)
        case "long":
            raise ValueError(MARK + "x" * 3_950 + " ".join(shown))
        case _:
            return {MARK: {1, 2}, shown[0]: object()}


async def show_later(how: str, context: ToolContext) -> Any:
    """Do the same on an event loop."""
    await asyncio.sleep(0)
    return show(how, context)


def clerk(view: View) -> Action | Finish:
    """Call each tool in each way, and answer with all that came back, and with what it finds by itself."""
    if len(view.history) < len(CALLS):
        way, how = CALLS[len(view.history)]
        return Action(tool=way, arguments={"how": how})
    found = [each.result.value() if each.result.ok else each.result.error for each in view.history]
    return Finish(answer={"found": found, "variables": sum(name in os.environ for name in VARIABLES.values())})


def create_app() -> App:
    """Return the app: its one tenant has all secrets, in variables."""
    limits = {"max_steps": len(CALLS) + 5, "max_tool_calls": len(CALLS) + 5, "max_seconds": 300}
    options: dict[str, Any] = {"effect": "read", "secrets": NAMES}
    return App(
        agents={"clerk": clerk},
        tools=[
            tool(name="thread", **options)(show),
            tool(name="loop", **options)(show_later),
            tool(name="process", process=True, **options)(show),
        ],
        policy="version: secrets-1\nrules: [{id: all, outcome: allow}]",
        directory=Directory(tenants={"acme": Tenant(principals={"ana": Principal()}, limits=limits)}),
        secrets=EnvironmentSecrets({"acme": VARIABLES}),
    )


@contextlib.contextmanager
def in_environment() -> Iterator[dict[str, str]]:
    """Have the secrets in the environment of this process, as whoever starts a stack has."""
    secrets = known_secrets()
    os.environ.update({VARIABLES[name]: secret for name, secret in secrets.items()})
    try:
        yield secrets
    finally:
        for variable in VARIABLES.values():
            os.environ.pop(variable, None)


def results_of(stack: Stack) -> str:
    """Let the run end, and return everything that whoever submitted it, or operates the stack, is answered."""
    result = stack.submit("show what you were given", tenant="acme", principal="ana").result(timeout=300)
    assert result.ok, result
    assert result.answer["variables"] == 0, "agents do not find them in their environment"
    return "\n".join([json.dumps(result.answer, ensure_ascii=False), str(result), stack.story(result.run_id)])


def journal_of(stack: Stack) -> str:
    """Return all rows of the journal."""
    rows = stack.query("SELECT CAST(body AS VARCHAR) AS body FROM events").to_pylist()
    return "\n".join(row["body"] for row in rows)


def bytes_of(paths: list[Path]) -> str:
    """Return what files hold."""
    return "\n".join(path.read_bytes().decode(errors="replace") for path in paths if path.is_file())


def look_through(places: dict[str, str], secrets: dict[str, str]) -> dict[str, Any]:
    """Return which secrets are in texts, how many bytes were looked through, and that they were the right ones."""
    return {
        "leaks": [f"{place}: {leak}" for place, text in places.items() for leak in leaks_in(text, secrets)],
        "places": {
            place: {"bytes": len(text.encode(errors="replace")), "marks": text.count(MARK)}
            for place, text in places.items()
        },
    }


def main() -> None:
    """Have the secrets shown, look through everything, and print the summary last."""
    print(machine(), flush=True)
    folder = Path(tempfile.mkdtemp(prefix="as-", dir="/tmp"))
    collector = Collector()
    os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{collector.url}/v1/traces"
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray.init(
        address="local", namespace="airside", num_cpus=2, include_dashboard=False, log_to_driver=False,
        logging_level="error", _temp_dir=str(folder / "ray"),
    )  # fmt: skip
    try:
        with in_environment() as secrets:
            stack = airside.start(create_app(), stack="secrets", state_dir=folder / "state", mode="pooled")
        try:
            places = {"results": results_of(stack), "journal": journal_of(stack)}
        finally:
            stack.shutdown()
        ray.shutdown()
        places["state"] = bytes_of([*(folder / "state").rglob("*")])
        places["logs"] = bytes_of([*(folder / "ray").glob("session_2*/logs/**/*")])
        places["spans"] = "\n".join(text for _, text in collector.spans)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = look_through(places, secrets)
    for leak in found["leaks"]:
        print(leak, flush=True)
    last_line({"formats": len(secrets), "calls": len(CALLS), **found, "leaks": len(found["leaks"])})


if __name__ == "__main__":
    main()
