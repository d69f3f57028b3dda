"""The objective of small plain batches: the bits of the general way, and memory that is used again."""

import copy
import pickle

import pytest
import torch

import fastlangevin as fl
from fastlangevin.ops import quick, small_dsm

LADDER = fl.geometric_sigmas(2.0, 0.1, 5)
SHAPE = (6, 3, 4, 5)
X = fl.randn(SHAPE, seed=1)
OUTPUT = fl.randn(SHAPE, seed=2)


class Count:
    """The objective's results by the small way and by the general one, which small batches take if that is shut."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.small = 0
        own = small_dsm.loss

        def counted(*arguments):
            self.small += 1
            return own(*arguments)

        monkeypatch.setattr(small_dsm, "loss", counted)

    def general(self):
        self.monkeypatch.setattr(quick, "words", lambda *purpose, **address: None)


def evaluated(objective, x=X, output=OUTPUT, upstream=1.0, **options):
    """Perturbed samples, loss, gradient, sums by level and counts."""
    seen = []
    leaf = output.clone().requires_grad_()
    loss = objective(lambda x, labels: seen.append((x, labels)) or leaf, x, **{"seed": 7, "step": 3, **options})
    (loss * upstream).backward()
    (perturbed, labels), told = seen[0], objective.per_level
    return perturbed.clone(), labels, loss.detach(), leaf.grad, told.sums, told.counts


CASES = {
    "mean": ({}, {}),
    "sum": ({"reduction": "sum"}, {}),
    "noise": ({"output": "noise", "anneal_power": 1.0}, {}),
    "denoised": ({"output": "denoised"}, {}),
    "weights": ({"weights": [1.0, 2.0, 3.0, 4.0, 5.0]}, {"step": 2**32 - 1, "seed": 2**64 - 1}),
    "labels": ({}, {"labels": torch.tensor([0, 4, 2, 2, 1, 3])}),
    "ids": ({}, {"sample_ids": torch.tensor([5, 2**50, 1, 0, 9, 7])}),
    "offset": ({}, {"sample_offset": 2**40}),
    "scaled": ({}, {"upstream": 0.3}),
    "many elements": ({}, {"x": fl.randn((2, 5000), seed=1), "output": fl.randn((2, 5000), seed=2)}),
    "many samples": ({}, {"x": fl.randn((2000, 3), seed=1), "output": fl.randn((2000, 3), seed=2)}),
}


@pytest.mark.parametrize("workspace", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_it_has_the_bits_of_the_general_way(name, workspace, monkeypatch):
    made, options = CASES[name]
    count = Count(monkeypatch)
    found = evaluated(fl.DenoisingScoreMatching(LADDER, workspace=workspace, **made), **options)
    assert count.small == 1
    other = evaluated(fl.DenoisingScoreMatching(LADDER, **made), **{**options, "seed": 8})
    count.general()
    want = evaluated(fl.DenoisingScoreMatching(LADDER, **made), **options)
    assert count.small == 2
    assert all(torch.equal(one, two) for one, two in zip(found, want, strict=True))
    assert not torch.equal(other[3], want[3])


@pytest.mark.parametrize(
    "other",
    [
        {"x": X.double(), "output": OUTPUT.double()},
        {"x": X.transpose(2, 3), "output": OUTPUT.transpose(2, 3)},
        {"output": OUTPUT.half()},
        {"step": torch.tensor(3)},
        {"seed": torch.arange(6)},
    ],
    ids=["fp64", "strides", "fp16 output", "step in a tensor", "seeds"],
)
def test_what_is_not_plain_goes_the_general_way(other, monkeypatch):
    found = evaluated(fl.DenoisingScoreMatching(LADDER), **other)
    Count(monkeypatch).general()
    want = evaluated(fl.DenoisingScoreMatching(LADDER), **other)
    assert all(torch.equal(one, two) for one, two in zip(found, want, strict=True))


def test_a_network_is_called_once_whatever_it_returns():
    calls = []

    def net(x, labels):
        calls.append(1)
        return OUTPUT.half()

    fl.DenoisingScoreMatching(LADDER)(net, X, seed=7, step=3)
    assert len(calls) == 1
    with pytest.raises(ValueError, match="net must return a score of the shape of x"):
        fl.DenoisingScoreMatching(LADDER)(lambda x, labels: x[:2], X, seed=7, step=3)
    with pytest.raises(TypeError, match=r"net must be callable as net\(x, labels\)"):
        fl.DenoisingScoreMatching(LADDER)(None, X, seed=7, step=3)


def test_a_second_backward_pass_has_the_gradient_again():
    leaf = OUTPUT.clone().requires_grad_()
    loss = fl.DenoisingScoreMatching(LADDER)(lambda x, labels: leaf, X, seed=7, step=3)
    one, two = (torch.autograd.grad(loss * factor, leaf, retain_graph=True)[0] for factor in (1.0, 2.0))
    assert torch.equal(2 * one, two)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(loss, leaf, create_graph=True)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 5)

    def forward(self, x, labels):
        return self.layer(x)


def trained(workspace, steps=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
    objective = fl.DenoisingScoreMatching(LADDER, workspace=workspace)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3)
    losses, places = [], set()
    for step in range(steps):
        x = X[: 4 + 2 * (step % 2)]
        optimiser.zero_grad()
        loss = objective(lambda x, labels: places.add(x.data_ptr()) or net(x, labels), x, seed=7, step=step)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return [*losses, *net.parameters()]


def test_training_in_a_workspace_has_the_same_bits():
    found, want = trained(True), trained(False)
    assert all(torch.equal(one, two) for one, two in zip(found, want, strict=True))
    assert not torch.equal(found[-1], trained(True, steps=3)[-1])


def test_results_are_written_where_they_were():
    objective, net = fl.DenoisingScoreMatching(LADDER, workspace=True), Net()
    places, gradients = [], []

    def seen(x, labels):
        places.append(x.data_ptr())
        out = net(x, labels)
        out.register_hook(lambda gradient: gradients.append(gradient.data_ptr()))
        return out

    for step in range(3):
        objective(seen, X, seed=7, step=step).backward()
    assert len({*places}) == len({*gradients}) == 1
    assert {*places}.isdisjoint(gradients)


def test_a_workspace_of_two_graphs_is_refused():
    objective, net = fl.DenoisingScoreMatching(LADDER, workspace=True), Net()
    loss = objective(net, X, seed=7, step=0)
    with pytest.raises(RuntimeError, match=r"backward pass is still to come; call backward\(\) first"):
        objective(net, X, seed=7, step=1)
    del loss  # nobody can ask for its gradient any more
    loss = objective(net, X, seed=7, step=1)
    loss.backward(retain_graph=True)
    objective(net, X, seed=7, step=2)
    # The network's graph has the perturbed samples, which are others now.
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    # Without a graph nothing is kept.
    with torch.no_grad():
        objective(net, X, seed=7, step=3)
        objective(net, X, seed=7, step=4)
    # What is not plain has memory of its own.
    double = Net().double()
    losses = [objective(double, X.double(), seed=7, step=step) for step in range(2)]
    sum(losses).backward()


def test_an_objective_with_a_workspace_is_copied_and_pickled():
    objective, net = fl.DenoisingScoreMatching(LADDER, workspace=True), Net()
    want = objective(net, X, seed=7, step=0)
    for other in (copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):  # our own bytes
        assert torch.equal(other(net, X, seed=7, step=0), want)
