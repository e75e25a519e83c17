"""What the documents say, held against the code: blocks are run, commands parsed, tables compared, links followed."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import parse_qsl

import msgspec
import pytest
import yaml
from pydantic import BaseModel

import airside
from airside.actors.api.openapi import document_bytes
from airside.actors.api.routes import ROUTES
from airside.actors.jobs import Job, parse_job
from airside.actors.settings import Settings
from airside.directory import Directory, OidcIssuer, Principal, Tenant, load_directory
from airside.stack.approvals.book import Approval
from airside.stack.approvals.notifications import notification_of
from airside.stack.budget.ledger import UNIT
from airside.stack.input.yaml_source import load_yaml
from airside.stack.operations.questions import VIEWS
from airside.stack.policy.bundle import When, load_bundle
from airside.stack.reasons import ReasonCode, status_of
from airside.stack.security.access import AREAS
from airside.stack.values import Limits, Origin
from airside.tools.mcp.mapping import ServerMapping
from airside.tools.tool import Tool
from benchmarks.hijack_app import Book
from examples.support import app as support
from tests.api_reference import reference as api_reference
from tests.cli_reference import reference, root
from tests.test_public_names import MODULES
from tests.unit.stack.approvals.test_approvals import asked

ROOT = Path(__file__).parents[1]
FOLDERS = ("stack", "memory", "tools", "actors", "airside", "examples", "benchmarks", "tests", "docs")
DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
PAGES = sorted(path for path in DOCS.rglob("*.md") if "adr" not in path.parts and path.name != "glossary.md")
TAUGHT = [ROOT / "README.md", *PAGES]
"""What people learn Airside from; CONTRIBUTING and ARCHITECTURE are for who changes it."""

CODE_FOLDERS = {DOCS / "code-map.md", DOCS / "reference" / "reason-codes.md", *(DOCS / "internals").glob("*.md")}
"""The pages that may speak of how it is made."""

MARK = "<!-- made of the commands' help: "
ROUTES_MARK = "<!-- made of the routes: "
MAX_LINES = {"README.md": 120, "ARCHITECTURE.md": 250}

_PATH = re.compile(rf"(?:`|\()((?:{'|'.join(FOLDERS)})/[\w./-]*)(?::\w+)?(?:`|\))")
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)")
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.+?) \| (.+) \|$", re.MULTILINE)
_PLACE = re.compile(r"`([\w/]+\.py):(\w+)`")
_BLOCK = re.compile(r"^```([a-z]*)(?: ([a-z]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SETTING = re.compile(r"^\| `(\w+)` \| (?:`([^`]+)`|([\w.]+)) \|", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\b(RUN|ID|GROUP|RECORD)\b")


class Block(NamedTuple):
    """A block of a page: its language, what kind of it, and its text."""

    page: Path
    language: str
    kind: str
    text: str


def blocks(*languages: str, kinds: Sequence[str] | None = None) -> list[Block]:
    """Return the blocks of what people read, of these languages."""
    found = [Block(page, *match) for page in TAUGHT for match in _BLOCK.findall(page.read_text("utf-8"))]
    return [each for each in found if each.language in languages and (kinds is None or each.kind in kinds)]


def name_of(value: object) -> str:
    """Return a page as pytest shows it."""
    path = value.page if isinstance(value, Block) else value
    return str(path.relative_to(ROOT)) if isinstance(path, Path) else ""


def section(page: Path, title: str) -> str:
    """Return what stands under a heading."""
    text = page.read_text("utf-8").partition(f"\n## {title}\n")[2]
    assert text, f"{name_of(page)} has no section {title!r}"
    return text.partition("\n## ")[0]


def first_column(text: str) -> list[str]:
    """Return the names in the first cells of a table, those of a cell that has several each."""
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([\w.:]+)[=`(]", row)]


# Code.

PAGES_WITH_CODE = sorted({block.page for block in blocks("python")})


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=name_of)
def test_a_pages_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader would type them; of those that need a stack, all but what they do on it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    names: dict[str, Any] = {"__name__": "a_page"}
    for block in blocks("python"):
        if block.page == page:
            tree = ast.parse(block.text) if block.kind != "stack" else without_a_stack(block.text)
            exec(compile(tree, name_of(page), "exec"), names)


def test_the_readmes_app_is_the_support_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the answers recorded for one are those of the other."""
    monkeypatch.chdir(ROOT)
    (block,) = [each for each in blocks("python") if each.page == ROOT / "README.md"]
    names: dict[str, Any] = {"__name__": "a_page"}
    exec(compile(without_a_stack(block.text), "README.md", "exec"), names)
    shown, shipped = names["app"].checked(), support.create_app().checked()
    assert names["INSTRUCTIONS"] == support.INSTRUCTIONS
    assert (shown.specs, shown.directory) == (shipped.specs, shipped.directory)
    assert names["POLICY"] == support.POLICY and shown.agents.keys() == shipped.agents.keys()
    assert (names["REQUEST"], names["KNOWN"]) == (support.REQUEST, support.KNOWN)


