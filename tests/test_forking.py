"""A short form of tests.long.forking."""

import os
import shutil

import pytest
import torch

from fastlangevin import runtime
from tests.long import forking

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork"),
    pytest.mark.skipif(
        not any(map(shutil.which, ("c++", "g++", "clang++"))) and runtime.explain("cpu")["cpp"] != "available",
        reason="no C++ compiler and no built library",
    ),
]


def test_forked_children_finish_with_the_same_bits():
    assert forking.finished(5)[0] == {"same bits": 5}


def test_children_that_use_the_threads_of_pytorch_hang():
    if not torch.backends.openmp.is_available():
        pytest.skip("PyTorch has no OpenMP here")
    outcome = forking.control(2.0)
    if outcome == "same bits":
        pytest.skip("this PyTorch no longer hangs in a forked child")
    assert outcome == "hung"


def test_children_that_compute_something_else_are_seen():
    def changed(out):
        out += os.getpid()  # exact: far below 2^24

    assert forking.in_a_fork(changed, torch.zeros(2, 8), 5.0)[0] == "other bits"
