"""Networks of objectives that write to what they are given: loss, gradient and samples are as without it."""

import pytest
import torch
from torch import nn

import fastlangevin as fl
from fastlangevin.compat import ncsn, score_sde

LADDER = [1.0, 0.5, 0.1]
SHAPE = (4, 2, 6)
START = fl.randn(SHAPE, seed=1)
SDE = score_sde.VESDE(0.01, 2.0, 4)
WEIGHTS = nn.Parameter(torch.linspace(-1, 1, 12).view(2, 6))
LABELS = torch.tensor([0, 2, 1, 0])


def network(x, *labels):
    factor = 1 + labels[0].view(-1, 1, 1) if labels else 1
    return torch.tanh(x) * WEIGHTS * factor


def network_in_place(x, *labels):
    value = network(x, *labels)
    for each in labels:
        each.add_(1)
    x.tanh_()
    return x * WEIGHTS * (1 + (labels[0] - 1).view(-1, 1, 1) if labels else 1) + 0 * value


LOSSES = {
    "dsm": lambda net, x, labels: fl.dsm_loss(net, x, LADDER, labels=labels, seed=1),
    "dsm, drawn": lambda net, x, labels: fl.dsm_loss(net, x, LADDER, seed=1),
    "dsm, denoised": lambda net, x, labels: fl.dsm_loss(net, x, LADDER, labels=labels, seed=1, output="denoised"),
    "controlled": lambda net, x, labels: fl.losses.controlled_dsm_loss(
        net, x, LADDER, below=0.7, labels=labels, seed=1
    ),
    "single": lambda net, x, labels: fl.losses.single_dsm_loss(net, x, 0.5, seed=1),
    "sliced": lambda net, x, labels: fl.losses.ssm_loss(net, x, seed=1),
    "annealed sliced": lambda net, x, labels: fl.losses.annealed_ssm_loss(net, x, LADDER, labels=labels, seed=1),
    "implicit": lambda net, x, labels: fl.losses.ism_loss(net, x),
    "explicit": lambda net, x, labels: fl.losses.esm_loss(net, x, lambda x: x.neg_()),
    "score_sde": lambda net, x, labels: score_sde.get_smld_loss_fn(SDE, True)(net, x, seed=1),
    "energy": lambda net, x, labels: ncsn.dsm(lambda x: net(x).flatten(1).sum(1), x, 0.5, seed=1),
}


def loss_and_gradient(loss, net):
    x, labels = START.clone().contiguous(), LABELS.clone()
    value = loss(net, x, labels)
    (gradient,) = torch.autograd.grad(value, WEIGHTS)
    assert torch.equal(x, START)
    assert torch.equal(labels, LABELS)
    return value, gradient


@pytest.mark.parametrize("name", LOSSES)
def test_the_network_of_an_objective_may_work_in_place(name):
    got = loss_and_gradient(LOSSES[name], network_in_place)
    want = loss_and_gradient(LOSSES[name], network)
    # Gradients reach a weight by two ways here and by one there, in another order.
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_the_true_score_is_not_overwritten_by_the_score():
    buffer = torch.empty(SHAPE)

    def score(x):
        return torch.sin(x, out=buffer)

    with pytest.raises(RuntimeError, match=r"score wrote to the tensor that true_score returned"):
        fl.losses.esm_loss(score, START, score)
