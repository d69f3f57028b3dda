"""Is the noise what it claims to be? Statistics of 10^9 normals, each with its p-value, and mistakes they must reject.

    python -m tests.long.noise_statistics                              10^9 normals, some minutes
    python -m tests.long.noise_statistics --short --json results.json  10^7

The normals are those of the C++ kernels with the processor's best instruction set. The other instruction sets and plain
PyTorch have the same bits: that is not tested here again by statistics, but by equality, on the first chunk.

Addresses are fixed, so that every p is a constant but for rounding; one of 10^-6 or less is a failure, and so is a
mistake with a larger one.
What each statistic is, and its law, stands in :mod:`tests.long.tallies` and :mod:`tests.long.uniforms`.

Known to be discrete: the radius has 2^32 values and the angle 2^25. The radius ends at 6.76, beyond which 1.4 of 10^11
normals should be. The angle shows where a normal is nearer to zero than the angle to a quarter turn can be, pi 2^-25:
"discreteness" in the figures compares the counts there with a continuous law, and says how many normals tell.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import fastlangevin as fl
from benchmarks.timing import machine
from benchmarks.writing import write_record
from fastlangevin.kernels.cpp import native
from fastlangevin.noise import Purpose
from tests.long import uniforms
from tests.long.pvalues import Statistic, poisson
from tests.long.tallies import GROUPS, NEAR_ZERO, SHAPE, near_zero_of_the_angles

ACCEPTED = 1e-6
SEEDS = (0, 1, 2**32)
PURPOSES = (Purpose.LANGEVIN, Purpose.DSM_NOISE)
GROUPS_OF_SAMPLES = 32
PER_CHUNK = math.prod(SHAPE)


class Size(NamedTuple):
    """Chunks of normals, of uniforms and of words; how gross the mistakes are that only many normals tell.

    ``clamp`` is the smallest uniform of a clamped radius, ``bits`` those of a coarse one.
    """

    chunks: int
    uniforms: int
    words: int
    clamp: float
    bits: int


SHORT = Size(7, 4, 1, 1e-4, 16)
LONG = Size(640, 200, 64, 1e-7, 24)


def chunk(index: int, impl: str = "cpp") -> Tensor:
    """Normals at addresses that no other chunk has."""
    count, length = SHAPE[4:]
    first, draws = index % GROUPS_OF_SAMPLES * count, index // GROUPS_OF_SAMPLES * SHAPE[2]
    parts = [
        fl.randn(
            (count, length),
            seed=seed,
            purpose=purpose,
            draw=draws + draw,
            sample_offset=first + (high << 32),
            impl=impl,
        )
        for seed, purpose, draw, high in itertools.product(SEEDS, PURPOSES, range(SHAPE[2]), range(SHAPE[3]))
    ]
    return torch.stack(parts).view(SHAPE)


# Mistakes.


def pairs_scaled(z: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
    """Each pair of normals times a function of its r^2, in fp64."""
    pairs = z.double().unflatten(-1, (-1, 2))
    return (pairs * factor(pairs.square().sum(-1, keepdim=True))).flatten(-2).float()


def clamped(z: Tensor, smallest: float) -> Tensor:
    limit = -2 * math.log(smallest)
    return pairs_scaled(z, lambda squared: (limit / squared).clamp(max=1).sqrt())


def coarse(z: Tensor, bits: int) -> Tensor:
    def factor(squared: Tensor) -> Tensor:
        uniform = torch.ceil(torch.exp(-squared / 2) * 2.0**bits) * 2.0**-bits
        return (-2 * torch.log(uniform) / squared).sqrt()

    return pairs_scaled(z, factor)


def reused_offset(z: Tensor) -> Tensor:
    """A draw that begins one block after the one before it, as where a counter goes on by too little."""
    wrong = z.clone()
    wrong[:, :, 1, ..., :-4] = z[:, :, 0, ..., 4:]
    return wrong


def rank_in_the_seed(z: Tensor) -> Tensor:
    """Process 1 has the next seed and the sample ids of process 0."""
    wrong, half = z.clone(), SHAPE[4] // 2
    wrong[0, ..., half:, :] = z[1, ..., :half, :]
    return wrong


def of_one_sign(z: Tensor) -> Tensor:
    """An angle of half a turn, and a sign for both normals of a pair."""
    wrong = z.clone()
    wrong[..., 1::2] = torch.copysign(z[..., 1::2], z[..., 0::2])
    return wrong


def shared_by_a_sample(z: Tensor) -> Tensor:
    """A hundredth of one normal in all elements of a sample: each correlation is 10^-4."""
    return z + 0.01 * z[..., :1]


def without_the_lowest_bit(uniform: Tensor) -> Tensor:
    return ((uniform * 2.0**22).floor() + 0.25) * 2.0**-22


def antithetic(uniform: Tensor) -> Tensor:
    wrong = uniform.clone()
    wrong[..., 1::2] = 1 - uniform[..., 0::2]
    return wrong


class Control(NamedTuple):
    """A mistake, the group and the statistic that must reject it, and how many chunks that takes."""

    change: Callable[[Tensor], Tensor]
    group: str
    statistic: str
    chunks: int


def controls(size: Size) -> dict[str, Control]:
    # At n normals the variance of those this much too large is 8.9 standard errors off; 1.0001 at 10^9 is 4.5, for
    # the most powerful test there is.
    factor = 1 + 6.3 / math.sqrt(size.chunks * PER_CHUNK)
    tail = next(k for k in ("4.5", "5", "5.8") if float(k) > math.sqrt(-2 * math.log(size.clamp)))
    end = next(k for k in ("5", "5.8") if float(k) > math.sqrt(2 * size.bits * math.log(2)))
    few = SHORT.chunks
    return {
        f"uniform clamped at {size.clamp:g}": Control(
            lambda z: clamped(z, size.clamp), "pairs", f"radius beyond {tail}", size.chunks
        ),
        f"radius of {size.bits} bits": Control(
            lambda z: coarse(z, size.bits), "pairs", f"radius beyond {end}", size.chunks
        ),
        f"{factor:.6g} times too large": Control(lambda z: z * factor, "values", "moment 2", size.chunks),
        "uniform noise of variance 1": Control(
            lambda z: (torch.special.ndtr(z) - 0.5) * math.sqrt(12), "values", "Anderson-Darling", few
        ),
        "the next draw begins one block later": Control(
            reused_offset, "addresses", "z z', neighbouring draws, elements 4 apart", few
        ),
        "rank added to the seed": Control(
            rank_in_the_seed, "addresses", "z z', process 1 of run s, process 0 of run s + 1", few
        ),
        "one sign for both of a pair": Control(of_one_sign, "pairs", "angle, 256 cells", few),
        "repeated after 16 elements": Control(
            lambda z: torch.cat([z[..., :16], z[..., :-16]], -1), "serial", "z z', elements 16 apart", few
        ),
        "a part shared by a sample": Control(shared_by_a_sample, "sums", "squared sums of 4096", few),
        "no value beyond 4": Control(lambda z: z.clamp(-4, 4), "blocks", "largest of 65536", few),
    }


# What is measured.


class Pool:
    """Two threads, a chunk each at a time; sums are made in the order of the chunks, so threads change no digit."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def sum(self, work: Callable[[int], list[np.ndarray]], chunks: int, what: str) -> list[np.ndarray]:
        total: list[np.ndarray] = []
        before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as threads:
                results = threads.map(work, range(chunks))
                for each in tqdm(results, total=chunks, disable=self.quiet, unit="chunk", desc=what):
                    total = [a + b for a, b in zip(total, each, strict=True)] if total else each
        finally:
            torch.set_num_threads(before)
        return total


