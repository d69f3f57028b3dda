"""Sums with their ELU: every implementation against fp64 and autograd."""

import numpy as np
import pytest
import torch

import fastlangevin as fl
from fastlangevin import reference
from fastlangevin.ops import add_elu

SHAPES = [(1,), (3, 5), (2, 3, 7, 9), (4, 8, 16, 16), (33, 1024)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def terms_of(count, shape=(2, 3, 7, 9), dtype=torch.float32):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return [fl.randn(shape, seed=index, dtype=wide).to(dtype) for index in range(count)]


def units(got, want):
    """Largest error in units of the last place of the values."""
    eps = torch.finfo(got.dtype).eps
    exponent = want.double().abs().clamp(min=torch.finfo(got.dtype).tiny).log2().floor()
    return ((got.double() - want.double()).abs() / (eps * exponent.exp2())).max()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_sum_is_exact_and_elu_within_a_unit(impl, count, shape, dtype):
    terms = terms_of(count, shape, dtype)
    total, out = add_elu(*terms, impl=impl)
    want = terms[0]
    for term in terms[1:]:
        want = want + term
    assert torch.equal(total, want)
    assert out.dtype == dtype
    wide = want.double()
    # ELU is within 0.84 units in fp32, Triton's exponential within 2, and half a unit is rounding to 16 bits.
    assert units(out, torch.where(wide > 0, wide, wide.expm1())) < 3
    assert units(out, torch.where(wide > 0, wide, wide.tanh())) > 3 or (wide > 0).all(), "any activation would pass"


def test_layouts_and_what_is_kept(impl):
    def same(one, other):
        # PyTorch's ELU takes the last elements of a thread one by one, by another exponential.
        return units(one, other) < 2 if impl == "reference" else torch.equal(one, other)

    terms = terms_of(2)
    total, out = add_elu(*terms, impl=impl)
    last = [term.contiguous(memory_format=torch.channels_last) for term in terms]
    for mixed, format_ in ((last, torch.channels_last), ([terms[0], last[1]], torch.contiguous_format)):
        again, activated = add_elu(*mixed, impl=impl)
        assert torch.equal(again, total)
        assert same(activated, out)
        assert activated.is_contiguous(memory_format=format_)
    nothing, alone = add_elu(*terms, keep=False, impl=impl)
    assert nothing is None
    assert same(alone, out)
    transposed = [term.transpose(2, 3).contiguous().transpose(2, 3) for term in terms]
    assert same(add_elu(*transposed, impl=impl)[1], out)
    assert add_elu(terms[0][:0], impl=impl)[1].shape == (0, 3, 7, 9)


def test_threads_change_no_bit():
    terms = terms_of(3, (5, 64, 33, 33))
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(add_elu(*terms, impl="cpp"))
        assert all(torch.equal(a, b) for each in results[1:] for a, b in zip(results[0], each, strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_gradients_are_right(count):
    terms = [term.requires_grad_() for term in terms_of(count, (2, 3), torch.float64)]

    def both(*terms):
        return add_elu(*terms, impl="cpp")

    assert torch.autograd.gradcheck(both, terms)
    assert torch.autograd.gradgradcheck(both, terms)
    assert torch.autograd.gradcheck(lambda *terms: both(*terms)[1], terms)
    assert torch.autograd.gradcheck(lambda *terms: both(*terms)[0], terms)


@pytest.mark.parametrize("implementation", ["cpp", "reference"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_operation_is_well_registered(count, implementation):
    torch.library.opcheck(torch.ops.fastlangevin.add_elu, (terms_of(count), implementation))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_it_compiles_whole_with_the_same_bits():
    leaves = [term.requires_grad_() for term in terms_of(2)]

    def f(a, b):
        total, out = add_elu(a, b, impl="cpp")
        return total * out

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    got, want = compiled(*leaves), f(*leaves)
    assert torch.equal(got, want)
    pairs = (torch.autograd.grad(each.sum(), leaves) for each in (got, want))
    assert all(map(torch.equal, *pairs))


@pytest.mark.parametrize("special", [float("inf"), -float("inf"), float("nan"), 0.0, -200.0])
def test_edges(impl, special):
    x = torch.full((40,), special)
    # numpy, under the interpreter, warns of what comes of infinities in the branch that is not taken.
    with np.errstate(invalid="ignore"):
        total, out = add_elu(x, impl=impl)
    want = reference.add_elu([x])[1]
    torch.testing.assert_close(out, want, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(total, x, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        ([], ValueError, "one to three terms, got 0"),
        ([torch.zeros(2)] * 4, ValueError, "one to three terms, got 4"),
        ([torch.zeros(2), torch.zeros(3)], ValueError, r"terms\[1\] must match the first"),
        ([torch.zeros(2), torch.zeros(2, dtype=torch.float64)], ValueError, r"terms\[1\] must match the first"),
        ([torch.zeros(2, dtype=torch.int64)], TypeError, r"terms\[0\] must be float32"),
        ([torch.zeros(2), 1.0], TypeError, r"terms\[1\] must be a torch.Tensor"),
    ],
    ids=str,
)
def test_bad_terms_are_named(terms, error, message):
    with pytest.raises(error, match=message):
        add_elu(*terms)
