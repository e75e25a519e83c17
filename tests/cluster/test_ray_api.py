"""The HTTP API before a real stack: served by a process that cannot read its keys, and asked as the guide says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

import airside
from airside.actors.api.messages import ApprovalStanding, Listing, RunResult, Story, Table
from airside.actors.client.client import Stack
from airside.client import Client
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.errors import Misuse
from airside.stack.operations import questions as q
from airside.stack.operations.overview import RunDetail, RunSummary
from airside.stack.policy.kill_switches import KillSwitchChanged
from tests.agui_verifier import verify
from tests.apps.notes import LIMITS, PEOPLE, create_app
from tests.on_ray import AIRSIDE, BOUND_S, ROOT, ledger_of, until

pytestmark = pytest.mark.ray
GUIDE = (ROOT / "docs" / "guide" / "http-api.md").read_text("utf-8")
MORE = {"olga": Principal(roles=["operator"]), "audra": Principal(roles=["auditor"])}
TENANT = Tenant(principals=PEOPLE | MORE, limits=LIMITS, concurrency=8)
PAY = {"actions": [{"tool": "pay", "args": {"to": "ben", "amount": 5}}]}


class Api:
    """A stack, a server before it, and who asks it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stack = self._started()
        people = [("ana", "acme"), ("lea", "acme"), ("olga", "acme"), ("audra", "acme"), ("olga", "beta")]
        self.tokens = {f"{who}@{tenant}": self.stack.token(tenant, who) for who, tenant in people}
        self._hide_keys()
        log = folder / "server.log"
        command = [AIRSIDE, "serve", "--port", "0", "--state-dir", str(folder)]
        with log.open("w") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=file, stdout=file)
        found = until(lambda: re.search(r"serving on (http://[0-9.:]+)/v1", log.read_text()), "the server")
        assert found is not None
        self.url = found[1]

    def _started(self) -> Stack:
        tenants = {"acme": TENANT, "beta": TENANT}
        app = dataclasses.replace(create_app(self._folder), directory=Directory(tenants=tenants))
        return airside.start(app, stack="api", state_dir=self._folder, executors=1, mode="pooled")

    def _hide_keys(self) -> None:
        """Put the stack's keys where the server does not look: it has to do without."""
        (self._folder / "keys").rename(self._folder / "hidden")

    def restart(self) -> None:
        """Shut the stack down, and start it with what it left."""
        (self._folder / "hidden").rename(self._folder / "keys")
        self.stack.shutdown()
        self.stack = self._started()
        self._hide_keys()

    def ask(self, who: str, method: str, path: str, **more: Any) -> httpx2.Response:
        """Send a request of somebody's; of nobody, without a credential."""
        headers = {"authorization": f"Bearer {self.tokens[who]}"} if who else {}
        return httpx2.request(method, f"{self.url}{path}", headers=headers, timeout=BOUND_S, **more)

    def get(self, who: str, path: str, kind: Any) -> Any:
        """Return the answer to a question as its type, of which it has every field."""
        answer = self.ask(who, "GET", path)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=kind)

    def submit(self, **body: Any) -> str:
        """Submit a run of ana's."""
        answer = self.ask("ana@acme", "POST", "/v1/runs", json={"request": "do it", **body})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])


