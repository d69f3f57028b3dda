"""The denoising score matching loss against closed forms.

Statistical tolerances are six standard errors of the quantity, with the variance from the same closed form; each such
test has a twin, a mistake that it must catch.
"""

import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin import ops
from fastlangevin.losses import dsm_labels, dsm_loss
from fastlangevin.noise import Purpose
from tests.long import loss_law

SIGMAS = fl.geometric_sigmas(1.0, 0.01, 10)
BATCH, D = 20_000, 8


def zero(x, labels):
    return torch.zeros_like(x)


def standard_errors(values, mean, variance):
    """Distance of the sample mean from its expectation, in standard errors."""
    return abs(values.double().mean().item() - mean) / math.sqrt(variance / len(values))


def gaussian_data(mu, s):
    return mu + s * fl.randn((BATCH, D), seed=11, purpose=Purpose.USER)


def affine(b, c):
    """The score of N(b, c)."""
    return lambda x, labels: -(x - b) / c


def affine_loss(mu, s, b, c, sigma):
    """Mean and variance of a sample's loss for data N(mu, s^2): the residual is N(m, v) in each element."""
    m = -sigma / c * (mu - b)
    v = (sigma / c * s) ** 2 + (1 - sigma**2 / c) ** 2
    return D / 2 * (m * m + v), D / 4 * (2 * v * v + 4 * m * m * v)


def at_level(net, x, level, **options):
    labels = torch.full((len(x),), level)
    return dsm_loss(net, x, SIGMAS, seed=5, labels=labels, reduction="none", **options)


def test_zero_network_has_half_a_chi_square():
    values = dsm_loss(zero, torch.zeros(BATCH, 2, 4), SIGMAS, seed=0, reduction="none")
    k = D / 2
    assert values.shape == (BATCH,)
    assert standard_errors(values, k, k) < 6
    # Fourth central moment of Gamma(k, 1): 3 k^2 + 6 k.
    assert standard_errors((values - k).square(), k, 2 * k * k + 6 * k) < 6
    assert standard_errors(2 * values, k, k) > 6, "a loss without the 1/2 must be caught"
    assert standard_errors(values / D, k, k) > 6, "a mean over elements must be caught"


@pytest.mark.parametrize("level", [0, 3, 9])
@pytest.mark.parametrize(("mu", "s", "b", "c"), [(0.3, 0.7, 0.0, 1.0), (0.5, 0.2, 0.45, 0.05), (0.0, 1.0, 0.0, 5.0)])
def test_affine_score_has_its_expectation(level, mu, s, b, c):
    sigma = SIGMAS[level].item()
    mean, variance = affine_loss(mu, s, b, c, sigma)
    stated = 0.5 * sigma**2 * (((mu - b) ** 2 + s**2 + sigma**2) / c**2 - 2 / c + 1 / sigma**2)
    assert math.isclose(mean, D * stated, rel_tol=1e-12)
    assert standard_errors(at_level(affine(b, c), gaussian_data(mu, s), level), mean, variance) < 6


def test_affine_expectation_catches_mistakes():
    x, sigma = gaussian_data(0.3, 0.7), SIGMAS[0].item()
    mean, variance = affine_loss(0.3, 0.7, 0.0, 1.0, sigma)
    wrong_sign = at_level(lambda x, labels: x, x, 0)
    assert standard_errors(wrong_sign, mean, variance) > 6
    neighbour = at_level(affine(0.0, 1.0), x, 1)
    assert standard_errors(neighbour, mean, variance) > 6, "the noise of another level must be caught"
    weighted_twice = at_level(affine(0.0, 1.0), x, 1) * SIGMAS[1].item() ** 2
    mean, variance = affine_loss(0.3, 0.7, 0.0, 1.0, SIGMAS[1].item())
    assert standard_errors(weighted_twice, mean, variance) > 6


@pytest.mark.parametrize("level", [0, 4, 9])
def test_true_score_reaches_the_floor(level):
    mu, s, sigma = 0.4, 0.3, SIGMAS[level].item()
    c = s**2 + sigma**2
    floor, variance = affine_loss(mu, s, mu, c, sigma)
    assert math.isclose(floor, D * 0.5 * s**2 / c, rel_tol=1e-12)
    assert standard_errors(at_level(affine(mu, c), gaussian_data(mu, s), level), floor, variance) < 6


