"""Real effects under SIGKILL: an HTTP and an SMTP server on loopback count what arrives, and kill who sent it.

    python -m benchmarks.crash_effects [--seeds 100] [--out crash_effects.json]

A seed is one run of four calls in an order of its own: `charge` (HTTP, must not be sent twice), `book` (HTTP, can be
asked by its key), `put` (HTTP, idempotent), `mail` (SMTP, must not be sent twice).  At one of them a process is killed:
the executor, the runtime, the journal, the gate or the driver; before the call was gated, when the server has it and
has not done it, when it is done and not answered, or just after the answer.  Then, per call: it happened at most once;
what is recorded as done happened; what happened is recorded as done, or its key is listed as in doubt.

Last line: seeds, effects that happened twice, effects lost (recorded and not done, or done and neither recorded nor
in doubt), calls in doubt, runs that ended.  Not measured: a tool whose promise (idempotent, reconcile) does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import smtplib
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

from aiosmtpd.controller import Controller

import airside
from airside import App, ReplayAgent, tool
from airside.actors.client.client import Stack
from airside.stack.directory import Directory, Principal, Tenant
from airside.tools.tool import NOT_DONE, Tool, ToolContext
from benchmarks.measure import last_line, machine, result_file

TOOLS = ("charge", "book", "put", "mail")
LAYERS = ("executor", "runtime", "journal", "policy", "driver")
MOMENTS = ("gate", "before", "after", "answered")
HTTP_S = 20.0


class World:
    """What counts effects, and whom to kill when."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.victim: dict[str, Any] = {}
        self.kills = 0

    def arrive(self, name: str, key: str) -> str:
        """Take a call in; return the moment at which its sender dies, "" if it does not."""
        with self.lock:
            wanted = self.victim.get("tool") == name and not self.victim.get("used")
            if wanted:
                self.victim["used"] = True
        return str(self.victim["moment"]) if wanted else ""

    def kill(self) -> None:
        """SIGKILL the victim's processes."""
        for pid in self.victim["pids"]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills += 1

    def apply(self, name: str, key: str) -> None:
        """Have the effect; `put` takes a key once."""
        with self.lock:
            self.counts[key] = 1 if name == "put" else self.counts[key] + 1

    def effect(self, name: str, key: str, delay_s: float) -> bool:
        """Do what a call asks for and kill whoever is to die; return whether it is to be answered."""
        moment = self.arrive(name, key)
        if moment == "before":
            self.kill()
            if self.victim["layer"] == "executor":
                return False  # nobody is left to hear of it
        self.apply(name, key)
        if moment == "after":
            self.kill()
        if moment == "answered":
            threading.Timer(delay_s, self.kill).start()
        return True


def http_server(world: World, rng: Random) -> ThreadingHTTPServer:
    """Return a server: POST /NAME/KEY has an effect, GET /NAME/KEY says whether it was had."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            _, name, key = self.path.split("/")
            if world.effect(name, key, rng.random() * 0.03):
                self.answer({"done": key})

        def do_GET(self) -> None:
            self.answer({"done": world.counts[self.path.split("/")[2]] > 0})

        def answer(self, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            with suppress(OSError):
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Mailbox:
    """The SMTP server's handler."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take a message in; its key stands in a header."""
        text = envelope.content.decode()
        key = next(line.partition(": ")[2] for line in text.splitlines() if line.startswith("X-Key: "))
        self._world.effect("mail", key, self._rng.random() * 0.03)
        return "250 OK"


def make_tools(http: str, smtp_port: int) -> list[Tool]:
    """Return the four tools."""

    def post(name: str, key: str, method: str = "POST") -> dict[str, Any]:
        request = urllib.request.Request(f"{http}/{name}/{key.replace(':', '-')}", method=method, data=None)
        with urllib.request.urlopen(request, timeout=HTTP_S) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def asked(context: ToolContext) -> Any:
        """Ask whether the key was used."""
        return {"found": True} if post("book", context.idempotency_key, "GET")["done"] else NOT_DONE

    @tool(effect="external")
    def charge(context: ToolContext) -> dict[str, Any]:
        """Charge a card."""
        return post("charge", context.idempotency_key)

    @tool(effect="external", reconcile=asked)
    def book(context: ToolContext) -> dict[str, Any]:
        """Book a seat."""
        return post("book", context.idempotency_key)

    @tool(effect="write", idempotent=True)
    def put(context: ToolContext) -> dict[str, Any]:
        """Write a document."""
        return post("put", context.idempotency_key)

    @tool(effect="irreversible")
    def mail(context: ToolContext) -> dict[str, Any]:
        """Send a mail."""
        message = EmailMessage()
        message["From"], message["To"] = "a@airside.example", "b@airside.example"
        message["X-Key"] = context.idempotency_key.replace(":", "-")
        message.set_content("hello")
        with smtplib.SMTP("127.0.0.1", smtp_port, timeout=HTTP_S) as client:
            client.send_message(message)
        return {"sent": True}

    return [charge, book, put, mail]


