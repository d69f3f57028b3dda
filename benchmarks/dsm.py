"""A training step's work around the network: perturb, loss and gradient, as it is published, eager, compiled and fused.

    python -m benchmarks.dsm                      this machine's CPU, 2 threads
    python -m benchmarks.dsm --device cuda        a GPU
    python -m benchmarks.dsm --json results.json  also keep the numbers

The network's output is a given tensor, so that nothing but the objective is timed. Providers:
    published      as NCSNv2 writes it: noise times sigma, target -n / sigma^2, difference, square, sum, times sigma^2
    eager          1/2 ||sigma s + z||^2 by torch.addcmul, differentiated by autograd
    eager by hand  the same with its gradient written out and one new tensor beside the perturbed samples
    torch.compile  the eager expression and its backward pass compiled, with levels and sigmas in tensors
    compiled, aten the same with fallback_random: PyTorch draws the noise
    fused          fl.DenoisingScoreMatching, whose noise is drawn twice and never stored
    workspace      the same with workspace=True: results are written where those of the call before were
    copy           y.copy_(x): what the memory gives

Bytes are the algorithm's, 16 an element in fp32: x and the output are read, the perturbed samples and the gradient
written. "Extra memory" is the most in use at a time beyond those two results, in times their size. No time is printed
for a provider whose loss and gradient are wrong: the fused one must equal the reference bit for bit, the others the
formula at their own noise.
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
from benchmarks.perturb import GATE_ELEMENTS, GATE_SIGMAS, SIGMAS

Operands = tuple[Tensor, Tensor, Tensor]
Provider = Callable[[], tuple[Tensor, ...]]


def operands(elements: int, dtype: torch.dtype, device: torch.device) -> Callable[[int], Operands]:
    """x, the network's output and a place for a copy."""
    shape = image_shape(elements)

    def make(index: int) -> Operands:
        return (
            fl.rand(shape, seed=1, draw=2 * index, dtype=dtype, device=device),
            fl.randn(shape, seed=1, draw=2 * index + 1, dtype=dtype, device=device).requires_grad_(),
            torch.empty(shape, dtype=dtype, device=device),
        )

    return make


