"""Whose threads the C++ kernels run on."""

import shutil
import sys

import pytest
import torch

import fastlangevin as fl
from fastlangevin import runtime
from fastlangevin.kernels.cpp import native, openmp

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))) and runtime.explain("cpu")["cpp"] != "available",
    reason="no C++ compiler and no built library",
)


@pytest.mark.skipif(sys.platform != "linux", reason="loaded libraries are listed in /proc on Linux alone")
def test_the_run_time_of_pytorch_is_found():
    assert (openmp.entry() is not None) == torch.backends.openmp.is_available()


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)
    native.load().fl_use_openmp(openmp.entry())


def test_threads_of_its_own_give_the_same_bits(two_threads):
    def results():
        x = fl.randn((8, 20_000), seed=0, impl="cpp")
        return x, fl.step(x, x, a=0.3, b=0.7, seed=1, draw=2, impl="cpp")

    shared = results()
    native.load().fl_use_openmp(None)
    assert all(map(torch.equal, shared, results()))


MAPS = "7f00-7f01 r-xp 00000000 08:01 {} {}\n7f02-7f03 rw-p 00000000 00:00 0\n"


@pytest.mark.parametrize(
    ("libraries", "found"),
    [
        ([], False),
        (["/nowhere/libgomp.so.1"], False),
        (["{torch}/lib/libgomp-1.so", "/nowhere/libgomp.so.1"], True),
        (["/other folder/libgomp.so.1", "/nowhere/libiomp5.so"], False),
    ],
    ids=["none", "not to be opened", "that of PyTorch among two", "two of others"],
)
def test_another_run_time_is_not_taken_for_it(libraries, found, monkeypatch, tmp_path):
    folder = str(openmp.Path(torch.__file__).resolve().parent)
    maps = tmp_path / "maps"
    names = [name.format(torch=folder) for name in libraries]
    maps.write_text("".join(MAPS.format(number, name) for number, name in enumerate(names)))
    opened = []

    class Library:
        def __init__(self, path):
            opened.append(path)
            if not path.startswith(folder):
                raise OSError
            self.GOMP_parallel = 0

    monkeypatch.setattr(openmp, "MAPS", maps)
    monkeypatch.setattr(openmp.ctypes, "CDLL", Library)
    monkeypatch.setattr(openmp.ctypes, "cast", lambda function, kind: openmp.ctypes.c_void_p(7))
    assert openmp.entry() == (7 if found else None)
    assert len(opened) <= 1
