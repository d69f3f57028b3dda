"""Does a block of Philox's counter ever occur twice? All of a mixed run's, as the operations draw them.

    python -m tests.long.uniqueness                          1.8 10^8 blocks, some minutes
    python -m tests.long.uniqueness --short --json results.json

One seed trains, on processes whose number changes, by every objective and with augmented data; it samples by every
sampler, at sample ids that agree in their low 32 bits; neighbouring seeds sample the same ids, and shards are filled by
one, two and three processes (those of training are run one after the other in this one). Within a key Philox is a
bijection, so values repeat if and only if a block does: the answer is exact, and takes no statistics (see
:mod:`tests.long.blocks` and :mod:`tests.long.equal_rows`).

Controls make the mistakes that such code makes, where it makes them, and each must be found.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import fastlangevin as fl
from benchmarks.timing import machine
from benchmarks.writing import write_record
from fastlangevin import losses, shards
from fastlangevin.compat import score_sde
from fastlangevin.compat.score_sde import chains
from fastlangevin.data import AddressedBatches, Augment, Images
from fastlangevin.kernels.address import Address, Update
from fastlangevin.models import ConvConfig, ConvScore
from fastlangevin.noise import Purpose
from fastlangevin.ops import quick
from fastlangevin.samplers import start, stepping
from fastlangevin.training import TrainConfig, train
from tests.long.blocks import Draw, Recorder, words_of_reference
from tests.long.equal_rows import find

SEED = 0
WORLDS = (1, 2, 3)


class Size(NamedTuple):
    """How large a run is: shape of a sample, levels, updates at each, samples of a sampler; batch, training steps."""

    shape: tuple[int, int, int]
    levels: int
    steps: int
    samples: int
    batch: int
    updates: int


SHORT = Size((3, 8, 8), 8, 3, 6, 24, 12)
# NCSNv2's plan for CIFAR-10.
LONG = Size((3, 32, 32), 232, 5, 8, 48, 48)


class Part(NamedTuple):
    """A part of the run, and the purposes of which it draws again what was drawn before it."""

    name: str
    run: Callable[[], object]
    again: frozenset[Purpose] = frozenset()


class Gaussian:
    """The score of N(1/2, 1/10), blurred by each level."""

    def __init__(self, size: Size) -> None:
        self.sigmas = fl.geometric_sigmas(1.0, 0.01, size.levels)
        self.variance = self.sigmas.float() ** 2 + 0.1

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        return (0.5 - x) / self.variance[labels].view(-1, 1, 1, 1)


def sampling(size: Size) -> list[Part]:
    """Every sampler under one seed, each at ids of its own that differ above the low 32 bits."""
    score = Gaussian(size)
    sigmas, n = score.sigmas, size.samples
    ladder: dict[str, Any] = {"epsilon": 1e-5, "steps_per_level": size.steps}
    mask = torch.rand(size.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    places = iter(range(2**8))
    mixture = fl.GaussianMixture([0.2, 0.8], [[-5.0, -5.0], [5.0, 5.0]], 1.0)

    def chain(**options: Any) -> dict[str, Any]:
        return {"shape": (n, *size.shape), "seed": SEED, "sample_offset": next(places) << 32, **options}

    def annealed(**options: Any) -> Callable[[], object]:
        return partial(fl.annealed_langevin, score, sigmas, **{**ladder, **chain(**options)})

    def resumed(**options: Any) -> None:
        half = size.levels * size.steps // 2
        left = fl.annealed_langevin(
            score, sigmas, **ladder, **options, full_output=True, callback=lambda info: info.step == half
        )
        fl.annealed_langevin(score, sigmas, **ladder, resume=left.state)

    def per_sample(**options: Any) -> None:
        each = [torch.Generator().manual_seed(number) for number in range(n)]
        fl.annealed_langevin(score, sigmas, **ladder, **{**options, "seed": None, "generator": each})

    def published(inpainting: bool, **options: Any) -> None:
        sde, shape = score_sde.VESDE(0.01, 1.0, size.levels), options.pop("shape")
        common = {"continuous": True, "norm": "sample", **options}

        def net(x: Tensor, sigma: Tensor) -> Tensor:
            return (0.5 - x) / (sigma.view(-1, 1, 1, 1) ** 2 + 0.1)

        if inpainting:
            known = torch.zeros(shape)
            inpaint = score_sde.get_pc_inpainter(sde, "reverse_diffusion", "langevin", _same, 0.1, 1, **common)
            inpaint(net, known, mask.expand(shape).float())
            return
        score_sde.get_pc_sampler(
            sde, shape, "ancestral_sampling", "langevin", _same, 0.1, 2, eps=1e-5, device="cpu", **common
        )(net)

    region = partial(fl.Inpainting, mask, torch.zeros(1))
    scattered = [(next(places) << 32) + 3 + 7 * k for k in reversed(range(n))]
    return [
        Part("annealed", annealed(denoise=True)),
        Part("annealed, noise first", annealed(order="noise", init="normal")),
        Part("annealed, scattered ids", annealed(sample_offset=0, sample_ids=scattered)),
        Part("annealed, stopped and resumed", partial(resumed, **chain())),
        Part("annealed, a seed for each sample", partial(per_sample, **chain())),
        Part("annealed, the last ids", annealed(sample_offset=2**56 - n)),
        *(Part(f"annealed, seed {seed}", annealed(seed=seed, sample_offset=0)) for seed in (1, 2**32, 2**64 - 1)),
        Part("inpainting", annealed(inpainting=region())),
        Part("inpainting at every step", annealed(inpainting=region(noise="step"))),
        Part("consistent", partial(fl.consistent_annealed, score, sigmas, epsilon=1e-4, **chain())),
        Part(
            "predictor and corrector",
            partial(fl.predictor_corrector, score, sigmas, snr=0.1, corrector_steps=2, **chain()),
        ),
        Part(
            "ancestral",
            partial(fl.predictor_corrector, score, sigmas, snr=0.1, predictor="ancestral", norm="batch", **chain()),
        ),
        Part(
            "interpolation",
            partial(fl.interpolation, score, sigmas, points=2, **ladder, **chain(sample_offset=2**8 << 32)),
        ),
        Part(
            "plain Langevin",
            partial(
                fl.langevin,
                lambda x: -x,
                torch.zeros(n, *size.shape),
                steps=size.levels,
                epsilon=1e-2,
                seed=SEED,
                sample_offset=next(places) << 32,
            ),
        ),
        Part("samples of a mixture", partial(mixture.sample, n, seed=SEED, sample_offset=next(places) << 32)),
        Part("score_sde", partial(published, False, **chain())),
        Part("score_sde, inpainting", partial(published, True, **chain())),
    ]


def _same(x: Tensor) -> Tensor:
    return x


def training(size: Size) -> list[Part]:
    """One run by one, two and three processes in turn, then the other objectives at steps with draws of their own.

    All ranks need the order of the data, so the second draws again what the first did; and an objective at a step of
    another has its levels and its noise.
    """
    score = Gaussian(size)
    batch, updates = size.batch, size.updates
    # An epoch is as long as each number of processes lasts.
    images = torch.randint(0, 256, (batch * updates, *size.shape), generator=torch.Generator().manual_seed(0))
    source = Images(images.to(torch.uint8), name="noise")
    objective = fl.DenoisingScoreMatching(score.sigmas)
    weight = torch.ones((), requires_grad=True)

    def steps(number: int, rank: int) -> None:
        world = WORLDS[number]
        order = AddressedBatches(
            len(source),
            batch=batch,
            start=number * updates,
            stop=(number + 1) * updates,
            seed=SEED,
            rank=rank,
            world=world,
            micro=2,
        )
        for step in range(order.start, order.stop):
            for index in range(order.micro):
                place: dict[str, Any] = {"seed": SEED, "step": step, "sample_offset": order.positions(index).start}
                x = source.take(order.indices(step, index).tolist())
                x = Augment(flip=True, logit=1e-6)(x, greys=256, **place)
                objective(lambda x, labels: weight * score(x, labels), x, **place).backward()

    x = torch.rand(batch, *size.shape, generator=torch.Generator().manual_seed(1))

    def at(first: int, loss: Callable[..., Tensor], *arguments: Any, **options: Any) -> None:
        for step in range(first, first + updates):
            loss(*arguments, seed=SEED, step=step, **options)

    def still(state: Tensor) -> Tensor:
        return (0.5 - state) / 0.1

    sliced = partial(at, 0, losses.annealed_ssm_loss, score, x, score.sigmas, projections=2, kind="gaussian")
    seen = frozenset({Purpose.DSM_NOISE, Purpose.DSM_LEVEL})
    return [
        *(
            Part(f"training, process {rank} of {world}", partial(steps, number, rank), _order_after(rank))
            for number, world in enumerate(WORLDS)
            for rank in range(world)
        ),
        Part("annealed sliced score matching", sliced, seen),
        Part(
            "denoising with a control variate",
            partial(at, 0, losses.controlled_dsm_loss, score, x, score.sigmas, below=0.5),
            seen,
        ),
        Part("sliced score matching", partial(at, updates, losses.ssm_loss, still, x, kind="sphere")),
        Part("implicit, Hutchinson", partial(at, 2 * updates, losses.ism_loss, still, x, trace="hutchinson")),
        Part("denoising at one level", partial(at, 3 * updates, losses.single_dsm_loss, still, x, 0.3)),
        Part("fastlangevin.training.train", _trained),
    ]


def _order_after(rank: int) -> frozenset[Purpose]:
    return frozenset({Purpose.DATA_ORDER} if rank else ())


def _trained() -> None:
    """The package's own trainer, with a seed of its own."""
    images = torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    config = TrainConfig(steps=6, batch=16, accumulate=2, seed=7, augment=Augment(flip=True), warmup=1)
    train(lambda: ConvScore(fl.geometric_sigmas(1.0, 0.1, 4), ConvConfig(widths=(4,))), Images(images), config)


