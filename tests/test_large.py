"""The part of tests.long.large that touches little memory."""

import shutil

import pytest

from fastlangevin import runtime
from tests.long import large


def test_rows_that_lie_further_apart_than_an_int32_reaches(impl):
    assert large.wrong(impl) == []


@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))) and runtime.explain("cpu")["cpp"] != "available",
    reason="no C++ compiler and no built library",
)
def test_offsets_that_wrap_are_seen():
    assert large.wraps()
