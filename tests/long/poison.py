"""The whole suite where new memory holds NaN until it is written: nothing reads, or returns, what no kernel wrote.

    python -m tests.long.poison --json results.json
    python -m tests.long.poison tests/test_ops.py          any arguments of pytest, in the place of the whole suite

``pytest --poison`` turns on PyTorch's deterministic mode, in which ``torch.empty`` and what is made of it are filled
with NaN (integers with their largest value). Processes that a test starts are not in the mode. The control is a kernel
that leaves the last elements of its result unwritten: it must be seen in the mode.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.long.record import finish, parser

__all__ = ["leaves_a_tail", "poisoned", "unwritten"]

ROOT = Path(__file__).resolve().parents[2]
TAIL = 3  # elements that the control leaves unwritten


@contextmanager
def poisoned() -> Iterator[None]:
    """New memory is filled with NaN inside."""
    before = torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


def unwritten(call: Callable[[], Tensor]) -> int:
    """How many elements of a result that should be finite were not written."""
    with poisoned():
        return int((~call().isfinite()).sum())


def leaves_a_tail(x: Tensor) -> Tensor:
    """The control: a kernel without a mask for its last elements."""
    out = torch.empty_like(x)
    written = x.numel() - TAIL
    out.view(-1)[:written] = x.reshape(-1)[:written]
    return out


def run(arguments: list[str]) -> dict[str, Any]:
    """The suite in the mode; how many tests passed, failed and were skipped, and which failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "--poison", "-q", f"--junitxml={report}", *arguments]
        subprocess.run(command, cwd=ROOT, check=False)
        suite = ElementTree.parse(report).getroot()[0]
    count = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return {
        "passed": count["tests"] - count["failures"] - count["errors"] - count["skipped"],
        "failed": count["failures"] + count["errors"],
        "skipped": count["skipped"],
        "failures": failed,
        "seconds": round(float(suite.get("time", "0"))),
    }


def main() -> int:
    options, arguments = parser(__doc__).parse_known_args()
    seen = unwritten(lambda: leaves_a_tail(torch.ones(4, 33)))
    found = run(arguments)
    return finish(
        options.json,
        "no unwritten output, no read of unwritten memory",
        "python -m tests.long.poison" + "".join(f" {each}" for each in arguments),
        f"{found['passed']} tests passed, {found['failed']} failed, {found['skipped']} skipped in the mode",
        f"a kernel that leaves {TAIL} elements unwritten: {seen} seen",
        bool(not found["failed"] and found["passed"] and seen == TAIL),
        **found,
    )


if __name__ == "__main__":
    sys.exit(main())
