"""InstanceNorm++ in fp64 by the reference and autograd, and how far from it roundings can take an implementation.

With w what a sum over a plane or over the channels and a few operations around it lose (``roundings.walk``), r
= 1 / sqrt(v + 1e-5), q = 1 / sqrt(var mu + 1e-5), P the pixels, X the mean abs(x) of a plane and Z the largest X of the
sample, what all pixels of a plane have in common is off by

    mu       w X
    r        w R of itself, R = 1 + r X: v is the mean of (x - mu)^2, whose error is that of mu times at most
             2 abs(x - mu), of which the mean is at most 2 / r; and half of what v loses of itself r does
    m        w M, M = abs(m) (1 + 4.3 q Z) + 3 q Z: mu - mean mu is off by w Z and 2 w Z for the mean, and q, as r, by
             3 w Z times the sum of abs(mu - mean mu) / (C - 1) <= sqrt(C / (C - 1)) / q, and 3 sqrt(2) < 4.3

so that n is off by w N, N = abs(n) R + r X, and y by w Y, Y = abs(gamma) N + abs(gamma alpha) M + Y0, where Y0
= abs(gamma n) + abs(gamma alpha m) + abs(beta) are the roundings of its own; and out by w (Y + abs(out)), the slope of
ELU being at most 1. Where a residual is added first, x is the sum, rounded to its dtype.

Backward, with h the slope of ELU and k its slope (1 and 0 without ELU), dy = g h is off by w (abs(g) k Y0 + 2 abs(dy))
of its own, its sum included, and for what the plane has in common by k g times the change of y, of which the sums
over a plane, of either sign, are taken before their magnitude. So

    S1 = sum dy    by w B, B = abs(gamma) (abs(sum g k) (r X + abs(alpha) M) + abs(sum g k n) R) + sum of its own
    S2 = sum dy n  by w S, S = abs(gamma) (abs(sum g k n) (r X + abs(alpha) M) + abs(sum g k n^2) R)
                   + abs(S1) r X + abs(S2) R + sum of abs(n) times dy's own, and of abs(dy n)
    m S1           by w L, L = M abs(S1) + abs(m) (B + abs(S1))
    d = gamma alpha S1  by w F, F = abs(gamma alpha) (B + abs(S1))

and dbeta = S1, dgamma = S2 + alpha m S1, dalpha = gamma m S1 by what that makes;

    e              by w q (F + mean F + abs(m) sum(F abs(m) + abs(d) M) / (C - 1) + M sum(abs(d m)) / (C - 1))
                   + w (2 + 4.3 q Z) times e with the absolute values of its terms: their rounding and that of q
    dx             by w r abs(gamma) (D + (B + abs(n) S + N abs(S2)) / P), D = abs(g) k Y + 2 abs(dy), by what its
                   first term is with absolute values, and with R in place of r, and by what e / P is
"""

from __future__ import annotations

import dataclasses

import torch
from roundings import check, stored, walk
from torch import Tensor

from fastlangevin import reference
from fastlangevin.kernels.operands import InstanceNorm
from fastlangevin.reference.instance_norm import EPSILON

NAMES = ("out", "by_x", "by_gamma", "by_alpha", "by_beta")


