"""The built wheel holds every module, and nothing but `airside`.  Run by CI after `make wheel`."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def wheel() -> Path:
    """Return the one wheel in dist/."""
    found = list((ROOT / "dist").glob("airside-*.whl"))
    assert len(found) == 1, "run `make wheel` first"
    return found[0]


def test_the_wheel_holds_every_module_and_data_file() -> None:
    """Each tracked source file of the five folders is in the wheel under `airside/`."""
    names = set(zipfile.ZipFile(wheel()).namelist())
    expected = {
        f"airside/{path.relative_to(ROOT)}"
        for folder in ("stack", "actors", "memory", "tools")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".sql", ".yaml", ".html"} or path.parent.name == "static"
    }
    expected |= {
        str(path.relative_to(ROOT))
        for path in (ROOT / "airside").rglob("*")
        if path.suffix in {".py", ".yaml", ".typed"} and not path.is_symlink()
    }
    assert expected <= names, sorted(expected - names)


def test_the_wheel_holds_nothing_else() -> None:
    """No top-level `tools` or `memory` that would collide with anybody's own modules."""
    names = zipfile.ZipFile(wheel()).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"airside"}


def test_the_wheel_works_where_it_is_unpacked(tmp_path: Path) -> None:
    """The command line of the unpacked wheel answers, from the wheel's own files."""
    zipfile.ZipFile(wheel()).extractall(tmp_path)
    code = "import airside, airside.cli, airside.demo.app, airside.actors.launch; print(airside.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip().startswith(str(tmp_path))
