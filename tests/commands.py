"""Running the command line in the test's own process."""

from __future__ import annotations

import sys

import pytest

from airside.cli import main


def airside(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a command and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["airside", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)
