"""Checkpoints under kill -9 and under damage: what is lost, and what passes unnoticed.

    python -m tests.long.durability                    all of it, some minutes
    python -m tests.long.durability --kills 20 --flips 500 --truncations 50 --pages 50
    python -m tests.long.durability --json results.json

Killing. A child process saves a state of about 20 MB again and again and reports each finished save; it is killed at a
random moment. Then the newest generation must be readable, hold the bits of its step, and be no older than the last
finished save; and what the killed process left must go when the folder is opened again. The control, torch.save to the
final name, must lose most of its files in the same harness, or the moments are badly chosen. The page cache outlives a
process, so this says nothing of a power cut; the order of writing, flushing and renaming is for the tests.

Damage. One bit flipped, a file cut short, or 4 KiB zeroed, at random places of files from 2 KiB to 2 MiB: every one
must be refused. The control counts what torch.load(weights_only=True) refuses of the same damage to its own files.

Kill times are random; the damage follows from the seed.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from fastlangevin.storage import container
from fastlangevin.storage.generations import Generations
from tests.long.record import write

MEGABYTES = 20
PAGE = 4096
SIZES = (2**11, 2**21)
SAVES_BEFORE_A_KILL = 4


ELEMENTS = MEGABYTES * 10**6 // 12
ROWS = torch.arange(ELEMENTS + 10**6, dtype=torch.int32)


def state(step: int) -> dict[str, Tensor]:
    """A state of 20 MB that is known by its step: weights and two moments of an optimiser.

    Views, so that a child that is killed is saving and not making up the next state.
    """
    names = ("weights", "first", "second")
    return {name: ROWS[3 * step + place :][:ELEMENTS] for place, name in enumerate(names)}


def is_state(tensors: dict[str, Tensor], step: int) -> bool:
    expected = state(step)
    return tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)


def save_generation(folder: Path, step: int) -> None:
    Generations(folder, "run").save(step, state(step), {"step": step})


def save_directly(folder: Path, step: int) -> None:
    # The memory behind the three views goes to the file once, 11 MB: less to write than a generation has.
    torch.save(state(step), folder / "run.pt")


def kill_while_saving(folder: Path, first: int, save: Callable[[Path, int], None], saves: int, seconds: float) -> int:
    """Saves steps first, first + 1, ... in a child, and kills it some seconds into the save after so many finished.

    The moment is counted from what the child reports, so that a busy machine, on which everything takes longer, is
    killed at the same places.

    Returns:
        The last finished step, ``first - 1`` for none.
    """
    receiving, reporting = os.pipe()
    child = os.fork()
    if child == 0:
        step = first
        os.write(reporting, (first - 1).to_bytes(8, "little"))
        while True:
            save(folder, step)
            os.write(reporting, step.to_bytes(8, "little"))
            step += 1
    os.close(reporting)
    file = os.fdopen(receiving, "rb")
    reported = file.read(8 * (saves + 1))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with file:
        reported += file.read()
    return int.from_bytes(reported[-8:], "little")


def seconds_of(save: Callable[[Path, int], None], folder: Path) -> float:
    started = time.perf_counter()
    for _ in range(3):
        save(folder, 0)
    return (time.perf_counter() - started) / 3


def kill_generations(kills: int, folder: Path, moment: random.Random) -> dict[str, Any]:
    typical = seconds_of(save_generation, folder)
    count = dict.fromkeys(("unreadable", "stepped_back", "wrong_bits", "with_orphans", "orphans_not_swept", "saves"), 0)
    newest = 0
    for _ in tqdm(range(kills), "kills", disable=None):
        finished = kill_while_saving(
            folder, newest + 1, save_generation, moment.randrange(SAVES_BEFORE_A_KILL), moment.uniform(0, typical)
        )
        count["saves"] += finished - newest
        count["with_orphans"] += any(folder.glob(".run-*"))
        again = Generations(folder, "run")
        count["orphans_not_swept"] += any(folder.glob(".run-*"))
        try:
            loaded = again.load()
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)
            count["unreadable"] += 1
            continue
        count["stepped_back"] += loaded.step < finished
        count["wrong_bits"] += not is_state(loaded.tensors, loaded.step)
        newest = loaded.step
    return {"kills": kills, "seconds_per_save": typical, **count}


def kill_direct_saves(kills: int, folder: Path, moment: random.Random) -> dict[str, Any]:
    typical = seconds_of(save_directly, folder)
    unreadable = 0
    for _ in tqdm(range(kills), "kills of torch.save", disable=None):
        save_directly(folder, 0)
        kill_while_saving(folder, 1, save_directly, moment.randrange(SAVES_BEFORE_A_KILL), moment.uniform(0, typical))
        unreadable += not _torch_reads(folder / "run.pt")
    return {"kills": kills, "seconds_per_save": typical, "unreadable": unreadable}


def _torch_reads(path: Path) -> bool:
    try:
        torch.load(path, weights_only=True)
    except Exception:  # whatever an unpickler comes upon: RuntimeError, UnpicklingError, IndexError, ...
        return False
    return True


def _container_reads(path: Path) -> bool:
    try:
        container.read(path)
    except ValueError:
        return False
    return True


def flip(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def truncate(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def zero_page(content: bytearray, chance: random.Random) -> None:
    pages = [start for start in range(0, len(content), PAGE) if any(content[start : start + PAGE])]
    start = chance.choice(pages)
    content[start : start + PAGE] = bytes(len(content[start : start + PAGE]))


DAMAGE = {"flips": flip, "truncations": truncate, "pages": zero_page}


def damage(kind: str, count: int, folder: Path, chance: random.Random) -> dict[str, int]:
    """How many of ``count`` damaged files are refused, by this package and by torch.load."""
    low, high = (math.log(size) for size in SIZES)
    states = []
    for _ in range(12):
        weights = torch.frombuffer(
            bytearray(chance.randbytes(round(math.exp(chance.uniform(low, high))))), dtype=torch.uint8
        )
        half = weights.numel() // 2
        states.append({"weights": weights[:half].clone(), "moments": weights[half:].clone()})
    refused = {"refused": 0, "refused_by_torch_load": 0}
    ours, theirs = folder / "state.safetensors", folder / "state.pt"
    intact = []
    for each in states:
        container.write(ours, each, {"step": 1, "losses": [0.5, 0.25]})
        torch.save(each, theirs)
        intact.append((ours.read_bytes(), theirs.read_bytes()))
    for number in tqdm(range(count), kind, disable=None):
        for path, content, reads, key in (
            (ours, intact[number % len(intact)][0], _container_reads, "refused"),
            (theirs, intact[number % len(intact)][1], _torch_reads, "refused_by_torch_load"),
        ):
            damaged = bytearray(content)
            DAMAGE[kind](damaged, chance)
            path.write_bytes(damaged)
            refused[key] += not reads(path)
    return {"damaged": count, **refused}


def failures(record: dict[str, Any]) -> list[str]:
    """What was promised and not kept, and controls that prove nothing."""
    wrong = []
    killed = record["generations"]
    for name in ("unreadable", "stepped_back", "wrong_bits", "orphans_not_swept"):
        if killed[name]:
            wrong.append(f"{killed[name]} of {killed['kills']} kills: {name}")
    control = record["direct_torch_save"]
    if control["unreadable"] * 2 <= control["kills"]:
        wrong.append(f"the control lost only {control['unreadable']} of {control['kills']} files")
    for kind in DAMAGE:
        found = record[kind]
        if found["refused"] < found["damaged"]:
            wrong.append(f"{kind}: {found['damaged'] - found['refused']} of {found['damaged']} were read")
    if record["flips"]["refused_by_torch_load"] * 2 >= record["flips"]["damaged"]:
        wrong.append("torch.load refused most of the flips: they are not where the weights are")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--truncations", type=int, default=500)
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    parser.add_argument("--folder", type=Path, help="where to save; its file system is what is tested")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the children are forks, and a thread pool does not survive a fork
    chance = random.Random(options.seed)
    moment = random.Random()
    place = Path(tempfile.mkdtemp(prefix="durability-", dir=options.folder))
    record: dict[str, Any] = {"benchmark": "durability", "megabytes": MEGABYTES, "seed": options.seed}
    try:
        record["generations"] = kill_generations(options.kills, place, moment)
        record["direct_torch_save"] = kill_direct_saves(options.kills, place, moment)
        for kind in DAMAGE:
            record[kind] = damage(kind, getattr(options, kind), place, chance)
    finally:
        shutil.rmtree(place)
    for name, row in record.items():
        if isinstance(row, dict):
            print(f"{name:18}", ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    wrong = failures(record)
    for line in wrong:
        print(f"tests.long.durability: error: {line}", file=sys.stderr)
    if options.json:
        write(options.json, record)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
