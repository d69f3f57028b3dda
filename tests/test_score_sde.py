"""compat.score_sde against the published updates, written out here in fp64 with the noise of their addresses.

Every formula has mutants that the same comparison must refuse.
"""

import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin.compat import score_sde as sde_lib
from fastlangevin.noise import Purpose

EPS = 2.0**-53
N = 20
SHAPE = (5, 3, 2, 2)
# Times of five samples in one batch, so that a coefficient of one sample cannot stand for another's.
TIMES = torch.tensor([1.0, 0.7, 0.31, 1e-3, 1e-5], dtype=torch.float64)
SDES = {
    "ve": lambda n=N: sde_lib.VESDE(0.01, 50, n),
    "vp": lambda n=N: sde_lib.VPSDE(0.1, 15, n),
    "subvp": lambda n=N: sde_lib.subVPSDE(0.1, 15, n),
}
SEED, SNR = 7, 0.16


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wide(value):
    return value.reshape(-1, 1, 1, 1)


def state():
    return 2 * fl.randn(SHAPE, seed=1, dtype=torch.float64)


def score(x, t):
    return -x / (1 + wide(t)) + 0.3 * torch.sin(x)


def z(draw, shape=SHAPE, purpose=Purpose.LANGEVIN, seed=SEED, **options):
    return fl.randn(shape, seed=seed, draw=draw, purpose=purpose, dtype=torch.float64, **options)


def noise():
    return sde_lib.AddressedNoise(seed=SEED)


def agree(found, expected, terms):
    """To 400 roundings of the terms: some 10 operations, whose logarithms and differences enlarge theirs up to 40-fold.

    (ln 5000 = 8.5 by the exponential of sigma, and up to 2 more by sigma^2 - sigma'^2, which is 0.6 sigma^2 here.)
    """
    return bool(((found - expected).abs() <= 400 * EPS * terms).all())


# The published formulas in fp64, but for 1 - exp, published so, which would lose digits near t = 0; tables ascend.


def sigma_at(t):
    return 0.01 * (50 / 0.01) ** t


def beta_at(t):
    return 0.1 + t * 14.9


def log_mean(t):
    return -0.25 * t**2 * 14.9 - 0.5 * t * 0.1


def diffusion(kind, t):
    if kind == "ve":
        return sigma_at(t) * math.sqrt(2 * (math.log(50) - math.log(0.01)))
    share = -torch.expm1(-2 * 0.1 * t - 14.9 * t**2) if kind == "subvp" else 1.0
    return torch.sqrt(beta_at(t) * share)


def std_at(kind, t):
    if kind == "ve":
        return sigma_at(t)
    variance = -torch.expm1(2 * log_mean(t))
    return variance if kind == "subvp" else variance.sqrt()


SIGMAS = torch.exp(torch.linspace(math.log(0.01), math.log(50), N, dtype=torch.float64))
BETAS = torch.linspace(0.1 / N, 15 / N, N, dtype=torch.float64)


def place(t):
    return (t * (N - 1)).long()


def adjacent(index):
    return torch.where(index == 0, 0.0, SIGMAS[index - 1])


def euler(kind, x, t, s, z, flow=False):
    drift = torch.zeros_like(x) if kind == "ve" else -0.5 * wide(beta_at(t)) * x
    g = wide(diffusion(kind, t))
    drift = drift - g**2 * s * (0.5 if flow else 1.0)
    mean = x - drift / N
    return mean + (0 if flow else 1) * g / math.sqrt(N) * z, mean


def reverse_diffusion(kind, x, t, s, z, flow=False, index=place):
    if kind == "subvp":
        return euler(kind, x, t, s, z, flow)
    i = index(t)
    if kind == "ve":
        f, g = torch.zeros_like(x), wide(torch.sqrt(SIGMAS[i] ** 2 - adjacent(i) ** 2))
    else:
        f, g = wide(torch.sqrt(1 - BETAS[i])) * x - x, wide(torch.sqrt(BETAS[i]))
    mean = x - f + g**2 * s * (0.5 if flow else 1.0)
    return mean + (0 if flow else 1) * g * z, mean


def ancestral(kind, x, t, s, z, ratio=True):
    i = place(t)
    if kind == "ve":
        high, low = SIGMAS[i], adjacent(i)
        mean = x + s * wide(high**2 - low**2)
        return mean + wide(torch.sqrt((low**2 / high**2 if ratio else 1) * (high**2 - low**2))) * z, mean
    beta = wide(BETAS[i])
    mean = (x + beta * s) / torch.sqrt(1 - beta)
    return mean + torch.sqrt(beta) * z, mean


