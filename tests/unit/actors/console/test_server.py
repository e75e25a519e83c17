"""Who may speak to the console, as whom, and what every response says to a browser."""

from __future__ import annotations

import asyncio
import hashlib
import html
import re
from importlib.resources import files
from typing import Any

import pytest
from starlette.responses import Response

from airside.actors.console.news import MAX_STREAMS
from airside.actors.console.server import COOKIE, MAX_OF_SESSION, Console, with_console
from airside.actors.console.sessions import FAILED_LOGINS, FAILED_WITHIN_S, IDLE_S, LONGEST_S
from airside.actors.console.vendored import VENDORED, static_files
from tests.unit.actors.console.double import DENIED_RUN, RUN, WAITING_RUN, ConsoleStack, approval_id
from tests.unit.actors.console.pages import BASE, LIVE, PATHS, Browser, Checked, field_of

GETS = [*PATHS, "/login", "/nope", f"/runs/{'x' * 300}"]
POSTS = (
    f"/approvals/{approval_id(1)}/vote",
    f"/approvals/{approval_id(2)}/edit",
    "/approvals/together",
    "/orders",
    "/audit",
    "/logout",
)


@pytest.fixture
def stack() -> ConsoleStack:
    """Return a stack."""
    return ConsoleStack()


@pytest.mark.parametrize("path", GETS)
async def test_every_page_is_well_formed_and_loads_nothing_but_ours(stack: ConsoleStack, path: str) -> None:
    """And a browser is told so."""
    browser = await Browser(stack).log_in()
    reply = await browser.get(path)
    assert reply.status_code in (200, 400, 404)
    Checked(reply.text)
    policy = reply.headers["content-security-policy"]
    nonce = re.search(r"'nonce-([\w-]+)'", policy)
    assert nonce and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert set(re.findall(r'nonce="([^"]*)"', reply.text)) <= {nonce[1]}
    assert reply.headers["x-content-type-options"] == "nosniff" and reply.headers["cache-control"] == "no-store"
    assert reply.headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("path", GETS)
async def test_the_credential_is_in_no_page(stack: ConsoleStack, path: str) -> None:
    """Nor the session's id; a page has the token of its forms alone."""
    browser = await Browser(stack).log_in("hugo")
    reply = await browser.get(path)
    text = re.sub(r'<span class="me">hugo', "", reply.text)
    assert "hugo" not in text.replace("hugo@house", "") and browser.session_id not in text


