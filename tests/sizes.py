"""What is large in what is shipped, to be read before it grows: `python -m tests.sizes`.  Nothing enforces it.

Where to look twice: a function of over 60 lines or of a complexity over 12, a class of over 25 methods or 300 lines, a
file of over 500.  What to do there, if anything, is to split by noun.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDERS = ("stack", "memory", "tools", "actors", "airside")
LOOK_TWICE = {
    ("function", "lines"): 60,
    ("function", "complexity"): 12,
    ("class", "methods"): 25,
    ("class", "lines"): 300,
    ("file", "lines"): 500,
}
SHOWN = 15
"""The largest of each kind; how many are over is said above them."""

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case)


class Size(NamedTuple):
    """One measure of one thing."""

    kind: str
    measure: str
    amount: int
    where: str


def sources() -> list[Path]:
    """Return the files that are shipped, each once: `airside` links to the other folders."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return sorted({path.resolve() for path in found})


def complexity(function: ast.AST) -> int:
    """Return how many ways lead through a function, as McCabe counts them; one within it counts by itself."""
    ways, todo = 1, list(ast.iter_child_nodes(function))
    while todo:
        node = todo.pop()
        if isinstance(node, (*_FUNCTION, ast.ClassDef)):
            continue
        ways += isinstance(node, _BRANCHES) + (len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0)
        todo += ast.iter_child_nodes(node)
    return ways


def sizes(path: Path) -> Iterator[Size]:
    """Yield every size of a file and of what it defines."""
    text, name = path.read_text("utf-8"), str(path.relative_to(ROOT))
    yield Size("file", "lines", len(text.splitlines()), name)
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (*_FUNCTION, ast.ClassDef)):
            continue
        where, lines = f"{name}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1
        if isinstance(node, ast.ClassDef):
            yield Size("class", "lines", lines, where)
            yield Size("class", "methods", sum(isinstance(each, _FUNCTION) for each in node.body), where)
        else:
            yield Size("function", "lines", lines, where)
            yield Size("function", "complexity", complexity(node), where)


def main() -> None:
    """Print the largest of each kind."""
    paths = sources()
    found = [size for path in paths for size in sizes(path)]
    for (kind, measure), twice in LOOK_TWICE.items():
        of_kind = sorted((s for s in found if s[:2] == (kind, measure)), key=lambda s: -s.amount)
        over = sum(size.amount > twice for size in of_kind)
        middle = of_kind[len(of_kind) // 2].amount
        print(f"\n{measure} of a {kind}: {over} of {len(of_kind)} over {twice}, the median is {middle}")
        for size in of_kind[:SHOWN]:
            print(f"{size.amount:>6}  {size.where}")
    print("\nlines of a package")
    packages: dict[str, list[int]] = {}
    for size in found:
        if size.kind == "file":
            packages.setdefault(str(Path(size.where).parent), []).append(size.amount)
    for package, amounts in sorted(packages.items()):
        print(f"{sum(amounts):>6}  {package} ({len(amounts)} files)")


if __name__ == "__main__":
    main()
