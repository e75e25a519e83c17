"""Sessions with the PostgreSQL server that keeps a journal's log: how they are begun, and what the server must be like.

The extra `postgres` brings the driver.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airside.actors.journal.named_sql import load_sql
from airside.stack.errors import InvalidConfig, Unreachable, Unreadable

if TYPE_CHECKING:
    from psycopg import Connection

SCHEMES = ("postgresql://", "postgres://")
SQL = load_sql("postgres_log.sql")

OLDEST_SERVER = 150_000
FORMAT = 1

_TERMS: dict[str, str | int] = {
    "connect_timeout": 5,
    # A server that is gone without a word is known to be after some ten seconds.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "target_session_attrs": "read-write",
}
"""Where the URL says nothing else.  Of several hosts the one that takes writes is the primary."""

_OWN_SIDE = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}
"""As soon the server gives up a session whose process is gone, and what that session has locked."""

_SECRETS = ("password", "sslpassword", "oauth_client_secret")

WRITER: Mapping[str, str] = {**_OWN_SIDE, "statement_timeout": "30s", "lock_timeout": "10s"}
READER: Mapping[str, str] = {**_OWN_SIDE, "statement_timeout": "120s", "default_transaction_read_only": "on"}

WRITER_S, READER_S = 35.0, 125.0
"""How long an answer is waited for: a little longer than the server takes to give a statement up."""

LOST = ("08", "57P")
"""SQLSTATEs after which a session is gone: its connection failed, or the server ended it or stops."""


def check_url(url: str) -> None:
    """Raise `InvalidConfig` for what is no URL of a database, or has a password in it."""
    if not url.startswith(SCHEMES):
        scheme = url.partition("://")[0][:40] if "://" in url else ""  # else it may be anything, also a password
        raise InvalidConfig(f"journal: {scheme!r} is no scheme of a journal's database: give postgresql://...")
    if any(_terms(url).get(secret) for secret in _SECRETS):
        raise InvalidConfig(
            "journal: the URL has a password in it, which would be kept in the state directory and sent to every "
            "process: put it where libpq looks for one on the journal's node: ~/.pgpass, PGPASSFILE or a service file"
        )


def where(url: str) -> str:
    """Return a database as people are told of it."""
    terms = _terms(url)
    host = terms.get("host") or terms.get("hostaddr") or terms.get("service") or "the local socket"
    port = f":{terms['port']}" if terms.get("port") else ""
    return f"PostgreSQL database {terms.get('dbname') or terms.get('user') or ''!r} at {host}{port}"


def _terms(url: str) -> dict[str, Any]:
    psycopg = driver()
    try:
        return dict(psycopg.conninfo.conninfo_to_dict(url))
    except psycopg.ProgrammingError as error:
        said = str(error).split('"', 1)[0].strip()  # what is quoted behind it may have a password in it
        raise InvalidConfig(f"journal: no URL of a PostgreSQL database: {said}") from None


def driver() -> Any:
    """Return the driver; raise `InvalidConfig` where it is not installed."""
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError as error:
        raise InvalidConfig(
            f"journal: keeping it in PostgreSQL needs the extra `postgres` (pip install 'airside[postgres]'): {error}"
        ) from None
    return psycopg


def connected(url: str, settings: Mapping[str, str], *, answer_s: float, name: str = "airside") -> Connection[Any]:
    """Return a session; raise `Unreachable` if there is none to be had now, and `Unreadable` for a server unfit.

    An answer that does not come within `answer_s` is a connection that is lost.
    """
    psycopg = driver()
    terms = {**_TERMS, **_terms(url), "client_encoding": "UTF8", "application_name": name}
    try:
        session: Connection[Any] = _bounded(answer_s).connect("", **terms, autocommit=True, prepare_threshold=1)
    except (psycopg.Error, UnicodeError) as error:
        raise Unreachable(f"{where(url)} does not answer: {said(error)}") from None
    try:
        session.execute(
            "SELECT " + ", ".join("set_config(%s, %s, false)" for _ in settings),
            [each for setting in settings.items() for each in setting],
        )
        _check_server(url, session)
    except psycopg.Error as error:
        session.close()
        raise Unreachable(f"{where(url)} does not answer: {said(error)}") from None
    except BaseException:
        session.close()
        raise
    return session


@functools.cache
def _bounded(answer_s: float) -> Any:
    """Return the class of sessions that wait no longer for an answer.

    A server's own bounds do not hold for a process of its that is frozen, nor for a commit that waits for a standby.
    """

    class Bounded(driver().Connection):  # type: ignore[misc]
        def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
            return super().wait(gen, *args, **{"timeout": answer_s, **options})

    return Bounded


def _check_server(url: str, session: Connection[Any]) -> None:
    version, encoding, fsync, pages, commit = session.execute(SQL["server"]).fetchall()[0]
    wrong = [
        text
        for text, is_so in (
            (f"it is version {version // 10_000}, and 15 is the oldest that is taken", version < OLDEST_SERVER),
            (f"its encoding is {encoding}: make the database with ENCODING 'UTF8'", encoding != "UTF8"),
            ("it runs with fsync off: what is acknowledged may be lost", fsync != "on"),
            ("it runs with full_page_writes off: a crash may damage what is there", pages != "on"),
        )
        if is_so
    ]
    if wrong:
        raise Unreadable(f"{where(url)} cannot keep a journal: {'; '.join(wrong)}")
    if commit in ("off", "local"):
        session.execute("SET synchronous_commit = on")


def said(error: BaseException) -> str:
    """Return what an error of the driver's says, in one line."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    return " ".join(str(primary or error).split())[:500]


def is_lost(session: Connection[Any], error: BaseException) -> bool:
    """Whether a session is gone with an error, so that nobody knows what became of what was asked of it last."""
    state = getattr(error, "sqlstate", None) or ("08" if isinstance(error, driver().OperationalError) else "")
    return session.closed or state.startswith(LOST)
