"""A PostgreSQL server for tests: a real one, in a folder of its own, that can be stopped, killed and started again."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest


def binaries() -> Path | None:
    """Return the folder of the server's programs, None where there is none."""
    found = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "postgres").exists()), None)


class Server:
    """A server on a unix socket in its folder; run by somebody who is not root, which it refuses."""

    def __init__(
        self, *options: str, hba: str = "local all,replication all trust\n", copy_of: Server | None = None
    ) -> None:
        """Make and start one; with `copy_of` as a standby of another, which is to have `name` among its own."""
        programs = binaries()
        if programs is None:
            pytest.skip("no PostgreSQL server on this machine")
        self._programs = programs
        self._numbers = itertools.count(1)
        self.folder = tempfile.mkdtemp(dir="/tmp", prefix="airside-pg-")  # nobody else could reach pytest's own
        self.data = Path(self.folder, "data")
        self._who: dict[str, Any] = {}
        self._options = " ".join(["-k", self.folder, "-c listen_addresses=''", *options])
        if os.getuid() == 0:
            shutil.chown(self.folder, "nobody")
            self._who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        try:
            if copy_of is None:
                self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
                (self.data / "pg_hba.conf").write_text(hba)
            else:
                source = f"host={copy_of.folder} user=postgres application_name=standby"
                self._run("pg_basebackup", "-D", str(self.data), "-d", source, "-R", "-X", "stream", "-c", "fast")
            self.start()
        except BaseException:
            self.close()
            raise

    def _run(self, program: str, *arguments: str) -> None:
        environment = {"PATH": f"{self._programs}:/usr/bin:/bin", "LC_ALL": "C"}
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, **self._who)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr or done.stdout}")

    def _ctl(self, *arguments: str) -> None:
        # Its log is a file: what the server inherits of a pipe would be held open for as long as it runs.
        command = [str(self._programs / "pg_ctl"), "-D", str(self.data), "-w", "-l", f"{self.folder}/log", *arguments]
        environment = {"PATH": f"{self._programs}:/usr/bin:/bin", "LC_ALL": "C"}
        done = subprocess.run(command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, **self._who)
        if done.returncode:
            raise RuntimeError(f"pg_ctl {arguments}: {Path(self.folder, 'log').read_text()[-2000:]}")

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._ctl("-o", self._options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; its sessions end."""
        self._ctl("-m", mode, "stop")

    def promote(self) -> None:
        """Have a standby be the primary."""
        self._ctl("promote")

    def kill(self) -> None:
        """Kill every process of it, as a power cut would."""
        pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        workers = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
        for each in [pid, *map(int, workers)]:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        # Whose child it was may not have waited for it: its number would count as one of a server that runs.
        (self.data / "postmaster.pid").unlink()
        Path(self.folder, ".s.PGSQL.5432.lock").unlink()

    def close(self) -> None:
        """Stop it if it runs, and remove its folder."""
        if (self.data / "postmaster.pid").exists():
            with suppress(RuntimeError):
                self.stop("immediate")
        shutil.rmtree(self.folder)

    def admin(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Return a connection of the superuser."""
        return psycopg.connect(host=self.folder, user="postgres", dbname=database, autocommit=True)

    def new_database(self, options: str = "") -> str:
        """Make a database and return its URL."""
        name = f"journal_{next(self._numbers)}"
        with self.admin() as session:
            session.execute(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        return f"postgresql:///{name}?host={self.folder}&user=postgres"
