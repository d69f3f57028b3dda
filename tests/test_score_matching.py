"""Explicit, implicit, sliced and controlled score matching against closed forms on Gaussians.

A statistical limit is five standard errors, or the mean and six standard deviations of a chi-square; each such test has
a twin, a mistake that it must catch.
"""

import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin.losses.controlled import controlled_dsm_loss
from fastlangevin.losses.dsm import dsm_labels, dsm_loss
from fastlangevin.losses.explicit import esm_loss
from fastlangevin.losses.implicit import ism_loss
from fastlangevin.losses.projections import projection_vectors
from fastlangevin.losses.single import single_dsm_loss
from fastlangevin.losses.sliced import annealed_ssm_loss, ssm_loss
from fastlangevin.noise import Purpose

KINDS = ["rademacher", "gaussian", "sphere"]
SIGMAS = fl.geometric_sigmas(1.0, 0.1, 4)
D = 4


def normals(*shape, seed=11, dtype=torch.float64):
    return fl.randn(shape, seed=seed, purpose=Purpose.USER, dtype=dtype)


X = normals(6, 2, 2)
MATRIX = normals(D, D, seed=1)
SHIFT = normals(D, seed=2)


def affine(x, matrix=MATRIX):
    return (x.flatten(1) @ matrix.T.to(x.dtype) + SHIFT.to(x.dtype)).reshape(x.shape)


def tanh_net():
    """Parameters and a nonlinear score (x, labels, *parameters) of images (B, 2, 2) in fp64."""
    parameters = [(0.5 * normals(D, D, seed=seed)).requires_grad_() for seed in (3, 4)]

    def net(x, labels, first, second):
        return (torch.tanh(x.flatten(1) @ first + 0.3 * labels[:, None]) @ second).reshape(x.shape)

    return parameters, net


def near(value, expected):
    """Whether the mean of independent values is within five standard errors of its expectation."""
    value = value.double()
    return abs(value.mean().item() - expected) < 5 * value.std().item() / math.sqrt(len(value))


# Each objective as f(score, x, **options), where a score takes (x, labels).
def at_zero(score):
    return lambda x: score(x, torch.zeros(len(x), dtype=torch.int64))


DRAWING = {
    "hutchinson": lambda net, x, **o: ism_loss(at_zero(net), x, trace="hutchinson", **o),
    "ssm": lambda net, x, **o: ssm_loss(at_zero(net), x, variance_reduced=False, projections=2, **o),
    "ssm gaussian": lambda net, x, **o: ssm_loss(at_zero(net), x, kind="gaussian", **o),
    "ssm sphere": lambda net, x, **o: ssm_loss(at_zero(net), x, kind="sphere", projections=2, **o),
    "annealed ssm": lambda net, x, **o: annealed_ssm_loss(net, x, SIGMAS, projections=2, **o),
    "annealed ssm not reduced": lambda net, x, **o: annealed_ssm_loss(net, x, SIGMAS, variance_reduced=False, **o),
    "single dsm": lambda net, x, **o: single_dsm_loss(at_zero(net), x, 0.3, **o),
    "single dsm not weighted": lambda net, x, **o: single_dsm_loss(at_zero(net), x, 0.3, weighted=False, **o),
    "controlled dsm": lambda net, x, **o: controlled_dsm_loss(net, x, SIGMAS, below=0.5, **o),
}
ALL = {
    "esm": lambda net, x, seed, step=0, **o: esm_loss(at_zero(net), x, affine, **o),
    "ism": lambda net, x, **o: ism_loss(at_zero(net), x, **o),
    **DRAWING,
}


