"""The fused objective: its sums and gradients against the plain formula, in every mode a training loop uses it in."""

import importlib
import itertools

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import fastlangevin as fl
from fastlangevin import ops, reference
from fastlangevin.losses import DenoisingScoreMatching, dsm_loss
from fastlangevin.noise import Purpose

SIGMAS = fl.geometric_sigmas(1.0, 0.01, 10)
OUTPUTS = ("score", "scaled", "noise", "denoised")
# Inductor itself needs a compiler and seconds for each program; what is traced and differentiated is the same.
BACKEND = "aot_eager"
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Net(torch.nn.Module):
    """A network with one weight, so that its gradient has a closed form in the tests."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(-0.3, dtype=dtype))

    def forward(self, x, labels):
        return self.weight * x


def data(shape=(12, 3, 4, 4), dtype=torch.float32):
    return fl.rand(shape, seed=1, dtype=dtype)


def known_noise(x, seed, step):
    return fl.randn(x.shape, seed=seed, draw=step, purpose=Purpose.DSM_NOISE, dtype=torch.float64)


def as_score(h, perturbed, sigma, output):
    return {"score": h, "scaled": h / sigma, "noise": -h / sigma, "denoised": (h - perturbed) / sigma**2}[output]


def literal(net, x, labels, z, *, output="score", power=2.0, weights=None):
    """Each sample's value as the papers write it, in fp64."""
    sigma = SIGMAS[labels].reshape(-1, *[1] * (x.ndim - 1))
    perturbed = x.double() + sigma * z
    score = as_score(net(perturbed, labels).double(), perturbed, sigma, output)
    values = 0.5 * sigma**power * (score + z / sigma) ** 2
    factor = 1.0 if weights is None else torch.as_tensor(weights, dtype=torch.float64)[labels]
    return values.flatten(1).sum(1) * factor


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("power", "weights"), [(2.0, None), (0.0, None), (1.5, list(range(10)))])
def test_every_convention_is_the_literal_objective(impl, output, power, weights):
    x, net = data(dtype=torch.float64), Net(torch.float64)
    labels = torch.arange(12) % 10
    z = known_noise(x, 3, 17)
    options = {"output": output, "anneal_power": power, "weights": weights}
    values = dsm_loss(net, x, SIGMAS, labels=labels, seed=3, step=17, reduction="none", impl=impl, **options)
    wanted = literal(net, x, labels, z, output=output, power=power, weights=weights)
    # fp64 all through; (h - x') / sigma^2 + z / sigma cancels up to 1 / sigma^2 = 10^4 times the rounding.
    torch.testing.assert_close(values, wanted, rtol=1e-10, atol=0)
    loss = dsm_loss(net, x, SIGMAS, labels=labels, seed=3, step=17, impl=impl, **options)
    gradients = [torch.autograd.grad(each, net.weight)[0] for each in (loss, wanted.mean())]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=0)


def test_conventions_of_one_network_agree_and_a_wrong_one_does_not():
    x = data(dtype=torch.float64)
    net = Net(torch.float64)

    def outputs(x, labels, output):
        sigma = SIGMAS[labels].reshape(-1, 1, 1, 1)
        score = net(x, labels)
        return {"score": score, "scaled": sigma * score, "noise": -sigma * score, "denoised": x + sigma**2 * score}[
            output
        ]

    found = {
        (told, made): dsm_loss(lambda x, labels, made=made: outputs(x, labels, made), x, SIGMAS, seed=0, output=told)
        for told, made in itertools.product(OUTPUTS, OUTPUTS)
    }
    for (told, made), loss in found.items():
        assert torch.allclose(loss, found["score", "score"], rtol=1e-10) == (told == made), (told, made)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradient_is_exact(impl, dtype, reduction):
    x = data((5, 27)).to(dtype)
    labels = torch.tensor([0, 9, 3, 3, 1])
    h = torch.randn(5, 27, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    loss = dsm_loss(lambda x, labels: h, x, SIGMAS, seed=3, labels=labels, reduction=reduction, impl=impl)
    upstream = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0]).to(loss.dtype)
    (loss if reduction != "none" else loss @ upstream).backward()
    z = known_noise(x, 3, 0).to(loss.dtype)
    sigma = SIGMAS.to(loss.dtype)[labels][:, None]
    share = {"mean": torch.tensor(1 / 5, dtype=loss.dtype), "sum": torch.tensor(1.0), "none": upstream[:, None]}[
        reduction
    ]
    assert torch.equal(h.grad, (sigma * share * (sigma * h.detach().to(loss.dtype) + z)).to(dtype))


