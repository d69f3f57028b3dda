"""The record of the first update that is not finite: one on every implementation, and no bit of a state changed."""

import math

import numpy as np
import pytest
import torch
from torch.library import opcheck

import fastlangevin as fl
from fastlangevin import reference
from fastlangevin.kernels.address import Address, Term, Update
from fastlangevin.ops import NO_FAULT

FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
ADDRESS = {"a": 0.3, "b": 0.7, "c": 0.9, "seed": 3}


def state(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def clean(batch):
    return torch.full((batch,), NO_FAULT)


def same(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def places(elements):
    """Of each class: the ends of a sample, of a block, a vector, a chunk, a segment, and between them."""
    cuts = (0, 4, 8, 16, 64, 128, 512, 1024, 2048, elements)
    return sorted({at for cut in cuts for at in (cut - 1, cut, cut + 1) if 0 <= at < elements})


def missed(watch, elements):
    """The samples whose record is wrong where every other one has a fault, each at another place."""
    where = places(elements)
    s = torch.zeros(2 * len(where) + 1, elements)
    s[torch.arange(1, len(s), 2), where] = math.nan
    want = [NO_FAULT, 6] * len(where) + [NO_FAULT]
    return [row for row, (one, other) in enumerate(zip(watch(s), want, strict=True)) if one != other]


@pytest.mark.parametrize("elements", [1, 3, 5, 70, 516, 1030])
@np.errstate(all="ignore")  # Triton's interpreter computes with NumPy
def test_a_fault_is_found_wherever_it_is(impl, elements):
    def watch(s):
        fault = clean(len(s))
        fl.step(state(s.shape), s, **ADDRESS, draw=6, fault=fault, impl=impl)
        return fault.tolist()

    def of_first_chunk(s):
        return [NO_FAULT if row[:512].isfinite().all() else 6 for row in s]

    def of_whole_batch(s):
        return [NO_FAULT if s.isfinite().all() else 6] * len(s)

    assert not missed(watch, elements)
    assert bool(missed(of_first_chunk, elements)) == (elements > 512)
    assert missed(of_whole_batch, elements)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_instruction_set_finds_it(threads):
    cpp = pytest.importorskip("fastlangevin.kernels.cpp.native")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in cpp.instruction_sets():
            cpp.use_instruction_set(name)
            for shape in ((3, 1025), (300, 3), (3, 40_000)):
                x, elements = state(shape), shape[1]
                for at in (0, elements // 2, elements - 1):
                    s = state(shape, seed=1)
                    s[1, at], s[2, -1] = math.inf, math.nan
                    fault = clean(shape[0])
                    y = fl.step(x, s, **ADDRESS, draw=9, fault=fault, impl="cpp")
                    same(y, fl.step(x, s, **ADDRESS, draw=9, impl="reference"))
                    assert fault.tolist() == [NO_FAULT, 9, 9] + [NO_FAULT] * (shape[0] - 3), (name, shape, at)
    finally:
        torch.set_num_threads(before)
        cpp.use_instruction_set(None)


def test_results_past_the_caches_are_watched():
    x, s = torch.zeros(2, 1 << 21), torch.zeros(2, 1 << 21)
    s[1, -1] = math.nan
    fault, out = clean(2), torch.empty_like(x)
    fl.step(x, s, **ADDRESS, draw=1, fault=fault, out=out, impl="cpp")
    assert fault.tolist() == [NO_FAULT, 1]
    same(out, fl.step(x, s, **ADDRESS, draw=1, impl="cpp"))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@np.errstate(all="ignore")
def test_what_counts_is_the_rounded_result(impl, dtype):
    top = torch.finfo(dtype).max
    # Halfway to the next power of two is rounded to an infinity; what is just below it is not.
    above, below = (2.0, 1.0) if dtype in (torch.float32, torch.float64) else (1 + 2e-3, 1 + 1e-5)
    x = torch.zeros(4, 8, dtype=dtype)
    score = torch.zeros(4, 8, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    if dtype in (torch.float16, torch.bfloat16):
        score[0, 5], score[1, 2] = top * above, -top * below
        a = 1.0
    else:
        score[0, 5], score[1, 2] = top / 2, -top / 4
        a = 3.9
    score[2, 7] = -math.inf
    fault = clean(4)
    y = fl.step(x, score, a=a, b=None, draw=2, fault=fault, impl=impl)
    want = y.isfinite().all(1)
    assert want.tolist() == [False, True, False, True]
    assert fault.tolist() == [2, NO_FAULT, 2, NO_FAULT]


def variants():
    x, s = state((3, 4, 5, 6)), state((3, 4, 5, 6), seed=1)
    s[1, 2, 3, 4] = math.inf
    last = {"x": x.to(memory_format=torch.channels_last), "score": s.to(memory_format=torch.channels_last)}
    yield "contiguous", {"x": x, "score": s}
    yield "channels_last", last
    yield "score channels_last", {"x": x, "score": last["score"]}
    yield "batch strided", {"x": state((6, 4, 5, 6))[::2], "score": s}
    yield "per sample", {"x": x, "score": s, "a": torch.tensor([0.1, 0.2, 0.3])}
    yield "per element", {"x": x, "score": s, "a": state((3, 4, 5, 6), seed=3), "c": state((3, 1, 5, 6), seed=4)}
    yield "noise", {"x": x, "score": s, "noise": state((3, 4, 5, 6), seed=5), "seed": None}
    yield "no noise", {"x": x, "score": s, "b": None}
    yield (
        "seeds, ids, draw in memory",
        {
            "x": x,
            "score": s,
            "seed": torch.tensor([4, 5, 6]),
            "sample_ids": [9, 3, 2**40],
            "draw": torch.tensor(7),
        },
    )
    known = torch.zeros(3, 4, 5, 6)
    yield "unmasked", {"x": x, "score": s, "mask": s > 9e9, "known": known}
    bad = known.clone()
    bad[2, 0, 0, 0] = math.nan
    yield "known", {"x": x, "score": s, "mask": bad != bad, "known": bad}


FOUND = {"unmasked": [NO_FAULT] * 3, "known": [NO_FAULT, 7, 7]}


@pytest.mark.parametrize(("name", "call"), list(variants()), ids=[name for name, _ in variants()])
@np.errstate(all="ignore")
def test_every_kind_of_call(impl, name, call):
    arguments = {"draw": 7, **ADDRESS, **call}
    found = FOUND.get(name, [NO_FAULT, 7, NO_FAULT])
    fault = clean(3)
    y = fl.step(**arguments, fault=fault, impl=impl)
    same(y, fl.step(**arguments, impl="reference"))
    assert fault.tolist() == found
    x = call["x"].clone()
    again = clean(3)
    fl.step_(**{**arguments, "x": x}, fault=again, freeze=True, impl=impl)
    same(x, y)  # a sample is as its first bad update left it
    assert again.tolist() == found
    # From the next draw on those samples stay, in place and not, and the others go on as they would.
    arguments.update(score=torch.ones_like(call["score"]), draw=arguments["draw"] + 1, known=None, mask=None)
    arguments.pop("x")
    free = fl.step(y, **arguments, impl="reference")
    want = torch.where((again < NO_FAULT).view(3, 1, 1, 1), y, free)
    got = fl.step(y, **arguments, fault=again, freeze=True, impl=impl)
    same(got, want)
    fl.step_(x, **arguments, fault=again, freeze=True, impl=impl)
    same(x, want)
    assert again.tolist() == found
    assert torch.equal(fl.step(y, **arguments, fault=again, impl=impl).isnan(), free.isnan())


@np.errstate(all="ignore")
def test_short_samples_are_frozen_one_by_one(impl):
    """They share chunks and blocks with their neighbours."""
    x, s = state((50, 3)), state((50, 3), seed=1)
    fault = clean(50)
    fault[::7] = 2
    y = fl.step(x, s, **ADDRESS, draw=3, fault=fault, freeze=True, impl=impl)
    free = fl.step(x, s, **ADDRESS, draw=3, impl="reference")
    same(y, torch.where((fault == 2)[:, None], x, free))
    # A fault of the same draw is of another part of the sample, which must not stop this one.
    same(
        fl.step(x, s, **ADDRESS, draw=2, fault=fault, freeze=True, impl=impl),
        fl.step(x, s, **ADDRESS, draw=2, impl="reference"),
    )


def test_the_first_draw_stays_whatever_the_order(impl):
    x, s = state((2, 9)), state((2, 9), seed=1)
    s[0, 4] = math.nan
    fault = clean(2)
    for draw in (8, 2**32 - 1, 5, 6):
        fl.step(x, s, **ADDRESS, draw=draw, fault=fault, impl=impl)
    assert fault.tolist() == [5, NO_FAULT]


def test_shapes_without_elements_and_without_dimensions(impl):
    for shape in ((0, 3), (3, 0)):
        fault = clean(shape[0])
        fl.step(torch.zeros(shape), torch.zeros(shape), **ADDRESS, fault=fault, impl=impl)
        assert (fault == NO_FAULT).all()
    fault = clean(1)
    fl.step(torch.tensor(1.0), torch.tensor(math.nan), **ADDRESS, draw=4, fault=fault, impl=impl)
    assert fault.tolist() == [4]


def test_registered_operations():
    x, s = state((2, 3, 8)), state((2, 3, 8), seed=1)
    number = torch.tensor(0.5)
    seed, draw, step = torch.tensor(1), torch.tensor(2), torch.tensor(3)
    rest = ([s], [number, number], number, seed, draw, None, 0, 1, None, None, None, None, None, step)
    for freeze in (False, True):
        opcheck(torch.ops.fastlangevin.watched_step, (x, *rest, clean(2), freeze, "reference"))
        opcheck(torch.ops.fastlangevin.watched_step_, (x.clone(), *rest, clean(2), freeze, "reference"))


def test_compiled_programs_keep_the_record():
    def update(x, s, fault, draw):
        y = fl.step(x, s, a=0.3, b=0.7, seed=1, draw=draw, fault=fault)
        fl.step_(y, s, a=0.3, b=0.7, seed=1, draw=draw + 1, fault=fault, freeze=True)
        return y

    compiled = torch.compile(update, fullgraph=True, backend="aot_eager")
    for bad in (0, 1):
        x, s = state((2, 3, 8)), state((2, 3, 8), seed=1)
        s[bad, 1, 1] = math.inf
        ours, theirs = clean(2), clean(2)
        same(compiled(x, s, ours, torch.tensor(4)), update(x, s, theirs, torch.tensor(4)))
        assert ours.tolist() == theirs.tolist() == [4 if row == bad else NO_FAULT for row in range(2)]


def test_the_reference_is_written_out():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    s = torch.tensor([[1.0, math.nan], [1.0, 1.0], [math.inf, 1.0]])
    fault = torch.tensor([NO_FAULT, NO_FAULT, 3])
    terms = Term(0.0, x), Term(1.0, s)
    update = Update(terms, None, Address(0, 0, None, 0, 1), 5, fault=fault, freeze=True)
    same(reference.step(update), torch.tensor([[1.0, math.nan], [1.0, 1.0], [5.0, 6.0]]))
    assert fault.tolist() == [5, NO_FAULT, 3]