def app(http: str, smtp_port: int) -> App:
    """Return the app."""
    return App(
        agents={"worker": ReplayAgent()},
        tools=make_tools(http, smtp_port),
        policy="version: effects-1\nrules: [{id: all, outcome: allow}]\n",
        directory=Directory(tenants={"acme": Tenant(principals={"ana": Principal()})}),
    )


def pids_of(stack: Stack, layer: str) -> list[int]:
    """Return a layer's processes, once every layer is up."""
    while True:
        found = stack.status()
        if not any("down" in each or not each.get("ready") for each in found.values()):
            pids = [each["pid"] for name, each in found.items() if name.startswith(layer)]
            if pids:
                return pids
            warm(stack)  # no runtime lives while no run does
        time.sleep(0.1)


def warm(stack: Stack) -> None:
    """Let a run without calls run."""
    stack.submit("warm", tenant="acme", principal="ana", inputs={"actions": []}).result(timeout=60)


def play(stack: Stack, world: World, rng: Random, seed: int) -> dict[str, Any]:
    """Play one seed; return what became of it."""
    order = rng.sample(TOOLS, len(TOOLS))
    layer, moment, at = rng.choice(LAYERS), rng.choice(MOMENTS), rng.choice(TOOLS)
    world.victim = {"tool": at, "layer": layer, "moment": moment, "pids": pids_of(stack, layer)}
    actions = [{"tool": name, "args": {}} for name in order]
    handle = stack.submit("do it", tenant="acme", principal="ana", inputs={"actions": actions})
    if moment == "gate":
        world.victim["used"] = True
        time.sleep(rng.random() * 0.15)
        world.kill()
    result = handle.result(timeout=180)
    found = judge(world, stack, result)
    return {"seed": seed, "layer": layer, "moment": moment, "tool": at, "run_id": handle.run_id, **found}


def judge(world: World, stack: Stack, result: Any) -> dict[str, Any]:
    """Compare what the servers counted with what the journal says."""
    sql = """SELECT step FROM events WHERE stream = ? AND type = 'ToolExecuted'
             AND CAST(json_extract(body, '$.result.ok') AS BOOLEAN)"""
    done = {row["step"] for row in stack.query(sql, [result.run_id]).to_pylist()}
    story, doubled, lost = result.story(), [], []
    doubts = {key.replace(":", "-") for key in result.in_doubt}
    for step in range(1, 6):
        key = f"{result.run_id}-{step}"
        count = world.counts[key]
        if count > 1:
            doubled.append(key)
        if (step in done and count == 0) or (count == 1 and step not in done and key not in doubts):
            lost.append(key)
    reason = str(result.reason_code)
    return {"reason": reason, "doubled": doubled, "lost": lost, "in_doubt": sorted(doubts), "story": story}


def main() -> None:
    """Play the seeds, write what became of each, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path, default=result_file("crash_effects"))
    options = parser.parse_args()
    world, rng, folder = World(), Random(options.first), Path(tempfile.mkdtemp(prefix="airside-effects-"))
    http = http_server(world, rng)
    smtp = Controller(Mailbox(world, rng), hostname="127.0.0.1", port=free_port())
    smtp.start()
    played = []
    try:
        made = app(f"http://127.0.0.1:{http.server_port}", smtp.port)
        with airside.start(made, state_dir=folder, executors=1) as stack:
            for seed in range(options.first, options.first + options.seeds):
                played.append(play(stack, world, Random(seed), seed))
                print(json.dumps({k: v for k, v in played[-1].items() if k != "story"}), flush=True)
            problems = stack.verify()
    finally:
        smtp.stop()
        http.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    options.out.write_text(json.dumps({"machine": machine(), "played": played}, indent=1), encoding="utf-8")
    print(f"every seed: {options.out}")
    last_line(
        {
            "seeds": len(played),
            "doubled": sum(len(one["doubled"]) for one in played),
            "lost": sum(len(one["lost"]) for one in played),
            "in_doubt": sum(len(one["in_doubt"]) for one in played),
            "kills": world.kills,
            "completed": sum(one["reason"] == "completed" for one in played),
            "audit_ok": not problems,
        }
    )


def free_port() -> int:
    """Return a port nobody listens on; aiosmtpd cannot be given 0."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
