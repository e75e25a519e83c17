"""What tests in a browser share: the system's chromium, and a window that notes whatever it complains of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
"""The system's: none is downloaded."""

NARROW, WIDE = {"width": 400, "height": 800}, {"width": 1280, "height": 800}
"""A telephone's window, and a desk's."""

_ANSWERED = "Failed to load resource: the server responded with a status of 4"

SERIOUS = ("serious", "critical")


@contextlib.contextmanager
def a_chromium() -> Iterator[Any]:
    """Start a browser without a screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as found:
        browser = found.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


class Window:
    """A window before the console at `url`, with cookies of its own; `complaints` is all that its pages did wrong.

    That is what its browser logs as an error, a script that fails, a dialog, and a request of anything but the console.
    """

    def __init__(self, chromium: Any, url: str, **more: Any) -> None:
        self.url = url
        self.context = chromium.new_context(**more)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._log)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.on("request", self._note)

    def _log(self, said: Any) -> None:
        """Take what a browser logs; a page that says what was refused is an answer, and logged as a failure to load."""
        is_answer = said.text.startswith(_ANSWERED) and "/static/" not in said.location["url"]
        if said.type == "error" and not is_answer:
            self.complaints.append(said.text)

    def _refuse(self, dialog: Any) -> None:
        self.complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:,")):
            self.complaints.append(f"request of {request.url:.200}")

    def log_in(self, credential: str) -> Any:
        """Log somebody in, and return the page that this leads to."""
        self.page.goto(f"{self.url}/login")
        self.page.fill("#credential", credential)
        self.page.click("button")
        self.page.wait_for_url("**/now")
        return self.page

    def go(self, path: str) -> Any:
        """Open a page of the console, and return it."""
        self.page.goto(f"{self.url}{path}")
        return self.page

    def spill(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def barriers(self) -> list[str]:
        """Return what keeps people out of this page, by axe-core's rules, what is minor left out.

        A page lets no such script in: the window needs `bypass_csp=True`.
        """
        script = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
        self.page.evaluate("script => { (0, eval)(script); }", script)
        found = self.page.evaluate("axe.run()")["violations"]
        return [f"{each['id']}: {each['nodes'][0]['html']:.200}" for each in found if each["impact"] in SERIOUS]
