"""Training that gets SIGTERM at any moment: does it save its last step and leave in time?

    python -m tests.long.preemption --signals 200 --json results.json

A training process gets the signal a random while after a random step: between steps, while it saves or draws samples.
It must end with 143 within 20 s (--longest), with a whole state of the step it stopped at; processes that stopped at
one step must have the same bytes. What becomes of the run when it goes on is for tests.long.resuming. The control
leaves the signal to the system, as a training loop does by default, and must lose its last step in a quarter of the
cases or more; in the others it comes while a step is saved or the picture of a saved step is drawn.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Self
from unittest import mock

import torch
from tqdm import tqdm

from fastlangevin.stopping import Stopped, Stopping
from fastlangevin.storage.generations import Generations
from tests.long.record import finish, parser
from tests.long.small_run import STEPS, content, go

__all__ = ["Deaf", "signals"]

LONGEST = 20.0
SECONDS_A_STEP = 0.05
# How long after its step a signal comes at most: saves and pictures take longer than steps.
AFTER = 10 * SECONDS_A_STEP


class Deaf(Stopping):
    """The control: it leaves signals to the system."""

    def __enter__(self) -> Self:
        return self


def signals(
    count: int,
    scratch: Path,
    seed: int,
    listener: type[Stopping] = Stopping,
    *,
    after: float = AFTER,
    longest: float = LONGEST,
) -> dict[str, float]:
    """Training processes that get SIGTERM at random moments.

    Args:
        count: processes that the signal reaches before their end.
        scratch: where their runs are.
        seed: of the moments.
        listener: what the training loop notices signals by.
        after: seconds after its step that a signal comes at most.
        longest: seconds after the signal by which a process must have ended.

    Returns:
        How many ended in which way, and the seconds from the signal to the end of the slowest.
    """
    chance = random.Random(seed)
    go(scratch / "warm")
    states: dict[int, str] = {}
    found = dict.fromkeys(("signals", "came too late", "before the first step", "wrong exit", "unsaved", "late"), 0)
    slowest = 0.0
    with tqdm(total=count, desc=f"signals, {listener.__name__}", disable=None) as bar:
        for trial in range(100 * count):
            if found["signals"] == count:
                break
            folder = scratch / f"signal-{trial}"
            child = os.fork()
            if child == 0:
                _child(folder, listener)
            step, pause = chance.randrange(STEPS), chance.uniform(0.0, after)
            code, waited = _signalled(child, folder, step, pause)
            if code == 0:
                found["came too late"] += 1
                continue
            bar.update()
            found["signals"] += 1
            found["late"] += waited > longest
            slowest = max(slowest, waited)
            done = _steps_done(folder)
            found["before the first step"] += done == 0
            # Before the process has begun to train, nothing of ours is there to change how a signal ends it.
            found["wrong exit"] += code != 143 and (code != -signal.SIGTERM or done > 0)
            found["unsaved"] += done > 0 and not _saved(folder, done, states)
    return {**found, "slowest exit": slowest}


def _signalled(child: int, folder: Path, step: int, pause: float) -> tuple[int, float]:
    """Sends SIGTERM some seconds after a step of a process; its exit code, and the seconds until it had ended."""
    while _steps_done(folder) < step:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), 0.0
        time.sleep(SECONDS_A_STEP / 50)
    time.sleep(pause)
    os.kill(child, signal.SIGTERM)
    asked = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, time.monotonic() - asked


def _child(folder: Path, listener: type[Stopping]) -> NoReturn:
    """A training process that writes a byte for each step it has done."""
    told = os.open(f"{folder}.steps", os.O_WRONLY | os.O_CREAT)
    code = 1

    def tell(*_: object) -> None:
        os.write(told, b".")
        # Steps as short as this network's take less of a run than its saves, and a signal hardly ever meets one.
        time.sleep(SECONDS_A_STEP)

    try:
        with mock.patch("fastlangevin.training.trainer.Stopping", listener):
            go(folder, callback=tell)
        code = 0
    except Stopped as stopped:
        code = int(stopped.code or 0)
    finally:
        os._exit(code)


def _steps_done(folder: Path) -> int:
    told = Path(f"{folder}.steps")
    return told.stat().st_size if told.exists() else 0


def _saved(folder: Path, done: int, states: dict[int, str]) -> bool:
    """Whether a stopped run's newest state is whole, of its last step, and that of others which stopped there."""
    try:
        step, _, _ = Generations(folder, "state").load()
    except (ValueError, FileNotFoundError):
        return False
    digest = content(folder)[f"state-{step:010}.safetensors"]
    return step == done and states.setdefault(step, digest) == digest


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--signals", type=int, default=200)
    options.add_argument("--seed", type=int, default=0, help="of the random moments")
    options.add_argument("--longest", type=float, default=LONGEST, help="seconds in which a process must have ended")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    with tempfile.TemporaryDirectory() as heard, tempfile.TemporaryDirectory() as ignored:
        found = signals(given.signals, Path(heard), given.seed, longest=given.longest)
        # Soon after a step, which nearly always is one that has not been saved.
        control = signals(max(8, given.signals // 10), Path(ignored), given.seed, Deaf, after=SECONDS_A_STEP)
    kept = not any(found[name] for name in ("wrong exit", "unsaved", "late")) and found["signals"] == given.signals
    return finish(
        given.json,
        "a stop keeps its last step",
        "python -m tests.long.preemption",
        f"{found['signals']} SIGTERMs: {found['unsaved']} unsaved, {found['wrong exit']} with another exit status, the "
        f"slowest gone after {found['slowest exit']:.1f} s",
        f"signals left to the system: {control['unsaved']} of {control['signals']} lose it",
        kept and 4 * control["unsaved"] > control["signals"],
        found=found,
        control_found=control,
    )


if __name__ == "__main__":
    sys.exit(main())
