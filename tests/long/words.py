"""Random words at random addresses, against Philox written out in NumPy integers, on every implementation.

    python -m tests.long.words                          10^7 addresses, a minute or two
    python -m tests.long.words --json results.json      also keep the outcome

Known answers of Random123 hold the NumPy form; addresses have seeds, samples, draws and purposes anywhere in their
ranges, one in four of them at an end of it, where a carry would show. An implementation shows its words by the normals
that the reference makes of them, equal in all bits; Triton's kernel runs in its interpreter, on a hundredth of the
addresses. The controls, NumPy forms with nine rounds and with the words of the key swapped, must be seen in nearly
every sample. Exit status 1 where an implementation differs or a control does not.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from benchmarks.harness import save

U64 = NDArray[np.uint64]
MASK = np.uint64(0xFFFFFFFF)
SAMPLES, ELEMENTS = 10_000, 8  # of a call: two blocks a sample
KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


class Addresses(NamedTuple):
    """Of a call: a seed and an id for each sample, one draw and one purpose."""

    seeds: U64
    ids: U64
    draw: int
    purpose: int


def philox(counter: Sequence[U64], key: Sequence[U64], rounds: int = 10) -> list[U64]:
    """Philox4x32 of arrays of words."""
    c0, c1, c2, c3 = (np.asarray(each, np.uint64) for each in counter)
    k0, k1 = (np.asarray(each, np.uint64) for each in key)
    for _ in range(rounds):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = p1 >> np.uint64(32) ^ c1 ^ k0, p1 & MASK, p0 >> np.uint64(32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = k0 + np.uint64(0x9E3779B9) & MASK, k1 + np.uint64(0xBB67AE85) & MASK
    return [c0, c1, c2, c3]


def addresses(count: int) -> Iterator[Addresses]:
    """The same for ever: uniform over the ranges, one in four at their ends."""
    chosen = np.random.default_rng(1)

    def anywhere(bits: int, size: int) -> U64:
        values = chosen.integers(0, 2**bits, size, dtype=np.uint64)
        cuts = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**bits - 1]
        ends = np.array([each % 2**bits for each in cuts], np.uint64)
        return np.where(chosen.random(size) < 0.25, chosen.choice(ends, size), values)

    for _ in range(count):
        draw, purpose = int(anywhere(32, 1)[0]), int(anywhere(8, 1)[0])
        yield Addresses(anywhere(64, SAMPLES), anywhere(56, SAMPLES), draw, purpose)


def expected(at: Addresses, rounds: int = 10, swapped: bool = False) -> Tensor:
    """The normals of the addresses, of words by NumPy."""
    from fastlangevin.reference import normal_pair

    key = at.seeds & MASK, at.seeds >> np.uint64(32)
    low, top = at.ids & MASK, at.ids >> np.uint64(32) | np.uint64(at.purpose << 24)
    rows = []
    for block in range(ELEMENTS // 4):
        counter = np.full_like(low, block), low, np.full_like(low, at.draw), top
        words = philox(counter, key[::-1] if swapped else key, rounds)
        w = [torch.from_numpy(each.astype(np.int64)) for each in words]
        rows += [*normal_pair(w[0], w[1]), *normal_pair(w[2], w[3])]
    return torch.stack(rows, 1)


def found(at: Addresses, impl: str) -> Tensor:
    import fastlangevin as fl

    seeds, ids = (torch.from_numpy(each.view(np.int64)) for each in (at.seeds, at.ids))
    return fl.randn((SAMPLES, ELEMENTS), seed=seeds, sample_ids=ids, draw=at.draw, purpose=at.purpose, impl=impl)


def differing(calls: int, make: Callable[[Addresses], Tensor], title: str) -> int:
    """Samples whose normals are not those of NumPy's words."""
    total = 0
    for at in tqdm(addresses(calls), total=calls, desc=title, disable=None):
        total += int((make(at) != expected(at)).any(1).sum())
    return total


def measure(calls: int) -> dict[str, object]:
    from fastlangevin.kernels.cpp import native

    for counter, key, answer in KNOWN:
        got = philox([np.array([c], np.uint64) for c in counter], [np.array([k], np.uint64) for k in key])
        if tuple(int(each[0]) for each in got) != answer:
            raise RuntimeError("the NumPy form of Philox misses a known answer")
    outcome = {"reference": differing(calls, lambda at: found(at, "reference"), "reference")}
    for name in native.instruction_sets():
        native.use_instruction_set(name)
        outcome[name] = differing(calls, lambda at: found(at, "cpp"), name)
    native.use_instruction_set(None)
    few = max(1, calls // 100)
    outcome["triton, interpreted"] = differing(few, lambda at: found(at, "triton"), "triton")
    control = {
        "nine rounds": differing(few, lambda at: expected(at, rounds=9), "nine rounds"),
        "swapped key": differing(few, lambda at: expected(at, swapped=True), "swapped key"),
    }
    return {
        "addresses": calls * SAMPLES,
        "addresses_interpreted": few * SAMPLES,
        "words": calls * SAMPLES * ELEMENTS,
        "differ": outcome,
        "control": control,
        "control_addresses": few * SAMPLES,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--addresses", type=int, default=10**7, help="samples, each at an address of its own")
    parser.add_argument("--json", type=Path, help="file for the outcome")
    options = parser.parse_args(arguments)
    if options.addresses < SAMPLES:
        parser.error(f"--addresses must be {SAMPLES} or more, got {options.addresses}")
    outcome = measure(options.addresses // SAMPLES)
    differ, control, among = outcome["differ"], outcome["control"], outcome["control_addresses"]
    for name, count in differ.items():
        few = "triton" in name
        print(f"{name:20} {count} of {outcome['addresses_interpreted' if few else 'addresses']:,} differ")
    for name, count in control.items():
        print(f"control, {name:11} {count:,} of {among:,} differ")
    if options.json:
        save(options.json, "words", torch.device("cpu"), [], **outcome)
    # Keys whose words are equal, zero seeds among them, hide a swap.
    return int(any(differ.values()) or min(control.values()) < 0.8 * among)


if __name__ == "__main__":
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
    sys.exit(main())
