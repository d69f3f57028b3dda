"""Networks made ready for sampling, and how many operations the fused ones are."""

import copy
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import fastlangevin as fl
from benchmarks import operations
from benchmarks.unfused import eager_norm, published_norm, unfused
from fastlangevin.models import NCSN, NCSNConfig, NCSNv2, NCSNv2Config, for_sampling, packing

LADDER = fl.geometric_sigmas(1.0, 0.01, 10)
X, LABELS = fl.rand((2, 3, 16, 16), seed=0), torch.tensor([2, 9])


def small(kind=NCSN):
    torch.manual_seed(0)
    return kind(LADDER, kind.CONFIG(width=8))


def error(got, want):
    dims = (1, 2, 3)
    return float(((got - want).abs().amax(dims) / want.abs().amax(dims)).max())


def test_the_copy_agrees_and_the_network_stays_as_it_is():
    net = small().train()
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        want = net(X, LABELS)
    ready = for_sampling(net)
    # Two orders of fp32 sums, in some hundred layers: as in test_ncsn.py.
    assert error(ready(X, LABELS), want) < 1e-5
    assert not any(parameter.requires_grad for parameter in ready.parameters())
    assert ready(X, LABELS).grad_fn is None
    assert not ready.net.training
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    convolutions = [
        module for module in ready.modules() if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)
    ]
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convolutions)


@pytest.mark.parametrize("kind", [NCSN, NCSNv2])
def test_bfloat16_is_that_of_autocast_with_the_weights_converted_once(kind):
    net = small(kind)
    ready = for_sampling(net, dtype=torch.bfloat16)
    got = ready(X, LABELS)
    assert got.dtype == torch.float32
    with torch.no_grad():
        want = net(X, LABELS)
        with torch.autocast("cpu", torch.bfloat16):
            cast = net.to(memory_format=torch.channels_last)(X, LABELS)
    assert torch.equal(got, cast)
    # Roundings of 2^-9 in some twenty layers, one behind the other.
    assert 1e-4 < error(got, want) < 0.1
    assert {module.weight.dtype for module in ready.modules() if isinstance(module, nn.Conv2d)} == {torch.bfloat16}
    if kind is NCSN:
        assert ready.net.normalizer.embed.weight.dtype == torch.float32


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("kind", [NCSN, NCSNv2])
def test_it_compiles(kind, monkeypatch):
    compile_whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net: compile_whole(net, backend="aot_eager", fullgraph=True))
    net = small(kind)
    got = for_sampling(net, compile=True)(X, LABELS)
    with torch.no_grad():
        assert error(got, net(X, LABELS)) < 1e-5


def test_a_sampler_takes_it_and_other_networks_are_welcome():
    options = {"shape": (2, 3, 16, 16), "epsilon": 1e-5, "steps_per_level": 1, "seed": 0}
    net = small()
    drifts, largest = [], []

    def scored(x, labels):
        with torch.no_grad():
            value = net(x, labels)
        drifts.append(options["epsilon"] * (LADDER[labels[0]] / LADDER[-1]).item() ** 2 * value.abs().max().item())
        largest.append(x.abs().max().item())
        return value

    want = fl.annealed_langevin(scored, LADDER, **options)
    # A score differs by 1e-5 of the largest at most, as above; the update takes three roundings of the state and moves
    # by the coefficient times the score, which is a tenth of sigma^2 at most, so that differences do not double.
    bound = 2 * (1e-5 * sum(drifts) + 3 * 2.0**-24 * sum(largest))
    got = fl.annealed_langevin(for_sampling(net), LADDER, **options)
    assert (got - want).abs().max() < bound
    half = fl.annealed_langevin(for_sampling(net, dtype=torch.bfloat16), LADDER, **options)
    assert (half - want).abs().max() > bound, "a network in bfloat16 is seen"
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))
    assert for_sampling(other, dtype=torch.bfloat16, channels_last=False)(X).shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "raised", "message"),
    [
        ({"net": lambda x: x}, TypeError, "net must be a torch.nn.Module, got function"),
        ({"dtype": torch.float64}, ValueError, "dtype must be torch.bfloat16, torch.float16 or None"),
        ({"dtype": "bf16"}, ValueError, "got bf16"),
    ],
    ids=["net", "dtype", "name of a dtype"],
)
def test_bad_arguments_are_named(options, raised, message):
    with pytest.raises(raised, match=message):
        for_sampling(**{"net": nn.Identity(), **options})


