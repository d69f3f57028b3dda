"""Chains of a perceptron in one call: the noise's bits, the bound of the score's error, and what a chain depends on."""

import pytest
import torch

import fastlangevin as fl
from fastlangevin import ops, reference
from fastlangevin.kernels.operands import ChainNetwork, ChainUpdates
from fastlangevin.noise import Address, Purpose
from fastlangevin.reference import ACTIVATIONS

UNIT = 2.0**-24
# The largest slope of each activation, and what its own error may be in units of its largest term: 2^-22 for the
# polynomials of the C++ kernels (3 units of the last place) and PyTorch's, 2^-21 for the exponential of a GPU.
SLOPES = {"silu": 1.1, "elu": 1.0, "softplus": 1.0, "relu": 1.0, "tanh": 1.0}
SIZES = [(2, 64, 2), (1, 7, 1), (5, 20, 3), (32, 128, 2), (17, 16, 4)]


@pytest.fixture(params=["cpp", "triton"])
def kernel(request):
    """The implementations that have a kernel; Triton's in its interpreter."""
    if request.param == "triton":
        pytest.importorskip("triton")
        if torch.cuda.is_available():
            pytest.skip("with a CUDA device Triton compiles for it: see test_gpu.py")
    elif fl.runtime.explain("cpu")["cpp"] != "available":
        pytest.skip("no C++ compiler and no built library")
    return request.param


@pytest.fixture(params=["best", "avx512", "avx2", "sse2", "neon", "portable"])
def instruction_set(request):
    from fastlangevin.kernels.cpp import native

    if request.param != "best" and request.param not in native.instruction_sets():
        pytest.skip("this processor lacks it")
    native.use_instruction_set(None if request.param == "best" else request.param)
    yield request.param
    native.use_instruction_set(None)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def network(features=2, width=64, depth=2, levels=3, activation="silu", seed=1):
    def normal(*shape, draw):
        return fl.randn((1, *shape), seed=seed, draw=draw)[0]

    inputs = [features] + [width] * (depth - 1)
    weights = [normal(width, size, draw=i) / size**0.5 for i, size in enumerate(inputs)]
    weights.append(normal(features, width, draw=10) / width**0.5)
    frame = 0.5 + fl.rand((1, levels, 3), seed=seed)[0]
    return ChainNetwork(
        tuple(weights), normal(levels, depth, width, draw=11) / 2, normal(features, draw=12) / 2, frame, 0.2, activation
    )


def moves(count, levels=3):
    """Levels, coefficients and noise of some updates, one of them without noise."""
    level = torch.arange(count) * levels // count
    coefficients = torch.tensor([1.0, 0.05, 0.3]) + 0.01 * torch.arange(count)[:, None] * torch.tensor([-0.1, 1.0, 1.0])
    noisy = torch.arange(count) % 5 != 3
    return {"levels": level, "coefficients": coefficients, "noisy": noisy}


ADDRESS = {"seed": 7, "draw": 5, "sample_ids": None, "sample_offset": 3, "purpose": Purpose.LANGEVIN}


def chain(x, net, impl, count=4, **changes):
    matmul = changes.pop("matmul", "fp32")
    address = Address(**{name: changes.pop(name, value) for name, value in ADDRESS.items()})
    updates = ChainUpdates(**{**moves(count), "address": address, **changes})
    return ops.mlp_chain_(x.clone(), net, updates, matmul=matmul, impl=impl)


def states(batch, features):
    return fl.randn((batch, features), seed=3)


def bound(net, x, level, own):
    """The exact score in fp64 and how far an fp32 score may be from it.

    A sum of n products, in any order and fused or not, is within n + 1 roundings of the sum of their magnitudes; an
    activation passes its argument's error on with its slope and adds its own.
    """
    scale, gain, pull = net.frame[level].double()
    centred = x.double() - net.mean
    h, error = centred * scale, (x.double().abs() + abs(net.mean) + centred.abs()) * scale * 3 * UNIT
    biases = [*net.biases[level].double(), net.head.double()]
    for index, (weight, bias) in enumerate(zip(net.weights, biases, strict=True)):
        size = weight.shape[1] + 2
        terms = h.abs() @ weight.double().abs().T + bias.abs()
        error = error @ weight.double().abs().T + size * UNIT * terms
        h = h @ weight.double().T + bias
        if index < len(biases) - 1:
            activated = ACTIVATIONS[net.activation](h)
            error = SLOPES[net.activation] * error + own * (activated.abs() + 1)
            h = activated
    score = h * gain - centred * pull
    return score, error * gain + 4 * UNIT * ((h * gain).abs() + (centred * pull).abs())


