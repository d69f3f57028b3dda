"""Samplers against the exact law of their chain, at every step. What the law misses, and what catches it instead, is in
test_sampler_mutants.py.

A statistic is accepted below 6 standard errors: with some 1,200 of them here, a correct sampler fails with probability
2.4e-6, and the seeds are fixed.
"""

import math

import gaussian_chain as chain
import pytest
import torch
from gaussian_chain import LADDER, LIMIT, MU, STEPS, VARIANCES, score
from scipy import stats

import fastlangevin as fl
from fastlangevin import ops, rules

LARGE = (4000, 100)


def worst_scores(corrector="langevin"):
    """Largest |z-score| over all steps: of the mean, of the variance, of the correlation of neighbouring samples."""
    worst = 0.0
    law = iter(chain.exact_law(corrector))

    def look(info):
        nonlocal worst
        worst = max(worst, *map(abs, chain.law_scores(info.x, *next(law)).values()))

    fl.annealed_langevin(
        score,
        LADDER,
        shape=LARGE,
        epsilon=chain.EPSILON,
        steps_per_level=STEPS,
        corrector=corrector,
        seed=0,
        callback=look,
    )
    return worst


@pytest.mark.parametrize("corrector", ["langevin", "ou"])
def test_every_step_follows_the_exact_law(corrector):
    assert worst_scores(corrector) < LIMIT
    with chain.mistaken(chain.noise_times(1.01)):  # 2 % of variance: 9 standard errors
        assert worst_scores(corrector) > LIMIT


def test_a_uniform_start_is_bounded_as_claimed():
    u = torch.rand(10**6, dtype=torch.float64) - 0.5
    assert (u**4).mean() / (u**2).mean() ** 2 < 3


GOLDEN = [
    # ladder, levels, steps, step_lr or epsilon, s0, denoise, corrector, final standard deviation (in units named)
    ("published code, point data", (1.0, 0.01, 10), 100, {"step_lr": 2e-5}, 0.0, False, "langevin", 1.0541e-2, 1e-6),
    ("paper, point data", (1.0, 0.01, 10), 100, {"epsilon": 2e-5}, 0.0, False, "langevin", 1.0260e-2, 1e-6),
    ("published code, wide data", (1.0, 0.01, 10), 100, {"step_lr": 2e-5}, 0.5, False, "langevin", 0.50785, 1e-5),
    ("paper, wide data", (1.0, 0.01, 10), 100, {"epsilon": 2e-5}, 0.5, False, "langevin", 0.51518, 1e-5),
    ("NCSNv2, point data", (50.0, 0.01, 232), 5, {"step_lr": 6.2e-6}, 0.0, False, "langevin", 1.0622e-2, 1e-6),
    ("NCSNv2, wide data", (50.0, 0.01, 232), 5, {"step_lr": 6.2e-6}, 0.5, False, "langevin", 0.53365, 1e-5),
    ("NCSNv2, wide data, denoised", (50.0, 0.01, 232), 5, {"step_lr": 6.2e-6}, 0.5, True, "langevin", 0.53344, 1e-5),
    # delta = 0.124 of the exact step is 1 - (1 - eta)^2, and epsilon = 2 eta sigma_L^2.
    (
        "exact OU, point data",
        (1.0, 0.01, 10),
        100,
        {"epsilon": 2e-4 * (1 - 0.876**0.5)},
        0.0,
        False,
        "ou",
        1.0000016e-2,
        1e-9,
    ),
]


@pytest.mark.parametrize("case", GOLDEN, ids=[case[0] for case in GOLDEN])
def test_golden_widths_of_the_rules(case):
    """The recursion of the variance under the rules' coefficients, from 1/12, to the digits known."""
    _, ladder, steps, size, spread, denoise, corrector, expected, tolerance = case
    sigmas = fl.geometric_sigmas(*ladder).tolist()
    variance = 1 / 12
    for (c, a, b), sigma in zip(
        rules.annealed(sigmas, rules.step_size(size.get("epsilon"), size.get("step_lr")), corrector),
        sigmas,
        strict=True,
    ):
        v = spread**2 + sigma**2
        for _ in range(steps):
            variance = (c - a / v) ** 2 * variance + b**2
    if denoise:
        variance *= (1 - sigmas[-1] ** 2 / (spread**2 + sigmas[-1] ** 2)) ** 2
    # Half a unit of the last digit given.
    assert abs(math.sqrt(variance) - expected) <= 0.5 * tolerance + 1e-12
    wrong_convention = variance * 1.01
    assert abs(math.sqrt(wrong_convention) - expected) > tolerance