def test_affine_scores_have_their_closed_forms():
    value = affine(X).flatten(1)
    other = MATRIX + 1
    distance = (affine(X, other).flatten(1) - value).square().sum(1) / 2
    for truth in (affine, affine(X)):
        torch.testing.assert_close(
            esm_loss(lambda x: affine(x, other), X, truth, reduction="none"), distance, rtol=1e-12, atol=0
        )
    expected = value.square().sum(1) / 2 + MATRIX.trace()
    for chunk_size in (1, 3, 4, 99):
        found = ism_loss(affine, X, chunk_size=chunk_size, reduction="none")
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_rademacher_is_exact_for_a_diagonal_jacobian_and_others_are_not():
    def score(x):
        return torch.tanh(x)

    exact = ism_loss(score, X, reduction="none")
    for kind in KINDS:
        estimate = ism_loss(score, X, trace="hutchinson", kind=kind, seed=0, reduction="none")
        assert torch.allclose(estimate, exact, rtol=1e-12, atol=0) == (kind == "rademacher")
    assert not torch.allclose(ism_loss(affine, X, trace="hutchinson", seed=0), ism_loss(affine, X))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance_reduced", [True, False])
def test_sliced_score_matching_is_its_formula(kind, variance_reduced):
    v = projection_vectors(X.shape, 3, kind, seed=7, step=5, dtype=torch.float64).flatten(2)
    value = affine(X).flatten(1)
    norm = value.square().sum(1) if variance_reduced else (v @ value[..., None]).square().mean((1, 2))
    expected = torch.einsum("bki,ij,bkj->bk", v, MATRIX, v).mean(1) + norm / 2
    for chunk_size in (1, 2, 5):
        found = ssm_loss(
            affine,
            X,
            projections=3,
            kind=kind,
            variance_reduced=variance_reduced,
            chunk_size=chunk_size,
            seed=7,
            step=5,
            reduction="none",
        )
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_hutchinson_is_variance_reduced_sliced_score_matching():
    options = {"projections": 2, "kind": "gaussian", "seed": 3, "step": 9, "sample_offset": 4, "reduction": "none"}
    assert torch.equal(ism_loss(affine, X, trace="hutchinson", **options), ssm_loss(affine, X, **options))


COUNT = 40_000


def estimates(kind, variance_reduced=True):
    """One value for each of COUNT projections of the same sample."""
    x = X[:1].expand(COUNT, 2, 2)
    return ssm_loss(affine, x, kind=kind, variance_reduced=variance_reduced, seed=5, reduction="none")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance_reduced", [True, False])
def test_projections_estimate_implicit_score_matching_without_bias(kind, variance_reduced):
    expected = ism_loss(affine, X[:1]).item()
    values = estimates(kind, variance_reduced)
    assert near(values, expected)
    norm = affine(X[:1]).square().sum().item() / 2
    if variance_reduced:
        assert not near((values - norm) / D + norm, expected), "projections on the unit sphere must be caught"
    assert not near(2 * norm - values, expected), "a trace of the other sign must be caught"