def apart(net, x, count):
    """How far two results of a chain of ``count`` updates can be apart if their matrix products round differently.

    Triton's interpreter multiplies by NumPy, whose bits depend on the processor, the batch and the threads. The
    score is within its bound either way; an update passes the gap of the states on with its largest slope, and rounds
    three sums and three products.
    """
    plan, gap, state = moves(count), 0.0, x
    steep = SLOPES[net.activation] ** (len(net.weights) - 1)
    for weight in net.weights:
        steep *= weight.double().abs().sum(1).max().item()
    for index in range(count):
        level = int(plan["levels"][index])
        c, a, b = plan["coefficients"][index].abs().tolist()
        scale, gain, pull = net.frame[level].double().tolist()
        score, error = bound(net, state, level, 2.0**-22)
        gap = (c + a * (steep * scale * gain + pull)) * gap + 2 * a * error.max().item()
        gap += 12 * UNIT * (c * state.abs().max().item() + a * score.abs().max().item() + 7 * b)
        state = chain(x, net, "reference", **{name: values[: index + 1] for name, values in plan.items()})
    return gap


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", SIZES)
def test_the_score_is_within_its_roundings(sizes, activation, kernel):
    net, x = network(*sizes, activation=activation), states(19, sizes[0])
    score, error = bound(net, x, 1, 2.0**-22)
    plain = torch.tensor([[0.0, 1.0, 0.0]])
    one = {"levels": torch.tensor([1]), "coefficients": plain, "noisy": torch.tensor([False])}
    for impl in (kernel, "reference"):
        assert ((chain(x, net, impl, **one) - score).abs() <= error).all()
    # The bound is for the worst case, but weights that are a twentieth off are noticed.
    wrong = net._replace(weights=(net.weights[0] * 1.05, *net.weights[1:]))
    assert not ((chain(x, wrong, kernel, **one) - score).abs() <= error).all()


def test_the_score_on_every_instruction_set(instruction_set):
    net, x = network(5, 20, 2, activation="tanh"), states(50, 5)
    score, error = bound(net, x, 2, 2.0**-22)
    one = {"levels": torch.tensor([2]), "coefficients": torch.tensor([[0.0, 1.0, 0.0]]), "noisy": torch.tensor([False])}
    assert ((chain(x, net, "cpp", **one) - score).abs() <= error).all()


def silent(features):
    """A network whose score is zero, so that a chain is its noise."""
    net = network(features, 8, 1)
    return net._replace(frame=torch.zeros_like(net.frame))


def by_steps(x, count, **address):
    x, plan = x.clone(), moves(count)
    for index in range(count):
        c, a, b = plan["coefficients"][index].tolist()
        at = {**ADDRESS, **address, "draw": address.get("draw", ADDRESS["draw"]) + index}
        fl.step_(x, torch.zeros_like(x), c=c, a=a, b=b if plan["noisy"][index] else None, **at, impl="reference")
    return x


SEEDS = torch.arange(21) * 2**40 - 7
IDS = torch.arange(21).flip(0) * 2**33 + 1


@pytest.mark.parametrize(
    "address",
    [{}, {"seed": 2**64 - 1, "draw": 2**32 - 9}, {"seed": SEEDS}, {"sample_ids": IDS, "sample_offset": 0}],
    ids=["plain", "ends", "seeds", "ids"],
)
@pytest.mark.parametrize("features", [1, 2, 3, 4, 7, 16, 32])
def test_noise_and_update_have_the_bits_of_the_loop(features, address, kernel):
    x = states(21, features)
    made = chain(x, silent(features), kernel, 6, **address)
    assert torch.equal(made, by_steps(x, 6, **address))
    other = address | {"draw": ADDRESS["draw"] + 1}
    assert not torch.equal(made, by_steps(x, 6, **other))


def test_noise_on_every_instruction_set(instruction_set):
    x = states(21, 6)
    for address in ({}, {"seed": SEEDS}):
        assert torch.equal(chain(x, silent(6), "cpp", 6, **address), by_steps(x, 6, **address))


def test_a_chain_depends_on_its_own_address_alone(kernel, threads):
    count, updates = (150, 8) if kernel == "cpp" else (50, 2)
    net, x = network(3, 33, 2), states(count, 3)
    whole = chain(x, net, kernel, updates)
    gap = 0.0 if kernel == "cpp" else apart(net, x, updates)
    assert gap < 1e-3

    def same(found, wanted):
        return bool(((found - wanted).abs() <= gap).all())

    for first, last in ((0, 1), (31, 33), (45, count)):
        assert same(chain(x[first:last], net, kernel, updates, sample_offset=3 + first), whole[first:last])
    order = torch.arange(count).flip(0)
    turned = chain(x[order], net, kernel, updates, sample_ids=order + 3, sample_offset=0)
    assert same(turned, whole[order])
    assert not same(chain(x[order], net, kernel, updates), whole[order])
    threads(3)
    assert same(chain(x, net, kernel, updates), whole)


