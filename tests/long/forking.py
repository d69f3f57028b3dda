"""Forked processes after parallel work: do the C++ kernels finish there, with the same bits?

    python -m tests.long.forking --forks 100 --json results.json

The parent computes on two threads, PyTorch's own operations and this package's; then it forks, and the child makes
normals and updates of the same size. Threads do not survive a fork, and a child that waits for them waits for ever. The
control is PyTorch's own parallel operation in such a child.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from fastlangevin.kernels.address import Address, Term, Update
from fastlangevin.kernels.cpp import native
from tests.long.record import finish, parser

__all__ = ["finished", "in_a_fork", "ours", "theirs"]

ELEMENTS = 400_000
ADDRESS = Address(5, 3, None, 0, 1)


def ours(out: Tensor) -> None:
    """Normals, and an update of them, in memory that is there already."""
    native.randn(out, ADDRESS, uniform=False)
    native.step(out, Update((Term(0.9, out), Term(0.3, out)), 0.7, ADDRESS, ADDRESS.draw))


def theirs(out: Tensor) -> None:
    """The control: an operation of PyTorch that is divided among threads."""
    torch.exp(out, out=out)


def in_a_fork(work: Callable[[Tensor], None], start: Tensor, seconds: float) -> tuple[str, float]:
    """Does the work in the parent on two threads, then in a child: "same bits", "other bits", "hung"; and how long."""
    torch.set_num_threads(2)
    wanted = start.clone()
    torch.exp(wanted.clone())  # so that PyTorch's threads are there
    work(wanted)
    # Only NumPy compares in the child, which has no threads for PyTorch to compare with.
    out, expected = start.clone(), wanted.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks with threads
        began = time.monotonic()
        child = os.fork()
    if child == 0:
        code = 3
        try:
            work(out)
            code = 0 if out.numpy().tobytes() == expected.tobytes() else 4
        finally:
            os._exit(code)
    while time.monotonic() - began < seconds:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            took = time.monotonic() - began
            return {0: "same bits", 4: "other bits"}.get(os.waitstatus_to_exitcode(status), "crashed"), took
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung", seconds


def finished(forks: int, seconds: float = 5.0) -> tuple[dict[str, int], float]:
    """How the children of so many forks ended, and the longest of them."""
    threads = torch.get_num_threads()
    outcomes: dict[str, int] = {}
    longest = 0.0
    try:
        for _ in range(forks):
            outcome, took = in_a_fork(ours, torch.zeros(4, ELEMENTS // 4), seconds)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            longest = max(longest, took)
    finally:
        torch.set_num_threads(threads)
    return outcomes, longest


def control(seconds: float = 3.0) -> str:
    """What PyTorch's own operation comes to in a child."""
    threads = torch.get_num_threads()
    try:
        return in_a_fork(theirs, torch.zeros(4, ELEMENTS), seconds)[0]
    finally:
        torch.set_num_threads(threads)


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--forks", type=int, default=100)
    chosen = options.parse_args()
    outcomes, longest = finished(chosen.forks)
    hangs = control()
    return finish(
        chosen.json,
        "fork safe",
        f"python -m tests.long.forking --forks {chosen.forks}",
        f"{outcomes.get('same bits', 0)} of {chosen.forks} forked children finished with the same bits, the slowest in "
        f"{longest:.2f} s",
        f"PyTorch's own parallel operation in such a child, given 3 s: {hangs}",
        outcomes == {"same bits": chosen.forks} and hangs == "hung",
        outcomes=outcomes,
    )


if __name__ == "__main__":
    sys.exit(main())
