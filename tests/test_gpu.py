"""On a CUDA device: Triton against the C++ implementation and the reference, bit for bit."""

import math
import os
import subprocess
import sys

import pytest
import torch

import fastlangevin as fl
from fastlangevin.noise import Address, Purpose
from fastlangevin.ops import NO_FAULT
from fastlangevin.ops.sample_norms import norms_with_noise

pytestmark = pytest.mark.gpu

FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
SHAPES = [
    (1,),
    (5,),
    (2, 3),
    (64, 2),
    (3, 17),
    (2, 784),
    (300, 12),
    (1, 1025),
    (128, 3, 32, 32),
    (5, 4, 3, 7, 2),
    (0, 4),
]


def state(shape, dtype=torch.float32, seed=0):
    return fl.randn(shape, seed=seed, dtype=dtype, impl="cpp")


def same(one, other):
    torch.testing.assert_close(one.cpu(), other.cpu(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("uniform", [False, True])
def test_random_tensors(shape, uniform):
    make = fl.rand if uniform else fl.randn
    for options in ({"seed": 0}, {"seed": 2**64 - 1, "draw": 2**32 - 1, "sample_offset": 2**40}):
        same(make(shape, device="cuda", impl="triton", **options), make(shape, impl="cpp", **options))


def test_a_hundred_million_normals():
    for draw in range(6):
        same(
            fl.randn((16, 2**20), seed=5, draw=draw, device="cuda", impl="triton"),
            fl.randn((16, 2**20), seed=5, draw=draw, impl="cpp"),
        )


def test_the_reference_on_the_device():
    same(fl.randn((4, 2**18), seed=5, device="cuda", impl="reference"), fl.randn((4, 2**18), seed=5, impl="cpp"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_updates(shape, dtype):
    x, s = state(shape, dtype), state(shape, seed=1)
    options = {"a": 0.3, "b": 0.7, "c": 0.9, "seed": 3, "draw": 2}
    want = fl.step(x, s, impl="cpp", **options)
    same(fl.step(x.cuda(), s.cuda(), impl="triton", **options), want)
    # In place a row that two programs have would be updated twice.
    same(fl.step_(x.cuda(), s.cuda(), impl="triton", **options), want)


@pytest.mark.parametrize("score_dtype", FLOATS, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_score_dtypes(dtype, score_dtype):
    x, s = state((3, 1021), dtype), state((3, 1021), score_dtype, seed=1)
    same(fl.step(x.cuda(), s.cuda(), a=0.1, b=0.2, seed=1), fl.step(x, s, a=0.1, b=0.2, seed=1, impl="cpp"))


def test_layouts_and_options():
    x, s = state((3, 4, 5, 6)), state((3, 4, 5, 6), seed=1)
    known = state((3, 4, 5, 6), seed=2)
    mask = known > 0
    per_sample, per_element = torch.tensor([0.1, 0.2, 0.3]), state((3, 4, 5, 6), seed=4)
    cases = [
        {"a": 0.3, "b": 0.7},
        {"a": per_sample, "b": 0.7},
        {"a": per_element, "b": per_sample, "c": per_element},
        {"a": 0.3, "b": None},
        {"a": 0.3, "b": 0.7, "mask": mask, "known": known},
        {"a": 0.3, "b": 0.7, "noise": known},
        {"a": 0.3, "b": 0.7, "sample_ids": torch.tensor([2**50, 1, 7])},
    ]
    layouts = [
        lambda t: t,
        lambda t: t.to(memory_format=torch.channels_last),
        lambda t: t.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
        lambda t: torch.stack([t, t], -1)[..., 0],
        lambda t: torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape),
    ]
    for case in cases:
        address = {} if "noise" in case else {"seed": 3}
        want = fl.step(x, s, impl="cpp", **case, **address)
        moved = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in case.items()}
        for layout in layouts:
            same(fl.step(layout(x.cuda()), layout(s.cuda()), impl="triton", **moved, **address), want)
            y = layout(x.cuda())
            fl.step_(y, s.cuda(), impl="triton", **moved, **address)
            same(y, want)


def test_seed_and_draw_on_the_device():
    x = state((5, 33)).cuda()
    want = fl.step(x, x, a=0.1, b=0.2, seed=2**64 - 3, draw=9)
    seed, draw = torch.tensor(-3, device="cuda"), torch.tensor(9, device="cuda")
    same(fl.step(x, x, a=0.1, b=0.2, seed=seed, draw=draw), want)
    same(fl.step(x, x, a=0.1, b=0.2, seed=seed.expand(5).contiguous(), draw=draw), want)


def test_more_than_2_to_31_elements():
    if torch.cuda.get_device_properties(0).total_memory < 30 * 2**30:
        pytest.skip("needs 30 GiB of device memory")
    elements = 2**31 + 4099
    x = torch.zeros(1, elements, dtype=torch.bfloat16, device="cuda")
    fl.step_(x, x, a=0.0, b=1.0, seed=1)
    tail = fl.randn((1, elements), seed=1, purpose=1, dtype=torch.bfloat16, device="cuda")
    assert torch.equal(x[:, -10_000:], tail[:, -10_000:])
    assert torch.equal(x[:, :10_000], tail[:, :10_000])
    many = torch.zeros(2**30 + 5, 2, dtype=torch.bfloat16, device="cuda")
    fl.step_(many, many, a=0.0, b=1.0, seed=1)
    last = fl.randn((3, 2), seed=1, purpose=1, sample_offset=2**30 + 2, dtype=torch.bfloat16, device="cuda")
    assert torch.equal(many[-3:], last)


def test_a_captured_graph_draws_what_its_tensors_say():
    x = state((4, 99)).cuda()
    draw = torch.zeros((), dtype=torch.int64, device="cuda")
    seed = torch.tensor(5, device="cuda")
    a, b = torch.tensor(0.1, device="cuda"), torch.tensor(0.2, device="cuda")
    want = x.clone()
    work = x.clone()
    fl.step_(work.clone(), work, a=a, b=b, seed=seed, draw=draw)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fl.step_(work, work, a=a, b=b, seed=seed, draw=draw)
        draw.add_(1)
    for step in range(100):
        graph.replay()
        fl.step_(want, want, a=0.1, b=0.2, seed=5, draw=step)
        assert torch.equal(work, want), step


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_faults_and_norms(dtype, freeze):
    for shape in ((64, 2), (3, 1025), (128, 3, 32, 32)):
        x, s = state(shape, dtype), state(shape, seed=1)
        s.view(shape[0], -1)[1, -1], s.view(shape[0], -1)[2, 0] = math.nan, math.inf
        mine, theirs = torch.full((shape[0],), NO_FAULT, device="cuda"), torch.full((shape[0],), NO_FAULT)
        y, z = x.cuda(), x.clone()
        for draw in (3, 4, 5):
            options = {"a": 0.3, "b": 0.7, "seed": 3, "draw": draw, "freeze": freeze}
            fl.step_(y, s.cuda(), fault=mine, impl="triton", **options)
            fl.step_(z, s, fault=theirs, impl="cpp", **options)
            same(y, z)
        assert torch.equal(mine.cpu(), theirs)
        assert theirs[:3].tolist() == [NO_FAULT, 3, 3]
        address = Address(5, 0, None, 0, Purpose.LANGEVIN)
        for one, other in zip(
            norms_with_noise(x.cuda(), address, impl="triton"), norms_with_noise(x, address, impl="cpp"), strict=True
        ):
            same(one, other)


def test_a_captured_graph_records_its_draws():
    x, s = torch.zeros(2, 8, device="cuda"), torch.zeros(2, 8, device="cuda")
    fault, draw = torch.full((2,), NO_FAULT, device="cuda"), torch.zeros((), dtype=torch.int64, device="cuda")
    options = {"a": 1.0, "b": 0.5, "seed": 1, "draw": draw, "fault": fault, "freeze": True}
    fl.step_(x, s, **options)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fl.step_(x, s, **options)
    for number in (1, 2, 3, 4):
        draw.fill_(number)
        s[1] = math.inf if number >= 3 else 0.0
        graph.replay()
    assert fault.tolist() == [NO_FAULT, 3]


def test_repeats_are_bitwise():
    x, s = state((128, 3, 32, 32)).cuda(), state((128, 3, 32, 32), seed=1).cuda()
    first = fl.step(x, s, a=0.1, b=0.2, seed=0)
    for _ in range(200):
        assert torch.equal(fl.step(x, s, a=0.1, b=0.2, seed=0), first)


def test_another_stream():
    x, s = state((64, 3, 32, 32)).cuda(), state((64, 3, 32, 32), seed=1).cuda()
    want = fl.step(x, s, a=0.1, b=0.2, seed=0)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        got = fl.step(x, s, a=0.1, b=0.2, seed=0)
    stream.synchronize()
    assert torch.equal(got, want)


@pytest.mark.filterwarnings("ignore")
def test_compiled_calls_are_few_and_have_the_same_bits():
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("inductor")
    compiled = torch.compile(
        lambda x, s, a, b, seed, draw: fl.step(x, s, a=a, b=b, seed=seed, draw=draw), fullgraph=True, backend=counter
    )
    x, s = state((3, 7)).cuda(), state((3, 7), seed=1).cuda()
    for step in range(50):
        numbers = (0.1 / (step + 1), 0.3 + 0.01 * step, step * 2**50, step)
        want = fl.step(x, s, a=numbers[0], b=numbers[1], seed=numbers[2], draw=numbers[3])
        assert torch.equal(compiled(x, s, *numbers), want)
    assert counter.frame_count <= 4


def test_a_chain_of_the_shipped_sampler():
    sigmas = fl.geometric_sigmas(1.0, 0.1, 4)

    def score(x, labels):
        # Powers of two and sums: the same bits on every device.
        return -0.5 * x

    options = {"shape": (7, 3, 5, 5), "epsilon": 1e-3, "steps_per_level": 10, "seed": 4, "denoise": True}
    same(fl.annealed_langevin(score, sigmas, device="cuda", **options), fl.annealed_langevin(score, sigmas, **options))


def test_generators_of_the_device():
    generator = torch.Generator("cuda").manual_seed(3)
    one = fl.randn((2, 5), generator=generator, device="cuda")
    two = fl.randn((2, 5), generator=generator, device="cuda")
    assert not torch.equal(one, two)
    generator.manual_seed(3)
    assert torch.equal(fl.randn((2, 5), generator=generator, device="cuda"), one)


def test_import_does_not_initialise_cuda():
    code = "import torch, fastlangevin, sys; sys.exit(torch.cuda.is_initialized() or 'triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0


def test_values_at_the_edges():
    values = torch.tensor([[math.nan, math.inf, -math.inf, 3e38, -0.0, 1e-45, 1e-40, 65520.0]])
    for dtype in FLOATS:
        x, s = values.to(dtype), values.flip(1).to(dtype)
        options = {"a": 1.5, "b": 0.5, "seed": 3}
        same(fl.step(x.cuda(), s.cuda(), **options), fl.step(x, s, impl="cpp", **options))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) > 1 and shape[0]] + [(300, 5)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("options", [{}, {"output": "denoised"}, {"reduction": "none", "output": "noise"}], ids=str)
def test_the_objective_and_its_gradient(shape, dtype, options):
    sigmas = fl.geometric_sigmas(1.0, 0.01, 10)
    results = []
    for device, impl in (("cuda", "triton"), ("cpu", "cpp")):
        x = state(shape, dtype).to(device)
        h = state(shape, dtype, seed=1).to(device).requires_grad_()
        objective = fl.DenoisingScoreMatching(sigmas, anneal_power=1.7, impl=impl, **options)
        loss = objective(lambda x, labels, h=h: h, x, seed=3, step=9, sample_offset=2**40)
        (gradient,) = torch.autograd.grad(loss.sum() * 0.5, h)
        noisy = fl.perturb(x, sigmas.to(device), seed=3, draw=9, impl=impl)
        results.append((loss, gradient, *objective.per_level, *noisy))
    for found, wanted in zip(*results, strict=True):
        same(found, wanted)


def test_the_objective_in_layouts_and_in_a_graph():
    sigmas = fl.geometric_sigmas(1.0, 0.01, 10)
    objective = fl.DenoisingScoreMatching(sigmas)
    x = state((16, 3, 32, 32)).cuda()
    h = state((16, 3, 32, 32), seed=1).cuda()
    step = torch.zeros((), dtype=torch.int64, device="cuda")
    wanted = [objective(lambda x, labels: h, x, seed=3, step=number) for number in range(5)]
    strided = objective(lambda x, labels: h.to(memory_format=torch.channels_last), x, seed=3, step=0)
    same(strided, wanted[0])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = objective(lambda x, labels: h, x, seed=3, step=step)
    for number in range(5):
        step.fill_(number)
        graph.replay()
        same(loss, wanted[number])


def test_the_objective_stores_neither_noise_nor_target():
    sigmas = fl.geometric_sigmas(1.0, 0.01, 10)
    objective = fl.DenoisingScoreMatching(sigmas)
    x = state((64, 3, 64, 64)).cuda()
    h = state((64, 3, 64, 64), seed=1).cuda().requires_grad_()
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss = objective(lambda x, labels: h, x, seed=3)
        (gradient,) = torch.autograd.grad(loss, h)
        extra = torch.cuda.max_memory_allocated() - before - 2 * x.nbytes
        del loss, gradient
    assert extra < 0.01 * x.nbytes


def test_a_thousand_repeats_of_the_objective_have_the_same_bits():
    sigmas = fl.geometric_sigmas(1.0, 0.01, 10)
    objective = fl.DenoisingScoreMatching(sigmas)
    x = state((64, 3, 32, 32)).cuda()
    h = state((64, 3, 32, 32), seed=1).cuda().requires_grad_()
    first = None
    for _ in range(1000):
        loss = objective(lambda x, labels: h, x, seed=3)
        (gradient,) = torch.autograd.grad(loss, h)
        found = (loss, gradient, *objective.per_level)
        first = first or found
        assert all(torch.equal(one, other) for one, other in zip(found, first, strict=True))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(64, 128, 32, 32), (1, 3, 256, 256), (5, 512, 4, 4), (3, 6, 33, 17)], ids=str)
