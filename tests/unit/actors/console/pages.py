"""What the tests of the console share: somebody's browser, the pages there are, and what a page may hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import httpx2
from starlette.types import ASGIApp

from airside.actors.console.server import COOKIE, Console
from tests.unit.actors.console.double import RUN, WAITING_RUN, ConsoleStack, approval_id

BASE = "http://127.0.0.1:8080"
PATHS = (
    "/now",
    "/approvals",
    "/approvals?order=age",
    f"/approvals/{approval_id(1)}",
    f"/approvals/{approval_id(2)}/edit",
    f"/approvals/{approval_id(4)}",
    "/runs",
    f"/runs/{RUN}",
    f"/runs/{WAITING_RUN}",
    "/batches",
    "/batches/nightly",
    "/tenants",
    "/tenants/acme",
    "/policy",
    "/policy?since=24h",
    "/switches",
    "/in-doubt",
    "/audit",
    "/audit/entries?text=mail",
    f"/orders?order=kill_run&target={RUN}",
    "/orders?order=switch_off",
    "/orders?order=retune_batch&target=nightly",
)
"""Every kind of page; what stands in them is the stack's."""

LIVE = ("/now", "/approvals", f"/runs/{WAITING_RUN}", "/batches/nightly")
"""Those that ask for what has changed of them."""


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


class Browser:
    """Somebody in front of the console: keeps cookies, says where a form comes from, and follows nothing by itself."""

    def __init__(self, stack: ConsoleStack, app: ASGIApp | None = None, **headers: str) -> None:
        self.stack = stack
        self.clock = Clock()
        self.app = app or Console(stack, ["console.example.com"], clock=self.clock)
        transport = httpx2.ASGITransport(app=self.app)  # type: ignore[arg-type]
        self.client = httpx2.AsyncClient(transport=transport, base_url=BASE, headers={"origin": BASE} | headers)
        self.csrf = ""

    async def log_in(self, credential: str = "max") -> Browser:
        """Log in, and remember what forms have."""
        reply = await self.client.post("/console/login", data={"credential": credential})
        assert reply.status_code == 303, reply.text
        self.csrf = field_of((await self.get("/orders?order=switch_off")).text, "csrf")
        return self

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        """Return a page."""
        return await self.client.get(f"/console{path}", headers=headers)

    async def part(self, path: str) -> httpx2.Response:
        """Return what a page that is there asks for again."""
        return await self.get(path, **{"HX-Request": "true"})

    async def post(self, path: str, **data: Any) -> httpx2.Response:
        """Send a form."""
        return await self.client.post(f"/console{path}", data={"csrf": self.csrf, **data})

    @property
    def session_id(self) -> str:
        """The id of the session, empty if there is none."""
        return self.client.cookies.get(COOKIE) or ""


def field_of(page: str, name: str) -> str:
    """Return the value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    return found[1] if found else ""


class Checked(HTMLParser):
    """Reads a page, and fails at what no page may hold: a script within, a style within, what another server has."""

    VOID = frozenset(["br", "hr", "img", "input", "link", "meta"])

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag in."""
        assert tag not in ("style", "iframe", "object", "embed", "base", "img"), tag
        given = dict(attrs)
        assert len(given) == len(attrs), f"{tag} has an attribute twice"
        if tag == "script":
            assert (given["src"] or "").startswith("/console/static/"), given
            assert given["integrity"] and given["nonce"]
        for name, value in given.items():
            assert not name.startswith(("on", "hx-on")) and name != "style", f"{tag} {name}"
            if name in ("href", "src", "action", "hx-get", "hx-sse:connect", "data-open"):
                assert (value or "").startswith(("/console", "#", "data:,")), f"{tag} {name}={value}"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Take the end of a tag in."""
        assert self.open and self.open[-1] == tag, f"</{tag}> within {self.open[-5:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        """Take text in."""
        assert not self.open or self.open[-1] != "script" or not data.strip()
        self.text += data