def test_gradcheck(impl):
    h = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    x = data((2, 3), torch.float64)
    for output, reduction in (("noise", "none"), ("denoised", "mean")):

        def loss(h, output=output, reduction=reduction):
            return dsm_loss(lambda x, labels: h, x, SIGMAS, seed=1, output=output, reduction=reduction, impl=impl)

        assert torch.autograd.gradcheck(loss, (h,), nondet_tol=0.0)


def test_gradients_by_the_data():
    x = data((4, 6), torch.float64).requires_grad_()
    labels = torch.tensor([0, 2, 4, 9])
    for output in OUTPUTS:
        loss = dsm_loss(lambda x, labels: torch.sin(x), x, SIGMAS, seed=1, labels=labels, output=output)
        wanted = literal(lambda x, labels: torch.sin(x), x, labels, known_noise(x, 1, 0), output=output).mean()
        gradients = [torch.autograd.grad(each, x)[0] for each in (loss, wanted)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("factor", [1.0, 0.25, 65536.0])
def test_what_follows_the_loss_scales_the_gradient(impl, factor):
    h = torch.randn(6, 40, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def loss():
        return dsm_loss(lambda x, labels: h, torch.zeros(6, 40), SIGMAS, seed=2, impl=impl)

    (plain,) = torch.autograd.grad(loss(), h)
    (scaled,) = torch.autograd.grad(loss() * factor, h)
    assert torch.equal(scaled, plain * factor)


def test_backward_twice_gives_the_same_bits(impl):
    h = torch.randn(6, 40, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = dsm_loss(lambda x, labels: h, torch.zeros(6, 40), SIGMAS, seed=2, impl=impl) * 0.3
    (first,) = torch.autograd.grad(loss, h, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss, h)
    assert torch.equal(first, kept)
    assert torch.equal(second, kept)


def test_a_second_derivative_is_refused():
    h = torch.randn(2, 3, requires_grad=True)
    loss = dsm_loss(lambda x, labels: h, torch.zeros(2, 3), SIGMAS, seed=2)
    with pytest.raises(RuntimeError, match=r"differentiable once.*create_graph=True"):
        torch.autograd.grad(loss, h, create_graph=True)


def test_float16_gradients_survive_a_scaler():
    h = torch.zeros(4, 64, dtype=torch.float16, requires_grad=True)
    x = torch.zeros(4, 64, dtype=torch.float16)
    loss = dsm_loss(lambda x, labels: h, x, [1e-3], seed=2) / 4096
    (plain,) = torch.autograd.grad(loss, h, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss * 65536, h)
    assert (plain == 0).float().mean() > 0.3, "these gradients are too large for the test to say anything"
    exact = 1e-3 * known_noise(x, 2, 0) * (65536 / 4096 / 4)
    torch.testing.assert_close(scaled.double(), exact, rtol=2.0**-11 + 2.0**-20, atol=2.0**-25)


def test_levels_are_told_apart(impl):
    objective = DenoisingScoreMatching(SIGMAS, impl=impl)
    assert objective.per_level is None
    labels = torch.tensor([3, 9, 3, 0, 3])
    x = data((5, 50))
    loss = objective(Net(), x, seed=4, labels=labels)
    values = dsm_loss(Net(), x, SIGMAS, seed=4, labels=labels, reduction="none")
    sums, counts = objective.per_level
    assert counts.tolist() == [1, 0, 0, 3, 0, 0, 0, 0, 0, 1]
    assert torch.equal(sums[[0, 9, 1]], torch.stack([values[3], values[1], torch.tensor(0.0)]))
    # Three values in lanes 0, 2 and 4 of 256, folded by halves: 0 and 4 first.
    assert torch.equal(sums[3], (values[0] + values[4]) + values[2])
    mean = objective.per_level.mean()
    assert mean.isnan().tolist() == [count == 0 for count in counts.tolist()]
    assert torch.isclose(loss, sums.sum() / 5, rtol=2.0**-20)
    assert not sums.requires_grad


def test_module_and_function_agree():
    x, net = data(), Net()
    objective = DenoisingScoreMatching(SIGMAS, output="noise", anneal_power=1.0, weights=torch.arange(10.0) + 1)
    options = {"output": "noise", "anneal_power": 1.0, "weights": torch.arange(10.0) + 1}
    for _ in range(2):
        assert torch.equal(objective(net, x, seed=0), dsm_loss(net, x, SIGMAS, seed=0, **options))
    assert not list(objective.parameters())
    assert not objective.state_dict()
    assert torch.equal(objective.half()(net, x, seed=0), dsm_loss(net, x, SIGMAS, seed=0, **options))


def test_perturb_draws_what_the_loss_compares_with(impl):
    x = data((7, 30))
    perturbed, labels = ops.perturb(x, SIGMAS, seed=5, draw=2, impl=impl)
    assert torch.equal(labels, fl.losses.dsm_labels(7, 10, seed=5, step=2))
    z = known_noise(x, 5, 2).float()
    assert torch.equal(perturbed, x + SIGMAS.float()[labels][:, None] * z)
    seen = []
    dsm_loss(lambda x, labels: seen.append((x, labels)) or x, x, SIGMAS, seed=5, step=2, impl=impl)
    assert torch.equal(seen[0][0], perturbed)
    assert torch.equal(seen[0][1], labels)


def test_explicit_noise_is_used(impl):
    x, labels = data((3, 5)), torch.tensor([0, 4, 9])
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    perturbed, same = ops.perturb(x, SIGMAS, labels=labels, noise=z, impl=impl)
    assert same is labels
    assert torch.equal(perturbed, x + SIGMAS.float()[labels][:, None] * z)


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "expanded", "sliced"])
def test_layouts_change_no_bit(impl, layout):
    x = data((4, 3, 6, 5))
    h = torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    if layout == "expanded":
        x, h = x[:1].expand(4, 3, 6, 5), h[:, :1].expand(4, 3, 6, 5)

    def laid_out(tensor):
        if layout == "channels_last":
            return tensor.contiguous(memory_format=torch.channels_last)
        if layout == "transposed":
            return tensor.transpose(2, 3).contiguous().transpose(2, 3)
        if layout == "sliced":
            return torch.stack([tensor, tensor], dim=-1).flatten(-2)[..., ::2]
        return tensor

    def result(change):
        output = change(h).detach().requires_grad_()
        loss = dsm_loss(lambda x, labels: output, change(x), SIGMAS, seed=0, reduction="mean", impl=impl)
        return loss, torch.autograd.grad(loss, output)[0], ops.perturb(change(x), SIGMAS, seed=0, impl=impl)[0]

    for found, wanted in zip(result(laid_out), result(torch.clone), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("elements", [3, 129, 1025])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_implementations_have_the_same_bits(impl, elements, dtype):
    # Two long samples of two segments each: the interpreter takes a second for each.
    batch = 2 if elements > 1000 else 6
    x = data((batch, elements)).to(dtype)
    for output, reduction in (("score", "mean"), ("denoised", "none")):
        found = []
        for each in (impl, "reference"):
            h = fl.randn((batch, elements), seed=9).to(dtype).requires_grad_()
            objective = DenoisingScoreMatching(SIGMAS, output=output, reduction=reduction, anneal_power=1.7, impl=each)
            loss = objective(lambda x, labels, h=h: h, x, seed=3, step=2**32 - 1, sample_offset=2**40)
            (gradient,) = torch.autograd.grad(loss.sum(), h)
            found.append((loss, gradient, *objective.per_level, *ops.perturb(x, SIGMAS, seed=3, impl=each)))
        for mine, wanted in zip(*found, strict=True):
            assert torch.equal(mine, wanted)


def test_the_order_of_the_sum_is_what_is_specified():
    h = fl.randn((2, 5001), seed=9)
    values = dsm_loss(lambda x, labels: h, torch.zeros(2, 5001), [1.0], seed=3, reduction="none")
    residual = h + fl.randn((2, 5001), seed=3, purpose=Purpose.DSM_NOISE)
    assert reference.segment_elements(5001) == 1024
    squares = torch.nn.functional.pad(residual * residual, (0, 119)).view(2, 5, 256, 4)
    groups = (squares[..., 0] + squares[..., 1]) + (squares[..., 2] + squares[..., 3])
    for half in (128, 64, 32, 16, 8, 4, 2, 1):
        groups = groups[..., :half] + groups[..., half:]
    parts = groups[..., 0]
    # Five lanes of 256, folded by halves: 0 + 4, then 0 + 2 and 1 + 3, then 0 + 1.
    total = ((parts[:, 0] + parts[:, 4]) + parts[:, 2]) + (parts[:, 1] + parts[:, 3])
    assert torch.equal(values, total * 0.5)
    assert not torch.equal(values, residual.square().flip(1).cumsum(1)[:, -1] * 0.5), "any order would pass"


# PyTorch 2.13 instantiates torch.autograd.Function while it traces one, against its own warning.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"output": "denoised"}, {"reduction": "none"}, {"output": "noise"}], ids=str)
def test_compiled_programs_have_the_same_bits(options):
    torch._dynamo.reset()
    net, x = Net(), data()
    objective = DenoisingScoreMatching(SIGMAS, **options)

    def step(x, number):
        return objective(net, x, seed=7, step=number).sum()

    compiled = torch.compile(step, fullgraph=True, backend=BACKEND)
    for number in range(3):
        results = []
        for each in (step, compiled):
            loss = each(x, torch.tensor(number))
            results.append((loss.detach(), *torch.autograd.grad(loss, net.weight)))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])
    assert objective.per_level.counts.sum() == 12


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_the_function_compiles_whole():
    torch._dynamo.reset()
    net, x, ladder = Net(), data(), SIGMAS.clone()
    compiled = torch.compile(
        lambda x, number: dsm_loss(net, x, ladder, seed=7, step=number), fullgraph=True, backend=BACKEND
    )
    for number in range(3):
        assert torch.equal(compiled(x, torch.tensor(number)), dsm_loss(net, x, ladder, seed=7, step=number))


