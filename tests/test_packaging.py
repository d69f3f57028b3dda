"""What a wheel holds, and that it works away from the checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from patience import HUNG

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tree(tmp_path_factory):
    """A copy of the sources, so that building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("tree") / "fastlangevin"
    ignored = shutil.ignore_patterns(".git", ".venv*", "*.so", "__pycache__", "build", "*.egg-info", ".*_cache", "runs")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    return copy


def wheel(tree, folder, **variables):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(folder),
        ".",
    ]
    done = subprocess.run(
        command, cwd=tree, env={**os.environ, **variables}, capture_output=True, text=True, timeout=HUNG
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_else(tree, tmp_path):
    built = wheel(tree, tmp_path)
    names = zipfile.ZipFile(built).namelist()
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2
    assert "fastlangevin" in tops
    for wanted in (
        "fastlangevin/py.typed",
        "fastlangevin/assets/digits.safetensors",
        "fastlangevin/cli/sample.py",
        "fastlangevin/kernels/triton/step.py",
        "fastlangevin/kernels/cpp/csrc/update.cpp",
    ):
        assert names.count(wanted) == 1, wanted
    (metadata,) = (name for name in names if name.endswith("METADATA"))
    text = zipfile.ZipFile(built).read(metadata).decode()
    # An index has neither the pictures nor the documents that the README leads to.
    assert "# fastlangevin" in text
    assert "docs/promises.md" in text
    assert not re.search(r"\]\((?!https?:)|<!--", text)
    if shutil.which("c++") or shutil.which("g++"):
        assert "fastlangevin/kernels/cpp/libfastlangevin.so" in names
        assert "-py3-none-linux_" in built.name or sys.platform != "linux"
    site = tmp_path / "site"
    zipfile.ZipFile(built).extractall(site)
    code = (
        "import fastlangevin as fl; from fastlangevin.runtime import explain; "
        f"assert fl.__file__.startswith({str(site)!r}), fl.__file__; print(explain('cpu')['cpp'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "FASTLANGEVIN_NO_BUILD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HUNG
    )
    assert done.returncode == 0, done.stderr
    if "fastlangevin/kernels/cpp/libfastlangevin.so" in names:
        assert done.stdout.strip() == "available"


def test_without_a_compiler_the_install_goes_on(tree, tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    built = wheel(tree, tmp_path, CXX="", PATH=str(empty))
    assert built.name.endswith("-py3-none-any.whl")
    assert not any(name.endswith(".so") for name in zipfile.ZipFile(built).namelist())


def test_the_shipped_checkpoint_is_small():
    assert (ROOT / "fastlangevin" / "assets" / "digits.safetensors").stat().st_size <= 2 * 2**20


def test_no_file_is_long():
    for folder, limit in (
        ("fastlangevin", 500),
        ("kernels", 500),
        ("benchmarks", 600),
        ("examples", 600),
        ("tests", 600),
    ):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".cpp", ".h"):
                assert len(path.read_text(encoding="utf-8").splitlines()) <= limit, path