def without_a_stack(text: str) -> ast.Module:
    """Return a block without what it does on a stack, which compiles; its imports, definitions and the app are left."""
    tree = ast.parse(text)
    compile(tree, "a block", "exec")
    tree.body = [node for node in tree.body if not isinstance(node, ast.With)]
    return tree


@pytest.mark.parametrize("block", blocks("python"), ids=name_of)
def test_a_block_imports_public_names_alone(block: Block) -> None:
    """What the documents teach stays where it is, whatever moves behind it."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "airside":
            assert node.module in MODULES, f"{node.module} is no public module"
            public = importlib.import_module(str(node.module)).__all__
            assert {alias.name for alias in node.names} <= set(public), node.module
        elif isinstance(node, ast.Import):
            assert all(alias.name in MODULES for alias in node.names if alias.name.startswith("airside"))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "airside":
            assert node.attr in airside.__all__, node.attr


@pytest.mark.parametrize("page", [page for page in TAUGHT if page not in CODE_FOLDERS], ids=name_of)
def test_what_people_learn_from_names_no_inner_module(page: Path) -> None:
    """Not in prose either: `airside.memory` is public, `airside.memory.rules` is how it is made."""
    named = set(re.findall(r"`(airside(?:\.\w+)+)", page.read_text("utf-8")))
    inner = {name for name in named if name.split(".")[1] in ("stack", "actors")}
    inner |= {name for name in named if re.match(r"airside\.(memory|tools)\.[a-z]", name)} - {"airside.memory.remember"}
    assert not inner


@pytest.mark.parametrize("block", blocks("python", kinds=["stack"]), ids=name_of)
def test_what_a_block_calls_on_a_stack_is_there(block: Block) -> None:
    """`stack.X(...)` is a method of `Stack`, and `stack.memory.X(...)` of its memory."""
    from airside.actors.client.memory_client import MemoryClient

    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute):
            of = ast.unparse(node.value)
            assert of != "stack" or hasattr(airside.Stack, node.attr), node.attr
            assert of != "stack.memory" or hasattr(MemoryClient, node.attr), node.attr


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=name_of)
def test_what_a_page_says_of_a_stack_is_there(page: Path) -> None:
    """`stack.X` and `Stack.X` in prose are public, as they are in code."""
    named = set(re.findall(r"`[sS]tack\.(\w+)", page.read_text("utf-8"))) - {"json"}  # stack.json is a file
    assert sorted(name for name in named if not hasattr(airside.Stack, name)) == []


@pytest.mark.parametrize("block", blocks("yaml"), ids=name_of)
def test_a_block_of_yaml_loads(block: Block) -> None:
    """A policy, some rules of one, a directory, scenarios of attacks, or the mapping of a tool server."""
    if block.kind == "directory":
        assert load_directory(block.text).tenants
    elif block.kind == "scenario":
        assert Book.model_validate(yaml.safe_load(block.text)).scenarios
    elif block.kind == "mapping":
        assert load_yaml(block.text, ServerMapping, name="mapping").tools
    else:
        text = block.text if block.kind == "policy" else f"version: page-1\nrules:\n{block.text}"
        assert load_bundle(text).rules


@pytest.mark.parametrize("block", blocks("json", kinds=["job"]), ids=name_of)
def test_a_job_of_a_page_is_one(block: Block) -> None:
    """Each line is what a jobs file may have."""
    for number, line in enumerate(block.text.splitlines()):
        assert isinstance(parse_job(line.encode(), number), Job)


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    """So that none is left out by a name that nobody looks for."""
    kinds = {(block.language, block.kind) for block in blocks(*{match[0] for match in _all_blocks()})}
    assert kinds <= {
        ("python", ""),
        ("python", "stack"),
        ("yaml", "policy"),
        ("yaml", "rules"),
        ("yaml", "directory"),
        ("yaml", "scenario"),
        ("yaml", "mapping"),
        ("json", "job"),
        ("console", ""),
        ("mermaid", ""),
    }


def _all_blocks() -> Iterator[tuple[str, str, str]]:
    for page in TAUGHT:
        yield from _BLOCK.findall(page.read_text("utf-8"))


# Commands.


def lines() -> list[tuple[Path, str]]:
    """Return each command of the pages, as it is typed."""
    found = [(b.page, line) for b in blocks("console") for line in b.text.splitlines()]
    return [(page, line.removeprefix("$ ")) for page, line in found]


@pytest.mark.parametrize(("page", "line"), lines(), ids=lambda each: each if isinstance(each, str) else "")
def test_a_command_of_a_page_is_one(page: Path, line: str) -> None:
    """Its words, arguments and options are those of the command line, or of Ray's; a module it runs is there."""
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    if words[0] == "airside":
        parsed(root(), _PLACEHOLDER.sub("x", line).partition("airside ")[2])
    elif words[0] == "ray":
        from ray.scripts.scripts import cli

        parsed(cli, line.partition("ray ")[2])
        _, submits, entry = line.partition(" -- ")
        if submits:
            parsed(root(), entry.partition("/airside ")[2])
    elif words[:2] == ["python", "-m"]:
        assert module_exists(words[2])
    elif words[0] == "curl":
        check_request(words)
    else:
        assert words[0] == "make" and f"\n{words[1]}:" in (ROOT / "Makefile").read_text("utf-8")


