"""A client for threads: what `Stack` does, by HTTP and a credential."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self, TypeVar

import httpx2
import msgspec

from airside.actors.api.messages import ApprovalStanding, Listing, RunAccepted, RunResult, Table
from airside.actors.client.run_timeout import RunTimeout
from airside.http_client import requests
from airside.http_client.errors import error_of
from airside.http_client.requests import HttpRequest, Reply
from airside.http_client.streams import MOST_RETRIES, RETRY_S, EventLines, RunNews
from airside.stack.errors import LayerUnavailable
from airside.stack.operations.overview import RunDetail, RunSummary
from airside.stack.operations.questions import BudgetLine, WhoAsks
from airside.stack.policy.kill_switches import KillSwitchChanged, SwitchScope
from airside.stack.recovery.in_doubt import InDoubtCall
from airside.stack.recovery.rollback import RollbackReport

PATIENCE_S = 90.0
"""How long a request may take: longer than a result is waited for at once."""

WAIT_S = 30.0
"""How long a result is waited for in one request: shorter than what proxies give up after."""

Item = TypeVar("Item")


class Client:
    """A stack behind `url`, as whoever holds `token`.  Raises `AuthRefused`, `AdmissionRefused`, `Refused`,
    `InvalidInput`, and `LayerUnavailable` where nothing answers, which may be tried again.

    Its methods are those of `Stack`, where the API has them.  Close it, or use it in a `with`.
    """

    def __init__(self, url: str, token: str, *, transport: httpx2.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=PATIENCE_S, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def submit(self, request: str, *, key: str = "", **fields: Any) -> RunAccepted:
        """Submit a job and return its run; with the same `key` it is the same run, whoever sends it again.

        `fields` are `route`, `inputs`, `labels`, `limits`, `job_id`, `lane`.
        """
        return self._reply(requests.submit(request, key or secrets.token_hex(16), fields))

    def runs(self, **filters: Any) -> Listing[RunSummary]:
        """Return a page of runs, newest first, of a `tenant`, `principal`, `status`, `reason`, `batch`, or `since`."""
        return self._reply(requests.runs(filters))

    def inspect(self, run: str) -> RunDetail:
        """Return one run with each of its steps and waits."""
        return self._reply(requests.inspect(run))

    def story(self, run: str) -> str:
        """Return a run as lines of text."""
        return self._reply(requests.story(run)).text

    def cancel(self, run: str, why: str = "") -> int:
        """Withdraw a run; return how many were."""
        return self._reply(requests.end("cancel", run, why)).reached

    def kill(self, run: str, *, why: str = "") -> int:
        """End a run, whatever it is doing; return how many were."""
        return self._reply(requests.end("kill", run, why)).reached

    def rollback(self, run: str, *, why: str = "") -> RollbackReport:
        """Take back what an ended run did, latest first."""
        return self._reply(requests.rollback(run, why))

    def approvals(self, *, tenant: str = "", limit: int = 100, cursor: str = "") -> Listing[ApprovalStanding]:
        """Return a page of what waits for people, oldest first."""
        return self._reply(requests.approvals(tenant, limit, cursor))

    def approve(self, approval: str, *, note: str = "") -> str:
        """Approve a call; return the outcome, empty while more votes are needed."""
        return self._reply(requests.vote(approval, "approve", note, {})).outcome

    def reject(self, approval: str, *, note: str = "") -> str:
        """Reject a call; as `approve`."""
        return self._reply(requests.vote(approval, "reject", note, {})).outcome

    def approve_all(self, approvals: Sequence[str], *, note: str = "") -> list[str]:
        """Approve several calls, all or none; return the outcome of each.

        Raises `VotesRefused`, whose `refused` say on which the vote would not have counted: it counts on none.
        """
        counted = self._reply(requests.vote_on_all(approvals, "approve", note))
        return [each.outcome for each in counted.votes]

    def reject_all(self, approvals: Sequence[str], *, note: str = "") -> list[str]:
        """Reject several calls, all or none; as `approve_all`."""
        counted = self._reply(requests.vote_on_all(approvals, "reject", note))
        return [each.outcome for each in counted.votes]

    def edit(self, approval: str, arguments: dict[str, Any], *, note: str = "") -> str:
        """Approve a call with other arguments; as `approve`."""
        return self._reply(requests.vote(approval, "edit", note, {"arguments": arguments})).outcome

    def answer(self, approval: str, answer: str, *, note: str = "") -> str:
        """Answer a question; as `approve`."""
        return self._reply(requests.vote(approval, "answer", note, {"answer": answer})).outcome

    def switch_off(self, scope: SwitchScope, target: str = "", *, for_s: float = 0.0, why: str = "") -> int:
        """Set a kill switch, for some seconds or until `switch_on`."""
        return self._reply(requests.switch(scope, target, off=True, for_s=for_s, why=why)).reached

    def switch_on(self, scope: SwitchScope, target: str = "", *, why: str = "") -> int:
        """Take a kill switch back."""
        return self._reply(requests.switch(scope, target, off=False, for_s=0.0, why=why)).reached

    def switches(self) -> list[KillSwitchChanged]:
        """Return what is switched off, oldest first."""
        return self._all(requests.switches)

    def budgets(self, tenant: str = "") -> list[BudgetLine]:
        """Return budgets: limits, beside what is reserved, spent and in doubt."""
        return self._reply(requests.budgets(tenant)).items

    def in_doubt(self, tenant: str = "") -> list[InDoubtCall]:
        """Return the calls of which nobody knows whether they happened, oldest first."""
        return self._all(partial(requests.in_doubt, tenant))

    def resolve(self, target: str, *, happened: bool, output: Any = None, why: str = "") -> int:
        """Say what became of a call in doubt, by its run or its key."""
        return self._reply(requests.resolve(target, happened=happened, output=output, why=why)).reached

    def pin(self, record: str, *, tenant: str, pinned: bool = True) -> None:
        """Let a record of memory stay for ever, or a pinned one end as its kind does from now; a keeper may."""
        self._reply(requests.pin(record, tenant, pinned=pinned))

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Table:
        """Answer one SELECT over what is the auditor's of `events`, `runs` and `outcomes`."""
        return self._reply(requests.query(sql, parameters))

    def me(self) -> WhoAsks:
        """Say who holds the token, and what that one may."""
        return self._reply(requests.me())

    def result(self, run: str, *, timeout: float | None = None) -> RunResult:
        """Wait until a run has ended, and return how.

        Raises `RunTimeout` (a `TimeoutError`) after `timeout` seconds, which says at which phase the run is.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = WAIT_S if until is None else max(0.0, until - time.monotonic())
            found = self._reply(requests.result(run, min(WAIT_S, left)))
            if found.status != "active":
                return found
            if left <= 0:
                raise RunTimeout(found.run_id, timeout or 0.0, found.phase)

    def watch(self, run: str) -> Iterator[RunNews]:
        """Yield what happens in a run until it has ended, over broken connections, no event twice."""
        lines, broken = EventLines(), 0
        while not lines.is_over and broken <= MOST_RETRIES:
            before = lines.seen
            asked = requests.watch(run, lines.seen)
            lines.begin()
            try:
                with self._http.stream("GET", asked.path, headers=dict(asked.headers)) as response:
                    if response.status_code == 204:
                        return
                    if response.status_code != 200:
                        raise error_of(response.status_code, response.read(), response.headers)
                    for line in response.iter_lines():
                        if (news := lines.take(line)) is not None:
                            yield news
            except (httpx2.TransportError, LayerUnavailable) as error:
                if broken == MOST_RETRIES:
                    raise LayerUnavailable(f"{run}: {error}") from None
            broken = 0 if lines.seen > before else broken + 1
            if broken:
                time.sleep(RETRY_S)

    def _all(self, page: Callable[[str], HttpRequest[Listing[Item]]]) -> list[Item]:
        found: list[Item] = []
        cursor = ""
        while True:
            listed = self._reply(page(cursor))
            found += listed.items
            cursor = listed.next
            if not cursor:
                return found

    def _reply(self, asked: HttpRequest[Reply]) -> Reply:
        content = None if asked.body is None else msgspec.json.encode(asked.body)
        headers = dict(asked.headers) | ({} if content is None else {"Content-Type": "application/json"})
        try:
            response = self._http.request(
                asked.method, asked.path, params=dict(asked.query), content=content, headers=headers
            )
        except httpx2.TransportError as error:
            raise LayerUnavailable(f"{self._http.base_url}: {error}") from None
        if response.status_code >= 300:
            raise error_of(response.status_code, response.content, response.headers)
        return msgspec.json.decode(response.content, type=asked.reply)
