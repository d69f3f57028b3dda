"""Training that is stopped after a random step and goes on: does it end as if nothing had happened, to the byte?

    python -m tests.long.resuming --stops 200 --json results.json
    python -m tests.long.resuming --stops 20 --worlds 1

In runs of one, two and four processes, one of them gets SIGTERM after a random step; all must leave with their state
saved, and the run, started again, must end with the state, log and pictures of the undisturbed run of as many
processes. The control resumes without the optimiser's moments and must differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from fastlangevin.stopping import Stopped
from fastlangevin.storage.generations import Generations
from fastlangevin.training.world import World, join
from tests.long.record import finish, parser
from tests.long.small_run import CONFIG, STEPS, content, go, newest

__all__ = ["control", "different_in", "resumes"]

ROOT = Path(__file__).parents[2]


def stop_after(folder: Path, step: int, world: World, rank: int) -> None:
    """The part of a run up to a step, after which one process gets a signal."""

    def interrupt(done: int, _: float) -> None:
        if done == step and world.rank == rank:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        go(folder, callback=interrupt)
    except Stopped as stopped:
        if stopped.code != 143:
            raise
        world.wait()
        return
    raise RuntimeError(f"the run did not stop after step {step}")


def resumes(stops: int, scratch: Path, seed: int, world: World) -> int:
    """How many of some runs, stopped and gone on with, ended differently; called in every process of them.

    Args:
        stops: runs that are stopped, once each.
        scratch: where they are.
        seed: of the moments.
        world: the processes of a run.
    """
    chance = random.Random(f"{seed} {world.size}")
    whole = scratch / "whole"
    go(whole)
    world.wait()
    wanted = content(whole)
    different = 0
    # The first ones stop where a picture is due.
    moments = [step for step in range(STEPS - 1) if (step + 1) % CONFIG.sample_every == 0]
    moments += [chance.randrange(STEPS - 1) for _ in range(stops)]
    for trial, moment in enumerate(tqdm(moments[:stops], f"processes: {world.size}", disable=not world.leads or None)):
        folder = scratch / f"stop-{trial}"
        stop_after(folder, moment, world, rank=chance.randrange(world.size))
        go(folder)
        world.wait()
        found = content(folder)
        names = [name for name in wanted if not name.startswith("state")] + [newest(whole)]
        different += newest(folder) != newest(whole) or any(found.get(name) != wanted[name] for name in names)
    return different


def control(scratch: Path) -> bool:
    """Whether a resume that forgets the optimiser's moments is found out."""
    whole, folder = scratch / "whole", scratch / "control"
    stop_after(folder, STEPS // 2, World(0, 1, torch.device("cpu")), rank=0)
    step, tensors, description = Generations(folder, "state").load()
    for name, value in tensors.items():
        if name.startswith("optimiser.exp_avg."):
            value.zero_()
    Generations(folder, "state").save(step, tensors, description)
    go(folder)
    return content(folder)[newest(folder)] != content(whole)[newest(whole)]


def different_in(processes: int, stops: int, scratch: Path, seed: int) -> int:
    """:func:`resumes` in so many processes, which torchrun starts."""
    scratch.mkdir()
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    member = ["-m", "tests.long.resuming", "--stops", str(stops), "--seed", str(seed), "--member", str(scratch)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command, *member], cwd=ROOT, env=environment, check=True)
    found: int = json.loads((scratch / "different").read_text())
    return found


def _member(stops: int, scratch: Path, seed: int) -> int:
    with join("cpu") as world:
        different = resumes(stops, scratch, seed, world)
        if world.leads:
            (scratch / "different").write_text(json.dumps(different))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser(__doc__)
    options.add_argument("--stops", type=int, default=200, help="in all, shared by the numbers of processes")
    options.add_argument("--worlds", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="numbers of processes")
    options.add_argument("--seed", type=int, default=0, help="of the random moments")
    # How a process that torchrun started for it calls this module.
    options.add_argument("--member", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args(arguments)
    if given.member is not None:
        return _member(given.stops, given.member, given.seed)
    torch.set_num_threads(1)
    different = {}
    with tempfile.TemporaryDirectory() as folder:
        for index, world in enumerate(given.worlds):
            stops = len(range(index, given.stops, len(given.worlds)))
            different[world] = different_in(world, stops, Path(folder) / str(world), given.seed)
        go(Path(folder) / "whole")
        caught = control(Path(folder))
    worlds = ", ".join(map(str, given.worlds))
    return finish(
        given.json,
        "a resumed run of training ends as an undisturbed one",
        "python -m tests.long.resuming",
        f"{given.stops} stops of runs of {worlds} processes: {sum(different.values())} differ in a byte of state, log "
        "or pictures",
        f"a resume without the optimiser's moments {'differs' if caught else 'is NOT seen'}",
        not any(different.values()) and caught,
        different={str(world): count for world, count in different.items()},
    )


if __name__ == "__main__":
    sys.exit(main())
