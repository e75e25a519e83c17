"""The architecture, held by reading the source: who may import whom, and what may be imported at all."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {"stack": 0, "memory": 1, "tools": 1, "actors": 2}
MAY_IMPORT_RAY = {"actors", "benchmarks", "tests"}
_ORDER = {
    "stack": """
        lazy_names errors flag canonical ids short_ids calling reasons values
        text input schema resources contracts run budget scheduling issuers directory webhooks security journal
        approvals ports models provenance policy cycle operations recovery
    """,
    "memory": """
        text comparison records lineage rules privacy embedders search embedding writing storage evaluation tenant
        service in_memory
    """,
    "tools": """
        sandbox signature secrets tool keeping builtin circuit_breakers read_cache runners mcp result_cache used_grants
        grant_checks dispatch resolving in_memory
    """,
    "actors": """
        settings http_settings job_inputs pickling process rpc wardens models journal approvals jobs app policy memory
        run_owners news rule_counts operating intake executor runtime driver views looking issuers ingress client
        web gateway api console http_layer launch audit replay
    """,
}
ORDER = {folder: names.split() for folder, names in _ORDER.items()}
"""The packages of each folder, and the modules beside them: each imports only what stands before it."""

CORE = sorted(path for layer in ("stack", "memory", "tools") for path in (ROOT / layer).rglob("*.py"))
ACTORS = sorted((ROOT / "actors").rglob("*.py"))
ENTRY = sorted(
    path
    for pattern in ("*.py", "adapters/*.py", "batches/*.py", "bench/*.py", "demo/**/*.py", "http_client/*.py")
    for path in (ROOT / "airside").glob(pattern)
)
"""The package's own files; its `stack`, `memory`, `tools` and `actors` are links to the folders beside it."""

FACES = (ROOT / "memory" / "__init__.py", ROOT / "tools" / "__init__.py")
"""What a folder offers apps, by names that are imported only when they are asked for; they stand above the folders."""

SHIPPED = [*CORE, *ACTORS, *ENTRY]
SOURCES = sorted(
    [*CORE, *ACTORS, *(path for folder in ("benchmarks", "examples") for path in (ROOT / folder).rglob("*.py"))]
)


def name_of(path: Path) -> str:
    """Return a source's path within the repository."""
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[int, int, str]]:
    """Yield line, level and module of every import, those inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, 0, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.level, node.module or ""


def test_the_sources_are_found() -> None:
    assert len(CORE) > 25 and {path.parent.name for path in CORE} >= {"stack", "memory", "tools"}
    assert len(ACTORS) > 15 and {path.parent.name for path in ENTRY} >= {
        "airside",
        "adapters",
        "batches",
        "bench",
        "demo",
        "http_client",
    }
    linked = {path.name for path in (ROOT / "airside").iterdir() if path.is_symlink()}
    folders = {path.name for path in (ROOT / "airside").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert linked == set(LAYERS) and folders - linked == {"adapters", "batches", "bench", "demo", "http_client"}, (
        "nothing of the package is left out"
    )


@pytest.mark.parametrize("path", [*SOURCES, *ENTRY], ids=name_of)
def test_ray_is_imported_only_where_it_may_be(path: Path) -> None:
    allowed = path.relative_to(ROOT).parts[0] in MAY_IMPORT_RAY
    found = [line for line, _, module in imports(path) if module.split(".")[0] == "ray"]
    assert allowed or not found, f"{name_of(path)}:{found[0]} imports ray"


LAYERED = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in LAYERS and path not in FACES]


@pytest.mark.parametrize("path", LAYERED, ids=name_of)
def test_a_layer_imports_only_itself_and_lower_ones(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    for line, _, module in imports(path):
        parts = module.split(".")
        if parts[0] != "airside":
            assert parts[0] not in ("examples", "tests", "benchmarks"), f"{name_of(path)}:{line} imports {module}"
            continue
        other = parts[1] if len(parts) > 1 else ""
        assert other == layer or LAYERS.get(other, 99) < LAYERS[layer], f"{name_of(path)}:{line} imports {module}"


def module_of(path: Path) -> tuple[str, ...]:
    """Return a source of the four folders as a module's name in parts, without `airside`."""
    return path.relative_to(ROOT).with_suffix("").parts


