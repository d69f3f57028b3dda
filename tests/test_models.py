"""The networks: shapes, the frame around the learnt part, conditioning, errors."""

import dataclasses

import pytest
import torch

import fastlangevin as fl
from fastlangevin.models import (
    MLP,
    NCSN,
    ConvConfig,
    ConvScore,
    MLPConfig,
    NCSNConfig,
    NCSNv2,
    NCSNv2Config,
    NCSNv2Deeper,
    NCSNv2Deepest,
    for_sampling,
)

SIGMAS = fl.geometric_sigmas(1.0, 0.01, 10)


def shaken(net):
    """A network whose weights are all random, the head's zeros too."""
    with torch.no_grad():
        for index, parameter in enumerate(net.parameters()):
            parameter.add_(0.1 * fl.randn((1, *parameter.shape), seed=index)[0].to(parameter.dtype))
    return net.eval()


def small(kind="conv"):
    if kind == "conv":
        return shaken(ConvScore(SIGMAS, ConvConfig(channels=2, widths=(8, 12))))
    return shaken(MLP(SIGMAS, MLPConfig(features=6, width=16, depth=2)))


def batch(kind, count=5):
    shape = (count, 2, 8, 12) if kind == "conv" else (count, 6)
    return fl.rand(shape, seed=1)


KINDS = pytest.mark.parametrize("kind", ["conv", "mlp"])


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (ConvConfig(), (3, 1, 8, 8)),
        (ConvConfig(), (2, 1, 28, 32)),
        (ConvConfig(channels=3, widths=(4,), patch=1), (2, 3, 5, 7)),
        (ConvConfig(widths=(4, 6, 8), blocks=2), (1, 1, 16, 24)),
        (ConvConfig(), (0, 1, 8, 8)),
    ],
)
def test_conv_shapes(config, shape):
    net = shaken(ConvScore(SIGMAS, config))
    score = net(torch.rand(shape), torch.zeros(shape[0], dtype=torch.int64))
    assert score.shape == shape
    assert score.is_contiguous()
    assert score.isfinite().all()


@KINDS
def test_new_network_is_the_score_of_a_gaussian(kind):
    if kind == "conv":
        net = ConvScore(SIGMAS, ConvConfig(channels=2, mean=0.3, std=0.4)).double()
    else:
        net = MLP(SIGMAS, MLPConfig(features=6, mean=0.3, std=0.4)).double()
    x, labels = batch(kind).double(), torch.tensor([0, 2, 4, 8, 9])
    sigma = net.sigmas[labels].reshape(-1, *[1] * (x.ndim - 1))
    torch.testing.assert_close(net(x, labels), -(x - 0.3) / (0.16 + sigma**2), rtol=1e-12, atol=1e-12)


