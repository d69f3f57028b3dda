"""The standard networks: the published names and order of parameters, known outputs, the ways they are called."""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fastlangevin as fl
from fastlangevin import runtime
from fastlangevin.models import NCSN, NCSNConfig, NCSNv2, NCSNv2Config, NCSNv2Deeper, NCSNv2Deepest
from fastlangevin.models import instance_norm as norm_modules
from fastlangevin.ops import instance_norm

PUBLISHED = Path(__file__).parent / "published"
LADDER = fl.geometric_sigmas(1.0, 0.01, 10)
LABELS = torch.tensor([2, 9])
NETWORKS = {"ncsn": NCSN, "ncsnv2": NCSNv2, "ncsnv2_deeper": NCSNv2Deeper, "ncsnv2_deepest": NCSNv2Deepest}
SHAPES = {
    "ncsn": (3, 16, 24),
    "ncsn_mnist": (1, 28, 28),
    "ncsnv2": (3, 16, 24),
    "ncsnv2_deeper": (3, 24, 32),
    "ncsnv2_deepest": (3, 32, 48),
}

# Of networks of width 8 filled by `hashed`, in fp64: o is the output, G the gradient of half the sum of its squares.
# o[0,0,0,0], o[0,last,5,7], o[1,0,H-1,W-1], mean o[0], mean o[1], mean abs o[0], mean abs o[1], max abs o,
# mean abs G[0], mean abs G[1]
NUMBERS = {
    "ncsn": ("-0.4272807 -1.310611 0.5551742 -0.2045074 -0.155932 0.979316 1.138979 3.881459 4.62336 12.76231"),
    "ncsn_mnist": (
        "-0.07705398 -0.6042853 -0.06469668 -0.9153819 -1.111394 0.9934332 1.167755 4.293971 53.79837 5.753872"
    ),
    "ncsnv2": "-0.5664961 2.315257 -31.2655 -0.6056007 -17.82678 2.170089 73.44949 250.4592 112.864 101608.3",
    "ncsnv2_deeper": "1.741702 0.564332 -7.759959 0.2410947 8.473683 1.254516 43.86347 182.7172 5.784326 8601.508",
    "ncsnv2_deepest": "-0.7576035 0.08145618 -28.16238 0.3512752 11.46556 1.530178 55.64763 211.8415 42.06481 69224.47",
}
ALL = pytest.mark.parametrize("name", SHAPES)
ONE_OF_EACH = pytest.mark.parametrize("name", ["ncsn", "ncsnv2"])


pytestmark = pytest.mark.usefixtures("one_thread")


def uniform(count, k):
    """u(i, k), i < count: an integer hash of two indices, modulo 2^32, over 2^32."""
    i = np.arange(count, dtype=np.uint64)
    mask = np.uint64(2**32 - 1)
    h = (i * np.uint64(2654435761) + np.uint64((k * 2246822519 + 374761393) % 2**32)) & mask
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(2246822519)) & mask
    h ^= h >> np.uint64(13)
    h = (h * np.uint64(3266489917)) & mask
    h ^= h >> np.uint64(16)
    return torch.from_numpy(h.astype(np.float64) / 2**32)


def hashed(net):
    """Fills a network with numbers that depend on the order and the shapes of its parameters alone."""
    with torch.no_grad():
        for k, (name, parameter) in enumerate(net.named_parameters()):
            s = (2 * uniform(parameter.numel(), k) - 1).view(parameter.shape)
            if name.endswith("embed.weight"):
                affine = 2 * parameter.shape[1] // 3
                s = torch.cat([1 + 0.3 * s[:, :affine], 0.3 * s[:, affine:]], 1)
            elif name.endswith(("gamma", "alpha")):
                s = 1 + 0.3 * s
            elif name.endswith("beta"):
                s = 0.3 * s
            elif parameter.ndim == 4:
                s = s * math.sqrt(3 / parameter[0].numel())
            else:
                s = 0.1 * s
            parameter.copy_(s)
    return net.eval()


def small(name, width=8, channels=None):
    network = NETWORKS[name.removesuffix("_mnist")]
    config = NCSNConfig if network is NCSN else NCSNv2Config
    with torch.random.fork_rng(devices=[]):
        return hashed(network(LADDER, config(channels=channels or SHAPES[name][0], width=width)))


def images(name, count=2):
    shape = (count, *SHAPES[name])
    return uniform(math.prod(shape), 1000).float().reshape(shape)


def scaled_error(net, got, wanted):
    """Largest error of each sample relative to its largest output; a common factor such as 1/sigma cancels."""
    got, wanted = got.double().flatten(1), wanted.double().flatten(1)
    return ((got - wanted).abs().amax(1) / wanted.abs().amax(1)).max().item()


