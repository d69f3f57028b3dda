"""The command line that all benchmarks have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness import DTYPES, Benchmark, Case, failure, measure, save, table

__all__ = ["add_options", "command", "run"]


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--sizes", type=positive, nargs="+", help="elements or images; the standard ones by default")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), help="of the state")
    parser.add_argument("--threads", type=positive, nargs="+", help="CPU threads")
    parser.add_argument("--providers", nargs="+", metavar="NAME", help="only these; the base is needed for ratios")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for each case")


def run(benchmark: Benchmark, options: argparse.Namespace) -> list[Case]:
    """Measures and prints what the options ask for. What cannot be is a row that says why."""
    cases: list[Case] = []
    device = torch.device(options.device)
    before = torch.get_num_threads()
    try:
        for threads in options.threads or benchmark.threads if device.type == "cpu" else (1,):
            if device.type == "cpu":
                torch.set_num_threads(threads)
            for dtype in options.dtypes or benchmark.dtypes:
                for size in options.sizes or benchmark.sizes[device.type]:
                    for kind in benchmark.kinds:
                        case = _measured(benchmark, kind, size, dtype, device, options)
                        case.update(kind=kind, size=size, dtype=dtype, threads=threads, device=device.type)
                        cases.append(case)
                        print(table(case), flush=True)
    finally:
        torch.set_num_threads(before)
    return cases


def _measured(
    benchmark: Benchmark, kind: str, size: int, dtype: str, device: torch.device, options: argparse.Namespace
) -> Case:
    torch.compiler.reset()
    try:
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("there is no CUDA device here")
        trial = benchmark.trial(kind, size, DTYPES[dtype], device)
        return measure(trial, device, options.budget, options.providers)
    except Exception as error:
        why = str(error) if isinstance(error, ValueError) else failure(error)
        title = " ".join(filter(None, (benchmark.name, kind, f"of size {size}")))
        return {"case": title, "base": "", "elements": 0, "providers": {}, "failures": {"all": why}}


def failed(cases: Sequence[Case]) -> bool:
    return any(case["failures"] for case in cases)


def command(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> int:
    """Runs one benchmark; 1 where a row failed."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark.name}",
        description=benchmark.about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args(arguments)
    cases = run(benchmark, options)
    if options.json:
        save(options.json, benchmark.name, torch.device(options.device), cases)
    return int(failed(cases))
