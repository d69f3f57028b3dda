"""Sharded sampling under kill -9: does a folder end with the same bits, and how much is drawn twice?

    python -m tests.long.sharding --kills 100 --json results.json

One, two, four and eight processes fill a folder each. Then two fill others; at random moments one of them is killed and
started again, until enough kills are spent and the folder is full. The samples must have the SHA-256 of an undisturbed
run, nothing may lie beside the shards, and each kill may have cost at most the batch it fell into. The score logs each
of its evaluations, so that work is counted and not inferred.

Beside it a kill at a chosen evaluation, whose cost is known exactly; and two controls that must fail: processes that
add their rank to the seed, and a run that keeps no batches of unfinished shards.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fastlangevin import annealed_langevin, shards
from tests.long.record import write

SIGMAS = [1.0, 0.3, 0.1]
STEPS, N, SHARD, BATCH = 4, 92, 16, 4
EVALUATIONS = len(SIGMAS) * STEPS + 1  # of a sample, with the denoise step
WORLD = 2
WORLDS = (1, 2, 4, 8)
CHAIN: dict[str, Any] = {"epsilon": 1e-3, "steps_per_level": STEPS, "denoise": True, "seed": 3, "impl": "reference"}
KILLS_IN_A_FOLDER = 10
SECONDS_BETWEEN_KILLS = 0.12
SLOWNESS = 1e-3  # seconds of an evaluation, so that kills find it at work


def score(x: Tensor, labels: Tensor) -> Tensor:
    """That of N(0.5, 0.3^2), blurred by each level; element by element, so the same in any batch."""
    variance = torch.tensor(SIGMAS)[labels] ** 2 + 0.3**2
    return (0.5 - x) / variance[:, None]


class Logged:
    """The score, one byte in a file for each sample of each evaluation; may kill its process at one of them."""

    def __init__(self, log: Path, *, die_at: int = 0, slowness: float = SLOWNESS) -> None:
        self.handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.die_at, self.slowness = die_at, slowness
        self.calls = 0

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        os.write(self.handle, b"." * len(x))
        self.calls += 1
        if self.calls == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.slowness)
        return score(x, labels)


def fill(folder: Path, log: Path, rank: int, world: int = WORLD, **options: Any) -> None:
    shards.sample(
        Logged(log, **options),
        SIGMAS,
        folder,
        shape=(N, 3),
        shard_size=SHARD,
        batch=BATCH,
        network="gaussian",
        rank=rank,
        world=world,
        **CHAIN,
    )


def seeding_by_rank(folder: Path, log: Path, rank: int) -> None:
    """The control: what a rank in the seed does."""
    wrong = partial(_other_seed, rank)
    with mock.patch("fastlangevin.shards.batches.annealed_langevin", wrong):
        fill(folder, log, rank)


def _other_seed(rank: int, *arguments: Any, seed: int, **options: Any) -> Any:
    return annealed_langevin(*arguments, seed=seed + rank, **options)


def keeping_no_batches(folder: Path, log: Path, rank: int, world: int, **options: Any) -> None:
    """The control: a run that writes whole shards only."""
    with mock.patch.object(shards.RunFolder, "write_part"):
        fill(folder, log, rank, world, **options)


def start(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        # Forks share the lock that tqdm takes for every bar, a semaphore that stays locked when its holder is killed;
        # processes that torchrun starts do not.
        tqdm.set_lock(threading.RLock())
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fill_by_several(
    folder: Path,
    log: Path,
    work: Callable[[Path, Path, int], None],
    kills: int,
    chance: random.Random,
    world: int = WORLD,
) -> int:
    """Fills a folder with several processes, killing some; returns how many kills found a process at work."""
    children = {rank: start(partial(work, folder, log, rank)) for rank in range(world)}
    killed = 0
    while killed < kills and children:
        time.sleep(chance.expovariate(1 / SECONDS_BETWEEN_KILLS))
        rank = chance.choice(list(children))
        os.kill(children[rank], signal.SIGKILL)
        status = finish(children[rank])
        if status == 0:  # it had ended by itself
            del children[rank]
            continue
        if status != -signal.SIGKILL:
            raise RuntimeError(f"a process ended with status {status}")
        killed += 1
        children[rank] = start(partial(work, folder, log, rank))
    for child in children.values():
        if (status := finish(child)) != 0:
            raise RuntimeError(f"a process ended with status {status}")
    if not folder.exists() or shards.RunFolder(folder).missing():  # both were killed at the very end
        work(folder, log, 0)
    return killed


def expected() -> str:
    whole: Tensor = annealed_langevin(score, SIGMAS, shape=(N, 3), **CHAIN)
    return shards.digest_of(whole)


def strangers(folder: Path) -> list[str]:
    wanted = {"run.json", *(f"shard-{index:010}.safetensors" for index in range(-(-N // SHARD)))}
    return sorted({path.name for path in folder.iterdir()} ^ wanted)


def by_worlds(place: Path, chance: random.Random) -> dict[str, int]:
    """How many of the folders that 1, 2, 4 and 8 processes fill have other bits than one chain of all samples."""
    other = 0
    for world in WORLDS:
        folder = place / f"world-{world}"
        fill_by_several(folder, place / f"world-{world}.log", partial(fill, world=world), 0, chance, world)
        other += shards.digest(folder) != expected()
    return {"worlds": len(WORLDS), "other_bits": other}


def random_kills(kills: int, place: Path, chance: random.Random) -> dict[str, Any]:
    digest = expected()
    count = dict.fromkeys(("kills", "folders", "other_bits", "with_strangers", "evaluations_repeated"), 0)
    with tqdm(total=kills, desc="kills", disable=None) as bar:
        while count["kills"] < kills:
            folder, log = place / f"run-{count['folders']}", place / f"log-{count['folders']}"
            most = min(KILLS_IN_A_FOLDER, kills - count["kills"])
            killed = fill_by_several(folder, log, fill, most, chance)
            count["kills"] += killed
            count["folders"] += 1
            count["other_bits"] += shards.digest(folder) != digest
            count["with_strangers"] += bool(strangers(folder))
            count["evaluations_repeated"] += log.stat().st_size - N * EVALUATIONS
            bar.update(killed)
    return {**count, "bound": count["kills"] * BATCH * EVALUATIONS}


def chosen_kill(place: Path) -> dict[str, int]:
    """A process dies in the second evaluation of the third batch of a shard: what is evaluated again after it."""
    die_at = 2 * EVALUATIONS + 2
    repeated = {}
    for name, work in (("repeated", fill), ("repeated_without_batches", keeping_no_batches)):
        folder, log = place / name, place / f"{name}.log"
        status = finish(start(partial(work, folder, log, 0, 1, die_at=die_at, slowness=0)))
        if status != -signal.SIGKILL:
            raise RuntimeError(f"the process was to be killed, but ended with status {status}")
        work(folder, log, 0, 1, slowness=0)
        repeated[name] = log.stat().st_size - N * EVALUATIONS
    return {**repeated, "expected": 2 * BATCH, "expected_without_batches": die_at * BATCH}


def by_rank(place: Path, chance: random.Random) -> dict[str, bool]:
    fill_by_several(place / "ranked", place / "ranked.log", seeding_by_rank, 0, chance)
    return {"same_bits": shards.digest(place / "ranked") == expected()}


def failures(record: dict[str, Any]) -> list[str]:
    """What was promised and not kept, and controls that prove nothing."""
    killed, chosen, wrong = record["random_kills"], record["chosen_kill"], []
    for name in ("other_bits", "with_strangers"):
        if killed[name]:
            wrong.append(f"{killed[name]} of {killed['folders']} folders: {name}")
    if record["worlds"]["other_bits"]:
        wrong.append(f"{record['worlds']['other_bits']} of the numbers of processes {WORLDS} gave other bits")
    if killed["evaluations_repeated"] > killed["bound"]:
        wrong.append(f"{killed['evaluations_repeated']} evaluations repeated, more than a batch for each kill")
    if killed["evaluations_repeated"] < 0:
        wrong.append("fewer evaluations than samples need: the log is not one")
    for name in ("", "_without_batches"):
        if chosen[f"repeated{name}"] != chosen[f"expected{name}"]:
            wrong.append(f"the chosen kill{name} repeated {chosen[f'repeated{name}']} evaluations")
    if record["seeding_by_rank"]["same_bits"]:
        wrong.append("seeding by rank gave the same bits: the digests prove nothing")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills, which the machine shifts")
    parser.add_argument("--folder", type=Path, help="where the runs are; its file system is what is tested")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the children are forks, and a thread pool does not survive a fork
    chance = random.Random(options.seed)
    record: dict[str, Any] = {"benchmark": "sharding", "samples": N, "shard_size": SHARD, "batch": BATCH}
    with tempfile.TemporaryDirectory(prefix="sharding-", dir=options.folder) as place:
        record["worlds"] = by_worlds(Path(place), chance)
        record["random_kills"] = random_kills(options.kills, Path(place), chance)
        record["chosen_kill"] = chosen_kill(Path(place))
        record["seeding_by_rank"] = by_rank(Path(place), chance)
    for name, row in record.items():
        if isinstance(row, dict):
            print(f"{name:16}", ", ".join(f"{key} {value}" for key, value in row.items()))
    wrong = failures(record)
    for line in wrong:
        print(f"tests.long.sharding: error: {line}", file=sys.stderr)
    if options.json:
        write(options.json, record)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
