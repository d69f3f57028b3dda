"""Try the package's promises on this machine, in seconds.

Known answers of the generator, the bits of every available implementation against stored digests, a short chain against
its exact law, a resume, and damaged checkpoints. Exit status 1 if anything fails.
"""

from __future__ import annotations

import argparse

import torch

from fastlangevin.cli.devices import usable_device
from fastlangevin.selftest import run as outcomes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", nargs="+", default=None, help="such as cpu cuda; by default all kinds that are here"
    )


def run(options: argparse.Namespace) -> int:
    names = options.device or ["cpu", *["cuda"] * torch.cuda.is_available()]
    devices = [usable_device(name) for name in names]
    failed, total = 0, 0.0
    for outcome in outcomes(devices):
        mark = "passed" if outcome.passed else "FAILED"
        print(f"{mark}  {outcome.name:17} {outcome.device:6} {outcome.seconds:5.1f} s  {outcome.text}", flush=True)
        failed += not outcome.passed
        total += outcome.seconds
    print(f"{'all passed' if not failed else f'{failed} failed'}, {total:.1f} s")
    return int(failed > 0)
