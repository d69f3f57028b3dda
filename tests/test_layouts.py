"""Every 13th of the cases of tests.long.layouts, and a few in Triton's interpreter; its mistakes are caught there."""

import pytest
import torch

from tests.long import layouts

EVERY = list(layouts.cases())
# A step that shares no factor with the numbers of dtypes, arrangements or operations takes all of them in turn.
CHOSEN = EVERY[::13]
SMALL = [case for case in layouts.interpreted(CHOSEN) if torch.Size(case.shape).numel() < 100]


def test_any_arrangement_has_the_bits_of_contiguous_operands(impl):
    chosen = {"cpp": CHOSEN, "reference": layouts.plain(CHOSEN), "triton": SMALL[::50]}[impl]
    assert layouts.wrong(chosen, impl) == []


def test_there_are_enough_of_them_and_of_every_kind():
    assert len(CHOSEN) + len(layouts.plain(CHOSEN)) >= 900
    for kind in ("operation", "shape", "dtype", "arrangement", "special"):
        assert {getattr(case, kind) for case in CHOSEN} == {getattr(case, kind) for case in EVERY}


@pytest.mark.parametrize("mistake", ["ignores strides", "ignores where memory begins"])
def test_kernels_that_misread_memory_are_caught(mistake):
    some = CHOSEN[::5]
    assert len(layouts.wrong(some, "reference", layouts.MISTAKES[mistake])) > len(some) // 10


@pytest.mark.parametrize(
    ("mistake", "blind"),
    [
        # Of one term, whose other factor is a number; and of noise that is given, or of one draw.
        ("takes another term's coefficient", {"move of 1 term"}),
        ("takes another draw's weight", {"move over what is known", "move over slot 4"}),
    ],
)
def test_kernels_that_take_what_is_another_term_s_are_caught_in_every_move(mistake, blind):
    some = [case for case in CHOSEN[::2] if case.operation in layouts.MOVES]
    found = {case.operation for case in layouts.wrong(some, "cpp", layouts.MISTAKES[mistake])}
    assert found == layouts.MOVES.keys() - blind
