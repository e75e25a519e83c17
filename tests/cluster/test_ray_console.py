"""The console of a real stack in a real browser: what people press happens once, and what they read is harmless.

One stack, one server and one browser for all of it.  Who approves is looked for in the tools' ledger, not on a page.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import airside
from airside import ReasonCode, RunHandle
from airside.actors.app import App
from airside.actors.client.client import Stack
from airside.stack.directory import Directory, Principal, Tenant
from airside.stack.security.authenticator import hash_api_key, new_api_key
from tests.apps import shelf
from tests.apps.ledger import Ledger
from tests.apps.notes import LIMITS, PEOPLE, create_app
from tests.browsing import CHROMIUM, NARROW, WIDE, Window, a_chromium
from tests.on_ray import AIRSIDE, BOUND_S, ROOT, call, in_doubt, ledger_of, submit, until, waiting

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no chromium"),
]
POLICY = """
version: console-1
rules:
  - {id: reads, outcome: allow, when: {effect: [read]}}
  - {id: wires, outcome: allow, when: {tool: [wire, put]}}
  - {id: lead-pays, outcome: require_approval, when: {tool: [pay]}, approval: {roles: [lead]}}
  - {id: two-donate, outcome: require_approval, when: {tool: [donate]}, approval: {roles: [lead], quorum: 2}}
  - {id: offers-expire, outcome: require_approval, when: {tool: [offer]}, approval: {roles: [lead], expires_after_s: 4}}
"""
DOUBT = {"tool_ms": 200, "doubt_wait_s": 60}
KEY = new_api_key()
"""Of somebody from whom it is taken while he is logged in."""

HOSTILE = (
    "<script>alert(1)</script><img src=//evil.example/x onerror=alert(2)>",
    "\"'><svg onload=alert(3)><a href=javascript:alert(4) hx-get=//evil.example hx-trigger=load>",
    "{{ 7*7 }}{% raw %}${alert(5)}]]><!--</textarea></title><style>*{display:none}</style>",
    "\u202egnp.exe\u202c \u2066\u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627\u2069 \u200b\u00ad\u2028\ufeff",
    "e" + "\u0301\u0489\u20dd" * 400 + "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 60,
    "W" * 200_000,
)


def the_app(folder: Path, *, has_kay: bool = True) -> App:
    """Return an app whose tools move money and put things on a shelf; of kay there is a key, as long as there is."""
    app = create_app(folder)
    people = PEOPLE | {
        "olga": Principal(roles=["operator"]),
        "audra": Principal(roles=["auditor", "operator"]),
        "kay": Principal(roles=["lead"], api_keys=[hash_api_key(KEY)] if has_kay else []),
    }
    directory = Directory(tenants={"acme": Tenant(principals=people, limits=LIMITS, concurrency=16)})
    put = next(each for each in shelf.tools(shelf.Shelf(folder)) if each.name == "put")
    return dataclasses.replace(app, tools=[*app.tools, put], policy=POLICY, directory=directory)


class Desk:
    """A stack, its server, and a browser before it."""

    def __init__(self, folder: Path, chromium: Any) -> None:
        self.folder, self.chromium = folder, chromium
        self.stack: Stack = airside.start(
            the_app(folder), stack="console", state_dir=folder, executors=1, mode="pooled"
        )
        log = folder / "server.log"
        with log.open("w") as file:
            command = [AIRSIDE, "serve", "--port", "0", "--state-dir", str(folder)]
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=file, stdout=file)
        found = until(lambda: re.search(r"the console is (http://\S+)", log.read_text()), "the server")
        assert found is not None
        self.url = found[1]
        self._windows: list[Window] = []

    def window(self, who: str = "", **more: Any) -> Window:
        """Return a window of somebody who is logged in; of nobody, one that is not."""
        made = Window(self.chromium, self.url, **{"viewport": WIDE} | more)
        self._windows.append(made)
        if who:
            made.log_in(self.stack.token("acme", who))
        return made

    def close_windows(self) -> None:
        """Close what was opened; what was wrong on any of their pages fails here."""
        closed, self._windows = self._windows, []
        for each in closed:
            each.context.close()
        assert [text for each in closed for text in each.complaints] == []

    @property
    def ledger(self) -> Ledger:
        """What the tools did."""
        return ledger_of(self.stack)

    def asks(self, tool: str, to: str, amount: int = 5) -> tuple[RunHandle, str]:
        """Submit a run that waits for people; return it, and what it waits for."""
        run = submit(self.stack, call(tool, to=to, amount=amount))
        return run, waiting(self.stack, run.run_id).approval_id


@pytest.fixture(scope="module")
def everything(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The stack, started once."""
    with a_chromium() as chromium:
        made = Desk(tmp_path_factory.mktemp("console"), chromium)
        try:
            yield made
        finally:
            made.process.kill()
            made.process.wait(BOUND_S)
            made.stack.shutdown()