def langevin(kind, x, t, s, z, norm="batch", factor=2.0):
    alpha = torch.ones_like(t) if kind == "ve" else 1 - BETAS[place(t)]
    above, below = z.flatten(1).norm(dim=1), s.flatten(1).norm(dim=1)
    if norm == "sqrt_d":
        above = math.sqrt(s[0].numel())
    ratio = above.mean() / below.mean() if norm == "batch" else above / below
    size = wide((SNR * ratio) ** 2 * factor * alpha)
    mean = x + size * s
    return mean + torch.sqrt(size * 2) * z, mean


def ald(kind, x, t, s, z, factor=2.0):
    alpha = torch.ones_like(t) if kind == "ve" else 1 - BETAS[place(t)]
    size = wide((SNR * std_at(kind, t)) ** 2 * factor * alpha)
    mean = x + size * s
    return mean + torch.sqrt(size * 2) * z, mean


def compare(found, formula, kind, x, t=TIMES, draw=0, **options):
    """Whether state and mean are the formula's; the sizes of its terms from the formula itself."""
    s, drawn = score(x, t), z(draw)
    new, mean = formula(kind, x, t, s, drawn, **options)
    terms = x.abs() + (mean - x).abs() + s.abs() + (new - mean).abs()
    return agree(found[0], new, terms) and agree(found[1], mean, terms)


PREDICTORS = [
    ("euler_maruyama", "ve", euler),
    ("euler_maruyama", "vp", euler),
    ("euler_maruyama", "subvp", euler),
    ("reverse_diffusion", "ve", reverse_diffusion),
    ("reverse_diffusion", "vp", reverse_diffusion),
    ("reverse_diffusion", "subvp", reverse_diffusion),
    ("ancestral_sampling", "ve", ancestral),
    ("ancestral_sampling", "vp", ancestral),
]


@pytest.mark.parametrize(
    ("name", "kind", "formula"), PREDICTORS, ids=lambda value: str(getattr(value, "__name__", value))
)
def test_a_predictor_is_the_published_update(name, kind, formula):
    x, cls = state(), sde_lib.get_predictor(name)
    before = x.clone()
    predictor = cls(SDES[kind](), score, noise=noise())
    found = predictor.update_fn(x, TIMES)
    assert torch.equal(x, before)
    assert compare(found, formula, kind, x)
    assert compare(predictor.update_fn(x, TIMES), formula, kind, x, draw=1)  # each call has its own draw
    assert not compare(found, formula, kind, x, draw=1)
    wrong = cls(SDES[kind](), lambda x, t: -score(x, t), noise=noise()).update_fn(x, TIMES)
    assert not compare(wrong, formula, kind, x)
    if formula is ancestral and kind == "ve":
        assert not compare(found, formula, kind, x, ratio=False)
    if formula is reverse_diffusion and kind != "subvp":
        assert not compare(found, formula, kind, x, index=lambda t: (place(t) - 1).clamp(0))
    if formula is not ancestral:
        flow = cls(SDES[kind](), score, probability_flow=True, noise=noise()).update_fn(x, TIMES)
        assert compare(flow, formula, kind, x, flow=True)
        assert not compare(flow, formula, kind, x)


@pytest.mark.parametrize("kind", SDES)
@pytest.mark.parametrize("norm", ["batch", "sample", "sqrt_d"])
def test_the_langevin_corrector_is_the_published_update(kind, norm):
    x = state()
    options = {} if norm == "batch" else {"norm": norm}
    corrector = sde_lib.LangevinCorrector(SDES[kind](), score, SNR, 1, noise=noise(), **options)
    found = corrector.update_fn(x, TIMES)
    assert compare(found, langevin, kind, x, norm=norm)
    assert not compare(found, langevin, kind, x, norm=norm, factor=1.0)
    for other in {"batch", "sample", "sqrt_d"} - {norm}:
        assert not compare(found, langevin, kind, x, norm=other)


@pytest.mark.parametrize("kind", SDES)
def test_annealed_langevin_dynamics_is_the_published_update(kind):
    x = state()
    found = sde_lib.get_corrector("ald")(SDES[kind](), score, SNR, 1, noise=noise()).update_fn(x, TIMES)
    assert compare(found, ald, kind, x)
    assert not compare(found, ald, kind, x, factor=1.0)


