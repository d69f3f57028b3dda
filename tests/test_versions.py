"""What is claimed of versions is what ``tests/versions.py`` runs, and warnings are errors where they are ours."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def lowest(requirement: str) -> str:
    """The lowest version of a requirement in setup.py."""
    found = re.search(rf"{requirement}>=([\d.]+)", (ROOT / "setup.py").read_text())
    assert found, f"setup.py names no lowest version by {requirement}>="
    return found[1]


def environment(name: str) -> tuple[str, dict[str, str]]:
    """Python's version, and those of the packages, of an environment of versions.py."""
    text = (ROOT / "tests" / "versions.py").read_text()
    row = re.search(rf'"{name}": Versions\("([\d.]+)", \((.*)\)\)', text)
    assert row
    return row[1], dict(re.findall(r'"(\w+)==([\d.]+)', row[2]))


def test_the_oldest_versions_that_are_claimed_are_run() -> None:
    python, packages = environment("oldest")
    assert lowest('python_requires="') == python
    assert packages["torch"].startswith(f"{lowest('torch')}.")
    assert packages["triton"].startswith(f"{lowest('triton')}.")
    assert packages["numpy"].startswith(f"{lowest('numpy')}.")


def test_the_documents_name_the_versions_that_are_run() -> None:
    (oldest, old), (newest, new) = environment("oldest"), environment("newest")
    torches = [".".join(each["torch"].split(".")[:2]) for each in (old, new)]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"Python {oldest} or later and PyTorch {torches[0]} or later" in readme
    assert f"Python {oldest} to {newest} and PyTorch {torches[0]} to {torches[1]}" in readme
    assert f"Triton {lowest('triton')} or later" in (ROOT / "docs" / "implementations.md").read_text()
    classifiers = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "setup.py").read_text())
    assert (classifiers[0], classifiers[-1]) == (oldest, newest)


def test_every_file_of_the_short_set_is_there() -> None:
    files = re.findall(r'^    "(tests/\w+\.py)', (ROOT / "tests" / "versions.py").read_text(), flags=re.MULTILINE)
    assert len(files) > 10
    assert [name for name in files if not (ROOT / name).is_file()] == []


def warned(text: str, category: type[Warning], module: str) -> bool:
    """Whether a warning that is raised in a module is an error under the settings of pytest."""
    try:
        warnings.warn_explicit(text, category, "file.py", 1, module=module)
    except category:
        return True
    return False


@pytest.mark.parametrize(
    ("text", "category", "module"),
    [
        ("Guards may run slower on Python 3.13.0. Consider upgrading.", RuntimeWarning, "torch._dynamo.guards"),
        ("`torch.jit.script_method` is deprecated. Please switch.", DeprecationWarning, "torch.jit._script"),
        ("something of ast is deprecated", DeprecationWarning, "torch._inductor.codegen.common"),
    ],
)
def test_warnings_of_pytorchs_compiler_about_itself_are_not_errors(text: str, category: type, module: str) -> None:
    assert not warned(text, category, module)
    assert warned(text, category, "fastlangevin.ops.step")


@pytest.mark.parametrize("category", [UserWarning, DeprecationWarning, FutureWarning, RuntimeWarning, ResourceWarning])
@pytest.mark.parametrize("module", ["fastlangevin.ops.step", "tests.test_versions", "torch.nn.functional", "numpy"])
def test_warnings_that_our_code_causes_are_errors(category: type[Warning], module: str) -> None:
    assert warned("x is deprecated", category, module)