def test_autocast_reaches_the_network_only(impl):
    linear = torch.nn.Linear(16, 16)
    seen = []

    def net(x, labels):
        h = linear(x)
        seen.append((x.dtype, h.dtype))
        return h

    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = dsm_loss(net, data((8, 16)), SIGMAS, seed=0, impl=impl)
    loss.backward()
    assert seen == [(torch.float32, torch.bfloat16)]
    assert loss.dtype == torch.float32
    assert linear.weight.grad.isfinite().all()


class Allocations(TorchDispatchMode):
    """Sizes, in elements, of the tensors that operations make while it is on."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        held = [each for each in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        storages = {each.untyped_storage().data_ptr() for each in held}
        for each in torch.utils._pytree.tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.untyped_storage().data_ptr() not in storages:
                self.sizes.append(each.untyped_storage().nbytes() // each.element_size())
        return result


def large_allocations(impl, monkeypatch, reduction="mean"):
    # An operation that knew of the mode would let it see the whole alone, and not what is made inside.
    monkeypatch.setattr("fastlangevin.ops.operation.observed", lambda: False)
    for module in ("ops.dsm", "ops.arguments", "losses.dsm"):
        monkeypatch.setattr(importlib.import_module(f"fastlangevin.{module}"), "recorded", lambda: False)
    x = data((8, 3, 32, 32))
    h = torch.zeros_like(x).requires_grad_()
    objective = DenoisingScoreMatching(SIGMAS, reduction=reduction, impl=impl)
    with Allocations() as seen:
        objective(lambda x, labels: h, x, seed=0).sum().backward()
    small = [size for size in seen.sizes if size < x.numel()]
    return [size for size in seen.sizes if size >= x.numel()], sum(small) / x.numel()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_neither_noise_nor_target_is_stored(impl, reduction, monkeypatch):
    large, small = large_allocations(impl, monkeypatch, reduction)
    if impl == "reference":
        assert len(large) > 5, "the count must see the tensors of the plain formula"
        return
    size = 8 * 3 * 32 * 32
    assert large == [size, size], "the perturbed samples and the gradient, nothing else"
    assert small < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("output", OUTPUTS)
def test_an_objective_that_evaluated_under_inference_mode_trains(impl, output, dtype):
    net, x = Net(dtype), data((4, 16)).to(dtype)
    fresh = DenoisingScoreMatching(SIGMAS, output=output, impl=impl)
    expected = fresh(net, x, seed=0, step=1)
    expected.backward()
    gradient, net.weight.grad = net.weight.grad, None
    with torch.inference_mode():
        objective = DenoisingScoreMatching(SIGMAS, output=output, impl=impl)
        made = x.clone()
        objective(net, x, seed=0)
    for batch in (x, made):
        loss = objective(net, batch, seed=0, step=1)
        loss.backward()
        assert torch.equal(loss, expected)
        assert torch.equal(net.weight.grad, gradient)
        net.weight.grad = None


def test_labels_and_addresses_of_inference_mode_are_kept(impl):
    with torch.inference_mode():
        labels, step, ids = torch.tensor([0, 3]), torch.tensor(1), torch.tensor([5, 6])
    net, x = Net(), data((2, 16))
    loss = dsm_loss(net, x, SIGMAS, seed=0, labels=labels, step=step, sample_ids=ids, impl=impl)
    loss.backward()
    plain = dsm_loss(net, x, SIGMAS, seed=0, labels=labels.clone(), step=1, sample_ids=[5, 6], impl=impl)
    assert torch.equal(loss, plain)
    assert net.weight.grad.isfinite()


@pytest.mark.parametrize("power", [np.float32(3), np.float64(3), np.int64(3), 3], ids=lambda p: type(p).__name__)
def test_the_power_may_be_any_number(power):
    x = data((2, 16))
    found = dsm_loss(Net(), x, SIGMAS, seed=0, anneal_power=power)
    assert torch.equal(found, dsm_loss(Net(), x, SIGMAS, seed=0, anneal_power=3.0))


def test_no_objective_keeps_tables_without_numbers():
    objective = DenoisingScoreMatching(SIGMAS)
    x = data((2, 16))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        objective(lambda x, labels: -x, mode.from_tensor(x), seed=0)
    assert objective(lambda x, labels: -x, x, seed=0).isfinite()


def operation_arguments(**changes):
    tables = [torch.ones(10), torch.ones(10), torch.ones(10)]
    words = [torch.tensor(3), torch.tensor(2), None, 7, Purpose.DSM_NOISE]
    arguments = {
        "output": torch.ones(3, 5),
        "labels": torch.tensor([0, 4, 9]),
        "scale": tables[0],
        "weight": tables[1],
        "slope": tables[2],
        **dict(zip(("seed", "draw", "sample_ids", "sample_offset", "purpose"), words, strict=True)),
        "noise": None,
        "clean": None,
        "upstream": torch.tensor(0.5),
        "sums": True,
        "gradient": True,
        "impl": "auto",
    }
    return tuple((arguments | changes).values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sums": False},
        {"gradient": False},
        {"clean": torch.zeros(3, 5)},
        {"upstream": torch.ones(3), "noise": torch.zeros(3, 5)},
        {"sample_ids": torch.tensor([5, 6, 2**40]), "sample_offset": 0},
    ],
    ids=["both", "gradient", "sums", "clean", "noise", "ids"],
)
def test_opcheck_of_the_objective(changes):
    torch.library.opcheck(torch.ops.fastlangevin.dsm.default, operation_arguments(**changes))


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 4, 9])], ids=["drawn", "given"])
def test_opcheck_of_the_perturbation(labels):
    words = torch.tensor(3), torch.tensor(2), None, 7, Purpose.DSM_NOISE
    arguments = (torch.ones(3, 5), SIGMAS.float(), labels, *words, None, "auto")
    torch.library.opcheck(torch.ops.fastlangevin.perturb.default, arguments)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_thousand_steps_compile_a_few_times_at_most():
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    net, x = Net(), data((2, 6))
    compiled = torch.compile(
        lambda x, step: dsm_loss(net, x, SIGMAS, seed=step, step=step), fullgraph=True, backend=counter
    )
    losses = {compiled(x, torch.tensor(step)).item() for step in range(1000)}
    assert counter.frame_count <= 4
    assert len(losses) > 990, "each step has its own noise"
