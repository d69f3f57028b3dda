"""The OpenMP run-time that PyTorch computes with, whose threads the C++ kernels share."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

__all__ = ["entry"]

NAMES = ("libgomp", "libomp", "libiomp5")
MAPS = Path("/proc/self/maps")


def entry() -> int | None:
    """The address of ``GOMP_parallel``, which GNU's, LLVM's and Intel's run-times have; None where it is not known.

    Several run-times can be loaded, one for each wheel that brings its own: PyTorch's is the one in its folder. Outside
    Linux, where the loaded libraries are not listed in ``/proc``, the C++ kernels have threads of their own.
    """
    try:
        lines = MAPS.read_text(errors="replace").splitlines()
    except OSError:
        return None
    loaded = {Path(line.split(maxsplit=5)[5]) for line in lines if line.count("/")}
    found = sorted(path for path in loaded if path.name.startswith(NAMES))
    own = Path(torch.__file__).resolve().parent
    candidates = [path for path in found if {own, own.with_name("torch.libs")} & {*path.parents}] or found
    if len(candidates) != 1:
        return None
    try:
        function = ctypes.CDLL(str(candidates[0])).GOMP_parallel
    except (OSError, AttributeError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value
