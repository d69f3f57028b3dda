"""The update x + a*score + b*z: published way of writing it, clean eager, torch.compile and fused, in one run.

    python -m benchmarks.step                      this machine's CPU, 1 and 2 threads
    python -m benchmarks.step --device cuda        a GPU
    python -m benchmarks.step --json results.json  also keep the numbers

Providers:
    published      NCSNv2's loop body: randn_like, the sum, and the norms it takes at every step
    eager          x + a*score + b*torch.randn_like(x)
    eager in place x.add_(score, alpha=a).add_(noise.normal_(), alpha=b): the fewest passes eager PyTorch can make
    torch.compile  the eager expression compiled, with the step size in tensors
    compiled, aten the same with fallback_random: PyTorch draws the noise, the rest is one pass; on CPUs much the faster
    fused          fl.step, a new tensor as the eager expression gives
    fused out=     fl.step(..., out=y)
    fused in place fl.step_
    add            torch.add(x, score, out=y): the same bytes, no noise
    copy           y.copy_(x): what the memory gives

Bytes are the algorithm's: 12 an element in fp32 for the update and for add, 8 for the copy. No time is printed for a
provider whose output is wrong: the fused ones must equal the reference bit for bit, the others must have the mean and
variance of the update.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

import fastlangevin as fl
from benchmarks.command import command
from benchmarks.harness import Benchmark, Trial
from benchmarks.inputs import Inputs, image_shape

A, B = 0.02, 0.2
GATE_ELEMENTS = 3072 * 21

Operands = tuple[Tensor, Tensor, Tensor]


def operands(elements: int, dtype: torch.dtype, device: torch.device) -> Callable[[int], Operands]:
    """x, the score and a place for the result."""
    shape = image_shape(elements)

    def make(index: int) -> Operands:
        return (
            fl.randn(shape, seed=1, draw=2 * index, dtype=dtype, device=device),
            fl.randn(shape, seed=1, draw=2 * index + 1, dtype=dtype, device=device),
            torch.empty(shape, dtype=dtype, device=device),
        )

    return make


def providers(inputs: Inputs[Operands], device: torch.device) -> dict[str, Callable[[], Tensor]]:
    a, b = torch.tensor(A, device=device), torch.tensor(B, device=device)

    def published() -> Tensor:
        x, score, _ = inputs.take()
        noise = torch.randn_like(x)
        score_norm = score.view(len(x), -1).norm(dim=-1).mean()
        noise_norm = noise.view(len(x), -1).norm(dim=-1).mean()
        x = x + A * score + noise * B
        _ = x.view(len(x), -1).norm(dim=-1).mean()
        _ = (A / 2) ** 0.5 * score_norm / noise_norm
        _ = score.mean(dim=0).view(-1).norm() ** 2
        return x

    def eager() -> Tensor:
        x, score, _ = inputs.take()
        return x + A * score + B * torch.randn_like(x)

    def eager_in_place() -> Tensor:
        x, score, noise = inputs.take()
        return x.add_(score, alpha=A).add_(noise.normal_(), alpha=B)

    def expression(x: Tensor, score: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (x + a * score + b * torch.randn_like(x)).to(x.dtype)

    def compiled(options: dict[str, bool]) -> Callable[[], Tensor]:
        function = torch.compile(expression, fullgraph=True, dynamic=False, options=options)

        def call() -> Tensor:
            x, score, _ = inputs.take()
            return function(x, score, a, b)

        return call

    def fused() -> Tensor:
        x, score, _ = inputs.take()
        return fl.step(x, score, a=A, b=B, seed=7, draw=3)

    def fused_out() -> Tensor:
        x, score, out = inputs.take()
        return fl.step(x, score, a=A, b=B, seed=7, draw=3, out=out)

    def fused_in_place() -> Tensor:
        x, score, _ = inputs.take()
        return fl.step_(x, score, a=A, b=B, seed=7, draw=3)

    def add() -> Tensor:
        x, score, out = inputs.take()
        return torch.add(x, score, out=out)

    def copy() -> Tensor:
        x, _, out = inputs.take()
        return out.copy_(x)

    return {
        "published": published,
        "eager": eager,
        "eager in place": eager_in_place,
        "torch.compile": compiled({}),
        "compiled, aten": compiled({"fallback_random": True}),
        "fused": fused,
        "fused out=": fused_out,
        "fused in place": fused_in_place,
        "add": add,
        "copy": copy,
    }


def wrong(name: str, dtype: torch.dtype, device: torch.device) -> str | None:
    """None where a provider computes the update on a small input, else what is wrong with it."""
    make = operands(GATE_ELEMENTS, dtype, device)
    x, score, _ = make(0)
    y = providers(Inputs(GATE_ELEMENTS, make, 1), device)[name]()
    if name == "copy":
        return None if torch.equal(y, x) else "is not a copy"
    if name == "add":
        return None if torch.equal(y, x + score) else "is not the sum"
    if name.startswith("fused"):
        want = fl.step(x, score, a=A, b=B, seed=7, draw=3, impl="reference")
        return None if torch.equal(y, want) else "differs from the reference"
    z = (y.double() - x.double() - A * score.double()) / B
    # Six standard errors of the mean and the variance; half precision adds its own rounding to the variance.
    rounding = float(torch.finfo(dtype).eps) ** 2 / B**2
    n = z.numel()
    if abs(float(z.mean())) > 6 / n**0.5 + rounding or abs(float(z.var()) - 1) > 6 * (2 / n) ** 0.5 + rounding:
        return f"noise has mean {float(z.mean()):.4f} and variance {float(z.var()):.4f}"
    return None


def trial(kind: str, elements: int, dtype: torch.dtype, device: torch.device) -> Trial:
    inputs = Inputs(elements, operands(elements, dtype, device))
    size = elements * inputs.sets[0][0].element_size()
    calls = providers(inputs, device)
    return Trial(
        f"update of {elements:,} elements",
        calls,
        lambda name: wrong(name, dtype, device),
        base="fused out=",
        elements=elements,
        touched={name: (2 if name == "copy" else 3) * size for name in calls},
    )


PROVIDERS = (
    "published",
    "eager",
    "eager in place",
    "torch.compile",
    "compiled, aten",
    "fused",
    "fused out=",
    "fused in place",
    "add",
    "copy",
)

BENCHMARK = Benchmark(
    "step",
    __doc__,
    sizes={"cpu": (8, 3072, 128 * 3072, 2**24), "cuda": (8, 3072, 128 * 3072, 2**24, 2**28)},
    trial=trial,
    providers=PROVIDERS,
    threads=(2, 1),
    labels={
        "published": "published code (NCSNv2), with its norms at every step",
        "eager": "`x + a*score + b*torch.randn_like(x)`",
        "eager in place": "`x.add_(score, alpha=a).add_(noise.normal_(), alpha=b)`",
        "torch.compile": "`torch.compile` of the expression",
        "compiled, aten": "the same with `fallback_random`: noise by PyTorch's generator",
        "fused": "`fl.step(x, score, ...)`, a new tensor",
        "fused out=": "`fl.step(x, score, ..., out=y)`",
        "fused in place": "`fl.step_(x, score, ...)`",
        "add": "`torch.add(x, score, out=y)`: the same bytes, no noise",
        "copy": "`y.copy_(x)`",
    },
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
