"""Elements and strides beyond 2^31, where a 32-bit offset wraps: the first and the last elements are right.

    python -m tests.long.large --json results.json         also a sample of more than 2^31 elements, which is written

Spread: rows 2^30 elements apart, a few elements each, as state, score, output, noise, known values, clean data and the
network's output; the memory between them is never touched, so never there. Written: a sample of 2^31 + 12 normals in
float16, and updates of it in place: 4.3 GB. The controls read rows at their offset modulo 2^31, and take the noise of
blocks modulo 2^29.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fastlangevin as fl
from fastlangevin import reference
from tests.long.arrangements import same_bits
from tests.long.record import finish, parser

__all__ = ["SPREAD", "spread", "wrapped", "wraps", "wrong"]

STRIDE = 2**30 + 5
SHAPE = (4, 70)
LARGEST = 2**31 + 12
ADDRESS: dict[str, Any] = {"seed": 5, "draw": 3, "sample_offset": 2**40}
NUMBERS: dict[str, Any] = {"a": 0.3, "b": 0.7, "c": 0.9}

Operation = Callable[[Callable[[Tensor], Tensor], str], list[Tensor]]


def spread(x: Tensor) -> Tensor:
    """The values of a small tensor, in rows that lie 2^30 elements apart. NumPy's memory, which no mode fills."""
    memory = torch.from_numpy(np.empty(3 * STRIDE + SHAPE[1], dtype=np.float16))
    return memory.as_strided(SHAPE, (STRIDE, 1)).copy_(x)


def wrapped(x: Tensor) -> Tensor:
    """What is read of a spread tensor with offsets that have lost their 31st bit: for the control."""
    memory = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
    offsets = torch.arange(x.shape[0])[:, None] * x.stride(0) + torch.arange(x.shape[1]) * x.stride(1)
    return memory[offsets % 2**31]


def _values(draw: int) -> Tensor:
    return fl.randn(SHAPE, seed=1, draw=draw, dtype=torch.float16, impl="reference")


def _update(lay: Callable[[Tensor], Tensor], impl: str) -> list[Tensor]:
    x, score = _values(0), _values(1)
    out = lay(torch.zeros_like(x))
    fl.step(x, score, **NUMBERS, **ADDRESS, out=out, impl=impl)
    return [
        fl.step(lay(x), score, **NUMBERS, **ADDRESS, impl=impl),
        fl.step(x, lay(score), **NUMBERS, **ADDRESS, impl=impl),
        fl.step(x, score, **NUMBERS, noise=lay(score), mask=x > 0, known=lay(x), impl=impl),
        out,
        fl.step_(lay(x), score, **NUMBERS, **ADDRESS, impl=impl),
    ]


def _perturb(lay: Callable[[Tensor], Tensor], impl: str) -> list[Tensor]:
    labels = torch.tensor([0, 1, 1, 0])
    sigmas = torch.tensor([2.0, 0.5])
    return [
        *fl.perturb(lay(_values(0)), sigmas, **ADDRESS, impl=impl),
        *fl.perturb(_values(0), sigmas, noise=lay(_values(1)), labels=labels, impl=impl),
    ]


def _dsm(lay: Callable[[Tensor], Tensor], impl: str) -> list[Tensor]:
    h = lay(_values(1)).requires_grad_()
    address = {"seed": 7, "step": 3, "sample_offset": 5}
    loss = fl.dsm_loss(lambda x, labels: h, lay(_values(0)), [2.0, 0.5], **address, reduction="none", impl=impl)
    return [loss.detach(), *torch.autograd.grad(loss.sum(), h)]


SPREAD: dict[str, Operation] = {"step": _update, "perturb": _perturb, "dsm": _dsm}


def wrong(impl: str = "cpp") -> list[str]:
    """The operations whose bits are not those of the reference on contiguous tensors."""
    found = []
    for name, operation in SPREAD.items():
        wanted = operation(torch.clone, "reference")
        if not all(map(same_bits, operation(spread, impl), wanted)):
            found.append(name)
    return found


def wraps() -> bool:
    """The control: whether a lost bit of the offsets changes a result."""
    x, score = _values(0), _values(1)
    wanted = fl.step(x, score, **NUMBERS, **ADDRESS, impl="cpp")
    return not same_bits(fl.step(wrapped(spread(x)), score, **NUMBERS, **ADDRESS, impl="cpp"), wanted)


def _ends(first: int, last: int) -> Tensor:
    """The normals of two blocks of sample 9 at the address of :func:`written`, by their own counters."""
    blocks = torch.tensor([first, last])
    words = reference.philox(blocks, *(torch.tensor(word) for word in (9, 3, 128 << 24, 5, 0)))
    return torch.stack((*reference.normal_pair(*words[:2]), *reference.normal_pair(*words[2:])), dim=-1)


def written() -> dict[str, bool]:
    """Whether the first and the last four elements of a sample of more than 2^31 are right; 4.3 GB are written."""
    ends = _ends(0, LARGEST // 4 - 1)
    x = fl.randn((1, LARGEST), seed=5, draw=3, sample_offset=9, dtype=torch.float16, impl="cpp")
    right = {"randn": torch.equal(torch.stack((x[0, :4], x[0, -4:])), ends.half())}
    wrapping = torch.equal(x[0, -4:], _ends(0, (LARGEST // 4 - 1) % 2**29)[1].half())
    number: dict[str, Any] = {"seed": 5, "draw": 3, "sample_offset": 9, "purpose": 128}
    fl.step_(x, x, a=-0.5, b=1.0, **number, impl="cpp")
    right["step_"] = torch.equal(
        torch.stack((x[0, :4], x[0, -4:])), reference.combine([(1.0, ends.half()), (-0.5, ends.half())], 1.0, ends)
    )
    return right | {"the control: as if the block wrapped at 2^29": wrapping}


def main() -> int:
    options = parser(__doc__).parse_args()
    found = wrong()
    control = wraps()
    ends = written()
    wrapping = ends.pop("the control: as if the block wrapped at 2^29")
    return finish(
        options.json,
        "any size works: more than 2^31 elements, and strides whose product exceeds it",
        "python -m tests.long.large",
        f"{len(SPREAD)} operations on rows 2^30 elements apart, {len(found)} wrong; a sample of {LARGEST} elements: "
        + ", ".join(f"{name} {'right' if right else 'wrong'} at both ends" for name, right in ends.items()),
        f"offsets modulo 2^31: {'caught' if control else 'not caught'}; "
        f"blocks modulo 2^29: {'not caught' if wrapping else 'caught'}",
        not found and control and not wrapping and all(ends.values()),
        wrong=found,
    )


if __name__ == "__main__":
    sys.exit(main())
