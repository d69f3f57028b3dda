"""Arguments for every registered operation, and what ``torch.library.opcheck`` says of them.

    python -m tests.long.registered --json results.json

The operations are enumerated from the dispatcher, so that one without arguments here is noticed. The control is an
operation whose fake has another shape than its result.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import fastlangevin as fl
from fastlangevin import reference
from tests.long.record import finish, parser

__all__ = ["arguments", "badly_registered", "faults", "names", "results"]

Arguments = tuple[Any, ...]


def names() -> list[str]:
    """The operations of this package that the dispatcher knows, without their overloads."""
    known: Any = torch._C
    every = known._dispatch_get_all_op_names()
    return sorted({name.split("::")[1].split(".")[0] for name in every if name.startswith("fastlangevin::")})


def arguments(impl: str, side: int = 3, batch: int = 3, dtype: torch.dtype = torch.float32) -> dict[str, Arguments]:
    """Arguments of each operation, in layouts that kernels do not find every day; anew for each call.

    Args:
        impl: the implementation.
        side: of images, of which each operation takes a batch with 5 channels.
        batch: samples.
        dtype: of images.
    """
    shape = (batch, 5, side, side)

    def image(draw: int) -> Tensor:
        return fl.randn(shape, seed=1, draw=draw, impl="reference").to(dtype)

    def levels(draw: int, *sizes: int) -> Tensor:
        return fl.randn((1, *sizes), seed=2, draw=draw, impl="reference")[0]

    x = image(0).transpose(2, 3)
    last = image(1).contiguous(memory_format=torch.channels_last)
    score, up = image(2)[:, :, :, torch.arange(side)], image(3)
    half = torch.tensor(0.5)
    address = (torch.tensor(-3), torch.tensor(2**32 - 1), torch.arange(batch) * 2**40, 0)
    factors = [half, levels(0, *shape)]
    update = ([score], factors, half, *address, 1, None, None, None, score > 1, score.to(dtype))
    number, fault = torch.tensor(7), torch.full((batch,), reference.NO_FAULT)
    labels = torch.arange(batch) % 2
    tables = (levels(1, 2).abs(), levels(2, 2).abs(), levels(3, 2).abs())
    norm = (last, levels(4, batch, 5), levels(5, batch, 5), levels(6, batch, 5))
    statistics = (levels(7, batch, 5), levels(8, batch, 5).abs())
    group = (levels(9, 5), levels(10, 5))
    mixture = fl.GaussianMixture([0.2, 0.5, 0.3], levels(11, 3, 7).tolist(), [1.0, 2.0, 0.5])
    points = fl.randn((batch * side * side, 7), seed=3, impl="reference")
    width = 8
    weights = [levels(12, width, 7) / 3, levels(13, width, width) / 3, levels(14, 7, width) / 3]
    network = (weights, levels(15, 2, 2, width), levels(16, 7), levels(17, 2, 3).abs(), 0.2, "silu")
    moves = (torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.05, 0.3]]).expand(3, 3).contiguous(), torch.arange(3) > 0)
    return {
        "add_elu": ([last, score, up], impl),
        "add_instance_norm": (norm[0], score, *norm[1:], True, impl),
        "dsm": (score, labels, *tables, *address, 2, None, None, half, True, True, impl),
        "group_norm": (last, *group, 1, 1e-5, True, impl),
        "group_norm_backward": (up, last, *group, levels(18, batch, 1), levels(19, batch, 1).abs(), 1, True, impl),
        "instance_norm": (*norm, True, impl),
        "instance_norm_backward": (up, *norm, *statistics, True, impl),
        "mixture_score": (points, mixture.table([2.0, 0.1]), torch.arange(len(points)) % 2, mixture.diagonal, impl),
        "mlp_chain_": (points.clone(), None, *network, *moves, *address[:2], None, 0, 1, 0, "fp32", impl),
        "perturb": (x, tables[0], None, *address, 2, None, impl),
        "random": (x, *address, 128, False, impl),
        "step": (x, *update, impl),
        "step_": (x.clone(), *update, impl),
        "watched_step": (x, *update, number, fault.clone(), True, impl),
        "watched_step_": (x.clone(), *update, number, fault.clone(), True, impl),
    }


def _operation(name: str) -> Any:
    return getattr(torch.ops.fastlangevin, name).default


def results(name: str, of: Arguments) -> list[Tensor]:
    """What an operation returns, and what it writes."""
    returned = _operation(name)(*of)
    found = [] if returned is None else [returned] if isinstance(returned, Tensor) else list(returned)
    return [*found, *([of[0]] if name.endswith("_") else [])]


def faults(impl: str) -> dict[str, str]:
    """What is wrong with which operation: no arguments here, or opcheck's objection."""
    made = arguments(impl)
    found = {name: "no arguments to check it with" for name in names() if name not in made}
    for name, of in made.items():
        try:
            torch.library.opcheck(_operation(name), of)
        except Exception as error:
            found[name] = str(error).splitlines()[0]
    return found


@contextmanager
def badly_registered() -> Iterator[str]:
    """An operation, in a library of its own, whose fake has another shape than its result; its name."""
    with torch.library._scoped_library("badly_registered", "DEF") as library:
        library.define("double(Tensor x) -> Tensor")
        library.impl("double", lambda x: 2 * x, "CompositeExplicitAutograd")
        torch.library.register_fake("badly_registered::double", lambda x: x.new_empty(1), lib=library)
        yield "double"


def control() -> str:
    with badly_registered() as name:
        try:
            torch.library.opcheck(getattr(torch.ops.badly_registered, name).default, (torch.ones(3),))
        except Exception as error:
            return f"caught, {str(error).splitlines()[0][:80]}"
    return "not caught"


def main() -> int:
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    every = names()
    found = {impl: faults(impl) for impl in ("reference", "cpp")}
    seen = control()
    return finish(
        options.json,
        "every registered operation passes opcheck",
        "python -m tests.long.registered",
        f"{len(every)} operations on 2 implementations, {sum(map(len, found.values()))} objections",
        f"an operation whose fake has another shape: {seen}",
        bool(every and not any(found.values()) and seen != "not caught"),
        operations=every,
        faults=found,
    )


if __name__ == "__main__":
    sys.exit(main())
