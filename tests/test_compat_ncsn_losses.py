"""The objectives of NCSN and NCSNv2 by their published signatures, against their formulas with the same noise."""

import pytest
import torch

import fastlangevin as fl
from fastlangevin import losses
from fastlangevin.compat import ncsn, ncsnv2
from fastlangevin.noise import Purpose

LADDER = [1.0, 0.4, 0.1]
LABELS = torch.tensor([0, 2, 1, 1, 0])
X = fl.randn((5, 4), seed=3, dtype=torch.float64)
SEED, STEP = 5, 2
AT = {"seed": SEED, "step": STEP}
Z = fl.randn(X.shape, seed=SEED, draw=STEP, purpose=Purpose.DSM_NOISE, dtype=torch.float64)
W = fl.randn((4, 4), seed=4, dtype=torch.float64)
# A few units in the last place of fp64 on sums of 20 terms.
CLOSE = {"rel": 1e-12}


def energy(x):
    return (torch.cos(x @ W)).sum(1) + 0.25 * (x**2).sum(1) ** 2 / 4


def slope(x):
    point = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(point).sum(), point)
    return gradient


def score(x):
    return torch.sin(x @ W) @ W.T - 0.25 * x * (x**2).sum(1, keepdim=True)


def net(x, labels):
    return score(x) / torch.tensor(LADDER, dtype=x.dtype)[labels][:, None]


def jacobians(x):
    return torch.func.vmap(torch.func.jacrev(lambda row: score(row[None])[0]))(x)


def test_the_score_of_an_energy():
    torch.testing.assert_close(score(X), -slope(X), rtol=1e-12, atol=1e-12)
    loss = ncsn.dsm(energy, X, 0.3, **AT)
    assert loss.item() == pytest.approx(ncsn.dsm_score_estimation(score, X, 0.3, **AT).item() * 0.3**4, **CLOSE)


def test_one_level():
    n = 0.3 * Z
    literal = 0.5 * (score(X + n) + n / 0.3**2).square().sum(1).mean().item()
    assert ncsn.dsm_score_estimation(score, X, 0.3, **AT).item() == pytest.approx(literal, **CLOSE)
    energies = 0.5 * (0.3**2 * score(X + n) + n).square().sum(1).mean().item()
    assert ncsn.dsm(energy, X, 0.3, **AT).item() == pytest.approx(energies, **CLOSE)
    with torch.no_grad():
        assert ncsn.dsm(energy, X, 0.3, **AT).item() == pytest.approx(energies, **CLOSE)
    ascending = 0.5 * (0.3**2 * -score(X + n) + n).square().sum(1).mean().item()
    assert energies != pytest.approx(ascending, rel=1e-3)


@pytest.mark.parametrize("power", [2.0, 1.0])
def test_a_ladder(power):
    sigma = torch.tensor(LADDER, dtype=torch.float64)[LABELS][:, None]
    n = sigma * Z
    each = 0.5 * sigma[:, 0] ** power * (net(X + n, LABELS) + n / sigma**2).square().sum(1)
    first = ncsn.anneal_dsm_score_estimation(net, X, LABELS, LADDER, power, **AT)
    second = ncsnv2.anneal_dsm_score_estimation(net, X, LADDER, LABELS, power, **AT)
    assert first.item() == pytest.approx(each.mean().item(), **CLOSE)
    assert torch.equal(first, second)
    assert first.item() != pytest.approx((each * sigma[:, 0]).mean().item(), rel=1e-3)
    assert first.item() != pytest.approx((2 * each).mean().item(), rel=1e-3)
    seen = []
    hooked = ncsnv2.anneal_dsm_score_estimation(net, X, LADDER, LABELS, power, lambda *what: seen.append(what), **AT)
    torch.testing.assert_close(seen[0][0], each, rtol=1e-12, atol=0)
    assert torch.equal(seen[0][1], LABELS)
    assert hooked.item() == pytest.approx(first.item(), **CLOSE)


