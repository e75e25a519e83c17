"""What the documents say, held against the code: reason codes, paths, the README's example."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import airside
from airside.actors.settings import Settings
from airside.stack.reasons import ReasonCode, status_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
FOLDERS = ("stack", "memory", "tools", "actors", "airside", "examples", "benchmarks", "tests", "docs")

_PATH = re.compile(rf"(?:`|\()((?:{'|'.join(FOLDERS)})/[\w./-]*)(?::\w+)?(?:`|\))")
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.+?) \| (.+) \|$", re.MULTILINE)
_PLACE = re.compile(r"`([\w/]+\.py):(\w+)`")
_EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SETTING = re.compile(r"^\| `(\w+)` \| (?:`([^`]+)`|([\w.]+)) \|", re.MULTILINE)

REASON_ROWS = _ROW.findall(ARCHITECTURE.partition("## Reason codes")[2].partition("\n## ")[0])


def example() -> ast.Module:
    """Return the README's example, parsed."""
    found = _EXAMPLE.search(README)
    assert found is not None
    return ast.parse(found.group(1))


def test_every_reason_code_has_exactly_one_row() -> None:
    """The table lists the members of the enum, in their order, and nothing else."""
    assert [row[0] for row in REASON_ROWS] == [str(reason) for reason in ReasonCode]


@pytest.mark.parametrize("row", REASON_ROWS, ids=lambda row: row[0])
def test_a_reason_codes_row_says_what_the_code_says(row: tuple[str, str, str, str]) -> None:
    """Sentence and status are the enum's, and the functions it is raised in exist."""
    code, status, sentence, places = row
    reason = ReasonCode(code)  # type: ignore[call-arg]
    assert sentence == reason.sentence
    assert status in ("call", "decision", str(status_of(reason)))
    found = _PLACE.findall(places)
    assert found
    for path, function in found:
        assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no {function}"


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_path_a_document_names_exists(name: str) -> None:
    """A reader who follows a path finds a file."""
    paths = set(_PATH.findall((ROOT / name).read_text(encoding="utf-8")))
    assert paths
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def test_every_module_the_readme_runs_exists() -> None:
    """`python -m X` names a module of the repository."""
    modules = set(re.findall(r"python -m ((?:benchmarks|examples|tests)[\w.]*)", README))
    assert modules
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_readmes_example_compiles_and_its_names_exist() -> None:
    """It is Python, and every `airside.X` in it is public; it is run by hand, because it starts Ray."""
    tree = example()
    compile(tree, "README.md", "exec")
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "airside"
    }
    assert used >= {"App", "start", "tool"}
    assert used <= set(airside.__all__)


def test_the_readmes_policy_and_directory_load() -> None:
    """The YAML of the example is a bundle and a directory."""
    from airside.stack.directory import load_directory
    from airside.stack.policy.bundle import load_bundle

    texts = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in example().body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper()
    }
    assert load_bundle(texts["POLICY"]).version == "first-1"
    assert set(load_directory(texts["DIRECTORY"]).tenants) == {"acme"}


def test_the_readme_lists_every_setting_with_its_default() -> None:
    """The table of settings is the fields of `Settings`, in order."""
    section = README.partition("## Settings")[2].partition("\n## ")[0]
    listed = {name: quoted or plain for name, quoted, plain in _SETTING.findall(section)}
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert list(listed) == list(defaults)
    for name, default in defaults.items():
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert listed[name] == shown.removesuffix(".0"), name