def test_kinds_have_the_variances_stated():
    symmetric = (MATRIX + MATRIX.T) / 2
    norm, trace = symmetric.square().sum().item(), symmetric.trace().item()
    stated = {
        "rademacher": 2 * (norm - symmetric.diagonal().square().sum().item()),
        "gaussian": 2 * norm,
        "sphere": 2 * D / (D + 2) * (norm - trace**2 / D),
    }
    exact = ism_loss(affine, X[:1])
    for kind in KINDS:
        squares = (estimates(kind) - exact).square()
        assert [near(squares, stated[other]) for other in KINDS] == [other == kind for other in KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_projections_have_unit_covariance(kind):
    v = projection_vectors((COUNT, 5), 1, kind, seed=2, dtype=torch.float64)[:, 0]
    for i in range(5):
        assert near(v[:, i], 0)
        for j in range(i):
            assert near(v[:, i] * v[:, j], 0)
    if kind == "rademacher":
        assert torch.equal(v.abs(), torch.ones_like(v))
    else:
        assert all(near(v[:, i].square(), 1) for i in range(5))
        assert not near(v[:, 0].square() / 5, 1)
    if kind == "sphere":
        # Ten operations on fp32 numbers, each rounded by 2^-24 at most.
        torch.testing.assert_close(v.square().sum(1), torch.full((COUNT,), 5.0).double(), rtol=10 * 2**-24, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_projections_are_values_at_their_addresses(kind):
    whole = projection_vectors((6, 2, 3), 4, kind, seed=9, step=3)
    assert whole.shape == (6, 4, 2, 3)
    assert torch.equal(projection_vectors((6, 2, 3), 2, kind, seed=9, step=3), whole[:, :2])
    order = torch.tensor([4, 1])
    assert torch.equal(projection_vectors((2, 2, 3), 4, kind, seed=9, step=3, sample_ids=order), whole[order])
    assert torch.equal(projection_vectors((2, 2, 3), 4, kind, seed=9, step=3, sample_offset=3), whole[3:5])
    assert not torch.equal(projection_vectors((6, 2, 3), 4, kind, seed=9, step=4), whole)
    draw = fl.rand if kind == "rademacher" else fl.randn
    raw = draw((6, 4, 2, 3), seed=9, draw=3, purpose=Purpose.PROJECTION)
    assert torch.equal(whole.sign(), (raw - 0.5).sign() if kind == "rademacher" else raw.sign())
    assert torch.equal(projection_vectors((6, 2, 3), 4, kind, seed=9, step=3, dtype=torch.float64), whole.double())


MEAN = torch.tensor([0.5, -0.3], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.4], [0.4, 0.5]], dtype=torch.float64)
SIGMA = 0.4
POINTS = MEAN + normals(20_000, 2, seed=21) @ torch.linalg.cholesky(COVARIANCE).T
LADDER = [SIGMA]


def parameters_of(covariance):
    """(A, b) of the Gaussian's score -A x + b, in one row."""
    precision = torch.linalg.inv(covariance)
    return torch.cat([precision.flatten(), precision @ MEAN])


def gradients(objective, theta):
    """Each sample's gradient by its own copy of the parameters, (N, 6)."""
    theta = theta.expand(len(POINTS), 6).clone().requires_grad_()

    def score(x, labels=None):
        return theta[:, 4:] - (theta[:, :4].reshape(-1, 2, 2) @ x[..., None])[..., 0]

    return torch.autograd.grad(objective(score), theta)[0]


def minimiser(objective):
    """Where a quadratic objective's gradient is zero, and the covariance that sampling gives it (the sandwich).

    The gradient of a quadratic is affine, so differences of it are the Hessian with no error but rounding.
    """
    origin = gradients(objective, torch.zeros(6, dtype=torch.float64))
    unit = torch.eye(6, dtype=torch.float64)
    hessian = torch.stack([(gradients(objective, each) - origin).mean(0) for each in unit])
    best = -torch.linalg.solve(hessian, origin.mean(0))
    inverse = torch.linalg.inv(hessian)
    return best, inverse @ gradients(objective, best).T.cov() @ inverse / len(POINTS)


def distance(objective, truth):
    """Wald's statistic, chi-square with 6 degrees of freedom if the truth is where the expectation is least."""
    best, covariance = minimiser(objective)
    return ((best - truth) @ torch.linalg.solve(covariance, best - truth)).item()


LIMIT = 6 + 6 * math.sqrt(12)
CLEAN, BLURRED = parameters_of(COVARIANCE), parameters_of(COVARIANCE + SIGMA**2 * torch.eye(2))
FITS = {
    "ism": (lambda s: ism_loss(s, POINTS, reduction="sum"), CLEAN),
    "hutchinson": (lambda s: ism_loss(s, POINTS, trace="hutchinson", kind="gaussian", seed=1, reduction="sum"), CLEAN),
    "ssm": (lambda s: ssm_loss(s, POINTS, variance_reduced=False, seed=1, reduction="sum"), CLEAN),
    "ssm reduced": (lambda s: ssm_loss(s, POINTS, kind="sphere", projections=2, seed=1, reduction="sum"), CLEAN),
    "annealed ssm": (lambda s: annealed_ssm_loss(s, POINTS, LADDER, seed=1, reduction="sum"), BLURRED),
    "single dsm": (lambda s: single_dsm_loss(s, POINTS, SIGMA, seed=1, reduction="sum"), BLURRED),
    "not weighted": (lambda s: single_dsm_loss(s, POINTS, SIGMA, weighted=False, seed=1, reduction="sum"), BLURRED),
    "controlled dsm": (lambda s: controlled_dsm_loss(s, POINTS, LADDER, below=1.0, seed=1, reduction="sum"), BLURRED),
}


