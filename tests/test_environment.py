"""What importing the package does to a process, and how it runs where something is missing.

Every check needs a fresh process, and a process costs seconds: a script makes all observations that can share one.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from patience import HUNG

import fastlangevin as fl

IMPORT = """
import json, os, sys, threading, warnings
import torch

def settings():
    subnormal = torch.tensor(2.0) ** -140
    return {
        "rng": torch.get_rng_state().tolist(),
        "dtype": str(torch.get_default_dtype()),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads(), threading.active_count()],
        "filters": [repr(each) for each in warnings.filters],
        "denormals": (subnormal * 1.0).item() > 0,
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "environment": dict(os.environ),
        "cuda": torch.cuda.is_initialized(),
    }

touched = []
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def watch(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        touched.append([event, str(arguments[0])])
    elif event.startswith(("socket.", "subprocess.", "shutil.", "tempfile.", "ctypes.dlopen")) or event in (
        "os.mkdir", "os.rename", "os.remove", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.chmod",
    ):
        touched.append([event, repr(arguments)])

modules = set(sys.modules)
before = settings()
sys.addaudithook(watch)
import fastlangevin
imported = list(touched)
after = settings()
new = sorted({name.partition(".")[0] for name in set(sys.modules) - modules})
loaded = sorted({name.partition(".")[0] for name in sys.modules})
kernels = sorted(name for name in sys.modules if name.startswith("fastlangevin.kernels."))
# That the hook sees what it is there to see.
touched.clear()
open(os.devnull, "w").close()
import socket
socket.socket().close()
seen = [event for event, _ in touched]
json.dump({"before": before, "after": after, "new": new, "loaded": loaded, "kernels": kernels, "touched": imported,
           "seen": seen}, sys.stdout)
"""

# Where something is missing: each case sets the process up anew, and reports bits, log and choice.
FALLBACK = """
import json, logging, os, sys
blocked = json.loads(sys.argv[1])
for name in blocked:
    sys.modules[name] = None
import torch
import fastlangevin as fl
from fastlangevin import runtime
from fastlangevin.kernels.cpp import build

class Keep(logging.Handler):
    def emit(self, record):
        messages.append([record.levelname, record.getMessage()])

logging.getLogger("fastlangevin").addHandler(Keep())
logging.getLogger("fastlangevin").setLevel("INFO")
build.LIBRARY = "libnot_built.so"  # as in a checkout that was never built
results = {}
for case, changes in json.loads(sys.argv[2]).items():
    kept = dict(os.environ)
    os.environ.update(changes)
    for cached in (runtime._automatic, runtime._cpp, runtime._triton):
        cached.cache_clear()
    messages = []
    result = {}
    try:
        x = fl.randn((3, 5), seed=2**63 + 1, sample_offset=2**40)
        fl.step_(x, x.neg(), a=0.25, b=0.5, seed=7, draw=3)
        fl.randn((1,), seed=0)
        result["bits"] = x.numpy().tobytes().hex()
        result["name"] = runtime.choose("auto", torch.device("cpu"))[0]
    except Exception as error:
        result["error"] = [type(error).__name__, str(error)]
    for impl in ("cpp", "triton"):
        try:
            fl.randn((1,), seed=0, impl=impl)
        except RuntimeError as error:
            result[impl] = str(error)
    result["explain"] = runtime.explain("cpu")
    result["log"] = messages
    results[case] = result
    os.environ.clear()
    os.environ.update(kept)
json.dump(results, sys.stdout)
"""


def environment(**changes: str) -> dict[str, str]:
    left_out = ("TRITON_INTERPRET", "FASTLANGEVIN_", "CXX", "XDG_CACHE_HOME", "PYTHONWARNINGS")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    here = str(Path(fl.__file__).parents[1])
    return {**kept, "PYTHONPATH": here, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **changes}


def python(*arguments: str, **changes: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment(**changes), stdout=-1, stderr=-1, stdin=-3, text=True
    )


def observed(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=HUNG)
    assert process.returncode == 0, err
    assert err == ""
    result: dict[str, Any] = json.loads(out)
    return result


@pytest.fixture(scope="module")
def imported() -> dict[str, Any]:
    return observed(python("-W", "error", "-c", IMPORT))


def test_import_is_silent_with_warnings_as_errors(imported: dict[str, Any]) -> None:
    assert "fastlangevin" in imported["new"]  # the fixture has seen an empty stderr and exit status 0


def test_import_loads_nothing_that_only_some_calls_need(imported: dict[str, Any]) -> None:
    heavy = {"triton", "sklearn", "scipy", "matplotlib", "PIL", "torchvision", "pandas", "IPython", "arviz", "xarray"}
    heavy |= {"diffusers", "huggingface_hub"}
    assert heavy & set(imported["loaded"]) == set()
    data = ["fastlangevin.kernels.address", "fastlangevin.kernels.operands"]
    assert imported["kernels"] == data  # which every layer passes on
    assert not imported["after"]["cuda"]


def test_import_changes_no_setting_of_the_process(imported: dict[str, Any]) -> None:
    before, after = imported["before"], imported["after"]
    assert [name for name in before if before[name] != after[name]] == []
    assert after["denormals"]
    assert after["filters"]


def test_import_opens_no_connection_and_writes_nowhere(imported: dict[str, Any]) -> None:
    assert imported["seen"] == ["open", "socket.__new__"]
    assert imported["touched"] == []


@pytest.fixture(scope="module")
def fallbacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fallbacks")
    (folder / "file").write_text("no folder")
    (folder / "tmp").mkdir()
    (folder / "empty").mkdir()
    broken = folder / "broken-c++"
    broken.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo "broken 1.0"; exit 0; fi\n'
        'echo "internal compiler error" >&2\n'
        "exit 1\n"
    )
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    # Nothing of these may reach the cache of whoever runs the tests.
    common = {"FASTLANGEVIN_CACHE_DIR": str(folder / "cache")}
    cases = {
        "library missing": {**common, "FASTLANGEVIN_NO_BUILD": "1"},
        "no compiler": {**common, "PATH": str(folder / "empty")},
        "wrong compiler": {**common, "CXX": str(folder / "no-such-c++")},
        "compiler fails": {**common, "CXX": str(broken)},
        "read-only home": {"HOME": str(folder / "file" / "home"), "TMPDIR": str(folder / "tmp"), "CXX": str(broken)},
        "reference asked for": {**common, "FASTLANGEVIN_IMPL": "reference", "FASTLANGEVIN_NO_BUILD": "1"},
        "cpp asked for": {**common, "FASTLANGEVIN_IMPL": "cpp", "FASTLANGEVIN_NO_BUILD": "1"},
        "wrong name": {**common, "FASTLANGEVIN_IMPL": "cuda", "FASTLANGEVIN_NO_BUILD": "1"},
    }
    return observed(python("-W", "error", "-c", FALLBACK, json.dumps(["triton"]), json.dumps(cases)))


@pytest.fixture(scope="module")
def expected() -> str:
    x = fl.randn((3, 5), seed=2**63 + 1, sample_offset=2**40, impl="reference")
    return fl.step(x, x.neg(), a=0.25, b=0.5, seed=7, draw=3, impl="reference").numpy().tobytes().hex()


REASONS = {
    "library missing": ["FASTLANGEVIN_NO_BUILD", "unset it"],
    "no compiler": ["no C++ compiler was found", "install one", "impl='reference'"],
    "wrong compiler": ["CXX=", "no-such-c++", "not an executable"],
    "compiler fails": ["failed with status", "internal compiler error", "CXX"],
    "read-only home": ["failed with status", "internal compiler error"],
}


@pytest.mark.parametrize("case", REASONS)
def test_without_the_cpp_kernels_auto_falls_back_to_the_same_bits_and_says_so_once(
    fallbacks: dict[str, dict[str, Any]], expected: str, case: str
) -> None:
    result = fallbacks[case]
    assert "error" not in result
    assert result["name"] == "reference"
    assert result["bits"] == expected
    builds = [message for _, message in result["log"] if message.startswith("building the C++ kernels, once, into")]
    assert bool(builds) == (case in ("compiler fails", "read-only home"))
    ((level, message),) = [each for each in result["log"] if each[1] not in builds]
    assert level == "WARNING"
    assert [part for part in ["impl='auto' uses the reference", *REASONS[case]] if part not in message] == []


@pytest.mark.parametrize("case", REASONS)
def test_without_the_cpp_kernels_asking_for_them_is_refused_with_the_reason(
    fallbacks: dict[str, dict[str, Any]], case: str
) -> None:
    for message in (fallbacks[case]["cpp"], fallbacks[case]["explain"]["cpp"]):
        assert [part for part in ["C++ kernels cannot be used", *REASONS[case]] if part not in message] == []
    assert fallbacks[case]["explain"]["reference"] == "available"


def test_without_triton_asking_for_it_is_refused_with_the_reason(fallbacks: dict[str, dict[str, Any]]) -> None:
    for result in fallbacks.values():
        assert result["triton"] == "Triton is not installed; install it with: pip install triton"
        assert result["explain"]["triton"] == result["triton"]


def test_the_implementation_can_be_chosen_for_a_whole_process(
    fallbacks: dict[str, dict[str, Any]], expected: str
) -> None:
    chosen = fallbacks["reference asked for"]
    assert chosen["name"] == "reference"
    assert chosen["bits"] == expected
    assert chosen["log"] == []  # asked for, so nothing to warn of


def test_an_implementation_chosen_for_the_process_that_cannot_run_is_refused(
    fallbacks: dict[str, dict[str, Any]],
) -> None:
    kind, message = fallbacks["cpp asked for"]["error"]
    assert kind == "UnavailableError"
    assert "FASTLANGEVIN_NO_BUILD" in message
    assert "bits" not in fallbacks["cpp asked for"]


def test_a_wrong_name_in_the_environment_is_refused(fallbacks: dict[str, dict[str, Any]]) -> None:
    kind, message = fallbacks["wrong name"]["error"]
    assert kind == "ValueError"
    assert message == "FASTLANGEVIN_IMPL must be one of auto, triton, cpp, reference, got 'cuda'"


def test_a_read_only_home_gives_a_private_folder_for_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastlangevin.kernels.cpp import native

    (tmp_path / "file").write_text("no folder")
    (tmp_path / "tmp").mkdir()
    for name in ("FASTLANGEVIN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    folder = native.cache_folder()
    assert folder.parent == tmp_path / "tmp"
    assert folder.stat().st_mode & 0o077 == 0
    assert native.cache_folder() == folder
    monkeypatch.setenv("FASTLANGEVIN_CACHE_DIR", str(tmp_path / "chosen"))
    assert native.cache_folder() == tmp_path / "chosen"


def test_the_checks_of_the_random_state_can_fail() -> None:
    before = torch.get_rng_state()
    fl.randn((1,), impl="reference")
    assert not torch.equal(torch.get_rng_state(), before)
