"""GroupNorm in fp64 by PyTorch's own functions, and how far from it roundings can take an implementation.

With w what a sum over a group and a few operations around it lose (``roundings.walk``), N the elements of a group, r
= 1 / sqrt(v + eps) and X the mean abs(x) of the group:

    mean     is wrong by w X
    r        by w (1 + r X) of itself: v is the mean of (x - mean)^2, whose error is that of the mean times at most
             2 abs(x - mean), of which the mean is at most 2 / r; and half of what v loses of itself r does
    n        by w N', N' = abs(n) (1 + r X) + r X
    y        by w Y', Y' = abs(weight) N' + abs(bias)
    SiLU(y)  by w (1.1 Y' + abs(out)), 1.1 being the largest slope; that exp takes a rounded -abs(y) adds less than
             0.4 w abs(y), and that where y < 0 and the slope is at most 1/2

Backward, h = SiLU'(y) is at most 1.1 and wrong by w (2.2 + Y'/2), since its slope is at most 1/2 (1 and 0 without SiLU,
which is less). So

    dy       is wrong by w D', D' = abs(g) (2.2 + Y'/2)
    dbias    by w sum D'
    dweight  by w S', S' = sum of D' abs(n) + 1.1 abs(g) N'
    dx       by w r (abs(weight) D' + (2 sum abs(weight) D' + 2 abs(n) sum abs(weight) S' + N' sum abs(weight g n) 1.1)
             / N) + w (1 + r X) abs(dx) + w T: what r is off by, and T, dx with the absolute values of its terms

where the constants of 2 leave room for the rounding of the sum or product itself.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from roundings import check, stored, walk
from torch import Tensor

NAMES = ("out", "by_x", "by_weight", "by_bias")


@dataclasses.dataclass
class Case:
    """Operands of the norm and of its gradients; ``upstream`` is the derivative by the result."""

    x: Tensor
    upstream: Tensor
    weight: Tensor
    bias: Tensor
    groups: int
    eps: float = 1e-5
    activation: bool = True

    def wanted(self) -> list[Tensor]:
        """The result and the gradients by x and, for each sample, by weight and bias, in fp64."""
        rows = []
        for x, upstream in zip(self.x.double(), self.upstream.double(), strict=True):
            leaves = [each.detach().double().requires_grad_() for each in (x[None], self.weight, self.bias)]
            # Of torch.nn.functional it is the function inside, which takes a group of one element, too.
            out = torch.group_norm(leaves[0], self.groups, *leaves[1:], self.eps)
            out = F.silu(out) if self.activation else out
            gradients = torch.autograd.grad(out, leaves, upstream[None])
            rows.append([out[0].detach(), gradients[0][0], *gradients[1:]])
        return [torch.stack(each) for each in zip(*rows, strict=True)]

    def bounds(self, wanted: list[Tensor]) -> list[Tensor]:
        """As the module derives them."""
        batch, channels = self.x.shape[:2]
        x, g, out, by_x = (
            each.double().reshape(batch, self.groups, channels // self.groups, -1)
            for each in (self.x, self.upstream, *wanted[:2])
        )
        weight, bias = (each.double().abs().view(1, self.groups, -1, 1) for each in (self.weight, self.bias))
        whole = (2, 3)
        count = x.shape[2] * x.shape[3]
        w = walk(self.x.dtype, count)
        variance, mean = torch.var_mean(x, whole, correction=0, keepdim=True)
        r = (variance + self.eps).rsqrt()
        n, g, reach = ((x - mean) * r).abs(), g.abs(), r * x.abs().mean(whole, keepdim=True)
        of_n = n * (1 + reach) + reach
        of_y = weight * of_n + bias
        of_dy = g * (2.2 + of_y / 2)
        of_by_weight = of_dy * n + 1.1 * g * of_n

        def total(values: Tensor) -> Tensor:
            return (weight * values).sum(whole, keepdim=True) / count

        terms = r * 1.1 * (weight * g + total(g) + n * total(g * n))
        shared = 2 * total(of_dy) + 2 * n * total(of_by_weight) + 1.1 * of_n * total(g * n)
        of_x = r * (weight * of_dy + shared) + (1 + reach) * by_x.abs() + terms
        images = [
            stored(w * bound, want, self.x.dtype).view(self.x.shape)
            for bound, want in ((1.1 * of_y + out.abs(), out), (of_x, by_x))
        ]
        return [*images, *(w * each.sum(3).view(batch, channels) for each in (of_by_weight, of_dy))]

    def check(self, found: tuple[Tensor, ...]) -> None:
        """Raises AssertionError where a result is further off; gradients of the parameters may be summed or not."""
        wanted = self.wanted()
        check(NAMES, found, wanted, self.bounds(wanted))


def case(
    shape: tuple[int, ...],
    groups: int,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
    *,
    deviation: float = 1.0,
    **options: object,
) -> Case:
    """Groups whose mean is as large as their deviation."""
    generator = torch.Generator().manual_seed(7)
    compute = torch.float64 if dtype == torch.float64 else torch.float32

    def draw(size: tuple[int, ...], kind: torch.dtype) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(kind)

    x = draw(shape, dtype) + draw((*shape[:2], *(1,) * (len(shape) - 2)), dtype)
    x, upstream = (each.contiguous(memory_format=memory_format) for each in (x * deviation, draw(shape, dtype)))
    weight, bias = (draw(shape[1:2], compute) for _ in range(2))
    return Case(x, upstream, weight, bias, groups, **options)  # type: ignore[arg-type]
