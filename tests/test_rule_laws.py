"""What the rules claim, in closed form: the width after a step, the width that stays, the limit of many steps.

Everything here is fp64 arithmetic on the coefficients; that the kernel follows them is in test_rules.py.
"""

import math
from itertools import pairwise

import pytest
import torch

import fastlangevin as fl
from fastlangevin import rules
from fastlangevin.rules import Coefficients, LinearBeta

LADDER = [3.0, 2.0, 0.9, 0.5, 0.25]
AFTER = [*LADDER[1:], 0.0]
BETAS = [0.05, 0.1, 0.2, 0.35, 0.5]
BARS = rules.alpha_bars(BETAS)
DOWN, BARS_DOWN = BETAS[::-1], BARS[::-1]
BARS_AFTER = [*BARS_DOWN[1:], 1.0]
SCHEDULE = LinearBeta(0.1, 4.0, 6, 0.1)
RATES = [(SCHEDULE.rate(t) / 6, SCHEDULE.alpha_bar(t)) for t in SCHEDULE.times()]

POINT = [sigma**2 for sigma in LADDER]  # variance of the noise alone: the data are one point
VP_POINT = [1 - bar for bar in BARS_DOWN]
SUBVP_POINT = [(1 - bar) ** 2 for _, bar in RATES]
UNIT = [1.0] * len(BETAS)  # data N(0, 1) under VP noise


def after_each(listed, perturbed, starts):
    """Variance after each single step from ``starts``, the score being that of N(., perturbed)."""
    return [
        (c - a / v) ** 2 * start + (b or 0.0) ** 2
        for (c, a, b), v, start in zip(listed, perturbed, starts, strict=True)
    ]


def chain(listed, perturbed, variance):
    law = []
    for rule, v in zip(listed, perturbed, strict=True):
        (variance,) = after_each([rule], [v], [variance])
        law.append(variance)
    return law


def roots(betas):
    return [math.sqrt(1 - beta) for beta in betas]


ETA = 0.7
CAS = 2 * ETA * LADDER[-1] ** 2
GEOMETRIC = fl.geometric_sigmas(4.0, 0.25, 5).tolist()
K = 2 * math.log(16.0) / 5

# rule, its coefficients, the perturbed variances, the law after each step from those, a rule that has another law
ONE_STEP = [
    (
        "ve_reverse_diffusion",
        rules.ve_reverse_diffusion(LADDER),
        POINT,
        [low**2 + (high**2 - low**2) * (1 - low**2 / high**2) for high, low in zip(LADDER, AFTER, strict=True)],
        rules.ve_ancestral(LADDER),
    ),
    (
        "ve_probability_flow",
        rules.ve_probability_flow(LADDER),
        POINT,
        [((high**2 + low**2) / (2 * high)) ** 2 for high, low in zip(LADDER, AFTER, strict=True)],
        rules.euler_ancestral(LADDER, eta=0.0),
    ),
    (
        "ve_euler_maruyama",
        rules.ve_euler_maruyama(GEOMETRIC),
        [sigma**2 for sigma in GEOMETRIC],
        [sigma**2 * (1 - K + K**2) for sigma in GEOMETRIC],
        rules.ve_reverse_diffusion(GEOMETRIC),
    ),
    (
        "vp_reverse_diffusion",
        rules.vp_reverse_diffusion(BETAS),
        UNIT,
        [(1 - r + r**2) ** 2 + 1 - r**2 for r in roots(DOWN)],
        rules.vp_ancestral(BETAS),
    ),
    (
        "vp_probability_flow",
        rules.vp_probability_flow(BETAS),
        UNIT,
        [(1 + (1 - r) ** 2 / 2) ** 2 for r in roots(DOWN)],
        [rule._replace(c=1 + rule.a) for rule in rules.vp_probability_flow(BETAS)],
    ),
    (
        "vp_euler_maruyama",
        rules.vp_euler_maruyama(SCHEDULE),
        [1.0] * 6,
        [1 + (beta / 2) ** 2 for beta, _ in RATES],
        rules.subvp_euler_maruyama(SCHEDULE),
    ),
    (
        "subvp_euler_maruyama",
        rules.subvp_euler_maruyama(SCHEDULE),
        SUBVP_POINT,
        [(1 - bar + beta / 2 * (1 - bar) - beta * (1 + bar)) ** 2 + beta * (1 - bar**2) for beta, bar in RATES],
        rules.vp_euler_maruyama(SCHEDULE),
    ),
    (
        # The standard deviation 1 - alpha_bar changes by beta alpha_bar in a unit of time.
        "subvp_probability_flow",
        rules.subvp_probability_flow(SCHEDULE),
        SUBVP_POINT,
        [(1 - bar - beta * bar) ** 2 for beta, bar in RATES],
        [rule._replace(a=rule.a * 2) for rule in rules.subvp_probability_flow(SCHEDULE)],
    ),
]


