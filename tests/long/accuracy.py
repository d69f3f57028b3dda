"""Error of the normals against fp64, over all 2^32 words: a proof by exhaustion of what the documentation claims.

    python -m tests.long.accuracy                  all words, some minutes
    python -m tests.long.accuracy --every 4099     one word in 4099, for a look
    python -m tests.long.accuracy --json results.json

A normal is radius(w0) cos(angle(w1)) or sin: 2^64 pairs of words, but only 2^32 radii and 2^25 angles. Each is
computed by the C++ kernels (whose bits are the reference's and Triton's) and compared with fp64; its largest error is
kept for each bin of its value, 2^9 bins to an octave. Over all pairs of bins that bounds the error of every product,
with the rounding of the product itself:

    |z - exact| <= |trig| |d radius| + |radius| |d trig| + |d radius| |d trig| + ulp(z)/2

The bound holds for every pair of words; the largest error seen over pairs that occur is below it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.timing import machine
from benchmarks.writing import write_record
from fastlangevin.kernels.cpp import native

# Small enough for memory to be used again: with 2^22 most of the time goes to page faults.
CHUNK = 2**18
BITS_OF_BIN = 9
BINS_PER_OCTAVE = 2**BITS_OF_BIN
OCTAVES = (-34, 3)
FIGURES = {"absolute": 1e-6, "ulp": 4.0, "ulp_from": 0.1, "reach": 6.7}


def exact_radius(words: Tensor) -> Tensor:
    """sqrt(-2 ln u) in fp64 for int64 words. Near u = 1 the logarithm is of the exact complement."""
    u = (words.double() + 0.5) * 2.0**-32
    complement = ((2**32 - 1 - words).double() + 0.5) * 2.0**-32
    return torch.sqrt(-2 * torch.where(words < 2**31, torch.log(u), torch.log1p(-complement)))


def exact_trig(words: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angle in fp64 for int64 words."""
    # The quarter turn nearest to the angle is taken off exactly, so that small sines and cosines keep their digits.
    quarter = (words + 2**29) >> 30
    rest = ((words >> 7 << 7) + 64 - (quarter << 30)).double() * (torch.pi * 2.0**-31)
    cosine, sine = torch.cos(rest), torch.sin(rest)
    turns = quarter % 4
    odd = turns % 2 == 1
    first, second = torch.where(odd, -sine, cosine), torch.where(odd, cosine, sine)
    flip = torch.where(turns >= 2, -1.0, 1.0)
    return first * flip, second * flip


def ulp(x: Tensor) -> Tensor:
    """The spacing of fp32 numbers at |x|, in fp64, for x in fp32's normal range."""
    power = (x.float().view(torch.int32) & 0x7F800000).view(torch.float32)
    return power.double() * 2.0**-23


def bin_of(x: Tensor) -> Tensor:
    """Exponent and leading bits of |x| as a count from 2^OCTAVES[0]; what is smaller falls into the first bin."""
    bits = x.abs().float().view(torch.int32) >> (23 - BITS_OF_BIN)
    return (bits - ((127 + OCTAVES[0]) << BITS_OF_BIN)).clamp(0, (OCTAVES[1] - OCTAVES[0]) * BINS_PER_OCTAVE - 1)


