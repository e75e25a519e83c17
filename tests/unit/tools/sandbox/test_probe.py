"""The probe of sandboxes tells by breaking out which protections hold, whatever a machine says it has."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from airside.tools.sandbox import command, probe
from airside.tools.sandbox.command import SandboxUnavailable
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.sandbox.probe import Reached, probe_sandbox

Weaken = Callable[[str, str], None]
FULL, NAMESPACES = SandboxLimits(), SandboxLimits(level="namespaces")


@pytest.fixture
def weaken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Weaken:
    """Have what confines sandboxes say one thing in place of another."""
    tmp_path.chmod(0o755)
    changed = tmp_path / "confine.py"

    def weaken(what: str, instead: str) -> None:
        source = command._CONFINE.read_text()
        assert what in source
        changed.write_text(source.replace(what, instead))
        monkeypatch.setattr(command, "_CONFINE", changed)

    return weaken


async def test_a_machine_with_everything_reaches_the_full_level() -> None:
    reached = await probe_sandbox()
    assert reached == Reached("full")
    assert not reached.problem_with(FULL) and not reached.problem_with(NAMESPACES)


async def test_without_bubblewrap_there_is_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise SandboxUnavailable("there is no bwrap")

    monkeypatch.setattr(command, "find_bwrap", missing)
    reached = await probe_sandbox()
    assert reached.level == "none" and "there is no bwrap" in reached.problem_with(NAMESPACES)


async def test_without_sandlock_there_are_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    reached = await probe_sandbox()
    assert reached.level == "namespaces" and "no sandlock" in reached.problem_with(FULL)
    assert not reached.problem_with(NAMESPACES)


BY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="bubblewrap itself makes the user namespace of others than root")
LAUNCH = "child = sandlock.Sandbox("
RULES = 'fs_readable=rules["readable"],\n        fs_writable=rules["writable"],'


@pytest.mark.parametrize(
    ("what", "instead", "seen"),
    [
        pytest.param(
            RULES,
            'fs_readable=["/"], fs_writable=["/"], disable=list(sandlock.Protection)[1:],',
            "listed / without a rule",
            id="landlock",
        ),
        pytest.param(
            LAUNCH,
            "sandlock.confine(sandlock.Sandbox(fs_readable=rules['readable'], fs_writable=rules['writable']))\n"
            "    return subprocess.Popen(command).wait\n    child = sandlock.Sandbox(",
            "called memfd_create",
            id="seccomp",
        ),
        pytest.param(
            LAUNCH, "return subprocess.Popen(command).wait\n    child = sandlock.Sandbox(", "signalled", id="both"
        ),
    ],
)
async def test_without_the_rules_within_there_are_namespaces(
    weaken: Weaken, what: str, instead: str, seen: str
) -> None:
    """One that is not enforced, though it is installed and asked for, is seen."""
    weaken(what, instead)
    reached = await probe_sandbox()
    assert reached.level == "namespaces" and seen in reached.problem_with(FULL)


@pytest.mark.parametrize(
    ("what", "instead", "seen"),
    [
        pytest.param("_libc.unshare(_CLONE_NEWUSER)", "-1", "unshare", id="no user namespaces", marks=BY_ROOT),
        pytest.param(
            '_must(_libc.unshare(_CLONE_NEWUSER), "unshare")', "return", "namespaces user", id="user", marks=BY_ROOT
        ),
        pytest.param("        os.setresuid(uid, uid, uid)\n", "", "", id="still root", marks=BY_ROOT),
        pytest.param('("NPROC", ', '("NICE", 0 and ', "more processes", id="processes"),
        pytest.param("ulimit -v", ": ", "more memory", id="memory"),
    ],
)
async def test_without_a_protection_there_is_no_sandbox(weaken: Weaken, what: str, instead: str, seen: str) -> None:
    weaken(what, instead)
    reached = await probe_sandbox()
    assert reached.level == "none" and seen in reached.reason


async def test_an_environment_that_is_passed_on_is_seen(weaken: Weaken, monkeypatch: pytest.MonkeyPatch) -> None:
    weaken("os.environ.clear()", "")
    made = probe.sandboxed_command
    monkeypatch.setattr(probe, "sandboxed_command", lambda *given, **more: made(*given, **more)[2:])
    reached = await probe_sandbox()
    assert reached.level == "none" and "a variable that was not given" in reached.reason


@pytest.mark.parametrize("name", ["pid", "net", "ipc", "uts"])
async def test_each_namespace_is_missed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    made = command._namespaces
    monkeypatch.setattr(
        command,
        "_namespaces",
        lambda limits, as_root: [each for each in made(limits, as_root=as_root) if each != f"--unshare-{name}"],
    )
    reached = await probe_sandbox()
    assert reached.level == "none"


async def test_a_probe_that_does_not_end_is_no_proof(weaken: Weaken, monkeypatch: pytest.MonkeyPatch) -> None:
    weaken("def main() -> None:\n", "def main() -> None:\n    signal.pause()\n")
    monkeypatch.setattr(probe, "PROBE_S", 0.5)
    reached = await asyncio.wait_for(probe_sandbox(), 20)
    assert reached.level == "none" and "did not end" in reached.reason
