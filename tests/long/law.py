"""Samplers against the exact laws of their chains, with enough chains to see noise that is off by 0.1 %.

    python -m tests.long.law                            10^8 elements for each law, some minutes
    python -m tests.long.law --elements 40000000        a look
    python -m tests.long.law --json results.json        also keep the numbers

Annealed Langevin dynamics on N(MU, S^2), by both correctors: mean and variance of all elements after every update.
Whole chains on a Gaussian mixture of one component: their variance at the end. A statistic is given in standard errors
and accepted below LIMIT; the twins, whose noise is 0.1 % too large, must be above it. Exit status 1 where either fails.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import fastlangevin as fl
from benchmarks.harness import save
from fastlangevin.rules import Corrector

MU, S = 0.5, 0.3
LADDER = fl.geometric_sigmas(1.0, 0.01, 10)
STEPS, EPSILON = 20, 2e-5
VARIANCES = (S**2 + LADDER**2).tolist()
# A correct sampler is above it with probability 2e-9 a statistic, and there are some 800.
LIMIT = 6.0
# Of fewer, noise that is 0.1 % too large may stay below LIMIT: it is 9 standard errors of so many.
FEWEST = 40_000_000
PART = 2_000_000
Law = list[tuple[float, float]]


def score(x: Tensor, labels: Tensor) -> Tensor:
    """The score of N(MU, S^2) blurred by the level."""
    return (MU - x) / torch.tensor(VARIANCES, dtype=x.dtype)[labels][:, None]


def exact_law(corrector: Corrector = "langevin", steps: int = STEPS) -> Law:
    """(mean, variance) after every update from U(0, 1): the scheme's own law, which closed forms check elsewhere."""
    scheme = fl.schemes.annealed_langevin(LADDER, epsilon=EPSILON, steps_per_level=steps, corrector=corrector)
    means, variances = scheme.law(MU, S**2, full=True)
    return list(zip(np.asarray(means)[1:].tolist(), np.asarray(variances)[1:].tolist(), strict=True))


def annealed(elements: int, corrector: Corrector, noise: float = 1.0) -> dict[str, float]:
    """The largest distances of mean and variance from their exact values over all updates, in standard errors.

    Args:
        elements: independent chains; each sample is 100 of them.
        corrector: as for ``fl.annealed_langevin``.
        noise: factor on the noise, for the twin.
    """
    law = exact_law(corrector)
    sums = torch.zeros(len(law), 2, dtype=torch.float64)
    rows = max(1, elements // 100)

    for first in tqdm(range(0, rows, PART // 100), desc=f"{corrector}, noise x {noise}", disable=None):
        updates = iter(zip(law, sums, strict=True))

        def look(info: Any, updates: Iterator[tuple[tuple[float, float], Tensor]] = updates) -> None:
            (mean, _), total = next(updates)
            off = info.x.double() - mean
            total += torch.stack([off.sum(), off.square().sum()])

        fl.annealed_langevin(
            score,
            LADDER,
            shape=(min(PART // 100, rows - first), 100),
            epsilon=EPSILON,
            steps_per_level=STEPS,
            corrector=corrector,
            temperature=noise**2,
            seed=0,
            sample_offset=first,
            callback=look,
        )
    n = 100 * rows
    exact = torch.tensor(law, dtype=torch.float64)[:, 1]
    means = sums[:, 0] / n / (exact / n).sqrt()
    # The initial state is uniform, of less kurtosis than a Gaussian: the standard error is an upper bound.
    variances = (sums[:, 1] / n / exact - 1) / math.sqrt(2 / n)
    return {
        "elements": n,
        "updates": len(law),
        "mean": float(means.abs().max()),
        "variance": float(variances.abs().max()),
    }


def whole_chains(elements: int, device: torch.device, noise: float = 1.0, seed: int = 0) -> dict[str, float]:
    """How far the variance of whole chains on a Gaussian is from its exact law, in standard errors.

    x <- (1 - alpha/2) x + sqrt(alpha) z from x = 0 has after n updates the variance v (1 - rho^(2n)) with
    rho = 1 - alpha/2 and v = alpha/(1 - rho^2), and is Gaussian: the mean of the squares of N chains has the standard
    deviation sqrt(2/N) of it.

    Args:
        elements: N; noise off by 0.1 % is 14 standard deviations for 10^8, and 6 for 1.8 x 10^7.
        device: where they run.
        noise: factor on the noise, for the twin.
        seed: of the chains.
    """
    alpha, steps, part = 0.5, 8, 4_000_000
    gaussian = fl.GaussianMixture([1.0], [[0.0] * 4], 1.0)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for begin in range(0, elements, part):
        count = min(part, elements - begin)
        start = torch.zeros(count // 4, 4, device=device)
        made: dict[str, Any] = {"steps": steps, "epsilon": alpha, "temperature": noise**2, "seed": seed}
        total += fl.langevin(gaussian, start, sample_offset=begin // 4, **made).double().square().sum()
    rho = 1 - alpha / 2
    exact = alpha * (1 - rho ** (2 * steps)) / (1 - rho**2)
    n = elements // 4 * 4
    return {"elements": n, "updates": steps, "variance": (total.item() / n / exact - 1) / math.sqrt(2 / n)}


def results(elements: int) -> dict[str, dict[str, float]]:
    """Every law with its twin."""
    cpu = torch.device("cpu")
    found = {}
    for name, noise in (("", 1.0), (", noise 0.1 % too large", 1.001)):
        for corrector in get_args(Corrector):
            found[f"annealed, {corrector}{name}"] = annealed(elements, corrector, noise)
        found[f"whole chains{name}"] = whole_chains(elements, cpu, noise)
    return found


def is_as_claimed(name: str, row: dict[str, float]) -> bool:
    worst = max(abs(row["variance"]), row.get("mean", 0.0))
    return worst > LIMIT if "too large" in name else worst < LIMIT


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=10**8, help="chains of one element for each law")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args(arguments)
    if options.elements < FEWEST:
        parser.error(f"--elements must be {FEWEST} or more, got {options.elements}: fewer do not show 0.1 % of noise")
    found = results(options.elements)
    for name, row in found.items():
        worst = ", ".join(f"{key} {row[key]:+.2f}" for key in ("mean", "variance") if key in row)
        verdict = "as claimed" if is_as_claimed(name, row) else "NOT AS CLAIMED"
        print(f"{name:42} {row['elements']:,.0f} elements, standard errors of {worst}: {verdict}")
    if options.json:
        save(options.json, "law", torch.device("cpu"), [], limit=LIMIT, laws=found)
    return int(not all(is_as_claimed(name, row) for name, row in found.items()))


if __name__ == "__main__":
    sys.exit(main())
