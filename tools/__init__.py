"""Tools: how they are declared (`tool`), how a granted call is carried out (`dispatch`), what runs it (`runners`),
what it is given of a tenant's secrets, and that nothing shows them (`secrets`).

    from airside.tools import NOT_DONE, InDoubt, ProcessLimits, http_request

`builtin` are tools that come with Airside, each made by a factory (but for `python_code`, which reaches nothing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airside.stack.lazy_names import lazy_names

if TYPE_CHECKING:
    from airside.tools.builtin.ask_human import ask_human
    from airside.tools.builtin.http_request import AllowedUrl, http_request
    from airside.tools.builtin.programs import python_sandbox, shell_sandbox
    from airside.tools.builtin.python_code import python_code
    from airside.tools.builtin.send_email import send_email
    from airside.tools.builtin.sql_query import sql_query
    from airside.tools.builtin.workspace import workspace_tools
    from airside.tools.sandbox.command import sandboxed_command
    from airside.tools.sandbox.limits import SandboxLimits
    from airside.tools.secrets.providers import EnvironmentSecrets, FileSecrets, SecretsProvider
    from airside.tools.tool import NOT_DONE, InDoubt, ProcessLimits

_HOME = {
    "airside.tools.builtin.ask_human": ["ask_human"],
    "airside.tools.builtin.http_request": ["AllowedUrl", "http_request"],
    "airside.tools.builtin.programs": ["python_sandbox", "shell_sandbox"],
    "airside.tools.builtin.python_code": ["python_code"],
    "airside.tools.builtin.send_email": ["send_email"],
    "airside.tools.builtin.sql_query": ["sql_query"],
    "airside.tools.builtin.workspace": ["workspace_tools"],
    "airside.tools.sandbox.command": ["sandboxed_command"],
    "airside.tools.sandbox.limits": ["SandboxLimits"],
    "airside.tools.secrets.providers": ["EnvironmentSecrets", "FileSecrets", "SecretsProvider"],
    "airside.tools.tool": ["NOT_DONE", "InDoubt", "ProcessLimits"],
}

__all__ = [  # noqa: RUF022 - as `sorted` has it, which a test holds
    "AllowedUrl",
    "EnvironmentSecrets",
    "FileSecrets",
    "InDoubt",
    "NOT_DONE",
    "ProcessLimits",
    "SandboxLimits",
    "SecretsProvider",
    "ask_human",
    "http_request",
    "python_code",
    "python_sandbox",
    "sandboxed_command",
    "send_email",
    "shell_sandbox",
    "sql_query",
    "workspace_tools",
]

__getattr__, __dir__, _ = lazy_names(__name__, _HOME)
