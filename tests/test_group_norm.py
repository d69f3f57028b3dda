"""GroupNorm with SiLU: every implementation against PyTorch's own functions in fp64, and as an operation."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from group_norm_bounds import Case, case

from fastlangevin import reference
from fastlangevin.ops import group_norm

# Groups of 2 to 2244 elements, of 1 to 10 channels, and in samples of 1 to 4 dimensions.
SHAPES = [
    ((2, 6), 3),
    ((3, 8, 5), 2),
    ((1, 40, 8, 8), 4),
    ((2, 32, 3, 3), 32),
    ((1, 4, 17, 33), 1),
    ((2, 6, 2, 3, 4), 3),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def call(given, impl):
    """The result, and the gradients by x, weight and bias."""
    leaves = [each.detach().clone().requires_grad_() for each in (given.x, given.weight, given.bias)]
    options = {"eps": given.eps, "activation": given.activation}
    out = group_norm(leaves[0], given.groups, *leaves[1:], **options, impl=impl)
    return out.detach(), *torch.autograd.grad(out, leaves, given.upstream)


def operations(given, impl):
    """What both operations return: the result, mean and rstd, and each sample's gradients."""
    options = given.groups, given.activation, impl
    out, mean, rstd = torch.ops.fastlangevin.group_norm(
        given.x, given.weight, given.bias, given.groups, given.eps, given.activation, impl
    )
    operands = given.upstream, given.x, given.weight, given.bias, mean, rstd
    return out, mean, rstd, *torch.ops.fastlangevin.group_norm_backward(*operands, *options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "groups"), SHAPES, ids=str)
def test_values_and_gradients_agree_with_fp64(impl, shape, groups, dtype):
    for memory_format in (torch.contiguous_format, torch.channels_last)[: 2 if len(shape) == 4 else 1]:
        # Both ways, and where eps is as large as the variance.
        for options in ({"activation": False}, {"deviation": 0.003}):
            given = case(shape, groups, dtype, memory_format, **options)
            found = call(given, impl)
            given.check(found)
            assert [each.dtype for each in found[:2]] == [dtype, dtype]
            assert found[0].stride() == found[1].stride() == given.x.stride()


def written_out(given, mutation=None):
    """The norm from its formula, right or not."""
    leaves = [each.double().requires_grad_() for each in (given.x, given.weight, given.bias)]
    x, weight, bias = leaves
    image = x.view(len(x), given.groups, -1, *x.shape[2:])
    if mutation == "interleaved groups":
        image = x.view(len(x), -1, given.groups, *x.shape[2:]).transpose(1, 2)
    over = tuple(range(2, image.ndim))
    variance, mean = torch.var_mean(image, over, correction=int(mutation == "unbiased variance"), keepdim=True)
    if mutation == "variance without a gradient":
        variance = variance.detach()
    if mutation == "eps outside the root":
        n = (image - mean) / (variance.sqrt() + given.eps)
    else:
        n = (image - mean) / (variance + given.eps).sqrt()
    if mutation == "interleaved groups":
        n = n.transpose(1, 2)
    n = n.reshape(x.shape)
    if mutation == "weight and bias exchanged":
        weight, bias = bias, weight
    y = weight.view(-1, *(1,) * (x.ndim - 2)) * n + bias.view(-1, *(1,) * (x.ndim - 2))
    out = (n if mutation == "a gate before weight and bias" else y).sigmoid() * y
    if mutation == "tanh in the gate":
        out = F.gelu(y, approximate="tanh")
    return out.detach(), *torch.autograd.grad(out, leaves, given.upstream.double())


MUTATIONS = {
    "interleaved groups": ("out", 1.0),
    "unbiased variance": ("out", 1.0),
    "eps outside the root": ("out", 0.003),
    "weight and bias exchanged": ("out", 1.0),
    "a gate before weight and bias": ("out", 1.0),
    "tanh in the gate": ("out", 1.0),
    "variance without a gradient": ("by_x", 1.0),
}


@pytest.mark.parametrize("shape", [(2, 12, 5), (1, 24, 17, 11)], ids=str)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_another_formula_is_caught(mutation, shape):
    which, deviation = MUTATIONS[mutation]
    given = case(shape, 3, deviation=deviation)
    given.check(written_out(given))
    with pytest.raises(AssertionError, match=which):
        given.check(written_out(given, mutation))


@pytest.mark.parametrize("activation", [False, True], ids=["plain", "silu"])
def test_gradients_and_second_derivatives_are_right(impl, activation):
    given = case((2, 4, 2, 3), 2, torch.float64)

    def f(x, weight, bias):
        return group_norm(x, 2, weight, bias, activation=activation, impl=impl)

    leaves = [each.requires_grad_() for each in (given.x, given.weight, given.bias)]
    # Along random directions in the interpreter, where every element of the Jacobian takes milliseconds.
    assert torch.autograd.gradcheck(f, leaves, fast_mode=impl == "triton")
    assert torch.autograd.gradgradcheck(f, leaves, fast_mode=impl == "triton")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_the_transforms_of_functions_go_through_plain_pytorch(impl):
    given = case((2, 4, 2, 3), 2, torch.float64)
    x, upstream = given.x, given.upstream

    def f(x, impl=impl):
        return group_norm(x, 2, given.weight, given.bias, activation=True, impl=impl)

    def plain(x):
        return f(x, "reference")

    torch.testing.assert_close(torch.func.jvp(f, (x,), (upstream,)), torch.func.jvp(plain, (x,), (upstream,)))
    torch.testing.assert_close(torch.vmap(f)(x[None]), plain(x)[None])
    leaf = x.clone().requires_grad_()
    vectors = torch.stack([upstream, x])
    (batched,) = torch.autograd.grad(f(leaf), leaf, vectors, is_grads_batched=True)
    for got, vector in zip(batched, vectors, strict=True):
        torch.testing.assert_close(got, torch.autograd.grad(plain(leaf), leaf, vector)[0])


