"""The command line as Markdown, made of the commands' own help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from airside.cli import app


def root() -> Any:
    """Return the whole command line."""
    return typer.main.get_command(app)


def commands(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that does something, with the words that name it."""
    command = root() if command is None else command
    children = getattr(command, "commands", {})
    if words and (not children or command.invoke_without_command):
        yield words, command
    for name, child in children.items():
        if not child.hidden:
            yield from commands(child, (*words, name))


def reference() -> str:
    """Return a section a command: what it does, and a row for each of its arguments and options."""
    return "\n\n".join("\n".join(_section(words, command)) for words, command in sorted(commands(), key=lambda c: c[0]))


def _section(words: tuple[str, ...], command: Any) -> Iterator[str]:
    placed = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in command.params if _is_argument(p)]
    yield f"### `airside {' '.join([*words, *placed])}`"
    yield ""
    yield " ".join(command.help.split())
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    if rows:
        yield ""
        yield "| argument or option | is |"
        yield "|---|---|"
        yield from rows


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _row(parameter: Any) -> str:
    names = [parameter.name.upper()] if _is_argument(parameter) else [*parameter.opts, *parameter.secondary_opts]
    notes = [" ".join((parameter.help or "").split()).replace("|", "\\|")]
    if parameter.required and not _is_argument(parameter):
        notes.append("required")
    if parameter.default not in (None, "", False, 0):
        notes.append(f"default `{parameter.default}`")
    if getattr(parameter, "envvar", None):
        notes.append(f"or `{parameter.envvar}`")
    return f"| `{'`, `'.join(names)}` | {'; '.join(notes)} |"
