"""The console in a browser: what its scripts do under the policy that it sends, and that it does without them."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from airside.actors.console.server import Console
from tests.browsing import CHROMIUM, NARROW, WIDE, Window, a_chromium
from tests.unit.actors.console.double import LONG, RUN, WAITING_RUN, ConsoleStack, an_approval, approval_id
from tests.unit.actors.console.pages import PATHS, Clock

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no chromium")]
LIVE_MS = 15_000
"""Longest wait for what a page is told of: it asks by itself too, but not so soon."""


class Served:
    """A console that listens."""

    def __init__(self) -> None:
        self.stack, self.clock = ConsoleStack(), Clock()
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/console"
        config = uvicorn.Config(
            Console(self.stack, clock=self.clock),
            log_level="critical",  # of streams that are open when it stops
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
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
    with a_chromium() as browser:
        yield browser


@pytest.fixture
def served() -> Iterator[Served]:
    """A console."""
    made = Served()
    yield made
    made.close()


def visited(chromium: Any, served: Served, **more: Any) -> Window:
    """Return a window of somebody who may do everything, on the first page."""
    window = Window(chromium, served.url, **more)
    window.log_in("max")
    return window


HOSTILE = (
    "",
    "<img src=x onerror=alert(1)>",
    "<b hx-get='/console/now' hx-trigger='load'>\u202e",
    "\"'><svg onload=alert(3)><a href=javascript:alert(4)></textarea></title><style>*{display:none}</style>",
    "{{ 7*7 }}${alert(5)}]]><!-- \u2066\u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627 \u200b\u00ad\u2028\ufeff" * 20,
    "e" + "\u0301\u0489\u20dd" * 400 + "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 60,
    "x" + "\u0bca" * 900 + "\u1100" * 900 + "\U0001f44b" + "\U0001f3ff" * 900 + "\ufdfd" * 90,
    "W" * 1_000_000,
    "run_" + "0123456789abcdef" * 4_000,
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_browser_has_nothing_to_complain_of(chromium: Any, served: Served, text: str) -> None:
    """No page breaks the policy that it is sent with, or is wider than a telephone, whatever stands in it."""
    served.stack.__init__(text)  # type: ignore[misc]
    window = visited(chromium, served, viewport=NARROW)
    for path in PATHS:
        page = window.go(path)
        assert page.locator("h1").count() == 1
        assert window.spill() <= 0, path
    assert window.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
def test_no_page_keeps_anybody_out(chromium: Any, served: Served, scheme: str, size: dict[str, int]) -> None:
    """By axe-core's rules; what cannot be read, reached or named stands here."""
    window = visited(chromium, served, viewport=size, color_scheme=scheme, bypass_csp=True)
    found = {path: window.barriers() for path in PATHS if window.go(path)}
    assert {path: barriers for path, barriers in found.items() if barriers} == {}


def test_now_shows_what_has_changed_and_leaves_the_rest(chromium: Any, served: Served) -> None:
    """The part is brought up to date in place: what has the focus keeps it."""
    window = visited(chromium, served)
    page = window.page
    tile = page.locator("a.tile").first
    tile.focus()
    served.stack.approvals.append(an_approval(9))
    served.stack.happened()
    playwright.expect(tile).to_contain_text("5", timeout=LIVE_MS)
    assert page.evaluate("document.activeElement.classList.contains('tile')")
    assert window.complaints == []


def test_a_run_goes_on_before_ones_eyes(chromium: Any, served: Served) -> None:
    """And what somebody has opened on its page stays open."""
    window = visited(chromium, served)
    page = window.go(f"/runs/{WAITING_RUN}")
    page.locator("#events summary").click()
    served.stack.runs[WAITING_RUN] = served.stack.runs[RUN]
    served.stack.happened()
    playwright.expect(page.locator(".mark").first).to_have_text("completed", timeout=LIVE_MS)
    assert page.locator("#events").get_attribute("open") is not None
    assert window.complaints == []


def test_an_inbox_that_is_old_says_so_and_moves_nothing(chromium: Any, served: Served) -> None:
    window = visited(chromium, served)
    page = window.go("/approvals")
    page.locator("input[name=approval]").first.check()
    served.stack.approvals.append(an_approval(9))
    served.stack.happened()
    playwright.expect(page.locator(".news")).to_contain_text("1 new", timeout=LIVE_MS)
    assert page.locator("input[name=approval]").first.is_checked()
    assert page.locator("li.call").count() == 4