def accepted(size: Size, pool: Pool) -> list[Statistic]:
    n = size.chunks * PER_CHUNK

    def work(index: int) -> list[np.ndarray]:
        z = chunk(index)
        return [group.tally(z) for group in GROUPS.values()]

    found = []
    for group, total in zip(GROUPS.values(), pool.sum(work, size.chunks, "normals"), strict=True):
        found += group.statistics(total, n)
    (total,) = pool.sum(lambda index: [uniforms.tally(uniforms.chunk(index))], size.uniforms, "uniforms")
    found += uniforms.statistics(total)
    found.append(uniforms.birthday_spacings(uniforms.chunk(0)))
    (total,) = pool.sum(lambda index: [uniforms.tally_words(uniforms.random_words(index))], size.words, "words")
    return found + uniforms.words(total)


def rejected(size: Size, pool: Pool) -> dict[str, Any]:
    found = {}
    for name, control in controls(size).items():
        group = GROUPS[control.group]

        def work(index: int, control: Control = control, group: Any = group) -> list[np.ndarray]:
            return [group.tally(control.change(chunk(index)))]

        (total,) = pool.sum(work, control.chunks, name)
        every = {each.name: each for each in group.statistics(total, control.chunks * PER_CHUNK)}
        found[name] = record(every[control.statistic])
    for name, change, statistic in (
        ("the lowest bit of a uniform lost", without_the_lowest_bit, "frequencies of the 23 bits"),
        ("antithetic neighbours", antithetic, "6 bits of two neighbours"),
    ):
        total = uniforms.tally(change(uniforms.chunk(0)))
        found[name] = record(next(each for each in uniforms.statistics(total) if each.name == statistic))
    return found


