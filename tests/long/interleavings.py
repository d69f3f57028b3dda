"""Random words in five orders, judged by dieharder: what a layout of counters could spoil is the order they come in.

    python -m tests.long.interleavings                              all good tests, each of 20 p-values: an hour or two
    python -m tests.long.interleavings --tests 0 2                  two of them
    python -m tests.long.interleavings --json results.json          also keep the verdicts

A box of words has seeds, purposes, draws, samples and elements as its sides; each interleaving lets another of them
change fastest. Boxes follow each other at further samples. dieharder fails a test at p < 1e-6 and calls it weak below
0.005, so that of some hundred verdicts one in two hundred is weak. The control, in which the draw never enters the
counter, must fail. The system's generator is judged as well, since of 20 p-values dieharder calls more than that weak
of any words. Exit status 1 where an interleaving fails or the control does not, 2 where dieharder is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.harness import save
from fastlangevin import reference

__all__ = ["SIDES", "box", "judge", "stream"]

SIDES = {"seed": 4, "purpose": 4, "draw": 4, "sample": 8, "element": 1024}


# dieharder's numbers of the tests that it calls good, with the length of their tuples where they need one. Not 206 to
# 209, which are made for one p-value: of two, 209 fails /dev/urandom.
PLAIN = ("0", "1", "2", "3", "4", "8", "9", "10", "11", "12", "13", "15", "16", "17", "100", "101", "102")
TUPLES = ("200:3", "200:8", "201:2", "201:5", "202:3", "202:5", "203:1", "203:8", "203:31")
TESTS = (*PLAIN, *TUPLES, "204", "205")
# Of 5 p-values, 2 of 20 tests of /dev/urandom were called failed, their own p being 1 to eight digits.
FEWEST = 20
Verdicts = dict[str, list[str]]


def box(index: int, draws_alike: bool = False) -> NDArray[np.uint32]:
    """Words of all addresses of a box, of the shape of ``SIDES``; ``draws_alike`` is the control."""
    ids = torch.arange(SIDES["sample"]) + SIDES["sample"] * index
    words = [
        torch.stack(
            reference.words(SIDES["element"], ids, seed=seed, draw=0 if draws_alike else draw, purpose=purpose), -1
        ).flatten(1)
        for seed in range(SIDES["seed"])
        for purpose in range(SIDES["purpose"])
        for draw in range(SIDES["draw"])
    ]
    return torch.stack(words).numpy().astype(np.uint32).reshape(*SIDES.values())


def stream(fastest: str, draws_alike: bool = False) -> Iterator[bytes]:
    """The words for ever, neighbours of one side after each other."""
    axis = list(SIDES).index(fastest)
    index = 0
    while True:
        yield np.moveaxis(box(index, draws_alike), axis, -1).tobytes()
        index += 1


def of_the_system() -> Iterator[bytes]:
    """Words that the operating system calls random."""
    while True:
        yield os.urandom(2**21)


def judge(program: str, tests: Sequence[str], samples: int, source: Iterator[bytes]) -> Verdicts:
    """Names of tests by dieharder's judgement of a stream, which every test reads on from where the one before ended.

    Args:
        program: path of dieharder.
        tests: its numbers of tests, each with the length of its tuples behind a colon where it takes one.
        samples: p-values that a test's judgement is made of.
        source: the words.
    """
    found: Verdicts = {"PASSED": [], "WEAK": [], "FAILED": []}
    for test in tests:
        number, _, length = test.partition(":")
        options = ["-d", number, "-p", str(samples), *(["-n", length] if length else [])]
        judged = _judged([program, "-g", "200", *options], source)
        for verdict, names in judged.items():
            found[verdict] += names
    return found


def _judged(command: list[str], source: Iterator[bytes]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"PASSED": [], "WEAK": [], "FAILED": []}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # It reads until it has enough, and prints little: its lines fit into a pipe.
        with contextlib.suppress(BrokenPipeError):
            for words in source:
                process.stdin.write(words)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        printed = process.stdout.read().decode()
    for line in printed.splitlines():
        fields = [each.strip() for each in line.split("|")]
        if fields[-1] in found and len(fields) > 4:
            found[fields[-1]].append(" ".join(fields[:2]))
    if process.returncode or not any(found.values()):
        raise RuntimeError(f"{' '.join(command)} judged nothing; its exit status is {process.returncode}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", nargs="+", choices=TESTS, default=list(TESTS), metavar="N")
    parser.add_argument("--samples", type=int, default=20, help="p-values a test is judged by")
    parser.add_argument("--json", type=Path, help="file for the verdicts")
    options = parser.parse_args(arguments)
    if options.samples < FEWEST:
        parser.error(
            f"--samples must be {FEWEST} or more, got {options.samples}: of fewer, dieharder fails good words too"
        )
    program = shutil.which("dieharder")
    if program is None:
        print("tests.long.interleavings: error: dieharder is not installed; not tested", file=sys.stderr)
        return 2
    found = {
        f"{side} by {side}": judge(program, options.tests, options.samples, stream(side))
        for side in tqdm(SIDES, disable=None)
    }
    control = judge(program, options.tests, options.samples, stream("draw", draws_alike=True))
    system = judge(program, options.tests, options.samples, of_the_system())
    for name, verdicts in {**found, "the system's": system}.items():
        counts = ", ".join(f"{len(names)} {verdict.lower()}" for verdict, names in verdicts.items())
        print(f"{name:22} {counts} {' '.join(verdicts['WEAK'] + verdicts['FAILED'])}")
    print(f"control, draws alike: {len(control['FAILED'])} failed of {sum(map(len, control.values()))}")
    if options.json:
        told = {"tests": options.tests, "samples": options.samples, "interleavings": found}
        told |= {"control": control, "system": system}
        save(options.json, "interleavings", torch.device("cpu"), [], **told)
    return int(any(verdicts["FAILED"] for verdicts in found.values()) or not control["FAILED"])


if __name__ == "__main__":
    sys.exit(main())
