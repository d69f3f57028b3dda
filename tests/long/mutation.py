"""Seeds faults into the kernels and rules, one at a time, and asks the tests to catch every one.

Only the tests of the README's command are asked, those that are not marked ``long``.

A fault (``tests/long/faults``) replaces a text that occurs exactly once in its file, in a copy of the tree; a text that
does not is an error, since a stale table says nothing. The tests that should see it run first, then the rest of the
suite, files that are known to be dear last. Caught is a fault by which a test fails; one that cannot be compiled or
imported, or that ends the tests in any other way, is invalid. The table must have neither invalid ones nor survivors.

Two controls. The tests that are named must pass in a copy without a fault, which loads the library that was built from
its sources in a folder of the harness. And changes that are equivalent, such as factors in another order, must pass the
tests that catch their neighbours: else whatever is changed would be called caught.

``tests/test_sampler_mutants.py`` puts mistakes into one chain in its own process, and asks which of four statistical
nets sees which; here the package's own lines are changed, and the suite as a whole is asked.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from benchmarks.timing import machine
from benchmarks.writing import write_record
from tests.long.faults import EQUIVALENT, FAULTS
from tests.long.faults.fault import Fault, apply

__all__ = ["Result", "Tree", "main", "run_fault"]

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results") / "mutation.json"
# With all files at the top: what the tests read. No library that was built in the checkout comes along.
FOLDERS = ("fastlangevin", "kernels", "tests", "benchmarks", "examples", ".ci")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.so")
# The rest of the suite ends with these, of half a minute and more each.
DEAR = (
    "test_cli",
    "test_training",
    "test_runs",
    "test_sharding",
    "test_laws",
    "test_chain_laws",
    "test_sampler_mutants",
    "test_quality",
    "test_noise_statistics",
    "test_paper",
    "test_packaging",
    "test_compile_gates",
)
# What a test raises because the code does not hang together, not because it computes something else.
INCOHERENT = {"SyntaxError", "ImportError", "ModuleNotFoundError", "NameError", "UnboundLocalError", "BuildError"}
INCOHERENT |= {"CompilationError", "IndentationError"}
# Both lines after what the build says of itself.
LOADS = (
    "import fastlangevin; from fastlangevin.kernels.cpp import native; print(fastlangevin.__file__, native.location())"
)
BUILD_SECONDS = 900.0


@dataclass(frozen=True)
class Result:
    """What became of a fault: ``outcome`` is caught, survived or invalid; ``how`` is what the test or pytest said."""

    name: str
    family: str
    file: str
    digest: str
    outcome: str
    caught_by: str
    how: str
    seconds: float
    command: str


class Tree:
    """A copy of the checkout, and the environment in which its package is what is imported.

    Args:
        folder: of the copy; made.
        home: of the harness: libraries and objects are kept there for all copies, by the sources that they are of.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home = folder, home
        folder.mkdir(parents=True)
        for path in ROOT.iterdir():
            if path.name in FOLDERS:
                shutil.copytree(path, folder / path.name, symlinks=True, ignore=LEFT_OUT)
            elif path.is_file():
                shutil.copyfile(path, folder / path.name)
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("FASTLANGEVIN_NO_BUILD", "CXX")},
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "FASTLANGEVIN_CACHE_DIR": str(home / "libraries"),
            "OMP_NUM_THREADS": "1",
        }

    def library(self) -> Path:
        """Builds and loads the C++ library, and says where it is.

        Raises:
            RuntimeError: it cannot be built, or what is loaded is not what the copy's sources make.
        """
        objects = self.home / "objects"
        objects.mkdir(exist_ok=True)
        compiler = shlex.join([sys.executable, str(Path(__file__).with_name("faults") / "compiler.py")])
        status, output = _run(
            [sys.executable, "-c", LOADS],
            self.folder,
            self.environment | {"CXX": compiler, "FAULTS_OBJECTS": str(objects)},
            BUILD_SECONDS,
        )
        if status:
            raise RuntimeError(f"the library cannot be built: {output[-2000:]}")
        package, library = map(Path, output.split()[-2:])
        if not package.is_relative_to(self.folder) or not library.is_relative_to(self.home):
            raise RuntimeError(f"not the copy's own is loaded, but {package} and {library}")
        return library

    def test(self, tests: Sequence[str], seconds: float) -> tuple[str, str, str]:
        """Runs tests: outcome (survived, caught or invalid), the node that failed, and what it said."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not long", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}"]
        command += ["-o", "junit_family=xunit1", *tests]
        status, output = _run(command, self.folder, self.environment, seconds)
        if status == 0:
            return "survived", "", ""
        if status == 1 and report.exists():
            return _verdict(report)
        return "invalid", "", f"pytest ended with status {status}: {output[-1000:]}"


def _run(command: list[str], folder: Path, environment: dict[str, str], seconds: float) -> tuple[int | None, str]:
    """Exit status, None for a process that was ended, and output."""
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return None, output.decode(errors="replace") + f"\nended after {seconds:.0f} s"
    return process.returncode, output.decode(errors="replace")


def _verdict(report: Path) -> tuple[str, str, str]:
    """Outcome, node id and message of the first test that failed."""
    for case in ElementTree.parse(report).iter("testcase"):
        failure, error = case.find("failure"), case.find("error")
        found = failure if failure is not None else error
        if found is None:
            continue
        node = f"{case.get('file', case.get('classname'))}::{case.get('name')}"
        # Without addresses of objects, which are others in every process.
        said = re.sub(r" at 0x[0-9a-f]+", "", " ".join(found.get("message", "").split()).partition(" [+")[0])[:120]
        kind = re.match(r"[\w.]*?(\w+)(?=:|$)", said)
        incoherent = kind is not None and kind[1] in INCOHERENT
        return "invalid" if failure is None or incoherent else "caught", node, said
    return "invalid", "", "no test failed, but pytest did"


def files(root: Path, names: Iterable[str]) -> list[str]:
    """The suite's files that are not among the names, cheap ones first."""
    dear = {f"tests/{name}.py": place for place, name in enumerate(DEAR, 1)}
    # The short form of this harness finds every fault, since the text that it replaces is not there any more.
    left = {f"tests/{path.name}" for path in (root / "tests").glob("test_*.py")} - {*names, "tests/test_mutation.py"}
    return sorted([*left, "tests/bad_input"], key=lambda name: (dear.get(name, 0), name))


