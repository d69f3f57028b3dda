"""Gaussian mixtures: their density, score and samples against closed forms, and the bits of every implementation."""

import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin.mixture import PerturbedMixture
from fastlangevin.ops import mixture_score
from fastlangevin.reference import mixture as reference

U = 2.0**-24


def make(components, features, diagonal, seed=0, spread=3.0):
    weights = fl.rand((components,), seed=seed, draw=1, dtype=torch.float64) + 0.1
    means = spread * fl.randn((components, features), seed=seed)  # exact in fp32, so that an oracle has the same
    variances = 0.05 + fl.rand((components, features) if diagonal else (components,), seed=seed, draw=2)
    return fl.GaussianMixture(weights / weights.sum(), means, variances)


def states(mixture, count, seed=1):
    return mixture.sample(count, sigma=0.5, seed=seed)


def test_density_integrates_to_one_and_its_gradient_is_the_score():
    mixture = fl.GaussianMixture([0.2, 0.5, 0.3], [[-1.0], [0.0], [2.0]], [0.1, 0.4, 0.2])
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    for sigma in (0.0, 0.7):
        assert mixture.log_prob(grid, sigma).exp().sum().item() * 0.004 == pytest.approx(1, abs=1e-9)
    for diagonal in (False, True):
        mixture = make(4, 3, diagonal)
        x = states(mixture, 50).double().requires_grad_()
        sigma = torch.linspace(0, 2, 50, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(mixture.log_prob(x, sigma).sum(), x)
        score = mixture.score(x, sigma)
        assert torch.allclose(gradient, score, rtol=1e-10, atol=1e-10)
        (second,) = torch.autograd.grad(score.sum(), x)
        assert second.isfinite().all()


def bound(mixture, x, sigma):
    """First-order bound on the error of the fp32 score, in units of U, from the written order of its operations."""
    wide = x.double()
    exact, d, total = mixture._components(wide, torch.tensor([sigma], dtype=torch.float64))
    share = torch.softmax(exact, 1)
    features, components = mixture.features, len(mixture.weights)
    # d carries half a unit of its own; the means are exact here. Squares and their sum: a rounding each, and one of i
    # or h, which all count relative to what is a sum of positive terms; g and the rounding of l count by their size.
    g = mixture.table([sigma])[0, :, 0].double()
    quadratic = (d * d / total).sum(2) / (2 * math.log(2))
    logit = (features + 6) * quadratic + g.abs() + (g - quadratic).abs()
    largest = (g - quadratic).amax(1, keepdim=True)
    at_largest = logit.gather(1, (g - quadratic).argmax(1, keepdim=True))
    weight = 3.2 + math.log(2) * (logit + at_largest + (largest - (g - quadratic)))
    common = (share * weight).sum(1, keepdim=True)
    pull = share[..., None] * (d / total).abs()
    terms = (weight + common + 2 * components + 8)[..., None] * pull
    return terms.sum(1)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("features", [1, 2, 7, 64])
def test_score_is_within_the_bound_of_its_roundings(features, diagonal, monkeypatch):
    mixture = make(8, features, diagonal)
    x = states(mixture, 2000)

    def worst():
        ratios = []
        for sigma in (0.0, 0.3, 5.0):
            got = PerturbedMixture(mixture, [sigma], "reference")(x, torch.zeros(2000).long())
            want = mixture.closed_form(x.double(), torch.tensor([sigma], dtype=torch.float64))
            ratios.append(((got.double() - want).abs() / (U * bound(mixture, x, sigma))).max().item())
        return max(ratios)

    # Roundings of many elements average out, which the bound does not count on.
    assert (0.05 if features <= 7 else 0.005) < worst() < 1
    monkeypatch.setattr(reference, "EXP2_Q", (*reference.EXP2_Q[:3], reference.EXP2_Q[3] * 1.2, 0.0))
    if features <= 2:
        assert worst() > 1, "the bound does not notice a worse exponential"


def test_numbers_of_python_are_taken_as_they_are():
    mixture = fl.GaussianMixture([0.3, 0.7], [[0.1], [-0.2]], 0.3)
    assert mixture.means.tolist() == [[0.1], [-0.2]]
    assert mixture.variances.tolist() == [0.3, 0.3]
    in_fp32 = fl.GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[0.1], [-0.2]]), 0.3)
    assert in_fp32.means[0].item() != 0.1