def test_the_operations_of_a_forward_pass(request):
    if request.config.getoption("--other-products"):
        pytest.skip("the products' distortion is made of operations too")
    found = operations.counts()
    for name, least, most in (("ncsn", 1000, 260), ("ncsnv2", 380, 160)):
        assert found[name]["published"] > least
        assert found[name]["fused"] <= most
    # On a GPU a norm is two launches, and those that check labels on the host are not made.
    assert found["ncsn"]["fused"] + found["ncsn"]["fused norms"] <= 260


@pytest.mark.parametrize("name", ["ncsn", "ncsnv2"])
def test_the_networks_that_are_compared_are_one(name):
    """The benchmark's unfused networks compute what the fused ones do."""
    kind, config = {"ncsn": (NCSN, NCSNConfig), "ncsnv2": (NCSNv2, NCSNv2Config)}[name]
    net = kind(LADDER, config(width=8))
    with torch.no_grad():
        want = net(X, LABELS)
        for function in (published_norm, eager_norm):
            assert error(unfused(net, function)(X, LABELS), want) < 1e-5


def test_convolutions_are_packed_and_where_they_cannot_be_they_stay():
    ready = for_sampling(small())
    packed = [module for module in ready.modules() if isinstance(module, packing.PackedConv2d)]
    assert len(packed) == 75
    want = ready(X, LABELS)
    assert all(module.packed is not None for module in packed)
    # Another shape, and then the first again: the blocks are made for each.
    assert ready(X[:1, :, :8], LABELS[:1]).shape == (1, 3, 8, 16)
    assert torch.equal(ready(X, LABELS), want)
    assert error(copy.deepcopy(ready)(X, LABELS), want) < 1e-5
    # Other weights, or the same in another dtype: the blocks are made from what is there.
    conv, image = packed[0], torch.ones(1, 3, 8, 8)
    with torch.no_grad():
        before = conv(image)
        conv.weight.mul_(2)
        conv.bias.mul_(2)
        torch.testing.assert_close(conv(image), 2 * before)
        assert conv.to(torch.bfloat16)(image).dtype == torch.bfloat16
    conv.to(torch.float32)
    with torch.enable_grad():
        assert conv(torch.zeros(1, 3, 8, 8, requires_grad=True)).requires_grad
    for other in (nn.Linear(2, 2), nn.Conv2d(2, 2, 3, padding="same"), nn.Conv2d(2, 2, 3, padding_mode="circular")):
        assert not packing.can_pack(other)


def test_weights_written_by_data_are_noticed():
    ready = for_sampling(small())
    before = ready(X, LABELS)
    weights = {name: 0.9 * value for name, value in ready.state_dict().items()}
    for name, parameter in ready.named_parameters():
        parameter.data.copy_(weights[name])
    del parameter
    got = ready(X, LABELS)
    ready.repack()
    assert torch.equal(ready(X, LABELS), got)
    # The same weights by another way.
    loaded = for_sampling(small())
    assert torch.equal(loaded(X, LABELS), before)
    loaded.load_state_dict(weights)
    assert torch.equal(loaded(X, LABELS), got)
    assert not torch.equal(before, got)


def load_in_inference_mode(ready):
    with torch.inference_mode():
        ready.load_state_dict({name: value.clone() for name, value in ready.state_dict().items()}, assign=True)
        ready(X)
        ready.load_state_dict({name: 0.5 * value for name, value in ready.state_dict().items()})


