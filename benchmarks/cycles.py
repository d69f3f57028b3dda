"""Where the CPU's time goes: cycles an element by part of the update, and microseconds by part of a small call.

    python -m benchmarks.cycles                      every instruction set that runs here
    python -m benchmarks.cycles --json results.json  also keep the numbers

A cycle is what an exclusive or takes that waits for the one before it, timed in the same rounds, so that a clock that
moves moves both. (Not an addition of a constant: Intel's Golden Cove makes several of them a cycle, waiting or not.)
The parts are compiled from the kernels' own headers with their flags and run from the first-level cache on one thread;
"radii" has the square root. The memory's part is what ``torch.add(x, score, out=y)``, the same bytes, takes of 2^24
elements.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import fastlangevin as fl
from benchmarks.harness import Case, save
from benchmarks.timing import interleaved
from fastlangevin.kernels.address import Address, Term, Update
from fastlangevin.kernels.cpp import build, native
from fastlangevin.noise import Purpose

SOURCE = Path(__file__).parent / "csrc" / "parts.cpp"
PARTS = (
    "words",
    "radii",
    "cosines and sines",
    "normals of words",
    "normals",
    "update of normals",
    "normals and update",
)
CPU = torch.device("cpu")
TURNS = 2000
WAITING = 4  # operations of a turn of the chain


def compiled(name: str, folder: Path) -> ctypes.CDLL:
    """The parts for one instruction set."""
    output = folder / f"parts-{name}.so"
    flags = [*build.FLAGS, *build.instruction_sets()[name], f"-DFL_SET={name}", "-I", str(build.SOURCES)]
    command = [*build.find_compiler(), *flags, "-shared", str(SOURCE), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise build.BuildError(f"{SOURCE.name} does not compile: {done.stderr[-2000:]}")
    library = ctypes.CDLL(str(output))
    library.elements.restype = ctypes.c_int64
    library.chain.argtypes, library.chain.restype = [ctypes.c_int64], ctypes.c_uint64
    library.part.argtypes, library.part.restype = [ctypes.c_int64, ctypes.c_int64], None
    library.values.restype = ctypes.POINTER(ctypes.c_float)
    return library


def wrong(library: ctypes.CDLL) -> str | None:
    """None where the part that makes normals makes the stream's."""
    library.part(PARTS.index("normals"), 1)
    elements = library.elements()
    got = torch.tensor(library.values()[:elements])
    want = fl.randn((1, elements), seed=7, draw=2, sample_offset=1, purpose=Purpose.LANGEVIN, impl="reference")[0]
    return None if torch.equal(got, want) else "differs from the reference"


def parts(name: str, folder: Path, budget: float) -> Case:
    """Cycles an element of every part."""
    library = compiled(name, folder)
    why = wrong(library)
    if why is not None:
        return {"case": f"parts, {name}", "providers": {}, "failures": {"all": why}}
    elements = library.elements()
    calls: dict[str, Callable[[], object]] = {"cycle": lambda: library.chain(100_000)}
    for which, part in enumerate(PARTS):
        calls[part] = lambda which=which: library.part(which, TURNS)
    rows = interleaved(calls, CPU, rounds=31, budget=budget)
    cycle = rows.pop("cycle")["median"] / (100_000 * WAITING)
    for row in rows.values():
        row["ns_per_element"] = row["median"] / (TURNS * elements) * 1e9
        row["cycles_per_element"] = row["median"] / (TURNS * elements) / cycle
    return {"case": f"parts, {name}", "GHz": 1e-9 / cycle, "providers": rows}


def memory(budget: float) -> Case:
    """The update of 2^24 elements beside the memory's part of it, for each number of threads."""
    x, score, out = (torch.ones(16, 2**20) for _ in range(3))
    rows: dict[str, dict[str, float]] = {}
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        calls: dict[str, Callable[[], object]] = {
            f"step, {threads} thread(s)": lambda: fl.step(x, score, a=0.1, b=0.2, seed=7, draw=3, out=out),
            f"normals, {threads} thread(s)": lambda: fl.randn(out.shape, seed=7, draw=3),
            f"add, {threads} thread(s)": lambda: torch.add(x, score, out=out),
        }
        rows |= interleaved(calls, CPU, rounds=15, budget=budget)
    torch.set_num_threads(before)
    for row in rows.values():
        row["ns_per_element"] = row["median"] / 2**24 * 1e9
    return {"case": "2^24 elements", "providers": rows}


def small_call(budget: float) -> Case:
    """What a call of 8 elements is made of, outermost first."""
    x, score, out = (torch.zeros(1, 8) for _ in range(3))
    address = {"seed": 7, "draw": 3}
    update = Update((Term(1.0, x), Term(0.1, score)), 0.2, Address(7, 3, None, 0, 1), 3)
    calls: dict[str, Callable[[], object]] = {
        "x + a*score + b*randn_like": lambda: x + 0.1 * score + 0.2 * torch.randn_like(x),
        "fl.step, a new tensor": lambda: fl.step(x, score, a=0.1, b=0.2, **address),
        "fl.step, out=": lambda: fl.step(x, score, a=0.1, b=0.2, out=out, **address),
        "its launcher": lambda: native.step(out, update),
        "torch.empty_like": lambda: torch.empty_like(x),
        "torch.add, out=": lambda: torch.add(x, score, out=out),
    }
    torch.set_num_threads(1)
    rows = interleaved(calls, CPU, rounds=31, budget=budget)
    return {"case": "8 elements", "providers": rows}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for each case")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="instruction sets; all that run here by default")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args(arguments)
    here = native.instruction_sets()
    for name in options.sets or ():
        if name not in here:
            parser.error(f"instruction set {name!r} does not run here; there are {', '.join(here)}")
    cases: list[Case] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets or here:
            cases.append(parts(name, Path(folder), options.budget))
    cases += [memory(options.budget), small_call(options.budget)]
    for case in cases:
        for part, why in case.get("failures", {}).items():
            print(f"{case['case']}, {part}  not timed: {why}", file=sys.stderr)
        print(f"\n{case['case']}" + (f", {case['GHz']:.2f} GHz" if "GHz" in case else ""))
        for part, row in case["providers"].items():
            cells = [f"{row['median'] * 1e6:10.2f} us"]
            if "ns_per_element" in row:
                cells = [f"{row['ns_per_element']:8.3f} ns/element"]
            if "cycles_per_element" in row:
                cells.append(f"{row['cycles_per_element']:8.2f} cycles/element")
            print(f"  {part:28}" + "  ".join(cells))
    if options.json:
        save(options.json, "cycles", CPU, cases)
    return int(any(case.get("failures") for case in cases))


if __name__ == "__main__":
    sys.exit(main())