@pytest.mark.parametrize("error", [0.5, 2.0])
def test_other_scores_are_above_the_floor(error):
    mu, s, sigma = 0.4, 0.3, SIGMAS[3].item()
    c = s**2 + sigma**2
    x = gaussian_data(mu, s)
    best, other = at_level(affine(mu, c), x, 3), at_level(affine(mu, c * error), x, 3)
    gain = (other - best).double()
    assert gain.mean() > 6 * gain.std() / math.sqrt(BATCH)


def test_the_harness_of_the_closed_forms():
    """tests.long.loss_law in a short form: 0.1 % of the noise shows beyond 2 x 10^7 elements only."""
    for net in loss_law.NETWORKS.values():
        assert loss_law.worst(loss_law.distances(net, 200_000)) < loss_law.LIMIT
    for name, mistake in loss_law.MISTAKES.items():
        found = max(loss_law.worst(loss_law.distances(net, 200_000, mistake)) for net in loss_law.NETWORKS.values())
        assert (found > loss_law.LIMIT) == (name != "noise 0.1% too large"), name


def test_is_the_literal_objective_and_its_gradient():
    x = fl.rand((16, 1, 4, 4), seed=1, dtype=torch.float64)
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def net(x, labels):
        return torch.sin(weight * x) * (labels.reshape(-1, 1, 1, 1) + 1)

    loss = dsm_loss(net, x, SIGMAS, seed=3, step=17)
    labels = dsm_labels(16, 10, seed=3, step=17)
    z = fl.randn(x.shape, seed=3, draw=17, purpose=Purpose.DSM_NOISE, dtype=torch.float64)
    sigma = SIGMAS[labels].reshape(-1, 1, 1, 1)
    literal = (0.5 * sigma**2 * (net(x + sigma * z, labels) + z / sigma) ** 2).sum() / 16
    torch.testing.assert_close(loss, literal, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(loss, weight)[0], torch.autograd.grad(literal, weight)[0], rtol=1e-12, atol=0
    )


def test_reductions_agree():
    x = fl.rand((12, 5), seed=1)
    values = dsm_loss(zero, x, SIGMAS, seed=0, reduction="none")
    # Twelve positive numbers added in another order, and a product with 1/12 for a division: 6 roundings of 2^-24.
    torch.testing.assert_close(dsm_loss(zero, x, SIGMAS, seed=0), values.mean(), rtol=6 * 2.0**-24, atol=0)
    torch.testing.assert_close(
        dsm_loss(zero, x, SIGMAS, seed=0, reduction="sum"), values.sum(), rtol=4 * 2.0**-24, atol=0
    )


def test_a_sample_does_not_depend_on_its_batch():
    x = fl.rand((10, 3, 2), seed=1)

    def values(rows, **options):
        return dsm_loss(affine(0.1, 2.0), x[rows], SIGMAS, seed=9, step=4, reduction="none", **options)

    whole = values(slice(None))
    assert torch.equal(torch.cat([values(slice(0, 4)), values(slice(4, 10), sample_offset=4)]), whole)
    order = torch.tensor([7, 2, 9])
    assert torch.equal(values(order, sample_ids=order), whole[order])
    assert not torch.equal(values(order), whole[order]), "samples without their ids have other noise"


def test_step_and_seed_change_the_noise():
    x = fl.rand((64, 6), seed=1)

    def values(**options):
        return dsm_loss(zero, x, SIGMAS, reduction="none", **options)

    first = values(seed=0, step=0)
    assert torch.equal(first, values(seed=0, step=torch.tensor(0)))
    assert not torch.equal(first, values(seed=0, step=1))
    assert not torch.equal(first, values(seed=1, step=0))


def test_generator_and_manual_seed_govern():
    x = fl.rand((8, 6), seed=1)
    torch.manual_seed(3)
    first = dsm_loss(zero, x, SIGMAS)
    torch.manual_seed(3)
    assert torch.equal(dsm_loss(zero, x, SIGMAS), first)
    assert not torch.equal(dsm_loss(zero, x, SIGMAS), first)
    assert torch.equal(dsm_loss(zero, x, SIGMAS, generator=torch.Generator().manual_seed(3)), first)


def chi_square(labels, levels):
    expected = len(labels) / levels
    return ((torch.bincount(labels, minlength=levels) - expected) ** 2 / expected).sum().item()


def test_levels_are_uniform():
    labels = dsm_labels(BATCH, 10, seed=2)
    limit = 9 + 6 * math.sqrt(18)  # mean and six standard deviations of chi^2 with 9 degrees of freedom
    assert labels.dtype == torch.int64
    assert chi_square(labels, 10) < limit
    assert chi_square(labels.clamp(max=8), 10) > limit, "a level that is never drawn must be caught"


