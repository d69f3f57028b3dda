"""Matrix products and convolutions as another processor might round them.

PyTorch and NumPy do not promise the last bits of a product: they change with the processor, the size of the batch, the
place of a row in it and the number of threads. ``install()`` makes all four visible on one machine: every product is
multiplied by ``1 + k * eps`` with a small integer k that depends on the batch, the row and the threads. A test that
passes only because this machine happens to round alike fails then. Only what the package computes itself may be asked
for equal bits.

``pytest --other-products`` installs this in the tests' process, and in the processes that they start, by the
``sitecustomize`` beside this file. The distortion is a function of shapes and threads alone, so repeats stay equal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# k takes the values 0 to LARGEST.
LARGEST = 2

FUNCTIONS = {
    torch: ("addmm", "baddbmm", "bmm", "conv1d", "conv2d", "conv3d", "conv_transpose2d", "einsum", "matmul", "mm"),
    torch.nn.functional: ("conv1d", "conv2d", "conv3d", "conv_transpose2d", "linear", "scaled_dot_product_attention"),
    Tensor: ("__matmul__", "addmm", "baddbmm", "bmm", "matmul", "mm"),
}


def _multiples(batch: int, rows: Any) -> Any:
    # The compiler cannot follow the question; its tests run on one thread.
    threads = 1 if torch.compiler.is_compiling() else torch.get_num_threads()
    return (7 * batch + 3 * threads + rows) % (LARGEST + 1)


def distorted(product: Tensor) -> Tensor:
    """A product as this module rounds it."""
    if not product.is_floating_point() or product.dim() == 0:
        return product
    batch = product.shape[0]
    rows = torch.arange(batch, device=product.device).reshape(-1, *[1] * (product.dim() - 1))
    eps = torch.finfo(product.dtype).eps
    return product * (1 + eps * _multiples(batch, rows).to(product.dtype))


def distorted_array(product: Any) -> Any:
    """A product of NumPy as this module rounds it."""
    if not isinstance(product, np.ndarray) or product.ndim == 0 or product.dtype.kind != "f":
        return product
    batch = product.shape[0]
    rows = np.arange(batch).reshape(-1, *[1] * (product.ndim - 1))
    return product * (1 + np.finfo(product.dtype).eps * _multiples(batch, rows)).astype(product.dtype)


def _wrapped(function: Callable[..., Any], distort: Callable[[Any], Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        product = function(*arguments, **options)
        return product if options.get("out") is not None else distort(product)

    return call


def install(*, compiler: bool = False) -> None:
    """Replaces the products of PyTorch and NumPy in this process.

    Args:
        compiler: whether programs that call the products are compiled. PyTorch's compiler knows functions by the names
            that they have when it is first asked, so it is asked before they are replaced.
    """
    if compiler:
        from torch._dynamo import trace_rules

        trace_rules.get_torch_obj_rule_map()
    for owner, names in FUNCTIONS.items():
        for name in names:
            setattr(owner, name, _wrapped(getattr(owner, name), distorted))
    np.matmul = _wrapped(np.matmul, distorted_array)  # type: ignore[assignment]  # Triton's interpreter calls it
