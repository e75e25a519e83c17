"""PostgreSQL for `sql_query`: one SELECT in a transaction that is read only and never committed.

A statement is the query of a cursor (`DECLARE ... CURSOR FOR`), sent by the extended protocol: so the server's parser
takes one statement, which is a SELECT that changes nothing, or refuses.  What is left is what functions do; the role
must be none that may read the server's files, run programs or connect elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airside.tools.tool import ToolError

if TYPE_CHECKING:
    import psycopg

Run = Callable[[str, Sequence[Any], int], tuple[list[str], "Rows"]]

_FETCHED = 10
"""Rows that are asked for at a time: what is over the bounds is not sent, but for these."""

_CANCEL_S = 2.0
_MIN_CONNECT_S = 2
"""libpq waits no shorter than this."""

_AS_TEXT = ("date", "time", "timetz", "timestamp", "timestamptz", "interval")
"""What Python's types do not hold all of: infinity, years before Christ, months."""

_HIDDEN = ("password", "host", "hostaddr", "user", "dbname", "port", "service", "passfile", "sslpassword")
_MIN_HIDDEN = 3
"""A shorter value is nothing that a text gives away, and would be found in every word."""

_POWERS = """
WITH mine AS (
  SELECT oid, rolname, rolsuper FROM pg_catalog.pg_roles WHERE pg_catalog.pg_has_role(session_user, oid, 'MEMBER')
)
SELECT what FROM (
  SELECT 1 AS place, 'is a superuser' AS what FROM mine WHERE rolsuper
  UNION ALL
  SELECT 2, 'may act as ' || rolname FROM mine
    WHERE rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program',
                      'pg_signal_backend', 'pg_checkpoint')
  UNION ALL
  SELECT 3, 'may call ' || p.proname FROM pg_catalog.pg_proc p
    WHERE EXISTS (SELECT 1 FROM mine WHERE pg_catalog.has_function_privilege(mine.oid, p.oid, 'EXECUTE'))
      AND ((p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
            AND p.proname IN ('pg_read_file', 'pg_read_binary_file', 'pg_ls_dir', 'pg_stat_file', 'lo_import',
                              'lo_export', 'pg_reload_conf', 'pg_rotate_logfile', 'pg_promote'))
        OR EXISTS (SELECT 1 FROM pg_catalog.pg_language l WHERE l.oid = p.prolang
                     AND NOT l.lanpltrusted AND l.lanname NOT IN ('internal', 'c'))
        OR EXISTS (SELECT 1 FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
                     WHERE d.objid = p.oid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e'
                       AND e.extname IN ('dblink', 'adminpack', 'file_fdw', 'http', 'pg_net', 'pg_background',
                                         'pg_cron')))
) AS powers ORDER BY place, what LIMIT 1
"""
"""The first power of a role that a SELECT could use beside reading: on files, programs, other servers and sessions.

Of every role that the session may become, for a function sets that too.
"""


class Rows:
    """Rows of a cursor, a few at a time."""

    def __init__(self, cursor: psycopg.RawServerCursor[Any]) -> None:
        self._cursor = cursor

    def __iter__(self) -> Generator[Sequence[Any], None, None]:
        while rows := self._cursor.fetchmany(_FETCHED):
            yield from rows

    def close(self) -> None:
        """Give up the rest."""
        self._cursor.close()


@contextmanager
def opened(dsn: str, *, seconds: float, privileged: bool) -> Generator[tuple[Callable[[], None], Run], None, None]:
    """Connect, and yield what cancels a query and what runs one; raise `ToolError` for a role that may do too much."""
    import psycopg

    terms = _terms(dsn, seconds)
    try:
        connection = psycopg.connect(**terms)
    except (psycopg.Error, UnicodeError, ValueError) as error:
        raise ToolError(f"no connection to the database: {_without(terms, str(error))}") from None
    try:
        with closing(connection):
            connection.read_only = True
            if not privileged:
                _check_role(connection)
            for name in _AS_TEXT:
                connection.adapters.register_loader(name, _text_loader())

            def cancel() -> None:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=_CANCEL_S)

            def run(sql: str, parameters: Sequence[Any], limit: int) -> tuple[list[str], Rows]:
                cursor = psycopg.RawServerCursor(connection, "airside", scrollable=False)
                try:
                    cursor.execute(sql, list(parameters))
                except BaseException:
                    cursor.close()
                    raise
                return [each.name for each in cursor.description or ()], Rows(cursor)

            yield cancel, run
    except psycopg.Error as error:
        raise ToolError(f"the query was not run: {_without(terms, error.diag.message_primary or str(error))}") from None


def _terms(dsn: str, seconds: float) -> dict[str, Any]:
    """Return what to connect with: as the DSN says, but for what keeps a session harmless."""
    from psycopg.conninfo import conninfo_to_dict

    try:
        given: dict[str, Any] = conninfo_to_dict(dsn)
    except Exception:  # which says what it could not read
        raise ToolError("no connection to the database: the DSN is none that libpq reads") from None
    hosts = f"{given.get('hostaddr') or given.get('host') or ''}".split(",")
    if "sslmode" not in given and not all(map(_is_here, hosts)):
        given |= {"sslmode": "verify-full", "sslrootcert": given.get("sslrootcert", "system")}
    late_ms = int(seconds * 1000) + 1000  # for a query whose cancellation never came
    options = (
        f"{given.get('options') or ''} -c default_transaction_read_only=on -c statement_timeout={late_ms}"
        f" -c idle_in_transaction_session_timeout={late_ms} -c DateStyle=ISO"
    )
    fixed = {
        "client_encoding": "utf8",
        "connect_timeout": max(_MIN_CONNECT_S, int(seconds)),
        "options": options.strip(),
    }
    return {**given, **fixed, "application_name": "airside", "autocommit": False, "prepare_threshold": None}


def _is_here(host: str) -> bool:
    """Whether a host is this machine: a socket's folder, or a loopback address."""
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_role(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute(_POWERS).fetchone()
    if row is not None:
        raise ToolError(f"the query was not run: the database's role {row[0]}, and can do more by a SELECT than read")


def _text_loader() -> type[Any]:
    from psycopg.types.string import TextLoader

    return TextLoader


def _without(terms: dict[str, Any], text: str) -> str:
    """Return the last part of an error without anything that the DSN says."""
    told = " ".join(text.rsplit(" failed: ", 1)[-1].split())
    hidden = sorted((str(terms[name]) for name in _HIDDEN if terms.get(name)), key=len, reverse=True)
    for value in hidden:
        if len(value) >= _MIN_HIDDEN:
            told = told.replace(value, "[redacted]")
    return re.sub(r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:[0-9a-f]{1,4}:){2,}[0-9a-f:]*", "[redacted]", told)[:500]