# Memory that comes back at its address with another tensor, as the allocator does it now and then.
def load_by_assignment(ready):
    array = np.ones((8, 3, 3, 3), np.float32)
    for factor in (1, 0.5):
        array *= factor
        ready.load_state_dict({**ready.state_dict(), "net.0.weight": torch.from_numpy(array)}, assign=True)
        ready(X)


def delete_and_set(ready):
    array, conv = np.ones((8, 3, 3, 3), np.float32), ready.net[0]
    for factor in (1, 0.5):
        array *= factor
        del conv.weight
        conv.weight = nn.Parameter(torch.from_numpy(array), requires_grad=False)
        ready(X)


def round_to_bfloat16(ready):
    ready.bfloat16().float()


def step_of_fused_adam(ready):
    for parameter in ready.parameters():
        parameter.requires_grad_().grad = torch.ones_like(parameter)
    torch.optim.Adam(ready.parameters(), lr=0.1, fused=True).step()


def write_by_data(ready):
    for parameter in ready.parameters():
        parameter.data.mul_(0.5)


def kept(share):
    """Writes by what was kept from before the call that makes blocks, and goes on being kept."""

    def change(ready):
        held = share(ready.net[0].weight)
        ready(X)
        yield
        with torch.inference_mode():
            held[...] = 0.25
        ready(X)
        held[...] = 0.5

    return change


def keep_a_storage(ready):
    storage = ready.net[0].weight.untyped_storage()
    ready(X)
    yield
    storage.fill_(0)


def keep_a_weak_reference(ready):
    reference = weakref.ref(ready.net[0].weight)
    ready(X)
    yield
    reference().data.mul_(0.5)


def memory_of_numpy(ready):
    array = np.ones((8, 3, 3, 3), np.float32)
    ready.net[0].weight = nn.Parameter(torch.from_numpy(array), requires_grad=False)
    ready(X)
    yield
    array *= 0.5


def write_to_a_shallow_copy(ready):
    conv = copy.copy(ready.net[0])
    ready(X)
    yield
    conv.weight.data.mul_(0.5)


CHANGES = {
    "load_state_dict in inference mode": load_in_inference_mode,
    "load_state_dict by assignment": load_by_assignment,
    "delete and set": delete_and_set,
    "to bfloat16 and back": round_to_bfloat16,
    "fused Adam": step_of_fused_adam,
    "data": write_by_data,
    "a kept parameter": kept(lambda weight: weight),
    "kept data": kept(lambda weight: weight.data),
    "a kept NumPy array": kept(lambda weight: weight.numpy()),
    "a kept array of DLPack": kept(lambda weight: torch.from_dlpack(weight.detach())),
    "a kept storage": keep_a_storage,
    "a weak reference": keep_a_weak_reference,
    "memory of NumPy": memory_of_numpy,
    "a shallow copy": write_to_a_shallow_copy,
}


def two_convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ELU(), nn.Conv2d(8, 4, 3, padding=1))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_computes_with_the_weights_that_it_has(change):
    ready = for_sampling(two_convolutions())
    before = ready(X)
    changing = change(ready)
    if changing is not None:
        next(changing)
        ready(X)
        list(changing)
    got = ready(X)
    plain = two_convolutions()
    plain.load_state_dict({name.removeprefix("net."): value for name, value in ready.state_dict().items()})
    with torch.no_grad():
        # Two orders of fp32 sums of 27 and 72 terms.
        assert error(got, plain(X)) < 1e-5
    assert error(before, got) > 1e-3