@pytest.fixture
def desk(everything: Desk) -> Iterator[Desk]:
    """The stack; the windows that a test opens are its own."""
    yield everything
    everything.close_windows()


def said(page: Any) -> str:
    """Return what a page says of the order before it."""
    return str(page.inner_text(".flash"))


def test_approve_leads_to_the_effect(desk: Desk) -> None:
    """From the inbox, with the call in words and a note that the journal has."""
    run, approval = desk.asks("pay", "ben")
    page = desk.window("lea").go("/approvals")
    page.click(f'li[data-open$="{approval}"] a')
    assert page.inner_text("h1") == "Call pay with amount = 5, hang = false, to = ben"
    page.fill("#note", "seen the invoice")
    page.click("text=Approve this call")
    assert "You have approved this: Call pay" in said(page)
    assert run.result(timeout=BOUND_S).ok and desk.ledger.amounts("ben") == [5]
    assert "approved by lea" in run.story() and "seen the invoice" in run.story()


def test_an_edit_shows_what_changes_and_happens_as_edited(desk: Desk) -> None:
    run, approval = desk.asks("pay", "edda", 900)
    page = desk.window("lea", viewport=NARROW).go(f"/approvals/{approval}")
    page.click("text=Edit its arguments")
    page.get_by_label("amount").fill("much")
    page.click("text=Show what changes")
    assert "amount" in page.inner_text("[role=alert]")
    page.get_by_label("amount").fill("90")
    page.click("text=Show what changes")
    assert (page.inner_text("del"), page.inner_text("ins")) == ("900", "90") and desk.ledger.amounts("edda") == []
    page.click("text=Approve with these arguments")
    assert run.result(timeout=BOUND_S).ok and desk.ledger.amounts("edda") == [90]


def test_reject_leaves_nothing_done(desk: Desk) -> None:
    run, approval = desk.asks("pay", "rex")
    page = desk.window("lea").go(f"/approvals/{approval}")
    page.fill("#note", "not without an invoice")
    page.click("text=Reject it")
    assert "You have rejected this" in said(page)
    assert run.result(timeout=BOUND_S).answer == {"calls": 1, "failed": [0]}
    assert desk.ledger.amounts("rex") == [] and "not without an invoice" in run.story()


def test_several_at_once_are_all_or_none(desk: Desk) -> None:
    """If one waits no more when they are confirmed, none is voted on; then the others are."""
    asked = [desk.asks("pay", f"bulk {number}") for number in range(3)]
    page = desk.window("lea").go("/approvals")
    page.check("[data-choose-all]")
    page.click("text=Approve the chosen")
    assert "3" in page.inner_text("button.primary") and page.locator("li.call").count() == 3
    desk.stack.reject(asked[0][1], principal="leo")
    page.click("button.primary")
    assert page.locator(".flash.bad").count() == 1
    assert [desk.ledger.amounts(f"bulk {number}") for number in range(3)] == [[], [], []]
    page.check("[data-choose-all]")
    page.click("text=Approve the chosen")
    page.click("button.primary")
    assert page.locator(".flash.good").count() == 1
    for run, _ in asked:
        run.result(timeout=BOUND_S)
    assert [desk.ledger.amounts(f"bulk {number}") for number in range(3)] == [[], [5], [5]]


def test_two_have_to_approve_and_the_page_says_so(desk: Desk) -> None:
    run, approval = desk.asks("donate", "dora")
    page = desk.window("lea").go(f"/approvals/{approval}")
    page.click("text=Approve this call")
    assert "more people have to vote" in said(page) and desk.ledger.amounts("dora") == []
    page = desk.window("leo").go(f"/approvals/{approval}")
    assert "lea (approve)" in page.inner_text("main")
    page.click("text=Approve this call")
    assert run.result(timeout=BOUND_S).ok and desk.ledger.amounts("dora") == [5]


def test_of_two_who_race_one_decides_and_the_other_is_told(desk: Desk) -> None:
    run, approval = desk.asks("pay", "race")
    pages = [desk.window(who).go(f"/approvals/{approval}") for who in ("lea", "leo")]
    for page in pages:  # neither waits for what becomes of the other's
        page.evaluate("() => { document.querySelector('[data-key=a]').click(); }")
    for page in pages:
        page.wait_for_selector(".flash:not(.wait)")
    tones = sorted("good" if page.locator(".flash.good").count() else "bad" for page in pages)
    assert tones == ["bad", "good"]
    assert any("It does not count" in page.inner_text("main") for page in pages)
    assert run.result(timeout=BOUND_S).ok and desk.ledger.amounts("race") == [5]