@pytest.mark.parametrize("levels", [1, 2, 7, 10, 2311, 2**23 - 1, 2**23])
def test_levels_stay_in_the_ladder_at_the_ends(levels, monkeypatch):
    ends = torch.tensor([[2.0**-24], [1 - 2.0**-24]])
    monkeypatch.setattr(ops, "rand", lambda *_, **__: ends)
    assert dsm_labels(2, levels, seed=0).tolist() == [0, levels - 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    seen = []

    def net(x, labels):
        seen.append(x.dtype)
        return -x

    x = fl.rand((32, 6), seed=1).to(dtype)
    value = dsm_loss(net, x, SIGMAS, seed=0, reduction="none")
    assert seen == [dtype]
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    given = []

    def exactly(perturbed, labels):
        given.append((perturbed, SIGMAS[labels][:, None]))
        return -perturbed

    exact = dsm_loss(exactly, x.double(), SIGMAS, seed=0, reduction="none")
    ((perturbed, sigma),) = given
    z = (perturbed - x.double()) / sigma
    residual = (z - sigma * perturbed).abs()
    # What the network is given is rounded to the dtype, by u, and moves the residual r by sigma times that, the value
    # by its product with r; a square of it is below a hundredth. The ladder and each of the dozen operations of a value
    # are rounded to fp32.
    u = torch.finfo(dtype).eps / 2
    size = z.abs() + (sigma * perturbed).abs()
    bound = 1.01 * u * (sigma * perturbed.abs() * residual).sum(1) + 12 * 2.0**-24 * (size * (size + residual)).sum(1)
    assert ((value.double() - exact).abs() <= bound).all()
    if dtype.itemsize == 2:
        assert ((value.to(dtype).double() - exact).abs() > bound).any(), "values in the network's dtype are seen"


def test_inputs_are_left_alone():
    x, sigmas = fl.rand((4, 3), seed=1), SIGMAS.clone()
    copy = x.clone()
    dsm_loss(zero, x, sigmas, seed=0)
    assert torch.equal(x, copy)
    assert torch.equal(sigmas, SIGMAS)


X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"net": 3}, TypeError, "net must be callable"),
        ({"x": torch.zeros(4, 3, dtype=torch.uint8)}, TypeError, "x must be float32.*got torch.uint8"),
        ({"x": [[1.0]]}, TypeError, "x must be a torch.Tensor, got list"),
        ({"x": torch.zeros(4)}, ValueError, r"x must be a batch \(B, \*\)"),
        ({"x": torch.zeros(0, 3)}, ValueError, "at least one sample"),
        ({"sigmas": torch.zeros(2, 2)}, ValueError, "sigmas must be one-dimensional"),
        ({"sigmas": [1.0, -1.0]}, ValueError, "sigmas"),
        ({"sigmas": []}, ValueError, "sigmas must have at least one"),
        ({"labels": torch.tensor([0, 1, 2, 10])}, ValueError, "labels must be from 0 .* to 9, got 10"),
        ({"labels": torch.tensor([0, 1, 2, -1])}, ValueError, "got -1"),
        ({"labels": torch.tensor([0, 1])}, ValueError, "one level for each sample"),
        ({"labels": torch.zeros(4)}, TypeError, "labels must be an int64 tensor"),
        ({"reduction": "avg"}, ValueError, "reduction must be 'mean', 'sum' or 'none', got 'avg'"),
        ({"net": lambda x, labels: x[:, :1]}, ValueError, r"net must return a score of the shape of x, \(4, 3\)"),
        ({"net": lambda x, labels: (x, x)}, ValueError, "got tuple"),
        ({"seed": -1}, ValueError, "seed must be from 0"),
        ({"step": -1}, ValueError, "step must be from 0"),
        ({"generator": torch.Generator()}, ValueError, "seed= or generator="),
    ],
)
def test_errors_name_the_argument(changes, error, message):
    arguments = {"net": zero, "x": X, "sigmas": SIGMAS, "seed": 0, **changes}
    with pytest.raises(error, match=message):
        dsm_loss(arguments.pop("net"), arguments.pop("x"), arguments.pop("sigmas"), **arguments)


def test_an_objective_follows_a_change_of_its_output():
    x = fl.randn((4, 3), seed=1)
    objective = fl.DenoisingScoreMatching(SIGMAS)
    for output in ("score", "noise", "scaled", "denoised", "score"):
        objective.output = output
        fresh = fl.DenoisingScoreMatching(SIGMAS, output=output)
        assert torch.equal(*(each(lambda x, labels: 0.5 * x, x, seed=2) for each in (objective, fresh)))
