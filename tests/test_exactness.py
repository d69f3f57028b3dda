"""Samples do not depend on their batch, nor on where their chain was stopped: random cases of every sampler."""

import random

import pytest
import torch

import fastlangevin as fl
from benchmarks import sampling
from tests.long.promises import PARTS, STOPS

LADDER = fl.geometric_sigmas(1.0, 0.1, 3)
COUNT, ITEM = 12, (2, 3, 3)
MASK = torch.arange(18).view(ITEM) % 3 == 0


def score(x, labels):
    scale = LADDER.to(x.dtype)[labels].reshape(-1, 1, 1, 1)
    return -torch.sin(3 * x) / (scale**2 + 0.1)


def annealed(**options):
    return fl.annealed_langevin(score, LADDER, epsilon=2e-3, steps_per_level=4, **options)


SAMPLERS = {
    "annealed": lambda **options: annealed(denoise=True, **options),
    "noise first": lambda **options: annealed(order="noise", **options),
    "exact steps": lambda **options: annealed(corrector="ou", temperature=2.0, **options),
    "inpainting": lambda **options: annealed(inpainting=fl.Inpainting(MASK, torch.zeros(1)), **options),
    "inpainting at every step": lambda **options: annealed(
        inpainting=fl.Inpainting(MASK, torch.zeros(1), noise="step"), **options
    ),
    "consistent": lambda **options: fl.consistent_annealed(score, LADDER, epsilon=0.018, **options),
    "predictor-corrector": lambda **options: fl.predictor_corrector(
        score, LADDER, snr=0.1, corrector_steps=2, **options
    ),
    "ancestral": lambda **options: fl.predictor_corrector(
        score, LADDER, snr=0.1, predictor="ancestral", norm="sqrt_d", denoise=True, **options
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_any_part_of_a_run_has_the_bits_of_the_whole(name):
    """Random parts: neighbours from any id on, or any samples in any order."""
    sampler = SAMPLERS[name]
    draw = random.Random(name)
    whole = sampler(shape=(COUNT, *ITEM), seed=7)
    for _ in range(PARTS):
        size = draw.randint(1, COUNT)
        if draw.random() < 0.5:
            first = draw.randint(0, COUNT - size)
            part = sampler(shape=(size, *ITEM), seed=7, sample_offset=first)
            want = whole[first : first + size]
        else:
            ids = draw.sample(range(COUNT), size)
            part = sampler(shape=(size, *ITEM), seed=7, sample_ids=ids)
            want = whole[ids]
        assert torch.equal(part, want)
    assert not torch.equal(sampler(shape=(COUNT, *ITEM), seed=8), whole)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_chain_goes_on_from_any_point_with_the_same_bits(name):
    """Random stops, some of them two in one chain."""
    sampler = SAMPLERS[name]
    draw = random.Random(name)
    whole = sampler(shape=(3, *ITEM), seed=7, full_output=True)
    total = whole.state.step
    for _ in range(STOPS):
        stops = sorted(draw.choices(range(1, total + 1), k=draw.randint(1, 2)))
        left = None
        for stop in stops:
            begin = {"shape": (3, *ITEM), "seed": 7} if left is None else {"resume": left.state}
            if left is not None and left.state.step >= stop:
                continue
            left = sampler(callback=lambda info, stop=stop: info.step == stop, full_output=True, **begin)
        assert torch.equal(sampler(resume=left.state), whole.samples)
        shifted = fl.ChainState(**{**vars(left.state), "seed": 8})
        if left.state.step + 1 < total:
            assert not torch.equal(sampler(resume=shifted), whole.samples), "any noise would pass"


def test_the_benchmark_of_the_loop_refuses_another_law():
    torch.manual_seed(0)
    shape, steps = (64, 3, 8, 8), 3
    calls = sampling.providers(shape, steps, torch.float32, torch.device("cpu"))
    for name, call in calls.items():
        samples = call()
        assert sampling.wrong(name, samples, steps) is None
        if name != "score":
            assert "deviation" in sampling.wrong(name, 1.2 * samples, steps)
            assert "deviation" in sampling.wrong(name, samples, 100)
