"""A run that is stopped at any moment: does it save its state, leave in time, and go on with the same bits?

    python -m benchmarks.preemption --signals 100 --resumes 50 --json results.json

Signals: a training process gets SIGTERM at a random moment after its start: between steps, while it saves or draws
samples. It must end with 143 within 20 s, with a whole state of the step it stopped at; processes that stopped at one
step must have the same bytes. Resumes: a run is stopped after a random step and goes on; state, log and pictures must
end as those of the undisturbed run, to the byte. The control resumes without the optimiser's moments and must differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

import fastlangevin as fl
from benchmarks.timing import machine
from fastlangevin.data import Augment, as_source
from fastlangevin.generations import Generations
from fastlangevin.models import ConvConfig, ConvScore
from fastlangevin.stopping import Stopped
from fastlangevin.training import Places, TrainConfig, train

STEPS = 60
CONFIG = TrainConfig(
    steps=STEPS,
    batch=16,
    lr=5e-3,
    warmup=5,
    seed=3,
    clip=50.0,
    augment=Augment(flip=True),
    log_every=7,
    save_every=10,
    sample_every=15,
    samples=4,
)
SAMPLING = {"epsilon": 2e-4, "steps_per_level": 5, "denoise": True}


def build() -> ConvScore:
    return ConvScore(fl.geometric_sigmas(1.0, 0.1, 4), ConvConfig(widths=(8,), mean=0.3, std=0.4))


def images() -> Any:
    rows = (fl.rand((64, 1, 4, 1), seed=1) > 0.5).float()
    return as_source(rows.expand(-1, -1, -1, 4).contiguous(), name="stripes", greys=2)


def go(folder: Path, *, callback: Callable[[int, float], object] | None = None, resume: bool = True) -> None:
    train(build, images(), CONFIG, Places(folder, resume=resume, sampling=SAMPLING, device="cpu"), callback=callback)


def content(folder: Path) -> dict[str, str]:
    """What a run left behind: the digest of each of its files but TensorBoard's."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def stopped_at(folder: Path, step: int) -> None:
    """The part of a run up to a step, ended by a signal."""

    def interrupt(done: int, _: float) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        go(folder, callback=interrupt)
    except Stopped as stopped:
        if stopped.code != 143:
            raise
        return
    raise RuntimeError(f"the run did not stop at step {step}")


def resumes(count: int, scratch: Path, seed: int) -> dict[str, int]:
    """Runs stopped after a random step and gone on with, and how many of them ended differently."""
    chance = random.Random(seed)
    whole = scratch / "whole"
    go(whole)
    wanted = content(whole)
    different = 0
    # The first ones stop where a picture is due.
    moments = [step for step in range(STEPS - 1) if (step + 1) % CONFIG.sample_every == 0]
    moments += [chance.randrange(STEPS - 1) for _ in range(count)]
    for trial, moment in enumerate(moments[:count]):
        folder = scratch / f"resume-{trial}"
        stopped_at(folder, moment)
        go(folder)
        found = content(folder)
        different += any(found.get(name) != wanted[name] for name in wanted if not name.startswith("state"))
        different += found.get(newest(folder)) != wanted[newest(whole)]
    return {"resumes": count, "different": different}


def newest(folder: Path) -> str:
    return max(name for name in content(folder) if name.startswith("state"))


def control(scratch: Path) -> bool:
    """Whether a resume that forgets the optimiser's moments is found out."""
    whole, folder = scratch / "whole", scratch / "control"
    stopped_at(folder, STEPS // 2)
    step, tensors, description = Generations(folder, "state").load()
    for name, value in tensors.items():
        if name.startswith("optimiser.exp_avg."):
            value.zero_()
    Generations(folder, "state").save(step, tensors, description)
    go(folder)
    return content(folder)[newest(folder)] != content(whole)[newest(whole)]


def signals(count: int, scratch: Path, seed: int) -> dict[str, Any]:
    """Training processes that get SIGTERM at random moments."""
    chance = random.Random(seed)
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    for name in ("warm", "timing"):
        started = time.monotonic()
        go(scratch / name)
    length = time.monotonic() - started
    states: dict[int, str] = {}
    found = {"signals": 0, "came too late": 0, "before the first step": 0, "wrong exit": 0, "unsaved": 0, "late": 0}
    slowest = 0.0
    trial = 0
    while found["signals"] < count:
        trial += 1
        folder = scratch / f"signal-{trial}"
        child = os.fork()
        if child == 0:
            _child(folder)
        time.sleep(chance.uniform(0.0, 1.0) * length)
        os.kill(child, signal.SIGTERM)
        asked = time.monotonic()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        waited = time.monotonic() - asked
        if code == 0:
            found["came too late"] += 1
            continue
        found["signals"] += 1
        found["late"] += waited > 20
        slowest = max(slowest, waited)
        done = _steps_done(folder)
        found["before the first step"] += done == 0
        # Before the process has begun to train, nothing of ours is there to change how a signal ends it.
        found["wrong exit"] += code != 143 and (code != -signal.SIGTERM or done > 0)
        found["unsaved"] += done > 0 and not _saved(folder, done, states)
    return {**found, "slowest exit": slowest}


def _child(folder: Path) -> NoReturn:
    """A training process that writes a byte for each step it has done."""
    told = os.open(f"{folder}.steps", os.O_WRONLY | os.O_CREAT)
    code = 1
    try:
        go(folder, callback=lambda *_: os.write(told, b"."))
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
    step, _, _ = Generations(folder, "state").load()
    digest = content(folder)[f"state-{step:010}.safetensors"]
    return step == done and states.setdefault(step, digest) == digest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=100)
    parser.add_argument("--resumes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        found: dict[str, Any] = signals(options.signals, scratch, options.seed)
        print(found, flush=True)
        found |= resumes(options.resumes, scratch, options.seed)
        found["control found out"] = control(scratch)
    print(found)
    if options.json:
        record = {"benchmark": "preemption", "machine": machine(torch.device("cpu")), "result": found}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    bad = sum(found[name] for name in ("wrong exit", "unsaved", "late", "different"))
    return 0 if not bad and found["control found out"] else 1


if __name__ == "__main__":
    sys.exit(main())
