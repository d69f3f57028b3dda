"""The update and the random tensors through the public functions: layouts, dtypes, outputs, gradients, compilation."""

import enum
import math

import numpy as np
import pytest
import torch
from torch.library import opcheck

import fastlangevin as fl
from fastlangevin import reference
from fastlangevin.noise import Purpose
from tests.long.promises import COMPILED_UPDATES

FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
SHAPES = [
    (0,),
    (1,),
    (5,),
    (3, 0),
    (0, 4),
    (2, 1),
    (2, 3),
    (3, 5),
    (2, 17),
    (2, 129),
    (1, 1025),
    (4, 3, 5, 7),
    (7, 2, 1, 2, 3),
]


def expected(x, score, a, b, c=1.0, seed=3, draw=2, mask=None, known=None):
    """The written order of operations on separate tensors, with the noise of the address."""
    z = reference.randn(
        math.prod(x.shape[1:]), torch.arange(x.shape[0]), seed=seed, draw=draw, purpose=Purpose.LANGEVIN
    )
    return reference.combine([(c, x), (a, score)], b, z.reshape(x.shape), mask, known)


def state(shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape(impl, shape):
    x, s = state(shape), state(shape, seed=1)
    y = fl.step(x, s, a=0.3, b=0.7, c=0.9, seed=3, draw=2, impl=impl)
    assert torch.equal(y, expected(x, s, 0.3, 0.7, 0.9))
    assert y.shape == x.shape


def test_a_scalar_state_is_one_sample(impl):
    x, s = torch.tensor(0.5), torch.tensor(-2.0)
    y = fl.step(x, s, a=0.3, b=0.7, seed=3, draw=2, impl=impl)
    assert torch.equal(y, expected(x[None], s[None], 0.3, 0.7)[0])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("score_dtype", FLOATS, ids=str)
def test_any_dtype(impl, dtype, score_dtype):
    x, s = state((3, 21), dtype), state((3, 21), score_dtype, seed=1)
    y = fl.step(x, s, a=0.1, b=0.2, c=0.9, seed=3, draw=2, impl=impl)
    assert y.dtype == dtype
    assert torch.equal(y, expected(x, s, 0.1, 0.2, 0.9))


def layouts(shape=(3, 4, 5, 6)):
    dense = state(shape)
    wide = state((6, 8, 5, 13), seed=5)
    yield "channels_last", dense.to(memory_format=torch.channels_last)
    yield "transposed", state((6, 4, 5, 3)).transpose(0, 3)
    yield "permuted", state((5, 3, 6, 4)).permute(1, 3, 0, 2)
    yield "stepped", wide[::2, ::2, :, 1::2]
    yield "shifted", state((3 * 4 * 5 * 6 + 3,))[3:].view(shape)
    yield "flipped batch", dense[torch.tensor([2, 0, 1])]
    yield "broadcast", state((3, 1, 1, 6)).expand(shape)


@pytest.mark.parametrize(("name", "x"), list(layouts()), ids=[name for name, _ in layouts()])
def test_layouts_have_the_noise_of_their_logical_elements(impl, name, x):
    s = state(x.shape, seed=1)
    want = expected(x.contiguous(), s, 0.3, 0.7)
    y = fl.step(x, s, a=0.3, b=0.7, seed=3, draw=2, impl=impl)
    assert torch.equal(y, want)
    if name in ("channels_last", "transposed", "permuted"):
        assert y.stride() == x.stride()
    strided_score = torch.empty_strided(x.shape, (1, 3, 12, 60)).copy_(s)
    assert torch.equal(fl.step(x, strided_score, a=0.3, b=0.7, seed=3, draw=2, impl=impl), want)
    out = torch.empty(6, 4, 5, 3).transpose(0, 3)
    assert fl.step(x, s, a=0.3, b=0.7, seed=3, draw=2, out=out, impl=impl) is out
    assert torch.equal(out, want)


def test_in_place_writes_only_its_elements(impl):
    base = state((4, 10))
    view = base[1:3, 1:8:2]
    before = base.clone()
    s = state(view.shape, seed=1)
    want = expected(view.contiguous(), s, 0.3, 0.7)
    assert fl.step_(view, s, a=0.3, b=0.7, seed=3, draw=2, impl=impl) is view
    assert torch.equal(view, want)
    before[1:3, 1:8:2] = want
    assert torch.equal(base, before)


def test_out_may_be_the_state(impl):
    x, s = state((3, 9)), state((3, 9), seed=1)
    want = expected(x, s, 0.3, 0.7)
    assert torch.equal(fl.step(x, s, a=0.3, b=0.7, seed=3, draw=2, out=x, impl=impl), want)
    assert torch.equal(x, want)


def test_the_score_may_be_the_state(impl):
    x = state((3, 9))
    want = expected(x, x, 0.3, 0.7)
    assert torch.equal(fl.step_(x, x, a=0.3, b=0.7, seed=3, draw=2, impl=impl), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coefficients_of_every_kind(impl, dtype):
    x, s = state((3, 4, 5), dtype), state((3, 4, 5), dtype, seed=1)
    per_sample = torch.tensor([0.1, 0.2, 0.3])
    kinds = {
        "number": 0.25,
        "NumPy number": torch.tensor(0.25).numpy()[()],
        "scalar tensor": torch.tensor(0.25),
        "per sample": per_sample,
        "per sample, shaped": per_sample.double().view(3, 1, 1),
        "broadcast": torch.rand(1, 4, 1),
        "per element": torch.rand(3, 4, 5),
        "per element, strided": torch.rand(5, 4, 3).transpose(0, 2),
    }
    for name, value in kinds.items():
        shaped = value.view(3, 1, 1) if name == "per sample" else value
        if isinstance(shaped, torch.Tensor):
            shaped = shaped.to(dtype)
        for slot in "abc":
            mine = {"a": 0.1, "b": 0.2, "c": 0.9, slot: value}
            plain = {"a": 0.1, "b": 0.2, "c": 0.9, slot: shaped}
            got = fl.step(x, s, **mine, seed=3, draw=2, impl=impl)
            assert torch.equal(got, expected(x, s, **plain)), (name, slot)


def test_without_noise_nothing_is_drawn(impl):
    x, s = state((3, 9)), state((3, 9), seed=1)
    before = torch.get_rng_state()
    y = fl.step(x, s, a=0.3, b=None, c=0.5, impl=impl)
    assert torch.equal(y, 0.5 * x + torch.tensor(0.3) * s)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_can_be_given(impl):
    x, s = state((3, 9)), state((3, 9), seed=1)
    for noise in (state((3, 9), seed=2), state((3, 9), torch.float64, seed=2), state((9, 3), seed=2).T):
        y = fl.step(x, s, a=0.3, b=0.7, noise=noise, impl=impl)
        assert torch.equal(y, reference.combine([(1.0, x), (0.3, s)], 0.7, noise.float()))
    z = fl.randn((3, 9), seed=3, draw=2, purpose=Purpose.LANGEVIN)
    assert torch.equal(
        fl.step(x, s, a=0.3, b=0.7, noise=z, impl=impl), fl.step(x, s, a=0.3, b=0.7, seed=3, draw=2, impl=impl)
    )


def test_fp64_noise_stays_fp64_for_an_fp64_state(impl):
    x, s = state((3, 9), torch.float64), state((3, 9), torch.float64, seed=1)
    noise = torch.rand(3, 9, dtype=torch.float64)
    y = fl.step(x, s, a=0.3, b=0.7, noise=noise, impl=impl)
    assert torch.equal(y, (1.0 * x + 0.3 * s) + 0.7 * noise)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_known_values_are_kept(impl, dtype):
    x, s, known = state((3, 2, 9), dtype), state((3, 2, 9), dtype, seed=1), state((3, 2, 9), dtype, seed=2)
    free = expected(x, s, 0.3, 0.7)
    for mask in (
        torch.rand(3, 2, 9) < 0.5,
        torch.rand(9) < 0.5,
        torch.rand(3, 1, 1) < 0.5,
        torch.zeros(3, 2, 9).bool(),
    ):
        y = fl.step(x, s, a=0.3, b=0.7, seed=3, draw=2, mask=mask, known=known, impl=impl)
        assert torch.equal(y, torch.where(mask, known, free))
    y = fl.step(x, s, a=0.3, b=0.7, seed=3, draw=2, mask=mask, known=known[:1], impl=impl)
    assert torch.equal(y, torch.where(mask, known[:1], free))


@np.errstate(all="ignore")  # Triton's interpreter computes with NumPy
def test_non_finite_values_pass_through(impl):
    values = torch.tensor([[math.nan, math.inf, -math.inf, 3e38, -0.0, 1e-45, 1e-40, 65520.0]])
    for dtype in FLOATS:
        x = values.to(dtype)
        s = values.flip(1).to(dtype)
        y = fl.step(x, s, a=1.5, b=0.5, seed=3, draw=2, impl=impl)
        torch.testing.assert_close(y, expected(x, s, 1.5, 0.5), rtol=0, atol=0, equal_nan=True)


def test_batches_split_anywhere(impl):
    x, s = state((6, 13)), state((6, 13), seed=1)
    whole = fl.step(x, s, a=0.3, b=0.7, seed=3, draw=2, impl=impl)
    for cut in range(1, 6):
        parts = [
            fl.step(x[rows], s[rows], a=0.3, b=0.7, seed=3, draw=2, sample_offset=rows.start, impl=impl)
            for rows in (slice(0, cut), slice(cut, 6))
        ]
        assert torch.equal(torch.cat(parts), whole)


def test_large_enough_to_use_every_thread():
    x, s = state((5, 300_001)), state((5, 300_001), seed=1)
    y = fl.step(x, s, a=0.3, b=0.7, seed=3, draw=2, impl="cpp")
    assert torch.equal(y, expected(x, s, 0.3, 0.7))


def test_gradients_are_those_of_the_formula():
    x, s, z = (state((3, 4), torch.float64, seed).requires_grad_() for seed in (0, 1, 2))
    known = state((3, 4), torch.float64, 4).requires_grad_()
    mask = torch.rand(3, 4) < 0.5
    per_sample = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)

    def update(x, s, z, known):
        return fl.step(x, s, a=per_sample, b=0.7, c=0.9, noise=z, mask=mask, known=known)

    assert torch.autograd.gradcheck(update, (x, s, z, known), nondet_tol=0.0)
    assert not torch.autograd.gradcheck(
        lambda x, s, z, known: update(x, s, z, known) + (0.01 * x).detach(), (x, s, z, known), raise_exception=False
    )


def test_gradients_reach_half_precision_scores():
    x = state((3, 4)).requires_grad_()
    s = state((3, 4), torch.bfloat16, 1).requires_grad_()
    fl.step(x, s, a=0.25, b=0.7, seed=1).sum().backward()
    assert torch.equal(x.grad, torch.ones(3, 4))
    assert torch.equal(s.grad, torch.full((3, 4), 0.25, dtype=torch.bfloat16))


def test_writing_in_place_is_seen_by_autograd():
    x = state((3, 4))
    weight = torch.ones(3, 4, requires_grad=True)
    product = (weight * x).sum()
    with torch.no_grad():
        fl.step_(x, x, a=0.1, b=0.2, seed=0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_inference_mode(impl):
    x, score = state((3, 4)), state((3, 4), seed=1)
    numbers = {"a": 0.1, "b": 0.2, "seed": 3, "draw": 2, "impl": impl}
    after = expected(x, score, 0.1, 0.2)
    twice = expected(after, score, 0.1, 0.2)
    with torch.inference_mode():
        made = x.clone()
        assert torch.equal(fl.step(made, score, **numbers), after)
        assert torch.equal(fl.step_(made, score, **numbers), after)
        out = fl.step(made, score, out=torch.empty(3, 4), **numbers)
        assert torch.equal(out, twice)
        assert torch.equal(made, after), "the state is only read"
    assert torch.equal(fl.step(made, score, **numbers), twice), "outside of the mode, too"


def operation_arguments(**changes):
    scalar = torch.tensor
    arguments = {
        "others": [state((3, 2, 5), seed=1)],
        "factors": [scalar(1.0), scalar(0.1)],
        "b": scalar(0.2),
        "seed": scalar(3),
        "draw": scalar(2),
        "sample_ids": None,
        "sample_offset": 0,
        "purpose": 1,
        "weights": None,
        "numbers": None,
        "noise": None,
        "mask": None,
        "known": None,
        "impl": "auto",
    }
    return tuple({**arguments, **changes}.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"b": None},
        {"factors": [torch.tensor(1.0), torch.rand(3, 1, 1)], "sample_ids": torch.tensor([5, 2, 2**40])},
        {"noise": torch.rand(3, 2, 5), "mask": torch.rand(3, 2, 5) < 0.5, "known": torch.rand(3, 2, 5)},
    ],
    ids=["plain", "no noise", "per sample", "mask and noise"],
)
def test_opcheck_of_the_updates(changes):
    arguments = (state((3, 2, 5)), *operation_arguments(**changes))
    opcheck(torch.ops.fastlangevin.step.default, arguments)
    opcheck(torch.ops.fastlangevin.step_.default, arguments)