def test_instance_norm_and_its_gradient(shape, channels_last):
    from fastlangevin import reference
    from fastlangevin.kernels.operands import InstanceNorm, InstanceNormGradients, Statistics
    from fastlangevin.kernels.triton.instance_norm import instance_norm
    from fastlangevin.kernels.triton.instance_norm_backward import instance_norm_backward

    kept = torch.channels_last if channels_last else torch.contiguous_format
    x, gradient = (state(shape, seed=seed).contiguous(memory_format=kept) for seed in (0, 1))
    leaves = [x.double(), *(state(shape[:2], seed=seed).double() for seed in (2, 3, 4))]
    want, _, _ = reference.instance_norm(InstanceNorm(*(leaf.requires_grad_() for leaf in leaves), True))
    wanted = want, *torch.autograd.grad(want, leaves, gradient.double())
    x, gradient = x.cuda(), gradient.cuda()
    parameters = [leaf.detach().float().cuda() for leaf in leaves[1:]]

    def run():
        out, grad_x = torch.full_like(x, math.nan), torch.full_like(x, math.nan)
        mean, rstd, *rows = (torch.full_like(parameters[0], math.nan) for _ in range(5))
        given, statistics = InstanceNorm(x, *parameters, True), Statistics(mean, rstd)
        instance_norm(out, None, statistics, given)
        instance_norm_backward(InstanceNormGradients(grad_x, *rows), gradient, given, statistics)
        return out, grad_x, *rows

    first = run()
    for found, correct in zip(first, wanted, strict=True):
        # Relative to the largest: means of few channels are of 1/sqrt(HW), and dividing by their deviation makes of a
        # rounding of 2^-24 up to 10^2 of them; those of test_triton_instance_norm.py are derived element by element.
        scale = correct.abs().max().item()
        torch.testing.assert_close(found.double().cpu(), correct.detach(), rtol=0, atol=1e-4 * scale)
    for _ in range(100):
        assert all(torch.equal(one, other) for one, other in zip(run(), first, strict=True))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((16, 128, 32, 32), 32),
        ((1, 3, 256, 256), 1),
        ((5, 512, 4, 4), 32),
        ((3, 30, 33, 17), 3),
        ((2, 320, 16, 16), 32),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_group_norm_and_its_gradient(shape, groups, dtype, channels_last):
    from group_norm_bounds import case

    from fastlangevin.ops import group_norm

    given = case(shape, groups, dtype, torch.channels_last if channels_last else torch.contiguous_format)
    leaves = [each.cuda().requires_grad_() for each in (given.x, given.weight, given.bias)]
    upstream = given.upstream.cuda()

    def run(count):
        x = leaves[0][:count]
        out = group_norm(x, groups, *leaves[1:], eps=given.eps, activation=True, impl="triton")
        return out.detach(), *torch.autograd.grad(out, (x, *leaves[1:]), upstream[:count])

    first = run(shape[0])
    given.check(first)
    # Of the images: the order in which PyTorch sums the samples' gradients is its own.
    for _ in range(20):
        assert all(torch.equal(one, other) for one, other in zip(run(shape[0])[:2], first[:2], strict=True))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(run(1)[:2], first[:2], strict=True))