def test_power_of_two_over_its_whole_range():
    y = torch.linspace(-reference.LOWEST * -1, 0, 2_000_001)
    got, want = reference.exp2(y).double(), y.double().exp2()
    assert ((got - want).abs() / want).max() < 3.3 * U
    edges = torch.tensor([0.0, -0.0, -1.0, -99.0, -100.0, -101.0, -1e30, -math.inf, math.nan])
    assert reference.exp2(edges).tolist() == [1.0, 1.0, 0.5, 2.0**-99, *[2.0**-100] * 5]


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")  # of Triton's interpreter
def test_far_states_and_far_components_give_no_nan(impl):
    mixture = fl.GaussianMixture([0.5, 0.5], [[-1e4, 0.0], [1e4, 0.0]], [1e-4, 1e-4])
    x = torch.tensor([[0.0, 0.0], [-1e4, 0.0], [1e4, 1.0], [1e6, -1e6], [1e15, 1e15], [3e18, 0.0]])
    score = mixture.perturbed([0.5, 0.001], impl=impl)(x, torch.tensor([0, 1, 0, 1, 0, 1]))
    assert score.isfinite().all()
    assert score[1].abs().max() < 1e-20  # 2^-100 of the pull of the other component is left
    assert score[4, 0] < 0


def in_fp32(score, x):
    """Takes the limit from a score's table, below which it is computed in fp64."""
    score.table(x.device)[..., -1] = -math.inf
    return score


def error(score, x):
    """The largest error of an element, relative to the sum of all components' pulls, sum_k w_k |m_k - x| / V_k.

    The score is the sum of the pulls with their signs, and near a tie of two modes it goes through zero: there an error
    of the weights is one of the pulls. A distance counts as a hundredth of a standard deviation at least, since in fp32
    the means may be off by a millionth of one.
    """
    got = score.at_one_level(x).double()
    level = torch.tensor(score.sigmas, dtype=torch.float64)
    logits, d, total = score.mixture._components(x.double(), level)
    each = torch.maximum(d.abs(), 0.01 * total.sqrt()) / total
    pulls = (torch.softmax(logits, 1)[..., None] * each).sum(1)
    return ((got - score.mixture.closed_form(x.double(), level)).abs() / pulls).max().item()


def test_scores_near_a_tie_of_narrow_modes(impl):
    """Two modes a thousand standard deviations from zero: (m tanh(m x / V) - x) / V, over twenty powers of ten."""
    mixture, sigma = fl.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], 1e-6), 1e-4
    x = torch.cat([sign * 10.0 ** torch.linspace(-20, 0, 101) for sign in (-1, 1)])[:, None]
    total, wide = 1e-6 + sigma**2, x.double()
    want = (torch.tanh(wide / total) - wide) / total

    def worst(score):
        # An fp64 logit of 5 x 10^5 is within 2 x 10^-10: so is a weight, and the two pulls are of a million.
        return ((score.at_one_level(x).double() - want).abs() / (1e-4 * want.abs() + 1e-9 / total)).max().item()

    score = PerturbedMixture(mixture, [sigma], impl)
    assert worst(score) < 1
    assert score.at_one_level(torch.tensor([[1e-7]])).item() == pytest.approx(97_710.43, rel=1e-6)
    assert worst(in_fp32(score, x)) > 100


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("features", [1, 2, 8, 64])
def test_scores_of_narrow_modes_are_those_of_fp64(impl, features, diagonal):
    """On segments between the means of random mixtures, mostly about the middle; near the means; and far from all."""
    if impl == "triton" and features == 64:
        pytest.skip("too long for Triton's interpreter")
    components, count = (2, 60) if impl == "triton" else (6, 300 if features < 64 else 60)
    for seed, scale in enumerate((1e-6, 1e-3, 1e-2) if impl != "triton" else (1e-6,)):
        weights = (-3 * fl.rand((components,), seed=seed, draw=1, dtype=torch.float64)).exp()
        shape = (components, features) if diagonal else (components,)
        variances = scale * (1 + fl.rand(shape, seed=seed, draw=2, dtype=torch.float64))
        means = fl.randn((components, features), seed=seed, dtype=torch.float64) / 3  # no numbers of fp32
        mixture = fl.GaussianMixture(weights / weights.sum(), means, variances)
        one, other = torch.arange(count) % components, torch.arange(count) // components % components
        along = 0.5 + 0.5 * (2 * fl.rand((count, 1), seed=seed, draw=3, dtype=torch.float64) - 1) ** 5
        between = means[one] + along * (means[other] - means[one])
        x = torch.cat([between.float(), mixture.sample(count, seed=5), 5 * fl.randn((20, features), seed=9)])
        for sigma in (0.0, 1e-3):
            assert error(PerturbedMixture(mixture, [sigma], impl), x) < 1e-4
        if scale < 1e-3:
            assert error(in_fp32(PerturbedMixture(mixture, [0.0], impl), x), x) > 1e-4


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("features", [1, 2, 8, 64])
def test_states_of_an_ordinary_law_have_their_scores_in_fp32(features, diagonal):
    """Bit for bit as without a limit; in the middle of two modes thirty standard deviations apart they have not."""
    means = torch.tensor([[-1.0], [1.0]]) * 7.5 / math.sqrt(features)
    variances = torch.full((2, features), 0.25) if diagonal else 0.25
    mixture = fl.GaussianMixture([0.2, 0.8], means.expand(2, features), variances)
    law = mixture.sample(2000, seed=1)
    middle = 0.1 * fl.randn((50, features), seed=2)
    score = PerturbedMixture(mixture, [0.0], "reference")
    kept, between = score.at_one_level(law), score.at_one_level(middle)
    assert torch.equal(in_fp32(score, law).at_one_level(law), kept)
    assert (score.at_one_level(middle) != between).any(1).double().mean() > 0.3