def of_its_own_folder(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and package, or module beside the packages, of what a source imports of its own top folder."""
    folder = module_of(path)[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[:2] == ["airside", folder] and len(parts) > 2:
                yield node.lineno, parts[2]


@pytest.mark.parametrize("folder", sorted(ORDER))
def test_the_order_names_every_package_of_a_folder_once(folder: str) -> None:
    """And every module beside them, so that nothing new is without a place."""
    there = {path.stem for path in (ROOT / folder).iterdir() if path.suffix == ".py" and path.stem != "__init__"}
    there |= {path.parent.name for path in (ROOT / folder).glob("*/*.py")}
    assert sorted(ORDER[folder]) == sorted(there)


@pytest.mark.parametrize("path", [*CORE, *ACTORS], ids=name_of)
def test_a_package_imports_only_those_before_it(path: Path) -> None:
    """So that no packages of a folder import each other, not even under TYPE_CHECKING or within a function."""
    folder, own = module_of(path)[:2]
    if own == "__init__":
        return
    before = ORDER[folder][: ORDER[folder].index(own) + 1]
    late = [f"{name_of(path)}:{line} imports {name}" for line, name in of_its_own_folder(path) if name not in before]
    assert not late


INITS = sorted(path for layer in LAYERS for path in (ROOT / layer).glob("*/**/__init__.py"))


@pytest.mark.parametrize("path", INITS, ids=name_of)
def test_a_packages_init_holds_its_docstring_alone(path: Path) -> None:
    """It exports nothing a second time, and importing one module of it imports no other."""
    (docstring,) = ast.parse(path.read_text("utf-8")).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)


@pytest.mark.parametrize("path", [*SOURCES, *ENTRY], ids=name_of)
def test_imports_are_absolute_and_go_through_airside(path: Path) -> None:
    for line, level, module in imports(path):
        assert level == 0, f"{name_of(path)}:{line} is a relative import"
        assert module.split(".")[0] not in LAYERS, f"{name_of(path)}:{line}: write airside.{module}"


@pytest.mark.parametrize("path", sorted((ROOT / "stack").rglob("*.py")), ids=name_of)
def test_the_core_takes_its_clock_and_its_randomness_as_arguments(path: Path) -> None:
    secret_makers = {"ids.py", "keyring.py", "authenticator.py"}
    forbidden = {"random", "time", "threading", "socket", "subprocess"} | (
        set() if path.name in secret_makers else {"secrets"}
    )
    found = [(line, module) for line, _, module in imports(path) if module.split(".")[0] in forbidden]
    assert not found, f"{name_of(path)}: {found}"
    calls = [n.attr for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Attribute)]
    assert not {"now", "utcnow", "today", "urandom"} & set(calls), name_of(path)


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_every_module_and_public_name_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), f"{name_of(path)} says nothing of itself"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            overload = any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)
            assert overload or ast.get_docstring(node), f"{name_of(path)}:{node.lineno} {node.name}"


def test_importing_airside_or_the_core_pulls_in_nothing_heavy() -> None:
    core = [".".join(("airside", *module_of(path))) for path in CORE if module_of(path)[0] == "stack"]
    code = (
        "import importlib, sys, airside\n"
        "heavy = {'ray', 'torch', 'lancedb', 'duckdb', 'pyarrow', 'sentence_transformers'}\n"
        "assert not heavy & set(sys.modules), ('airside', heavy & set(sys.modules))\n"
        f"for name in {[*core, 'airside.tools.dispatch', 'airside.tools.in_memory', 'airside.memory.in_memory']!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert not heavy & set(sys.modules), (name, heavy & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_unit_tests_stand_where_what_they_test_stands() -> None:
    """`tests/unit/stack/run` tests `stack/run`; a test at the top of `tests/` is about the repository."""
    folders = {
        path.parent.relative_to(ROOT / "tests" / "unit") for path in (ROOT / "tests" / "unit").rglob("test_*.py")
    }
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder).is_dir()] == []
