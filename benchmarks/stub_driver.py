"""A driver for Triton that has no device: kernels are bound, keyed and looked up as for one, not compiled, not run.

What is left of a launch is its Python. Triton must run without its interpreter, so TRITON_INTERPRET must not be set.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel


class Variant(CompiledKernel):
    """In place of a compiled kernel: what it was compiled for, and what is done where it would run."""

    numbers = itertools.count()

    def __init__(self, src: Any, options: dict[str, Any], run: Callable[..., None]) -> None:
        self.src = src
        self.options = options
        self.name = src.fn.__name__
        self.metadata = self.packed_metadata = self.hash = self.metadata_group = None
        self.module = object()
        self.function = next(self.numbers)
        self._run = run

    def __del__(self) -> None:
        """Nothing was loaded."""


class Driver:
    """A CUDA driver of no device. ``device`` and ``stream`` are what is current."""

    def __init__(self, architecture: int = 90) -> None:
        self.architecture = architecture
        self.device = 0
        self.stream = 7

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int) -> int:
        return self.stream


def install(run: Callable[..., None]) -> Driver:
    """Makes Triton launch with a :class:`Driver`. ``run`` is called with what a launch passes to a compiled kernel."""
    driver = Driver()
    triton.runtime.driver.set_active(driver)
    triton.compiler.compile = lambda src, target=None, options=None: Variant(src, options, run)
    return driver
