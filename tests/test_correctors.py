"""Signal-to-noise correctors: the published formula, the three ways to take the ratio, and their exact laws.

From x = mu + sigma u, u ~ N(0, I) in D dimensions, with the score of the noise alone, a = 2 snr^2 sigma^2 q leads to

    E ||x' - mu||^2 / (sigma^2 D) = 1 - 4 snr^2 E[q ||u||^2]/D + 4 snr^4 E[q^2 ||u||^2]/D + 4 snr^2 E[q ||z||^2]/D

where q = (ratio/sigma)^2: ||z||^2/||u||^2 with the sample's norms, D/||u||^2 with sqrt(D), 1 for a large batch. With
E ||z||^4 = D (D + 2) and E ||u||^-2 = 1/(D - 2) these are closed forms.
"""

import math
from typing import get_args

import pytest
import torch

import fastlangevin as fl
from fastlangevin import rules
from fastlangevin.noise import Purpose

SNR, SIGMA, MU, D = 0.3, 0.7, 0.5, 16
SHAPE = (2**14, D)
LIMIT = 6.0


def ratio(norm, z, score):
    """||z||/||score|| in one of the ways of SignalNorm, (B, 1) or a number."""
    norms = [each.double().norm(dim=1, keepdim=True) for each in (z, score)]
    if norm == "batch":
        return norms[0].mean() / norms[1].mean()
    return (norms[0] if norm == "sample" else math.sqrt(z.shape[1])) / norms[1]


def scaled(ratios, snr=SNR, alpha=1.0):
    """(a, b) for ratios in a tensor, the way the docstring says."""
    _, a, b = rules.signal_to_noise(snr, 1.0, alpha)
    return a * ratios**2, b * ratios


def one_step(norm, x, **options):
    score = (MU - x) / SIGMA**2
    z = fl.randn(x.shape, seed=5, purpose=Purpose.LANGEVIN)
    a, b = scaled(ratio(norm, z, score), **options)
    return fl.step(x, score, a=a.float(), b=b.float(), seed=5)


def law(norm):
    if norm == "batch":
        return (1 - 2 * SNR**2) ** 2 + 4 * SNR**2
    late = 4 * SNR**2 * (1 + SNR**2)
    return 1 - 4 * SNR**2 + late * ((D + 2) / (D - 2) if norm == "sample" else D / (D - 2))


def distance(norm, expected, **options):
    """Standard errors between ||x' - mu||^2/(sigma^2 D) and its law."""
    x = fl.randn(SHAPE, seed=6).mul_(SIGMA).add_(MU)
    found = ((one_step(norm, x, **options).double() - MU) ** 2).mean(1) / SIGMA**2
    return abs(float((found.mean() - expected) / found.std())) * math.sqrt(len(found))


def test_the_norms_are_the_documented_ones():
    assert get_args(rules.SignalNorm) == ("sample", "batch", "sqrt_d")


@pytest.mark.parametrize("norm", get_args(rules.SignalNorm))
def test_one_step_has_the_law_of_its_norm(norm):
    # The batch's ratio strays from sigma by 1/sqrt(2 D B) = 0.14 %, the law by 0.02 %: a seventh of a standard error.
    assert distance(norm, law(norm)) < LIMIT
    for other in get_args(rules.SignalNorm):
        if other != norm:
            assert distance(other, law(norm)) > LIMIT
    assert distance(norm, law(norm), alpha=0.5) > LIMIT
    assert distance(norm, law(norm), snr=SNR * 1.5) > LIMIT


@pytest.mark.parametrize("alpha", [1.0, 0.98])
@pytest.mark.parametrize("norm", get_args(rules.SignalNorm))
def test_it_is_the_published_formula(norm, alpha):
    """step = (snr ||z||/||g||)^2 2 alpha; x + step g + sqrt(2 step) z, in fp64."""
    x = torch.randn(8, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    g, z = (MU - x) / SIGMA**2, fl.randn(x.shape, seed=5)
    taken = ratio(norm, z, g)
    step_size = (SNR * taken) ** 2 * 2 * alpha
    theirs = x + step_size * g + torch.sqrt(step_size * 2) * z.double()
    listed = [rules.signal_to_noise(SNR, float(each), alpha) for each in torch.as_tensor(taken).expand(8, 1)[:, 0]]
    a, b = (torch.tensor([getattr(rule, part) for rule in listed], dtype=torch.float64) for part in "ab")
    # Some ten fp64 roundings of numbers below 8.
    tolerance = 10 * 8 * 2.0**-53
    multiplied = scaled(torch.as_tensor(taken).expand(8, 1)[:, 0], alpha=alpha)
    for each in ((a, b), multiplied):
        ours = fl.step(x, g, a=each[0], b=each[1], noise=z)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    wrong = fl.step(x, g, a=a / 2, b=b, noise=z)
    assert not torch.allclose(wrong, theirs, rtol=0, atol=1e9 * tolerance)


@pytest.mark.parametrize("norm", get_args(rules.SignalNorm))
def test_only_the_norms_of_the_batch_couple_samples(norm):
    x = fl.randn((6, D), seed=7)
    alone, together = one_step(norm, x[:3]), one_step(norm, x)[:3]
    assert torch.equal(alone, together) is (norm != "batch")