@dataclasses.dataclass
class Case:
    """Operands of the norm and of its gradients; ``upstream`` is the derivative by the result."""

    x: Tensor
    upstream: Tensor
    residual: Tensor | None
    gamma: Tensor
    alpha: Tensor
    beta: Tensor
    activation: bool = True

    def total(self) -> Tensor:
        """What is normalised."""
        return self.x if self.residual is None else self.x + self.residual

    def wanted(self) -> list[Tensor]:
        """The result and the gradients of x and, for each sample, gamma, alpha and beta, in fp64."""
        rows = (each.double().expand(self.x.shape[:2]).clone() for each in (self.gamma, self.alpha, self.beta))
        leaves = [each.requires_grad_() for each in (self.total().double().clone(), *rows)]
        out, _, _ = reference.instance_norm(InstanceNorm(*leaves, self.activation))
        gradients = torch.autograd.grad(out, leaves, self.upstream.double())
        return [out.detach(), *gradients]

    def bounds(self, wanted: list[Tensor]) -> list[Tensor]:
        """As the module derives them."""
        x, g = self.total().double(), self.upstream.double()
        gamma, alpha, beta = (
            each.double().expand(x.shape[:2])[:, :, None, None] for each in (self.gamma, self.alpha, self.beta)
        )
        channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
        w = walk(self.x.dtype, max(channels, pixels))
        variance, mu = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        spread, centre = torch.var_mean(mu, 1, correction=1, keepdim=True)
        r, q = (variance + EPSILON).rsqrt(), (spread + EPSILON).rsqrt()
        n, m = (x - mu) * r, (mu - centre) * q
        y = gamma * (n + alpha * m) + beta
        size = x.abs().mean((2, 3), keepdim=True)
        of_mean, of_r, of_q = r * size, 1 + r * size, 1 + 4.3 * q * size.amax(1, keepdim=True)

        def total(values: Tensor) -> Tensor:
            return values.sum((2, 3), keepdim=True)

        def over(values: Tensor) -> Tensor:
            return values.sum(1, keepdim=True) / (channels - 1)

        slope = torch.where(y > 0, 1, y.clamp(max=0).exp()) if self.activation else torch.ones_like(y)
        bend = torch.where(y > 0, 0, slope) * self.activation
        dy, bent = g * slope, g * bend
        first, second = total(dy), total(dy * n)
        product, gamma, alpha, bias = (gamma * alpha).abs(), gamma.abs(), alpha.abs(), beta.abs()
        of_n = n.abs() * of_r + of_mean
        of_m = m.abs() * of_q + 3 * q * size.amax(1, keepdim=True)
        own_y = gamma * n.abs() + product * m.abs() + bias
        of_y = gamma * of_n + product * of_m + own_y
        own_dy = bent.abs() * own_y + 2 * dy.abs()
        shared = of_mean + alpha * of_m
        of_first = gamma * (total(bent).abs() * shared + total(bent * n).abs() * of_r) + total(own_dy)
        of_second = gamma * (total(bent * n).abs() * shared + total(bent * n * n).abs() * of_r)
        of_second += first.abs() * of_mean + second.abs() * of_r + total(own_dy * n.abs() + (dy * n).abs())
        of_product = of_m * first.abs() + m.abs() * (of_first + first.abs())
        d, of_d, m = product * first.abs(), product * (of_first + first.abs()), m.abs()
        of_e = of_d + of_d.mean(1, keepdim=True) + m * over(of_d * m + d * of_m) + of_m * over(d * m)
        of_e += (1 + of_q) * (d + d.mean(1, keepdim=True) + m * over(d * m))
        of_x = bent.abs() * of_y + 2 * dy.abs() + (of_first + n.abs() * of_second + of_n * second.abs()) / pixels
        of_x += of_r * (dy - (first + n * second) / pixels).abs()
        of_x += dy.abs() + (first.abs() + (n * second).abs()) / pixels
        of_x = r * gamma * of_x + q * of_e / pixels
        of_out = of_y + wanted[0].abs()
        images = [stored(w * each, want, self.x.dtype) for each, want in zip((of_out, of_x), wanted, strict=False)]
        rows = of_second + alpha * of_product, gamma * of_product, of_first
        return [*images, *(w * each[:, :, 0, 0] for each in rows)]

    def check(self, found: tuple[Tensor, ...] | list[Tensor]) -> None:
        """Raises AssertionError where a result is further off; gradients of the parameters may be summed or not."""
        wanted = self.wanted()
        check(NAMES, found, wanted, self.bounds(wanted))
