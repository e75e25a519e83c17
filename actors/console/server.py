"""The console as an ASGI application: who may speak to it, as whom, and what is said of a refusal.

It answers by the names of loopback and those that it is told of.  What changes anything is a form that one of its own
pages has sent: the browser says so (`Origin`), and the form has the session's own token.  A page has no script and no
style within, and a browser is told to load nothing but ours.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airside.actors.api.call import Call
from airside.actors.api.ports import StackPort
from airside.actors.api.problems import code_of, problem_of
from airside.actors.console.forms import Form, form_of, query_of
from airside.actors.console.login import Logins
from airside.actors.console.render import PREFIX, render
from airside.actors.console.routes import PATH_IDS, ROUTES, PageRoute, sections
from airside.actors.console.sessions import Session, Sessions, cookie_of
from airside.actors.console.vendored import StaticFile, static_files
from airside.actors.console.visits import Elsewhere, Shown, Visit
from airside.actors.rpc.layer import logger
from airside.actors.web.requests import LOOPBACK, header_of, is_named
from airside.stack.errors import AirsideError, Refused
from airside.stack.reasons import ReasonCode

COOKIE = "airside_session"
SECURE_COOKIE = f"__Host-{COOKIE}"
"""Over TLS: a browser takes it from this very host alone, so that no neighbour of its domain can log somebody in."""

MAX_OF_SESSION = 32
"""Requests of one session at once: pages in several windows, each of which asks for what has changed."""

MAX_LOGIN_BYTES = 65_536
"""Of the form of somebody of whom nothing is known yet."""

HTML = "text/html; charset=utf-8"
_STATIC = f"{PREFIX}/static/"
_KEPT = "private, max-age=86400, immutable"
"""Of a file: its address has its hash."""

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=()"),
]
"""Of every response.  With no referrer at all a browser would not say where a form comes from."""


def _policy(nonce: str) -> bytes:
    return (
        "default-src 'none'; style-src 'self'; "
        f"script-src 'self' 'nonce-{nonce}'; connect-src 'self'; img-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types htmx"
    ).encode()


def with_console(api: ASGIApp, console: ASGIApp) -> ASGIApp:
    """Return one application of both: the console has its own paths, and the root leads to it."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        is_page = path in ("/", PREFIX) or path.startswith(f"{PREFIX}/")
        await (console if is_page else api)(scope, receive, send)

    return served


