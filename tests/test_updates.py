"""Updates of several scores and draws through the public functions: values, order of sums, gradients, compilation.

Their bad calls are in ``bad_input/bad_update_rows.py``.
"""

import itertools
import math

import pytest
import torch
from torch.library import opcheck

import fastlangevin as fl
from fastlangevin import ops
from fastlangevin.kernels.address import MAX_DRAWS, MAX_TERMS, Address, Term, Update
from fastlangevin.noise import Purpose
from fastlangevin.ops import NO_FAULT

IMPLS = ("reference", "cpp")
FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
SHAPES = [(0,), (5,), (3, 0), (2, 1), (2, 17), (1, 1025), (4, 3, 5, 7)]
SHAPE = (3, 2, 5)
PAIRS = ((0.5, 0), (-2.0, 3), (1.0, 1), (0.25, 7))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=IMPLS)
def impl(request):
    """The implementations that take more than one score and draw."""
    return request.param


def state(shape=SHAPE, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def scores(count, shape=SHAPE, dtype=torch.float32):
    return [state(shape, dtype, 10 + i) for i in range(count)]


def factors(count):
    return [0.3 - 0.17 * i for i in range(count)]


def wide(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def normals(x, number, seed=3, **options):
    """The noise of a draw, as another function draws it."""
    return fl.randn(x.shape, seed=seed, draw=number, purpose=Purpose.LANGEVIN, impl="reference", **options)


def noise(x, pairs, draw=2, **options):
    """z in the computing dtype: the draws left to right, each product rounded."""
    total = None
    for weight, offset in pairs:
        one = torch.tensor(weight, dtype=wide(x)) * normals(x, draw + offset, **options).to(wide(x))
        total = one if total is None else total + one
    return total


def formula(x, slots, a, b, z, c=0.9):
    """c x + a_0 s_0 + a_1 s_1 + ... + b z, in the written order, rounded at the end."""
    total = torch.tensor(c, dtype=wide(x)) * x.to(wide(x))
    for factor, slot in zip(a, slots, strict=True):
        total = total + torch.as_tensor(factor, dtype=wide(x)) * slot.to(wide(x))
    if b is not None:
        total = total + torch.tensor(b, dtype=wide(x)) * z
    return total.to(x.dtype)


def table(pairs, draw=2, dtype=torch.float32):
    """Pairs as tensors, whose numbers are those of the draws themselves."""
    weights, offsets = zip(*pairs, strict=True)
    return torch.tensor(weights, dtype=dtype), torch.tensor(offsets) + draw


def clean(batch=SHAPE[0]):
    return torch.full((batch,), NO_FAULT)


# Values.


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("draws", range(1, MAX_DRAWS + 1))
@pytest.mark.parametrize("count", range(MAX_TERMS))
def test_the_bits_are_those_of_the_formula(impl, count, draws, dtype):
    x, slots, a, pairs = state(dtype=dtype), scores(count, dtype=dtype), factors(count), PAIRS[:draws]
    want = formula(x, slots, a, 0.7, noise(x, pairs))
    options = {"a": a, "b": 0.7, "c": 0.9, "seed": 3, "draw": 2, "impl": impl}
    assert torch.equal(fl.step(x, slots, **options, draws=pairs), want)
    assert torch.equal(fl.step(x, slots, **options, draws=table(pairs)), want)
    out = torch.empty_like(x)
    assert fl.step(x, slots, **options, draws=pairs, out=out) is out
    assert torch.equal(out, want)
    changed = x.clone()
    assert fl.step_(changed, slots, **options, draws=pairs) is changed
    assert torch.equal(changed, want)
    others = [(weight, offset + 1) for weight, offset in pairs]
    assert not torch.equal(fl.step(x, slots, **options, draws=others), want)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape(impl, shape):
    x, slots = state(shape), scores(3, shape)
    want = formula(x, slots, factors(3), 0.7, noise(x, PAIRS)) if x.numel() else x
    got = fl.step(x, slots, a=factors(3), b=0.7, c=0.9, seed=3, draw=2, draws=PAIRS, impl=impl)
    assert torch.equal(got, want)


def test_a_state_without_dimensions_is_a_batch_of_one(impl):
    x, slots = state(()), scores(2, ())
    options = {"a": factors(2), "b": 0.7, "seed": 3, "draw": 2, "draws": PAIRS[:2], "impl": impl}
    got = fl.step(x, slots, **options)
    assert got.shape == ()
    assert torch.equal(got, fl.step(x.view(1), [each.view(1) for each in slots], **options)[0])


def test_any_layout_and_mixed_dtypes(impl):
    x = state((2, 3, 4, 5)).to(memory_format=torch.channels_last)
    slots = [state((5, 4, 3, 2), seed=1).permute(3, 2, 1, 0), state((2, 3, 4, 10), torch.bfloat16, 2)[..., ::2]]
    slots += [state((2, 3, 4, 5), torch.float16, 3), state((1,), seed=4).expand(2, 3, 4, 5)]
    options = {"a": factors(4), "b": 0.7, "c": 0.9, "seed": 3, "draw": 2, "draws": PAIRS, "impl": impl}
    got = fl.step(x, slots, **options)
    assert torch.equal(got, formula(x, slots, factors(4), 0.7, noise(x, PAIRS)))
    assert got.stride() == x.stride()


def test_one_score_in_a_sequence_and_the_draw_itself_are_the_plain_update(impl):
    x, s = state(), state(seed=1)
    options = {"b": 0.7, "c": 0.9, "seed": 3, "draw": 2, "impl": impl}
    want = fl.step(x, s, a=0.3, **options)
    assert torch.equal(fl.step(x, [s], a=[0.3], **options), want)
    assert torch.equal(fl.step(x, (s,), a=(0.3,), draws=[(1.0, 0)], **options), want)
    assert torch.equal(fl.step(x, s, a=0.3, draws=table([(1.0, 0)]), **options), want)
    assert torch.equal(fl.step(x, s, a=0.3, draws=None, **options), want)
    assert not torch.equal(fl.step(x, s, a=0.3, draws=[(1.0, 1)], **options), want)


def test_nothing_beside_the_state(impl):
    x = state()
    assert torch.equal(fl.step(x, [], a=[], b=None, c=0.5, impl=impl), 0.5 * x)
    want = formula(x, [], [], 0.7, noise(x, PAIRS[:1]))
    assert torch.equal(fl.step(x, [], a=[], b=0.7, c=0.9, seed=3, draw=2, draws=PAIRS[:1], impl=impl), want)


def test_sums_are_taken_in_the_written_order(impl):
    """In fp32 2^24 + 1 is 2^24: each sum here is another number in any other order."""
    big = torch.full((1, 4), 2.0**24)
    one = torch.ones(1, 4)
    none = {"b": None, "c": 1.0, "impl": impl}
    assert fl.step(big, [one, -big], a=[1, 1], **none).tolist() == [[0.0] * 4]
    assert fl.step(big, [-big, one], a=[1, 1], **none).tolist() == [[1.0] * 4]
    assert fl.step(one, [one, big, -big], a=[1, 1, 1], **none).tolist() == [[2.0] * 4]
    assert fl.step(one, [big, one, -big], a=[1, 1, 1], **none).tolist() == [[0.0] * 4]
    # The noise is added last; and it is made before, where two large draws leave nothing of a small one.
    given = {"b": 1.0, "noise": -big, "impl": impl}
    assert fl.step(big, [one], a=[1], **given).tolist() == [[0.0] * 4]
    large = [(2.0**60, 0), (1.0, 1), (-(2.0**60), 0)]
    at = {"a": [1.0], "b": 1.0, "c": 0.0, "seed": 3, "draw": 2, "impl": impl}
    zero = torch.zeros(1, 4)
    for draws in (large, table(large)):
        assert fl.step(zero, [zero], **at, draws=draws).tolist() == [[0.0] * 4]
    last = [large[0], large[2], large[1]]
    for draws in (last, table(last)):
        assert torch.equal(fl.step(zero, [zero], **at, draws=draws), normals(zero, 3))


def test_a_draw_of_weight_one_and_a_factor_of_one_change_no_bit(impl):
    x = state((2, 33))
    at = {"a": [0.0], "c": 0.0, "seed": 3, "draw": 2, "impl": impl}
    for draws in ([(1.0, 3)], table([(1.0, 3)])):
        assert torch.equal(fl.step(x, [x], b=1.0, **at, draws=draws), normals(x, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_coefficients_may_be_tensors(impl, dtype):
    x, slots = state(dtype=dtype), scores(3, dtype=dtype)
    each = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    a = [torch.tensor(0.5), each, state((1, 2, 5), seed=5)]
    got = fl.step(x, slots, a=a, b=each, c=each, seed=3, draw=2, draws=PAIRS, impl=impl)
    spread = each.view(3, 1, 1).to(wide(x))
    total = spread * x
    for factor, slot in zip((a[0].to(wide(x)), spread, a[2].to(wide(x))), slots, strict=True):
        total = total + factor * slot
    assert torch.equal(got, total + spread * noise(x, PAIRS))


# Addresses.


@pytest.mark.parametrize(
    "address",
    [
        {"sample_offset": 2**40 + 5},
        {"sample_ids": torch.tensor([2**50, 1, 7])},
        {"sample_ids": [9, 2, 2**33]},
    ],
    ids=["offset", "ids", "list"],
)
def test_every_draw_is_of_the_address(impl, address):
    x, slots = state(), scores(2)
    for seed in (2**64 - 1, torch.tensor(-5), torch.arange(3) * 2**40):
        at = {"seed": seed, "draw": 2, **address}
        z = noise(x, PAIRS, seed=seed, **address)
        for draws in (PAIRS, table(PAIRS)):
            got = fl.step(x, slots, a=factors(2), b=0.7, c=0.9, draws=draws, **at, impl=impl)
            assert torch.equal(got, formula(x, slots, factors(2), 0.7, z))


def test_the_purpose_is_that_of_the_address(impl):
    x = torch.zeros(SHAPE)
    at = {"a": [0.0], "b": 1.0, "seed": 3, "draw": 2, "impl": impl}
    want = 0.5 * fl.randn(SHAPE, seed=3, draw=2, purpose=200) + -2.0 * fl.randn(SHAPE, seed=3, draw=5, purpose=200)
    for draws in (PAIRS[:2], table(PAIRS[:2])):
        assert torch.equal(fl.step(x, [x], **at, purpose=200, draws=draws), want)
        assert not torch.equal(fl.step(x, [x], **at, draws=draws), want)


def test_offsets_are_added_to_the_draw_and_numbers_are_not(impl):
    x, slots = state(), scores(2)
    at = {"a": factors(2), "b": 0.7, "c": 0.9, "seed": 3, "impl": impl}
    for draw in (0, 6, 2**32 - 8, torch.tensor(6), torch.tensor(2**32 - 8)):
        want = formula(x, slots, factors(2), 0.7, noise(x, PAIRS, draw=int(draw)))
        assert torch.equal(fl.step(x, slots, **at, draw=draw, draws=PAIRS), want)
        assert torch.equal(fl.step(x, slots, **at, draw=9, draws=table(PAIRS, int(draw))), want)


def test_a_table_holds_any_number_of_draws(impl):
    x = torch.zeros(2, 7)
    pairs = [(2.0 ** -(i % 5), (17 * i) % 100) for i in range(100)]
    got = fl.step(x, [x], a=[0.0], b=1.0, seed=3, draw=2, draws=table(pairs), impl=impl)
    assert torch.equal(got, noise(x, pairs))
    ends = torch.tensor([1.0, 1.0]), torch.tensor([0, 2**32 - 1])
    got = fl.step(x, [x], a=[0.0], b=1.0, seed=3, draws=ends, impl=impl)
    assert torch.equal(got, normals(x, 0) + normals(x, 2**32 - 1))


def test_a_table_is_taken_in_any_layout_and_float_dtype(impl):
    x = state()
    at = {"a": [0.3], "b": 0.7, "seed": 3, "draw": 2, "impl": impl}
    want = fl.step(x, [x], **at, draws=PAIRS)
    weights, numbers = table(PAIRS)
    for dtype in FLOATS:
        assert torch.equal(fl.step(x, [x], **at, draws=(weights.to(dtype), numbers)), want)
    strided = torch.stack((weights, weights), 1)[:, 0], torch.stack((numbers, numbers), 1)[:, 0]
    assert torch.equal(fl.step(x, [x], **at, draws=strided), want)
    assert torch.equal(fl.step(x, [x], **at, draws=[weights, numbers]), want)


def test_draws_of_an_update_without_noise_are_not_looked_for(impl):
    x = state()
    before = torch.get_rng_state()
    got = fl.step(x, [x, x], a=[0.5, 0.25], b=None, draws=PAIRS, impl=impl)
    assert torch.equal(got, x + 0.5 * x + 0.25 * x)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_noise_can_be_given(impl):
    x, slots = state(), scores(2)
    want = fl.step(x, slots, a=factors(2), b=0.7, c=0.9, seed=3, draw=2, draws=PAIRS, impl=impl)
    given = noise(x, PAIRS)
    assert torch.equal(fl.step(x, slots, a=factors(2), b=0.7, c=0.9, noise=given, impl=impl), want)


def test_the_sum_of_draws_has_the_law_that_its_weights_say(impl):
    """A path's increments: weights w_i / sqrt(n) of n draws are one normal, and shared draws correlate two updates."""
    x = torch.zeros(4, 5000)
    one = fl.step(x, [x], a=[0.0], b=1.0, seed=1, draws=[(0.6, 0), (0.8, 1)], impl=impl)
    other = fl.step(x, [x], a=[0.0], b=1.0, seed=1, draws=[(1.0, 1)], impl=impl)
    n = x.numel()
    assert abs(one.var().item() - 1) < 5 * math.sqrt(2 / n)
    # The product of normals with correlation r has variance 1 + r^2.
    assert abs((one * other).mean().item() - 0.8) < 5 * math.sqrt(1.64 / n)
    assert abs((one * other).mean().item() - 0.6) > 5 * math.sqrt(1.64 / n)


# Regions that are known, and what is watched.


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_region_is_known(impl, dtype):
    x, slots = state(dtype=dtype), scores(3, dtype=dtype)
    mask, known = state((2, 1), seed=7) > 0, state((1, 2, 5), dtype, 8)
    at = {"a": factors(3), "b": 0.7, "c": 0.9, "seed": 3, "draw": 2, "draws": PAIRS, "impl": impl}
    want = torch.where(mask, known, fl.step(x, slots, **at))
    assert torch.equal(fl.step(x, slots, **at, mask=mask, known=known), want)
    assert torch.equal(fl.step_(x, slots, **at, mask=mask, known=known), want)


@pytest.mark.parametrize("draws", [PAIRS, table(PAIRS)], ids=["pairs", "tensors"])
@pytest.mark.parametrize("place", range(4))
def test_the_first_update_that_is_not_finite_is_recorded_by_its_number(impl, place, draws):
    x, slots = state(), scores(3)
    [x, *slots][place][1, 1, 2] = (math.nan, math.inf, -math.inf, math.nan)[place]
    at = {"a": factors(3), "b": 0.7, "c": 0.9, "seed": 3, "draw": 40, "draws": draws, "impl": impl}
    want = fl.step(x, slots, **at)
    fault = clean()
    for number in (7, 5, torch.tensor(6), 2**32 - 1):
        got = fl.step(x, slots, **at, number=number, fault=fault)
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
        assert fault.tolist() == [NO_FAULT, 7 if number == 7 else 5, NO_FAULT]
    kept = x.clone()
    for number, frozen in ((5, False), (6, True), (torch.tensor(6), True)):
        got = fl.step(x, slots, **at, number=number, fault=fault, freeze=True)
        assert torch.equal(got[0], want[0])
        torch.testing.assert_close(got[1], kept[1] if frozen else want[1], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(
        fl.step_(x, slots, **at, number=6, fault=fault, freeze=True)[1], kept[1], rtol=0, atol=0, equal_nan=True
    )


def test_draws_that_overflow_are_recorded(impl):
    x, fault = state(dtype=torch.float16), clean()
    fl.step(x, [x], a=[0.1], b=1.0, seed=3, draws=[(1.0, 0), (1e6, 1)], number=9, fault=fault, impl=impl)
    assert fault.tolist() == [9] * 3


def test_the_number_is_the_draw_where_there_are_no_draws(impl):
    x, fault = state(), clean()
    x[2, 0, 0] = math.inf
    fl.step(x, scores(2), a=factors(2), b=0.7, seed=3, draw=11, fault=fault, impl=impl)
    assert fault.tolist() == [NO_FAULT, NO_FAULT, 11]
    fl.step(x, scores(2), a=factors(2), b=0.7, seed=3, draw=11, number=4, fault=fault, impl=impl)
    assert fault.tolist() == [NO_FAULT, NO_FAULT, 4]


@pytest.mark.parametrize("impl", ["reference", "cpp", "auto"])
def test_an_update_that_freezes_by_no_record_is_refused(impl):
    """Of one score, too, which goes to a kernel without the checks: it would read a record at address zero."""
    x = state()
    terms, address = (Term(1.0, x), Term(0.5, x)), Address(3, 2, None, 0, Purpose.LANGEVIN)
    for out in (None, x):
        with pytest.raises(ValueError, match="give fault= too"):
            ops.move(Update(terms, 0.7, address, address.draw, freeze=True), impl, out)


# Gradients.


@pytest.mark.parametrize("count", [1, 2, MAX_TERMS - 1])
@pytest.mark.parametrize("draws", [None, PAIRS[:2], table(PAIRS[:2])], ids=["given", "pairs", "tensors"])
def test_gradients_are_those_of_the_formula(impl, count, draws):
    shape = (2, 2)
    x, *slots = (each.requires_grad_() for each in (state(shape, torch.float64), *scores(count, shape, torch.float64)))
    known = state(shape, torch.float64, 4).requires_grad_()
    z = [state(shape, torch.float64, 2).requires_grad_()] if draws is None else []
    at = {} if draws is None else {"seed": 3, "draw": 2, "draws": draws}
    mask = torch.tensor([[True, False], [False, False]])
    a = [torch.tensor([0.1, 0.2], dtype=torch.float64), *factors(5)][:count]

    def update(x, known, *rest):
        given = {"noise": rest[-1]} if draws is None else at
        return fl.step(x, rest[:count], a=a, b=0.7, c=0.9, mask=mask, known=known, **given, impl=impl)

    inputs = (x, known, *slots, *z)
    assert torch.autograd.gradcheck(update, inputs, nondet_tol=0.0)
    for place in range(len(inputs)):  # one that is off by a hundredth in any of them is noticed
        assert not torch.autograd.gradcheck(
            lambda *each, place=place: update(*each) + (0.01 * each[place]).detach(), inputs, raise_exception=False
        )


@pytest.mark.parametrize("place", range(MAX_TERMS))
def test_each_gradient_is_its_factor(impl, place):
    """One at a time, in half precision too: what has a gradient does not hang on what the others have."""
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float32]
    slots = [state(dtype=dtype, seed=i) for i, dtype in enumerate(dtypes)]
    slots[place].requires_grad_()
    a = [0.5, 0.25, 0.125, 2.0, 4.0]
    out = fl.step(slots[0], slots[1:], a=a, b=0.7, c=0.75, seed=1, draws=PAIRS, impl=impl)
    out.sum().backward()
    assert torch.equal(slots[place].grad, torch.full(SHAPE, [0.75, *a][place], dtype=dtypes[place]))
    assert all(each.grad is None for i, each in enumerate(slots) if i != place)


def test_a_gradient_that_would_be_lost_is_refused(impl):
    leaf, other = state().requires_grad_(), state(seed=1)
    at = {"a": [0.1, 0.2], "b": None, "impl": impl}
    for slots in ([leaf, other], [other, leaf]):
        with pytest.raises(ValueError, match="x is written in place, which cannot be differentiated"):
            fl.step_(state(), slots, **at)
        with pytest.raises(ValueError, match="fault is written in place"):
            fl.step(state(), slots, **at, fault=clean())
        with torch.no_grad():
            fl.step_(state(), slots, **at)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_transforms_see_into_several_scores_and_draws(impl):
    x, slots = state(), scores(2)

    def update(x, one, other):
        return fl.step(x, [one, other], a=[0.3, 0.2], b=0.7, c=0.9, seed=3, draw=2, draws=PAIRS, impl=impl)

    value, tangent = torch.func.jvp(update, (x, *slots), (x, *slots))
    assert torch.equal(value, update(x, *slots))
    torch.testing.assert_close(tangent, 0.9 * x + 0.3 * slots[0] + 0.2 * slots[1])
    several = torch.stack((x, -x)), *(torch.stack((each, 2 * each)) for each in slots)
    found = torch.vmap(update)(*several)
    assert all(torch.equal(found[i], update(*(each[i] for each in several))) for i in range(2))


# Compilation and registration.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", ["pairs", "tensors"])
def test_compiled_calls_are_few_and_have_the_same_bits(impl, form):
    """Steps with their own factors, weights, seed, draw and number: at most 4 compilations, in one graph each."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    backend = CompileCounterWithBackend("aot_eager")

    def update(x, slots, a, b, seed, draw, draws, number, fault):
        return fl.step(x, slots, a=a, b=b, seed=seed, draw=draw, draws=draws, number=number, fault=fault, impl=impl)

    compiled = torch.compile(update, fullgraph=True, backend=backend)
    x, slots = state((3, 7)), scores(3, (3, 7))
    for step in range(50):
        a = [0.1 / (step + 2), -0.3 + 1e-3 * step, 0.2 + step]
        pairs = [(0.5 + 1e-2 * step, step % 3), (-1.0 / (step + 2), 3 + step)]
        draws = pairs if form == "pairs" else table(pairs, 100 * step)
        rest = (0.3 + 1e-3 * step, (step * 2**53 + step) % 2**63, 100 * step, draws, 2 + step)
        ours, theirs = clean(), clean()
        assert torch.equal(compiled(x, slots, a, *rest, ours), update(x, slots, a, *rest, theirs))
        assert torch.equal(ours, theirs)
    assert backend.frame_count <= 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_gradients_and_updates_in_place(impl):
    torch._dynamo.reset()

    def update(x, one, other, draw):
        y = fl.step(x, [one, other], a=[0.5, 0.25], b=0.7, seed=3, draw=draw, draws=PAIRS, impl=impl)
        with torch.no_grad():
            z = fl.step_(y.detach().clone(), [one, y], a=[0.1, 0.2], b=0.3, seed=3, draws=table(PAIRS), impl=impl)
        return y, z

    compiled = torch.compile(update, fullgraph=True, backend="aot_eager")
    inputs = [state((3, 7)).requires_grad_(), *(each.requires_grad_() for each in scores(2, (3, 7)))]
    for draw in (2, 5):
        for each in inputs:
            each.grad = None
        y, z = compiled(*inputs, draw)
        assert all(map(torch.equal, (y, z), update(*inputs, draw)))
        y.sum().backward()
        assert [each.grad[0, 0].item() for each in inputs] == [1.0, 0.5, 0.25]


def flat(x, slots, draws, mask, known, noise):
    """The arguments of the registered operation."""
    numbers = [torch.tensor(0.5), torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), *map(torch.tensor, factors(4))]
    address = torch.tensor(3), torch.tensor(2), torch.tensor([5, 2, 2**40]), 0, 1
    return x, slots, numbers[: len(slots) + 1], torch.tensor(0.7), *address, *draws, noise, mask, known


@pytest.mark.parametrize("given", [False, True], ids=["drawn", "given"])
@pytest.mark.parametrize("count", [0, 2, MAX_TERMS - 1])
def test_opcheck_of_the_updates(impl, count, given):
    x, slots = state(), scores(count)
    draws = (None, None) if given else table(PAIRS)
    region = (x > 0.5, state(seed=3), state(seed=4)) if given else (None, None, None)
    arguments = flat(x, slots, draws, *region)
    opcheck(torch.ops.fastlangevin.step.default, (*arguments, impl))
    opcheck(torch.ops.fastlangevin.step_.default, (x.clone(), *arguments[1:], impl))
    watch = torch.tensor(9), clean(), True, impl
    opcheck(torch.ops.fastlangevin.watched_step.default, (*arguments, *watch))
    opcheck(torch.ops.fastlangevin.watched_step_.default, (x.clone(), *arguments[1:], *watch))


def test_the_registered_operation_is_the_function(impl):
    x, slots = state(), scores(3)
    region = x > 0.5, state(seed=3)
    got = torch.ops.fastlangevin.step(*flat(x, slots, table(PAIRS), *region, None), impl)
    a = [torch.tensor([0.1, 0.2, 0.3]), *factors(2)]
    at = {"seed": 3, "draw": 2, "draws": PAIRS, "sample_ids": [5, 2, 2**40], "impl": impl}
    assert torch.equal(got, fl.step(x, slots, a=a, b=0.7, c=0.5, mask=region[0], known=region[1], **at))


# Memory that is written.


def test_the_inputs_are_only_read_and_may_be_the_state(impl):
    x, slots = state(), scores(2)
    weights, numbers = table(PAIRS)
    copies = [each.clone() for each in (x, *slots, weights, numbers)]
    at = {"a": factors(2), "b": 0.7, "seed": 3, "draws": (weights, numbers), "impl": impl}
    fl.step(x, slots, **at)
    assert all(map(torch.equal, (x, *slots, weights, numbers), copies))
    want = fl.step(x, [x, slots[0]], **at)
    assert torch.equal(fl.step_(x, [x, slots[0]], **at), want)


@pytest.mark.parametrize("place", range(3))
def test_an_overlap_with_any_score_is_refused(impl, place):
    memory = state((40,))
    x, slots = memory[:6].view(2, 3), [state((2, 3), seed=i) for i in range(3)]
    slots[place] = memory[3:9].view(2, 3)
    at = {"a": factors(3), "b": None, "impl": impl}
    with pytest.raises(ValueError, match=rf"x and score\[{place}\] overlap in memory"):
        fl.step_(x, slots, **at)
    out = memory[6:12].view(2, 3)
    with pytest.raises(ValueError, match=rf"out and score\[{place}\] overlap in memory"):
        fl.step(x, slots, **at, out=out)


def test_any_order_of_options_is_one_call(impl):
    x, slots = state(), scores(2)
    options = {"draws": PAIRS, "seed": 3, "draw": 2, "number": 4, "fault": clean()}
    want = fl.step(x, slots, a=factors(2), b=0.7, **options, impl=impl)
    for order in itertools.islice(itertools.permutations(options), 0, 120, 17):
        some = {name: options[name] for name in order}
        assert torch.equal(fl.step(x, slots, a=factors(2), b=0.7, **some, impl=impl), want)