@pytest.mark.parametrize("name", ["langevin", "ald"])
def test_steps_of_a_corrector_have_draws_of_their_own(name):
    x, formula = state(), {"langevin": langevin, "ald": ald}[name]
    found = sde_lib.get_corrector(name)(SDES["ve"](), score, SNR, 3, noise=noise()).update_fn(x, TIMES)
    for draw in range(2):
        x, _ = formula("ve", x, TIMES, score(x, TIMES), z(draw))
    assert compare(found, formula, "ve", x, draw=2)


def test_none_does_nothing():
    x = state()
    for made in (sde_lib.NonePredictor(SDES["ve"](), score), sde_lib.NoneCorrector(SDES["ve"](), score, -1, 0)):
        assert all(each is x for each in made.update_fn(x, TIMES))


@pytest.mark.parametrize("kind", SDES)
def test_marginals_diffusions_and_forward_steps(kind):
    sde, x = SDES[kind](), state()
    mean, std = sde.marginal_prob(x, TIMES)
    factor = torch.ones_like(TIMES) if kind == "ve" else torch.exp(log_mean(TIMES))
    torch.testing.assert_close(mean, wide(factor) * x, rtol=50 * EPS, atol=0)
    torch.testing.assert_close(std, std_at(kind, TIMES), rtol=50 * EPS, atol=0)
    drift, g = sde.sde(x, TIMES)
    torch.testing.assert_close(drift, torch.zeros_like(x) if kind == "ve" else -0.5 * wide(beta_at(TIMES)) * x)
    torch.testing.assert_close(g, diffusion(kind, TIMES), rtol=50 * EPS, atol=0)
    f, step = sde.discretize(x, TIMES)
    nothing = torch.zeros_like(x)
    new, mean = reverse_diffusion(kind, x, TIMES, nothing, nothing + 1)
    torch.testing.assert_close(x - f, mean, rtol=50 * EPS, atol=50 * EPS)
    torch.testing.assert_close(step, (new - mean)[:, 0, 0, 0], rtol=50 * EPS, atol=10 * EPS)
    if kind == "ve":
        assert torch.equal(sde.discrete_sigmas, sde.discrete_sigmas.sort().values)
        torch.testing.assert_close(sde.discrete_sigmas, SIGMAS.float())
    else:
        torch.testing.assert_close(sde.discrete_betas, BETAS.float())
    drawn = sde.prior_sampling(SHAPE, seed=SEED, dtype=torch.float64)
    expected = z(0, purpose=Purpose.INITIAL_STATE) * (50 if kind == "ve" else 1)
    torch.testing.assert_close(drawn, expected, rtol=EPS, atol=0)


@pytest.mark.parametrize("n", [232, 1000, 2311])
def test_a_time_a_rounding_below_its_place_has_that_place(n):
    times = torch.linspace(1, 0, n)
    expected = torch.arange(n - 1, -1, -1)
    below = torch.nextafter(times, torch.tensor(0.0))
    sde = SDES["ve"](n)
    assert torch.equal(sde.place(times), expected)
    assert torch.equal(sde.place(below), expected)
    assert not torch.equal((below.double() * (n - 1)).long(), expected)


def test_what_is_kept_as_published():
    """The last level of ``ald``, and the places of N = 2000 times down to 1e-3."""
    _, std = sde_lib.VESDE(0.01, 50).marginal_prob(state(), TIMES)
    assert f"{float(std[-1]) / 0.01:.6f}" == "1.000085"
    places = sde_lib.VPSDE(N=2000).place(torch.linspace(1, 1e-3, 2000))
    assert int(places.min()) == 1
    assert int(sde_lib.VPSDE(N=1000).place(torch.linspace(1, 1e-3, 1000)).min()) == 0


@pytest.mark.parametrize(
    ("kind", "continuous", "labels", "sign"),
    [
        ("ve", False, lambda t: torch.round((1 - t) * (N - 1)).long(), None),
        ("ve", True, sigma_at, None),
        ("vp", False, lambda t: t * (N - 1), lambda t: -1 / torch.sqrt(1 - torch.cumprod(1 - BETAS, 0)[place(t)])),
        ("vp", True, lambda t: t * 999, lambda t: -1 / std_at("vp", t)),
        ("subvp", True, lambda t: t * 999, lambda t: -1 / std_at("subvp", t)),
    ],
)
def test_networks_are_called_as_published(kind, continuous, labels, sign):
    seen = []

    def net(x, label):
        seen.append(label)
        return x.sin()

    x = state()
    found = sde_lib.get_score_fn(SDES[kind](), net, continuous=continuous)(x, TIMES)
    torch.testing.assert_close(seen[0], labels(TIMES), rtol=1e-13, atol=0)
    expected = x.sin() if sign is None else x.sin() * wide(sign(TIMES))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)  # 1 - cumprod at place 0
