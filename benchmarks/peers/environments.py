"""The peers' own environments: `.venv-peers/NAME` of the repository, from the pinned `benchmarks/peers/NAME.txt`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = ("langgraph", "dbos")
_FOLDER = ROOT / ".venv-peers"
_INSTALLED = "installed.txt"
"""A copy of the requirements that were installed; an environment with others is made anew."""


def requirements(name: str) -> Path:
    """Return the file that pins what a peer needs."""
    return Path(__file__).parent / f"{name}.txt"


def interpreter(name: str) -> Path:
    """Return the Python of a peer's environment, made first if it is not there or is of other requirements."""
    folder, wanted = _FOLDER / name, requirements(name).read_text("utf-8")
    python, installed = folder / "bin" / "python", folder / _INSTALLED
    if not installed.exists() or installed.read_text("utf-8") != wanted:
        print(f"making {folder.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        # pip's own settings hold: an index or a folder of wheels that the machine names is used.
        command = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*command, "--requirement", str(requirements(name))], check=True)
        installed.write_text(wanted, encoding="utf-8")
    return python