def edges() -> tuple[Tensor, Tensor]:
    index = torch.arange((OCTAVES[1] - OCTAVES[0]) * BINS_PER_OCTAVE, dtype=torch.float64)
    octave = torch.ldexp(torch.ones_like(index), (index // BINS_PER_OCTAVE + OCTAVES[0]).int())
    low = octave * (1 + index % BINS_PER_OCTAVE / BINS_PER_OCTAVE)
    return low, low + octave / BINS_PER_OCTAVE


class Errors:
    """Largest errors of one function of a word."""

    def __init__(self) -> None:
        bins = (OCTAVES[1] - OCTAVES[0]) * BINS_PER_OCTAVE
        self.by_bin = torch.full((bins,), -1.0, dtype=torch.float64)
        self.absolute = self.relative_ulp = 0.0
        self.low, self.high = float("inf"), 0.0
        self.finite = True

    def add(self, got: Tensor, want: Tensor) -> None:
        got = got.double()
        error = (got - want).abs()
        self.finite &= bool(got.isfinite().all())
        # Neighbouring words have neighbouring values, so a bin is a run of the chunk: a scatter takes ten times longer.
        bins, lengths = torch.unique_consecutive(bin_of(want), return_counts=True)
        self.by_bin.scatter_reduce_(0, bins.long(), torch.segment_reduce(error, "max", lengths=lengths), "amax")
        self.absolute = max(self.absolute, float(error.max()))
        self.relative_ulp = max(self.relative_ulp, float((error / ulp(want)).max()))
        self.low, self.high = min(self.low, float(got.abs().min())), max(self.high, float(got.abs().max()))

    def record(self) -> dict[str, float | bool]:
        return {
            "max_absolute_error": self.absolute,
            "max_ulp_error": self.relative_ulp,
            "smallest_magnitude": self.low,
            "largest_magnitude": self.high,
            "finite": self.finite,
        }


def bound_of_products(radius: Errors, trig: Errors, ulp_from: float) -> tuple[float, float]:
    """Bounds over all pairs of words: of the absolute error, and of the error in ulp where |z| >= ulp_from."""
    low, high = edges()
    rows, columns = radius.by_bin >= 0, trig.by_bin >= 0
    worst_absolute = worst_ulp = 0.0
    trig_low, trig_high, trig_error = low[columns], high[columns].clamp_max(1.0), trig.by_bin[columns]
    for r_low, r_high, r_error in zip(low[rows], high[rows], radius.by_bin[rows], strict=True):
        before = trig_high * r_error + r_high * trig_error + r_error * trig_error
        top = r_high * trig_high + before
        absolute = before + ulp(top) / 2
        worst_absolute = max(worst_absolute, float(absolute.max()))
        reached = top >= ulp_from
        if reached.any():
            smallest = (r_low * trig_low)[reached].clamp_min(ulp_from)
            # The product is rounded by half an ulp of the result, which may lie in the binade above.
            units = (before[reached] + ulp(top[reached]) / 2) / ulp(smallest)
            worst_ulp = max(worst_ulp, float(units.max()))
    return worst_absolute, worst_ulp


def largest(errors: Tensor, words: Tensor) -> tuple[float, int]:
    at = int(errors.argmax())
    return float(errors[at]), int(words[at])


def worst(found: list[tuple[float, int]], count: int) -> Tensor:
    return torch.tensor([word for _, word in sorted(found, reverse=True)[:count]], dtype=torch.int64)


def worst_pairs(radius_words: Tensor, angle_words: Tensor) -> tuple[float, float]:
    """Largest errors seen over the product of two lists of words, as kernels compute it: fl(radius * trig)."""
    length, _, _ = native.polar(radius_words.int())
    _, cosine, sine = native.polar(angle_words.int())
    exact_length = exact_radius(radius_words)
    exact_cosine, exact_sine = exact_trig(angle_words)
    absolute = units = 0.0
    for trig, true in ((cosine, exact_cosine), (sine, exact_sine)):
        for rows in torch.arange(len(radius_words)).split(64):
            got = (length[rows, None] * trig).double()
            want = exact_length[rows, None] * true
            error = (got - want).abs()
            absolute = max(absolute, float(error.max()))
            inside = want.abs() >= FIGURES["ulp_from"]
            if inside.any():
                units = max(units, float((error / ulp(want))[inside].max()))
    return absolute, units


def chunks(every: int, quiet: bool, what: str) -> Iterator[Tensor]:
    for start in tqdm(range(0, 2**32, CHUNK * every), disable=quiet, unit="chunk", desc=what):
        yield torch.arange(start, min(start + CHUNK * every, 2**32), every)


def sweep(every: int, quiet: bool) -> dict[str, Any]:
    radius, cosine, sine = Errors(), Errors(), Errors()
    hard_radius: list[tuple[float, int]] = []
    hard_absolute: list[tuple[float, int]] = []
    hard_ulp: list[tuple[float, int]] = []
    falling = True
    previous = float("inf")
    for words in chunks(every, quiet, "radius"):
        got, want = native.polar(words.int())[0], exact_radius(words)
        radius.add(got, want)
        falling &= bool((got[1:] <= got[:-1]).all()) and float(got[0]) <= previous
        previous = float(got[-1])
        hard_radius.append(largest((got.double() - want).abs() / ulp(want), words))
    # An angle does not depend on the lowest 7 bits of its word.
    for words in chunks(every * 128, quiet, "angle"):
        _, *got_trig = native.polar(words.int())
        for errors, mine, true in zip((cosine, sine), got_trig, exact_trig(words), strict=True):
            errors.add(mine, true)
            difference = (mine.double() - true).abs()
            hard_absolute.append(largest(difference, words))
            hard_ulp.append(largest(difference / ulp(true), words))
    trig = Errors()
    trig.by_bin = torch.maximum(cosine.by_bin, sine.by_bin)
    absolute, units = bound_of_products(radius, trig, FIGURES["ulp_from"])
    # The radii above 5.4, where an error of 1e-6 is two units, and the worst radii and angles of all chunks.
    seen = worst_pairs(
        torch.cat([torch.arange(2000), worst(hard_radius, 1000)]),
        torch.cat([worst(hard_absolute, 4000), worst(hard_ulp, 4000)]),
    )
    return {
        "words": len(range(0, 2**32, every)),
        "angles": len(range(0, 2**32, 128 * every)),
        "radius": {**radius.record(), "never_rises": falling},
        "cosine": cosine.record(),
        "sine": sine.record(),
        "normal": {
            "reach": radius.high * max(cosine.high, sine.high),
            "bound_absolute_error": absolute,
            "bound_ulp_error_from_0.1": units,
            "largest_absolute_error_seen": seen[0],
            "largest_ulp_error_seen_from_0.1": seen[1],
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="take one word in this many")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args()
    started = time.monotonic()
    figures = sweep(options.every, options.quiet)
    print(json.dumps(figures, indent=1))
    print(f"{figures['words']:,} words in {time.monotonic() - started:.0f} s")
    if options.json:
        record = {"benchmark": "accuracy", "machine": machine(torch.device("cpu")), **figures}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_record(options.json, record)
    normal = figures["normal"]
    good = (
        all(figures[part]["finite"] for part in ("radius", "cosine", "sine"))
        and normal["reach"] >= FIGURES["reach"]
        and normal["largest_absolute_error_seen"] <= FIGURES["absolute"]
        and normal["largest_ulp_error_seen_from_0.1"] <= FIGURES["ulp"]
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