def test_the_table_has_its_numbers_to_48_bits():
    for diagonal in (False, True):
        mixture = make(4, 3, diagonal)
        mixture.means *= math.pi
        table = mixture.table([0.7]).double()[0]
        width = table.shape[1] // 2
        whole = table[:, :width] + table[:, width:-1]
        inverse = 1 / (mixture.variances + 0.7**2)
        means = whole[:, 1:4] if diagonal else whole[:, 3:]
        inverses = whole[:, 4:] if diagonal else whole[:, 2]
        assert ((means / mixture.means - 1).abs() < 2.0**-48).all()
        assert ((inverses / inverse - 1).abs() < 2.0**-48).all()


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    ("components", "features"), [(1, 1), (3, 2), (8, 2), (5, 3), (25, 4), (4, 7), (6, 17), (2, 64)]
)
def test_every_implementation_has_the_bits_of_the_reference(impl, components, features, diagonal):
    mixture = make(components, features, diagonal, spread=2.0)
    sigmas = [4.0, 1.0, 0.01]
    count = 70
    # In fp64, which states far from the law have, 64 elements take Triton's interpreter too long.
    near = features == 64 and impl == "triton"
    x = mixture.sample(count, seed=5) if near else 3 * fl.randn((count, features), seed=5)
    x[7] *= 1 if near else 1e12
    table = mixture.table(sigmas)
    alike, mixed = torch.ones(count, dtype=torch.int64), torch.arange(count) % 3
    for labels in (alike, mixed):
        want = reference.mixture_score(x, table, labels, diagonal)
        assert torch.equal(mixture_score(x, table, labels, diagonal=diagonal, impl=impl), want)
        assert mixture_score(x[:0], table, labels[:0], diagonal=diagonal, impl=impl).shape == (0, features)


def test_labels_of_no_level_give_nan_on_a_device():
    """There they cannot be refused without waiting for it; Triton's launcher is asked, in its interpreter."""
    launchers = pytest.importorskip("fastlangevin.kernels.triton.mixture")
    if torch.cuda.is_available():
        pytest.skip("with a CUDA device Triton compiles for it: see test_gpu.py")
    mixture, x = make(3, 2, False), torch.ones(5, 2)
    labels, out = torch.tensor([0, 2, -1, 1, 2**62]), torch.zeros(5, 2)
    launchers.mixture_score(out, x, mixture.table([4.0, 1.0]), labels, diagonal=False)
    assert out.isnan().all(1).tolist() == [False, True, True, False, True]


def test_samples_have_the_weights_and_moments_of_the_mixture():
    mixture = fl.GaussianMixture([0.2, 0.8], [[-5.0, 1.0], [5.0, -1.0]], [[0.5, 1.0], [0.25, 2.0]])
    count = 200_000
    x = mixture.sample(count, seed=3, sigma=0.5).double()
    right = x[:, 0] > 0
    # 5 standard deviations of a mean, of a variance and of a share; the border is 5.8 of them from both means.
    assert abs(right.double().mean().item() - 0.8) < 5 * math.sqrt(0.16 / count)
    for chosen, mean, variance in ((~right, [-5.0, 1.0], [0.75, 1.25]), (right, [5.0, -1.0], [0.5, 2.25])):
        part, number = x[chosen], int(chosen.sum())
        want = torch.tensor(variance, dtype=torch.float64)
        assert ((part.mean(0) - torch.tensor(mean)).abs() < 5 * (want / number).sqrt()).all()
        assert ((part.var(0) / want - 1).abs() < 5 * math.sqrt(2 / number)).all()
    assert torch.equal(mixture.sample(3, seed=3, sigma=0.5, sample_ids=[5, 7, 6]).double(), x[[5, 7, 6]])
    assert not torch.equal(mixture.sample(10, seed=3, sigma=0.5, draw=1).double(), x[:10])


