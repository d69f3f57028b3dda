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
    move of 1      fl.step(x, (), ..., out=y): a state and noise; likewise of 3 and of 6 terms, a state and scores
    table of 32    fl.step with noise of 32 draws in a table, as a Brownian path has it
    32 randn       as many calls of fl.randn, which a table must not exceed
    add            torch.add(x, score, out=y): the same bytes, no noise
    copy           y.copy_(x): what the memory gives

Bytes are the algorithm's: 12 an element in fp32 for the update and for add, 8 for the copy, and 4 more for each further
term. No time is printed for a provider whose output is wrong: the fused ones must equal the reference bit for bit, the
others must have the mean and variance of the update.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import fastlangevin as fl
from benchmarks.command import command
from benchmarks.harness import Benchmark, Trial
from benchmarks.inputs import Inputs, image_shape

A, B = 0.02, 0.2
GATE_ELEMENTS = 3072 * 21

TERMS = {"move of 1": 1, "move of 3": 3, "move of 6": 6}
DRAWS = 32


class Operands(NamedTuple):
    """A state, its score, a place for the result, and scores of earlier steps."""

    x: Tensor
    score: Tensor
    out: Tensor
    earlier: tuple[Tensor, ...]


def operands(elements: int, dtype: torch.dtype, device: torch.device) -> Callable[[int], Operands]:
    """The operands of a number."""
    shape = image_shape(elements)

    def make(index: int) -> Operands:
        x, *scores = (fl.randn(shape, seed=1, draw=6 * index + place, dtype=dtype, device=device) for place in range(6))
        return Operands(x, scores[0], torch.empty(shape, dtype=dtype, device=device), tuple(scores[1:]))

    return make


def providers(inputs: Inputs[Operands], device: torch.device) -> dict[str, Callable[[], Tensor]]:
    a, b = torch.tensor(A, device=device), torch.tensor(B, device=device)
    first, *_ = inputs.sets
    drawn = table(first.x)

    def published() -> Tensor:
        x, score, *_ = inputs.take()
        noise = torch.randn_like(x)
        score_norm = score.view(len(x), -1).norm(dim=-1).mean()
        noise_norm = noise.view(len(x), -1).norm(dim=-1).mean()
        x = x + A * score + noise * B
        _ = x.view(len(x), -1).norm(dim=-1).mean()
        _ = (A / 2) ** 0.5 * score_norm / noise_norm
        _ = score.mean(dim=0).view(-1).norm() ** 2
        return x

    def eager() -> Tensor:
        x, score, *_ = inputs.take()
        return x + A * score + B * torch.randn_like(x)

    def eager_in_place() -> Tensor:
        x, score, noise, _ = inputs.take()
        return x.add_(score, alpha=A).add_(noise.normal_(), alpha=B)

    def expression(x: Tensor, score: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (x + a * score + b * torch.randn_like(x)).to(x.dtype)

    def compiled(options: dict[str, bool]) -> Callable[[], Tensor]:
        function = torch.compile(expression, fullgraph=True, dynamic=False, options=options)

        def call() -> Tensor:
            x, score, *_ = inputs.take()
            return function(x, score, a, b)

        return call

    def fused() -> Tensor:
        x, score, *_ = inputs.take()
        return fl.step(x, score, a=A, b=B, seed=7, draw=3)

    def fused_out() -> Tensor:
        x, score, out, _ = inputs.take()
        return fl.step(x, score, a=A, b=B, seed=7, draw=3, out=out)

    def fused_in_place() -> Tensor:
        x, score, *_ = inputs.take()
        return fl.step_(x, score, a=A, b=B, seed=7, draw=3)

    def move(name: str) -> Callable[[], Tensor]:
        def call() -> Tensor:
            x, score, out, earlier = inputs.take()
            scores, factors = scores_of(name, score, earlier)
            return fl.step(x, scores, a=factors, b=B, seed=7, draw=3, out=out)

        return call

    def by_table() -> Tensor:
        x, score, out, _ = inputs.take()
        return fl.step(x, score, a=A, b=B, seed=7, draws=drawn, out=out)

    def by_calls() -> Tensor:
        x, *_ = inputs.take()
        for draw in range(DRAWS):
            z = fl.randn(x.shape, seed=7, draw=draw, dtype=x.dtype, device=x.device)
        return z

    def add() -> Tensor:
        x, score, out, _ = inputs.take()
        return torch.add(x, score, out=out)

    def copy() -> Tensor:
        x, _, out, _ = inputs.take()
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
        **{name: move(name) for name in TERMS},
        "table of 32": by_table,
        "32 randn": by_calls,
        "add": add,
        "copy": copy,
    }


def scores_of(name: str, score: Tensor, earlier: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], list[float]]:
    """The scores of a move, and their factors."""
    scores = (score, *earlier)[: TERMS[name] - 1]
    return scores, [A * (place + 1) for place in range(len(scores))]


def table(x: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and numbers of draws, whose sum is standard normal."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    weights = torch.full((DRAWS,), DRAWS**-0.5, dtype=dtype, device=x.device)
    return weights, torch.arange(DRAWS, dtype=torch.int64, device=x.device)


def wrong(name: str, dtype: torch.dtype, device: torch.device) -> str | None:
    """None where a provider computes the update on a small input, else what is wrong with it."""
    make = operands(GATE_ELEMENTS, dtype, device)
    x, score, _, earlier = make(0)
    y = providers(Inputs(GATE_ELEMENTS, make, 1), device)[name]()
    if name == "copy":
        return None if torch.equal(y, x) else "is not a copy"
    if name == "add":
        return None if torch.equal(y, x + score) else "is not the sum"
    if name in TERMS:
        scores, factors = scores_of(name, score, earlier)
        want = fl.step(x, scores, a=factors, b=B, seed=7, draw=3, impl="reference")
        return None if torch.equal(y, want) else "differs from the reference"
    if name == "table of 32":
        want = fl.step(x, score, a=A, b=B, seed=7, draws=table(x), impl="reference")
        return None if torch.equal(y, want) else "differs from the reference"
    if name == "32 randn":
        want = fl.randn(x.shape, seed=7, draw=DRAWS - 1, dtype=dtype, device=device, impl="reference")
        return None if torch.equal(y, want) else "is not the last draw"
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
    first, *_ = inputs.sets
    size = elements * first.x.element_size()
    calls = providers(inputs, device)
    return Trial(
        f"update of {elements:,} elements",
        calls,
        lambda name: wrong(name, dtype, device),
        base="fused out=",
        elements=elements,
        touched={name: ({"copy": 2, "32 randn": DRAWS}.get(name) or TERMS.get(name, 2) + 1) * size for name in calls},
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
    "move of 1",
    "move of 3",
    "move of 6",
    "table of 32",
    "32 randn",
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
        "move of 1": "`fl.step(x, (), a=(), ..., out=y)`: 1 term",
        "move of 3": "`fl.step(x, (s0, s1), ..., out=y)`: 3 terms",
        "move of 6": "`fl.step(x, (s0, ..., s4), ..., out=y)`: 6 terms",
        "table of 32": "`fl.step(x, score, ..., draws=table, out=y)`: a table of 32 draws",
        "32 randn": "`fl.randn`, 32 times",
        "add": "`torch.add(x, score, out=y)`: the same bytes, no noise",
        "copy": "`y.copy_(x)`",
    },
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
