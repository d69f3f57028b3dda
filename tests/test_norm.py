"""The fused norm: against fp64 and autograd, on every instruction set, dtype and layout."""

import shutil

import pytest
import torch

import fastlangevin as fl
from fastlangevin import reference, runtime
from fastlangevin.kernels import cpp
from fastlangevin.ops import add_instance_norm, instance_norm

SHAPES = [(2, 2, 1, 1), (3, 5, 4, 6), (2, 33, 7, 9), (1, 40, 8, 8), (2, 3, 33, 17)]
# Of the values, relative to the largest term: half a unit of the result, and of each of the mean, the deviation, scale,
# shift and their sum; ten in fp32, whose sums of 16 are carried on in fp64.
UNIT = {torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, torch.float64: 2.0**-52}


@pytest.fixture(params=["avx512", "avx2", "sse2", "neon", "portable"])
def instructions(request):
    if not any(map(shutil.which, ("c++", "g++", "clang++"))) and runtime.explain("cpu")["cpp"] != "available":
        pytest.skip("no C++ compiler and no built library")
    if request.param not in cpp.instruction_sets():
        pytest.skip("not this processor's")
    cpp.use_instruction_set(request.param)
    yield request.param
    cpp.use_instruction_set(None)


def inputs(shape, dtype=torch.float32, *, last=False, rows=True):
    """x, gamma, alpha, beta, a residual, and derivatives by the result and by the sum."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x, residual, upstream, by_sum = fl.randn((4, *shape), seed=1, dtype=wide).to(dtype)
    per_channel = fl.randn((3, *(shape[:2] if rows else shape[1:2])), seed=2, dtype=wide)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    # Small whole numbers and halves, of which the sum has no rounding.
    x, residual = ((each * 4).round().clamp(-8, 8) / 2 for each in (x, residual))
    return [x + 1, *per_channel, residual, upstream, by_sum]


def gradients(tensors, impl, activation=True):
    x, *rest, residual, upstream, by_sum = tensors
    leaves = [each.detach().clone().requires_grad_() for each in (x, residual, *rest)]
    results = add_instance_norm(*leaves, activation=activation, impl=impl)
    return [*(each.detach() for each in results), *torch.autograd.grad(results, leaves, (upstream, by_sum))]


def largest_terms(x, gamma, alpha, beta):
    """The sum of the magnitudes that the result is made of."""
    mean, rstd = reference.statistics(x)
    m = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, keepdim=True) + 1e-5).sqrt()
    n = (x.abs() + mean.abs()[..., None, None]) * rstd[..., None, None]
    shift = (gamma * alpha * m).abs() + gamma.abs() * alpha.abs() * mean.abs().amax(1, keepdim=True) / (
        mean.var(1, keepdim=True) + 1e-5
    ).sqrt()
    return gamma.abs()[..., None, None] * n + (shift + beta.abs())[..., None, None] + 1


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", UNIT, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernels_agree_with_fp64_on_every_instruction_set(instructions, shape, dtype, last):
    tensors = inputs(shape, dtype, last=last)
    wide = [each.double() for each in tensors]
    for activation in (False, True):
        with torch.no_grad():
            got = instance_norm(*tensors[:4], activation=activation, impl="cpp")
            want = instance_norm(*wide[:4], activation=activation, impl="reference")
        computing = UNIT[torch.float64 if dtype == torch.float64 else torch.float32]
        terms = largest_terms(*wide[:4])
        assert (got.double() - want).abs().le(10 * computing * terms + UNIT[dtype] * want.abs()).all()
        assert got.dtype == dtype
        assert got.stride() == tensors[0].stride()
        added, total = add_instance_norm(tensors[0], tensors[4], *tensors[1:4], activation=activation, impl="cpp")
        assert torch.equal(total, tensors[0] + tensors[4])
        assert total.stride() == tensors[0].stride()
        assert torch.equal(added, instance_norm(total, *tensors[1:4], activation=activation, impl="cpp"))
    found, wanted = gradients(tensors, "cpp"), gradients(wide, "reference")
    mean = (wide[0] + wide[4]).mean((2, 3))
    # m magnifies the roundings of the means, and stands in the gradients beside sums of so many random derivatives.
    magnified = (mean.abs().amax(1) / (mean.var(1) + 1e-5).sqrt()).max() * (shape[2] * shape[3]) ** 0.5
    for got, want in zip(found[2:], wanted[2:], strict=True):
        # Gradients that partly cancel: of one pixel wholly, so that the derivative by the result sets the scale.
        scale = want.abs().max() + magnified + 400 * wide[5].abs().max() * (shape[2:] == (1, 1))
        assert (got.double() - want).abs().max() <= (40 * computing + UNIT[got.dtype]) * scale


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_instruction_sets_give_the_same_bits(instructions, shape):
    for last in (False, True):
        tensors = inputs(shape, last=last)
        got = gradients(tensors, "cpp")
        cpp.use_instruction_set("portable")
        assert all(map(torch.equal, got, gradients(tensors, "cpp")))
        cpp.use_instruction_set(instructions)


def test_the_activation_is_within_a_unit_of_the_last_place(instructions):
    # Every 2,003rd of the floats from -2^-100 to -87.
    first, last = (torch.tensor(value).view(torch.int32).item() for value in (-(2.0**-100), -87.0))
    y = torch.arange(first, last, 2003, dtype=torch.int32).view(torch.float32)
    values, slopes = cpp.elu(y)
    for got, want in ((values, y.double().expm1()), (slopes, y.double().exp())):
        assert ((got - want).abs() / torch.exp2(want.abs().log2().floor() - 23)).max() < 0.96
    special = torch.tensor([0.0, 3.5, float("inf"), float("-inf"), float("nan"), -float("nan"), -200.0])
    values, slopes = cpp.elu(special)
    nan = float("nan")
    torch.testing.assert_close(
        values, torch.tensor([0.0, 3.5, float("inf"), -1, nan, nan, -1]), rtol=0, atol=0, equal_nan=True
    )
    assert slopes[[0, 1, 2]].eq(1).all()
    assert slopes[[3, 6]].abs().max() < 1e-37


def test_a_sample_is_the_same_alone_and_on_any_number_of_threads():
    threads = torch.get_num_threads()
    try:
        for last in (False, True):
            tensors = inputs((5, 64, 16, 16), last=last)
            found = []
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                found.append(gradients(tensors, "cpp"))
            assert all(torch.equal(*pair) for each in found[1:] for pair in zip(found[0], each, strict=True))
            alone = gradients([each[3:4] for each in tensors], "cpp")
            assert all(torch.equal(whole[3:4], one) for whole, one in zip(found[0], alone, strict=True))
    finally:
        torch.set_num_threads(threads)


def test_everything_is_written():
    # Outputs start as NaN, and what the kernels leave out stays that.
    fills = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    try:
        torch.utils.deterministic.fill_uninitialized_memory = True
        assert torch.empty(3).isnan().all()
        for shape in SHAPES:
            for dtype in UNIT:
                for last in (False, True):
                    assert all(each.isfinite().all() for each in gradients(inputs(shape, dtype, last=last), "cpp"))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = fills


@pytest.mark.parametrize("rows", [False, True], ids=["shared", "each"])
@pytest.mark.parametrize("activation", [False, True], ids=["plain", "elu"])
def test_gradients_and_second_derivatives_are_right(activation, rows):
    x, *rest = [each.requires_grad_() for each in inputs((2, 3, 2, 3), torch.float64, rows=rows)[:5]]

    def one(x, gamma, alpha, beta):
        return instance_norm(x, gamma, alpha, beta, activation=activation, impl="cpp")

    def of_sum(x, gamma, alpha, beta, residual):
        return add_instance_norm(x, residual, gamma, alpha, beta, activation=activation, impl="cpp")

    for function, arguments in ((one, (x, *rest[:3])), (of_sum, (x, *rest))):
        assert torch.autograd.gradcheck(function, arguments)
        assert torch.autograd.gradgradcheck(function, arguments)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_the_transforms_of_functions_go_through_plain_pytorch():
    x, gamma, alpha, beta, residual, upstream, _ = inputs((2, 3, 2, 3), torch.float64)

    def f(x, impl="cpp"):
        return instance_norm(x, gamma, alpha, beta, activation=True, impl=impl)

    def plain(x):
        return f(x, "reference")

    torch.testing.assert_close(torch.func.jvp(f, (x,), (upstream,)), torch.func.jvp(plain, (x,), (upstream,)))
    leaf = x.clone().requires_grad_()
    vectors = torch.stack([upstream, residual])
    (batched,) = torch.autograd.grad(f(leaf), leaf, vectors, is_grads_batched=True)
    for got, vector in zip(batched, vectors, strict=True):
        torch.testing.assert_close(got, torch.autograd.grad(plain(leaf), leaf, vector)[0])


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_the_operations_are_well_registered(last):
    x, gamma, alpha, beta, residual, upstream, _ = inputs((2, 5, 3, 4), last=last)
    for impl in ("cpp", "reference"):
        arguments = x, gamma, alpha, beta, True, impl
        torch.library.opcheck(torch.ops.fastlangevin.add_instance_norm, (x, residual, *arguments[1:]))
        torch.library.opcheck(torch.ops.fastlangevin.instance_norm, arguments)
        _, mean, rstd = torch.ops.fastlangevin.instance_norm(*arguments)
        torch.library.opcheck(
            torch.ops.fastlangevin.instance_norm_backward,
            (upstream, x, gamma, alpha, beta, mean, rstd, True, impl),
        )


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_it_compiles_whole_with_the_same_bits():
    tensors = inputs((2, 5, 4, 4), rows=False)
    leaves = [each.requires_grad_() for each in tensors[:5]]

    def f(x, gamma, alpha, beta, residual):
        out, total = add_instance_norm(x, residual, gamma, alpha, beta, activation=True, impl="cpp")
        return instance_norm(out, gamma, alpha, beta, impl="cpp") + total

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    got, want = compiled(*leaves), f(*leaves)
    assert torch.equal(got, want)
    pairs = (torch.autograd.grad(each, leaves, tensors[5]) for each in (got, want))
    assert all(map(torch.equal, *pairs))


@pytest.mark.parametrize("dtype", UNIT, ids=str)
def test_autocast_leaves_the_dtype_of_the_input(dtype):
    if dtype == torch.float64:
        return
    tensors = inputs((2, 5, 4, 4), dtype)
    plain = gradients(tensors, "cpp")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gradients(tensors, "cpp")
    assert all(map(torch.equal, plain, cast))
    assert plain[0].dtype == plain[1].dtype == dtype
    assert plain[4].dtype == torch.float32


def test_any_strides_and_an_empty_batch_are_taken():
    x, gamma, alpha, beta, residual, *_ = inputs((3, 6, 4, 6))
    want = add_instance_norm(x, residual, gamma, alpha, beta, impl="cpp")
    table = torch.cat([gamma, alpha, beta], 1).chunk(3, 1)
    odd = x.transpose(2, 3).contiguous().transpose(2, 3)
    got = add_instance_norm(odd, residual.contiguous(memory_format=torch.channels_last), *table, impl="cpp")
    assert all(map(torch.equal, got, want))
    assert got[0].is_contiguous()
    leaf = x[:0].clone().requires_grad_()
    out = instance_norm(leaf, gamma[0], alpha[0], beta[0], impl="cpp")
    assert out.shape == (0, 6, 4, 6)
    out.sum().backward()


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_labels_choose_the_rows_of_a_table(impl, differentiable):
    x, *_ = inputs((5, 6, 4, 6))
    table = fl.randn((7, 18), seed=3).requires_grad_(differentiable)
    labels = torch.tensor([6, 0, 3, 3, 1])
    rows = table[labels].chunk(3, 1)
    options = {"activation": True, "impl": impl}
    got = instance_norm(x, *table.chunk(3, 1), labels=labels, **options)
    assert torch.equal(got, instance_norm(x, *rows, **options))
    odd = torch.stack([labels, labels], 1)[:, 0]
    transposed = [each.t().contiguous().t() for each in table.chunk(3, 1)]
    assert torch.equal(got, instance_norm(x, *transposed, labels=odd, **options))
    for wrong in (labels + 1, labels - 1):
        with pytest.raises(ValueError, match="labels must be from 0"):
            instance_norm(x, *table.chunk(3, 1), labels=wrong, **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(2, 1, 4, 4)}, ValueError, "at least 2 channels"),
        ({"x": torch.zeros(2, 3, 4)}, ValueError, r"\(B, C, H, W\)"),
        ({"x": torch.zeros(2, 3, 0, 4)}, ValueError, "a pixel"),
        ({"x": torch.zeros(2, 3, 4, 4, dtype=torch.int64)}, TypeError, "x must be float32"),
        ({"gamma": torch.zeros(4)}, ValueError, r"gamma must be \(3,\) or \(2, 3\)"),
        ({"alpha": torch.zeros(3, 3)}, ValueError, r"alpha must be"),
        ({"beta": 1.0}, TypeError, "beta must be a torch.Tensor"),
        ({"labels": torch.zeros(2, dtype=torch.int64)}, ValueError, r"gamma must be a table \(L, 3\)"),
        ({"labels": torch.zeros(2), "gamma": torch.zeros(4, 3)}, TypeError, "labels must be an int64 tensor"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ValueError, r"shape \(2,\), got \(3,\)"),
        ({"impl": "cuda"}, ValueError, "impl must be one of"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(change, error, message):
    good = {"x": torch.zeros(2, 3, 4, 4), **dict.fromkeys(("gamma", "alpha", "beta"), torch.zeros(3))}
    with pytest.raises(error, match=message):
        instance_norm(**{**good, **change})


@pytest.mark.parametrize(
    ("residual", "error", "message"),
    [
        (torch.zeros(2, 3, 4, 5), ValueError, "residual must match x"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.float64), ValueError, "residual must match x"),
        (1.0, TypeError, "residual must be a torch.Tensor"),
    ],
    ids=str,
)
def test_a_residual_must_match(residual, error, message):
    with pytest.raises(error, match=message):
        add_instance_norm(torch.zeros(2, 3, 4, 4), residual, *[torch.zeros(3)] * 3)
