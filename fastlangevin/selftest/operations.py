"""The operations that have the same bits everywhere, each on a small input that visits its paths."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastlangevin.ladders import geometric_sigmas
from fastlangevin.losses import DenoisingScoreMatching
from fastlangevin.noise import Purpose
from fastlangevin.ops import perturb, rand, randn, step

__all__ = ["DIGESTS", "OPERATIONS", "digest"]

SEED = 0x9E3779B97F4A7C15
LADDER = geometric_sigmas(1.0, 0.01, 10)

Operation = Callable[[str, torch.device], list[Tensor]]


def _normals(impl: str, device: torch.device) -> list[Tensor]:
    place: dict[str, Any] = {"impl": impl, "device": device}
    ids = torch.tensor([0, 1, 2**32 - 1, 2**32, 2**56 - 1], dtype=torch.int64, device=device)
    return [
        randn((64, 3, 16, 16), seed=SEED, draw=0, **place),
        randn((5, 103), seed=2**64 - 1, draw=2**32 - 1, sample_ids=ids, purpose=Purpose.DSM_NOISE, **place),
        randn((7, 5), seed=0, draw=1, dtype=torch.float64, **place),
        randn((16, 64), seed=1, draw=2, dtype=torch.bfloat16, **place),
    ]


def _uniforms(impl: str, device: torch.device) -> list[Tensor]:
    return [rand((64, 1001), seed=SEED, draw=7, purpose=Purpose.INITIAL_STATE, impl=impl, device=device)]


def _update(impl: str, device: torch.device) -> list[Tensor]:
    results = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        # The inputs are the stream's, made by the reference: what is tried is the update.
        x, score = (
            randn((32, 3, 8, 8), seed=5, draw=draw, dtype=dtype, impl="reference", device=device) for draw in (0, 1)
        )
        results.append(step(x, score, a=0.02, b=0.2, c=0.99, seed=SEED, draw=3, impl=impl))
    last = results[0].contiguous(memory_format=torch.channels_last)
    # Evenly from 0.1 to 2 as fp32 numbers are. Not by torch.linspace, whose last bits differ between processors.
    first, gap = 0.10000000149011612, 0.06129032000899315
    even = [first + gap * i if i < 16 else 2.0 - gap * (31 - i) for i in range(32)]
    scale = torch.tensor(even, dtype=torch.float32, device=device)
    mask = torch.arange(8, dtype=torch.int64, device=device) < 3
    results.append(step(last, last, a=scale, b=scale, seed=SEED, draw=4, mask=mask, known=last, impl=impl))
    return results


def _objective(impl: str, device: torch.device) -> list[Tensor]:
    x = rand((12, 3, 24, 24), seed=5, draw=2, impl="reference", device=device)
    output = randn((12, 3, 24, 24), seed=5, draw=3, impl="reference", device=device).requires_grad_()
    noisy, labels = perturb(x, LADDER.to(device, torch.float32), seed=SEED, draw=9, impl=impl)
    loss = DenoisingScoreMatching(LADDER, impl=impl)(lambda x, labels: output, x, seed=SEED, step=9)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss, output)
    return [noisy, labels, loss.detach(), gradient]


OPERATIONS: dict[str, Operation] = {
    "normals": _normals,
    "uniforms": _uniforms,
    "update": _update,
    "objective": _objective,
}

# SHA-256 of the results' bytes in stream version 1. They change with the stream's version, never otherwise.
DIGESTS = {
    "normals": "9b7bd5b27a82d0940051fe64de830096428e7f751ece1545cb47f307992b6f26",
    "uniforms": "4a3d1bf4291122d05373f6670e91b485b56ddd19f660c3b3d41dc5d5242fc965",
    "update": "54b9b8b2c3e08e338e72709c883d8bb56d6ffae54235beabb6591b1517217bb6",
    "objective": "02da8c14249790cea3ad77df84ad798e429bd019472f87bbceb6f19dd57d5f86",
}


def digest(results: list[Tensor]) -> str:
    """SHA-256 of tensors: dtype, shape and the elements in logical order, low byte first."""
    total = hashlib.sha256()
    for each in results:
        host = each.detach().cpu().contiguous()
        total.update(f"{host.dtype} {tuple(host.shape)}".encode())
        total.update(host.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
