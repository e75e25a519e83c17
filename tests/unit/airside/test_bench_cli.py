"""`airside bench`: what it exits with, and what it says of what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from airside import bench_cli
from airside.cli import main


def code_of(*arguments: str) -> int:
    """Return what the command exits with."""
    with pytest.raises(SystemExit) as stop:
        main(["bench", *arguments])
    return int(stop.value.code or 0)


@pytest.mark.parametrize(
    ("met", "void", "code"), [(True, False, 0), (False, False, 3), (True, True, 4), (False, True, 4)]
)
def test_the_exit_code_says_whether_objectives_were_met(
    met: bool, void: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is void says nothing of objectives.  The last line is the summary."""
    summary = {"slo_met": met, "void": void}
    monkeypatch.setattr(bench_cli, "_measured", lambda *_: summary)
    assert code_of("--tenants", "2") == code
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == summary


def test_a_library_that_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started."""
    monkeypatch.setitem(sys.modules, "hdrh", None)
    assert code_of() == 2
    assert "bench needs hdrh" in (said := capsys.readouterr().err) and "pip install 'airside[bench]'" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--slo", "fast"), "--slo 'fast'"),
        (("--tenants", "0"), "--tenants 0"),
        (("--mix", "think=1"), "--mix 'think'"),
        (("--steps", "0"), "--steps 0"),
        (("--replay", "/nowhere"), "/nowhere"),
    ],
)
def test_a_misuse_is_one_line(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing is started."""
    assert code_of(*arguments) == 2
    assert said in (line := capsys.readouterr().err) and line.count("\n") == 1


@pytest.mark.parametrize("content", [None, "no json", "[]", '{"format": 2, "phases": {}}'])
def test_what_is_no_result_is_not_compared(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said which file."""
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert code_of("--compare", str(tmp_path), str(tmp_path)) == 2
    assert "--compare" in capsys.readouterr().err


def test_two_results_are_compared_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given as folders or files; figures of one only are left out."""
    results: dict[str, Any] = {"format": 1, "capacity_runs_per_s": 10.0, "ceiling_runs_per_s": 0.0, "phases": {}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert code_of("--compare", str(tmp_path), str(tmp_path / "results.json")) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) == {"capacity_runs_per_s"} and found["capacity_runs_per_s"]["low"] is None
