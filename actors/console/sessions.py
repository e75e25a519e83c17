"""Who is logged in: sessions, in memory, each with a credential that leaves the server in no page; and who fails to.

A browser has nothing but a random id, in a cookie that no script reads.  A session ends when it was not used for
`IDLE_S`, and after `LONGEST_S` in any case; all end with the server.  What is asked for by itself (a page that brings
itself up to date) is no use of it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from airside.stack.operations.questions import WhoAsks

IDLE_S = 30 * 60.0
LONGEST_S = 12 * 3600.0

MAX_SESSIONS = 2_000
"""Of all people together: the one not used for longest makes room."""

MAX_OF_CREDENTIAL = 16
"""Of one credential: browsers that it is logged in with."""

FAILED_LOGINS = 10
FAILED_WITHIN_S = 60.0
"""So often an address may fail to log in within that time; who guesses finds nothing, and costs little."""

_ADDRESSES = 10_000
_ID_BYTES = 32
_MAX_SAID = 8


class Said(NamedTuple):
    """What is to be said on the next page."""

    tone: Literal["good", "bad", "wait"]
    text: str


@dataclass(slots=True, kw_only=True)
class Session:
    """Somebody in one browser.  `csrf` stands in each form, so that no other page can send it.

    `streams` = how many of its pages are told of news.
    """

    credential: str = field(repr=False)
    csrf: str = field(repr=False)
    who: WhoAsks
    began_s: float
    used_s: float
    streams: int = 0
    said: deque[Said] = field(default_factory=lambda: deque(maxlen=_MAX_SAID))

    @property
    def reaches_all(self) -> bool:
        """Whether something may be done beyond the person's tenant."""
        return "all" in self.who.may.values()

    def is_own_form(self, csrf: str) -> bool:
        """Whether a form is of this session; takes the same time whatever is given."""
        return hmac.compare_digest(csrf.encode(errors="replace"), self.csrf.encode())

    def say(self, tone: Literal["good", "bad", "wait"], text: str) -> None:
        """Have something said on the next page."""
        self.said.append(Said(tone, text))

    def take_said(self) -> list[Said]:
        """Return what is to be said, once."""
        found = list(self.said)
        self.said.clear()
        return found


class Sessions:
    """Used on one event loop; `clock` is of seconds, and steady."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, credential: str, who: WhoAsks) -> str:
        """Log somebody in, and return the new session's id, which is nowhere else."""
        now_s = self._clock()
        of_credential = [key for key, each in self._open.items() if each.credential == credential]
        for key in of_credential[: max(0, len(of_credential) + 1 - MAX_OF_CREDENTIAL)]:
            del self._open[key]
        session_id = secrets.token_urlsafe(_ID_BYTES)
        self._open[_key(session_id)] = Session(
            credential=credential, csrf=secrets.token_urlsafe(_ID_BYTES), who=who, began_s=now_s, used_s=now_s
        )
        if len(self._open) > MAX_SESSIONS:
            self._open.popitem(last=False)
        return session_id

    def find(self, session_id: str, *, uses: bool = True) -> Session | None:
        """Return a session that goes on, used now if it `uses` it; one whose time is over is forgotten."""
        key, now_s = _key(session_id), self._clock()
        session = self._open.get(key)
        if session is None:
            return None
        if now_s - session.used_s >= IDLE_S or now_s - session.began_s >= LONGEST_S:
            del self._open[key]
            return None
        if uses:
            session.used_s = now_s
            self._open.move_to_end(key)
        return session

    def close(self, session_id: str) -> None:
        """Log somebody out."""
        self._open.pop(_key(session_id), None)


class FailedLogins:
    """How often each address failed to log in of late; an attempt counts as failed until it has succeeded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Return for how long an address is not to try, 0 if it may."""
        times, now_s = self._failed.get(address, deque()), self._clock()
        while times and now_s - times[0] >= FAILED_WITHIN_S:
            times.popleft()
        return times[0] + FAILED_WITHIN_S - now_s if len(times) >= FAILED_LOGINS else 0.0

    def begin(self, address: str) -> None:
        """Count an attempt."""
        self._failed.setdefault(address, deque(maxlen=FAILED_LOGINS)).append(self._clock())
        self._failed.move_to_end(address)
        if len(self._failed) > _ADDRESSES:
            self._failed.popitem(last=False)

    def succeed(self, address: str) -> None:
        """Take back the attempt that was counted last."""
        times = self._failed.get(address)
        if times:
            times.pop()


def _key(session_id: str) -> bytes:
    """Return what a session is kept under: how long it takes to find says nothing of what ids there are."""
    return hashlib.sha256(session_id.encode(errors="replace")).digest()


def cookie_of(headers: Mapping[str, str], name: str) -> str:
    """Return the value of a cookie, nothing if it is not there, or twice."""
    found = [
        value.strip()
        for part in headers.get("cookie", "").split(";")
        for key, equals, value in (part.partition("="),)
        if equals and key.strip() == name
    ]
    return found[0] if len(found) == 1 else ""