@pytest.mark.filterwarnings("ignore")
def test_group_norm_compiles_whole_and_is_captured():
    from fastlangevin.ops import group_norm

    x, weight, bias = state((4, 32, 16, 16)).cuda(), state((32, 1)).cuda()[:, 0], state((32, 1), seed=1).cuda()[:, 0]

    def f(x):
        return group_norm(x, 8, weight, bias, activation=True)

    want = f(x)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(f, fullgraph=True)(x), want)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = f(x)
    x.neg_()
    graph.replay()
    assert torch.equal(got, f(x))


@pytest.mark.parametrize("sizes", [(2, 64, 2), (5, 20, 1), (32, 64, 4), (16, 128, 3)], ids=str)
@pytest.mark.parametrize("activation", ["silu", "elu", "softplus", "relu", "tanh"])
def test_chains_of_a_perceptron(sizes, activation):
    """The noise bit for bit; the score within its roundings, and with matrix units within those of their factors."""
    features, width, depth = sizes
    sizes = {"features": features, "width": width, "depth": depth}
    net = fl.models.MLP([1.0, 0.5, 0.2], fl.models.MLPConfig(**sizes, activation=activation)).eval()
    run = {"epsilon": 0.01, "steps_per_level": 4, "seed": 3, "full_output": True, "trajectory": 5}
    start = state((300, features))
    # A new network is a Gaussian's score, whose products are all zero.
    plain = [
        fl.annealed_langevin(net.to(device), net.sigmas, init=start.to(device), **run) for device in ("cuda", "cpu")
    ]
    same(plain[0].samples, plain[1].samples)
    same(plain[0].trajectory, plain[1].trajectory)
    with torch.no_grad():
        for index, parameter in enumerate(net.parameters()):
            parameter.add_(0.2 * fl.randn((1, *parameter.shape), seed=index)[0])
    exact = fl.annealed_langevin(net, net.sigmas, init=start, **run).samples
    net.cuda()
    for matmul, tolerance in (("fp32", 1e-4), ("tf32", 0.02), ("bf16", 0.1)):
        if matmul == "tf32" and (width, depth) == (128, 3):
            continue
        made = fl.annealed_langevin(net, net.sigmas, init=start.cuda(), matmul=matmul, **run)
        torch.testing.assert_close(made.samples.cpu(), exact, rtol=tolerance, atol=tolerance)
        part = fl.annealed_langevin(
            net, net.sigmas, init=start[40:60].cuda(), matmul=matmul, sample_offset=40, **{**run, "trajectory": 0}
        )
        same(part.samples, made.samples[40:60])
