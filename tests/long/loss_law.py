"""Denoising score matching against its closed forms, with enough elements to see noise that is off by 0.1 %.

    python -m tests.long.loss_law                           10^8 elements for each network, half a minute
    python -m tests.long.loss_law --elements 40000000       a look
    python -m tests.long.loss_law --json results.json       also keep the numbers

Data are N(MU, S^2) and scores affine, -(x' - b)/c. Then r = sigma s(x') + z is Gaussian, of mean -sigma (MU - b)/c and
variance (sigma S/c)^2 + (1 - sigma^2/c)^2, and an element's loss is r^2/2: a zero network has 1/2 at every level, the
true score (b = MU, c = S^2 + sigma^2) has the floor S^2/(S^2 + sigma^2)/2, below which no loss can fall. There the
gradient sigma r is independent of x', which its mean, its size and its product with x' tell.

A statistic is given in standard errors, which are exact too, and accepted below LIMIT; each mistake must be above it.
Exit status 1 where either fails.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

import fastlangevin as fl
from fastlangevin.losses import DenoisingScoreMatching
from tests.long.law import FEWEST, LADDER, MU, PART, S
from tests.long.record import finish, parser

__all__ = ["LIMIT", "MISTAKES", "NETWORKS", "Affine", "distances", "worst"]

DIMENSION = 100
# A correct loss is above it with probability 6e-7 a statistic, and there are 36 of them.
LIMIT = 5.0
Network = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Affine:
    """The score -(x' - b)/c.

    Attributes:
        b: its zero.
        c: its width at each level, ``(L,)``.
    """

    b: float
    c: Tensor

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        return (self.b - x) / self.c.to(x.dtype)[labels][:, None]

    def residual(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of sigma s(x') + z at each level."""
        mean = -LADDER * (MU - self.b) / self.c
        return mean, (LADDER * S / self.c) ** 2 + (1 - LADDER**2 / self.c) ** 2


WIDTHS = S**2 + LADDER**2
NETWORKS = {
    "zero": Affine(0.0, torch.full_like(LADDER, torch.inf)),
    "the true score": Affine(MU, WIDTHS),
    "another score": Affine(0.1, 0.7 * WIDTHS + 0.2),
}


@dataclass(frozen=True)
class Mistake:
    """What a wrong loss does.

    Attributes:
        power: of sigma in the weight.
        factor: of the loss.
        score: what it takes for the score, of a network, x, x' and the labels.
    """

    power: float = 2.0
    factor: float = 1.0
    score: Callable[[Affine, Tensor, Tensor, Tensor], Tensor] = lambda net, x, noisy, labels: net(noisy, labels)


def _too_much_noise(net: Affine, x: Tensor, noisy: Tensor, labels: Tensor) -> Tensor:
    """That of a loss whose z is 0.1 % too large where it compares: s + 0.001 z / sigma."""
    return net(noisy, labels) + 0.001 * (noisy - x) / (LADDER**2).to(x.dtype)[labels][:, None]


def _other_noise(net: Affine, x: Tensor, noisy: Tensor, labels: Tensor) -> Tensor:
    other, _ = fl.ops.perturb(x, LADDER, labels=labels, seed=1)
    return net(other, labels)


MISTAKES = {
    "sigma to the power 3": Mistake(power=3.0),
    "without the half": Mistake(factor=2.0),
    "noise 0.1% too large": Mistake(score=_too_much_noise),
    "another step's noise": Mistake(score=_other_noise),
}


def distances(net: Affine, elements: int, mistake: Mistake | None = None) -> dict[str, float]:
    """Distances of a network's losses and gradients from their exact means, in standard errors.

    Args:
        net: the network.
        elements: of all samples together, which have DIMENSION each.
        mistake: what is done wrong, for the twins.

    Returns:
        By statistic; those of the gradient where the network is the true score.
    """
    wrong = mistake or Mistake()
    objective = DenoisingScoreMatching(LADDER, anneal_power=wrong.power, reduction="sum")
    sums, counts = torch.zeros_like(LADDER), torch.zeros_like(LADDER)
    products = torch.zeros(3, dtype=torch.float64)
    optimal = net.b == MU and torch.equal(net.c, WIDTHS)
    mean, variance = net.residual()
    rows = max(1, elements // DIMENSION)
    for first in tqdm(range(0, rows, PART // DIMENSION), disable=None, leave=False):
        address = {"seed": 0, "sample_offset": first}
        shape = (min(PART // DIMENSION, rows - first), DIMENSION)
        x = MU + S * fl.randn(shape, draw=1, **address)
        seen: list[Tensor] = []

        def network(noisy: Tensor, labels: Tensor, x: Tensor = x, seen: list[Tensor] = seen) -> Tensor:
            h = wrong.score(net, x, noisy, labels).requires_grad_(optimal)
            seen[:] = [noisy, labels, h]
            return h

        loss = wrong.factor * objective(network, x, **address)
        assert objective.per_level is not None
        sums += wrong.factor * objective.per_level.sums
        counts += DIMENSION * objective.per_level.counts
        if optimal:
            noisy, labels, h = seen
            (gradient,) = torch.autograd.grad(loss, h)
            r = gradient.double() / (LADDER * variance.sqrt())[labels][:, None]
            place = (noisy.double() - MU) / WIDTHS.sqrt()[labels][:, None]
            products += torch.stack([r.sum(), (r * place).sum(), (r.square() - 1).sum() / math.sqrt(2)])
    off = sums - counts * (mean**2 + variance) / 2
    spread = counts * (variance**2 / 2 + mean**2 * variance)
    found = {f"loss at level {level}": value for level, value in enumerate((off / spread.sqrt()).tolist())}
    found["loss"] = float(off.sum() / spread.sum().sqrt())
    if optimal:
        names = ("gradient", "gradient times x'", "gradient squared")
        found |= dict(zip(names, (products / math.sqrt(rows * DIMENSION)).tolist(), strict=True))
    return found


def worst(found: dict[str, float]) -> float:
    return max(map(abs, found.values()))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--elements", type=int, default=10**8, help="for each network")
    given = options.parse_args(arguments)
    if given.elements < FEWEST:
        options.error(f"--elements must be {FEWEST} or more, got {given.elements}: fewer do not show 0.1% of noise")
    right = {name: distances(net, given.elements) for name, net in NETWORKS.items()}
    wrong = {
        mistake: {name: distances(net, given.elements, each) for name, net in NETWORKS.items()}
        for mistake, each in MISTAKES.items()
    }
    return finish(
        given.json,
        "denoising score matching has its closed form",
        "python -m tests.long.loss_law",
        f"{given.elements} elements for each of {len(right)} scores, {sum(map(len, right.values()))} statistics of "
        f"losses and gradients: {max(map(worst, right.values())):.1f} standard errors at most",
        ", ".join(f"{name}: {max(map(worst, found.values())):.0f}" for name, found in wrong.items())
        + " standard errors",
        all(worst(found) < LIMIT for found in right.values())
        and all(max(map(worst, found.values())) > LIMIT for found in wrong.values()),
        right=right,
        wrong=wrong,
    )


if __name__ == "__main__":
    sys.exit(main())