@pytest.mark.parametrize("shape", [(3, 8, 7, 5), (3, 40, 8, 8), (3, 6, 33)], ids=str)
def test_a_sample_has_the_same_bits_in_any_batch(impl, shape):
    if impl == "reference":
        pytest.skip("PyTorch's sums promise no order")
    for memory_format in (torch.contiguous_format, torch.channels_last)[: 2 if len(shape) == 4 else 1]:
        given = case(shape, 2, memory_format=memory_format)
        whole = operations(given, impl)
        for row in range(shape[0]):
            one = dataclasses.replace(given, x=given.x[row : row + 1], upstream=given.upstream[row : row + 1])
            assert all(torch.equal(some[0], each[row]) for some, each in zip(operations(one, impl), whole, strict=True))


@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (2, 6, 5), (2, 6), (0, 6, 3, 4)], ids=str)
def test_the_operations_are_well_registered(impl, shape):
    x, upstream = torch.randn(2, *shape).unbind()
    x = x.contiguous(memory_format=torch.channels_last if len(shape) == 4 else torch.contiguous_format)
    weight, bias = torch.randn(2, 6).unbind()
    arguments = x, weight, bias, 3, 1e-5, True, impl
    torch.library.opcheck(torch.ops.fastlangevin.group_norm, arguments)
    _, mean, rstd = torch.ops.fastlangevin.group_norm(*arguments)
    torch.library.opcheck(
        torch.ops.fastlangevin.group_norm_backward, (upstream, x, weight, bias, mean, rstd, 3, True, impl)
    )


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_it_compiles_whole_with_the_same_bits(impl):
    def f(x, weight, bias, groups, eps):
        return group_norm(x, groups, weight, bias, eps=eps, activation=True, impl=impl)

    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    for shape, groups, eps in (((2, 6, 4, 4), 3, 1e-5), ((2, 8, 5), 2, 1e-6), ((3, 8, 5), 4, 0.1)):
        given = case(shape, groups)
        leaves = [each.requires_grad_() for each in (given.x, given.weight, given.bias)]
        got = compiled(*leaves, groups, eps)
        found = got, *torch.autograd.grad(got, leaves, given.upstream)
        out, _, _, by_x, *by_parameters = operations(dataclasses.replace(given, eps=eps), impl)
        assert all(map(torch.equal, found, (out, by_x, *(each.sum(0) for each in by_parameters))))


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_autocast_leaves_the_dtype_of_the_input(impl, dtype):
    given = case((2, 6, 4, 4), 3, dtype)
    plain = call(given, impl)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = call(given, impl)
    assert all(map(torch.equal, plain, cast))
    assert plain[0].dtype == plain[1].dtype == dtype
    assert plain[2].dtype == torch.float32


def test_any_strides_and_parameters_are_taken(impl):
    given = case((2, 6, 4, 6), 3)
    x, upstream = (each.transpose(2, 3).contiguous().transpose(2, 3) for each in (given.x, given.upstream))
    weight, bias = torch.stack([given.weight, given.bias], 1).unbind(1)
    found = call(Case(x, upstream, weight, bias, 3), impl)
    given.check(found)
    assert found[0].is_contiguous()
    ones, zeros = torch.ones(6), torch.zeros(6)
    assert torch.equal(group_norm(given.x, 3, impl=impl), group_norm(given.x, 3, ones, zeros, impl=impl))
    halves = given.weight.half().requires_grad_(), given.bias.double().requires_grad_()
    out = group_norm(given.x, 3, *halves, impl=impl)
    gradients = torch.autograd.grad(out, halves, given.upstream)
    assert [each.dtype for each in (out, *gradients)] == [torch.float32, torch.float16, torch.float64]


def test_an_empty_batch_has_gradients(impl):
    leaves = [torch.zeros(0, 6, 4, requires_grad=True), torch.ones(6, requires_grad=True)]
    out = group_norm(leaves[0], 3, leaves[1], activation=True, impl=impl)
    assert out.shape == (0, 6, 4)
    gradients = torch.autograd.grad(out.sum(), leaves)
    assert gradients[0].shape == (0, 6, 4)
    assert torch.equal(gradients[1], torch.zeros(6))


def test_large_arguments_stay_finite(impl):
    given = case((2, 6, 4, 4), 3)
    given.weight *= 1e37
    found = call(given, impl)
    # Out to 4e37, and SiLU of as much below 0 is 0.
    given.check(found)
    assert found[0].isfinite().all()
    assert found[0].amax() > 1e37
    assert found[0].amin() == 0


def test_statistics_do_not_cancel(impl):
    given = case((2, 6, 33, 17), 2)
    given.x += 1000.0
    given.check(call(given, impl))
    _, _, rstd = torch.ops.fastlangevin.group_norm(given.x, given.weight, given.bias, 2, 1e-5, False, impl)
    exact = reference.group_statistics(given.x.double(), 2, 1e-5).rstd
    # As the bounds have it, w (1 + r X) with w = 24 2^-24. Mean square minus square of the mean would lose 10^6 2^-24,
    # a sixteenth, of the variance.
    torch.testing.assert_close(rstd.double(), exact, rtol=2e-3, atol=0)
