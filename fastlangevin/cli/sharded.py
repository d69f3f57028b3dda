"""``fastlangevin sample --shards`` and under torchrun: many processes, one folder."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastlangevin import pictures, shards
from fastlangevin.cli.devices import usable_device
from fastlangevin.runtime import choose
from fastlangevin.shards.record import DEFAULTS
from fastlangevin.shards.working import place
from fastlangevin.stopping import Stopping
from fastlangevin.storage.checkpoint import Checkpoint

__all__ = ["add_arguments", "check", "run", "wanted"]

PICTURED = 100


def add_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--shards", type=Path, metavar="DIR", help="folder of the run; under torchrun --out's .shards by default")
    add(
        "--shard-size",
        type=int,
        help=f"samples in a file, the unit that a process claims; {DEFAULTS['shard_size']} by default",
    )
    add("--batch", type=int, help="samples drawn together, halved where memory runs out; a whole shard by default")
    add("--remake-damaged", action="store_true", help="set damaged files aside and draw their samples again")


def wanted(options: argparse.Namespace) -> bool:
    return options.shards is not None or bool(os.environ.get("RANK", "").strip())


def check(options: argparse.Namespace) -> None:
    """Refuses options that a run in one process, without a folder, has no use for."""
    given = {"--shard-size": options.shard_size, "--batch": options.batch, "--remake-damaged": options.remake_damaged}
    idle = [name for name, value in given.items() if value not in (None, False)]
    if idle and not wanted(options):
        raise ValueError(f"{idle[0]} is of runs in a folder of shards; add --shards, or leave it out")


def run(
    options: argparse.Namespace,
    loaded: Checkpoint,
    shape: Sequence[int],
    settings: dict[str, Any],
    logit: float | None,
) -> int:
    """Does this process's part; the one of rank 0 waits for all, writes the picture and prints."""
    if options.trajectory is not None:
        raise ValueError("--trajectory is not kept of a sharded run; draw some samples without --shards for it")
    rank, _ = place()
    folder = options.shards or options.out.with_name(options.out.name + ".shards")
    device = usable_device(options.device)
    name = choose(options.impl, device)[0]
    network = shards.network_digest(loaded.net)
    started = time.monotonic()
    with Stopping() as stop:
        outcome = shards.sample(
            loaded.net.to(device),
            loaded.sigmas,
            folder,
            shape=(options.n, *shape),
            shard_size=DEFAULTS["shard_size"] if options.shard_size is None else options.shard_size,
            batch=options.batch,
            corrector=options.corrector,
            denoise=True,
            seed=options.seed,
            sample_offset=options.sample_offset,
            device=device,
            impl=options.impl,
            network=network,
            logit=logit,
            remake_damaged=options.remake_damaged,
            progress=not options.quiet,
            stop=lambda: stop.signal is not None,
            **settings,
        )
    seconds = time.monotonic() - started
    if stop.signal is not None and not outcome.complete:
        if rank == 0:
            print(f"stopped; the same command goes on with what is missing in {folder}")
        return stop.exit_code or 0
    if rank:
        return 0
    notes = {"Software": "fastlangevin", "seed": options.seed, "implementation": name}
    pictured = shards.collect(folder, min(PICTURED, options.n))
    pictures.save_png(options.out, pictures.grid(pictured), notes)
    print(
        f"{options.n} samples after {seconds:.1f} s, {outcome.drawn} of them by this process, seed {options.seed}, "
        f"implementation {name} on {device}: {folder}, the first {len(pictured)} in {options.out}"
    )
    if options.digest:
        print(f"SHA-256 of the samples: {shards.digest(folder)}")
    return 0