def test_shapes_dtypes_and_labels(impl):
    mixture = make(3, 4, diagonal=True)
    score = mixture.perturbed([1.0, 0.1], impl=impl)
    x = fl.randn((6, 1, 2, 2), seed=0)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    whole = score(x, labels)
    assert whole.shape == x.shape
    assert torch.equal(whole.view(6, 4), score(x.view(6, 4), labels))
    assert torch.equal(score(x.to(torch.bfloat16), labels), score(x.to(torch.bfloat16).float(), labels))
    assert score(x.double(), labels).dtype == torch.float64
    assert torch.allclose(score(x.double(), labels).float(), whole, rtol=1e-4, atol=1e-4)
    each = torch.tensor([1.0, 0.1])[labels]
    assert torch.allclose(mixture.score(x, each), whole, rtol=1e-5, atol=1e-5)
    if impl == "reference":
        table = score.table(x.device)
        compiled = torch.compile(
            lambda x: mixture_score(x, table, labels, diagonal=True), backend="aot_eager", fullgraph=True
        )
        assert torch.equal(compiled(x.view(6, 4)), whole.view(6, 4))


def test_samplers_take_the_mixture_itself():
    mixture = fl.GaussianMixture([0.2, 0.8], [[-5.0, -5.0], [5.0, 5.0]], 1.0)
    sigmas = fl.geometric_sigmas(20, 1, 5)
    for sampler, size in (
        (fl.annealed_langevin, {"epsilon": 0.1, "steps_per_level": 3}),
        (fl.consistent_annealed, {"epsilon": 1.2}),
        (fl.predictor_corrector, {"snr": 0.16}),
        (fl.interpolation, {"epsilon": 0.1, "steps_per_level": 2, "points": 3}),
    ):
        made = {"shape": (20, 2), "seed": 0, "init": "normal", "denoise": True, **size}
        ours = sampler(mixture, sigmas, **made)
        assert torch.equal(ours, sampler(lambda x, labels: mixture.perturbed(sigmas)(x, labels), sigmas, **made))
    init = torch.zeros(20, 2)
    ours = fl.langevin(mixture, init, steps=5, epsilon=0.1, seed=0)
    assert torch.equal(ours, fl.langevin(mixture.score, init, steps=5, epsilon=0.1, seed=0))


@pytest.mark.parametrize("made_of", ["tensors", "arrays"])
def test_later_changes_of_what_it_was_made_of_are_not_its_own(made_of):
    kept = [torch.tensor(values, dtype=torch.float64) for values in ([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], [1.0, 2.0])]
    mixture = fl.GaussianMixture(*(kept if made_of == "tensors" else [each.numpy() for each in kept]))
    x = fl.randn((4, 2), seed=0)
    before = mixture.score(x, 0.5)
    for each in kept:
        each.mul_(2)
    assert torch.equal(mixture.score(x, 0.5), before)


def test_a_score_stays_that_of_the_mixture_it_was_made_of():
    mixture = fl.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], [1.0, 2.0])
    x, labels, ladder = fl.randn((4, 2), seed=0), torch.tensor([0, 1, 1, 0]), [1.0, 0.5]
    score = mixture.perturbed(ladder)
    before = mixture.score(x, 0.5)
    mixture.means.mul_(2)
    mixture.variances = torch.tensor([0.1, 0.1], dtype=torch.float64)
    # Of the table and of the closed form.
    fresh = fl.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], [1.0, 2.0]).perturbed(ladder)
    assert torch.equal(score(x, labels), fresh(x, labels))
    assert torch.equal(score(x.double(), labels), fresh(x.double(), labels))
    assert (mixture.score(x, 0.5) - before).abs().max() > 0.1
    for name, value in (("sigmas", [2.0, 1.0]), ("mixture", mixture)):
        with pytest.raises(AttributeError, match=name):
            setattr(score, name, value)
    score.sigmas[0] = 5.0
    assert score.sigmas == ladder