@pytest.mark.parametrize(
    ("listed", "perturbed", "law", "other"), [row[1:] for row in ONE_STEP], ids=next(zip(*ONE_STEP, strict=True))
)
def test_one_step_from_the_perturbed_data(listed, perturbed, law, other):
    assert after_each(listed, perturbed, perturbed) == pytest.approx(law, rel=1e-12)
    assert after_each(other, perturbed, perturbed) != pytest.approx(law, rel=1e-3)


# rule, its coefficients, the perturbed variances, the exact law after each step of a chain from the first, a mutant
EXACT = [
    ("ve_ancestral", rules.ve_ancestral(LADDER), POINT, [low**2 for low in AFTER], rules.ve_reverse_diffusion(LADDER)),
    *(
        (
            f"euler_ancestral, eta {eta}",
            rules.euler_ancestral(LADDER, eta),
            POINT,
            [low**2 for low in AFTER],
            rules.euler_ancestral(LADDER, eta, s_noise=1.1) if eta else rules.ve_probability_flow(LADDER),
        )
        # Above 1 the noise is cut at the width of the next level.
        for eta in (0.0, 0.5, 1.0, 3.0)
    ),
    (
        "consistent",
        rules.consistent(LADDER, CAS),
        POINT,
        [*(low**2 for low in AFTER[:-1]), (1 - ETA) ** 2 * LADDER[-1] ** 2],
        rules.consistent(LADDER, 1.1 * CAS),
    ),
    (
        "vp_ancestral",
        rules.vp_ancestral(BETAS),
        UNIT,
        UNIT,
        rules.vp_reverse_diffusion(BETAS),
    ),
    (
        "ddpm_ancestral, fixed_large",
        rules.ddpm_ancestral(BETAS, "fixed_large"),
        UNIT,
        [*UNIT[:-1], 1 - BETAS[0]],
        rules.ddpm_ancestral(BETAS, "fixed_small"),
    ),
    (
        "ddpm_ancestral, fixed_small",
        rules.ddpm_ancestral(BETAS, "fixed_small"),
        VP_POINT,
        [1 - bar for bar in BARS_AFTER],
        rules.ddpm_ancestral(BETAS, "fixed_large"),
    ),
]


@pytest.mark.parametrize(
    ("listed", "perturbed", "law", "other"), [row[1:] for row in EXACT], ids=next(zip(*EXACT, strict=True))
)
def test_every_step_is_exact(listed, perturbed, law, other):
    assert chain(listed, perturbed, perturbed[0]) == pytest.approx(law, rel=1e-12, abs=1e-14)
    assert chain(other, perturbed, perturbed[0]) != pytest.approx(law, rel=1e-3, abs=1e-14)