async def test_two_pages_have_two_nonces(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in()
    one, other = await browser.get("/now"), await browser.get("/now")
    assert one.headers["content-security-policy"] != other.headers["content-security-policy"]


@pytest.mark.parametrize("path", [*PATHS, "/nope"])
async def test_who_is_not_logged_in_is_led_there_and_back(stack: ConsoleStack, path: str) -> None:
    browser = Browser(stack)
    reply = await browser.get(path)
    assert (reply.status_code, stack.looked) == (303, [])
    assert reply.headers["location"] == f"/console/login?next=/console{path.partition('?')[0]}"
    page = await browser.client.get(reply.headers["location"])
    assert field_of(page.text, "next") == f"/console{path.partition('?')[0]}"


@pytest.mark.parametrize(
    "then",
    ["//evil.example", "https://evil.example/console/", "/console/\\evil", "/console/../x?y", "javascript:x", "/v1"],
)
async def test_a_login_leads_nowhere_but_to_the_console(stack: ConsoleStack, then: str) -> None:
    browser = Browser(stack)
    reply = await browser.client.post("/console/login", data={"credential": "max", "next": then})
    assert (reply.status_code, reply.headers["location"]) == (303, "/console/now")
    assert then not in (await browser.client.get("/console/login", params={"next": then})).text


async def test_a_cookie_is_for_no_script_and_no_other_site(stack: ConsoleStack) -> None:
    """And over TLS for no connection without."""
    browser = Browser(stack)
    reply = await browser.client.post("/console/login", data={"credential": "max"})
    said = {part.strip().lower() for part in reply.headers["set-cookie"].split(";")[1:]}
    assert said == {"httponly", "path=/console", "samesite=strict"}
    secure = await browser.client.post(
        "https://127.0.0.1:8080/console/login", data={"credential": "max"}, headers={"origin": "https://127.0.0.1:8080"}
    )
    said = secure.headers["set-cookie"].lower()
    assert said.startswith("__host-") and "secure" in said and "path=/;" in said and "domain" not in said
    tossed = {"cookie": f"{COOKIE}={browser.session_id}"}
    page = await Browser(stack).client.get("https://127.0.0.1:8080/console/now", headers=tossed)
    assert page.status_code == 303, "what a neighbour of the domain could set is no session over TLS"


async def test_each_login_is_a_session_of_its_own(stack: ConsoleStack) -> None:
    """An id that a browser brought is never one that is logged in from then on."""
    browser = await Browser(stack).log_in()
    before = browser.session_id
    await browser.log_in()
    assert browser.session_id != before
    other = Browser(stack, browser.app)
    other.client.cookies.set(COOKIE, before)
    assert (await other.get("/now")).status_code == 303


@pytest.mark.parametrize(
    ("credential", "status", "says"),
    [("nobody", 401, "holds this API key"), ("", 422, "Give the token"), ("x" * 20_000, 422, "Give the token")],
)
async def test_who_has_no_credential_is_told_so(stack: ConsoleStack, credential: str, status: int, says: str) -> None:
    reply = await Browser(stack).client.post("/console/login", data={"credential": credential})
    assert reply.status_code == status and says in reply.text and "set-cookie" not in reply.headers
    assert not credential or credential not in reply.text


async def test_a_token_that_is_good_for_nothing_here_is_no_failed_guess(stack: ConsoleStack) -> None:
    browser = Browser(stack)
    for _ in range(FAILED_LOGINS + 1):
        reply = await browser.client.post("/console/login", data={"credential": "nothing"})
        assert reply.status_code == 403 and "scope" in reply.text


async def test_failed_logins_are_bounded(stack: ConsoleStack) -> None:
    """Of an address; then nobody there is asked for, until time has passed."""
    browser = Browser(stack)
    for _ in range(FAILED_LOGINS):
        assert (await browser.client.post("/console/login", data={"credential": "no"})).status_code == 401
    asked = len(stack.looked)
    reply = await browser.client.post("/console/login", data={"credential": "max"})
    assert reply.status_code == 429 and "try again in" in reply.text and len(stack.looked) == asked
    browser.clock.now_s += FAILED_WITHIN_S
    assert (await browser.client.post("/console/login", data={"credential": "max"})).status_code == 303


async def test_logins_while_the_stack_is_away_are_no_failed_ones(stack: ConsoleStack) -> None:
    browser = Browser(stack)
    stack.is_up = False
    for _ in range(FAILED_LOGINS + 1):
        assert (await browser.client.post("/console/login", data={"credential": "max"})).status_code == 503
    stack.is_up = True
    assert (await browser.client.post("/console/login", data={"credential": "max"})).status_code == 303


@pytest.mark.parametrize("age", ["idle", "absolute"])
async def test_a_session_ends(stack: ConsoleStack, age: str) -> None:
    """When it was not used for a while, and after some hours in any case; and is led to the login with why."""
    browser = await Browser(stack).log_in()
    if age == "idle":
        browser.clock.now_s += IDLE_S / 2
    for _ in range(int(LONGEST_S / (IDLE_S / 2)) - 1 if age == "absolute" else 0):
        browser.clock.now_s += IDLE_S / 2
        assert (await browser.get("/tenants")).status_code == 200
    browser.clock.now_s += IDLE_S / 2
    reply = await browser.get("/tenants")
    assert reply.headers["location"] == "/console/login?because=session_over&next=/console/tenants"
    assert "Your session is over" in (await browser.client.get(reply.headers["location"])).text


async def test_a_page_that_is_only_open_uses_no_session(stack: ConsoleStack) -> None:
    """What it asks for by itself is answered, until the session is over; then it leads to the login."""
    browser = await Browser(stack).log_in()
    browser.clock.now_s += IDLE_S - 1
    assert (await browser.part("/now")).status_code == 200
    browser.clock.now_s += 1
    reply = await browser.part("/now")
    assert reply.status_code == 200 and reply.headers["hx-redirect"].startswith("/console/login?because=session_over")
    assert reply.text == ""


@pytest.mark.parametrize("code", ["auth_expired", "auth_unknown_key", "principal_unknown"])
@pytest.mark.parametrize("path", PATHS)
async def test_a_credential_that_is_none_any_more_ends_its_session(stack: ConsoleStack, path: str, code: str) -> None:
    """Whatever page is asked for, with a clear sentence."""
    browser = await Browser(stack).log_in()
    stack.revoked["max"] = code
    reply = await browser.get(path)
    if reply.status_code == 200:
        assert "/orders" in path and "switch_off" in path  # a page that asks the stack nothing
        return
    assert reply.status_code == 303 and f"because={code}" in reply.headers["location"]
    page = await browser.client.get(reply.headers["location"])
    assert "Log in again." in page.text
    stack.revoked.clear()
    assert (await browser.get("/now")).headers["location"].startswith("/console/login")


@pytest.mark.parametrize("path", POSTS)
async def test_a_vote_or_order_with_a_revoked_credential_ends_the_session_too(stack: ConsoleStack, path: str) -> None:
    browser = await Browser(stack).log_in()
    stack.revoked["max"] = "auth_expired"
    data = {
        "order": "kill_run",
        "target": RUN,
        "why": "x",
        "verdict": "approve",
        "approval": approval_id(1),
        "kind": "sql",
    }
    reply = await browser.post(path, **data)
    assert reply.status_code == 303 and reply.headers["location"].startswith("/console/login")
    assert (stack.votes, stack.orders) == ([], [])


async def test_logging_out_ends_it(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in()
    session_id = browser.session_id
    reply = await browser.post("/logout")
    assert reply.headers["location"] == "/console/login?because=logged_out"
    other = Browser(stack, browser.app)
    other.client.cookies.set(COOKIE, session_id)
    assert (await other.get("/now")).status_code == 303
    assert (await (await browser.log_in()).get("/logout")).status_code == 405


# Forms.


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("csrf", [None, "", "wrong", "\u00e9", "other"])
async def test_a_form_without_its_sessions_token_does_nothing(stack: ConsoleStack, path: str, csrf: str | None) -> None:
    browser = await Browser(stack).log_in()
    if csrf == "other":
        csrf = (await Browser(stack, browser.app).log_in("hugo")).csrf
    data = {"order": "kill_run", "target": RUN, "why": "x", "verdict": "approve", "approval": approval_id(1)}
    reply = await browser.client.post(f"/console{path}", data=data | ({} if csrf is None else {"csrf": csrf}))
    assert reply.status_code == 403 and "of another session" in reply.text
    assert (stack.votes, stack.orders) == ([], [])
    assert (await browser.get("/now")).status_code == 200


@pytest.mark.parametrize("path", [*POSTS, "/login"])
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "http://127.0.0.1:8080.evil.example",
        "file://127.0.0.1:8080",
        "x",
    ],
)
async def test_a_form_of_another_page_does_nothing(stack: ConsoleStack, path: str, origin: str) -> None:
    browser = await Browser(stack).log_in()
    data = {"csrf": browser.csrf, "order": "kill_run", "target": RUN, "why": "x", "verdict": "approve"}
    reply = await browser.client.post(f"/console{path}", data=data | {"credential": "hugo"}, headers={"origin": origin})
    assert reply.status_code == 403 and "set-cookie" not in reply.headers
    assert (stack.votes, stack.orders) == ([], [])