def run_fault(fault: Fault, home: Path, seconds: float, *, whole: bool = True) -> Result:
    """Runs the tests on a copy with a fault.

    Args:
        fault: the fault.
        home: of the harness.
        seconds: after which one run of the tests is ended, which makes the fault invalid.
        whole: whether the rest of the suite is asked where the named tests pass.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tree-", dir=home) as name:
        tree = Tree(Path(name).resolve() / "tree", home)
        text, command = apply(fault, tree.folder), shlex.join(["pytest", "-x", "-q", "-m", "not long", *fault.tests])

        def result(outcome: str, node: str, said: str) -> Result:
            known = fault.name, fault.family, fault.file, fault.digest
            said = said.replace(str(home), "...")
            return Result(*known, outcome, node, said, round(time.monotonic() - begun, 1), command)

        (tree.folder / fault.file).write_text(text)
        try:
            if fault.is_compiled:
                tree.library()
            else:
                compile(text, fault.file, "exec")
        except (RuntimeError, SyntaxError) as error:
            return result("invalid", "", str(error))
        found = tree.test(fault.tests, seconds)
        if found[0] == "survived" and whole:
            rest = files(tree.folder, fault.tests)
            command = shlex.join(["pytest", "-x", "-q", "-m", "not long", *rest])
            found = tree.test(rest, 10 * seconds)
            # Of these nobody has seen that they pass without a fault.
            if found[0] == "caught":
                clean = Tree(Path(name).resolve() / "clean", home)
                if clean.test([found[1]], seconds)[0] != "survived":
                    return result("invalid", found[1], "fails without the fault, too")
        return result(*found)


def check_copy(chosen: Sequence[Fault], home: Path, seconds: float, jobs: int) -> str:
    """Runs the named tests on a copy without a fault: what is wrong with it, or nothing."""
    tests = sorted({test for fault in chosen for test in fault.tests})
    tests = [test for test in tests if "::" not in test or test.partition("::")[0] not in tests]
    with tempfile.TemporaryDirectory(prefix="tree-", dir=home) as name:
        trees = [Tree(Path(name).resolve() / str(job), home) for job in range(min(jobs, len(tests)))]
        try:
            trees[0].library()
        except RuntimeError as error:
            return str(error)
        with ThreadPoolExecutor(jobs) as pool:
            shares = [tests[job :: len(trees)] for job in range(len(trees))]
            for outcome, node, said in pool.map(lambda tree, share: tree.test(share, 10 * seconds), trees, shares):
                if outcome != "survived":
                    return f"the tests do not pass without a fault: {node} {said}"
    return ""


def _show(result: Result) -> None:
    print(f"{result.outcome:9} {result.seconds:6.1f} s  {result.name} ({result.family})", flush=True)
    print(f"          {result.caught_by or '-'}  {result.how[:100]}", flush=True)


def _kept(path: Path) -> dict[str, dict[str, Any]]:
    """Results of before that are still those of a fault of the table, by name."""
    if not path.exists():
        return {}
    record = json.loads(path.read_text())
    known = {(fault.name, fault.digest) for fault in (*FAULTS, *EQUIVALENT)}
    rows = [*record["faults"], *record["equivalent"]]
    return {row["name"]: row for row in rows if (row["name"], row["digest"]) in known}


def _save(path: Path, rows: dict[str, dict[str, Any]], whole: bool) -> None:
    """Writes the results, with the machine if all of them are of this run."""
    record = {
        "benchmark": "mutation",
        **({"machine": machine(torch.device("cpu"))} if whole else {}),
        "faults": [rows[fault.name] for fault in FAULTS if fault.name in rows],
        "equivalent": [rows[fault.name] for fault in EQUIVALENT if fault.name in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, record)


def wrong(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Faults that no test caught, and equivalent changes that one did."""
    same = {fault.name for fault in EQUIVALENT}
    return [
        f"{row['name']} ({row['file']}): {row['outcome']} {row['caught_by']} {row['how']}".rstrip()
        for row in rows
        if row["outcome"] != ("survived" if row["name"] in same else "caught")
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="faults of these names")
    parser.add_argument("--family", nargs="+", help="faults of these families")
    parser.add_argument("--missing", action="store_true", help="faults without a result in the file")
    parser.add_argument("--named", action="store_true", help="leave the rest of the suite out where named tests pass")
    parser.add_argument("--list", action="store_true", help="print the table and end")
    parser.add_argument("--seconds", type=float, default=300.0, help="for the named tests of a fault")
    parser.add_argument(
        "--folder", type=Path, help="keep what is built here, for a later run; a temporary one by default"
    )
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the results; others are kept there")
    options = parser.parse_args(arguments)
    rows = _kept(options.json)
    chosen = [
        fault
        for fault in (*FAULTS, *EQUIVALENT)
        if (not options.only or fault.name in options.only)
        and (not options.family or fault.family in options.family)
        and not (options.missing and fault.name in rows)
    ]
    if not chosen and options.missing:
        print("no result is missing")
        return 0
    if not chosen:
        parser.error("no fault is of these names and families")
    for fault in chosen:
        apply(fault, ROOT)
        if options.list:
            print(f"{fault.family:20} {fault.file:44} {fault.name}")
    if options.list:
        return 0
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        home = (options.folder or Path(name)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        failure = check_copy(chosen, home, options.seconds, options.jobs)
        if failure:
            print(f"tests.long.mutation: error: {failure}", file=sys.stderr)
            return 1
        print(f"the named tests pass without a fault: {time.monotonic() - begun:.0f} s", flush=True)
        found = []
        with ThreadPoolExecutor(options.jobs) as pool:
            for result in pool.map(lambda fault: _run_one(fault, home, options.seconds, options.named), chosen):
                _show(result)
                rows[result.name] = asdict(result)
                found.append(asdict(result))
                _save(options.json, rows, whole=len(found) == len(FAULTS) + len(EQUIVALENT))
    lines = wrong(found)
    for line in lines:
        print(f"tests.long.mutation: error: {line}", file=sys.stderr)
    caught = sum(row["outcome"] == "caught" for row in found)
    print(f"{caught} of {sum(fault in FAULTS for fault in chosen)} faults caught")
    return 1 if lines else 0


def _run_one(fault: Fault, home: Path, seconds: float, named: bool) -> Result:
    return run_fault(fault, home, seconds, whole=not named and fault not in EQUIVALENT)


if __name__ == "__main__":
    sys.exit(main())
