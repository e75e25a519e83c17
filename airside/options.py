"""What the commands of several files share: the options they all have, and how values are shown."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence, Sized
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from airside.output import json_line
from airside.stack.errors import InvalidInput, Misuse
from airside.stack.run.story import printable


def path_of(text: str | Path) -> Path:
    """Return the path somebody means, `~` expanded; raise `InvalidInput` for what is none."""
    try:
        if "\0" in str(text) or not str(text):
            raise InvalidInput(f"{str(text)!r:.80} is no path")
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InvalidInput(f"{str(text)!r:.80}: {error}") from None


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Say of a stack that is being started, where somebody interrupts that, that it is not up."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("airside: interrupted before the stack was up: nothing was run", err=True)
        raise typer.Exit(INTERRUPTED) from None


StateDir = Annotated[
    Path, typer.Option(parser=path_of, envvar="AIRSIDE_STATE_DIR", help="where the stack keeps its state")
]
AppName = Annotated[str, typer.Option("--app", help="MODULE, or MODULE:NAME; NAME is an App or makes one")]
AppArgs = Annotated[list[str] | None, typer.Option("--app-arg", help="NAME=VALUE for what makes the app; repeatable")]
Mode = Annotated[str, typer.Option(envvar="AIRSIDE_MODE", help="dedicated or pooled")]
Why = Annotated[str, typer.Option(help="kept in the journal")]
_PART = "the run's id; six characters of its beginning or end are enough, where no other run has them"
RunOrPart = Annotated[str, typer.Argument(help=_PART)]
OfTenant = Annotated[str, typer.Option("--tenant", help="of this tenant only")]
AsJson = Annotated[bool, typer.Option("--json", help="as JSON, everything")]
HERE = Path(".airside")
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_SPAN = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def nothing_before(context: typer.Context) -> None:
    """Raise `Misuse` for an option given before a subcommand, which has options of its own and would not see it."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            raise Misuse(f"{option}: give it after `{context.invoked_subcommand}`, not before")


def renamed(context: typer.Context, old: str, new: str) -> None:
    """Say what a command is called now, beside what is read by programs, if it was given by its old name."""
    if context.info_name == old:
        typer.echo(f"airside: `{old}` is called `{new}` now; the old name goes with the next version", err=True)


def say_none(found: Sized, what: str) -> None:
    """Say that there is nothing to list, beside what is read by programs: an empty list is no silence."""
    if not found:
        typer.echo(what, err=True)


def since_of(text: str) -> datetime | timedelta | None:
    """Parse `90s`, `30m`, `2h`, `7d`, or an ISO date or time (UTC if it names no zone)."""
    if not text:
        return None
    span = _SPAN.fullmatch(text)
    if span:
        return timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"--since {text!r:.60}: write 30m, 2h, 7d, or 2026-01-31T09:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def brief(value: Any, most: int = 80) -> str:
    """Return a value as one short line: JSON, hidden characters escaped, with how much was left out."""
    text = printable(value if isinstance(value, str) else json_line(value))
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def bounded(arguments: Any, most: int = 200) -> Any:
    """Return arguments with what is long in them cut to a text that says so, for a list that stays readable."""
    if isinstance(arguments, dict):
        items = list(arguments.items())
        kept = {str(name): bounded(value, most) for name, value in items[:50]}
        return kept if len(items) <= 50 else {**kept, "...": f"{len(items) - 50} more"}
    text = arguments if isinstance(arguments, str) else json_line(arguments)
    return arguments if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return rows as aligned lines under a head."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]


def limits_of(given: Sequence[str] | None) -> dict[str, int] | None:
    """Return the limits that options name, None if there are none; raise `InvalidInput` for one that is none."""
    found: dict[str, int] = {}
    for each in given or ():
        name, equals, value = each.partition("=")
        if not equals or not value.isascii() or not value.isdecimal():
            raise InvalidInput(f"--limit {each!r:.80}: write NAME=AMOUNT, a whole number")
        found[name] = int(value)
    return found or None
