"""``python -m examples.paper``: see the package."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from examples import paper
from examples.paper.experiment import perform
from examples.paper.registry import EXPERIMENTS

RESULTS = Path(__file__).resolve().parent / "results"


def main(arguments: list[str] | None = None) -> int:
    listed = "\n".join(f"  {each.name:12} {each.about}" for each in EXPERIMENTS.values())
    parser = argparse.ArgumentParser(
        prog="python -m examples.paper",
        description=f"{paper.__doc__}\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments to run")
    parser.add_argument("--all", action="store_true", help="run all of them")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for pictures and numbers")
    parser.add_argument("--short", action="store_true", help="tiny sizes, seconds")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args(arguments)
    strange = [name for name in options.names if name not in EXPERIMENTS]
    if strange or options.all == bool(options.names):
        what = f"no experiment is called {', '.join(strange)}; give" if strange else "give either --all or"
        parser.error(f"{what} names of {', '.join(EXPERIMENTS)}")
    failed = 0
    for name in EXPERIMENTS if options.all else dict.fromkeys(options.names):
        started = time.monotonic()
        outcome = perform(EXPERIMENTS[name], options.out, short=options.short, progress=not options.quiet)
        print(f"{name}: {time.monotonic() - started:.0f} s, {options.out / name}.png")
        for check in outcome.checks:
            wrong = check.failure()
            failed += wrong is not None
            mark = "ok  " if wrong is None else "FAIL"
            bounds = f"[{check.low:.4g}, {check.high:.4g}]"
            print(f"  {mark} {check.claim}: {check.value:.4g} in {bounds}; {check.control}: {check.of_control:.4g}")
            if wrong is not None:
                print(f"examples.paper: error: {name}: {wrong}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
