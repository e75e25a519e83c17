"""Files that pages load: our style and script, and htmx's as its makers publish it, held to what they are by hashes."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from airside.actors.client.display.html import STYLE

VENDORED = {
    "htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "hx-sse.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
    "hx-csp.min.js": "a7e1e6711ae6c3e50ad300fba7936cbe8d07599cdae313414a179ddd6b26e143",
}
"""Files of htmx.org 4.0.1 (npm) as they are there, by their SHA-256; the licence is `htmx-LICENSE.txt`."""

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "txt": "text/plain; charset=utf-8"}
_NAMES = ("console.css", "console.js", *VENDORED, "htmx-LICENSE.txt")


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file, its media type, and what a page says of it so that a browser takes no other."""

    data: bytes
    media_type: str
    version: str
    integrity: str


def static_files() -> dict[str, StaticFile]:
    """Return the files by name."""
    folder = files("airside.actors.console") / "static"
    return {name: _file(name, (folder / name).read_bytes()) for name in _NAMES}


def _file(name: str, data: bytes) -> StaticFile:
    if name == "console.css":  # drawings are made for notebooks too, which have their style within
        data += f"\n{STYLE}\n".encode()
    digest = hashlib.sha384(data).digest()
    integrity = f"sha384-{base64.b64encode(digest).decode()}"
    return StaticFile(data, _TYPES[name.rpartition(".")[2]], digest.hex()[:16], integrity)