def figures(net, x):
    x = x.clone().requires_grad_()
    o = net(x, LABELS)
    (gradient,) = torch.autograd.grad(o.square().sum() / 2, x)
    return torch.stack(
        [
            o[0, 0, 0, 0],
            o[0, -1, 5, 7],
            o[1, 0, -1, -1],
            *o.mean((1, 2, 3)),
            *o.abs().mean((1, 2, 3)),
            o.abs().max(),
            *gradient.abs().mean((1, 2, 3)),
        ]
    ).detach()


def wanted(name):
    return torch.tensor([float(number) for number in NUMBERS[name].split()], dtype=torch.float64)


def test_the_hash_is_the_one_the_numbers_were_made_with():
    assert uniform(2, 0).tolist() == pytest.approx([0.01093084, 0.21373814], abs=5e-9)
    assert uniform(12346, 1000)[-1].item() == pytest.approx(0.14239383, abs=5e-9)


@ALL
def test_parameters_have_the_published_names_shapes_and_order(name):
    published = json.loads((PUBLISHED / f"{name}.json").read_text())
    levels = published.get("sigmas", [10])[0]
    config = {"ncsn": NCSNConfig(), "ncsn_mnist": NCSNConfig(channels=1, width=64)}.get(name, NCSNv2Config())
    sigmas = fl.geometric_sigmas(50.0, 0.01, levels)
    with torch.device("meta"):
        net = NETWORKS[name.removesuffix("_mnist")](sigmas, config)
    assert [(key, list(value.shape)) for key, value in net.state_dict().items()] == list(published.items())
    f, c = config.width, config.channels
    counts = {
        "ncsn": 1811 * f * f + (42 + 18 * c + 339 * 10) * f + c,
        "ncsnv2": 1811 * f * f + (123 + 18 * c) * f + c,
        "ncsnv2_deeper": 5091 * f * f + (215 + 18 * c) * f + c,
        "ncsnv2_deepest": 5743 * f * f + (253 + 18 * c) * f + c,
    }
    assert sum(parameter.numel() for parameter in net.parameters()) == counts[name.removesuffix("_mnist")]


@ALL
def test_outputs_and_gradients_are_the_known_numbers(name):
    # The numbers have seven digits.
    torch.testing.assert_close(figures(small(name).double(), images(name).double()), wanted(name), rtol=6e-7, atol=0)


@ALL
def test_fp32_agrees_with_fp64(name):
    # Some hundred roundings of 6e-8 one behind the other, of which the norms make the largest grow: less than 1e-5.
    net, x = small(name), images(name)
    with torch.no_grad():
        assert scaled_error(net, net(x, LABELS), net.double()(x.double(), LABELS)) < 1e-5


def _swapped(x, dims, *, correction, **options):
    return torch_var_mean(x, dims, correction=1 - correction, **options)


torch_var_mean, avg_pool2d, interpolate = torch.var_mean, F.avg_pool2d, F.interpolate

