"""`python_sandbox` and `shell_sandbox`: a program that an agent wrote, run in a sandbox, and what it printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from airside.stack.errors import InvalidConfig
from airside.stack.values import EffectClass
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.sandbox.programs import run_program
from airside.tools.tool import Tool, tool

MAX_OUTPUT_BYTES = 64 * 1024
"""Of output, and as much of errors: more is no answer to a model, and belongs in a file."""

MAX_CODE_BYTES = 100_000
"""Of a command, which is one argument of a program, the kernel takes 131,072 bytes."""

_LONGEST = 3
"""Bytes of JSON that a byte of output may be: one that is no text is shown as three."""


def python_sandbox(
    *,
    name: str = "run_python",
    limits: SandboxLimits | None = None,
    timeout: float = 30.0,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
    scopes: Iterable[str] = (),
) -> Tool:
    """Make `run_python(code)`, which runs a Python program in a sandbox of its own and returns what it printed.

    The program has this Python and the packages that are installed with it.  `limits` say what it may use, and which
    workspace it sees; with access `write` to that the tool's effect is `write`, else `read` of medium risk.  Of output
    and of errors `max_output_bytes` are returned each.
    """
    limits, most = _checked("python_sandbox", limits, max_output_bytes)

    def run_python(code: str) -> dict[str, Any]:
        """Run a Python program, and return what it prints; it has no network and keeps no files."""
        return run_program([sys.executable, "-P", "-s", "-"], code, most)

    return tool(**_options(name, limits, timeout, most, scopes))(run_python)


def shell_sandbox(
    *,
    name: str = "run_shell",
    limits: SandboxLimits | None = None,
    timeout: float = 30.0,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
    scopes: Iterable[str] = (),
) -> Tool:
    """Make `run_shell(command)`, which runs a shell's command in a sandbox, as `python_sandbox` does a program."""
    limits, most = _checked("shell_sandbox", limits, max_output_bytes)

    def run_shell(command: str) -> dict[str, Any]:
        """Run a command of /bin/sh, and return what it prints; it has no network and keeps no files."""
        return run_program(["/bin/sh", "-c", command], "", most)

    return tool(**_options(name, limits, timeout, most, scopes))(run_shell)


def _checked(what: str, limits: SandboxLimits | None, max_output_bytes: int) -> tuple[SandboxLimits, int]:
    if not isinstance(limits, SandboxLimits | None):
        raise InvalidConfig(f"{what}: limits {limits!r:.80} is not SandboxLimits(...)")
    if type(max_output_bytes) is not int or not 1 <= max_output_bytes <= 1 << 20:
        raise InvalidConfig(f"{what}: max_output_bytes {max_output_bytes!r:.40} is not between 1 and {1 << 20:,}")
    return limits or SandboxLimits(), max_output_bytes


def _options(
    name: str, limits: SandboxLimits, timeout: float, max_output_bytes: int, scopes: Iterable[str]
) -> dict[str, Any]:
    writes = bool(limits.workspace) and limits.access == "write"
    effect: EffectClass = "write" if writes else "read"
    return {
        "name": name,
        "effect": effect,
        "risk": "medium",
        "timeout": timeout,
        "scopes": tuple(scopes),
        "sandbox": limits,
        "max_argument_bytes": MAX_CODE_BYTES,
        "max_output_bytes": 2 * _LONGEST * max_output_bytes + 1024,
    }