def test_opcheck_of_random_tensors():
    like = torch.empty(3, 5)
    for uniform in (False, True):
        opcheck(
            torch.ops.fastlangevin.random.default, (like, torch.tensor(3), torch.tensor(2), None, 7, 1, uniform, "auto")
        )


class Counter:
    """A torch.compile backend that counts compilations."""

    def __init__(self, backend):
        from torch._dynamo.testing import CompileCounterWithBackend

        torch._dynamo.reset()
        self.backend = CompileCounterWithBackend(backend)

    def compile(self, function):
        return torch.compile(function, fullgraph=True, backend=self.backend)

    @property
    def count(self):
        return self.backend.frame_count


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_calls_are_few_and_have_the_same_bits():
    """Steps with their own step size, seed and draw: at most 4 compilations, in one graph each."""
    counter = Counter("aot_eager")

    @counter.compile
    def compiled(x, s, a, b, seed, draw):
        return fl.step(x, s, a=a, b=b, seed=seed, draw=draw)

    x, s = state((3, 7)), state((3, 7), seed=1)
    for step in range(COMPILED_UPDATES):
        numbers = (0.1 / (step + 1), 0.3 + 1e-3 * step, (step * 2**53 + step) % 2**63, step % 500)
        y = compiled(x, s, *numbers)
        eager = {"a": numbers[0], "b": numbers[1], "seed": numbers[2]}
        assert torch.equal(y, fl.step(x, s, **eager, draw=numbers[3]))
        assert not torch.equal(y, fl.step(x, s, **eager, draw=numbers[3] + 1))
    assert counter.count <= 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inductor_compiles_the_whole_loop():
    counter = Counter("inductor")

    @counter.compile
    def loop(x, steps, seed):
        for draw, (a, b) in enumerate(steps):
            fl.step_(x, torch.tanh(-x), a=a, b=b, seed=seed, draw=draw)
        return x

    x = state((3, 7))
    steps = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    want = x.clone()
    for draw, (a, b) in enumerate(steps):
        fl.step_(want, torch.tanh(-want), a=a, b=b, seed=5, draw=draw)
    got = loop(x.clone(), steps, torch.tensor(5))
    # tanh is the compiler's own here, a few units off PyTorch's; the noise of either is of size 0.2.
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_random_tensors_and_gradients():
    counter = Counter("aot_eager")

    @counter.compile
    def function(x, s, seed):
        z = fl.randn((3, 7), seed=seed, draw=1)
        return fl.step(x, s, a=0.5, b=0.2, seed=seed) + z

    x, s = state((3, 7)).requires_grad_(), state((3, 7), seed=1).requires_grad_()
    for seed in (3, 4, 5):
        y = function(x, s, seed)
        assert torch.equal(y, fl.step(x, s, a=0.5, b=0.2, seed=seed) + fl.randn((3, 7), seed=seed, draw=1))
    y.sum().backward()
    assert torch.equal(s.grad, torch.full((3, 7), 0.5))
    assert torch.equal(x.grad, torch.ones(3, 7))


