"""What is kept of networks from call to call, and of a level, follows what it was made of; hooks are called."""

import copy
import dataclasses
import pickle

import pytest
import torch

import fastlangevin as fl
from fastlangevin.models import MLP, ConvConfig, ConvScore, MLPConfig

LADDER = fl.geometric_sigmas(2.0, 0.2, 4)
NETWORKS = {
    "mlp": (lambda ladder: MLP(ladder, MLPConfig(features=3, width=8, depth=2)), (5, 3)),
    "conv": (lambda ladder: ConvScore(ladder, ConvConfig(widths=(4,))), (5, 1, 4, 4)),
}
EACH = pytest.mark.parametrize("kind", NETWORKS)


def network(kind, ladder=LADDER):
    build, shape = NETWORKS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build(ladder)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return net.eval(), fl.randn(shape, seed=1)


LABELS = torch.tensor([0, 3, 1, 2, 2])


@EACH
def test_labels_that_are_written_to_are_checked_again(kind):
    net, x = network(kind)
    labels = LABELS.clone()
    want = net(x, labels)
    assert torch.equal(net(x, labels), want)
    labels[0] = 1
    assert not torch.equal(net(x, labels), want)
    labels[0] = 9
    with pytest.raises(ValueError, match=r"labels must be from 0 .* got 9"):
        net(x, labels)
    with pytest.raises(ValueError, match="one level for each sample"):
        net(x[:3], LABELS)


@EACH
@pytest.mark.parametrize("change", ["in place", "loaded", "replaced", "double", "copied", "pickled"])
def test_a_changed_ladder_is_followed(kind, change):
    other = fl.geometric_sigmas(3.0, 0.5, 4)
    (net, x), (fresh, _) = network(kind), network(kind, other)
    before = net(x, LABELS)
    if change == "in place":
        net.sigmas.copy_(other)
    elif change == "loaded":
        net.load_state_dict(fresh.state_dict())
    elif change == "replaced":
        net.sigmas = other.float()
    elif change == "double":
        net, fresh, x = net.double(), fresh.double(), x.double()
        net.sigmas = fresh.sigmas.clone()
    else:
        net = copy.deepcopy(net) if change == "copied" else pickle.loads(pickle.dumps(net))  # our own
        net.sigmas.copy_(other)
    found = net(x, LABELS)
    assert torch.equal(found, fresh(x, LABELS))
    assert not torch.equal(found, before)


@EACH
def test_they_are_called_in_inference_mode_and_then_trained(kind):
    net, x = network(kind)
    with torch.inference_mode():
        inner = net(x, LABELS.clone())
    found = net(x, LABELS)
    assert torch.equal(found, inner)
    found.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_hooks_of_layers_and_of_all_modules_are_called():
    net, x = network("mlp")
    want, seen = net(x, LABELS), []
    layers = (*net.layers, net.levels, net.head)
    own = [layer.register_forward_hook(lambda *given: seen.append("own")) for layer in layers]
    assert torch.equal(net(x, LABELS), want)
    assert seen == ["own"] * 4
    for hook in own:
        hook.remove()
    everywhere = torch.nn.modules.module.register_module_forward_hook(lambda *given: seen.append("any"))
    net(x, LABELS)
    everywhere.remove()
    assert seen.count("any") == 5  # and the network itself
    net(x, LABELS)
    assert len(seen) == 9
    net.levels.max_norm = 0.1
    assert not torch.allclose(net(x, LABELS), want)
    net.levels.max_norm = None
    torch.nn.utils.parametrizations.weight_norm(net.layers[0])
    with torch.no_grad():
        net.layers[0].parametrizations.weight.original0.mul_(2.0)
    assert not torch.allclose(net(x, LABELS), want)


@pytest.mark.parametrize("activation", ["silu", "elu", "softplus", "relu", "tanh"])
@pytest.mark.parametrize("conditioning", ["label", "log_sigma"])
def test_a_perceptron_at_a_level_is_the_perceptron(activation, conditioning):
    sizes = {"features": 3, "width": 16, "depth": 3, "mean": 0.4, "std": 1.7}
    net = MLP(LADDER, MLPConfig(**sizes, activation=activation, conditioning=conditioning)).eval()
    x = fl.randn((50, 3), seed=1)
    before = x.clone()
    with torch.no_grad():
        for index, parameter in enumerate(net.parameters()):
            parameter.copy_(0.5 * fl.randn((1, *parameter.shape), seed=index)[0])
        for level in range(4):
            found = net.at_level(x, level)(x)
            want = net.double()(x.double(), torch.full((50,), level))
            net.float()
            # Four products of 16 terms or less and their sums, in fp32: 40 roundings of what a network of such weights
            # enlarges by less than 100.
            torch.testing.assert_close(found.double(), want, rtol=0, atol=4000 * 2.0**-24 * float(want.abs().max()))
            others = torch.full((50,), (level + 1) % 4)
            assert not torch.allclose(found, net(x, others), rtol=0, atol=0.01 * float(want.abs().max()))
    assert torch.equal(x, before)


def test_a_perceptron_that_is_not_its_weights_alone_is_called():
    net, x = network("mlp")
    assert net.at_level(x, 0) is not None
    assert net.at_level(x.double(), 0) is None
    assert copy.deepcopy(net).double().at_level(x, 0) is None
    with net.head.register_forward_hook(lambda *given: None):
        assert net.at_level(x, 0) is None

    class Other(MLP):
        def features(self, u, labels):
            return u

    assert Other(LADDER, net.config).at_level(x, 0) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert net.at_level(x, 0) is None


def test_weights_that_change_between_runs_and_in_a_callback_are_followed():
    net, _ = network("mlp")
    scheme = fl.schemes.annealed_langevin(LADDER, epsilon=0.05, steps_per_level=3)
    options = {"seed": 4, "chain": "loop"}
    sampler = fl.Sampler(net, scheme, (5, 3), chain="loop")
    first = sampler(seed=4)
    assert torch.equal(first, fl.sample(net, scheme, shape=(5, 3), **options))

    def change(info):
        if info.step == 4:  # inside of a level
            net.head.weight.data.mul_(1.5)

    changed = fl.sample(net, scheme, shape=(5, 3), **options, callback=change, full_output=True, trajectory=1)
    assert torch.equal(sampler(seed=4), fl.sample(net, scheme, shape=(5, 3), **options))
    assert not torch.equal(sampler(seed=4), first)
    # From where they changed, the chain is that of the new weights.
    state = dataclasses.replace(changed.state, x=changed.trajectory[4], step=4, trajectory=None, telemetry=None)
    assert torch.equal(fl.sample(net, scheme, resume=state, chain="loop"), changed.samples)
