"""The losses of compat.score_sde against the published formulas in fp64, with the noise of their addresses."""

import math

import pytest
import torch

import fastlangevin as fl
from fastlangevin.compat import score_sde as sde_lib
from fastlangevin.losses.dsm import dsm_labels
from fastlangevin.noise import Purpose

N, SEED, STEP = 20, 3, 4
SHAPE = (6, 2, 3)
EPS = 2.0**-53
SDES = {"ve": sde_lib.VESDE, "vp": lambda N: sde_lib.VPSDE(0.1, 15, N), "subvp": lambda N: sde_lib.subVPSDE(0.1, 15, N)}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64))

    def forward(self, x, label):
        self.seen = label
        return self.weight * torch.sin(x) + x / (1 + label.reshape(-1, 1, 1).to(x.dtype))


def data():
    return fl.randn(SHAPE, seed=1, dtype=torch.float64)


def z():
    return fl.randn(SHAPE, seed=SEED, draw=STEP, purpose=Purpose.DSM_NOISE, dtype=torch.float64)


def wide(value):
    return value.reshape(-1, 1, 1)


def reduced(losses, reduce_mean):
    return losses.flatten(1).mean(1) if reduce_mean else 0.5 * losses.flatten(1).sum(1)


def agree(loss_fn, formula, *mutants):
    """Value and gradient equal the formula's to rounding, and no mutant's."""
    net = Net()
    loss = loss_fn(net, data(), seed=SEED, step=STEP)
    (gradient,) = torch.autograd.grad(loss, net.weight)

    def errors(other):
        value = other(net)
        (slope,) = torch.autograd.grad(value, net.weight)
        return float((loss - value).detach().abs() / value.detach().abs()), float(
            (gradient - slope).norm() / slope.norm()
        )

    # Sums of 36 squares whose terms are up to 100 times their difference: 1e4 roundings are enough.
    assert max(errors(formula)) < 1e4 * EPS
    for mutant in mutants:
        assert min(errors(mutant)) > 1e-4
    return net


@pytest.mark.parametrize("reduce_mean", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("kind", SDES)
def test_the_loss_over_continuous_times(kind, weighted, reduce_mean):
    sde = SDES[kind](N=N)
    uniform = fl.rand((6, 1), seed=SEED, draw=STEP, purpose=Purpose.DSM_LEVEL, dtype=torch.float64)[:, 0]
    t = uniform * (1 - 1e-5) + 1e-5
    if kind == "ve":
        factor, std = torch.ones_like(t), 0.01 * 5000**t
        g2 = std**2 * 2 * (math.log(50) - math.log(0.01))
        label = std
    else:
        log_mean, beta = -0.25 * t**2 * 14.9 - 0.5 * t * 0.1, 0.1 + t * 14.9
        factor, variance = torch.exp(log_mean), 1 - torch.exp(2 * log_mean)
        std = variance if kind == "subvp" else variance.sqrt()
        g2 = beta * (1 - torch.exp(-2 * 0.1 * t - 14.9 * t**2)) if kind == "subvp" else beta
        label = t * 999

    def formula(net, sign=1, by=g2):
        perturbed = wide(factor) * data() + wide(std) * z()
        score = net(perturbed, label) if kind == "ve" else -net(perturbed, label) / wide(std)
        if weighted:
            return (reduced((score + sign * z() / wide(std)) ** 2, reduce_mean) * by).mean()
        return reduced((wide(std) * score + sign * z()) ** 2, reduce_mean).mean()

    mutants = [lambda net: formula(net, sign=-1)] + [lambda net: formula(net, by=g2.sqrt())] * weighted
    agree(sde_lib.get_sde_loss_fn(sde, True, reduce_mean, True, weighted), formula, *mutants)


@pytest.mark.parametrize("reduce_mean", [True, False])
def test_the_loss_over_a_ladder(reduce_mean):
    sigmas = torch.exp(torch.linspace(math.log(50), math.log(0.01), N, dtype=torch.float64))
    labels = dsm_labels(6, N, seed=SEED, step=STEP)

    def formula(net, power=2):
        sigma = wide(sigmas[labels])
        noise = z() * sigma
        score = net(data() + noise, labels)
        return (reduced((score + noise / sigma**2) ** 2, reduce_mean) * sigmas[labels] ** power).mean()

    loss_fn = sde_lib.get_smld_loss_fn(sde_lib.VESDE(0.01, 50, N), True, reduce_mean)
    net = agree(loss_fn, formula, lambda net: formula(net, power=1))
    assert net.seen.dtype == torch.int64


@pytest.mark.parametrize("reduce_mean", [True, False])
def test_the_loss_of_predicted_noise(reduce_mean):
    alpha_bar = torch.cumprod(1 - torch.linspace(0.1 / N, 15 / N, N, dtype=torch.float64), 0)
    labels = N - 1 - dsm_labels(6, N, seed=SEED, step=STEP)

    def formula(net, shift=0):
        kept = wide(alpha_bar[(labels + shift).clamp(0, N - 1)])
        return reduced((net(kept.sqrt() * data() + (1 - kept).sqrt() * z(), labels) - z()) ** 2, reduce_mean).mean()

    loss_fn = sde_lib.get_ddpm_loss_fn(sde_lib.VPSDE(0.1, 15, N), True, reduce_mean)
    net = agree(loss_fn, formula, lambda net: formula(net, shift=-1))
    assert torch.equal(net.seen, labels)


MAKERS = {
    "sde": lambda train: sde_lib.get_sde_loss_fn(sde_lib.VESDE(N=N), train),
    "smld": lambda train: sde_lib.get_smld_loss_fn(sde_lib.VESDE(N=N), train),
    "ddpm": lambda train: sde_lib.get_ddpm_loss_fn(sde_lib.VPSDE(N=30), train),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_addresses_and_modes(make):
    loss_fn, net = make(True), Net().double().eval()
    value = loss_fn(net, data(), seed=SEED, step=STEP)
    assert net.training
    assert torch.equal(value, loss_fn(net, data(), seed=SEED, step=STEP))
    assert not torch.equal(value, loss_fn(net, data(), seed=SEED, step=STEP + 1))
    # The mean over a batch is that of its samples, each at its own address.
    alone = [loss_fn(net, data()[i : i + 1], seed=SEED, step=STEP, sample_ids=[i]) for i in range(6)]
    torch.testing.assert_close(torch.stack(alone).mean(), value, rtol=1e-12, atol=0)
    assert not torch.equal(alone[0], loss_fn(net, data()[:1], seed=SEED, step=STEP, sample_offset=1))
    torch.manual_seed(0)
    one, two = loss_fn(net, data()), loss_fn(net, data())
    torch.manual_seed(0)
    assert torch.equal(one, loss_fn(net, data()))
    assert not torch.equal(one, two)
    make(False)(net, data(), seed=0)
    assert not net.training


@pytest.mark.gpu
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_losses_on_a_device(make):
    there = make(True)(Net().cuda(), data().cuda(), seed=SEED)
    torch.testing.assert_close(there.cpu(), make(True)(Net(), data(), seed=SEED), rtol=1e-10, atol=0)