@contextlib.contextmanager
def busy(stack: ConsoleStack) -> Iterator[None]:
    """Let 50 things a second happen: runs begin, one goes on, and a call more waits."""
    over = threading.Event()

    def happen() -> None:
        while not over.wait(0.02):
            stack.more_active += 1
            stack.runs[WAITING_RUN] = LONG[: min(len(LONG) - 1, 20 + stack.more_active // 5)]
            if stack.more_active == 50:
                stack.approvals.append(an_approval(9, effect="read"))
            stack.happened()

    thread = threading.Thread(target=happen)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts.push(entry.value);
}).observe({ type: "layout-shift" });
"""
"""Notes by how much what is seen has moved that nobody has moved."""


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
def test_what_changes_50_times_a_second_does_not_flicker(chromium: Any, served: Served, size: dict[str, int]) -> None:
    """Nothing on a page is made anew, or moves by more than a digit; what is read, chosen and written stays."""
    served.stack.more_active, served.stack.approvals = 10, [*served.stack.approvals, an_approval(7), an_approval(8)]
    served.stack.runs[WAITING_RUN] = LONG[:20]
    window = visited(chromium, served, viewport=size)
    window.context.add_init_script(SHIFTS)
    now, inbox, run, call = (window.context.new_page() for _ in range(4))
    paths = ("/now", "/approvals", f"/runs/{WAITING_RUN}", f"/approvals/{approval_id(1)}")
    for page, path in zip((now, inbox, run, call), paths, strict=True):
        page.goto(f"{window.url}{path}")
    now.locator("a.tile").nth(1).focus()
    inbox.locator("input[name=approval]").nth(2).check()
    run.locator("#story summary").click()
    run.evaluate("scrollTo(0, 200)")
    scrolled = run.evaluate("scrollY")
    call.fill("#note", "half of a senten")
    for page in (now, inbox, run):
        page.evaluate("() => { kept = [...document.querySelectorAll('main *:not(pre *, svg *)')]; shifts.length = 0; }")
    with busy(served.stack):
        playwright.expect(now.locator("a.tile").nth(1)).to_contain_text(re.compile("[0-9]{3}"), timeout=LIVE_MS)
        playwright.expect(inbox.locator(".news")).to_contain_text("1 new", timeout=LIVE_MS)
        playwright.expect(run.locator("#events summary")).to_contain_text(f"({len(LONG) - 1})", timeout=LIVE_MS)
    assert sum(now.evaluate("shifts")) < 0.01 and inbox.evaluate("shifts") == []
    gone = "kept.filter((each) => !each.isConnected).map((each) => each.outerHTML)"
    assert [page.evaluate(gone) for page in (now, inbox, run)] == [[], [], []]
    assert run.locator("#story").get_attribute("open") is not None
    assert now.evaluate("document.activeElement === document.querySelectorAll('a.tile')[1]")
    assert inbox.locator("input[name=approval]").nth(2).is_checked()
    assert run.evaluate("scrollY") == scrolled and call.input_value("#note") == "half of a senten"
    assert window.complaints == []


def test_many_windows_leave_room_for_what_one_asks(chromium: Any, served: Served) -> None:
    """All of them seen at once: a browser has six connections, and each page still hears what happens."""
    window = visited(chromium, served)
    pages = [window.page]
    for _ in range(8):
        pages.append(window.context.new_page())
        pages[-1].goto(f"{window.url}/now", timeout=LIVE_MS)
        pages[-1].wait_for_selector("[data-htmx-powered][hx-sse\\:connect]", state="attached", timeout=LIVE_MS)
    served.stack.approvals.append(an_approval(9))
    served.stack.happened()
    for page in pages:
        playwright.expect(page.locator("a.tile").first).to_contain_text("5", timeout=LIVE_MS)
    assert all(page.locator(".stale").is_hidden() for page in pages) and window.complaints == []


def test_keys_lead_to_a_vote_that_enter_gives(chromium: Any, served: Served) -> None:
    window = visited(chromium, served)
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
    window = visited(chromium, served)
    page = window.go(f"/approvals/{approval_id(1)}")
    page.fill("#note", "")
    page.type("#note", "are")
    assert page.input_value("#note") == "are" and page.url.endswith(approval_id(1))


def test_a_page_says_when_the_stack_is_away_and_when_it_is_back(chromium: Any, served: Served) -> None:
    window = visited(chromium, served)
    stale = window.page.locator(".stale")
    assert stale.is_hidden()
    served.stack.is_up = False
    served.stack.happened()
    playwright.expect(stale).to_be_visible(timeout=LIVE_MS)
    assert "layers up" in window.page.inner_text("main")
    served.stack.is_up = True
    playwright.expect(stale).to_be_hidden(timeout=LIVE_MS)


def test_a_page_whose_session_is_over_leads_to_the_login(chromium: Any, served: Served) -> None:
    window = visited(chromium, served)
    served.stack.revoked["max"] = "auth_expired"
    served.stack.happened()
    window.page.wait_for_url(re.compile("/login.because=auth_expired"), timeout=LIVE_MS)
    assert "The token has expired." in window.page.inner_text("main")


def test_no_script_begins_before_its_guard(chromium: Any, served: Served) -> None:
    """However its files arrive: htmx begins once all of them have run."""
    window = visited(chromium, served)
    window.context.route("**/hx-*.js*", lambda route: (window.page.wait_for_timeout(150), route.continue_()))
    for _ in range(3):
        page = window.go("/now")
        page.wait_for_selector("[data-htmx-powered][hx-sse\\:connect]", state="attached", timeout=LIVE_MS)
    assert window.complaints == []


def test_a_link_from_another_site_leads_to_what_it_names(chromium: Any, served: Served) -> None:
    """Its first request has no cookie; whoever is logged in is not asked to log in again."""
    window = visited(chromium, served)
    page = window.page
    where = f"{served.url}/approvals/{approval_id(1)}"
    page.goto(served.url.replace("127.0.0.1", "localhost") + "/login")
    page.evaluate("where => { location.href = where; }", where)
    page.wait_for_url(where)
    playwright.expect(page.locator("h1")).to_contain_text("Call refund_order")


def test_everything_works_without_scripts(chromium: Any, served: Served) -> None:
    window = visited(chromium, served, java_script_enabled=False)
    page = window.go("/approvals")
    for box in page.locator("input[name=approval]").all()[:2]:
        box.check()
    page.click("button[value=approve]")
    page.click("button[value=approve]")
    (joint,) = served.stack.joint_votes
    assert len(joint.approval_ids) == 2 and "You have approved 2 calls" in page.inner_text("main")
    page = window.go(f"/runs/{WAITING_RUN}")
    page.click("text=Kill …")
    page.fill("#why-kill_run", "it is wrong")
    page.click("#kill_run button.grave")
    assert [order.action for order in served.stack.orders] == ["kill"]
    page = window.go("/now?refresh=10")
    assert re.search(r"every 10 s", page.inner_text("main"))
    page.click("text=Log out")
    page.wait_for_url(re.compile("/login"))