def test_a_compiled_seed_above_int64_says_what_to_do():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, seed: fl.step(x, x, a=0.1, b=0.2, seed=seed), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="below 2\\*\\*63"):
        compiled(state((3, 7)), 2**63)
    word = torch.tensor(2**63 - 2**64)
    assert torch.equal(compiled(state((3, 7)), word), fl.step(state((3, 7)), state((3, 7)), a=0.1, b=0.2, seed=2**63))


class Four(enum.IntEnum):
    """An integer whose class Dynamo does not take for a Python int."""

    FOUR = 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "function",
    [
        lambda x, ids: fl.step(x, -x, a=0.1, b=0.2, seed=3, draw=2),
        lambda x, ids: fl.step(x, -x, a=1, b=2, c=1, seed=Four.FOUR, draw=Four.FOUR),
        lambda x, ids: fl.step(x, -x, a=0.1, b=0.2, seed=3, sample_offset=Four.FOUR, purpose=Four.FOUR),
        lambda x, ids: fl.step(x, -x, a=0.1, b=0.2, seed=3, sample_ids=ids),
        lambda x, ids: fl.step_(x.clone(), -x, a=0.1, b=0.2, seed=3),
        lambda x, ids: fl.randn((4, 5), seed=3, draw=1, sample_ids=ids) + 0,
        lambda x, ids: fl.rand(x.shape, seed=3, purpose=fl.Purpose.DATA_ORDER) + 0,
        lambda x, ids: fl.perturb(x, torch.tensor([2.0, 1.0]), seed=3)[0],
        lambda x, ids: fl.dsm_loss(lambda x, labels: -x, x, torch.tensor([2.0, 1.0]), seed=3),
    ],
)
def test_every_kind_of_integer_compiles_into_one_graph(function):
    """Whatever PyTorch is installed; which integers its compiler follows differs between versions."""
    torch._dynamo.reset()
    x, ids = state((4, 5)), torch.tensor([3, 1, 2**40, 0])
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, ids), function(x, ids))