def record(statistic: Statistic) -> dict[str, Any]:
    return {**statistic._asdict(), "value": round(statistic.value, 6), "p": float(f"{statistic.p:.4g}")}


def same_bits() -> dict[str, bool]:
    """Whether the first chunk is the same by every instruction set and by plain PyTorch."""
    expected = chunk(0)
    found = {"reference": torch.equal(expected, chunk(0, "reference"))}
    try:
        for name in native.instruction_sets():
            native.use_instruction_set(name)
            found[name] = torch.equal(expected, chunk(0))
    finally:
        native.use_instruction_set(None)
    return found


def discreteness(found: Sequence[Statistic]) -> dict[str, dict[str, float]]:
    """Counts near zero against a continuous law, and the normals that tell: -ln 10^-6 over the relative entropy."""
    by_name = {each.name: each for each in found}
    result = {}
    for power in NEAR_ZERO:
        name, limit = f"within 2^{power} of zero", 2.0**power
        n, count = by_name[name].n, by_name[name].value
        smooth, discrete = math.erf(limit / math.sqrt(2)), near_zero_of_the_angles(limit)
        entropy = discrete * math.log(discrete / smooth) + smooth - discrete
        result[name] = {
            "count": count,
            "expected": n * discrete,
            "expected_of_a_continuous_law": n * smooth,
            "p_of_a_continuous_law": poisson(name, n, count, n * smooth).p,
            "normals_that_tell": -math.log(ACCEPTED) / entropy if entropy > 0 else math.inf,
        }
    return result


def failures(figures: dict[str, Any]) -> list[str]:
    """What went wrong, a line each."""
    wrong = [
        f"{each['name']}: p = {each['p']:.2g} ({each['value']:.6g} of a law {each['law']})"
        for each in figures["statistics"]
        if not each["p"] > ACCEPTED
    ]
    wrong += [
        f"not rejected: {name}, {each['name']} has p = {each['p']:.2g}"
        for name, each in figures["controls"].items()
        if not each["p"] < ACCEPTED
    ]
    wrong += [f"{name} has other bits" for name, same in figures["same_bits"].items() if not same]
    return wrong


def measure(size: Size, *, quiet: bool) -> dict[str, Any]:
    pool = Pool(quiet)
    found = accepted(size, pool)
    return {
        "normals": size.chunks * PER_CHUNK,
        "uniforms": size.uniforms * uniforms.ROWS * uniforms.LENGTH,
        "instruction_set": native.instruction_sets()[0],
        "smallest_p": min(float(f"{each.p:.4g}") for each in found),
        "statistics": [record(each) for each in found],
        "controls": rejected(size, pool),
        "same_bits": same_bits(),
        "discreteness": discreteness(found),
    }


def show(figures: dict[str, Any]) -> None:
    for each in figures["statistics"]:
        print(f"{each['name']:56} {each['n']:>13,} {each['value']:>16.6g}  {each['law']:22} p = {each['p']:.3g}")
    for name, each in figures["controls"].items():
        print(f"control: {name}: {each['name']}, {each['n']:,}: p = {each['p']:.3g}")
    for name, each in figures["discreteness"].items():
        print(
            f"{name}: {each['count']:g}; by the angles {each['expected']:.4g}, by a continuous law "
            f"{each['expected_of_a_continuous_law']:.4g}, p = {each['p_of_a_continuous_law']:.3g}; "
            f"{each['normals_that_tell']:.2g} normals tell"
        )
    print("same bits: " + ", ".join(name for name, same in figures["same_bits"].items() if same))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="10^7 normals, for the tests")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args()
    started = time.monotonic()
    figures = measure(SHORT if options.short else LONG, quiet=options.quiet)
    show(figures)
    print(
        f"{len(figures['statistics'])} statistics of {figures['normals']:,} normals, the smallest p "
        f"{figures['smallest_p']:.3g}; {time.monotonic() - started:.0f} s"
    )
    wrong = failures(figures)
    for line in wrong:
        print(f"tests.long.noise_statistics: error: {line}", file=sys.stderr)
    if options.json:
        written = {"benchmark": "statistics", "machine": machine(torch.device("cpu")), **figures}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_record(options.json, written)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
