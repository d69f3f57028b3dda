"""Rules against the formulas as their authors write them, and against the exact law of their chain on a Gaussian.

Data N(mu, s0^2) perturbed to m data + n z are N(m mu, m^2 s0^2 + n^2), so with the exact score every update is affine:
the published formula, tried at a few points, gives the mean and variance after each step without a look at the rule's
coefficients. Each rule has mutants, which both checks must refuse.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import fastlangevin as fl
from fastlangevin import rules
from fastlangevin.rules import Coefficients, LinearBeta

MU, S0 = 0.5, 0.3
N = 2**18
LIMIT = 6.0  # standard errors; some 300 statistics are looked at, so that a right rule fails with probability 1e-6
EPS = 2.0**-53


@dataclass
class Chain:
    """A rule's list, with the perturbed data before each update and the formula of its source."""

    rules: list[Coefficients]
    perturbed: list[tuple[float, float]]  # (m, n)
    published: Callable  # (step, x, score, z) -> x
    mutants: dict[str, list[Coefficients]]
    conditions: list[float] | None = None  # by which the published formula enlarges its roundings at each step

    def score(self, step, x):
        m, n = self.perturbed[step]
        return (m * MU - x) / (m**2 * S0**2 + n**2)

    def start(self):
        m, n = self.perturbed[0]
        return m * MU, m**2 * S0**2 + n**2

    def law(self):
        """(mean, variance) after every update, by the published formula."""
        mean, variance = self.start()
        for step in range(len(self.perturbed)):

            def update(x, z, step=step):
                return self.published(step, x, self.score(step, x), z)

            shift = update(0.0, 0.0)
            shrink, noise = update(1.0, 0.0) - shift, update(0.0, 1.0) - shift
            mean, variance = shrink * mean + shift, shrink**2 * variance + noise**2
            yield mean, variance


def each(rules, change):
    return [change(*rule) for rule in rules]


def noise_times(rules, factor):
    return each(rules, lambda c, a, b: Coefficients(c, a, b and factor * b))


def drift_times(rules, factor):
    return each(rules, lambda c, a, b: Coefficients(c, factor * a, b))


def kept(rules):
    """The state's factor forgotten."""
    return each(rules, lambda c, a, b: Coefficients(1.0, a, b))


def before(rules):
    """Every step with the coefficients of the one before: the level off by one."""
    return [rules[0], *rules[:-1]]


# Variance exploding. ``ascending`` is the table of score_sde's VESDE, index ``i`` its label.


def ve_chain(made, ladder, published, **mutants):
    everywhere = {"half the drift": drift_times(made, 0.5), "level off by one": before(made)}
    return Chain(made, [(1.0, sigma) for sigma in ladder], published(ladder[::-1]), {**everywhere, **mutants})


def reverse_sde(ascending, flow):
    def update(step, x, score, z):
        i = len(ascending) - 1 - step
        adjacent = ascending[i - 1] if i else 0.0
        f, G = 0.0 * x, math.sqrt(ascending[i] ** 2 - adjacent**2)
        rev_f, rev_G = f - G**2 * score * (0.5 if flow else 1.0), 0.0 if flow else G
        return x - rev_f + rev_G * z

    return update


def reverse_diffusion(ladder):
    made, other = rules.ve_reverse_diffusion(ladder), rules.ve_ancestral(ladder)
    return ve_chain(made, ladder, lambda up: reverse_sde(up, False), **{"noise of ancestral sampling": other})


def probability_flow(ladder):
    made = rules.ve_probability_flow(ladder)
    return ve_chain(made, ladder, lambda up: reverse_sde(up, True), **{"the whole drift": drift_times(made, 2.0)})


def ancestral(ladder):
    def published(ascending):
        def update(step, x, score, z):
            i = len(ascending) - 1 - step
            sigma, adjacent = ascending[i], ascending[i - 1] if i else 0.0
            mean = x + score * (sigma**2 - adjacent**2)
            return mean + math.sqrt(adjacent**2 * (sigma**2 - adjacent**2) / sigma**2) * z

        return update

    made, other = rules.ve_ancestral(ladder), rules.ve_reverse_diffusion(ladder)
    return ve_chain(made, ladder, published, **{"noise of reverse diffusion": other})


