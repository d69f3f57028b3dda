"""GroupNorm in fp64 by PyTorch's own functions, and how far from it roundings can take an implementation.

With u the unit roundoff of the computing dtype, a sum loses u sqrt(n) of its terms where each passes n additions, as
roundings walk (Higham and Mary 2019): of N terms n is less than N, and, since every implementation sums blocks and then
their sums, less than 64. A few operations stand around it: w = u (8 + 2 sqrt(min(N, 64))), N the elements of a group.
Writing r = 1 / sqrt(v + eps) and X for the largest abs(x) of the group:

    mean     is wrong by w X
    r        by w (1 + r X) of itself: v is the mean of (x - mean)^2, whose error is that of the mean times at most
             2 abs(x - mean), of which the mean is at most 2 / r; and half of what v loses of itself r does
    n        by w N', N' = abs(n) (1 + r X) + r X
    y        by w Y', Y' = abs(weight) N' + abs(bias)
    SiLU(y)  by 1.1 times that, the largest slope; exp(-y) by w abs(y) of itself, which is w abs(y) of the result

Backward, h = SiLU'(y) is at most 1.1 and wrong by w (2.2 + Y'/2), since its slope is at most 1/2 (1 and 0 without SiLU,
which is less). So

    dy       is wrong by w D', D' = abs(g) (2.2 + Y'/2)
    dbias    by w sum D'
    dweight  by w S', S' = sum of D' abs(n) + 1.1 abs(g) N'
    dx       by w r (abs(weight) D' + (2 sum abs(weight) D' + 2 abs(n) sum abs(weight) S' + N' sum abs(weight g n) 1.1)
             / N) + w (2 + r X) T, T being dx with the absolute values of its terms: their rounding and that of r

A result of another dtype is off by half a unit in the last place more. In fp64 the oracle errs as much again.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
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
        unit = 2.0**-52 if self.x.dtype == torch.float64 else 2.0**-24
        walk = unit * (8 + 2 * min(count, 64) ** 0.5)
        variance, mean = torch.var_mean(x, whole, correction=0, keepdim=True)
        r = (variance + self.eps).rsqrt()
        n, g, reach = ((x - mean) * r).abs(), g.abs(), r * x.abs().amax(whole, keepdim=True)
        of_n = n * (1 + reach) + reach
        of_y = weight * of_n + bias
        of_dy = g * (2.2 + of_y / 2)
        of_by_weight = of_dy * n + 1.1 * g * of_n

        def total(values: Tensor) -> Tensor:
            return (weight * values).sum(whole, keepdim=True) / count

        terms = r * 1.1 * (weight * g + total(g) + n * total(g * n))
        shared = 2 * total(of_dy) + 2 * n * total(of_by_weight) + 1.1 * of_n * total(g * n)
        of_x = r * (weight * of_dy + shared) + (2 + reach) * terms
        last = torch.finfo(self.x.dtype)
        images = [
            (walk * bound + want.abs() * (last.eps / 2) + last.tiny * last.eps).view(self.x.shape)
            for bound, want in ((1.1 * of_y + out.abs(), out), (of_x, by_x))
        ]
        return [*images, *(walk * each.sum(3).view(batch, channels) for each in (of_by_weight, of_dy))]

    def check(self, found: tuple[Tensor, ...]) -> None:
        """Raises AssertionError where a result is further off; gradients of the parameters may be summed or not."""
        wanted = self.wanted()
        for name, got, want, bound in zip(NAMES, found, wanted, self.bounds(wanted), strict=True):
            if got.ndim == 1:
                # The sum over the batch rounds as often as there are samples.
                bound = bound.sum(0) + len(want) * torch.finfo(got.dtype).eps * want.abs().sum(0)
                want = want.sum(0)
            assert got.shape == want.shape, name
            assert ((got.double().cpu() - want.cpu()).abs() <= bound.cpu()).all(), name


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