@pytest.mark.parametrize("name", FITS)
def test_every_objective_is_least_at_the_true_score(name):
    objective, truth = FITS[name]
    assert distance(objective, truth) < LIMIT
    assert distance(objective, BLURRED if truth is CLEAN else CLEAN) > LIMIT, "another noise level must be caught"


def test_explicit_score_matching_is_least_at_the_true_score():
    precision = torch.linalg.inv(COVARIANCE)
    best, _ = minimiser(lambda s: esm_loss(s, POINTS, (MEAN - POINTS) @ precision, reduction="sum"))
    torch.testing.assert_close(best, CLEAN, rtol=1e-10, atol=1e-10)


def test_the_fit_catches_wrong_objectives():
    def wrong_trace(s):
        return s(POINTS).square().sum() - ism_loss(s, POINTS, reduction="sum")

    def unit_sphere(s):
        norm = s(POINTS).square().sum() / 2
        return norm + (ssm_loss(s, POINTS, kind="sphere", seed=1, reduction="sum") - norm) / 2

    def no_half(s):
        return s(POINTS).square().sum() / 2 + ism_loss(s, POINTS, reduction="sum")

    for objective in (wrong_trace, unit_sphere, no_half):
        assert distance(objective, CLEAN) > LIMIT


def test_single_denoising_score_matching_is_the_annealed_one_on_one_level():
    for x in (X, X.float()):
        single = single_dsm_loss(torch.tanh, x, 0.3, seed=4, step=2, sample_offset=3, reduction="none")
        ladder = dsm_loss(lambda x, i: torch.tanh(x), x, [0.3], seed=4, step=2, sample_offset=3, reduction="none")
        assert torch.equal(single, ladder)
        z = fl.randn(x.shape, seed=4, draw=2, purpose=Purpose.DSM_NOISE, sample_offset=3, dtype=x.dtype)
        literal = 0.5 * (torch.tanh(x + 0.3 * z) + z / 0.3).square().flatten(1).sum(1)
        found = single_dsm_loss(torch.tanh, x, 0.3, weighted=False, seed=4, step=2, sample_offset=3, reduction="none")
        # A dozen rounded operations, none of which cancels more than a digit here.
        torch.testing.assert_close(found, literal, rtol=200 * torch.finfo(x.dtype).eps, atol=0)


