"""The kernels of a checkout that lost the link to them: found beside the package, or told of in an import's error."""

import os
import shutil
import subprocess
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from pathlib import Path

import pytest
from patience import HUNG

import fastlangevin as fl
from fastlangevin import kernels_link

ROOT = Path(__file__).resolve().parents[1]
LOST = {
    "missing": lambda path: None,
    "a text file": lambda path: path.write_text("../kernels"),
    "an empty folder": lambda path: path.mkdir(),
}
OTHERS = {
    "nothing": lambda path: None,
    "a file": lambda path: path.write_text("kernels"),
    "an empty folder": lambda path: path.mkdir(),
    "another project's": lambda path: (path.mkdir(), (path / "__init__.py").write_text("raise SystemExit(9)")),
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package's folder, without its kernels, as Python and the finder of kernels see it."""
    # Without the finder of an editable install, which knows where the kernels are.
    monkeypatch.setattr(sys, "meta_path", [BuiltinImporter, FrozenImporter, PathFinder])
    folder = tmp_path / "fastlangevin"
    folder.mkdir()
    monkeypatch.setattr(fl, "__path__", [str(folder)])
    monkeypatch.setattr(kernels_link, "__file__", str(folder / "kernels_link.py"))
    for name in [name for name in sys.modules if name.startswith("fastlangevin.kernels")]:
        if name != "fastlangevin.kernels_link":
            monkeypatch.delitem(sys.modules, name)
    yield folder
    # What the test imported from here must not be met by others; the rest comes back by itself.
    for name in [name for name in sys.modules if name.startswith("fastlangevin.kernels.")]:
        del sys.modules[name]
    sys.modules.pop("fastlangevin.kernels", None)


def test_a_whole_checkout_has_lost_nothing():
    assert kernels_link.lost() is None
    before = sys.modules["fastlangevin.kernels"]
    kernels_link.mend()
    assert sys.modules["fastlangevin.kernels"] is before


@pytest.mark.parametrize("kind", LOST)
def test_kernels_beside_the_package_are_taken(package, kind):
    LOST[kind](package / "kernels")
    (package.parent / "kernels").symlink_to(ROOT / "kernels")
    assert "git -c core.symlinks=true checkout" in kernels_link.lost()
    kernels_link.mend()
    found = sys.modules["fastlangevin.kernels"]
    assert list(found.__path__) == [str(package.parent / "kernels")]
    assert found.__spec__.name == "fastlangevin.kernels"
    from fastlangevin.kernels import address

    assert Path(address.__file__) == package.parent / "kernels" / "address.py"


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("kind", LOST)
def test_where_there_are_none_the_import_says_what_to_do(package, kind, other):
    LOST[kind](package / "kernels")
    OTHERS[other](package.parent / "kernels")
    with pytest.raises(ImportError) as caught:
        kernels_link.mend()
    for part in ("fastlangevin.kernels, are missing", "pip install .", "git -c core.symlinks"):
        assert part in str(caught.value)
    assert str(package / "kernels") in str(caught.value)
    assert "fastlangevin.kernels" not in sys.modules


@pytest.mark.parametrize(("beside", "said"), [(True, "fused kernels found"), (False, "are missing")])
def test_a_process_of_such_a_checkout(tmp_path, beside, said):
    """Bits and all: the implementation of kernels that were found so is the one that everybody has."""
    shutil.copytree(
        ROOT / "fastlangevin", tmp_path / "fastlangevin", ignore=shutil.ignore_patterns("kernels", "__pycache__")
    )
    if beside:
        (tmp_path / "kernels").symlink_to(ROOT / "kernels")
    code = (
        "import sys; sys.meta_path = [each for each in sys.meta_path if 'editable' not in repr(each).lower()]\n"
        "import torch, fastlangevin as fl\n"
        "from fastlangevin import runtime\n"
        "x = fl.randn((2, 3), seed=5)\n"
        "assert torch.equal(x, fl.randn((2, 3), seed=5, impl='reference'))\n"
        "assert fl.__file__.startswith(sys.argv[1]), fl.__file__\n"
        "print('fused kernels found' if set(runtime.explain('cpu')) == {'triton', 'cpp', 'reference'} else '')\n"
        "assert 'missing' not in str(runtime.explain('cpu'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
    )
    assert said in done.stdout + done.stderr
    assert done.returncode == (0 if beside else 1), done.stderr