def test_the_frame_is_the_formula(monkeypatch):
    net = MLP(SIGMAS, MLPConfig(features=6, mean=0.2, std=0.5)).double()
    seen = []

    def learnt(u, labels):
        seen.append(u)
        return torch.cos(u)

    monkeypatch.setattr(net, "features", learnt)
    x, labels = batch("mlp").double(), torch.tensor([0, 2, 4, 8, 9])
    sigma = net.sigmas[labels][:, None]
    u = (x - 0.2) / (0.25 + sigma**2).sqrt()
    h = -sigma * (x - 0.2) / (0.25 + sigma**2) + (0.25 / (0.25 + sigma**2)).sqrt() * torch.cos(u)
    torch.testing.assert_close(net(x, labels), h / sigma, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(seen[0], u, rtol=1e-12, atol=1e-12)


@KINDS
def test_samples_do_not_mix(kind):
    net, x, labels = small(kind).double(), batch(kind).double(), torch.tensor([0, 3, 5, 7, 9])
    changed = x.clone()
    changed[2] += 1
    first, second = net(x, labels), net(changed, labels)
    others = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(first[others], second[others], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(first[2], second[2])
    torch.testing.assert_close(net(x[1:2], labels[1:2]), first[1:2], rtol=1e-12, atol=1e-12)


@KINDS
def test_levels_condition_the_learnt_part(kind):
    net = small(kind)
    u = batch(kind, 2)
    one, other = (net.features(u, torch.full((2,), level)) for level in (3, 4))
    assert (one - other).abs().max() > 1e-3


@KINDS
def test_every_weight_gets_a_gradient(kind):
    net = small(kind)
    net(batch(kind, 10), torch.arange(10)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_memory_format_of_the_input_does_not_matter():
    net, x = small(), batch("conv")
    labels = torch.zeros(5, dtype=torch.int64)
    assert torch.equal(net(x, labels), net(x.to(memory_format=torch.channels_last), labels))


@KINDS
def test_compiles_in_one_graph(kind):
    net, x, labels = small(kind), batch(kind), torch.arange(5)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="eager")(x, labels), net(x, labels))


def replica(module):
    """What torch.nn.parallel.replicate makes of a module for each device of a DataParallel, here on the CPU."""
    made = module._replicate_for_data_parallel()
    for name, parameter in module._parameters.items():
        if parameter is None:
            made._parameters[name] = None
        else:
            setattr(made, name, parameter.clone())  # no parameter: it is no leaf
    for name, buffer in module._buffers.items():
        made._buffers[name] = buffer
    for name, child in module._modules.items():
        if child is None:
            made._modules[name] = None
        else:
            setattr(made, name, replica(child))
    return made


@pytest.mark.parametrize("kind", ["conv", "mlp", "log_sigma", "ncsn", "ncsnv2"])
def test_replicas_of_data_parallel_compute_what_the_network_does(kind):
    if kind == "log_sigma":
        net = shaken(MLP(SIGMAS, MLPConfig(features=6, width=16, depth=2, conditioning="log_sigma")))
    elif kind in ("conv", "mlp"):
        net = small(kind)
    elif kind == "ncsn":
        net = shaken(NCSN(SIGMAS, NCSNConfig(channels=2, width=8)))
    else:
        net = shaken(NCSNv2(SIGMAS, NCSNv2Config(channels=2, width=8)))
    x, labels = batch("mlp" if kind == "log_sigma" else "conv" if kind.startswith("ncsn") else kind), torch.arange(5)
    want = net(x, labels)
    got = replica(net)(x, labels)
    assert torch.equal(got, want)
    weight = next(net.parameters())
    (gradient,) = torch.autograd.grad(got.square().sum(), weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(want.square().sum(), weight)[0])
    with pytest.raises(RuntimeError):
        replica(net)(x.double(), labels)
    with pytest.raises(ValueError, match="x must be"):
        replica(net)(x[:, :1], labels)


def test_default_fits_the_shipped_size():
    net = ConvScore(SIGMAS)
    assert 4 * sum(tensor.numel() for tensor in net.state_dict().values()) < 2_000_000


def test_config_rebuilds_the_network():
    net = small()
    again = ConvScore(net.sigmas, ConvConfig(**dataclasses.asdict(net.config)))
    again.load_state_dict(net.state_dict())
    x, labels = batch("conv"), torch.arange(5)
    assert torch.equal(again(x, labels), net(x, labels))
    with pytest.raises(dataclasses.FrozenInstanceError):
        net.config.widths = (1,)


@pytest.mark.parametrize(
    ("kind", "x", "labels", "error", "message"),
    [
        ("conv", torch.zeros(5, 1, 8, 8), torch.arange(5), ValueError, r"\(B, 2, H, W\).*divisible by 4"),
        ("conv", torch.zeros(5, 2, 8, 10), torch.arange(5), ValueError, "divisible by 4.*pad the images"),
        ("conv", torch.zeros(5, 2, 8), torch.arange(5), ValueError, "x must be images"),
        ("mlp", torch.zeros(5, 7), torch.arange(5), ValueError, r"x must be flat data \(B, 6\), got \(5, 7\)"),
        ("mlp", torch.zeros(5, 6), torch.arange(4), ValueError, "labels must have one level for each sample"),
        ("mlp", torch.zeros(5, 6), torch.arange(5) + 6, ValueError, "to 9, got 10"),
        ("mlp", torch.zeros(5, 6), torch.arange(5) - 1, ValueError, "got -1"),
        ("mlp", torch.zeros(5, 6), torch.zeros(5), TypeError, "labels must be an int64 tensor"),
        ("mlp", torch.zeros(5, 6), 0, TypeError, "got int"),
    ],
)
def test_calls_are_checked(kind, x, labels, error, message):
    with pytest.raises(error, match=message):
        small(kind)(x, labels)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLPConfig(width=0), "width must be a positive integer, got 0"),
        (lambda: ConvConfig(widths=()), "widths must name at least one"),
        (lambda: ConvConfig(widths=(8, -1)), "widths must be a positive integer, got -1"),
        (lambda: ConvConfig(patch=1.5), "patch must be a positive integer"),
        (lambda: MLP(SIGMAS, MLPConfig(std=0.0)), "std must be finite and positive"),
        (lambda: MLP(SIGMAS.flip(0)), "sigmas must decrease"),
    ],
)
def test_configs_are_checked(build, message):
    with pytest.raises(ValueError, match=message):
        build()


EMPTY = {
    "conv": (lambda: ConvScore(SIGMAS, ConvConfig(channels=3, widths=(4, 4))), (0, 3, 8, 8)),
    "conv of single pixels": (lambda: ConvScore(SIGMAS, ConvConfig(channels=3, widths=(4,), patch=1)), (0, 3, 8, 8)),
    "mlp": (lambda: MLP(SIGMAS, MLPConfig(features=6, width=4, depth=2)), (0, 6)),
    "mlp of sigma": (lambda: MLP(SIGMAS, MLPConfig(features=6, width=4, conditioning="log_sigma")), (0, 6)),
    "ncsn": (lambda: NCSN(SIGMAS, NCSNConfig(width=4)), (0, 3, 8, 8)),
    "ncsnv2": (lambda: NCSNv2(SIGMAS, NCSNv2Config(width=4)), (0, 3, 8, 8)),
    "ncsnv2 deeper": (lambda: NCSNv2Deeper(SIGMAS, NCSNv2Config(width=4)), (0, 3, 8, 8)),
    "ncsnv2 deepest": (lambda: NCSNv2Deepest(SIGMAS, NCSNv2Config(width=4)), (0, 3, 16, 16)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("build", "shape"), EMPTY.values(), ids=EMPTY)
def test_the_gradients_of_an_empty_batch_are_those_of_no_samples(build, shape):
    net = build()
    labels = torch.zeros(0, dtype=torch.int64)
    x = torch.zeros(shape, requires_grad=True)
    out = net(x, labels)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    out.sum().backward()
    assert x.grad.shape == shape
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
    alone = net.requires_grad_(False)(x, labels)
    assert torch.autograd.grad(alone.sum(), x)[0].shape == shape
    assert for_sampling(net)(x, labels).shape == shape