async def test_over_tls_a_form_of_a_page_in_clear_does_nothing(stack: ConsoleStack) -> None:
    secure, data = BASE.replace("http:", "https:"), {"credential": "max"}
    for origin, status in ((BASE, 403), (secure, 303)):
        reply = await Browser(stack).client.post(f"{secure}/console/login", data=data, headers={"origin": origin})
        assert reply.status_code == status


async def test_a_session_has_only_so_many_requests_at_once(stack: ConsoleStack) -> None:
    """Who opens a hundred windows waits; others do not."""
    browser = await Browser(stack).log_in()
    gate, full, ask, waiting = asyncio.Event(), asyncio.Event(), stack.ask, list[Any]()

    async def slow(method: Any, request: Any) -> Any:
        waiting.append(request)
        if len(waiting) == MAX_OF_SESSION:
            full.set()
        await gate.wait()
        return await ask(method, request)

    stack.ask = slow  # type: ignore[method-assign]
    under_way = [asyncio.create_task(browser.get("/now")) for _ in range(MAX_OF_SESSION)]
    await full.wait()
    assert (await browser.get("/now")).status_code == 429
    gate.set()
    assert {(await each).status_code for each in under_way} == {200}
    assert (await browser.get("/now")).status_code == 200


@pytest.mark.parametrize(("site", "status"), [("same-origin", 303), ("cross-site", 403), ("", 403)])
async def test_a_browser_that_says_no_origin_says_whose_page_it_is(stack: ConsoleStack, site: str, status: int) -> None:
    browser = await Browser(stack).log_in()
    del browser.client.headers["origin"]
    given = {"sec-fetch-site": site} if site else {}
    reply = await browser.client.post("/console/login", data={"credential": "max"}, headers=given)
    assert reply.status_code == status