def test_what_has_expired_meanwhile_is_not_approved(desk: Desk) -> None:
    page = desk.window("lea").page
    run, approval = desk.asks("offer", "late")
    page.goto(f"{desk.url}/approvals/{approval}")
    button = page.locator("[data-key=a]")
    playwright.expect(button).to_be_visible()
    run.result(timeout=BOUND_S)
    button.click()
    assert "It does not count" in page.inner_text("main") and "expired" in page.inner_text("main")
    assert desk.ledger.amounts("late") == [] and page.locator("[data-key=a]").count() == 0


def test_from_the_login_to_the_decision_by_keys_alone(desk: Desk) -> None:
    """What has the focus is seen at every stop."""
    run, approval = desk.asks("pay", "keys")
    page = desk.window().go("/login")
    press = page.keyboard.press
    page.keyboard.type(desk.stack.token("acme", "lea"))
    press("Enter")
    page.wait_for_url("**/now")
    for _ in range(10):
        press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        if page.evaluate("document.activeElement.textContent") == "Approvals":
            break
    press("Enter")
    page.wait_for_url("**/approvals")
    for _ in range(20):
        press("j")
        if page.evaluate("document.activeElement.dataset.open").endswith(approval):
            break
    press("a")
    page.wait_for_url(f"**/approvals/{approval}#a")
    playwright.expect(page.locator("[data-key=a]")).to_be_focused()
    assert desk.ledger.amounts("keys") == []
    press("Enter")
    page.wait_for_url("**/approvals")
    assert run.result(timeout=BOUND_S).ok and desk.ledger.amounts("keys") == [5]


def test_kill_ends_a_run_and_it_says_by_whom(desk: Desk) -> None:
    run = submit(desk.stack, route="sleeper")
    page = desk.window("olga").go(f"/runs/{run.run_id}")
    playwright.expect(page.locator("#main")).to_contain_text("deciding", timeout=BOUND_S * 1000)
    page.click("text=Kill …")
    page.click("#kill_run button")
    assert page.evaluate("document.activeElement.id") == "why-kill_run", "a kill without a reason is asked for one"
    page.fill("#why-kill_run", "it sleeps")
    page.click("#kill_run button")
    assert "1 run is killed" in said(page)
    assert run.result(timeout=BOUND_S).reason_code is ReasonCode.KILLED_BY_OPERATOR
    page.reload()
    assert "olga@acme" in page.inner_text("main") and "it sleeps" in page.inner_text("main")


def test_a_switch_holds_until_it_is_taken_back(desk: Desk) -> None:
    page = desk.window("olga").go("/switches")
    page.click("text=Switch something off")
    page.select_option("[name=scope]", "principal")
    page.fill("[name=target]", "acme/bob")
    page.fill("#why", "a strange hour")
    page.click("button.grave")
    assert "principal acme/bob is switched off" in said(page)

    def look_up() -> RunHandle:
        return submit(desk.stack, call("look", topic="x"), who="bob@acme")

    with pytest.raises(airside.AirsideError):
        look_up().result(timeout=BOUND_S)
    page.click("text=Switch on …")
    page.fill("#why", "he was it")
    page.click("form.fields button.primary")
    assert "switched on again" in said(page) and look_up().result(timeout=BOUND_S).ok


def test_a_call_in_doubt_is_resolved_and_its_run_goes_on(desk: Desk) -> None:
    run = submit(desk.stack, call("wire", to="doubt", amount=7, hang=True), limits=DOUBT)
    in_doubt(desk.stack, run.run_id)
    page = desk.window("olga").go("/in-doubt")
    card = page.locator(".card", has_text=run.run_id)
    assert '"to":"doubt"' in card.inner_text() and "wire" in card.inner_text()
    card.locator("text=Say what became of it").click()
    assert "wire" in page.inner_text("main") and '"to":"doubt"' in page.inner_text("main")
    page.select_option("[name=happened]", "yes")
    page.fill("[name=output]", '{"ok": 1}')
    page.fill("#why", "it is in the bank's list")
    page.click("text=Put it on record")
    assert "happened" in said(page)
    assert run.result(timeout=BOUND_S).ok and desk.ledger.amounts("doubt") == [7]
    assert "it is in the bank's list" in run.story()


