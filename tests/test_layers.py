"""The layout and the layers of CONTRIBUTING: folders hold what it says, and imports point down, without a circle."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fastlangevin"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# Networks save and load themselves, by an import inside the two methods.
EXCEPTIONS = {("fastlangevin.models.base", "fastlangevin.storage.checkpoint")}
# The address of random numbers, and what operations take.
DATA = {"fastlangevin.kernels.address", "fastlangevin.kernels.operands"}
MADE = {"__pycache__", "build", "dist", "runs"}


def block(heading: str) -> list[str]:
    """The lines of the indented block under a heading of CONTRIBUTING."""
    return CONTRIBUTING.partition(f"{heading}\n\n")[2].partition("\n\n")[0].splitlines()


def layers() -> dict[str, int]:
    """The height of every part of the package in CONTRIBUTING's list, in which the highest stands first."""
    rows = [re.split(r"\s{2,}", line.strip())[0] for line in block("### Layers: arrows point down only")]
    rows = [row.removeprefix("fastlangevin/").removesuffix("/") for row in rows]
    return {name: -place for place, row in enumerate(rows) for name in row.split(", ")}


LAYERS = layers()


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; the kernels' by where they ship."""
    found = {}
    for folder, package in ((PACKAGE, "fastlangevin"), (ROOT / "kernels", "fastlangevin.kernels")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if package == "fastlangevin" and parts[0] == "kernels":
                continue
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


MODULES = modules()


def imported(name: str, source: str, is_package: bool = False, known: Iterable[str] = MODULES) -> set[str]:
    """The modules of the package that a module imports, wherever it does: in functions and for type checking too."""
    package = name.split(".") if is_package else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                longer = ".".join((*base, alias.name))
                found.add(longer if longer in known else ".".join(base))
    return {each for each in found if each in known and each != name}


IMPORTS = {
    name: imported(name, path.read_text(encoding="utf-8"), path.name == "__init__.py") for name, path in MODULES.items()
}


def part(name: str) -> str:
    return name.split(".")[1]


def upward(name: str, targets: Iterable[str]) -> set[tuple[str, str]]:
    """The imports of a module of parts above its own."""
    return {(name, each) for each in targets if "." in each and LAYERS[part(each)] > LAYERS[part(name)]}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, or none."""
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name not in done:
            for each in sorted(imports.get(name, ())):
                found = follow(each, (*way, name))
                if found:
                    return found
            done.add(name)
        return []

    return next(filter(None, (follow(name, ()) for name in sorted(imports))), [])


def test_every_part_of_the_package_has_a_layer():
    parts = {part(name) for name in MODULES if "." in name} - {"__main__"}
    assert parts == LAYERS.keys()


def test_no_module_imports_what_stands_above_it():
    within = {
        name: targets for name, targets in IMPORTS.items() if name not in ("fastlangevin", "fastlangevin.__main__")
    }
    assert set().union(*(upward(name, targets) for name, targets in within.items())) == EXCEPTIONS


def test_no_modules_import_each_other_in_a_circle():
    imports = {name: targets - {b for a, b in EXCEPTIONS if a == name} for name, targets in IMPORTS.items()}
    assert circle(imports) == []


def test_implementations_do_not_import_each_other_nor_the_package():
    own = {"fastlangevin.kernels.triton": "triton", "fastlangevin.kernels.cpp": "cpp"}
    for name, targets in IMPORTS.items():
        room = ".".join(name.split(".")[:3])
        if part(f"{name}.") == "kernels":
            assert not {each for each in targets if part(each) != "kernels"}, name
        if room in own:
            others = {other for other in own if other != room}
            assert not {each for each in targets if ".".join(each.split(".")[:3]) in others}, name
        if name.startswith("fastlangevin.reference"):
            assert not {each for each in targets if part(each) == "kernels"} - DATA, name


def test_the_data_that_all_layers_share_import_nothing_of_the_package():
    assert all(IMPORTS[name] <= DATA for name in DATA)


@pytest.mark.parametrize(
    "line",
    [
        "import fastlangevin.samplers",
        "from fastlangevin import samplers",
        "from fastlangevin.samplers.chain import StepInfo",
        "from .. import samplers",
        "def late():\n    from ..samplers import chain",
        "if TYPE_CHECKING:\n    from fastlangevin.samplers.chain import ChainState",
    ],
)
def test_an_import_upwards_is_found(line):
    name = "fastlangevin.ops.step"
    assert {part(each) for _, each in upward(name, imported(name, line))} == {"samplers"}
    name = "fastlangevin.shards.working"
    assert upward(name, imported(name, line)) == set()


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def told() -> set[str]:
    """The folders that CONTRIBUTING's layout names, in its first column and, as ``name/``, in what it says of them."""
    found = set()
    for line in block("## Layout"):
        name, says = re.split(r"\s{2,}", line.strip(), maxsplit=1)
        found.add(name.removesuffix("/"))
        inside = name
        for each in re.findall(r"(?<![\w/.])([a-z]+)/", says):
            found.add(f"{inside}{each}")
    return found


def below(folder: Path) -> list[Path]:
    """The folders in a folder that hold files of the checkout."""
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name not in MADE]
    found = [path for path in found if path.name == ".ci" or not path.name.startswith(".")]
    return [path for path in found if path.suffix != ".egg-info" and any(each.is_file() for each in path.rglob("*"))]


def folders() -> Iterator[str]:
    """The folders of the checkout down to the second level, but for the package's own parts: those are layers."""
    for path in below(ROOT):
        yield path.name
        if path != PACKAGE:
            yield from (f"{path.name}/{each.name}" for each in below(path))


def test_the_layout_is_that_of_the_checkout():
    shared = {
        f"tests/{name}" for name in ("bad_input", "bounds", "laws", "networks", "processes", "products", "published")
    }
    assert shared <= set(folders())
    real = set(folders()) - shared
    deeper = {name for name in told() if name.count("/") > 1}
    assert told() - deeper == real
    assert all((ROOT / name).is_dir() for name in deeper)