SIGMA = 0.7
STATIONARY = [
    # rule, perturbed variance, the variance it leaves as it is, a mutant
    ("langevin", rules.langevin(0.3), 0.49, 0.49 / (1 - 0.3 / (4 * 0.49)), rules.langevin(0.6)),
    (
        "langevin at T",
        rules.langevin(0.3, temperature=0.25),
        0.49,
        0.25 * 0.49 / (1 - 0.3 / (4 * 0.49)),
        rules.langevin(0.3, temperature=0.25**2),
    ),
    ("ou", rules.ornstein_uhlenbeck(0.3, SIGMA), 0.49, 0.49, rules.langevin(0.3)),
    (
        "ou at T",
        rules.ornstein_uhlenbeck(0.3, SIGMA, temperature=2.0),
        0.49,
        2 * 0.49,
        rules.ornstein_uhlenbeck(0.3, SIGMA, temperature=1.9),
    ),
    (
        "signal_to_noise",
        rules.signal_to_noise(0.5, SIGMA, alpha=0.9),
        0.49,
        0.49 / (1 - 0.9 * 0.5**2),
        rules.signal_to_noise(0.5, SIGMA),
    ),
    (
        "annealed_corrector",
        rules.annealed_corrector(0.3, SIGMA),
        0.49,
        0.49 / (1 - 0.3**2),
        rules.annealed_corrector(0.25, SIGMA),
    ),
]


@pytest.mark.parametrize(
    ("rule", "perturbed", "stationary", "other"),
    [row[1:] for row in STATIONARY],
    ids=next(zip(*STATIONARY, strict=True)),
)
def test_what_stays_as_it_is(rule, perturbed, stationary, other):
    assert after_each([rule], [perturbed], [stationary]) == pytest.approx([stationary], rel=1e-12)
    assert after_each([other], [perturbed], [stationary]) != pytest.approx([stationary], rel=1e-3)


MU, S0 = 0.5, 0.3


@pytest.mark.parametrize(
    ("rule", "m", "n"), [(rules.denoise(0.4), 1.0, 0.4), (rules.vp_denoise(0.6), math.sqrt(0.6), math.sqrt(0.4))]
)
def test_denoise_steps_give_the_posterior_mean(rule, m, n):
    """Of N(m mu, v), v = m^2 s0^2 + n^2: the posterior mean is N(mu, m^2 s0^4/v)."""

    def law(c, a, b):
        mean, v = m * MU, m**2 * S0**2 + n**2
        return c * mean, *after_each([Coefficients(c, a, b)], [v], [v])

    expected = MU, m**2 * S0**4 / (m**2 * S0**2 + n**2)
    assert rule.b is None
    assert law(*rule) == pytest.approx(expected, rel=1e-12)
    for mutant in (rule._replace(a=1.01 * rule.a), rule._replace(c=1.01 * rule.c), rule._replace(b=0.01)):
        assert law(*mutant) != pytest.approx(expected, rel=1e-4)


def end_of(listed, perturbed):
    """Mean and variance at the end of a chain from the perturbed data, which are N(m mu, m^2 s0^2 + n^2)."""
    mean, variance = None, None
    for (c, a, b), (m, n) in zip(listed, perturbed, strict=True):
        v = m**2 * S0**2 + n**2
        if mean is None:
            mean, variance = m * MU, v
        mean = (c - a / v) * mean + a / v * m * MU
        variance = (c - a / v) ** 2 * variance + (b or 0.0) ** 2
    return mean, variance


def ve(rule):
    def at(count):
        ladder = fl.geometric_sigmas(5.0, 0.1, count).tolist()
        listed, perturbed = rule(ladder), [(1.0, sigma) for sigma in ladder]
        # The last step, down to zero, does not become short.
        last = None if rule is rules.ve_euler_maruyama else -1
        return end_of(listed[:last], perturbed[:last]), (MU, S0**2 + 0.1**2)

    return at


def vp(rule):
    def at(count):
        betas = LinearBeta(0.1, 8.0, count).betas()
        perturbed = [(math.sqrt(bar), math.sqrt(1 - bar)) for bar in rules.alpha_bars(betas)[::-1]]
        return end_of(rule(betas), perturbed), (MU, S0**2)

    return at


