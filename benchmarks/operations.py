"""The operations of a forward pass of the standard networks: published way of writing it, eager and fused.

    python -m benchmarks.operations                       print them
    python -m benchmarks.operations --json results.json   also keep them

As PyTorch dispatches them, without views and allocations, and each fused one as one; on a GPU the fused norm launches
two kernels.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fastlangevin as fl
from benchmarks.harness import save
from benchmarks.unfused import eager_norm, published_norm, unfused
from fastlangevin.kernels.cpp import native
from fastlangevin.models import refinenet
from fastlangevin.ops import operation

NETWORKS = {"ncsn": fl.models.NCSN, "ncsnv2": fl.models.NCSNv2}
# Without a kernel: memory is made, or seen in another shape.
FREE = {
    "empty",
    "new_empty",
    "empty_like",
    "empty_strided",
    "new_empty_strided",
    "detach",
    "lift_fresh",
    "_unsafe_view",
}


class Operations(TorchDispatchMode):
    """Counts what runs a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.norms = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.count += name not in FREE and not function.is_view
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def counted() -> Iterator[Operations]:
    """Operations of PyTorch on CPU tensors, and launches of the fused norm, which go past its dispatcher."""
    operations = Operations()
    launch = native.normalise

    def count(request: bytes) -> None:
        operations.norms += 1
        operations.count += 1
        launch(request)

    elu = refinenet.add_elu

    def count_elu(*terms: Tensor, **options: Any) -> Any:
        operations.count += 1
        return elu(*terms, **options)

    # An operation that knew of the mode would go by the dispatcher, where each is one, whatever it consists of.
    modules = [importlib.import_module(f"fastlangevin.ops.{name}") for name in ("arguments", "instance_norm")]
    knows, sees = [module.recorded for module in modules], operation.observed
    operation.observed = lambda: False
    for module in modules:
        module.recorded = lambda: False
    native.normalise = count
    refinenet.add_elu = count_elu if elu is fl.ops.add_elu else elu
    try:
        with operations:
            yield operations
    finally:
        for module, recorded in zip(modules, knows, strict=True):
            module.recorded = recorded
        operation.observed = sees
        native.normalise = launch
        refinenet.add_elu = elu


def operations_of(net: Callable[..., Tensor], x: Tensor, labels: Tensor) -> tuple[int, int]:
    """Operations of a forward pass, and how many of them are fused norms."""
    with torch.no_grad(), counted() as operations:
        net(x, labels)
    return operations.count, operations.norms


def counts() -> dict[str, dict[str, int]]:
    """Operations of a forward pass of one image on a CPU, which do not depend on the width."""
    found = {}
    for name, kind in NETWORKS.items():
        net = kind(fl.geometric_sigmas(1.0, 0.01, 10), kind.CONFIG(width=4))
        arguments = fl.rand((1, 3, 8, 8), seed=0), torch.zeros(1, dtype=torch.int64)
        total, norms = operations_of(net, *arguments)
        found[name] = {
            "published": operations_of(unfused(net, published_norm), *arguments)[0],
            "eager": operations_of(unfused(net, eager_norm), *arguments)[0],
            "fused": total,
            "fused norms": norms,
        }
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args(arguments)
    found = counts()
    for name, row in found.items():
        launches = row["fused"] + row["fused norms"]
        print(f"{name:8} " + "  ".join(f"{key} {value}" for key, value in row.items()) + f"  (GPU launches {launches})")
    if options.json:
        save(options.json, "operations", torch.device("cpu"), [], operations=found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
