"""The C++ kernels on a processor that is not there: Arm's, with NEON, cross-compiled and emulated, bit for bit.

    python -m tests.long.emulation                       needs aarch64-linux-gnu-g++ and qemu-aarch64
    python -m tests.long.emulation --stride 101          more words of radius and angle
    python -m tests.long.emulation --json results.json   also keep the outcome

One program computes updates of one to six terms, normals and uniforms in every dtype, perturbations, objectives, norms,
scores and chains of mixtures, and radii, cosines and sines of every ``stride``-th word, and prints a digest of each. It
is built for this machine, for each of its instruction sets, and for aarch64, and must print the same. Two controls must
not: the program for aarch64 with contraction into fma, the compiler's default there, and the program here with the
factors of each update in the opposite order. Exit status 1 if either is otherwise, 2 if the tools are missing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness import save
from fastlangevin.kernels.cpp import build, native

PROGRAM = Path(__file__).with_name("emulated.cpp")
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


def program_here(folder: Path) -> Path:
    """The program for this machine, on the library that is in use."""
    library = Path(native.location())
    command = [*build.find_compiler(), *build.FLAGS, "-I", str(build.SOURCES), str(PROGRAM), str(library)]
    command += [f"-Wl,-rpath,{library.parent}", "-pthread", "-o", str(folder / "native")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise build.BuildError(f"{PROGRAM.name} does not compile: {done.stderr[-2000:]}")
    return folder / "native"


def cross(folder: Path, more: Sequence[str] = ()) -> Path:
    """The program for aarch64, linked with all objects of the library."""
    folder.mkdir()
    include = ("-I", str(build.SOURCES))
    parts = [*build.objects("aarch64"), ("program.o", PROGRAM, include)]
    for output, source, extra in parts:
        flags = [*build.FLAGS, *extra, *more]
        done = subprocess.run(
            [COMPILER, *flags, "-c", str(source), "-o", output],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise build.BuildError(f"{source.name} does not compile for aarch64: {done.stderr[-2000:]}")
    objects = [output for output, _, _ in parts]
    subprocess.run([COMPILER, *objects, "-static", "-pthread", "-o", "program"], cwd=folder, check=True)
    return folder / "program"


def places() -> dict[str, int]:
    """This processor's instruction sets, best first, and the numbers that the program knows them by.

    The program has those of the architecture, of which a processor may lack the first.
    """
    known = list(build.instruction_sets())
    return {name: known.index(name) for name in native.instruction_sets()}


def digests(command: list[str], number: int, stride: int, *more: str) -> list[str]:
    """What the program prints for an instruction set; "swapped" as ``more`` reverses the factors of updates."""
    done = subprocess.run([*command, str(number), str(stride), *more], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def compare(stride: int) -> dict[str, object]:
    """Digests that differ from those of this machine's first instruction set, by where they were computed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        here, there = program_here(folder), cross(folder / "there")
        contracted = cross(folder / "contracted", ["-ffp-contract=fast"])
        runs = {name: ([str(here)], number) for name, number in places().items()}
        want = digests(*next(iter(runs.values())), stride)
        for number, each in enumerate(build.instruction_sets("aarch64")):
            runs[f"aarch64, {each}, emulated"] = [EMULATOR, str(there)], number
        control = [EMULATOR, str(contracted)], 0
        swapped = digests(*next(iter(runs.values())), stride, "swapped")
        differ = {each: _differing(digests(*run, stride), want) for each, run in runs.items()}
        return {
            "digests": len(want),
            "words": 2**32 // stride,
            "differ": differ,
            "control": {
                "aarch64, contracted": _differing(digests(*control, stride), want),
                "factors in the opposite order": _differing(swapped, want),
            },
        }


def _differing(found: list[str], want: list[str]) -> int:
    return sum(one != other for one, other in zip(found, want, strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stride", type=int, default=1009, help="of the words whose normals are made")
    parser.add_argument("--json", type=Path, help="file for the outcome")
    options = parser.parse_args(arguments)
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool) is None:
            print(f"tests.long.emulation: error: {tool} is not installed; not tested", file=sys.stderr)
            return 2
    found = compare(options.stride)
    differ, control = found["differ"], found["control"]
    for name, count in {**differ, **control}.items():
        print(f"{name:30} {count} of {found['digests']} digests differ")
    if options.json:
        save(options.json, "emulation", torch.device("cpu"), [], **found)
    return int(any(differ.values()) or not all(control.values()))


if __name__ == "__main__":
    sys.exit(main())
