"""Public names of a package that are imported when they are first asked for, so that importing the package is light."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return a package's `__getattr__`, `__dir__` and `__all__` for names that live in the modules `homes` gives.

    A name that is none raises `AttributeError`, as it does in any module.
    """
    module_of = {name: module for module, names in homes.items() for name in names}
    names = sorted(module_of)

    def get(name: str) -> Any:
        module = module_of.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(module), name)

    return get, lambda: list(names), names
