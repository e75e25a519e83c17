"""Logging in: a credential is shown to Ingress, and a session is what the browser has of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from airside.actors.api.call import Call, look
from airside.actors.api.ports import StackPort
from airside.actors.api.problems import refusal_of
from airside.actors.console.forms import Form
from airside.actors.console.render import PREFIX
from airside.actors.console.sessions import FailedLogins, Sessions
from airside.actors.console.visits import Shown
from airside.actors.web.requests import network_of
from airside.stack.errors import Refused
from airside.stack.operations.questions import Nothing, WhoAsks
from airside.stack.reasons import ReasonCode

MAX_CREDENTIAL_CHARS = 16_384

_NEXT = re.compile(r"/console/[a-zA-Z0-9_/.-]{0,200}", re.ASCII)
_BECAUSE = {
    "session_over": "Your session is over: it was not used for half an hour, or lasted twelve. Log in again.",
    "logged_out": "You are logged out.",
}


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Somebody is: the session's id, and where to go on."""

    session_id: str
    path: str


class Logins:
    """Logs people in."""

    def __init__(self, stack: StackPort, sessions: Sessions, clock: Callable[[], float]) -> None:
        self._stack = stack
        self._sessions = sessions
        self._failed = FailedLogins(clock)

    def path(self, because: str, then: str) -> str:
        """Return where to log in: why that is needed, and where one wanted to go."""
        given = [("because", because), ("next", then if _NEXT.fullmatch(then) else "")]
        query = "&".join(f"{name}={value}" for name, value in given if value)
        return f"{PREFIX}/login" + (f"?{query}" if query else "")

    def page(self, query: Form) -> Shown:
        """Show the page to log in by."""
        because = query.get("because")
        return _page(query.get("next"), _because(because), tone="good" if because == "logged_out" else "bad")

    async def log_in(self, form: Form, address: str) -> LoggedIn | Shown:
        """Log somebody in, or show the page again with why not."""
        credential, then = form.get("credential").strip(), form.get("next")
        address = network_of(address)
        if wait_s := self._failed.wait_s(address):
            return _page(then, f"Too many attempts from here have failed: try again in {wait_s:.0f} s.", status=429)
        if not 0 < len(credential) <= MAX_CREDENTIAL_CHARS:
            return _page(then, "Give the token or the API key that you were given.", status=422)
        self._failed.begin(address)
        try:
            who = await who_is(self._stack, credential)
        except Refused as refusal:
            if refusal_of(refusal.reason).status != 401:
                self._failed.succeed(address)
            return _page(then, refusal.message, status=refusal_of(refusal.reason).status)
        except BaseException:
            self._failed.succeed(address)  # nobody has said that it is no credential
            raise
        self._failed.succeed(address)
        session_id = self._sessions.open(credential, who)
        return LoggedIn(session_id, then if _NEXT.fullmatch(then) else f"{PREFIX}/now")


async def who_is(stack: StackPort, credential: str) -> WhoAsks:
    """Return who holds a credential, as Ingress says; raise `Refused` for nobody."""
    call = Call(stack=stack, credential=credential, path={}, headers={})
    return msgspec.json.decode(await look(call, "me", Nothing()), type=WhoAsks)


def _because(code: str) -> str:
    """Return why somebody has to log in again, of the reasons there are."""
    if code in _BECAUSE:
        return _BECAUSE[code]
    known = ReasonCode._value2member_map_.get(code)
    return f"{known.sentence} Log in again." if isinstance(known, ReasonCode) else ""


def _page(then: str, problem: str, *, status: int = 200, tone: str = "bad") -> Shown:
    context = {"next": then if _NEXT.fullmatch(then) else "", "problem": problem, "tone": tone}
    return Shown("login.html", context, status=status)