class Console:
    """Serves the table of pages; `hosts` are the names it is reached by, beside those of loopback."""

    def __init__(
        self, stack: StackPort, hosts: Sequence[str] = (), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stack = stack
        self._hosts = (*LOOPBACK, *hosts)
        self._sessions = Sessions(clock)
        self._logins = Logins(stack, self._sessions, clock)
        self._files = static_files()
        self._under_way: defaultdict[str, int] = defaultdict(int)
        paths: defaultdict[str, dict[str, PageRoute]] = defaultdict(dict)
        for route in ROUTES:
            paths[route.path][route.method] = route
        self._patterns = [(_pattern(path), by_method) for path, by_method in paths.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        nonce = secrets.token_urlsafe(16)
        response = await self._answered(_Asked(scope, receive, nonce))
        more = [*_HEADERS, (b"content-security-policy", _policy(nonce))]
        if not any(name == b"cache-control" for name, _ in response.raw_headers):
            more.append((b"cache-control", b"no-store"))

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await response(scope, receive, sent)

    async def _answered(self, asked: _Asked) -> Response:
        try:
            self._check_sender(asked)
            if asked.path.startswith(_STATIC):
                return self._file(asked)
            asked.session = self._sessions.find(asked.session_id, uses=not asked.is_part)
            if asked.path in ("/", PREFIX, f"{PREFIX}/"):
                return asked.to(f"{PREFIX}/now")
            if asked.path == f"{PREFIX}/login":
                return await self._login(asked)
            if asked.session is None:
                return self._without_session(asked)
            return await self._in_turn(asked, asked.session)
        except Exception as error:
            return self._refused(asked, error)

    def _check_sender(self, asked: _Asked) -> None:
        hosts = header_of(asked.scope, b"host")
        if len(hosts) != 1 or not is_named(hosts[0], self._hosts):
            raise Refused(f"there is nothing here by the name {', '.join(hosts)!r:.80}", reason="host")
        if asked.method == "POST" and not _is_of_own_page(asked.scope, hosts[0]):
            raise Refused("what was sent does not come from a page of the console", reason="origin")
        if asked.method not in ("GET", "HEAD", "POST"):
            raise Refused(f"the method {asked.method!r:.20} is none of this path's", reason="method_not_allowed")

    def _file(self, asked: _Asked) -> Response:
        found = self._files.get(asked.path.removeprefix(_STATIC))
        if found is None:
            raise Refused("there is no such file", reason="no_route")
        is_right = query_of(asked.scope).get("v") == found.version
        headers = {"Cache-Control": _KEPT} if is_right else {}
        return Response(found.data, headers=headers, media_type=found.media_type)

    async def _login(self, asked: _Asked) -> Response:
        """Show the page to log in by, or log somebody in."""
        if asked.method != "POST":
            return self._page(asked, self._logins.page(query_of(asked.scope)))
        form = await form_of(asked.scope, asked.receive, MAX_LOGIN_BYTES)
        reply = await self._logins.log_in(form, asked.address)
        if isinstance(reply, Shown):
            return self._page(asked, reply)
        self._sessions.close(asked.session_id)
        response = asked.to(reply.path)
        asked.keep(response, reply.session_id)
        return response

    def _without_session(self, asked: _Asked) -> Response:
        """Lead whoever is not logged in to the page for that.

        A link from another site brings no cookie: a page of our own that leads on does, if there is one.
        """
        if asked.method != "POST" and asked.headers.get("sec-fetch-site") == "cross-site":
            return self._page(asked, Shown("onward.html", {}))
        because = "session_over" if asked.session_id else ""
        where = self._logins.path(because, asked.page)
        response = asked.to(where)
        if asked.session_id:
            asked.forget(response)
        return response

    async def _in_turn(self, asked: _Asked, session: Session) -> Response:
        if self._under_way[session.csrf] >= MAX_OF_SESSION:
            raise Refused(f"{MAX_OF_SESSION} requests of this session are under way: try again", reason="too_many")
        self._under_way[session.csrf] += 1
        try:
            return await self._visited(asked, session)
        finally:
            self._under_way[session.csrf] -= 1
            if not self._under_way[session.csrf]:
                del self._under_way[session.csrf]

    async def _visited(self, asked: _Asked, session: Session) -> Response:
        form = Form([])
        if asked.method == "POST":
            form = await form_of(asked.scope, asked.receive)
            if not session.is_own_form(form.get("csrf")):
                raise Refused(
                    "the form is of another session, or was open too long: load its page again", reason="csrf"
                )
        if asked.path == f"{PREFIX}/logout":
            return self._logout(asked)
        route, ids = self._route_of(asked)
        path = {name: PATH_IDS[name](text) for name, text in ids.items()}
        call = Call(stack=self._stack, credential=session.credential, path=path, headers=asked.headers)
        visit = Visit(
            call=call,
            session=session,
            path=path,
            query=query_of(asked.scope),
            form=form,
            is_part=asked.is_part,
            goes_on=lambda: self._sessions.find(asked.session_id, uses=False) is session,
        )
        reply = await route.handle(visit)
        if isinstance(reply, Elsewhere):
            return asked.to(f"{PREFIX}{reply.path}")
        if asked.method == "HEAD" and isinstance(reply, StreamingResponse):
            return Response(media_type=reply.media_type)  # what follows would go on, and nobody would be sent it
        return reply if isinstance(reply, Response) else self._page(asked, reply)

    def _logout(self, asked: _Asked) -> Response:
        if asked.method != "POST":
            raise Refused("log out by the button on a page", reason="method_not_allowed")
        self._sessions.close(asked.session_id)
        response = asked.to(self._logins.path("logged_out", ""))
        asked.forget(response)
        return response

    def _route_of(self, asked: _Asked) -> tuple[PageRoute, dict[str, str]]:
        for pattern, by_method in self._patterns:
            if (found := pattern.fullmatch(asked.path)) is not None:
                route = by_method.get("GET" if asked.method == "HEAD" else asked.method)
                if route is None:
                    raise Refused("this page takes no such request", reason="method_not_allowed")
                return route, found.groupdict()
        raise Refused("there is no such page", reason="no_route")

    def _page(self, asked: _Asked, shown: Shown) -> Response:
        session = asked.session
        is_part = asked.is_part and bool(shown.part)
        context: dict[str, Any] = {
            "asset": self._asset,
            "nonce": asked.nonce,
            "session": session,
            "sections": sections(session.who) if session is not None else [],
            "here": asked.path.removeprefix(PREFIX),
            "said": session.take_said() if session is not None and not is_part else [],
            "refresh_s": asked.refresh_s if shown.part else 0,
            **shown.context,
        }
        page = render(shown.part if is_part else shown.template, context)
        return Response(page, shown.status, media_type=HTML)

    def _asset(self, name: str) -> StaticFile:
        return self._files[name]

    def _refused(self, asked: _Asked, error: Exception) -> Response:
        """Return what is said of a refusal; a session whose credential is none any more ends here."""
        code = code_of(error)
        if code == ReasonCode.INTERNAL_ERROR and not isinstance(error, Refused):
            logger.error("A page could not be shown.", extra={"action": "console_failed"}, exc_info=error)
        is_ours = code == ReasonCode.INTERNAL_ERROR
        problem = problem_of(code, error.message if isinstance(error, AirsideError) and not is_ours else "")
        if problem.status == 401 and asked.session is not None:
            self._sessions.close(asked.session_id)
            response = asked.to(self._logins.path(code, asked.page))
            asked.forget(response)
            return response
        status = 403 if code == "csrf" else problem.status
        if asked.is_part:
            return Response(status_code=status, headers={"HX-Reswap": "none"})
        context = {
            "title": _TITLES.get(status, "That was refused"),
            "problem": problem,
            "status": status,
            "may_pass": asked.method == "GET" and status in (429, 503),
        }
        return self._page(asked, Shown("refused.html", context, status=status))


_TITLES = {
    403: "You may not do this",
    404: "There is nothing of that name",
    409: "That is not possible as things stand",
    429: "Too much at once",
    500: "Something went wrong here",
    503: "The stack does not answer now",
}


class _Asked:
    """One request as it came."""

    def __init__(self, scope: Scope, receive: Receive, nonce: str) -> None:
        self.scope = scope
        self.receive = receive
        self.nonce = nonce
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.headers = Headers(scope=scope)
        self.session: Session | None = None
        self.is_secure = scope["scheme"] == "https"
        self._cookie, self._cookies_path = (SECURE_COOKIE, "/") if self.is_secure else (COOKIE, PREFIX)
        self.session_id = cookie_of(self.headers, self._cookie)
        self.is_part = self.method == "GET" and self.headers.get("hx-request") == "true"
        self.address: str = (scope.get("client") or ("",))[0]

    @property
    def page(self) -> str:
        """The path of the page that somebody is to be led back to, "" where it is none to go to."""
        if self.is_part:
            _, _, path = self.headers.get("hx-current-url", "").partition(self.headers["host"])
            return re.split("[?#]", path, maxsplit=1)[0]
        return "" if self.method == "POST" else self.path

    @property
    def refresh_s(self) -> int:
        """After how many seconds a browser without scripts loads the page again, 0 for never."""
        return 10 if b"refresh=10" in self.scope["query_string"].split(b"&") else 0

    def keep(self, response: Response, session_id: str) -> None:
        """Have a browser keep a session's id."""
        response.set_cookie(
            self._cookie,
            session_id,
            path=self._cookies_path,
            httponly=True,
            samesite="strict",
            secure=self.is_secure,
        )

    def forget(self, response: Response) -> None:
        """Have a browser forget it."""
        response.delete_cookie(self._cookie, path=self._cookies_path, secure=self.is_secure, httponly=True)

    def to(self, where: str) -> Response:
        """Return what leads a browser to another page of ours."""
        if self.is_part:
            return Response(headers={"HX-Redirect": where})
        return Response(status_code=303, headers={"Location": where})


def _is_of_own_page(scope: Scope, host: str) -> bool:
    """Whether a browser says that a page of this very host has sent it."""
    origins = header_of(scope, b"origin")
    if not origins:
        return header_of(scope, b"sec-fetch-site") == ["same-origin"]
    try:
        found = urlsplit(origins[0])
    except ValueError:
        return False
    schemes = ("https",) if scope["scheme"] == "https" else ("http", "https")  # behind a proxy the page's is another
    return len(origins) == 1 and found.scheme in schemes and found.netloc.lower() == host.lower()


def _pattern(path: str) -> re.Pattern[str]:
    """Return what matches a path of the table."""
    return re.compile(PREFIX + re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path))
