"""The layers of CONTRIBUTING: a module of the package imports what stands below it, never what stands above."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastlangevin"
# Networks save and load themselves, by an import inside the two methods.
EXCEPTIONS = {("fastlangevin/models/base.py", "checkpoint")}


def layers(text: str) -> dict[str, int]:
    """The height of every part of the package in CONTRIBUTING's list, in which the highest stands first."""
    block = text.partition("arrows point down only\n\n")[2].partition("\n\n")[0]
    rows = [re.split(r"\s{2,}", line.strip())[0] for line in block.splitlines()]
    rows = [row.removeprefix("fastlangevin/").removesuffix("/") for row in rows]
    return {name: -place for place, row in enumerate(rows) for name in row.split(", ")}


LAYERS = layers((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted name, in parts, of whatever a module of a package imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from ((node.lineno, (*base, alias.name)) for alias in node.names)


def upward(path: str, source: str) -> list[tuple[str, str]]:
    """Of a module of the package, ``(path, part)`` of each part above its own that it imports."""
    package = Path(path).parent.parts
    own = Path(path).parts[1].removesuffix(".py")
    return [
        (path, name[1])
        for _, name in imported(ast.parse(source), package)
        if name[0] == "fastlangevin" and len(name) > 1 and LAYERS.get(name[1], -99) > LAYERS[own]
    ]


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] != "kernels"]
PARTS = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} - {"__init__", "__main__"}


def test_every_part_of_the_package_has_a_layer():
    assert PARTS | {"kernels"} == LAYERS.keys()


def test_no_module_imports_what_stands_above_it():
    found = set()
    for path in MODULES:
        name = path.relative_to(ROOT).as_posix()
        if name not in ("fastlangevin/__init__.py", "fastlangevin/__main__.py"):
            found |= set(upward(name, path.read_text(encoding="utf-8")))
    assert found == EXCEPTIONS


def test_implementations_do_not_import_each_other_nor_the_package():
    for path in sorted((ROOT / "kernels").rglob("*.py")):
        names = {name for _, name in imported(ast.parse(path.read_text(encoding="utf-8")), ("fastlangevin", "kernels"))}
        above = {name for name in names if name[0] == "fastlangevin" and name[1:2] != ("kernels",)}
        assert not above, path
    for path in sorted((PACKAGE / "reference").glob("*.py")):
        names = {
            name for _, name in imported(ast.parse(path.read_text(encoding="utf-8")), ("fastlangevin", "reference"))
        }
        assert not {name for name in names if name[:2] == ("fastlangevin", "kernels")}, path


@pytest.mark.parametrize(
    "line",
    [
        "import fastlangevin.samplers",
        "from fastlangevin import samplers",
        "from fastlangevin.samplers.chain import StepInfo",
        "from .. import samplers",
        "def late():\n    from ..samplers import chain",
    ],
)
def test_an_import_upwards_is_found(line):
    assert upward("fastlangevin/ops/step.py", line) == [("fastlangevin/ops/step.py", "samplers")]
    assert upward("fastlangevin/shards/working.py", line) == []
