"""What a form sends: names and texts, bounded before they are read."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

from airside.actors.web.listening import BODY_S
from airside.actors.web.requests import header_of, in_time
from airside.stack.errors import Refused
from airside.stack.values import MAX_REQUEST_BYTES

MAX_FORM_BYTES = 3 * MAX_REQUEST_BYTES + 65_536
"""A call's arguments, each byte of which a browser may write as three characters, and what is round them."""

MAX_FIELDS = 1_000
MAX_QUERY_CHARS = 8_192
_MEDIA_TYPE = "application/x-www-form-urlencoded"


class Form:
    """The fields of a form, or of an address."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def get(self, name: str, otherwise: str = "") -> str:
        """Return a field's text, the first one's of several."""
        return next((value for key, value in self._pairs if key == name), otherwise)

    def all(self, name: str) -> list[str]:
        """Return the texts of all fields of a name."""
        return [value for key, value in self._pairs if key == name]

    def within(self, prefix: str) -> dict[str, str]:
        """Return the fields whose names begin with this, without it."""
        return {key.removeprefix(prefix): value for key, value in self._pairs if key.startswith(prefix)}


def query_of(scope: Scope) -> Form:
    """Return the query of an address; raise `Refused` for what is none."""
    data: bytes = scope["query_string"]
    if len(data) > MAX_QUERY_CHARS:
        raise Refused(f"the address has more than {MAX_QUERY_CHARS:,} characters", reason="malformed")
    return _parsed(data)


async def form_of(scope: Scope, receive: Receive, most_bytes: int = MAX_FORM_BYTES) -> Form:
    """Return the form that a request brings; raise `Refused` for what is none, is too long, or does not come."""
    said = header_of(scope, b"content-type")
    if len(said) != 1 or said[0].partition(";")[0].strip().lower() != _MEDIA_TYPE:
        raise Refused("a page's form is what is taken here", reason="media_type")
    part, data = in_time(receive, BODY_S), bytearray()
    while True:
        message = await part()
        if message["type"] != "http.request":
            raise Refused(f"the form was not there in {BODY_S:.0f} s", reason="late")
        data += message.get("body", b"")
        if len(data) > most_bytes:
            raise Refused(f"the form has more than {most_bytes:,} bytes", reason="too_large")
        if not message.get("more_body", False):
            return _parsed(bytes(data))


def _parsed(data: bytes) -> Form:
    try:
        text = data.decode("ascii")
        return Form(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS))
    except ValueError:
        raise Refused("what was sent cannot be read as a form", reason="malformed") from None
