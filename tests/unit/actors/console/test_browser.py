"""The console in a browser: what its scripts do under the policy that it sends, and that it does without them."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from airside.actors.console.server import Console
from tests.unit.actors.console.double import RUN, WAITING_RUN, ConsoleStack, an_approval, approval_id
from tests.unit.actors.console.pages import PATHS, Clock

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = Path("/usr/bin/chromium")
"""The system's: none is downloaded."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no chromium")]
LIVE_MS = 25_000
"""Longest wait for what a page asks for by itself."""


class Served:
    """A console that listens."""

    def __init__(self) -> None:
        self.stack, self.clock = ConsoleStack(), Clock()
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/console"
        config = uvicorn.Config(Console(self.stack, clock=self.clock), log_level="error", ws="none", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    with playwright.sync_playwright() as found:
        browser = found.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def served() -> Iterator[Served]:
    """A console."""
    made = Served()
    yield made
    made.close()


class Window:
    """A page of a browser, and all that it complains of."""

    def __init__(self, chromium: Any, served: Served, **more: Any) -> None:
        self.context = chromium.new_context(**more)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.url = served.url
        self.page.goto(f"{self.url}/login")
        self.page.fill("#credential", "max")
        self.page.click("button")
        self.page.wait_for_url("**/now")

    def go(self, path: str) -> Any:
        """Open a page."""
        self.page.goto(f"{self.url}{path}")
        return self.page


@pytest.mark.parametrize(
    "text", ["", "<img src=x onerror=alert(1)>", "<b hx-get='/console/now' hx-trigger='load'>\u202e"]
)
def test_a_browser_has_nothing_to_complain_of(chromium: Any, served: Served, text: str) -> None:
    """No page breaks the policy that it is sent with, whatever stands in it."""
    served.stack.__init__(text)  # type: ignore[misc]
    window = Window(chromium, served, viewport={"width": 400, "height": 800})
    for path in PATHS:
        page = window.go(path)
        assert page.locator("h1").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, path
    assert window.complaints == []


def test_now_shows_what_has_changed_and_leaves_the_rest(chromium: Any, served: Served) -> None:
    """The part is brought up to date in place: what has the focus keeps it."""
    window = Window(chromium, served)
    page = window.page
    tile = page.locator("a.tile").first
    tile.focus()
    served.stack.approvals.append(an_approval(9))
    playwright.expect(tile).to_contain_text("5", timeout=LIVE_MS)
    assert page.evaluate("document.activeElement.classList.contains('tile')")
    assert window.complaints == []


def test_a_run_goes_on_before_ones_eyes(chromium: Any, served: Served) -> None:
    """And what somebody has opened on its page stays open."""
    window = Window(chromium, served)
    page = window.go(f"/runs/{WAITING_RUN}")
    page.locator("#events summary").click()
    served.stack.runs[WAITING_RUN] = served.stack.runs[RUN]
    playwright.expect(page.locator(".mark").first).to_have_text("completed", timeout=LIVE_MS)
    assert page.locator("#events").get_attribute("open") is not None
    assert window.complaints == []


def test_an_inbox_that_is_old_says_so_and_moves_nothing(chromium: Any, served: Served) -> None:
    window = Window(chromium, served)
    page = window.go("/approvals")
    page.locator("input[name=approval]").first.check()
    served.stack.approvals.append(an_approval(9))
    playwright.expect(page.locator(".news")).to_contain_text("1 new", timeout=LIVE_MS)
    assert page.locator("input[name=approval]").first.is_checked()
    assert page.locator("li.call").count() == 4


def test_keys_lead_to_a_vote_that_enter_gives(chromium: Any, served: Served) -> None:
    window = Window(chromium, served)
    page = window.go("/approvals")
    for key in ("j", "j", "k", "x"):
        page.keyboard.press(key)
    assert page.locator("input[name=approval]").first.is_checked()
    page.keyboard.press("a")
    page.wait_for_url(f"**/approvals/{approval_id(1)}#a")
    playwright.expect(page.locator("[data-key=a]")).to_be_focused()
    assert served.stack.votes == []
    page.keyboard.press("Enter")
    page.wait_for_url("**/approvals")
    assert [(vote.approval_id, vote.verdict) for vote in served.stack.votes] == [(approval_id(1), "approve")]
    page.keyboard.press("j")
    page.keyboard.press("e")
    page.wait_for_url(f"**/approvals/{approval_id(1)}/edit")
    assert window.complaints == []


def test_keys_that_are_typed_are_text(chromium: Any, served: Served) -> None:
    window = Window(chromium, served)
    page = window.go(f"/approvals/{approval_id(1)}")
    page.fill("#note", "")
    page.type("#note", "are")
    assert page.input_value("#note") == "are" and page.url.endswith(approval_id(1))


def test_a_page_says_when_the_stack_is_away_and_when_it_is_back(chromium: Any, served: Served) -> None:
    window = Window(chromium, served)
    stale = window.page.locator(".stale")
    assert stale.is_hidden()
    served.stack.is_up = False
    playwright.expect(stale).to_be_visible(timeout=LIVE_MS)
    assert "layers up" in window.page.inner_text("main")
    served.stack.is_up = True
    playwright.expect(stale).to_be_hidden(timeout=LIVE_MS)


def test_a_page_whose_session_is_over_leads_to_the_login(chromium: Any, served: Served) -> None:
    window = Window(chromium, served)
    served.stack.revoked["max"] = "auth_expired"
    window.page.wait_for_url(re.compile("/login.because=auth_expired"), timeout=LIVE_MS)
    assert "The token has expired." in window.page.inner_text("main")


def test_a_link_from_another_site_leads_to_what_it_names(chromium: Any, served: Served) -> None:
    """Its first request has no cookie; whoever is logged in is not asked to log in again."""
    window = Window(chromium, served)
    page = window.page
    where = f"{served.url}/approvals/{approval_id(1)}"
    page.goto(served.url.replace("127.0.0.1", "localhost") + "/login")
    page.evaluate("where => { location.href = where; }", where)
    page.wait_for_url(where)
    playwright.expect(page.locator("h1")).to_contain_text("Call refund_order")


def test_everything_works_without_scripts(chromium: Any, served: Served) -> None:
    window = Window(chromium, served, java_script_enabled=False)
    page = window.go("/approvals")
    for box in page.locator("input[name=approval]").all()[:2]:
        box.check()
    page.click("button[value=approve]")
    page.click("button[value=approve]")
    assert len(served.stack.votes) == 2 and "You have approved 2 calls" in page.inner_text("main")
    page = window.go(f"/runs/{WAITING_RUN}")
    page.click("text=Kill …")
    page.fill("#why", "it is wrong")
    page.click("button.grave")
    assert [order.action for order in served.stack.orders] == ["kill"]
    page = window.go("/now?refresh=10")
    assert re.search(r"every 10 s", page.inner_text("main"))
    page.click("text=Log out")
    page.wait_for_url(re.compile("/login"))
