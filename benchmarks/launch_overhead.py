"""The Python of a launch: what Triton's binder takes, what a direct launch takes. Needs no GPU: nothing is launched.

    python -m benchmarks.launch_overhead                      this machine
    python -m benchmarks.launch_overhead --json results.json  also keep the numbers

Cases, each with Triton's own launch and the direct one:
    update      a plain update with its address: the checks, the choice of the implementation, and the launcher
    launcher    the launcher alone: what it prepares, and the launch
    six         the same of an update of six terms and four draws
    tensors     the launcher with coefficients, seed and draw number in tensors
    normals     the launcher of random tensors

What the driver itself takes, a launch in C, is on top of both: a stub takes its place.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.timing import interleaved, machine
from benchmarks.writing import write_record
from fastlangevin.kernels.address import MAX_DRAWS, MAX_TERMS, Address, Draw, Term, Update

SHAPE = (128, 3, 32, 32)


def cases() -> dict[str, Callable[[], object]]:
    from fastlangevin.kernels.triton import randn, step
    from fastlangevin.ops.move import move

    x, score = torch.zeros(SHAPE), torch.zeros(SHAPE)
    number, word = torch.ones(()).expand(SHAPE), torch.zeros((), dtype=torch.int64)
    address = Address(3, 5, None, 0, 1)
    plain = Update((Term(1.0, x), Term(0.1, score)), 0.2, address, address.draw)
    terms = (Term(1.0, x), *[Term(0.1, score)] * (MAX_TERMS - 1))
    six = plain._replace(terms=terms, draws=tuple(Draw(0.5, place) for place in range(MAX_DRAWS)))
    tensors = Update((Term(number, x), Term(number, score)), number, address._replace(seed=word, draw=word), word)
    return {
        "update": lambda: move(plain, "triton", x),
        "launcher": lambda: step.step(x, plain),
        "six": lambda: step.step(x, six),
        "tensors": lambda: step.step(x, tensors),
        "normals": lambda: randn.randn(x, address, uniform=False),
    }


def measure(budget: float) -> dict[str, dict[str, float]]:
    from fastlangevin import runtime
    from fastlangevin.kernels.triton import direct_launch

    # The choice would refuse CPU tensors.
    runtime._load = lambda name, device_type: runtime._triton(device_type)
    runtime.importlib.util.find_spec = lambda name: object()
    runtime._interpreting = lambda: True
    calls: dict[str, Callable[[], object]] = {}
    for name, call in cases().items():
        for direct in (False, True):

            def launched(call: Callable[[], object] = call, direct: bool = direct) -> None:
                direct_launch.use_direct_launch(direct)
                call()

            calls[f"{name}, {'direct' if direct else 'Triton'}"] = launched
    return interleaved(calls, torch.device("cpu"), rounds=25, budget=budget)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of measuring")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        print(
            "benchmarks.launch_overhead: error: TRITON_INTERPRET=1 leaves nothing to measure; unset it", file=sys.stderr
        )
        return 2
    from benchmarks import stub_driver

    stub_driver.install(lambda *arguments: None)
    torch.set_num_threads(1)
    rows = measure(options.budget)
    print(f"{'':22} {'median':>9} {'quartiles':>19}")
    for name, row in rows.items():
        print(f"{name:22} {row['median'] * 1e6:7.2f}us {row['lower'] * 1e6:8.2f} ..{row['upper'] * 1e6:8.2f}")
    if options.json:
        record = {"benchmark": "launch_overhead", "machine": machine(torch.device("cpu")), "cases": rows}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_record(options.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