def test_labels_are_drawn_where_there_are_none():
    drawn = losses.dsm_labels(5, 3, seed=SEED, step=STEP)
    expected = ncsnv2.anneal_dsm_score_estimation(net, X, LADDER, drawn, **AT)
    assert torch.equal(ncsnv2.anneal_dsm_score_estimation(net, X, LADDER, **AT), expected)
    for sigmas in (LADDER, torch.tensor(LADDER, dtype=torch.float64)):
        seen = []
        ncsnv2.anneal_dsm_score_estimation(net, X, sigmas, hook=lambda *what, seen=seen: seen.append(what), **AT)
        assert torch.equal(seen[0][1], drawn)
        assert seen[0][0].mean().item() == pytest.approx(expected.item(), **CLOSE)
    torch.manual_seed(0)
    first = ncsnv2.anneal_dsm_score_estimation(net, X, LADDER)
    assert not torch.equal(ncsnv2.anneal_dsm_score_estimation(net, X, LADDER), first)
    torch.manual_seed(0)
    assert torch.equal(ncsnv2.anneal_dsm_score_estimation(net, X, LADDER), first)


def test_a_loss_trains():
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    for loss in (
        ncsn.dsm(lambda x: weight * energy(x), X, 0.3, **AT),
        ncsn.single_sliced_score_matching(lambda x: weight * energy(x), X, **AT),
        ncsnv2.anneal_dsm_score_estimation(lambda x, labels: weight * net(x, labels), X, LADDER, **AT),
    ):
        weight.grad = None
        loss.backward()
        assert weight.grad is not None
        assert weight.grad.item() != 0


def sliced(v, reduced):
    """1/2 (v . s)^2 or 1/2 ||s||^2, and v^T J v, by the whole Jacobian; v is (B, K, D)."""
    s = score(X)
    norm = s.square().sum(1)[:, None] if reduced else (v * s[:, None]).sum(2).square()
    return (0.5 * norm + torch.einsum("bki,bij,bkj->bk", v, jacobians(X), v)).mean().item()


def vectors(kind, count=1):
    return losses.projection_vectors(X.shape, count, kind, **AT, dtype=torch.float64)


