"""What the tests of pages share: whether HTML runs anything, or asks for anything."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_REFERS = {"href", "xlink:href", "src", "srcset", "action", "data", "poster", "formaction"}
_MADE_OF = re.compile(r"url\s*\(|@import|expression\s*\(", re.IGNORECASE)


class Page(HTMLParser):
    """A page's tags, text, and what of it would run or be loaded."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.active: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag in."""
        self.tags.append(tag)
        if tag in ("script", "link", "iframe", "object", "embed", "img", "image", "base", "foreignobject"):
            self.active.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name in _REFERS or _MADE_OF.search(value or ""):
                self.active.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        """Take text in, that of styles too."""
        self.text += data
        if _MADE_OF.search(data) and self.tags[-1] == "style":
            self.active.append(f"style {data:.80}")
