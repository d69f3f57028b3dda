"""The norms that signal-to-noise rules take: of each sample's score, and of the noise that its update will draw.

    python -m benchmarks.sample_norms                      this machine's CPU, 1 and 2 threads
    python -m benchmarks.sample_norms --device cuda        a GPU
    python -m benchmarks.sample_norms --json results.json  also keep the numbers

Providers:
    published      randn_like, and torch.norm of both as score_sde's corrector writes it
    eager          noise.normal_(), torch.linalg.vector_norm of both
    torch.compile  the published form compiled
    compiled, aten the same with fallback_random: PyTorch draws the noise
    fused          norms_with_noise: the noise is summed where it is drawn and never written
    copy           y.copy_(x): what the memory gives

Bytes are the algorithm's: the score is read, 4 an element in fp32; a copy moves 8. No time is printed for a provider
whose output is wrong: the fused one must equal the reference bit for bit, the others' norms of the score must be within
rounding of fp64 and their mean square of the noise within six standard errors of one.
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
from fastlangevin.noise import Address, Purpose
from fastlangevin.ops.sample_norms import norms_with_noise

GATE_ELEMENTS = 64 * 3072
ADDRESS = Address(7, 3, None, 0, Purpose.LANGEVIN)

Operands = tuple[Tensor, Tensor]
Norms = tuple[Tensor, Tensor]


def operands(elements: int, dtype: torch.dtype, device: torch.device) -> Callable[[int], Operands]:
    """The score, and a place for noise."""
    shape = image_shape(elements)

    def make(index: int) -> Operands:
        score = fl.randn(shape, seed=1, draw=index, dtype=dtype, device=device)
        return score, torch.empty_like(score)

    return make


def expression(score: Tensor) -> Norms:
    noise = torch.randn_like(score)
    return torch.norm(score.reshape(len(score), -1), dim=-1), torch.norm(noise.reshape(len(noise), -1), dim=-1)


def providers(inputs: Inputs[Operands]) -> dict[str, Callable[[], Norms]]:
    compiled = torch.compile(expression, fullgraph=True, dynamic=False)
    by_aten = torch.compile(expression, fullgraph=True, dynamic=False, options={"fallback_random": True})

    def eager() -> Norms:
        score, noise = inputs.take()
        noise.normal_()
        return torch.linalg.vector_norm(score.flatten(1), dim=1), torch.linalg.vector_norm(noise.flatten(1), dim=1)

    def copy() -> Norms:
        score, noise = inputs.take()
        return noise.copy_(score), score

    return {
        "published": lambda: expression(inputs.take()[0]),
        "eager": eager,
        "torch.compile": lambda: compiled(inputs.take()[0]),
        "compiled, aten": lambda: by_aten(inputs.take()[0]),
        "fused": lambda: norms_with_noise(inputs.take()[0], ADDRESS),
        "copy": copy,
    }


def wrong(name: str, dtype: torch.dtype, device: torch.device) -> str | None:
    """None where a provider's norms of a small input are right, else what is wrong with them."""
    make = operands(GATE_ELEMENTS, dtype, device)
    score = make(0)[0]
    of_score, of_noise = providers(Inputs(GATE_ELEMENTS, make, 1))[name]()
    if name == "copy":
        return None if torch.equal(of_score, score) else "is not a copy"
    if name == "fused":
        want = norms_with_noise(score, ADDRESS, impl="reference")
        return None if all(map(torch.equal, (of_score, of_noise), want)) else "differs from the reference"
    exact = score.double().flatten(1).norm(dim=1)
    # The result's own rounding, and as much again for a sum of 3072 squares in some order.
    error = float(((of_score.double() - exact) / exact).abs().max())
    if error > torch.finfo(dtype).eps + 3072 * torch.finfo(torch.float32).eps / 2:
        return f"a norm of the score is off by {error:.1e} of it"
    square = float(of_noise.double().square().sum()) / score.numel()
    # Half precision rounds the normals and the norms: half a unit each, twice in a square.
    if abs(square - 1) > 6 * (2 / score.numel()) ** 0.5 + 2 * torch.finfo(dtype).eps:
        return f"the noise has mean square {square:.4f}"
    return None


def trial(kind: str, elements: int, dtype: torch.dtype, device: torch.device) -> Trial:
    inputs = Inputs(elements, operands(elements, dtype, device))
    size = elements * inputs.sets[0][0].element_size()
    calls = providers(inputs)
    return Trial(
        f"norms of {elements:,} elements",
        dict(calls),
        lambda name: wrong(name, dtype, device),
        base="fused",
        elements=elements,
        touched={name: (2 if name == "copy" else 1) * size for name in calls},
    )


BENCHMARK = Benchmark(
    "sample_norms",
    __doc__,
    sizes={"cpu": (3072, 128 * 3072, 2**24), "cuda": (3072, 128 * 3072, 2**24, 2**28)},
    trial=trial,
    providers=("published", "eager", "torch.compile", "compiled, aten", "fused", "copy"),
    threads=(2, 1),
    labels={
        "published": "published code (score_sde), with its noise",
        "eager": "`noise.normal_()` and two `vector_norm`s",
        "torch.compile": "`torch.compile` of the published form",
        "compiled, aten": "the same with `fallback_random`: noise by PyTorch's generator",
        "fused": "`norms_with_noise(score, ...)`",
        "copy": "`y.copy_(x)`",
    },
)

if __name__ == "__main__":
    sys.exit(command(BENCHMARK))