async def test_a_link_from_another_site_finds_whoever_is_logged_in(stack: ConsoleStack) -> None:
    """Its request has no cookie; the page that it gets leads on, by which there is one."""
    browser = await Browser(stack).log_in()
    cookies = dict(browser.client.cookies)
    browser.client.cookies.clear()
    reply = await browser.get(f"/approvals/{approval_id(1)}", **{"Sec-Fetch-Site": "cross-site"})
    assert reply.status_code == 200 and 'http-equiv="refresh" content="0"' in reply.text
    browser.client.cookies.update(cookies)
    assert (await browser.get(f"/approvals/{approval_id(1)}")).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
async def test_it_answers_by_its_own_names_alone(stack: ConsoleStack, host: str) -> None:
    reply = await Browser(stack).client.get("/console/login", headers={"host": host})
    assert reply.status_code == 421
    Checked(reply.text)


async def test_it_answers_by_a_name_that_it_was_given(stack: ConsoleStack) -> None:
    reply = await Browser(stack).client.get("/console/login", headers={"host": "console.example.com:8080"})
    assert reply.status_code == 200


@pytest.mark.parametrize("media", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
async def test_a_form_is_a_form(stack: ConsoleStack, media: str) -> None:
    browser = await Browser(stack).log_in()
    reply = await browser.client.post("/console/orders", content=b"a=b", headers={"content-type": media})
    assert reply.status_code == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"a=" + b"x" * 8_000_000, 413),
        (b"a=%ff", 400),
        (b"\xff=1", 400),
        (b"&".join(b"a=1" for _ in range(2_000)), 400),
    ],
)
async def test_what_is_no_form_is_refused(stack: ConsoleStack, body: bytes, status: int) -> None:
    browser = await Browser(stack).log_in()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert (await browser.client.post("/console/orders", content=body, headers=headers)).status_code == status


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_other_methods_are_none(stack: ConsoleStack, method: str) -> None:
    browser = await Browser(stack).log_in()
    assert (await browser.client.request(method, "/console/now")).status_code == 405
    assert (await browser.client.post("/console/now", data={"csrf": browser.csrf})).status_code == 405


# What belongs to others, and what does not answer.

OTHERS = (
    f"/runs/{RUN}",
    f"/approvals/{approval_id(1)}",
    f"/approvals/{approval_id(2)}/edit",
    "/batches/nightly",
    f"/orders?order=kill_run&target={RUN}",
    "/orders?order=pause_batch&target=nightly",
)


ABSENT = {RUN: f"run_{'e' * 24}", WAITING_RUN: f"run_{'f' * 24}", "nightly": "weekly"}
"""Names of what there is, and for each one of what there is not."""


@pytest.mark.parametrize("path", OTHERS)
async def test_what_is_another_tenants_is_as_if_it_were_not(stack: ConsoleStack, path: str) -> None:
    """The page says the same of it and of what there is not."""
    browser = await Browser(stack).log_in("gil")
    theirs = await browser.get(path)
    absent = path
    for own, other in ABSENT.items():
        absent = absent.replace(own, other)
    none = await browser.get(absent)
    assert (theirs.status_code, none.status_code) == (404, 404)
    said = _said(none.text)
    for own, other in ABSENT.items():
        said = said.replace(other, own)
    assert _said(theirs.text) == said


def _said(page: str) -> str:
    return page.partition("<main")[2].partition("</main>")[0]


