"""What networks keep from call to call follows what it was made of, and their layers are called where that is seen."""

import copy
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