def check_request(words: list[str]) -> None:
    """Hold a request of the HTTP API against its route: the path, the query and the body are what it takes."""
    (url,) = [word for word in words if word.startswith("$API/")]
    path, _, query = url.removeprefix("$API").partition("?")
    method = "POST" if "--json" in words else "GET"
    named = re.sub(r"\$(RUN|APPROVAL)", lambda name: f"{{{name[1].lower()}_id}}", path)
    (route,) = [each for each in ROUTES if (each.method, each.path) == (method, named)]
    if query:
        assert route.query is not None
        msgspec.convert(dict(parse_qsl(query)), route.query, strict=False)
    if method == "POST":
        msgspec.json.decode(words[words.index("--json") + 1], type=route.body)


def parsed(command: Any, line: str) -> None:
    """Parse a command line without carrying it out; raise what the command line would say."""
    words = shlex.split(line)
    context = command.make_context("airside", words)
    while getattr(command, "commands", None):
        rest = [*context._protected_args, *context.args]
        if not rest:
            assert command.invoke_without_command, line
            return
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def module_exists(module: str) -> bool:
    """Say whether `python -m` would find a module of the repository."""
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=name_of)
def test_every_module_a_page_runs_exists(page: Path) -> None:
    """`python -m X` names a module of the repository."""
    for module in set(re.findall(r"python -m ((?:benchmarks|examples|tests)[\w.]*)", page.read_text("utf-8"))):
        assert module_exists(module.rstrip(".")), module


def test_every_benchmark_has_its_row() -> None:
    """What can be measured is said where people look for it."""
    text = (DOCS / "benchmarks.md").read_text("utf-8")
    mains = [path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text("utf-8")]
    assert len(mains) > 10
    assert [name for name in mains if f"python -m benchmarks.{name}" not in text] == []


# Tables.

REASON_ROWS = _ROW.findall((DOCS / "reference" / "reason-codes.md").read_text("utf-8"))


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


def test_the_settings_page_lists_every_setting_with_its_default() -> None:
    """The table of settings is the fields of `Settings`, in order."""
    listed = {
        name: quoted or plain
        for name, quoted, plain in _SETTING.findall((DOCS / "reference" / "settings.md").read_text("utf-8"))
    }
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert list(listed) == list(defaults)
    for name, default in defaults.items():
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert listed[name] == shown.removesuffix(".0"), name