@pytest.mark.parametrize(
    ("who", "path"),
    [
        ("ann", "/tenants"),
        ("ann", "/batches"),
        ("ann", "/in-doubt"),
        ("ann", "/switches"),
        ("lea", "/audit"),
        ("olga", "/audit"),
        ("reader", "/approvals"),
    ],
)
async def test_who_may_not_is_told_so(stack: ConsoleStack, who: str, path: str) -> None:
    """And the page stands in no menu of theirs."""
    browser = await Browser(stack).log_in(who)
    reply = await browser.get(path)
    assert reply.status_code == 403 and "You may not do this" in reply.text
    assert f'href="/console{path}"' not in (await browser.get("/now")).text


@pytest.mark.parametrize("who", ["ann", "lea", "olga", "audra", "max", "hugo", "reader", "gil"])
async def test_everybody_has_a_first_page_of_what_they_may_see(stack: ConsoleStack, who: str) -> None:
    browser = await Browser(stack).log_in(who)
    reply = await browser.get("/now")
    assert reply.status_code == 200
    assert ("layers up" in reply.text) == (who in ("olga", "max", "hugo", "gil"))
    for path in re.findall(r'<a href="/console(/[a-z-]+)"', reply.text.partition("</nav>")[0]):
        assert (await browser.get(path)).status_code == 200


