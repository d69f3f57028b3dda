"""Runs a short set of tests on the oldest and the newest versions that are claimed, and on common ones between them.

    python tests/versions.py                    makes each environment in a temporary folder
    python tests/versions.py --folder DIR       makes them in DIR, where those of an earlier run are used again
    python tests/versions.py --python A/bin/python B/bin/python     takes environments that are there

It needs the Pythons of the table on PATH, or as pyenv installs them, and some 6 GB for each environment. Not run by CI,
whose installs stay small. Exit status 1 if a test fails anywhere.
"""

from __future__ import annotations

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Versions(NamedTuple):
    """An environment. Triton is what PyTorch's wheels for CUDA pin."""

    python: str
    packages: tuple[str, ...]


ENVIRONMENTS = {
    "oldest": Versions("3.11", ("torch==2.10.0", "triton==3.6.0", "numpy==2.0.*")),
    "common": Versions("3.12", ("torch==2.11.0", "triton==3.6.0", "numpy==2.5.*")),
    "newest": Versions("3.13", ("torch==2.14.*", "triton", "numpy")),
}
# What differs between versions: compilation, Triton's interpreter and its specialisation, custom operations, warnings.
TESTS = (
    "tests/test_noise.py",
    "tests/test_ops.py",
    "tests/test_loops.py",
    "tests/test_direct_launch.py",
    "tests/test_triton_kernels.py",
    "tests/test_triton_move.py",
    "tests/test_triton_dsm.py::test_sizes",
    "tests/test_mixture.py",
    "tests/test_samplers.py",
    "tests/test_registered.py",
    "tests/test_calling.py::test_a_transform_and_a_compiler_see_copies",
    "tests/test_models.py",
    "tests/test_build.py",
    "tests/test_processor.py",
    "tests/test_runtime.py",
    "tests/test_environment.py",
    "tests/test_selftest.py",
)
SHOW = """
import platform, numpy, torch, triton
print(platform.python_version(), torch.__version__, triton.__version__, numpy.__version__)
"""


def interpreter(version: str) -> str:
    """The program of a Python, from PATH or pyenv; those that pyenv puts on PATH may be of no version."""
    kept = sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/python")), reverse=True)
    for program in filter(None, (shutil.which(f"python{version}"), *kept)):
        if subprocess.run([program, "--version"], capture_output=True).returncode == 0:
            return program
    raise SystemExit(f"Python {version} was found neither on PATH nor by pyenv; install it, or give --python")


def make(name: str, folder: Path) -> Path:
    """The Python of an environment, made if it is not there."""
    wanted = ENVIRONMENTS[name]
    python = folder / name / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter(wanted.python), "-m", "venv", str(folder / name)], check=True)
    # setuptools too is PyTorch's to choose.
    pinned = re.compile(r"(torch|triton|numpy|setuptools)==")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = folder / f"{name}.txt"
    constraints.write_text("\n".join(line for line in lines if not pinned.match(line)) + "\n")
    command = [str(python), "-m", "pip", "install", "-q", "-c", str(constraints), *wanted.packages, f"{ROOT}[test]"]
    subprocess.run(command, check=True)
    return python


def environments(options: argparse.Namespace, temporary: str) -> Iterator[tuple[str, Path]]:
    if options.python:
        yield from ((str(path), path) for path in options.python)
        return
    folder = options.folder or Path(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    yield from ((name, make(name, folder.resolve())) for name in options.only)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="where environments are made and kept; by default a temporary one")
    parser.add_argument("--only", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS), metavar="NAME")
    parser.add_argument(
        "--python", nargs="+", type=Path, help="interpreters of environments to use, in place of making"
    )
    options, more = parser.parse_known_args()
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        # The checkout before what is installed, so that an environment that was kept tests what stands here.
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        for name, python in environments(options, temporary):
            versions = subprocess.run([python, "-c", SHOW], env=variables, check=True, capture_output=True, text=True)
            print(f"{name}: Python, PyTorch, Triton and NumPy {versions.stdout.strip()}", flush=True)
            done = subprocess.run([python, "-m", "pytest", "-q", *TESTS, *more], cwd=ROOT, env=variables)
            failed += [name] * (done.returncode != 0)
    print(f"failed: {', '.join(failed)}" if failed else "passed in every environment")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
