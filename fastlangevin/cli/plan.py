"""Choose a ladder, updates a level and a step size for data and a number of score evaluations.

By the techniques of Song and Ermon (2020): the largest noise level is the largest distance between two samples, levels
overlap as asked for, every level has as many updates as the budget allows, and the step size is the one that leaves
levels with the variance nearest to their own. Give --data, or --sigma-1 and --shape.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fastlangevin.advisor import SamplingPlan, plan
from fastlangevin.advisor.distance import MEMORY
from fastlangevin.advisor.picture import require_matplotlib
from fastlangevin.cli import sources
from fastlangevin.cli.devices import usable_device
from fastlangevin.noise import MAX_SEED
from fastlangevin.storage.files import check_writable

MEBIBYTE = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget", type=int, required=True, help="score evaluations for a sample")
    parser.add_argument("--out", type=Path, default=None, help="picture of the plan to write, such as plan.png")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")

    data = parser.add_argument_group("data")
    sources.add_arguments(data, default=None)
    data.add_argument("--sigma-1", type=float, default=None, help="largest noise level; by default measured on --data")
    data.add_argument("--shape", type=int, nargs="+", default=None, help="of a sample, such as 3 32 32, without --data")
    data.add_argument("--subsample", type=int, default=None, help="samples to measure; all where it is left out")
    data.add_argument("--seed", type=int, default=0, help=f"of the subsample, 0 to {MAX_SEED}")
    data.add_argument(
        "--memory", type=int, default=MEMORY // MEBIBYTE, help="MiB to use for measuring, beside the data"
    )
    data.add_argument("--device", default=None, help="where distances are computed; cpu, cuda, cuda:1, ...")

    ladder = parser.add_argument_group("ladder")
    ladder.add_argument("--sigma-L", type=float, default=0.01, help="smallest noise level, in units of the data")
    ladder.add_argument(
        "--overlap", type=float, default=0.5, help="of neighbouring levels, C; published ladders: 0.567"
    )
    ladder.add_argument("--levels", type=int, default=None, help="number of levels, instead of --overlap")
    ladder.add_argument("--no-denoise", action="store_true", help="leave out the denoise step, one evaluation")


def run(options: argparse.Namespace) -> int:
    if options.out is not None:
        check_writable(options.out, "plan.png")
        try:
            require_matplotlib()
        except ImportError as error:
            raise RuntimeError(str(error)) from error
    if options.data is None and (options.sigma_1 is None or options.shape is None):
        raise ValueError("give --data, or both of --sigma-1 and --shape, such as --sigma-1 50 --shape 3 32 32")
    found = plan(
        None if options.data is None else sources.open_named(options),
        budget=options.budget,
        sigma_1=options.sigma_1,
        shape=options.shape,
        sigma_L=options.sigma_L,
        overlap=options.overlap,
        levels=options.levels,
        denoise=not options.no_denoise,
        subsample=options.subsample,
        seed=options.seed,
        memory=options.memory * MEBIBYTE,
        device=None if options.device is None else usable_device(options.device),
        progress=not options.quiet,
    )
    print(found)
    print(_how_to_use(found))
    if options.out is not None:
        found.picture(options.out)
        print(f"picture: {options.out}")
    return 0


def _how_to_use(found: SamplingPlan) -> str:
    return (
        f"train with --sigma-1 {found.sigma_1!r} --sigma-L {found.sigma_L!r} --levels {found.levels}\n"
        f"sample with --epsilon {found.epsilon!r} --steps-per-level {found.steps_per_level}"
    )