async def test_a_menu_leads_to_no_order_that_its_reader_may_not_give(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in("audra")
    for path in (f"/runs/{WAITING_RUN}", "/batches/nightly", "/switches", "/in-doubt"):
        reply = await browser.get(path)
        assert reply.status_code == 200 and "/console/orders" not in reply.text
    assert "do not have the role" in (await browser.get(f"/orders?order=kill_run&target={RUN}")).text
    reply = await browser.post("/orders", order="kill_run", target=RUN, why="x")
    assert (reply.status_code, stack.orders) == (403, [])


@pytest.mark.parametrize("path", [each for each in PATHS if each != "/orders?order=switch_off"])
async def test_a_stack_that_does_not_answer_is_said_not_to(stack: ConsoleStack, path: str) -> None:
    browser = await Browser(stack).log_in()
    stack.is_up = False
    reply = await browser.get(path)
    assert reply.status_code == 503 and "does not answer" in reply.text
    Checked(reply.text)


@pytest.mark.parametrize("path", LIVE)
async def test_a_live_page_keeps_what_it_has_while_the_stack_is_away(stack: ConsoleStack, path: str) -> None:
    browser = await Browser(stack).log_in()
    stack.is_up = False
    reply = await browser.part(path)
    assert (reply.status_code, reply.text, reply.headers["hx-reswap"]) == (503, "", "none")


@pytest.mark.parametrize("path", LIVE)
async def test_a_live_page_asks_for_its_part_alone(stack: ConsoleStack, path: str) -> None:
    """And without scripts it is loaded again by the browser, if somebody wants that."""
    browser = await Browser(stack).log_in()
    whole, part = await browser.get(path), await browser.part(path)
    assert 'hx-trigger="news from:body, every' in whole.text and "<html" not in part.text and part.status_code == 200
    Checked(part.text)
    assert 'http-equiv="refresh"' not in whole.text
    assert 'http-equiv="refresh" content="10"' in (await browser.get(f"{path}?refresh=10")).text


async def test_a_run_that_has_ended_is_not_asked_for_again(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in()
    for run_id in (RUN, DENIED_RUN):
        assert "hx-get" not in (await browser.get(f"/runs/{run_id}")).text


async def test_an_error_of_ours_says_nothing_but_that(stack: ConsoleStack, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await Browser(stack).log_in()

    def broken(*_: Any) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(stack, "_handlers", dict.fromkeys(stack._handlers, broken))
    reply = await browser.get("/now")
    assert reply.status_code == 500 and "secret" not in reply.text
    Checked(reply.text)


async def test_a_refusal_after_which_one_is_still_logged_in(stack: ConsoleStack) -> None:
    """A narrowed token is told what it may not, and goes on."""
    browser = await Browser(stack).log_in("reader")
    assert (await browser.get("/approvals")).status_code == 403
    assert (await browser.get("/runs")).status_code == 200


# Files, and what stands beside the console.


async def test_files_are_kept_by_their_hash_and_by_nothing_else(stack: ConsoleStack) -> None:
    browser = Browser(stack)
    page = (await browser.get("/login")).text
    path = re.search(r'href="(/console/static/console\.css\?v=\w+)"', page)
    assert path
    reply = await browser.client.get(path[1])
    assert reply.status_code == 200 and "immutable" in reply.headers["cache-control"]
    assert reply.headers["content-type"].startswith("text/css")
    other = await browser.get("/static/console.css?v=0")
    assert other.headers["cache-control"] == "no-store"
    for name in ("../console.css", "%2e%2e/server.py", "nope.js", "", "htmx.min.js.map"):
        assert (await browser.get(f"/static/{name}")).status_code in (303, 404)


def test_scripts_of_others_are_as_their_makers_publish_them() -> None:
    """By the hashes of the files in the package on npm; the licence is beside them."""
    folder = files("airside.actors.console") / "static"
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in VENDORED}
    assert found == VENDORED
    assert "Zero-Clause BSD" in (folder / "htmx-LICENSE.txt").read_text("utf-8")
    assert static_files().keys() == {each.name for each in folder.iterdir()}


def test_no_template_says_that_something_is_safe() -> None:
    """Nor has a style or a script within; what is shown is escaped by the environment, and seen by it first."""
    folder = files("airside.actors.console") / "templates"
    for each in folder.iterdir():
        text = each.read_text("utf-8")
        for forbidden in ("|safe", "| safe", "autoescape", "style=", "<style", "onclick", "hx-on", "javascript:"):
            assert forbidden not in text, (each.name, forbidden)


async def test_who_is_not_logged_in_may_send_little(stack: ConsoleStack) -> None:
    browser = Browser(stack)
    reply = await browser.client.post("/console/login", data={"credential": "x" * 70_000})
    assert reply.status_code == 413 and "set-cookie" not in reply.headers


async def test_the_console_has_its_paths_and_the_api_all_others(stack: ConsoleStack) -> None:
    async def api(scope: Any, receive: Any, send: Any) -> None:
        await Response("api")(scope, receive, send)

    browser = Browser(stack, with_console(api, Console(stack)))
    assert (await browser.client.get("/v1/runs")).text == "api"
    assert (await browser.client.get("/consoles")).text == "api"
    for path in ("/", "/console", "/console/"):
        assert (await browser.client.get(path)).headers["location"] in ("/console/now", "/console/login")


# News.


class Stream:
    """A response that goes on, read as it comes; a client that leaves says so."""

    def __init__(self, browser: Browser, path: str, **headers: str) -> None:
        where, _, query = path.partition("?")
        given = {"host": "127.0.0.1:8080", "hx-request": "true", "cookie": f"{COOKIE}={browser.session_id}"} | headers
        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": f"/console{where}",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
        }
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._left = asyncio.Event()
        self._serving = asyncio.ensure_future(browser.app(scope, self._receive, self._messages.put))

    async def _receive(self) -> Any:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def begin(self) -> int:
        """Return its status."""
        status: int = (await self._messages.get())["status"]
        return status

    async def next(self) -> str:
        """Return what is sent next, "" for the end."""
        async with asyncio.timeout(10.0):
            message = await self._messages.get()
        return str(message["body"].decode()) if message.get("more_body") else ""

    async def leave(self) -> None:
        """Be gone."""
        self._left.set()
        await self._serving


async def begun(browser: Browser, path: str, **headers: str) -> Stream:
    """Return a stream that is served."""
    stream = Stream(browser, path, **headers)
    assert await stream.begin() == 200 and (await stream.next()).startswith("event: begun\nretry: ")
    return stream


NEWS = "event: news\ndata:\n\n"


async def news_of(browser: Browser, path: str) -> str:
    """Return where a page hears of news."""
    return html.unescape(re.findall(r'hx-sse:connect="/console([^"]*)"', (await browser.get(path)).text)[0])


@pytest.mark.parametrize("path", LIVE)
async def test_a_live_page_is_told_when_it_is_old(stack: ConsoleStack, path: str) -> None:
    """Of what happens after it was asked for, once for all that did; a browser that comes back misses none."""
    browser = await Browser(stack).log_in()
    where = await news_of(browser, path)
    stack.happened()
    stack.happened()
    stream = await begun(browser, where.replace("gap=5", "gap=1").replace("gap=2", "gap=1"))
    assert await stream.next() == f"id: {stack.mark}\n{NEWS}"
    seen = stack.mark
    await stream.leave()
    stack.happened()
    stream = await begun(browser, where, **{"last-event-id": str(seen)})
    assert await stream.next() == f"id: {stack.mark}\n{NEWS}"
    await stream.leave()


async def test_who_hears_nothing_new_is_told_nothing(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in()
    stream = await begun(browser, await news_of(browser, "/now"))
    following = asyncio.ensure_future(stream.next())
    await asyncio.sleep(0)
    assert not following.done()
    stack.happened()
    assert (await following).endswith(NEWS)
    await stream.leave()


@pytest.mark.parametrize("end", ["logged out", "revoked", "idle", "away"])
async def test_a_stream_ends_with_what_it_stands_on(stack: ConsoleStack, end: str) -> None:
    """Its page is told to ask, and is then told why."""
    browser = await Browser(stack).log_in()
    stream = await begun(browser, await news_of(browser, "/now"))
    following = asyncio.ensure_future(stream.next())
    await asyncio.sleep(0)
    match end:
        case "logged out":
            await browser.post("/logout")
        case "revoked":
            stack.revoked["max"] = "auth_expired"
        case "idle":
            browser.clock.now_s += IDLE_S
        case "away":
            stack.is_up = False
    stack.happened()
    said = [await following]
    while said[-1]:
        said.append(await stream.next())
    assert said[-2] == NEWS and len(said) <= 3
    await stream.leave()


async def test_a_stream_does_not_keep_a_session(stack: ConsoleStack) -> None:
    """Nobody may be there any more."""
    browser = await Browser(stack).log_in()
    where = await news_of(browser, "/now")
    for _ in range(3):
        browser.clock.now_s += IDLE_S / 2 - 1
        stream = Stream(browser, where)
        status = await stream.begin()
        await stream.leave()
    assert status == 200
    reply = await browser.get("/now")
    assert reply.status_code == 303 and "login" in reply.headers["location"]


async def test_who_sees_his_own_runs_alone_is_told_of_those(stack: ConsoleStack) -> None:
    """By nothing else does he hear how busy others are."""
    browser = await Browser(stack).log_in("ann")
    assert not re.search("hx-sse:|news from", (await browser.get("/now")).text)
    assert f"run={WAITING_RUN}" in await news_of(browser, f"/runs/{WAITING_RUN}")
    for path, status in (("/news?after=1", 403), ("/news?run=run_" + "0" * 24, 404)):
        stream = Stream(browser, path)
        assert await stream.begin() == status
        await stream.leave()


@pytest.mark.parametrize("query", ["run=x", "gap=-1", "gap=a", "after=1.5", "after=" + "9" * 40, "gap=\u0661"])
async def test_what_is_no_place_in_a_stream_is_refused(stack: ConsoleStack, query: str) -> None:
    browser = await Browser(stack).log_in()
    assert (await browser.get(f"/news?{query}")).status_code in (400, 422)


async def test_a_session_has_so_many_streams(stack: ConsoleStack) -> None:
    """One page more is told what there is, and to come again; one that has ended leaves its place."""
    browser = await Browser(stack).log_in()
    where = await news_of(browser, "/now")
    held = [await begun(browser, where) for _ in range(MAX_STREAMS)]
    for told in ("", f"id: {stack.mark + 1}\n{NEWS}"):
        more = Stream(browser, where)
        assert await more.begin() == 200
        assert [await more.next(), await more.next()] == [f"event: full\nretry: 5000\ndata:\n\n{told}", ""]
        await more.leave()
        stack.happened()
    await held[0].leave()
    again = await begun(browser, where)
    for stream in (*held[1:], again):
        await stream.leave()


async def test_the_head_of_a_stream_is_no_stream(stack: ConsoleStack) -> None:
    browser = await Browser(stack).log_in()
    async with asyncio.timeout(10.0):
        reply = await browser.client.request("HEAD", "/console/news?after=0")
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")


async def test_who_is_led_to_the_login_comes_back_to_the_page(stack: ConsoleStack) -> None:
    """Not to a part of it, nor to a stream."""
    browser = await Browser(stack).log_in()
    where = await news_of(browser, "/now")
    for current in ("/console/approvals?order=age#a", "/console/approvals#a?b"):
        await browser.log_in()
        stack.revoked["max"] = "auth_expired"
        reply = await browser.get(where, **{"HX-Request": "true", "HX-Current-URL": BASE + current})
        assert reply.headers["hx-redirect"] == "/console/login?because=auth_expired&next=/console/approvals"
        stack.revoked.clear()
