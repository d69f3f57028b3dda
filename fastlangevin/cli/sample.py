"""Draw samples by annealed Langevin dynamics and write them as a PNG grid.

Without a checkpoint the network that ships with the package is used: 8x8 digits. The noise of a sample depends on the
seed and on its number alone, so a stopped run goes on with the same bits; another batch size changes a sample only as
far as the network's own arithmetic does. With --shards, and under torchrun, any number of processes and machines fill
one folder with samples, and the same command run again draws only what is missing.
Samples of a network that was trained on logits go back to the range of its data, in pictures, shards and digests.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastlangevin import pictures
from fastlangevin.cli import sharded
from fastlangevin.cli.described import augment_of, sampling_of, shape_of
from fastlangevin.cli.devices import usable_device
from fastlangevin.noise import MAX_SEED
from fastlangevin.runtime import choose
from fastlangevin.samplers import ChainState, NonFiniteError, StepInfo, annealed_langevin
from fastlangevin.shards import digest_of, network_digest
from fastlangevin.stopping import Stopping
from fastlangevin.storage import checkpoint, stopped_chain
from fastlangevin.storage.files import check_writable
from fastlangevin.values import shown

logger = logging.getLogger("fastlangevin")

SAVE_EVERY_SECONDS = 10.0
FRAMES = 51


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", type=Path, help="network to sample from; the digits of the package where it is left out")
    # torchrun takes --n for an abbreviation of its own options, with the Python versions whose argparse looks ahead.
    add("--n", "--samples", type=int, default=100, help="number of samples; under torchrun write --samples")
    add("--seed", type=int, default=0, help=f"0 to {MAX_SEED}")
    add("--out", type=Path, default=Path("samples.png"), help="picture to write")
    add(
        "--trajectory",
        type=Path,
        nargs="?",
        const=Path("trajectory.png"),
        help="also write the annealing as a strip of pictures",
    )
    add("--resume", action="store_true", help="continue a stopped run of the same --out; --shards always does")
    add(
        "--epsilon", type=float, help="step size at the last level, the paper's convention; the checkpoint's by default"
    )
    add("--steps-per-level", type=int, help="updates for each noise level; the checkpoint's by default")
    add("--corrector", choices=("langevin", "ou"), default="langevin", help="noise of the update")
    add("--sample-offset", type=int, default=0, help="number of the first sample: run 100..199 alone with 100")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where the network runs")
    add("--impl", default="auto", choices=("auto", "triton", "cpp", "reference"), help="implementation of the update")
    add("--digest", action="store_true", help="print the SHA-256 of the samples in the order of their numbers")
    add("--quiet", action="store_true", help="no progress bar")
    sharded.add_arguments(parser.add_argument_group("many processes, one folder"))


def _load(path: Path | None) -> checkpoint.Checkpoint:
    if path is not None:
        loaded = checkpoint.load(path)
        # Samples are drawn in fp32, whatever the weights are kept in.
        return replace(loaded, net=loaded.net.float(), sigmas=loaded.sigmas.float())
    with as_file(files("fastlangevin") / "assets" / "digits.safetensors") as shipped:
        return checkpoint.load(shipped)


def run(options: argparse.Namespace) -> int:
    logging.basicConfig(format="%(name)s: %(message)s")
    if options.n < 1:
        raise ValueError(f"--n must be at least 1, got {options.n}")
    if options.trajectory is not None and options.trajectory.resolve() == options.out.resolve():
        raise ValueError(f"--out and --trajectory both name {options.out}; give two files")
    for path in (options.out, options.trajectory):
        if path is not None:
            check_writable(path, "samples.png")
    loaded = _load(options.checkpoint)
    shape = shape_of(loaded.metadata)
    settings = sampling_of(loaded.metadata, options.epsilon, options.steps_per_level)
    augment = augment_of(loaded.metadata)
    sharded.check(options)
    if sharded.wanted(options):
        return sharded.run(options, loaded, shape, settings, augment.logit)
    device = usable_device(options.device)
    identity = {"weights": network_digest(loaded.net), "sample_offset": options.sample_offset}
    net = loaded.net.to(device)
    name = choose(options.impl, device)[0]
    total = len(loaded.sigmas) * settings["steps_per_level"]
    kept = max(1, total // (FRAMES - 1)) if options.trajectory is not None else 0
    left = options.out.with_name(options.out.name + ".chain")
    resume = _resume(left, options, identity, device) if options.resume else None
    saved = time.monotonic()

    def save(state: ChainState) -> None:
        stopped_chain.save(left, replace(state, record={**state.record, "run": identity}))

    with Stopping() as stop:

        def after_step(info: StepInfo) -> bool:
            nonlocal saved
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                saved = time.monotonic()
                try:
                    save(info.state())
                except OSError as error:
                    logger.warning("the run goes on, but its state could not be saved: %s", error)
            return stop.signal is not None

        started = time.monotonic()
        try:
            result = annealed_langevin(
                net,
                loaded.sigmas,
                shape=(options.n, *shape),
                corrector=options.corrector,
                denoise=True,
                seed=options.seed,
                sample_offset=options.sample_offset,
                device=device,
                callback=after_step,
                progress=not options.quiet,
                trajectory=kept,
                resume=resume,
                full_output=True,
                impl=options.impl,
                **settings,
            )
        except NonFiniteError as error:
            raise RuntimeError(
                f"{len(error.faults)} of {options.n} samples are not finite: the chain diverged; take a smaller "
                f"--epsilon (now {settings['epsilon']}). No picture was written"
            ) from error
        seconds = time.monotonic() - started
    if result.state.step < total:
        save(result.state)
        print(f"stopped after {result.state.step} of {total} updates; go on with --resume (state in {left})")
        return stop.exit_code or 0
    samples = augment.inverse(result.samples.cpu())
    frames = None if result.trajectory is None else augment.inverse(result.trajectory.cpu())
    _write(options, samples, frames, name)
    left.unlink(missing_ok=True)
    print(
        f"{options.n} samples in {seconds:.1f} s ({options.n / seconds:.1f} samples/s), seed {options.seed}, "
        f"implementation {name} on {device}: {options.out}"
    )
    if options.digest:
        print(f"SHA-256 of the samples: {digest_of(samples)}")
    return 0


def _resume(left: Path, options: argparse.Namespace, identity: dict[str, Any], device: torch.device) -> ChainState:
    """The state that a stopped run left, if it is a run of the same samples."""
    state = stopped_chain.load(left, device)
    run = state.record.get("run", {})
    if not isinstance(run, dict):
        raise ValueError(
            f"{left} is not the state of a run of this command: record['run'] must be a dictionary, got {run!r:.80}; "
            "delete it and start again without --resume"
        )
    for option, was, now in (
        ("--n", state.x.shape[0], options.n),
        ("--seed", state.seed, options.seed),
        ("--sample-offset", run.get("sample_offset"), options.sample_offset),
    ):
        if isinstance(was, Tensor) or was != now:
            was = "one for each sample" if isinstance(was, Tensor) else shown(was)
            raise ValueError(f"{left} was begun with {option} {was}, not {now}; give {option} {was}")
    if run.get("weights") != identity["weights"]:
        raise ValueError(f"{left} was begun with another network; give its --checkpoint")
    return state


def _write(options: argparse.Namespace, samples: Tensor, trajectory: Tensor | None, name: str) -> None:
    notes = {"Software": "fastlangevin", "seed": options.seed, "implementation": name}
    pictures.save_png(options.out, pictures.grid(samples), notes)
    if options.trajectory is not None and trajectory is not None:
        frames = torch.cat([trajectory, samples[None]])
        pictures.save_png(options.trajectory, pictures.strip(frames), notes)
        print(f"annealing of {min(8, len(samples))} samples: {options.trajectory}")