def providers(inputs: Inputs[Operands], device: torch.device, ladder: Tensor) -> dict[str, Provider]:
    """The calls: each returns perturbed samples, loss and gradient."""
    sigmas = ladder.to(device, torch.float32)
    fused_objective = fl.DenoisingScoreMatching(ladder)
    kept_objective = fl.DenoisingScoreMatching(ladder, workspace=True)

    def levels(x: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, len(sigmas), (len(x),), device=device)
        return labels, sigmas[labels].reshape(-1, *[1] * (x.ndim - 1))

    def wide(x: Tensor) -> torch.dtype:
        return torch.promote_types(x.dtype, torch.float32)

    def finish(loss: Tensor, output: Tensor) -> Tensor:
        return torch.autograd.grad(loss, output)[0]

    def published() -> tuple[Tensor, ...]:
        x, output, _ = inputs.take()
        _, sigma = levels(x)
        noise = torch.randn_like(x) * sigma
        perturbed = x + noise
        target = -1 / (sigma**2) * noise
        scores = output.view(len(x), -1)
        target = target.view(len(x), -1)
        loss = (1 / 2.0 * ((scores - target) ** 2).sum(dim=-1) * sigma.flatten() ** 2).mean(dim=0)
        return perturbed, loss, finish(loss, output)

    def expression(x: Tensor, output: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        z, sigma = torch.randn_like(x), sigma.to(x.dtype)
        residual = torch.addcmul(z, sigma, output)
        return torch.addcmul(x, sigma, z), residual.square().sum(dtype=wide(x)) * (0.5 / len(x))

    def by(function: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Provider:
        def call() -> tuple[Tensor, ...]:
            x, output, _ = inputs.take()
            perturbed, loss = function(x, output, levels(x)[1])
            return perturbed, loss, finish(loss, output)

        return call

    def by_hand() -> tuple[Tensor, ...]:
        x, output, _ = inputs.take()
        sigma = levels(x)[1].to(x.dtype)
        z = torch.randn_like(x)
        perturbed = torch.addcmul(x, sigma, z)
        residual = z.addcmul_(sigma, output.detach())
        loss = torch.linalg.vector_norm(residual, dtype=wide(x)).square() * (0.5 / len(x))
        return perturbed, loss, residual.mul_(sigma / len(x))

    def compiled(options: dict[str, bool]) -> Provider:
        return by(torch.compile(expression, fullgraph=True, dynamic=False, options=options))

    def by_module(objective: fl.DenoisingScoreMatching) -> Provider:
        def call() -> tuple[Tensor, ...]:
            x, output, _ = inputs.take()
            seen = []

            def net(perturbed: Tensor, labels: Tensor) -> Tensor:
                seen.append(perturbed)
                return output

            loss = objective(net, x, seed=7, step=3)
            return seen[0], loss, finish(loss, output)

        return call

    def copy() -> tuple[Tensor, ...]:
        x, _, out = inputs.take()
        return (out.copy_(x),)

    return {
        "published": published,
        "eager": by(expression),
        "eager by hand": by_hand,
        "torch.compile": compiled({}),
        "compiled, aten": compiled({"fallback_random": True}),
        "fused": by_module(fused_objective),
        "workspace": by_module(kept_objective),
        "copy": copy,
    }


def wrong(name: str, dtype: torch.dtype, device: torch.device) -> str | None:
    """None where a provider computes the step on a small input, else what is wrong with it."""
    inputs = Inputs(GATE_ELEMENTS, operands(GATE_ELEMENTS, dtype, device), 1)
    x, output, _ = inputs.sets[0]
    torch.manual_seed(0)
    results = providers(inputs, device, GATE_SIGMAS)[name]()
    if name == "copy":
        return None if torch.equal(results[0], x) else "is not a copy"
    perturbed, loss, gradient = results
    if name in ("fused", "workspace"):
        objective, seen = fl.DenoisingScoreMatching(GATE_SIGMAS, impl="reference"), []
        want = objective(lambda x, labels: seen.append(x) or output, x, seed=7, step=3)
        wanted = (seen[0], want, torch.autograd.grad(want, output)[0])
        return None if all(map(torch.equal, results, wanted)) else "differs from the reference"
    # sigma and z as they must have been: sigma z = perturbed - x, and the gradient is sigma (sigma s + z) / B.
    noise = (perturbed.double() - x.double()).flatten(1)
    sigma = noise.std(1, keepdim=True)
    sigma = GATE_SIGMAS.to(device)[(sigma - GATE_SIGMAS.to(device)).abs().argmin(1)][:, None]
    residual = sigma * output.detach().double().flatten(1) + noise / sigma
    value = 0.5 * residual.square().sum() / len(x)
    # The perturbed samples are rounded by half a unit of values up to 4, divided by sigma where z is taken back.
    rounding = 2 * torch.finfo(dtype).eps / GATE_SIGMAS[-1].item()
    if abs(float(loss.detach().double() / value) - 1) > max(rounding, 1e-4):
        return f"loss {float(loss):.6g} where the formula gives {float(value):.6g}"
    error = (gradient.double().flatten(1) - sigma * residual / len(x)).abs().max() * len(x)
    return None if error < 10 * rounding else f"gradient is off by {float(error):.2g}"


def trial(kind: str, elements: int, dtype: torch.dtype, device: torch.device) -> Trial:
    inputs = Inputs(elements, operands(elements, dtype, device))
    size = elements * inputs.sets[0][0].element_size()
    calls = providers(inputs, device, SIGMAS)
    return Trial(
        f"objective of {elements:,} elements",
        calls,
        lambda name: wrong(name, dtype, device),
        base="fused",
        elements=elements,
        touched={name: (2 if name == "copy" else 4) * size for name in calls},
        # Less than this is lost among the pages that PyTorch and Python keep.
        memory={name: 2 * size for name in calls if name not in ("workspace", "copy") and size >= 2**24},
        rounds=41,
    )


PROVIDERS = ("published", "eager", "eager by hand", "torch.compile", "compiled, aten", "fused", "workspace", "copy")

BENCHMARK = Benchmark(
    "dsm",
    __doc__,
    sizes={"cpu": (3072, 128 * 3072, 2**24), "cuda": (3072, 128 * 3072, 2**24, 2**28)},
    trial=trial,
    providers=PROVIDERS,
    labels={
        "published": "published code (NCSNv2)",
        "eager": "eager 1/2 \\|\\|sigma s + z\\|\\|^2, by autograd",
        "eager by hand": "the same with the gradient written out, in place",
        "torch.compile": "`torch.compile` of the eager one, backward pass included",
        "compiled, aten": "the same with `fallback_random`: noise by PyTorch's generator",
        "fused": "`fl.DenoisingScoreMatching`",
        "workspace": "the same with `workspace=True`",
        "copy": "`y.copy_(x)`",
    },
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