def euler_maruyama(ladder):
    """dx = g^2 score dt + g dW backwards in time, g = sigma(t) sqrt(2 ln(sigma_max/sigma_min)), steps of 1/N."""

    def published(ascending):
        count, low, high = len(ascending), ascending[0], ascending[-1]

        def update(step, x, score, z):
            t = 1 - step / (count - 1)
            diffusion = low * (high / low) ** t * math.sqrt(2 * (math.log(high) - math.log(low)))
            drift, dt = 0.0 * x - diffusion**2 * score, -1 / count
            return x + drift * dt + diffusion * math.sqrt(-dt) * z

        return update

    made = rules.ve_euler_maruyama(ladder)
    factor = len(ladder) / (len(ladder) - 1)
    longer = noise_times(drift_times(made, factor), math.sqrt(factor))
    return ve_chain(made, ladder, published, **{"steps of 1/(N-1)": longer})


def k_diffusion(eta, s_noise):
    def make(ladder):
        def published(ascending):
            sigmas = [*ascending[::-1], 0.0]

            def update(step, x, score, z):
                sigma, after = sigmas[step], sigmas[step + 1]
                denoised = x + sigma**2 * score
                up = min(after, eta * (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5)
                down = (after**2 - up**2) ** 0.5
                d = (x - denoised) / sigma
                return x + d * (down - sigma) + z * s_noise * up

            return update

        made = rules.euler_ancestral([*ladder, 0.0], eta, s_noise)
        other = rules.euler_ancestral(ladder, abs(eta - 0.4) or 0.8, s_noise)
        return ve_chain(made, ladder, published, **{"another eta": other})

    return make


def consistent(ladder):
    eta = 0.7 if ladder is UNEVEN else 0.056
    epsilon = 2 * eta * ladder[-1] ** 2

    def published(ascending):
        levels = ascending[::-1]
        step_lr = eta * levels[-1] ** 2

        def update(step, x, score, z):
            x = x + step_lr / levels[-1] ** 2 * levels[step] ** 2 * score
            if step == len(levels) - 1:
                return x
            gamma = levels[step + 1] / levels[step]
            beta = math.sqrt(1 - ((1 - step_lr / levels[-1] ** 2) / gamma) ** 2)
            return x + levels[step + 1] * beta * z

        return update

    made = rules.consistent(ladder, epsilon)
    # The published code's number taken for the paper's.
    mutants = {"step_lr for epsilon": rules.consistent(ladder, 2 * epsilon)}
    if ladder is UNEVEN:
        # One gamma for the whole ladder, as published.
        gamma = (ladder[-1] / ladder[0]) ** (1 / (len(ladder) - 1))
        share = math.sqrt(1 - ((1 - eta) / gamma) ** 2)
        mutants["one gamma"] = [
            rule._replace(b=low and low * share) for rule, low in zip(made, [*ladder[1:], 0.0], strict=True)
        ]
    return ve_chain(made, ladder, published, **mutants)


def annealed(corrector, temperature):
    def make(ladder):
        epsilon = 0.4 * ladder[-1] ** 2

        def published(ascending):
            levels = ascending[::-1]

            def update(step, x, score, z):
                step_size = epsilon / 2 * (levels[step] / levels[-1]) ** 2
                if corrector == "langevin":
                    return x + step_size * score + math.sqrt(step_size * 2 * temperature) * z
                # azula writes the step with the denoised state q and delta = 1 - (1 - eta)^2.
                sigma = levels[step]
                q, delta = x + sigma**2 * score, 1 - (1 - step_size / sigma**2) ** 2
                return q + math.sqrt(1 - delta) * (x - q) + math.sqrt(delta * temperature) * sigma * z

            return update

        made = rules.annealed(ladder, epsilon, corrector, temperature)
        other = rules.annealed(ladder, epsilon, corrector, temperature**2 if temperature != 1 else 1.5)
        return ve_chain(made, ladder, published, **{"T for sqrt(T)": other})

    return make


def ald(ladder):
    """score_sde's ``ald``, and the reproduction of NCSN by snr = sqrt(step_lr / (2 sigma_L^2))."""

    def published(ascending):
        def update(step, x, score, z):
            std = ascending[len(ascending) - 1 - step]
            step_size = (0.3 * std) ** 2 * 2 * 1.0
            return x + step_size * score + z * math.sqrt(step_size * 2)

        return update

    made = [rules.annealed_corrector(0.3, sigma) for sigma in ladder]
    return ve_chain(made, ladder, published, **{"noise of sqrt(a)": noise_times(made, math.sqrt(0.5))})


# Variance preserving. ``betas`` ascends, index ``i`` is score_sde's ``timestep``.


def vp_perturbed(betas):
    products = np.cumprod(1 - np.array(betas))[::-1]
    return [(math.sqrt(product), math.sqrt(1 - product)) for product in products.tolist()]


def vp_chain(made, betas, update, **mutants):
    def published(step, x, score, z):
        return update(len(betas) - 1 - step, x, score, z)

    return Chain(
        made,
        vp_perturbed(betas),
        published,
        {"half the drift": drift_times(made, 0.5), "c forgotten": kept(made), **mutants},
    )


def vp_reverse(betas, flow=False):
    def update(i, x, score, z):
        f, G = math.sqrt(1 - betas[i]) * x - x, math.sqrt(betas[i])
        rev_f, rev_G = f - G**2 * score * (0.5 if flow else 1.0), 0.0 if flow else G
        return x - rev_f + rev_G * z

    if flow:
        made = rules.vp_probability_flow(betas)
        return vp_chain(made, betas, update, **{"the whole drift": drift_times(made, 2.0)})
    made = rules.vp_reverse_diffusion(betas)
    return vp_chain(made, betas, update, **{"ancestral": rules.vp_ancestral(betas), "upside down": made[::-1]})


def vp_ancestral(betas):
    def update(i, x, score, z):
        return (x + betas[i] * score) / math.sqrt(1 - betas[i]) + math.sqrt(betas[i]) * z

    made = rules.vp_ancestral(betas)
    return vp_chain(made, betas, update, **{"reverse diffusion": rules.vp_reverse_diffusion(betas)})


def ddpm(variance):
    """The posterior of x_{i-1} given x_i and the predicted x_0, with the noise prediction in between."""

    def make(betas):
        bars = np.cumprod(1 - np.array(betas)).tolist()

        def update(i, x, score, z):
            bar, previous = bars[i], bars[i - 1] if i else 1.0
            predicted = -math.sqrt(1 - bar) * score
            x0 = math.sqrt(1 / bar) * x - math.sqrt(1 / bar - 1) * predicted
            mean = betas[i] * math.sqrt(previous) / (1 - bar) * x0
            mean = mean + (1 - previous) * math.sqrt(1 - betas[i]) / (1 - bar) * x
            small = betas[i] * (1 - previous) / (1 - bar)
            return mean + (i > 0) * math.sqrt(small if variance == "fixed_small" else betas[i]) * z

        made = rules.ddpm_ancestral(betas, variance)
        other = rules.ddpm_ancestral(betas, "fixed_large" if variance == "fixed_small" else "fixed_small")
        chain = vp_chain(made, betas, update, **{"the other variance": other})
        # 1 - bar cancels towards the data.
        chain.conditions = [1 / (1 - bar) for bar in reversed(bars)]
        return chain

    return make


def sde(rule, drift_and_diffusion, std, flow=False):
    """Euler-Maruyama of the reverse SDE, with the times and the step of score_sde."""

    def make(schedule):
        low, high, count = schedule.beta_min, schedule.beta_max, schedule.steps
        times = np.linspace(1, schedule.t_end, count).tolist()

        def update(step, x, score, z):
            drift, diffusion = drift_and_diffusion(x, times[step], low, high)
            drift = drift - diffusion**2 * score * (0.5 if flow else 1.0)
            dt = -1 / count
            return x + drift * dt + (0.0 if flow else diffusion * math.sqrt(-dt)) * z

        def marginal(t):
            mean = math.exp(-0.25 * t**2 * (high - low) - 0.5 * t * low)
            return mean, std(mean)

        made = rule(schedule)
        mutants = {"half the drift": drift_times(made, 0.5), "c forgotten": kept(made), "one late": before(made)}
        if rule is rules.subvp_euler_maruyama:
            mutants["noise of VP"] = rules.vp_euler_maruyama(schedule)
        # The published 1 - exp(-2 integral) cancels towards the data.
        conditions = [1 / -math.expm1(-2 * schedule.integral(t)) for t in times]
        return Chain(made, [marginal(t) for t in times], update, mutants, conditions)

    return make


def vp_sde(x, t, low, high):
    beta_t = low + t * (high - low)
    return -0.5 * beta_t * x, math.sqrt(beta_t)


def subvp_sde(x, t, low, high):
    beta_t = low + t * (high - low)
    discount = 1.0 - math.exp(-2 * low * t - (high - low) * t**2)
    return -0.5 * beta_t * x, math.sqrt(beta_t * discount)


VE = {
    "reverse diffusion": reverse_diffusion,
    "ancestral": ancestral,
    "probability flow": probability_flow,
    "consistent": consistent,
    "langevin": annealed("langevin", 1.0),
    "langevin at T": annealed("langevin", 0.5),
    "ou": annealed("ou", 1.0),
    "ou at T": annealed("ou", 0.5),
    "ald": ald,
    "euler_ancestral": k_diffusion(1.0, 1.0),
    "euler_ancestral, eta 0.4": k_diffusion(0.4, 1.1),
    "euler": k_diffusion(0.0, 1.0),
}
VP = {
    "vp reverse diffusion": vp_reverse,
    "vp probability flow": lambda betas: vp_reverse(betas, flow=True),
    "vp ancestral": vp_ancestral,
    "ddpm, fixed_small": ddpm("fixed_small"),
    "ddpm, fixed_large": ddpm("fixed_large"),
}
CONTINUOUS = {
    "vp euler-maruyama": sde(rules.vp_euler_maruyama, vp_sde, lambda mean: math.sqrt(1 - mean**2)),
    "subvp euler-maruyama": sde(rules.subvp_euler_maruyama, subvp_sde, lambda mean: 1 - mean**2),
    "subvp probability flow": sde(rules.subvp_probability_flow, subvp_sde, lambda mean: 1 - mean**2, flow=True),
}
UNEVEN = [3.0, 2.0, 0.9, 0.5, 0.25]
GEOMETRIC = fl.geometric_sigmas(4.0, 0.25, 5).tolist()
BETAS = [0.05, 0.1, 0.2, 0.35, 0.5]
SCHEDULE = LinearBeta(0.1, 4.0, 6, 0.1)

SHORT = {
    **{name: lambda make=make: make(UNEVEN) for name, make in VE.items()},
    "euler-maruyama": lambda: euler_maruyama(GEOMETRIC),
    **{name: lambda make=make: make(BETAS) for name, make in VP.items()},
    **{name: lambda make=make: make(SCHEDULE) for name, make in CONTINUOUS.items()},
}
PUBLISHED = fl.geometric_sigmas(50.0, 0.01, 232).tolist()
LONG = {
    **{name: lambda make=make: make(PUBLISHED) for name, make in VE.items()},
    "euler-maruyama": lambda: euler_maruyama(PUBLISHED),
    **{name: lambda make=make: make(LinearBeta().betas()) for name, make in VP.items()},
    **{name: lambda make=make: make(LinearBeta()) for name, make in CONTINUOUS.items()},
}


def farthest_from_published(chain, listed):
    """Largest distance of ``fl.step`` in fp64 from the published formula with the same noise, in its roundings."""
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for step, (c, a, b) in enumerate(listed):
        m, n = chain.perturbed[step]
        x = m * MU + math.sqrt(m**2 * S0**2 + n**2) * torch.randn(1, 16, dtype=torch.float64, generator=generator)
        score = chain.score(step, x)
        z = fl.randn(x.shape, seed=0, draw=step)
        ours = fl.step(x, score, c=c, a=a, b=b, noise=z, impl="reference")
        theirs = chain.published(step, x, score, z.double())
        # Ten or so operations, on numbers that are no larger than the terms, or than the state and its noise.
        condition = chain.conditions[step] if chain.conditions else 1.0
        size = max(1.0, c) * x.abs() + max(n**2, a) * score.abs() + max(n, b or 0.0) * z.abs()
        worst = max(worst, float(((ours - theirs).abs() / (EPS * condition * size)).max()))
    return worst


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("length", ["short", "long"])
def test_it_is_the_published_formula(name, length):
    chain = (SHORT if length == "short" else LONG)[name]()
    assert len(chain.rules) == len(chain.perturbed)
    assert farthest_from_published(chain, chain.rules) < 16
    for mutant in chain.mutants.values():
        assert farthest_from_published(chain, mutant) > 1e6


def worst_score(chain, listed):
    """Largest |z-score| of mean and variance after any update by the kernel."""
    mean, variance = chain.start()
    x = fl.randn((N // 64, 64), seed=1).mul_(math.sqrt(variance)).add_(mean)
    worst = 0.0
    for step, ((c, a, b), (mean, variance)) in enumerate(zip(listed, chain.law(), strict=True)):
        x = fl.step(x, chain.score(step, x), c=c, a=a, b=b, seed=2, draw=step)
        error = x.double() - mean
        # The state is Gaussian.
        worst = max(
            worst,
            abs(float(error.mean())) / math.sqrt(variance / N),
            abs(float((error**2).mean()) / variance - 1) / math.sqrt(2 / N),
        )
    return worst


@pytest.mark.parametrize("name", SHORT)
def test_the_kernel_follows_the_law(name):
    chain = SHORT[name]()
    assert worst_score(chain, chain.rules) < LIMIT
    for mutant, listed in chain.mutants.items():
        assert worst_score(chain, listed) > LIMIT, mutant