MUTANTS = {
    "variances swapped": ("ncsn", norm_modules.torch, "var_mean", _swapped),
    "unbiased variance of the pixels": (
        "ncsnv2",
        norm_modules.torch,
        "var_mean",
        lambda x, dims, correction, **options: torch_var_mean(x, dims, correction=1, **options),
    ),
    "padding not counted": (
        "ncsn",
        F,
        "avg_pool2d",
        lambda x, *sizes, **options: avg_pool2d(x, *sizes, count_include_pad=False),
    ),
    "corners not aligned": (
        "ncsnv2",
        F,
        "interpolate",
        lambda x, size, **options: interpolate(x, size, mode="bilinear", align_corners=False),
    ),
    "average where the maximum belongs": (
        "ncsnv2",
        F,
        "max_pool2d",
        lambda x, *sizes: avg_pool2d(x, *sizes),
    ),
    "another activation": ("ncsnv2", F, "elu", lambda x: torch.where(x > 0, x, torch.tanh(x))),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_block_misses_the_known_numbers(mutant, monkeypatch):
    name, module, function, replacement = MUTANTS[mutant]
    # The kernels would go past what is replaced.
    monkeypatch.setattr(runtime, "_automatic", partial(runtime.choose_for, "reference"))
    monkeypatch.setattr(module, function, replacement)
    got = figures(small(name).double(), images(name).double())
    assert ((got - wanted(name)).abs() / wanted(name).abs()).max() > 1e-4


def test_the_order_of_the_parameters_matters_to_the_known_numbers():
    net = small("ncsn").double()
    with torch.no_grad():
        first, last = net.res1[0].normalize1.embed.weight, net.res1[0].normalize2.embed.weight
        kept = first.clone()
        first.copy_(last)
        last.copy_(kept)
    assert not torch.allclose(figures(net, images("ncsn").double()), wanted("ncsn"), rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_norms_that_stand_before_an_activation_are_one_call_with_it(name, monkeypatch):
    seen = []

    def counting(call):
        def count(*args, activation=False, **options):
            seen.append(activation)
            return call(*args, activation=activation, **options)

        return count

    for name_of_call in ("instance_norm", "add_instance_norm"):
        monkeypatch.setattr(norm_modules, name_of_call, counting(getattr(norm_modules, name_of_call)))
    with torch.no_grad():
        small(name)(images(name), LABELS)
    norms = {"ncsn": (71, 57), "ncsnv2": (17, 17), "ncsnv2_deeper": (21, 21), "ncsnv2_deepest": (25, 25)}
    assert (len(seen), sum(seen)) == norms[name]


def test_the_norm_is_its_formula():
    x = fl.randn((3, 5, 4, 6), seed=0, dtype=torch.float64) + 2
    gamma, alpha, beta = fl.randn((3, 3, 5), seed=1, dtype=torch.float64)
    means = x.mean((2, 3))
    biased = (x - means[:, :, None, None]).square().mean((2, 3))
    unbiased = (means - means.mean(1, keepdim=True)).square().sum(1, keepdim=True) / 4
    m = (means - means.mean(1, keepdim=True)) / (unbiased + 1e-5).sqrt()
    n = (x - means[:, :, None, None]) / (biased + 1e-5).sqrt()[:, :, None, None]
    formula = gamma[:, :, None, None] * (n + (alpha * m)[:, :, None, None]) + beta[:, :, None, None]
    got = instance_norm(x, gamma, alpha, beta)
    torch.testing.assert_close(got, formula, rtol=1e-12, atol=1e-12)
    activated = instance_norm(x, gamma, alpha, beta, activation=True)
    torch.testing.assert_close(activated, torch.where(got > 0, got, got.expm1()), rtol=1e-12, atol=1e-12)


def test_the_norm_is_stable_where_the_mean_is_large_beside_the_spread():
    x = fl.randn((2, 4, 8, 8), seed=0) + 1000.0
    one, zero = torch.ones(4), torch.zeros(4)
    got = instance_norm(x, one, zero, zero)
    wide = instance_norm(x.double(), one.double(), zero.double(), zero.double())
    # The mean is off by at most a rounding of 1000, 3e-5. As mean(x^2) - mean(x)^2 the variance would be off by 0.06.
    assert (got - wide).abs().max() < 2e-4


def test_the_activation_is_exact_near_zero():
    # exp(x) - 1 would have no digit left of it.
    x = torch.linspace(-1e-6, -1e-9, 64)
    assert (F.elu(x) / x - 1).abs().max() < 1e-6


@ONE_OF_EACH
def test_a_constant_image_is_finite(name):
    net = small(name)
    for value in (0.5, 0.0, 100.0):
        x = torch.full((2, *SHAPES[name]), value, requires_grad=True)
        o = net(x, LABELS)
        o.sum().backward()
        assert o.isfinite().all()
        assert x.grad.isfinite().all()


@ONE_OF_EACH
def test_initial_values_have_their_distributions(name):
    net = NETWORKS[name](LADDER, (NCSNConfig if name == "ncsn" else NCSNv2Config)(width=16))
    for key, value in net.named_parameters():
        bound = 1 / math.sqrt(value[0].numel()) if value.ndim == 4 else 0
        if key.endswith("embed.weight"):
            scales, shifts = value.split([2 * value.shape[1] // 3, value.shape[1] // 3], 1)
        elif key.endswith(("gamma", "alpha")):
            scales, shifts = value, value[:0]
        elif key.endswith("beta"):
            scales, shifts = None, value
        else:
            # Of n uniform values the largest is beyond 0.9 of the bound but once in 0.9^-n.
            assert value.ndim == 1 or 0.9 * bound < value.abs().max() <= bound, key
            continue
        assert not shifts.any(), key
        if scales is not None:
            # Normal, mean 1, deviation 0.02: six deviations of mean and spread of n values.
            n = scales.numel()
            assert abs(scales.mean().item() - 1) < 6 * 0.02 / math.sqrt(n), key
            assert abs(scales.std().item() / 0.02 - 1) < 6 / math.sqrt(2 * n), key


@ONE_OF_EACH
def test_the_level_enters_where_it_should(name):
    net, x = small(name).double(), images(name).double()[:1].expand(2, -1, -1, -1)
    sigma = net.sigmas[LABELS][:, None, None, None]
    h = net(x, LABELS) * (sigma if name == "ncsnv2" else 1)
    same = torch.allclose(h[0], h[1], rtol=1e-12, atol=1e-12)
    assert same == (name == "ncsnv2"), "the body of NCSNv2 knows nothing of the level, that of NCSN does"


@ONE_OF_EACH
def test_images_are_rescaled_unless_they_are_already(name):
    net, x = small(name).double(), images(name).double()
    other = type(net)(net.sigmas, dataclasses.replace(net.config, rescale=False)).double()
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(2 * x - 1, LABELS), net(x, LABELS), rtol=1e-12, atol=0)


@ALL
def test_samples_do_not_mix_and_training_mode_changes_nothing(name):
    net, x = small(name).double(), images(name).double()
    with torch.no_grad():
        together = net(x, LABELS)
        torch.testing.assert_close(net(x[1:], LABELS[1:]), together[1:], rtol=1e-11, atol=1e-11)
        assert torch.equal(net.train()(x, LABELS), together)


@ONE_OF_EACH
def test_memory_format_does_not_matter(name):
    net, x = small(name), images(name)
    last = torch.channels_last
    with torch.no_grad():
        rows = net(x, LABELS)
        for other in (net(x.to(memory_format=last), LABELS), net.to(memory_format=last)(x, LABELS)):
            assert other.is_contiguous()
            # Two orders of fp32 sums: see test_fp32_agrees_with_fp64.
            assert scaled_error(net, other, rows) < 1e-5
        inner = []
        net.res2[1].register_forward_hook(lambda module, inputs, output: inner.append(output))
        net(x.to(memory_format=last), LABELS)
    assert all(term.is_contiguous(memory_format=last) for term in inner[0][0])


@ONE_OF_EACH
def test_autocast(name):
    net, x = small(name), images(name)
    with torch.no_grad():
        exact = net(x, LABELS)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(x, LABELS)
    assert mixed.dtype == torch.float32
    # Roundings of 2^-9, some twenty convolutions one behind the other, and their sums: up to a tenth of the output.
    assert 1e-4 < scaled_error(net, mixed, exact) < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_of_another_dtype(dtype):
    net, x = small("ncsn").to(dtype), images("ncsn").to(dtype)
    assert net(x, LABELS).dtype == dtype


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@ONE_OF_EACH
def test_compiles_in_one_graph(name):
    net, x = small(name), images(name)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    assert scaled_error(net, compiled(x, LABELS), net(x, LABELS)) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_gets_a_gradient(name):
    net = small(name, width=4)
    labels = torch.arange(10)
    shape = (10, 3, *((8, 8) if name in ("ncsn", "ncsnv2") else (16, 16)))
    fl.dsm_loss(net, fl.rand(shape, seed=0), net.sigmas, seed=0, labels=labels).backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@ONE_OF_EACH
def test_it_is_a_score_function_of_the_sampler(name):
    net = small(name, width=4, channels=1)
    samples = fl.annealed_langevin(
        net, net.sigmas, shape=(2, 1, 8, 8), epsilon=1e-5, steps_per_level=1, denoise=True, seed=0
    )
    assert samples.isfinite().all()
    assert (net.sigmas.double() - LADDER).abs().max() < 1e-7


@pytest.mark.parametrize("name", ["ncsn", "ncsnv2_deeper"])
def test_an_empty_batch(name):
    x = images(name)[:0]
    assert small(name)(x, LABELS[:0]).shape == x.shape


@pytest.mark.parametrize(("name", "least"), [("ncsn", (2, 4)), ("ncsnv2_deeper", (8, 4)), ("ncsnv2_deepest", (8, 16))])
def test_the_least_image_and_those_below(name, least):
    net = small(name)
    divisor = min(least)
    assert net(torch.rand(2, 3, *least), LABELS).isfinite().all()
    for height, width in ((divisor, divisor), (least[0] + divisor // 2, least[1]), (0, least[1])):
        with pytest.raises(ValueError, match=f"multiples of {divisor} and one of them at least {2 * divisor}"):
            net(torch.rand(2, 3, height, width), LABELS)


@ONE_OF_EACH
def test_files_keep_network_and_ladder(name, tmp_path):
    sigmas = fl.geometric_sigmas(7.0, 0.02, 10)
    net = NETWORKS[name](sigmas, small(name).config)
    net.load_state_dict({**net.state_dict(), **{k: v for k, v in small(name).state_dict().items() if k != "sigmas"}})
    net.save_pretrained(tmp_path / "net", metadata={"note": 1})
    again = NETWORKS[name].from_pretrained(tmp_path / "net")
    assert torch.equal(again.sigmas, sigmas.float())
    assert again.config == net.config
    assert torch.equal(again(images(name), LABELS), net(images(name), LABELS))
    other = NCSNv2 if name == "ncsn" else NCSN
    with pytest.raises(ValueError, match=f"holds a network of class {type(net).__name__}, not {other.__name__}"):
        other.from_pretrained(tmp_path / "net")