def sharded(size: Size, world: int, recorder: Recorder) -> None:
    """A folder filled by processes, each of which tells what it drew; they begin together, so that all have work."""
    context = multiprocessing.get_context("fork")
    told, meeting = context.SimpleQueue(), context.Barrier(world)
    with tempfile.TemporaryDirectory(prefix="uniqueness-") as folder:
        processes = [
            context.Process(target=_fill, args=(size, Path(folder) / "run", rank, world, told, meeting))
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        for _ in processes:
            draws, checked, wrong = told.get()
            recorder.draws += draws
            recorder.checked += checked
            recorder.wrong += wrong
        for process in processes:
            process.join()


def _fill(size: Size, folder: Path, rank: int, world: int, told: Any, meeting: Any) -> None:
    recorder = Recorder(part=f"shards, process {rank} of {world}")
    score, met = Gaussian(size), False

    def meet(x: Tensor, labels: Tensor) -> Tensor:
        nonlocal met
        if not met:
            met = bool(meeting.wait(60) + 1)
        return score(x, labels)

    with recorder.listening():
        shards.sample(
            meet,
            score.sigmas,
            folder,
            shape=(2 * size.samples, *size.shape),
            shard_size=2,
            batch=1,
            epsilon=1e-5,
            steps_per_level=size.steps,
            # Worlds would draw the same under one seed: that is what they promise.
            seed=2**20 + world,
            network="gaussian",
            rank=rank,
            world=world,
        )
    told.put((recorder.draws, recorder.checked, recorder.wrong))


def record(parts: list[Part], every: int = 50, quiet: bool = True) -> Recorder:
    """What parts of a run draw, one after the other."""
    recorder = Recorder(every)
    with recorder.listening():
        for part in tqdm(parts, disable=quiet, desc="drawing", unit="part"):
            recorder.part, recorder.again = part.name, part.again
            part.run()
    return recorder


def mixed(size: Size, quiet: bool = True) -> Recorder:
    """The whole run."""
    recorder = record(training(size) + sampling(size), quiet=quiet)
    for world in WORLDS:
        sharded(size, world, recorder)
    return recorder


# The controls: each is a run of few parts that is right without the mistake, and what makes the mistake.


@contextmanager
def drawing(number_of: Callable[[Any], Any]) -> Iterator[None]:
    """Updates whose draw numbers are others."""
    right = stepping.move

    def wrong(update: Update, impl: str, out: Tensor) -> Tensor:
        address = update.address._replace(draw=number_of(update.address.draw))
        return right(update._replace(address=address), impl, out)

    general = mock.patch.object(quick, "step", return_value=None)
    with general, mock.patch.object(stepping, "move", wrong):
        yield


@contextmanager
def level_forgotten(size: Size) -> Iterator[None]:
    """Draw numbers that begin again at each level."""
    with drawing(lambda draw: draw % size.steps):
        yield


@contextmanager
def purpose_shared(size: Size) -> Iterator[None]:
    """The noise of a known region with the purpose of the chain's."""
    with mock.patch("fastlangevin.samplers.inpainting.Purpose", SimpleNamespace(INPAINTING=Purpose.LANGEVIN)):
        yield


@contextmanager
def purpose_of_flips_shared(size: Size) -> Iterator[None]:
    """Mirroring with the purpose of dequantising."""
    wrong = SimpleNamespace(AUGMENTATION=Purpose.AUGMENTATION, FLIP=Purpose.AUGMENTATION)
    with mock.patch("fastlangevin.data.augment.Purpose", wrong):
        yield


@contextmanager
def ids_of_32_bits(size: Size) -> Iterator[None]:
    """Sample ids without their high bits."""
    right = start.resolve

    def wrong(*arguments: Any, **options: Any) -> Address:
        address = right(*arguments, **options)
        return address._replace(sample_offset=address.sample_offset % 2**32)

    with mock.patch.object(start, "resolve", wrong):
        yield


@contextmanager
def draws_of_predictor_and_corrector_shared(size: Size) -> Iterator[None]:
    """A predictor and a corrector that do not share the count of their draws."""

    def wrong() -> Iterator[int]:
        return (number // 2 for number in itertools.count())

    with mock.patch.object(chains, "count", wrong):
        yield


@contextmanager
def resumed_from_zero(size: Size) -> Iterator[None]:
    """A resumed chain that counts its draws from zero."""
    begun = stepping.Stepper.__init__
    first = 0

    def begin(self: Any, score: Any, scheme: Any, state: Any, *others: Any) -> None:
        nonlocal first
        first = state.step
        begun(self, score, scheme, state, *others)

    with drawing(lambda draw: draw - first), mock.patch.object(stepping.Stepper, "__init__", begin):
        yield


def ranks(size: Size, seed_of: Callable[[int, int], int], id_of: Callable[[int, int], int]) -> list[Part]:
    """Two runs, of seeds 0 and 1, by two processes each: what the seed and the first id of each are."""
    score = Gaussian(size)
    return [
        Part(
            f"run {run}, process {rank}",
            partial(
                fl.annealed_langevin,
                score,
                score.sigmas,
                shape=(size.samples, *size.shape),
                epsilon=1e-5,
                steps_per_level=size.steps,
                seed=seed_of(run, rank),
                sample_offset=id_of(run, rank),
            ),
        )
        for run in range(2)
        for rank in range(2)
    ]


def controls(size: Size) -> dict[str, dict[str, int]]:
    """For each mistake, blocks drawn and blocks repeated; ``right`` is the same run without it."""
    of = {part.name: part for part in sampling(size) + training(size)}
    mistakes: dict[str, tuple[Callable[[Size], Any], list[str]]] = {
        "draw numbers begin again at each level": (level_forgotten, ["annealed"]),
        "inpainting with the purpose of the chain": (purpose_shared, ["inpainting at every step"]),
        "flips with the purpose of dequantising": (purpose_of_flips_shared, ["training, process 0 of 1"]),
        "sample ids of 32 bits": (ids_of_32_bits, ["annealed", "annealed, noise first"]),
        "predictor and corrector share draws": (draws_of_predictor_and_corrector_shared, ["score_sde"]),
        "a resumed chain counts from zero": (resumed_from_zero, ["annealed, stopped and resumed"]),
    }
    found = {}
    for name, (mistake, names) in mistakes.items():
        parts = [of[each] for each in names]
        right = find(record(parts).draws)
        with mistake(size):
            wrong = find(record(parts).draws)
        found[name] = {"blocks": wrong.rows, "repeated": wrong.repeated, "repeated_without_it": right.repeated}
    right = find(record(ranks(size, lambda run, rank: run, lambda run, rank: rank * size.samples)).draws)
    wrong = find(record(ranks(size, lambda run, rank: run + rank, lambda run, rank: 0)).draws)
    found["rank added to the seed"] = {
        "blocks": wrong.rows,
        "repeated": wrong.repeated,
        "repeated_without_it": right.repeated,
    }
    return found


def same_as_reference(size: Size) -> dict[str, int]:
    """The blocks of the run's parts against those that plain PyTorch hands to Philox: how many are in one alone."""
    parts = [part for part in sampling(size) + training(size) if part.name != "fastlangevin.training.train"]
    recorder = record(parts)
    expanded = np.unique(np.concatenate([draw.words() for draw in recorder.draws + recorder.redraws]), axis=0)
    handed = words_of_reference(lambda: [part.run() for part in parts])
    both = np.unique(np.concatenate([expanded, handed]), axis=0)
    return {"blocks": len(handed), "in_one_alone": 2 * len(both) - len(expanded) - len(handed)}


def sizes(draws: list[Draw]) -> dict[str, dict[str, int]]:
    """Blocks by purpose and by part."""
    purposes: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    for draw in draws:
        purposes[Purpose(draw.purpose).name] += len(draw)
        parts[draw.part] += len(draw)
    return {"by_purpose": dict(purposes), "by_part": dict(parts)}


def failures(figures: dict[str, Any]) -> list[str]:
    """What was promised and not kept, and controls that prove nothing."""
    wrong = []
    if figures["repeated"]:
        wrong.append(f"{figures['repeated']} blocks occur twice: {'; '.join(figures['examples'])}")
    if figures["redraws_never_drawn"]:
        wrong.append(f"{figures['redraws_never_drawn']} blocks were drawn again that had never been drawn")
    if figures["launches_of_other_bits"]:
        wrong.append(f"bits that do not follow from their blocks: {figures['launches_of_other_bits']}")
    if figures["reference"]["in_one_alone"]:
        wrong.append(f"{figures['reference']['in_one_alone']} blocks differ from those of plain PyTorch")
    # Seeds are drawn by address only for generators of other devices than the CPU.
    if missing := {each.name for each in Purpose} - {"SEED", "USER"} - set(figures["by_purpose"]):
        wrong.append(f"the run has no draws for {', '.join(sorted(missing))}")
    for name, control in figures["controls"].items():
        if not control["repeated"]:
            wrong.append(f"the control was not found: {name}")
        if control["repeated_without_it"]:
            wrong.append(f"the control repeats blocks without its mistake: {name}")
    return wrong


def measure(size: Size, quiet: bool = True) -> dict[str, Any]:
    recorder = mixed(size, quiet)
    found = find(recorder.draws, recorder.redraws)
    return {
        "size": size._asdict(),
        "blocks": found.rows,
        "repeated": found.repeated,
        "examples": found.examples,
        "redrawn": found.redrawn,
        "redraws_never_drawn": found.strangers,
        "launches": len(recorder.draws) + len(recorder.redraws),
        "launches_checked_to_the_bit": dict(sorted(recorder.checked.items())),
        "launches_of_other_bits": recorder.wrong,
        **sizes(recorder.draws),
        "reference": same_as_reference(SHORT),
        "controls": controls(SHORT),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="some 3 10^5 blocks, for the tests")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args()
    torch.set_num_threads(1)  # processes are forks, and a thread pool does not survive a fork
    started = time.monotonic()
    figures = measure(SHORT if options.short else LONG, options.quiet)
    print(f"{figures['blocks']:,} blocks, {figures['repeated']} of them repeated; {time.monotonic() - started:.0f} s")
    for name, control in figures["controls"].items():
        print(f"control: {name}: {control['repeated']:,} of {control['blocks']:,} repeated")
    wrong = failures(figures)
    for line in wrong:
        print(f"tests.long.uniqueness: error: {line}", file=sys.stderr)
    if options.json:
        record_of_run = {"benchmark": "uniqueness", "machine": machine(torch.device("cpu")), **figures}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_record(options.json, record_of_run)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
