"""Random words in five orders, for dieharder: what a layout of counters could spoil is the order that words come in.

A box of words has seeds, purposes, draws, samples and elements as its sides; each interleaving lets another of them
change fastest. Boxes follow each other at further samples.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from fastlangevin import reference

__all__ = ["SIDES", "box", "dieharder", "stream"]

SIDES = {"seed": 4, "purpose": 4, "draw": 4, "sample": 8, "element": 1024}


def box(index: int) -> NDArray[np.uint32]:
    """Words of all addresses of a box, of the shape of ``SIDES``."""
    ids = torch.arange(SIDES["sample"]) + SIDES["sample"] * index
    words = [
        torch.stack(reference.words(SIDES["element"], ids, seed=seed, draw=draw, purpose=purpose), -1).flatten(1)
        for seed in range(SIDES["seed"])
        for purpose in range(SIDES["purpose"])
        for draw in range(SIDES["draw"])
    ]
    return torch.stack(words).numpy().astype(np.uint32).reshape(*SIDES.values())


def stream(fastest: str) -> Iterator[bytes]:
    """The words for ever, neighbours of one side after each other."""
    axis = list(SIDES).index(fastest)
    index = 0
    while True:
        yield np.moveaxis(box(index), axis, -1).tobytes()
        index += 1


def dieharder(tests: list[str]) -> dict[str, dict[str, list[str]]] | str:
    """Names of tests by interleaving and dieharder's judgement of them, or why there are none.

    Args:
        tests: options that choose dieharder's tests, such as ``["-a"]``, all of them.
    """
    program = shutil.which("dieharder")
    if program is None:
        return "not tested: dieharder is not installed"
    return {side: _judged([program, "-g", "200", *tests], stream(side)) for side in SIDES}


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