def continuous(rule, std):
    def at(count):
        schedule = LinearBeta(0.1, 8.0, count, 1 / count)
        bars = [schedule.alpha_bar(t) for t in schedule.times()]
        return end_of(rule(schedule), [(math.sqrt(bar), std(bar)) for bar in bars]), (MU, S0**2)

    return at


def vp_std(bar):
    return math.sqrt(1 - bar)


def subvp_std(bar):
    return 1 - bar


SDES = {
    "ve_reverse_diffusion": ve(rules.ve_reverse_diffusion),
    "ve_ancestral": ve(rules.ve_ancestral),
    "ve_probability_flow": ve(rules.ve_probability_flow),
    "ve_euler_maruyama": ve(rules.ve_euler_maruyama),
    "euler_ancestral": ve(lambda ladder: rules.euler_ancestral(ladder, eta=0.5)),
    "vp_reverse_diffusion": vp(rules.vp_reverse_diffusion),
    "vp_ancestral": vp(rules.vp_ancestral),
    "vp_probability_flow": vp(rules.vp_probability_flow),
    "ddpm_ancestral, fixed_small": vp(lambda betas: rules.ddpm_ancestral(betas, "fixed_small")),
    "ddpm_ancestral, fixed_large": vp(lambda betas: rules.ddpm_ancestral(betas, "fixed_large")),
    "vp_euler_maruyama": continuous(rules.vp_euler_maruyama, vp_std),
    "subvp_euler_maruyama": continuous(rules.subvp_euler_maruyama, subvp_std),
    "subvp_probability_flow": continuous(rules.subvp_probability_flow, subvp_std),
}


def error(at, count):
    (_, found), (_, wanted) = at(count)
    return abs(found - wanted)


@pytest.mark.parametrize("name", SDES)
def test_many_small_steps_end_at_the_data(name):
    """Half the step, half the error of the variance: all are of the first order, and none aims at something else."""
    at = SDES[name]
    assert error(at, 4000) < 2e-3
    assert 1.9 < error(at, 2000) / error(at, 4000) < 2.1
    (mean, _), (wanted, _) = at(4000)
    assert mean == pytest.approx(wanted, abs=2e-3)


def longer(part):
    """One coefficient's step 1 % too long."""

    def change(c, a, b):
        if part == "c":
            return Coefficients(1 + (c - 1) * 1.01, a, b)
        return Coefficients(c, a * 1.01, b) if part == "a" else Coefficients(c, a, b * 1.01)

    return change


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (name, part)
        for name in SDES
        for part in "cab"
        if not (part == "c" and name.startswith(("ve", "euler"))) and not (part == "b" and "flow" in name)
    ],
)
def test_a_wrong_coefficient_ends_elsewhere(monkeypatch, name, part):
    right = end_of

    def wrong(listed, perturbed):
        return right([longer(part)(*rule) if part != "b" or rule.b else rule for rule in listed], perturbed)

    monkeypatch.setitem(globals(), "end_of", wrong)
    assert not 1.9 < error(SDES[name], 2000) / error(SDES[name], 4000) < 2.1


def test_ancestral_sampling_by_three_names():
    """k-diffusion's with eta = 1 is score_sde's, whose VP one is DDPM's with the large variance but for the end."""
    for one, two in zip(rules.euler_ancestral(LADDER), rules.ve_ancestral(LADDER), strict=True):
        assert [each or 0.0 for each in one] == pytest.approx([each or 0.0 for each in two], rel=1e-12)
    vp_rules, ddpm_rules = rules.vp_ancestral(BETAS), rules.ddpm_ancestral(BETAS, "fixed_large")
    assert vp_rules[:-1] == ddpm_rules[:-1]
    assert vp_rules[-1]._replace(b=None) == ddpm_rules[-1]


