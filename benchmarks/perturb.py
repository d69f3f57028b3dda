"""Perturbing a batch, x + sigma_i z with a level drawn for each sample: published, eager, torch.compile and fused.

    python -m benchmarks.perturb                      this machine's CPU, 2 threads
    python -m benchmarks.perturb --device cuda        a GPU
    python -m benchmarks.perturb --json results.json  also keep the numbers

Providers:
    published      noise times sigma and the target -noise / sigma^2, which the published objectives keep
    eager          x + sigma * torch.randn_like(x)
    eager in place torch.addcmul(x, noise.normal_(), sigma, out=y): the fewest passes eager PyTorch can make
    torch.compile  the eager expression compiled
    compiled, aten the same with fallback_random: PyTorch draws the noise
    fused          fl.perturb
    copy           y.copy_(x): the same bytes

Bytes are the algorithm's, 8 an element in fp32. No time is printed for a provider whose output is wrong: the fused one
must equal the reference bit for bit, the others must have noise of mean 0 and variance 1.
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

SIGMAS = fl.geometric_sigmas(1.0, 0.01, 10)
# Noise that rounding to 16 bits leaves visible.
GATE_SIGMAS = fl.geometric_sigmas(1.0, 0.3, 10)
GATE_ELEMENTS = 64 * 3072

Operands = tuple[Tensor, Tensor, Tensor]


def operands(elements: int, dtype: torch.dtype, device: torch.device) -> Callable[[int], Operands]:
    """x, a place for noise and one for the result."""
    shape = image_shape(elements)

    def make(index: int) -> Operands:
        x = fl.rand(shape, seed=1, draw=index, dtype=dtype, device=device)
        return x, torch.empty_like(x), torch.empty_like(x)

    return make


def providers(inputs: Inputs[Operands], device: torch.device, ladder: Tensor) -> dict[str, Callable[[], Tensor]]:
    sigmas = ladder.to(device, torch.float32)

    def levels(x: Tensor) -> Tensor:
        labels = torch.randint(0, len(sigmas), (len(x),), device=device)
        return sigmas[labels].reshape(-1, *[1] * (x.ndim - 1))

    def published() -> Tensor:
        x, _, _ = inputs.take()
        sigma = levels(x)
        noise = torch.randn_like(x) * sigma
        _ = -1 / (sigma**2) * noise
        return x + noise

    def expression(x: Tensor, sigma: Tensor) -> Tensor:
        return (x + sigma * torch.randn_like(x)).to(x.dtype)

    def eager() -> Tensor:
        x, _, _ = inputs.take()
        return expression(x, levels(x))

    def in_place() -> Tensor:
        x, noise, out = inputs.take()
        return torch.addcmul(x, noise.normal_(), levels(x).to(x.dtype), out=out)

    def compiled(options: dict[str, bool]) -> Callable[[], Tensor]:
        function = torch.compile(expression, fullgraph=True, dynamic=False, options=options)

        def call() -> Tensor:
            x, _, _ = inputs.take()
            return function(x, levels(x))

        return call

    def fused() -> Tensor:
        return fl.perturb(inputs.take()[0], sigmas, seed=7, draw=3)[0]

    def copy() -> Tensor:
        x, _, out = inputs.take()
        return out.copy_(x)

    return {
        "published": published,
        "eager": eager,
        "eager in place": in_place,
        "torch.compile": compiled({}),
        "compiled, aten": compiled({"fallback_random": True}),
        "fused": fused,
        "copy": copy,
    }


def wrong(name: str, dtype: torch.dtype, device: torch.device) -> str | None:
    """None where a provider perturbs a small input as it must, else what is wrong with it."""
    make = operands(GATE_ELEMENTS, dtype, device)
    x = make(0)[0]
    got = providers(Inputs(GATE_ELEMENTS, make, 1), device, GATE_SIGMAS)[name]()
    if name == "copy":
        return None if torch.equal(got, x) else "is not a copy"
    if name == "fused":
        want = fl.perturb(x, GATE_SIGMAS.to(device, torch.float32), seed=7, draw=3, impl="reference")[0]
        return None if torch.equal(got, want) else "differs from the reference"
    noise = (got.double() - x.double()).flatten(1)
    ladder = GATE_SIGMAS.to(device)
    sigma = ladder[(noise.std(1, keepdim=True) - ladder).abs().argmin(1)][:, None]
    z, n = noise / sigma, noise.numel()
    # Six standard errors; the perturbed samples are rounded by half a unit of values up to 4.
    rounding = (4 * torch.finfo(dtype).eps / float(ladder[-1])) ** 2
    if abs(float(z.mean())) > 6 / n**0.5 + rounding or abs(float(z.var()) - 1) > 6 * (2 / n) ** 0.5 + rounding:
        return f"noise has mean {float(z.mean()):.4f} and variance {float(z.var()):.4f}"
    return None


def trial(kind: str, elements: int, dtype: torch.dtype, device: torch.device) -> Trial:
    inputs = Inputs(elements, operands(elements, dtype, device))
    touched = 2 * elements * inputs.sets[0][0].element_size()
    calls = providers(inputs, device, SIGMAS)
    return Trial(
        f"perturbation of {elements:,} elements",
        calls,
        lambda name: wrong(name, dtype, device),
        base="fused",
        elements=elements,
        touched=dict.fromkeys(calls, touched),
    )


PROVIDERS = ("published", "eager", "eager in place", "torch.compile", "compiled, aten", "fused", "copy")

BENCHMARK = Benchmark(
    "perturb",
    __doc__,
    sizes={"cpu": (8, 128 * 3072, 2**24), "cuda": (8, 128 * 3072, 2**24, 2**28)},
    trial=trial,
    providers=PROVIDERS,
    labels={
        "published": "published code (NCSNv2), with its target",
        "eager": "`x + sigma * torch.randn_like(x)`",
        "eager in place": "`torch.addcmul(x, noise.normal_(), sigma, out=y)`",
        "torch.compile": "`torch.compile` of the expression",
        "compiled, aten": "the same with `fallback_random`: noise by PyTorch's generator",
        "fused": "`fl.perturb(x, sigmas, ...)`",
        "copy": "`y.copy_(x)`: the same bytes",
    },
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