@pytest.mark.parametrize(
    ("title", "model"),
    [
        ("The directory", Directory),
        ("An OIDC issuer", OidcIssuer),
        ("A tenant", Tenant),
        ("A principal", Principal),
    ],
)
def test_the_directory_page_lists_every_field_with_its_default(title: str, model: type[BaseModel]) -> None:
    """Each table is the fields of what it describes, in order."""
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.+?)`|(\w+)) \|", section(DOCS / "reference" / "directory.md", title), re.M)
    assert [row[0] for row in rows] == list(model.model_fields)
    for name, quoted, word in rows:
        field = model.model_fields[name]
        if quoted:
            assert yaml.safe_load(quoted) == field.default, name
        else:
            assert word == ("required" if field.is_required() else "none"), name


def test_the_access_page_lists_every_view_with_what_it_takes() -> None:
    """And every area a token may be narrowed to."""
    page = DOCS / "guide" / "access.md"
    rows = re.findall(r"^\| `(\w+)` \| (.*?)\|", section(page, "Views"), re.M)
    assert {name: re.findall(r"`(\w+)`", takes) for name, takes in rows} == {
        name: list(kind.__struct_fields__) for name, kind in VIEWS.items()
    }
    assert set(re.findall(r"^\| `([\w:]+)` \|", section(page, "Tokens that allow less"), re.M)) == AREAS


def test_the_limits_page_lists_every_limit_with_its_default() -> None:
    """The table is the fields of `Limits`, in order."""
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", section(DOCS / "guide" / "budgets.md", "Limits of a run"), re.M)
    limits = Limits()
    expected = {name: getattr(limits, name) for name in Limits.__struct_fields__} | {
        "max_rejections": limits.rejections
    }
    assert {name: int(amount) for name, amount in rows} == expected


def test_the_budgets_page_lists_units_there_are() -> None:
    """Every unit of the table is one a directory may name."""
    units = first_column(section(DOCS / "guide" / "budgets.md", "Budgets that runs share"))
    assert len(units) == 6
    assert all(re.fullmatch(UNIT, unit) for unit in units)


def test_the_policy_page_lists_every_condition() -> None:
    """The table is what may stand under `when`, in order."""
    assert first_column(section(DOCS / "guide" / "policy.md", "Conditions")) == list(When.model_fields)


def test_the_provenance_page_lists_every_origin() -> None:
    """The table, with the one that is said below it, is what a value's origin may be."""
    text = section(DOCS / "guide" / "provenance.md", "Rules of your own")
    assert first_column(text) == [origin for origin in get_args(Origin) if origin != "repeated"]
    assert "`repeated`" in text


def test_the_tools_page_lists_what_a_tool_may_declare() -> None:
    """The table names every option of `@tool`."""
    options = {p.name for p in inspect.signature(Tool.from_schema).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert set(first_column(section(DOCS / "guide" / "tools.md", "What a tool declares"))) == options | {"name"}


def test_the_agents_page_names_what_a_view_has() -> None:
    """Every field an agent may look at is in the table."""
    listed = set(re.findall(r"`(\w+)", section(DOCS / "guide" / "agents.md", "The view")))
    assert {field.name for field in dataclasses.fields(airside.View)} <= listed


def test_the_webhooks_page_lists_what_a_notice_says() -> None:
    """The table is the fields of every notice there can be."""
    terms = msgspec.structs.replace(asked().terms, answer=True)
    request = msgspec.structs.replace(asked(), group="grp_1", rejected_before="mail", terms=terms)
    said = [
        notification_of(Approval(request=request)),
        notification_of(Approval(request=request, outcome="approved", decided_us=1)),
    ]
    cells = [line.split(" | ")[0] for line in section(DOCS / "operations" / "webhooks.md", "Data").splitlines()]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == {f for each in said for f in each.data}


def test_the_page_of_public_names_lists_them_all() -> None:
    """Every public module with all of its names, in order."""
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", (DOCS / "reference" / "public-names.md").read_text("utf-8"), re.M)
    listed = {module: re.findall(r"`(\w+)`", names) for module, names in rows}
    assert listed == {module: sorted(importlib.import_module(module).__all__) for module in MODULES}