def test_last_updates_are_denoise_steps():
    last = rules.denoise(LADDER[-1])
    assert rules.ve_ancestral(LADDER)[-1] == last
    assert rules.euler_ancestral(LADDER)[-1] == last
    assert rules.ve_reverse_diffusion(LADDER)[-1]._replace(b=None) == last
    (c, a, b), denoise = rules.ddpm_ancestral(BETAS)[-1], rules.vp_denoise(BARS[0])
    assert b is denoise.b is None
    assert (c, a) == pytest.approx(denoise[:2], rel=1e-12)


def test_temperature_one_changes_no_bit():
    sigmas, epsilon = fl.geometric_sigmas(1.0, 0.01, 10).tolist(), 2e-5
    alphas = [epsilon * (sigma / sigmas[-1]) ** 2 for sigma in sigmas]
    plain = [Coefficients(1.0, alpha / 2, math.sqrt(alpha)) for alpha in alphas]
    assert rules.annealed(sigmas, epsilon) == plain == rules.annealed(sigmas, epsilon, temperature=1.0)
    assert rules.annealed(sigmas, epsilon, "ou") == rules.annealed(sigmas, epsilon, "ou", 1.0)
    assert all(
        hot.b > cold.b
        for hot, cold in zip(
            rules.annealed(sigmas, epsilon, "ou", 1.1), rules.annealed(sigmas, epsilon, "ou"), strict=True
        )
    )


def test_at_zero_temperature_there_is_no_noise():
    for rule in (*rules.annealed(LADDER, 0.01, temperature=0), *rules.annealed(LADDER, 0.01, "ou", 0.0)):
        assert rule.b is None
    assert [rule.b for rule in rules.euler_ancestral(LADDER, s_noise=0)] == [None] * 5


def test_golden_width_of_consistent_annealed_sampling():
    """NCSNv2's ladder for CIFAR-10, eta = 0.056: the width of every level exactly, and 1 - eta of the last."""
    sigmas = fl.geometric_sigmas(50.0, 0.01, 232).tolist()
    law = chain(rules.consistent(sigmas, 2 * 0.056 * 0.01**2), [sigma**2 for sigma in sigmas], 50.0**2)
    assert [math.sqrt(variance) for variance in law[:-1]] == pytest.approx(sigmas[1:], rel=1e-12)
    assert math.sqrt(law[-1]) / sigmas[-1] == pytest.approx(0.9440, abs=5e-13)
    ladder, plain = [sigma**2 for sigma in sigmas], rules.annealed(sigmas, 2 * 0.056 * 0.01**2)
    assert chain(plain, ladder, 50.0**2)[:-1] != pytest.approx([sigma**2 for sigma in sigmas[1:]], rel=1e-3)


@pytest.mark.parametrize("ladder", [[1.0, 0.5], [1.0, 0.5, 0.25]])
def test_consistent_sampling_at_the_ends_of_its_range(ladder):
    """eta = 1 - gamma needs no noise; a little less is refused, as is a little more than 1 + gamma."""
    unit = 2 * ladder[-1] ** 2
    for eta in (0.5, 1.5):
        assert [rule.b for rule in rules.consistent(ladder, eta * unit)] == [None] * len(ladder)
    for eta in (0.499, 1.501):
        with pytest.raises(ValueError, match="gamma"):
            rules.consistent(ladder, eta * unit)


@pytest.mark.parametrize(
    ("sigma_1", "levels", "step_lr", "printed"),
    [(1.0, 10, 2e-5, 0.3162), (50.0, 232, 6.2e-6, 0.1761), (90.0, 500, 3.3e-6, 0.1285), (190.0, 1086, 1.8e-6, 0.0949)],
)
def test_score_sde_reproduces_ncsn_with_its_signal_to_noise_ratio(sigma_1, levels, step_lr, printed):
    """snr = sqrt(step_lr/2)/sigma_L in the published configurations, of the code's convention and not the paper's."""
    sigmas = fl.geometric_sigmas(sigma_1, 0.01, levels).tolist()
    snr = math.sqrt(step_lr / 2) / 0.01
    assert snr == pytest.approx(printed, abs=5e-5)
    for ours, theirs in zip(
        rules.annealed(sigmas, rules.step_size(None, step_lr)),
        [rules.annealed_corrector(snr, sigma) for sigma in sigmas],
        strict=True,
    ):
        assert ours == pytest.approx(theirs, rel=1e-12)
    assert rules.annealed(sigmas, step_lr)[0].a != pytest.approx(theirs.a, rel=1e-3)


