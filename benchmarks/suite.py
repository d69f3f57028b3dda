"""All benchmarks of the package, one after the other.

    python -m benchmarks.suite                          this machine's CPU, into benchmarks/results/<machine>
    python -m benchmarks.suite step dsm --budget 5      two of them, quickly
    python -m benchmarks.suite --device cuda --out out  a GPU

Each writes its JSON as soon as it is done. What cannot be measured, an output that is wrong, a compiler that fails, a
provider or size that is not there, is a row that says why; the others go on, and the exit status is 1.
``python -m benchmarks.report`` makes tables and pictures of the files.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    chain,
    end_to_end,
    graph_replay,
    network,
    normalisation,
    perturb,
    sample_norms,
    sampling,
    step,
    training,
)
from benchmarks import dsm as objective
from benchmarks.command import add_options, failed, run
from benchmarks.harness import Benchmark, Case, save
from benchmarks.timing import machine

__all__ = ["BENCHMARKS", "RESULTS", "folder_name"]

RESULTS = Path(__file__).parent / "results"
BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (
        step,
        perturb,
        objective,
        sample_norms,
        normalisation,
        network,
        training,
        sampling,
        chain,
        graph_replay,
        end_to_end,
    )
}


def folder_name(record: dict[str, Any]) -> str:
    """The machine's folder of results: its GPU, or its processor with the best instruction set."""
    if "gpu" in record:
        name = record["gpu"]["name"]
    else:
        name = " ".join([record["processor"], *record["instruction_sets"][:1]])
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", " ", name.lower())).strip("-")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    add_options(parser)
    parser.add_argument("--out", type=Path, help="folder for the results")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.suite: error: there is no CUDA device here", file=sys.stderr)
        return 2
    device = torch.device(options.device)
    out = options.out or RESULTS / folder_name(machine(device))
    bad: list[Case] = []
    for name in options.names or BENCHMARKS:
        print(f"\n== {name}")
        cases = run(BENCHMARKS[name], options)
        save(out / f"{name}.json", name, device, cases)
        bad += [case for case in cases if case["failures"]]
    for case in bad:
        for provider, why in case["failures"].items():
            print(f"{case['case']}, {provider}: {why}", file=sys.stderr)
    return int(failed(bad))


if __name__ == "__main__":
    sys.exit(main())