def test_the_command_lines_page_is_what_the_commands_say() -> None:
    """Every command with every option, as `--help` has it; `AIRSIDE_REWRITE=1` writes it anew."""
    check_made(DOCS / "reference" / "cli.md", MARK, reference())


def test_the_http_apis_page_is_what_its_routes_are() -> None:
    """Every route with all it takes, and every code; `AIRSIDE_REWRITE=1` writes it anew."""
    check_made(DOCS / "reference" / "http-api.md", ROUTES_MARK, api_reference())


def test_the_openapi_document_is_what_is_served() -> None:
    """`AIRSIDE_REWRITE=1` writes it anew."""
    page = DOCS / "reference" / "openapi.json"
    if os.environ.get("AIRSIDE_REWRITE"):
        page.write_bytes(document_bytes())
    assert page.read_bytes() == document_bytes(), "the API has changed: AIRSIDE_REWRITE=1 writes the document anew"


def check_made(page: Path, mark: str, now: str) -> None:
    """Hold what stands under a mark against what it is made of, or write it anew."""
    head, found, rest = page.read_text("utf-8").partition(mark)
    assert found
    line, _, made = rest.partition("\n")
    if os.environ.get("AIRSIDE_REWRITE"):
        page.write_text(f"{head}{mark}{line}\n\n{now}\n", "utf-8")
        return
    assert made.strip() == now.strip(), "it has changed: AIRSIDE_REWRITE=1 writes the page anew"


def test_the_command_lines_page_says_what_each_command_is_for() -> None:
    """Every command stands in the table of what it is for, and no other."""
    rows = re.findall(r"^\| [^|`]+ \| (`.+?) \| \[", section(DOCS / "reference" / "cli.md", "What each is for"), re.M)
    shown = sorted(name for name, command in root().commands.items() if not command.hidden)
    assert sorted(name for row in rows for name in re.findall(r"`([\w-]+)`", row)) == shown


# Paths and links.


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=name_of)
def test_every_path_a_page_names_exists(page: Path) -> None:
    """A reader who follows a path finds a file."""
    paths = set(_PATH.findall(page.read_text("utf-8"))) - {"benchmarks/results/"}
    assert sorted(path for path in paths if not (ROOT / path).exists() and not (page.parent / path).exists()) == []


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=name_of)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    """To a file, and to a heading of it where it names one."""
    for path, heading in _LINK.findall(page.read_text("utf-8")):
        if path.startswith(("http://", "https://")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{path} is not there"
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, f"{path} has no heading {heading}"


def test_every_page_can_be_reached_from_the_contents() -> None:
    """`docs/README.md` leads to every page."""
    linked = {(DOCS / path).resolve() for path, _ in _LINK.findall((DOCS / "README.md").read_text("utf-8")) if path}
    assert [name_of(page) for page in PAGES if page.resolve() not in linked and page != DOCS / "README.md"] == []


@pytest.mark.parametrize("name", sorted(MAX_LINES))
def test_what_is_read_first_is_short(name: str) -> None:
    """Whoever wants more follows a link."""
    assert len((ROOT / name).read_text("utf-8").splitlines()) <= MAX_LINES[name]


def test_the_readme_says_what_ci_runs() -> None:
    """Its two commands are targets of the Makefile, and stand before anything that needs them."""
    readme = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"^    (make \w+) ", readme, re.MULTILINE)
    assert commands == ["make demo", "make test"]
    assert readme.index("make demo") < readme.index("```python")
    assert "make test" in (ROOT / ".ci" / "run").read_text("utf-8")


# The repository.

AT_THE_TOP = """
.ci .gitignore ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md LICENSE Makefile README.md cluster.yaml pyproject.toml
requirements.lock actors airside benchmarks docs examples memory stack tests tools
"""


def test_nothing_is_at_the_root_but_what_belongs_there() -> None:
    """Neither committed nor left lying: results, notes and scratch files have folders of their own."""
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split("/")[0] for line in done.stdout.splitlines()} <= set(AT_THE_TOP.split())


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=name_of)
def test_a_benchmark_leaves_nothing_where_it_is_run(path: Path) -> None:
    """What it keeps goes where `--out` says, or to the folder of results, which git ignores."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.args[0]) == "'--out'":
            defaults = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "default"]
            assert all(default.startswith("result_file(") for default in defaults)