def test_rollback_takes_back_what_a_run_did(desk: Desk) -> None:
    things = shelf.Shelf(desk.folder)
    run = submit(desk.stack, call("put", title="a book"), call("put", title="a vase"))
    assert run.result(timeout=BOUND_S).ok and things.names() == ["a book", "a vase"]
    page = desk.window("olga").go(f"/runs/{run.run_id}")
    page.click("text=Roll back …")
    page.fill("#why-roll_back_run", "the wrong shelf")
    page.click("#roll_back_run button")
    assert "2 undone" in said(page) and things.names() == []
    assert things.log("unput") == ["a vase", "a book"]


def test_a_search_finds_a_run_and_a_file_has_what_was_found(desk: Desk) -> None:
    run = submit(desk.stack, call("look", topic="a needle in the hay"))
    run.result(timeout=BOUND_S)
    page = desk.window("audra").go("/audit")
    page.get_by_label("Text, of any entry").fill("A NEEDLE IN")
    page.click("text=Search")
    assert run.run_id in page.inner_text("main")
    with page.expect_download() as found:
        page.click("text=Download JSON lines")
    lines = Path(found.value.path()).read_text("utf-8").splitlines()
    assert {json.loads(line)["stream"] for line in lines} >= {run.run_id}


def test_without_scripts_all_is_read_and_a_vote_is_given(desk: Desk) -> None:
    run, approval = desk.asks("pay", "plain")
    window = desk.window("lea", java_script_enabled=False, viewport=NARROW)
    for path in ("/now", "/approvals", f"/approvals/{approval}"):
        assert "Airside" in window.go(path).title()
    window.page.click("text=Approve this call")
    assert "You have approved" in said(window.page)
    assert run.result(timeout=BOUND_S).ok and desk.ledger.amounts("plain") == [5]


def test_what_agents_tools_and_people_write_runs_nowhere(desk: Desk) -> None:
    """On any page, at any width; and the page holds."""
    whole = " ".join(HOSTILE)[:30_000]
    run = submit(
        desk.stack,
        *(call("look", topic=text) for text in HOSTILE),
        call("wire", to=HOSTILE[1], amount=1, hang=True),
        request=whole,
        limits=DOUBT | {"doubt_wait_s": 0},
    )
    run.result(timeout=BOUND_S)
    asking = submit(desk.stack, call("pay", to=whole, amount=5), request=whole)
    approval = waiting(desk.stack, asking.run_id).approval_id
    sleeping = submit(desk.stack, request=HOSTILE[0], route="sleeper")
    desk.stack.kill(run=sleeping.run_id, why=HOSTILE[1] + HOSTILE[3])
    desk.stack.switch_off(principal="acme/max", why=HOSTILE[0])
    pages = ("/now", "/approvals", f"/approvals/{approval}", f"/approvals/{approval}/edit", "/in-doubt", "/switches")
    pages += ("/runs", "/audit", *(f"/runs/{each.run_id}" for each in (run, asking, sleeping)))
    for size in (NARROW, WIDE):
        windows = [desk.window(who, viewport=size) for who in ("audra", "lea")]
        for window in windows:
            for path in pages:
                window.page.goto(f"{desk.url}{path}")
                assert window.spill() <= 0, path
                assert "\u202e" not in window.page.inner_text("body"), path
        page = windows[0].go("/audit")
        page.get_by_label("Text, of any entry").fill("alert")
        page.click("text=Search")
        assert windows[0].spill() <= 0 and "alert(1)" in page.inner_text("main")
    desk.stack.switch_on(principal="acme/max")
    desk.stack.reject(approval, principal="leo")


def test_whose_key_is_taken_away_is_led_out_and_his_vote_does_not_count(desk: Desk) -> None:
    """While his page is open; what waited waits still, and somebody else decides it."""
    run, approval = desk.asks("pay", "kay")
    page = desk.window().log_in(KEY)
    page.goto(f"{desk.url}/approvals/{approval}")
    desk.stack.reload(the_app(desk.folder, has_kay=False))
    page.click("text=Approve this call")
    page.wait_for_url(re.compile("/login"), timeout=BOUND_S * 1000)
    page.goto(f"{desk.url}/approvals/{approval}")
    assert "/login" in page.url and desk.ledger.amounts("kay") == []
    page.fill("#credential", KEY)
    page.click("button")
    assert page.locator("[role=alert]").count() == 1
    assert desk.stack.approve(approval, principal="lea") == "approved"
    assert run.result(timeout=BOUND_S).ok and desk.ledger.amounts("kay") == [5]
    assert desk.stack.verify() == []