def test_the_schedule_of_betas():
    schedule = LinearBeta()
    betas = schedule.betas()
    assert len(betas) == 1000
    assert betas[0] == pytest.approx(1e-4, rel=1e-15)
    assert betas[-1] == pytest.approx(0.02, rel=1e-15)
    gaps = [high - low for low, high in pairwise(betas)]
    assert gaps == pytest.approx([0.0199 / 999] * 999, rel=1e-9)
    times = schedule.times()
    assert (times[0], times[-1]) == (1.0, pytest.approx(1e-3, rel=1e-12))
    assert [low - high for high, low in pairwise(times)] == pytest.approx([-1e-3] * 999, rel=1e-9)
    # score_sde's marginal: the data's factor is exp(-1/4 t^2 (beta_max - beta_min) - 1/2 t beta_min).
    for t in (0.0, 1e-3, 0.3, 1.0):
        assert math.sqrt(schedule.alpha_bar(t)) == pytest.approx(math.exp(-0.25 * t**2 * 19.9 - 0.05 * t), rel=1e-14)
    # The integral has the rate as its derivative.
    assert (schedule.integral(0.5 + 1e-6) - schedule.integral(0.5 - 1e-6)) / 2e-6 == pytest.approx(schedule.rate(0.5))
    # Single steps and continuous time agree to the first order in 1/N.
    bars = rules.alpha_bars(LinearBeta(0.1, 8.0, 10_000).betas())
    assert bars[-1] == pytest.approx(LinearBeta(0.1, 8.0, 10_000).alpha_bar(1.0), rel=3e-3)
    assert bars[:2] == pytest.approx([1 - 1e-5, (1 - 1e-5) ** 2], rel=1e-6)


def test_ladders_and_schedules_of_any_kind_are_taken():
    tensor = torch.tensor(LADDER, dtype=torch.float64)
    assert rules.ve_ancestral(tensor) == rules.ve_ancestral(iter(LADDER)) == rules.ve_ancestral(LADDER)
    assert rules.euler_ancestral(torch.cat([tensor, tensor.new_zeros(1)])) == rules.euler_ancestral(iter(LADDER))
    assert rules.ddpm_ancestral(iter(BETAS)) == rules.ddpm_ancestral(BETAS)
    assert rules.ddpm_ancestral(torch.tensor(BETAS, dtype=torch.float64)) == rules.ddpm_ancestral(tuple(BETAS))
    assert len(rules.ve_euler_maruyama([1.0, 0.5])) == 2
    # Only a schedule that descends all the way is upside down.
    for betas in ([0.1], [0.1, 0.1], [0.3, 0.1, 0.2]):
        assert [rule.a for rule in rules.vp_reverse_diffusion(betas)] == betas[::-1]
    with pytest.raises(ValueError, match="beta_1"):
        rules.vp_reverse_diffusion([0.2, 0.1])
    # fp32 as well, whose rounding a geometric ladder survives.
    single = rules.ve_euler_maruyama(fl.geometric_sigmas(1348.0, 0.01, 2000).float())
    assert single[7].a == pytest.approx(rules.ve_euler_maruyama(fl.geometric_sigmas(1348.0, 0.01, 2000))[7].a, rel=1e-6)
    logs = torch.linspace(math.log(1348.0), math.log(0.01), 2000)
    assert len(rules.ve_euler_maruyama(logs.exp())) == 2000
