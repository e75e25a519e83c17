"""Tools: how they are declared (`tool`), how a granted call is carried out (`dispatch`), what runs it (`runners`).

from airside.tools import NOT_DONE, InDoubt, ProcessLimits
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airside.stack.lazy_names import lazy_names

if TYPE_CHECKING:
    from airside.tools.tool import NOT_DONE, InDoubt, ProcessLimits

_HOME = {"airside.tools.tool": ["NOT_DONE", "InDoubt", "ProcessLimits"]}

__all__ = ["NOT_DONE", "InDoubt", "ProcessLimits"]

__getattr__, __dir__, _ = lazy_names(__name__, _HOME)
