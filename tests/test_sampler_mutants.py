"""Mistakes of samplers, and which of four nets catches which. No net is enough: each misses some that others catch.

The chain is annealed Langevin dynamics on a Gaussian: 10 levels of 5 updates, 1000 samples of 100 elements, which count
as 10^5 chains. A net gives statistics in standard errors (infinity where something must be equal and is not); the right
sampler keeps all of them below 6, some 200 in all, which chance breaks with probability 4e-7. What each can see:

    bits     the first samples against Algorithm 1 written out, with noise of the words of their addresses: equality.
             Any mistake, however small, where the noise is addressed; says nothing of the noise's law.
    step     z recovered from every update, (x' - c x - a s)/b: its moments, 5 10^5 values a level, where 6 standard
             errors are 0.85 % of the mean and 0.6 % of the noise's size; and Kolmogorov-Smirnov, 10^5 values a level,
             which sees a distance of 1 % between distribution functions. 0.1 % of noise needs 1.8 10^7 values.
    law      mean and variance of the state after every step, against their closed form: 6 standard errors are 2.7 % of
             the variance. Whatever changes the chain's law: wrong levels, rules, scores; noise shared by steps. 1 % of
             noise needs 7.2 10^5 chains, which test_laws.py has; 0.1 % needs 7.2 10^7.
    repeats  blocks of Philox drawn twice, exactly; correlations of z between samples, and between steps at every
             distance of elements, where 6 standard errors are 0.27 %; how many |z| are beyond 3.5 and 4.5, of which
             2326 and 34 are expected.
"""

import functools
import math
from dataclasses import dataclass

import gaussian_chain as chain
import pytest
import torch
from scipy import stats

import fastlangevin as fl
from fastlangevin import reference, rules
from fastlangevin.noise import Purpose
from fastlangevin.runtime import explain
from tests.long.blocks import Recorder
from tests.long.equal_rows import find

if explain("cpu")["cpp"] != "available":
    pytest.skip("launches are listened to, and the reference has none", allow_module_level=True)

STEPS = 5
SHAPE = (1000, 100)
SEED = 6
FEW = 8  # samples that are written out
LEVELS = len(chain.LADDER)
RULES = rules.annealed(chain.LADDER.tolist(), chain.EPSILON)
EXACT = chain.exact_law(steps=STEPS)  # before any mistake is made


@dataclass(frozen=True)
class Mutant:
    """A mistake: ``made`` makes the arguments of ``chain.mistaken``; nets that must catch it, and some that cannot."""

    caught_by: str
    made: object = dict
    score: object = chain.score
    missed_by: str = ""


def at_update(make, *arguments):
    return lambda: {"change": make(*arguments)}


def by_rule(rule):
    return lambda: {"rule": rule}