@pytest.fixture(scope="module")
def api(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server before a stack."""
    made = Api(tmp_path_factory.mktemp("api"))
    yield made
    made.process.kill()
    made.process.wait(BOUND_S)
    with contextlib.suppress(Misuse):
        made.stack.shutdown()


def test_the_guides_session_does_what_it_says(api: Api) -> None:
    """Each command as it stands there: ana asks, lea approves, the stream ends with the run, olga sets a switch."""
    env = {name.partition("@")[0].upper(): token for name, token in api.tokens.items() if name.endswith("@acme")}
    env |= {"API": api.url, "PATH": os.environ["PATH"]}

    def said(line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line], env=env, capture_output=True, text=True, timeout=BOUND_S, check=True
        )
        return "" if '"items":[]' in done.stdout else done.stdout  # what waits for people is there in a moment

    found: dict[str, str] = {}
    for line in re.findall(r"^\$ (curl .+)$", GUIDE, re.MULTILINE):
        path = line.partition("$API")[2].strip('"').partition("?")[0]
        found[path] = until(lambda line=line: said(line), line)  # type: ignore[misc]
        if path == "/v1/runs":
            env["RUN"] = json.loads(found[path])["run_id"]
        if path == "/v1/approvals":
            env["APPROVAL"] = json.loads(found[path])["items"][0]["approval_id"]
    assert json.loads(found["/v1/approvals/$APPROVAL/approve"])["outcome"] == "approved"
    numbers = re.findall(r"^id: (\d+)$", found["/v1/runs/$RUN/events"], re.MULTILINE)
    assert (
        numbers == [str(number + 1) for number in range(len(numbers))] and '"RunEnded"' in found["/v1/runs/$RUN/events"]
    )
    result = msgspec.json.decode(found["/v1/runs/$RUN/result"], type=RunResult)
    assert result.status == "completed" and len(ledger_of(api.stack).rows()) == 1
    assert "approved by lea" in msgspec.json.decode(found["/v1/runs/$RUN/story"], type=Story).text
    assert json.loads(found["/v1/switches"])["reached"] >= 0
    agui = [json.loads(data) for data in re.findall(r"^data: (.+)$", found["/v1/agui"], re.MULTILINE)]
    assert verify(agui).over and agui[-1]["metadata"]["airside"]["status"] == "completed"
    switches = api.get("olga@acme", "/v1/switches", Listing[KillSwitchChanged]).items
    assert [(each.target, each.by) for each in switches] == [("acme/bob", "olga@acme")]


def test_a_key_is_one_run_and_another_body_is_refused(api: Api) -> None:
    """With an app that reads inputs, too."""
    body, key = {"request": "pay", "inputs": PAY}, {"idempotency-key": "k-1"}
    headers = key | {"authorization": f"Bearer {api.tokens['ana@acme']}"}
    first, again = [httpx2.post(f"{api.url}/v1/runs", json=body, headers=headers) for _ in range(2)]
    other = httpx2.post(f"{api.url}/v1/runs", json=body | {"request": "pay twice"}, headers=headers)
    assert first.status_code == again.status_code == 202 and first.json() == again.json()
    assert other.status_code == 409 and other.json()["reason_code"] == "idempotency_conflict"
    wrong = httpx2.post(f"{api.url}/v1/runs", json={"request": "x", "inputs": {"surplus": 1}}, headers=key | headers)
    assert wrong.status_code == 422 and "surplus" in wrong.text


def test_an_operator_kills_and_reads_what_is_the_tenants(api: Api) -> None:
    """And another tenant's finds that there is no such run; whoever asked for it may not kill it."""
    run = api.submit(route="sleeper")
    until(lambda: api.get("ana@acme", f"/v1/runs/{run}", RunDetail).run.phase == "deciding", "the run to begin")
    assert api.ask("ana@acme", "POST", f"/v1/runs/{run}/kill").status_code == 403
    for who, path in (("olga@beta", f"/v1/runs/{run}"), ("olga@beta", f"/v1/runs/{run}/events")):
        assert api.ask(who, "GET", path).status_code == 404
    assert api.ask("olga@beta", "POST", f"/v1/runs/{run}/kill").json()["reason_code"] == "unknown"
    assert api.ask("olga@acme", "POST", f"/v1/runs/{run}/kill", json={"why": "sleeps"}).json() == {"reached": 1}
    result = api.get("ana@acme", f"/v1/runs/{run}/result?wait_s=30", RunResult)
    assert (result.status, result.reason_code) == ("killed", "killed_by_operator")
    with Client(api.url, api.tokens["ana@acme"]) as client:
        assert [each.data["type"] for each in client.watch(run)][-1] == "RunEnded" and client.me().tenant == "acme"
    listed = api.get("olga@acme", "/v1/runs?status=killed", Listing[RunSummary])
    assert [each.run_id for each in listed.items] == [run] and not api.get("olga@beta", "/v1/runs", q.Page).items
    page = api.get("ana@acme", f"/v1/runs/{run}/history?limit=2", q.EventsPage)
    assert len(page.events) == 2 and not page.ended


def test_auditors_and_operators_read_as_the_document_says(api: Api) -> None:
    """Every view that needs nothing, as the type that the document has for it."""
    sql = api.ask("audra@acme", "POST", "/v1/audit/sql", json={"sql": "SELECT DISTINCT tenant FROM events"})
    assert sql.status_code == 200 and msgspec.json.decode(sql.content, type=Table).rows == [["acme"]]
    assert api.ask("olga@acme", "POST", "/v1/audit/sql", json={"sql": "SELECT 1"}).status_code == 403
    queries = api.get("audra@acme", "/v1/audit/queries", Listing[q.AuditQuery]).items
    for each in queries:
        answer = api.ask("audra@acme", "POST", f"/v1/audit/queries/{each.name}", json={})
        assert answer.status_code in (200, 422), answer.text  # some have parameters
    assert api.ask("audra@acme", "GET", "/v1/audit/entries").json()["entries"][0]["event"]["type"] == "RunSubmitted"
    for path, kind in (
        ("/v1/approvals", Listing[ApprovalStanding]),
        ("/v1/budgets", Listing[q.BudgetLine]),
        ("/v1/in-doubt", Listing[Any]),
        ("/v1/in-doubt/spend", Listing[Any]),
        ("/v1/batches", Listing[Any]),
        ("/v1/health", Listing[q.LayerHealth]),
    ):
        api.get("olga@acme", path, kind)
    assert 'airside_layer_up{layer="driver"} 1' in api.ask("olga@acme", "GET", "/v1/metrics").text
    assert api.ask("olga@acme", "POST", "/v1/batches/none/pause").status_code == 404


def test_the_server_finds_the_stack_that_was_started_anew(api: Api) -> None:
    """It says that there is none meanwhile, and needs no keys for that either."""
    run = api.submit(inputs=PAY)
    assert api.ask("", "GET", "/v1/health/ready").status_code == 200
    api.restart()
    assert until(lambda: api.ask("", "GET", "/v1/health/ready").status_code == 200, "the stack to be found")
    detail = api.get("ana@acme", f"/v1/runs/{run}", RunDetail)
    assert detail.run.run_id == run


# The console, which the same server has.


class Pages:
    """Somebody's browser before the console."""

    def __init__(self, api: Api, who: str) -> None:
        self._client = httpx2.Client(base_url=api.url, headers={"origin": api.url}, timeout=BOUND_S)
        reply = self._client.post("/console/login", data={"credential": api.tokens[who]})
        assert reply.status_code == 303, reply.text

    def get(self, path: str, status: int = 200) -> str:
        """Return a page."""
        reply = self._client.get(f"/console{path}")
        assert reply.status_code == status, reply.text
        return reply.text

    def send(self, page: str, path: str, **fields: Any) -> str:
        """Send a form of a page, and return the page that this leads to."""
        token = re.search(r'name="csrf" value="([^"]+)"', page)
        assert token is not None
        reply = self._client.post(f"/console{path}", data={"csrf": token[1], **fields})
        if reply.status_code != 303:
            assert reply.status_code == 200, reply.text
            return reply.text
        return self.get(reply.headers["location"].removeprefix("/console"))


def waiting_in(pages: Pages, run_id: str) -> list[str]:
    """Return the approvals of a run that an inbox has."""
    return re.findall(rf'name="approval" value="(apr_{run_id}_[^"]+)"', pages.get("/approvals"))


def test_people_see_and_decide_by_the_console_of_the_same_server(api: Api) -> None:
    """Lea edits a call and approves another, olga kills, audra asks; of another tenant's runs there is nothing."""
    run_id, other = api.submit(inputs=PAY), api.submit(inputs=PAY)
    lea, olga, audra, beta = (Pages(api, who) for who in ("lea@acme", "olga@acme", "audra@acme", "olga@beta"))
    (mine,) = until(lambda: waiting_in(lea, run_id), "the call")
    page = lea.get(f"/approvals/{mine}")
    assert "Call pay" in page and "amount = 5" in page
    form = lea.get(f"/approvals/{mine}/edit")
    changed = lea.send(form, f"/approvals/{mine}/edit", **{"set:to": "1", "value:to": "ben", "value:amount": "4"})
    assert "<del>5</del>" in changed and "<ins>4</ins>" in changed
    said = lea.send(page, f"/approvals/{mine}/vote", verdict="approve", note="seen")
    assert "You have approved this" in said
    olga.get("/now")
    for path in ("/approvals", "/runs", f"/runs/{run_id}", "/batches", "/tenants", "/policy", "/switches", "/in-doubt"):
        olga.get(path)
    until(lambda: "completed" in olga.get(f"/runs/{run_id}"), "the run's end")
    page = olga.get(f"/orders?order=kill_run&target={other}")
    assert "1 run is killed" in olga.send(page, "/orders", order="kill_run", target=other, why="not needed")
    assert "olga@acme" in olga.get(f"/runs/{other}") and "not needed" in olga.get(f"/runs/{other}")
    page = audra.get("/audit")
    assert run_id in audra.send(page, "/audit", kind="query", query="votes")
    assert run_id in audra.get(f"/audit/entries?text={run_id}")
    assert "are being checked" in audra.send(page, "/audit/chain")
    until(lambda: "whole" in audra.get("/audit"), "the chains to be checked")
    beta.get(f"/runs/{run_id}", 404)
    beta.get(f"/approvals/{mine}", 404)
    assert run_id not in beta.get("/runs")