@pytest.mark.parametrize("variance_reduced", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_annealed_sliced_score_matching_is_weighted_at_the_noise_of_dsm(variance_reduced, given):
    labels = torch.tensor([3, 0, 1, 1, 2, 0]) if given else dsm_labels(6, 4, seed=8, step=6)
    z = fl.randn(X.shape, seed=8, draw=6, purpose=Purpose.DSM_NOISE, dtype=torch.float64)
    sigma = SIGMAS[labels].reshape(-1, 1, 1)
    parameters, net = tanh_net()
    options = {"variance_reduced": variance_reduced, "projections": 2, "seed": 8, "step": 6, "reduction": "none"}
    expected = SIGMAS[labels] ** 2 * ssm_loss(lambda x: net(x, labels, *parameters), X + sigma * z, **options)
    chosen = {"labels": labels} if given else {}
    found = annealed_ssm_loss(lambda x, i: net(x, i, *parameters), X, SIGMAS, **chosen, **options)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_annealed_sliced_score_matching_holds_small_levels_in_half_precision():
    sigma, x = 0.002, torch.zeros(64, 8, dtype=torch.float16)

    def net(x, labels):
        return -x / sigma**2

    found = annealed_ssm_loss(net, x, [sigma], seed=0)
    assert not ssm_loss(lambda x: net(x, None), x, seed=0).isfinite(), "1 / sigma^2 is more than float16 holds"
    # 1/2 ||sigma s||^2 - D, and float16 rounds the state, whose subnormals are 6e-8 apart, and the score.
    z = fl.randn((64, 8), seed=0, purpose=Purpose.DSM_NOISE)
    torch.testing.assert_close(found, (z.square().sum(1) / 2 - 8).mean(), rtol=0.01, atol=0)


S = 0.5
GAUSSIAN = S * normals(COUNT, D, seed=31)


def gaussian_score(x, labels=None):
    """The score of N(0, S^2) blurred by a small level."""
    return -x / S**2


def control(sigma, score=gaussian_score, seed=1):
    """The control variate and its two mutants: taken at the noisy point, and without its mean."""
    z = fl.randn(GAUSSIAN.shape, seed=seed, purpose=Purpose.DSM_NOISE, dtype=torch.float64)

    def first_order(x):
        return (sigma * z * score(x)).sum(1)

    norm = z.square().sum(1) / 2
    return first_order(GAUSSIAN) + norm - D / 2, first_order(GAUSSIAN + sigma * z) + norm - D / 2, first_order(z) + norm


def losses_at(sigma, seed=1):
    options = {"seed": seed, "reduction": "none"}
    plain = dsm_loss(gaussian_score, GAUSSIAN, [sigma], **options)
    return plain, controlled_dsm_loss(gaussian_score, GAUSSIAN, [sigma], below=2 * sigma, **options)


@pytest.mark.parametrize("sigma", [0.02, 0.3])
def test_controlled_loss_has_the_same_expectation(sigma):
    plain, controlled = losses_at(sigma)
    expected = D / 2 * ((1 - sigma**2 / S**2) ** 2 + sigma**2 / S**2)
    right, noisy, biased = control(sigma)
    torch.testing.assert_close(controlled, plain - right, rtol=1e-11, atol=1e-11)
    assert near(plain, expected)
    assert near(controlled, expected)
    assert not near(plain - noisy, expected), "a control at the noisy point must be caught"
    assert not near(plain - biased, expected), "a control with a mean must be caught"


def test_controlled_loss_has_less_variance_at_small_levels():
    for sigma in (0.02, 0.05):
        plain, controlled = losses_at(sigma)
        # 1/2 ||z||^2 has variance D/2; what is left is of order sigma^4.
        r = (sigma / S) ** 2
        left = D / 2 * (r**2 + (2 * r - r**2) ** 2 + 2 * r**3)
        assert 0.9 * D / 2 < plain.var() < 1.1 * D / 2
        assert 0.9 * left < controlled.var() < 1.1 * left < 0.01 * plain.var()
        assert (plain + control(sigma)[0]).var() > 3 * plain.var(), "a control of the other sign must be caught"


@pytest.mark.parametrize(("ratio", "loss_falls", "gradient_falls"), [(0.5, 1, 1), (0.65, 1, 0), (0.85, 0, 0)])
def test_controlled_variance_rises_above_the_stated_levels(ratio, loss_falls, gradient_falls):
    sigma = ratio * S
    found = []
    for loss, options in ((dsm_loss, {}), (controlled_dsm_loss, {"below": 1.0})):
        factor = torch.ones(COUNT, 1, dtype=torch.float64, requires_grad=True)
        values = loss(
            lambda x, i, factor=factor: -factor * x / (S**2 + sigma**2),
            GAUSSIAN,
            [sigma],
            seed=1,
            reduction="none",
            **options,
        )
        found.append((values.var(), torch.autograd.grad(values.sum(), factor)[0].sum(1).var()))
    (plain, plain_gradient), (controlled, controlled_gradient) = found
    assert (controlled < plain) == loss_falls
    assert (controlled_gradient < plain_gradient) == gradient_falls


def test_controlled_gradient_has_the_same_expectation_and_less_variance():
    sigma = 0.02

    def by_scale(loss):
        """Each sample's derivative by a factor on the score."""
        factor = torch.ones(COUNT, 1, dtype=torch.float64, requires_grad=True)
        value = loss(lambda x, labels=None: factor * gaussian_score(x))
        return torch.autograd.grad(value, factor)[0][:, 0]

    plain = by_scale(lambda net: dsm_loss(net, GAUSSIAN, [sigma], seed=1, reduction="sum"))
    controlled = by_scale(lambda net: controlled_dsm_loss(net, GAUSSIAN, [sigma], below=1.0, seed=1, reduction="sum"))
    wrong = by_scale(
        lambda net: (dsm_loss(net, GAUSSIAN, [sigma], seed=1, reduction="none") + control(sigma, net)[0]).sum()
    )
    noisy = by_scale(
        lambda net: (dsm_loss(net, GAUSSIAN, [sigma], seed=1, reduction="none") - control(sigma, net)[1]).sum()
    )
    # d/df E 1/2 ||f sigma s + z||^2 at f = 1, s = -(x + sigma z) / S^2.
    r = (sigma / S) ** 2
    expected = D * (r + r**2 - r)
    assert near(plain, expected)
    assert near(controlled, expected)
    assert not near(noisy, expected)
    assert controlled.var() < 0.05 * plain.var()
    assert wrong.var() > 2 * plain.var()


def test_controlled_loss_is_dsm_where_the_level_is_not_below():
    labels = torch.tensor([0, 3, 2, 0, 1, 3])
    options = {"labels": labels, "seed": 2, "step": 1, "reduction": "none"}
    calls = []

    def net(x, i):
        calls.append(i.tolist())
        return torch.tanh(x)

    plain = dsm_loss(net, X, SIGMAS, **options)
    calls.clear()
    found = controlled_dsm_loss(net, X, SIGMAS, below=SIGMAS[2].item(), **options)
    assert calls == [labels.tolist(), [3, 3]], "only the samples below go through the network again"
    assert (found == plain).tolist() == (labels != 3).tolist()
    calls.clear()
    assert torch.equal(controlled_dsm_loss(net, X, SIGMAS, below=0.05, **options), plain)
    assert len(calls) == 1


@pytest.mark.parametrize("name", DRAWING)
def test_a_sample_does_not_depend_on_its_batch(name):
    x = normals(10, 2, 2)

    def values(rows, **options):
        return DRAWING[name](lambda x, i: torch.tanh(x).roll(1, 2), x[rows], seed=9, reduction="none", **options)

    whole = values(slice(None), step=4)
    alone = [values(slice(i, i + 1), step=4, sample_offset=i) for i in range(10)]
    assert torch.equal(torch.cat(alone), whole)
    order = torch.tensor([7, 2, 9])
    assert torch.equal(values(order, step=4, sample_ids=order), whole[order])
    assert torch.equal(values(slice(None), step=torch.tensor(4)), whole)
    assert not torch.equal(values(order, step=4), whole[order])
    assert not torch.equal(values(slice(None), step=5), whole)


@pytest.mark.parametrize("name", DRAWING)
def test_generator_and_manual_seed_govern(name):
    def value(**options):
        return DRAWING[name](lambda x, i: torch.tanh(x).roll(1, 2), X, **options)

    torch.manual_seed(3)
    first = value()
    assert not torch.equal(value(), first)
    assert torch.equal(value(generator=torch.Generator().manual_seed(3)), first)


@pytest.mark.parametrize("name", ALL)
def test_gradients_by_parameters_and_data_are_right(name):
    parameters, net = tanh_net()

    def loss(x, *values):
        return ALL[name](lambda x, i: net(x, i, *values), x, seed=3, step=1)

    assert torch.autograd.gradcheck(loss, (X[:3].clone().requires_grad_(), *parameters))


@pytest.mark.parametrize("chunk_size", [2, 9])
def test_gradients_of_products_together_are_those_of_one_at_a_time(chunk_size):
    parameters, net = tanh_net()

    def by_parameters(**options):
        score = at_zero(lambda x, i: net(x, i, *parameters))
        losses = ism_loss(score, X, **options), ssm_loss(score, X, projections=3, seed=0, **options)
        return torch.autograd.grad(sum(losses), parameters)

    for found, expected in zip(by_parameters(chunk_size=chunk_size), by_parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_reductions_agree(name):
    values = ALL[name](lambda x, i: torch.tanh(x), X, seed=0, reduction="none")
    assert values.shape == (6,)
    # The sum of six in another order.
    torch.testing.assert_close(ALL[name](lambda x, i: torch.tanh(x), X, seed=0), values.mean(), rtol=1e-14, atol=1e-14)
    total = ALL[name](lambda x, i: torch.tanh(x), X, seed=0, reduction="sum")
    torch.testing.assert_close(total, values.sum(), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", ALL)
def test_data_are_left_alone_and_no_graph_is_made_without_gradients(name):
    parameters, net = tanh_net()
    x, copy = X.clone(), X.clone()

    def value(x):
        return ALL[name](lambda x, i: net(x, i, *parameters), x, seed=0, reduction="none")

    trained = value(x)
    trained.sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in parameters)
    with torch.no_grad():
        evaluated = value(x)
    with torch.inference_mode():
        inferred = value(x.clone())
    assert trained.requires_grad
    assert not evaluated.requires_grad
    assert torch.equal(evaluated, trained)
    assert torch.equal(inferred, trained)
    assert torch.equal(x, copy)
    assert not x.requires_grad
    assert x.grad is None


def test_a_score_that_does_not_depend_on_the_data_has_no_trace():
    constant = torch.full((2, 2), 3.0, dtype=torch.float64, requires_grad=True)

    def unused(x):
        return constant.expand_as(x)

    for score in (unused, lambda x: unused(x).detach(), lambda x: unused(x) + 0 * x):
        for chunk_size in (1, 2):
            for loss in (
                ism_loss(score, X, chunk_size=chunk_size, reduction="none"),
                ssm_loss(score, X, chunk_size=chunk_size, projections=2, seed=0, reduction="none"),
            ):
                assert torch.equal(loss, torch.full((6,), 18.0, dtype=torch.float64))
    ism_loss(unused, X).backward()
    assert torch.equal(constant.grad, constant.detach())


def test_hutchinson_agrees_with_the_exact_trace_of_a_network():
    parameters, net = tanh_net()
    score = at_zero(lambda x, i: net(x, i, *parameters))
    exact = ism_loss(score, X[:1], reduction="none").item()
    values = [ssm_loss(score, X[:1].expand(4000, 2, 2), kind=kind, seed=1, reduction="none") for kind in KINDS]
    norm = score(X[:1]).square().sum().item() / 2
    assert all(near(each, exact) for each in values)
    assert not any(near(each + norm, exact) for each in values), "a norm without the 1/2 must be caught"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_dtypes(name, dtype):
    seen = set()

    def net(x, labels):
        seen.add(x.dtype)
        return -x * 0.5

    x = normals(32, 2, 2)
    value = ALL[name](net, x.to(dtype), seed=0)
    assert seen == {dtype}
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = ALL[name](net, x.to(dtype).double(), seed=0).item()
    # The state, the score and a projection are rounded, by 2^-8 at most (bfloat16), and squared; the trace is -2.
    assert abs(value.item() - exact) <= 6 * 2**-8 * (abs(exact) + 4)


def test_nan_is_carried_and_not_an_error():
    x = X.clone()
    x[2, 0, 0] = math.nan
    for name in ALL:
        if name != "esm":
            values = ALL[name](lambda x, i: torch.tanh(x), x, seed=0, reduction="none")
            assert values.isnan().tolist() == [i == 2 for i in range(6)]