RIGHT = Mutant(caught_by="", missed_by="bits step law repeats")
MUTANTS = {
    "noise of sqrt(alpha/2)": Mutant("bits step law repeats", at_update(chain.noise_times, math.sqrt(0.5))),
    "noise 1 % too large": Mutant("bits step", at_update(chain.noise_times, 1.01)),
    "noise 0.1 % too large": Mutant("bits", at_update(chain.noise_times, 1.001), missed_by="step law repeats"),
    "score of the next level": Mutant("bits step law", score=chain.next_level_score),
    "steps linear in sigma": Mutant("bits step law", by_rule(chain.linear_in_sigma)),
    "half the step": Mutant("bits step law", by_rule(chain.half_the_step)),
    "paper's rule with the code's number": Mutant("bits step law", by_rule(chain.twice_the_step)),
    "levels reversed": Mutant("bits step law", by_rule(chain.reversed_levels)),
    "half the drift": Mutant("bits law", at_update(chain.drift_times, 0.5)),
    "no drift": Mutant("bits law", at_update(chain.drift_times, 0.0)),
    "sign of the drift": Mutant("bits law", at_update(chain.drift_times, -1.0)),
    "same noise in every step of a level": Mutant("bits law repeats", at_update(chain.same_noise_every_step, STEPS)),
    "same noise in every level": Mutant(
        "bits law repeats", at_update(chain.same_noise_every_level, STEPS), missed_by="step"
    ),
    "one noise for the batch": Mutant("bits law repeats", at_update(chain.ids_by, lambda place: 0 * place)),
    "pairs of samples share noise": Mutant(
        "bits law repeats", at_update(chain.ids_by, lambda place: place // 2), missed_by="step"
    ),
    "a quarter of the noise used again": Mutant(
        "bits repeats", at_update(chain.a_quarter_used_again), missed_by="step law"
    ),
    "uniform noise": Mutant("bits step repeats", at_update(chain.noise_made, chain.scaled_uniform), missed_by="law"),
    "noise clipped at 3.5": Mutant("bits repeats", at_update(chain.noise_made, chain.clipped), missed_by="step law"),
    "state rounded to bfloat16": Mutant("bits step", lambda: {"after": chain.to_bfloat16}, missed_by="law"),
}


@dataclass(frozen=True)
class Run:
    """The states of a chain ``(updates + 1, *SHAPE)``, what was drawn for it, and the z of each update."""

    states: torch.Tensor
    recorder: Recorder
    z: torch.Tensor


@functools.lru_cache(maxsize=1)  # the nets of one mutant follow each other
def run(name):
    mutant = RIGHT if name == "right" else MUTANTS[name]
    states = torch.empty(LEVELS * STEPS + 1, *SHAPE)
    states[0] = fl.rand(SHAPE, seed=SEED, purpose=Purpose.INITIAL_STATE)
    recorder = Recorder(every=10**9)
    with chain.mistaken(**mutant.made()), recorder.listening():
        fl.annealed_langevin(
            mutant.score,
            chain.LADDER,
            shape=SHAPE,
            epsilon=chain.EPSILON,
            steps_per_level=STEPS,
            seed=SEED,
            callback=lambda info: states[info.step].copy_(info.x) is None,
        )
    z = torch.empty(LEVELS * STEPS, *SHAPE)
    for step in range(LEVELS * STEPS):
        level = step // STEPS
        c, a, b = RULES[level]
        x = states[step]
        z[step] = (states[step + 1] - c * x - a * chain.score(x, torch.full((len(x),), level))) / b
    return Run(states, recorder, z)


def sigmas_of(p):
    """A p-value as so many standard errors; those below 1e-300 count as 37."""
    return float(stats.norm.isf(max(p, 1e-300) / 2))


def bits(seen):
    """Algorithm 1 written out in fp32 for the first samples."""
    ids = torch.arange(FEW)
    x = reference.rand(SHAPE[1], ids, seed=SEED, draw=0, purpose=0)
    same = [torch.equal(seen.states[0, :FEW], x)]
    last = float(chain.LADDER[-1])
    for level, sigma in enumerate(chain.LADDER.tolist()):
        alpha = chain.EPSILON * (sigma / last) ** 2
        a, b = torch.tensor(alpha / 2), torch.tensor(alpha**0.5)
        for step in range(level * STEPS, (level + 1) * STEPS):
            z = reference.randn(SHAPE[1], ids, seed=SEED, draw=step, purpose=1)
            x = (x + a * chain.score(x, torch.full((FEW,), level))) + b * z
            same.append(torch.equal(seen.states[step + 1, :FEW], x))
    return {"equality": 0.0 if all(same) else math.inf}


def step(seen):
    found = {}
    for level, z in enumerate(seen.z.split(STEPS)):
        n = z.numel()
        square = z**2
        moments = z.mean(dtype=torch.float64), square.mean(dtype=torch.float64) - 1, (square**2).mean() - 3
        for power, moment, variance in zip((1, 2, 4), moments, (1, 2, 96), strict=True):
            found[f"moment {power} of level {level}"] = float(moment) / math.sqrt(variance / n)
        found[f"distribution of level {level}"] = sigmas_of(
            stats.kstest(z[0].double().numpy().ravel(), "norm", method="asymp").pvalue
        )
    return found


def law(seen):
    found = {}
    for number, (x, (mean, variance)) in enumerate(zip(seen.states[1:], EXACT, strict=True)):
        for name, value in chain.law_scores(x, mean, variance).items():
            found[f"{name} after {number + 1}"] = value
    return found


def repeats(seen):
    z = seen.z
    found = {"blocks drawn twice": math.inf if find(seen.recorder.draws).repeated else 0.0}
    pairs = z[:, ::2] * z[:, 1::2]
    found["neighbouring samples"] = float(pairs.mean(dtype=torch.float64)) * math.sqrt(pairs.numel())
    across = z.mean(1, dtype=torch.float64) * math.sqrt(SHAPE[0])
    found["all samples"] = float((across**2).mean() - 1) * math.sqrt(across.numel() / 2)
    for lag in range(1, STEPS + 1):
        product = z[lag:] * z[:-lag]
        found[f"steps {lag} apart"] = float(product.mean(dtype=torch.float64)) * math.sqrt(product.numel())
    waves = torch.fft.rfft(z)
    products = torch.fft.irfft((waves[1:].conj() * waves[:-1]).mean((0, 1)), n=SHAPE[1]) / SHAPE[1]
    found["neighbouring steps at any distance"] = float(products.abs().max()) * math.sqrt(z[1:].numel())
    for bound in (3.5, 4.5):
        count = int((z.abs() > bound).sum())
        expected = stats.poisson(z.numel() * 2 * stats.norm.sf(bound))
        found[f"beyond {bound}"] = sigmas_of(min(1.0, 2 * min(expected.cdf(count), expected.sf(count - 1))))
    return found


NETS = {"bits": bits, "step": step, "law": law, "repeats": repeats}


def worst(net, name):
    found = NETS[net](run(name))
    largest = max(found, key=lambda each: abs(found[each]))
    return abs(found[largest]), largest


@pytest.mark.parametrize("net", NETS)
def test_the_right_sampler_passes(net):
    value, where = worst(net, "right")
    assert value < chain.LIMIT, where


def named(field):
    return [
        pytest.param(name, net, id=f"{name}: {net}")
        for name, mutant in MUTANTS.items()
        for net in getattr(mutant, field).split()
    ]


@pytest.mark.long
@pytest.mark.parametrize(("name", "net"), named("caught_by"))
def test_a_mistake_is_caught(name, net):
    value, where = worst(net, name)
    assert value > chain.LIMIT, where


@pytest.mark.parametrize(("name", "net"), named("missed_by"))
def test_a_net_alone_misses(name, net):
    """That it does is why there are four."""
    value, where = worst(net, name)
    assert value < chain.LIMIT, where


def test_the_nets_see_what_the_docstring_says():
    n, chains = STEPS * math.prod(SHAPE), math.prod(SHAPE)
    assert chain.LIMIT / math.sqrt(n) == pytest.approx(0.0085, abs=1e-4)
    assert chain.LIMIT / math.sqrt(2 * n) == pytest.approx(0.006, abs=1e-4)
    assert math.sqrt(math.log(2 / (2 * stats.norm.sf(chain.LIMIT))) / (2 * chains)) == pytest.approx(0.01, abs=1e-3)
    assert chain.LIMIT * math.sqrt(2 / chains) == pytest.approx(0.027, abs=1e-3)
    # A variance of noise that is off by 2 x; a state's variance by as much, where it is all noise.
    assert [2 * (chain.LIMIT / (2 * size)) ** 2 for size in (0.001, 0.01)] == pytest.approx([1.8e7, 1.8e5])
    assert chain.LIMIT / math.sqrt((LEVELS * STEPS - 1) * chains) == pytest.approx(0.0027, abs=1e-4)
    assert [round(LEVELS * n * 2 * stats.norm.sf(bound)) for bound in (3.5, 4.5)] == [2326, 34]