def test_a_chain_does_not_depend_on_its_cuts(kernel):
    net, x, plan = network(2, 16, 3), states(40, 2), moves(9)
    frames = torch.zeros(3, 40, 2)
    whole = chain(x, net, kernel, 9, every=4, frames=frames)
    single = x
    kept = []
    for index in range(9):
        part = {name: values[index : index + 1] for name, values in plan.items()}
        single = chain(single, net, kernel, **part, draw=5 + index)
        if (5 + index + 1) % 4 == 0:
            kept.append(single)
    assert torch.equal(whole, single)
    assert torch.equal(frames[: len(kept)], torch.stack(kept))
    assert not frames[len(kept) :].any()


@pytest.mark.parametrize(("every", "kept"), [(7, 0), (4096, 1)])
def test_frames_after_the_last_draw_number(kernel, every, kept):
    """Update 2^32, which 4096 divides and 7 does not, though its number in 32 bits is 0."""
    frames = torch.zeros(1, 40, 2)
    x = chain(states(40, 2), network(2, 16, 3), kernel, 2, draw=2**32 - 2, every=every, frames=frames)
    assert torch.equal(frames[0], x if kept else torch.zeros(40, 2))


def test_short_chains_follow_the_reference(kernel):
    # Contracting updates: the error of a step is not magnified by the next ones.
    net, x = network(4, 32, 2), states(30, 4)
    torch.testing.assert_close(chain(x, net, kernel, 5), chain(x, net, "reference", 5), rtol=1e-5, atol=1e-5)


def test_what_is_not_finite_stays_in_its_chain(kernel):
    net, x = network(2, 16, 2), states(40, 2)
    whole = chain(x, net, kernel)
    x[5, 0] = float("nan")
    made = chain(x, net, kernel)
    others = torch.arange(40) != 5
    assert torch.equal(made[others], whole[others])
    assert made[5].isnan().all()


@pytest.mark.parametrize("matmul", ["tf32", "bf16"])
def test_matrix_units_round_the_factors(matmul):
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("with a CUDA device Triton compiles for it: see test_gpu.py")
    net, x = network(4, 32, 2), states(20, 4)
    exact = chain(x, net, "triton", 1)
    rounded = chain(x, net, "triton", 1, matmul=matmul)
    # bf16 factors are off by 2^-8 each. The interpreter multiplies tf32 factors as they are, in tiles of another size.
    assert (rounded - exact).abs().max() < 0.02
    assert bool(((rounded - exact).abs() <= apart(net, x, 1)).all()) == (matmul == "tf32")


def test_activations_over_the_floats(instruction_set):
    from fastlangevin.kernels.cpp import mlp_chain

    bits = torch.arange(0, 2**32, 40009, dtype=torch.int64)
    y = torch.where(bits < 2**31, bits, bits - 2**32).to(torch.int32).view(torch.float32)
    y = torch.cat((y[y.isfinite()], torch.linspace(-100, 100, 40001)))
    wide = y.double()
    exact = {
        "silu": wide * wide.sigmoid(),
        "elu": torch.where(wide > 0, wide, wide.expm1()),
        "softplus": wide.clamp(min=0) + (-wide.abs()).exp().log1p(),
        "relu": wide.clamp(min=0),
        "tanh": wide.tanh(),
    }
    units = {"silu": 3, "elu": 1, "softplus": 3, "relu": 0, "tanh": 3}
    floors = {"silu": 1.5e-36, "softplus": 1.7e-38}
    for name, values in exact.items():
        spacing = 2.0 ** (values.abs().clamp(min=2.0**-126).log2().floor() - 23)
        error = (mlp_chain.activate(name, y).double() - values).abs()
        normal = wide > -87
        assert (error <= units[name] * spacing)[normal].all(), name
        assert (error <= torch.maximum(units[name] * spacing, torch.tensor(floors.get(name, 0.0))))[~normal].all(), name
        assert not (error <= 0.4 * units[name] * spacing)[normal].all() or name == "relu"
        assert mlp_chain.activate(name, torch.tensor([float("nan")])).isnan().all()


def test_the_operation_is_registered():
    net, x = network(3, 8, 1), states(4, 3)
    numbers = torch.zeros((), dtype=torch.int64)
    plan = moves(3)
    arguments = (x.clone(), None, list(net.weights), *net[1:4], net.mean, net.activation, *plan.values())
    torch.library.opcheck(
        torch.ops.fastlangevin.mlp_chain_, (*arguments, numbers, numbers, None, 0, 1, 0, "fp32", "reference")
    )


def test_the_reference_is_the_loop():
    net, x = network(3, 8, 2), states(6, 3)
    made = chain(x, net, "reference", 4)
    plan = moves(4)
    for index in range(4):
        c, a, b = plan["coefficients"][index].tolist()
        score = reference.mlp_score(net, x, int(plan["levels"][index]))
        at = {**ADDRESS, "draw": 5 + index}
        x = fl.step(x, score, c=c, a=a, b=b if plan["noisy"][index] else None, **at, impl="reference")
    assert torch.equal(made, x)
