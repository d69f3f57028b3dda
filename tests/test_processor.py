"""Which instruction sets the library takes to be usable, from what cpuid and the operating system say."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastlangevin.kernels.cpp import build as builder

COMPILERS = ("g++", *(f"g++-{version}" for version in range(9, 16)))
COMPILERS += ("clang++", *(f"clang++-{version}" for version in range(9, 23)))
INTEL = platform.machine().lower() in ("x86_64", "amd64")

pytestmark = pytest.mark.skipif(not any(map(shutil.which, builder.COMPILERS)), reason="needs a C++ compiler")

PROGRAM = """
#include "processor.h"
#include <cstdio>
#include <cstdlib>
int main(int count, char** words) {
    if (count == 1) return std::printf("%d", level_here()), 0;
    const Processor processor = {uint32_t(std::strtoul(words[1], nullptr, 16)),
                                 uint32_t(std::strtoul(words[2], nullptr, 16)), std::strtoull(words[3], nullptr, 16)};
    std::printf("%d", level_of(processor));
}
"""

# Leaf 1 and leaf 7 of cpuid, of an Intel Ice Lake: the words that a program finds there, and XCR0 of Linux.
LEAF1, LEAF7, SAVED = 0xFFFA3203, 0xF1BF27EB, 0xE7


@pytest.fixture(scope="module")
def level(tmp_path_factory: pytest.TempPathFactory):
    """0 for SSE2, 1 for AVX2 and 2 for AVX-512, of two words and XCR0, or of this processor."""
    if not INTEL:
        pytest.skip("instruction sets are asked for on x86-64 alone")
    folder = tmp_path_factory.mktemp("processor")
    (folder / "main.cpp").write_text(PROGRAM)
    command = [*builder.find_compiler(), "-std=c++17", f"-I{builder.SOURCES}", "main.cpp", "-o", "main"]
    subprocess.run(command, cwd=folder, check=True)
    return lambda *words: int(subprocess.check_output([folder / "main", *(f"{word:x}" for word in words)]))


def without(word: int, *bits: int) -> int:
    for bit in bits:
        assert word >> bit & 1
        word &= ~(1 << bit)
    return word


def test_every_bit_counts(level) -> None:
    assert level(LEAF1, LEAF7, SAVED) == 2
    for bit in (0, 9, 12, 19, 20, 23, 27, 28, 29):
        assert level(without(LEAF1, bit), LEAF7, SAVED) == 0
    assert level(LEAF1, without(LEAF7, 5), SAVED) == 0
    for bit in (16, 17, 30, 31):
        assert level(LEAF1, without(LEAF7, bit), SAVED) == 1


def test_registers_that_the_system_does_not_save_are_not_used(level) -> None:
    for bit in (5, 6, 7):
        assert level(LEAF1, LEAF7, without(SAVED, bit)) == 1
    for bit in (1, 2):
        assert level(LEAF1, LEAF7, without(SAVED, bit)) == 0
    assert level(0, 0, 0) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="compares with what Linux says")
def test_this_processor_is_what_linux_says(level) -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next(line for line in lines if line.startswith("flags")).split()
    avx2 = {"avx2", "f16c", "fma"} <= set(flags)
    avx512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= set(flags)
    assert level() == (2 if avx512 else 1) * avx2


def test_no_compiler_is_asked_for_names_of_features() -> None:
    """GCC before 11 and Clang 14 know some of them not; what a compiler knows shows only where it is installed."""
    for path in builder.SOURCES.iterdir():
        assert "__builtin_cpu_supports(" not in path.read_text(), path.name


@pytest.mark.parametrize("compiler", [name for name in COMPILERS if shutil.which(name)])
def test_every_compiler_here_takes_the_library(compiler: str) -> None:
    _, source, extra = next(each for each in builder.objects() if each[0] == "library.o")
    done = subprocess.run(
        [compiler, *builder.FLAGS, *extra, "-fsyntax-only", str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