KINDS = {"radermacher": "rademacher", "sphere": "sphere", "gaussian": "gaussian"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduced", [False, True])
def test_one_projection_of_an_energy(kind, reduced):
    function = ncsn.partial_sliced_score_matching if reduced else ncsn.single_sliced_score_matching
    found = function(energy, X, noise_type=kind, **AT)
    assert found.item() == pytest.approx(sliced(vectors(KINDS[kind]), reduced), **CLOSE)
    assert found.item() != pytest.approx(sliced(vectors(KINDS[kind]), not reduced), rel=1e-3)
    mine = fl.randn(X.shape, seed=9, dtype=torch.float64)
    given = function(energy, X, mine, noise_type=kind)
    assert given.item() == pytest.approx(sliced(mine[:, None], reduced), **CLOSE)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    assert function(lambda x: weight * energy(x), X, **AT).requires_grad
    assert not function(lambda x: weight * energy(x), X, detach=True, **AT).requires_grad


@pytest.mark.parametrize("count", [1, 3])
def test_many_projections(count):
    unit = sliced(vectors("sphere", count) / 2, False)  # the unit sphere in 4 dimensions
    assert ncsn.sliced_score_estimation(score, X, count, **AT).item() == pytest.approx(unit, **CLOSE)
    assert ncsn.sliced_score_matching(energy, X, count, **AT).item() == pytest.approx(unit, **CLOSE)
    assert unit != pytest.approx(sliced(vectors("sphere", count), False), rel=1e-3)
    gaussian = sliced(vectors("gaussian", count), True)
    assert ncsn.sliced_score_estimation_vr(score, X, count, **AT).item() == pytest.approx(gaussian, **CLOSE)
    assert ncsn.sliced_score_matching_vr(energy, X, count, **AT).item() == pytest.approx(gaussian, **CLOSE)
    assert gaussian != pytest.approx(sliced(vectors("rademacher", count), True), rel=1e-3)


def terms(v, reduced):
    """The two terms of :func:`sliced`."""
    s = score(X)
    norm = s.square().sum(1)[:, None] if reduced else (v * s[:, None]).sum(2).square()
    return (0.5 * norm).mean().item(), torch.einsum("bki,bij,bkj->bk", v, jacobians(X), v).mean().item()


SLICED = {
    "single_sliced_score_matching": (energy, "rademacher", False, 1.0),
    "partial_sliced_score_matching": (energy, "rademacher", True, 1.0),
    "sliced_score_matching": (energy, "sphere", False, 0.5),
    "sliced_score_estimation": (score, "sphere", False, 0.5),
    "sliced_score_matching_vr": (energy, "gaussian", True, 1.0),
    "sliced_score_estimation_vr": (score, "gaussian", True, 1.0),
}


@pytest.mark.parametrize("name", SLICED)
def test_a_sliced_loss_comes_with_its_terms_as_published(name):
    function = getattr(ncsn, name)
    net, kind, reduced, scale = SLICED[name]
    loss, loss1, loss2 = function(net, X, strict=True, **AT)
    assert torch.equal(loss, function(net, X, **AT))
    square, form = terms(vectors(kind) * scale, reduced)
    assert loss1.item() == pytest.approx(square, **CLOSE)
    assert loss2.item() == pytest.approx(form, **CLOSE)
    assert loss.item() == pytest.approx(square + form, **CLOSE)
    assert square != pytest.approx(terms(vectors(kind) * scale, not reduced)[0], rel=1e-3)

    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    slopes = [
        torch.autograd.grad(each, weight, retain_graph=True)[0]
        for each in function(lambda x: weight * net(x), X, strict=True, **AT)
    ]
    # The square grows as the second power of the weight, the form as the first.
    torch.testing.assert_close(slopes[1].item(), 2 * 0.5 * square, rtol=1e-12, atol=0)
    torch.testing.assert_close(slopes[2].item(), form, rtol=1e-12, atol=0)
    torch.testing.assert_close(slopes[0], slopes[1] + slopes[2], rtol=1e-12, atol=0)


def test_terms_are_detached_on_demand():
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    for function in (ncsn.single_sliced_score_matching, ncsn.partial_sliced_score_matching):
        for detach in (False, True):
            found = function(lambda x: weight * energy(x), X, detach=detach, strict=True, **AT)
            assert [each.requires_grad for each in found] == [not detach] * 3


def test_sliced_over_a_ladder():
    sigma = torch.tensor(LADDER, dtype=torch.float64)[LABELS][:, None]
    v = vectors("gaussian", 2)
    point = (X + sigma * Z).requires_grad_()
    s = net(point, LABELS)
    forms = []
    for k in range(2):
        (product,) = torch.autograd.grad((s * v[:, k]).sum(), point, retain_graph=True)
        forms.append((product * v[:, k]).sum(1))
    literal = (sigma[:, 0] ** 2 * (0.5 * s.square().sum(1) + torch.stack(forms).mean(0))).mean().item()
    found = ncsn.anneal_sliced_score_estimation_vr(net, X, LABELS, LADDER, 2, **AT)
    assert found.item() == pytest.approx(literal, **CLOSE)


def test_given_vectors_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"vectors must be projections \(B, K, \*\).*vectors\[:, None\]"):
        losses.ssm_loss(score, X, vectors=X)
    with pytest.raises(TypeError, match=r"vectors must be a torch\.Tensor"):
        losses.ssm_loss(score, X, vectors=[1.0])


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        (ncsn.sliced_score_estimation, score),
        (ncsn.sliced_score_estimation_vr, score),
        (ncsn.sliced_score_matching, energy),
        (ncsn.sliced_score_matching_vr, energy),
        (ncsn.single_sliced_score_matching, energy),
        (ncsn.partial_sliced_score_matching, energy),
    ],
)
def test_sliced_losses_name_their_own_argument(loss, of):
    with pytest.raises(TypeError, match=r"^samples must be float32"):
        loss(of, X.long(), **AT)