def test_the_sampler_reaches_the_golden_width():
    sigmas = torch.tensor([0.0 + float(sigma) for sigma in LADDER])
    x = fl.annealed_langevin(
        lambda x, labels: -x / sigmas.to(x.dtype)[labels][:, None] ** 2,
        LADDER,
        shape=(1000, 400),
        step_lr=2e-5,
        steps_per_level=100,
        seed=1,
    )
    error = (x.double().var() / 1.0541e-2**2 - 1) / math.sqrt(2 / x.numel())
    assert abs(error) < LIMIT
    paper_convention = (x.double().var() / 1.0260e-2**2 - 1) / math.sqrt(2 / x.numel())
    assert abs(paper_convention) > LIMIT


def test_denoising_is_the_posterior_mean():
    options = {"shape": (2000, 50), "epsilon": 2e-5, "steps_per_level": STEPS, "seed": 5}
    noisy = fl.annealed_langevin(score, LADDER, **options)
    clean = fl.annealed_langevin(score, LADDER, denoise=True, **options)
    sigma, v = float(LADDER[-1]), VARIANCES[-1]
    # Three fp32 roundings of numbers near one.
    torch.testing.assert_close(clean, MU + (1 - sigma**2 / v) * (noisy - MU), rtol=0, atol=4 * 2.0**-24)
    assert not torch.allclose(clean, noisy, rtol=0, atol=4 * 2.0**-24)


def mixture(n, seed):
    """Exact draws of 0.2 N(-1, 0.3^2) + 0.8 N(1, 0.5^2), its score, mean and variance."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(n, generator=generator, dtype=torch.float64) < 0.2
    z = torch.randn(n, generator=generator, dtype=torch.float64)
    return torch.where(first, -1 + 0.3 * z, 1 + 0.5 * z), 0.6, 0.2 * (0.09 + 1) + 0.8 * (0.25 + 1) - 0.36


def mixture_score(x):
    logits = torch.stack([math.log(0.2 / 0.3) - (x + 1) ** 2 / 0.18, math.log(0.8 / 0.5) - (x - 1) ** 2 / 0.5])
    share = logits.softmax(0)
    return share[0] * -(x + 1) / 0.09 + share[1] * -(x - 1) / 0.25


def one_step_excess(noise_factor=1.0):
    """z-score of the variance after one step from exact draws: it is V + (alpha/2)^2 E[score^2] for any target."""
    n, alpha = 10**6, 0.1
    x, _, variance = mixture(n, 0)
    grid = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    density = 0.2 * torch.exp(-((grid + 1) ** 2) / 0.18) / 0.3 + 0.8 * torch.exp(-((grid - 1) ** 2) / 0.5) / 0.5
    density /= density.sum()
    fisher = float((density * mixture_score(grid) ** 2).sum())
    s = mixture_score(x)
    y = ops.step(x, s, a=alpha / 2, b=noise_factor * math.sqrt(alpha), seed=0)
    expected = variance + (alpha / 2) ** 2 * fisher
    centred = y - 0.6
    return float(((centred**2).mean() - expected) / (centred**2).std() * math.sqrt(n))


def test_one_step_from_a_mixture():
    assert abs(one_step_excess()) < LIMIT
    assert abs(one_step_excess(1.03)) > LIMIT


def noise_tests(z):
    """p-values of one step's noise: Kolmogorov-Smirnov, two tails, fourth moment."""
    n = z.numel()
    far = int((z.abs() > 3.5).sum())
    fourth = float(((z**4).mean() - 3) / math.sqrt(96 / n))
    return {
        "ks": float(stats.kstest(z.numpy(), "norm").pvalue),
        "tail": float(stats.poisson(n * 2 * stats.norm.sf(3.5)).cdf(far)),
        "heavy": float(stats.poisson(n * 2 * stats.norm.sf(3.5)).sf(far - 1)),
        "fourth": float(2 * stats.norm.sf(abs(fourth))),
    }


def test_the_noise_of_a_step_is_normal():
    n = 10**6
    zero = torch.zeros(n)
    z = ops.step(zero, zero, a=0.0, b=1.0, seed=123).double()
    assert min(noise_tests(z).values()) > 1e-6
    uniform = (torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5) * math.sqrt(12)
    assert min(noise_tests(uniform).values()) < 1e-6
    assert min(noise_tests(z.clamp(-3.5, 3.5)).values()) < 1e-6
    assert min(noise_tests(z * 1.01).values()) < 1e-6


def test_unadjusted_langevin_is_as_wide_as_its_step():
    """The stationary variance is v / (1 - epsilon/(4 v)), not v."""
    v, epsilon = 0.25, 0.2
    start = fl.randn((2000, 200), seed=0) * math.sqrt(v / (1 - epsilon / (4 * v)))
    x = fl.langevin(lambda x: -x / v, start, steps=10, epsilon=epsilon, seed=1).double()
    stationary = v / (1 - epsilon / (4 * v))
    assert abs((x.var() / stationary - 1) / math.sqrt(2 / x.numel())) < LIMIT
    assert abs((x.var() / v - 1) / math.sqrt(2 / x.numel())) > LIMIT