def test_it_computes_with_the_weights_of_functional_call():
    ready = for_sampling(two_convolutions())
    before = ready(X)
    for factor in (0.9, 0.8, 0.7):
        weights = {name: factor * value for name, value in ready.state_dict().items()}
        with torch.no_grad():
            plain = {name.removeprefix("net."): value for name, value in weights.items()}
            want = torch.func.functional_call(two_convolutions(), plain, X)
        assert error(torch.func.functional_call(ready, weights, X), want) < 1e-5
        assert torch.equal(ready(X), before)
    stacked = {name: torch.stack([value, 0.5 * value]) for name, value in ready.state_dict().items()}
    both = torch.func.vmap(lambda given: torch.func.functional_call(ready, given, X))(stacked)
    assert error(both[0], before) < 1e-5
    assert torch.equal(ready(X), before)


def test_blocks_are_used_again_once_nobody_else_has_the_weights():
    ready = for_sampling(two_convolutions())
    conv = ready.net[0]
    for share in (lambda: conv.weight, lambda: ready.state_dict(), lambda: list(ready.parameters())):
        held = share()
        ready(X)
        assert conv.packed is None
        del held
        ready(X)
        assert conv.packed is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, None])
def test_it_follows_autocast(dtype):
    net = two_convolutions()
    ready = for_sampling(net, channels_last=False)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
        want, got = net(X), ready(X)
    assert got.dtype == want.dtype == (dtype or torch.float32)
    # Two orders of sums of products of 8 bits, in fp32, and a rounding to 8 bits of each layer's result.
    assert error(got.float(), want.float()) < (2 * 2.0**-8 if dtype else 1e-5)
    assert for_sampling(net, dtype=torch.bfloat16)(X).dtype == torch.float32


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("default", [torch.float64, torch.float16])
def test_neither_default_device_nor_default_dtype_is_read(dtype, default):
    net = two_convolutions()
    want = for_sampling(net, dtype=dtype)(X)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        packing._alone.cache_clear()
        with torch.device("meta"):
            ready = for_sampling(net, dtype=dtype)
            got = ready(X)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(got, want)
    assert {type(module) for module in ready.net} == {type(module) for module in for_sampling(net, dtype=dtype).net}


def test_a_conversion_that_cannot_be_packed_is_computed_plainly(monkeypatch):
    """As bfloat16 on a processor that has no blocks for it."""
    right = packing._pack

    def pack(weight, conv, shape):
        if weight.dtype == torch.bfloat16:
            raise RuntimeError("bf16 path needs the cpu support")
        return right(weight, conv, shape)

    monkeypatch.setattr(packing, "_pack", pack)
    ready = for_sampling(two_convolutions())
    before = ready(X)
    assert ready.bfloat16()(X.bfloat16()).dtype == torch.bfloat16
    # Weights of 8 bits in two layers.
    assert 1e-4 < error(ready.float()(X), before) < 2 * 2.0**-7
    assert ready.net[0].packed is not None


def test_what_packing_does_not_do_is_done_by_the_plain_convolution():
    plain = nn.Conv2d(2, 3, 3, padding=1)
    packed, x = packing.PackedConv2d.of(plain), fl.rand((1, 2, 5, 6), seed=0)
    with torch.no_grad():
        assert torch.equal(packed(x[0]), plain(x[0]))
        assert torch.equal(packed.double()(x.double()), plain.double()(x.double()))
    net = small()
    with torch.no_grad():
        want = copy.deepcopy(net).double()(X.double(), LABELS)
    # As in fp32 above, with roundings of 2^-53 for 2^-24.
    assert error(for_sampling(net).double()(X.double(), LABELS), want) < 1e-5 * 2.0**-29


@pytest.mark.parametrize("wrong", ["missing", "another result"])
def test_an_operation_that_does_not_do_what_it_did_is_not_used(wrong, monkeypatch):
    def convolve(x, packed, conv):
        if wrong == "missing":
            raise AttributeError("no such operation")
        return right(x, packed, conv) * 1.01

    right = packing._convolve
    assert packing.can_pack(nn.Conv2d(8, 8, 3))
    monkeypatch.setattr(packing, "_convolve", convolve)
    assert not packing.can_pack(nn.Conv2d(8, 8, 3))
