"""Fixtures. Without a CUDA device the Triton kernels run in its interpreter, which is chosen before the import."""

import getpass
import importlib.util
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

# Processes of pytest-xdist share the cores: with a thread for each core in each of them, threads would mostly wait for
# one another. Set before PyTorch is imported; a test that is about threads asks for their number itself.
if "PYTEST_XDIST_WORKER" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

# PyTorch's compiler keeps headers that it has compiled, and takes those of other vector instructions for its own.
if "ATEN_CPU_CAPABILITY" in os.environ:
    folder = f"torchinductor-{getpass.getuser()}-{os.environ['ATEN_CPU_CAPABILITY']}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / folder))

import pytest
import torch
from interpreter import prepare_once_a_launch

# The harnesses, by their folder alone: were the whole checkout on the path, its own fastlangevin would be tested and
# not the installed one.
for folder in ("benchmarks", "examples", "tests"):
    harnesses = types.ModuleType(folder)
    harnesses.__path__ = [str(Path(__file__).resolve().parents[1] / folder)]
    sys.modules.setdefault(folder, harnesses)

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    if importlib.util.find_spec("triton") is not None:
        prepare_once_a_launch()


def pytest_addoption(parser):
    parser.addoption(
        "--poison",
        action="store_true",
        help="PyTorch's deterministic mode for every test: new memory holds NaN (integers: their largest value) until "
        "it is written, so that what a kernel leaves unwritten, or reads unwritten, shows in results",
    )
    parser.addoption(
        "--other-products",
        action="store_true",
        help="PyTorch's and NumPy's matrix products and convolutions round as on another processor: their last bits "
        "depend on the batch, the row and the threads (tests/products)",
    )


def pytest_configure(config):
    if config.getoption("--poison"):
        # Here and not in a fixture, so that what modules make when they are imported is poisoned too.
        torch.use_deterministic_algorithms(True)
    if config.getoption("--other-products"):
        folder = str(Path(__file__).resolve().parent / "products")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        sys.path.insert(0, folder)
        importlib.import_module("other_products").install(compiler=True)


@pytest.fixture(autouse=True)
def _poison(request):
    """With --poison, the mode for every test but those marked ``nondeterministic``, whatever the last one left."""
    if request.config.getoption("--poison"):
        torch.use_deterministic_algorithms(request.node.get_closest_marker("nondeterministic") is None)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(params=["reference", "cpp", "triton"])
def impl(request):
    """Every implementation that runs on CPU tensors here: the reference, C++, and Triton's interpreter."""
    if request.param == "triton":
        pytest.importorskip("triton")
        if torch.cuda.is_available():
            pytest.skip("with a CUDA device Triton compiles for it: see test_gpu.py")
    if request.param == "cpp" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        from fastlangevin.runtime import explain

        if explain("cpu")["cpp"] != "available":
            pytest.skip("no C++ compiler and no built library")
    return request.param


@pytest.fixture(scope="module")
def one_thread():
    """For tiny tensors: on a busy machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Top modules of the checkouts that tests of patching write.
CHECKED_OUT = (
    *("models", "losses", "runners", "later", "mine"),
    *("sde_lib", "sampling", "controllable_generation"),
)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Writes files into a folder that is on the path; what they are imported as is forgotten at the end."""
    before = set(sys.modules)

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if name.split(".")[0] in CHECKED_OUT:
            del sys.modules[name]
