"""What all registered operations promise: opcheck has no objections, nothing is left unwritten, the bits repeat."""

import pytest
import torch

from benchmarks import registered, repeating
from benchmarks.poison import TAIL, leaves_a_tail, poisoned, unwritten


def test_every_registered_operation_has_arguments_to_check_it_with():
    assert set(registered.names()) == set(registered.arguments("reference"))
    assert len(registered.names()) >= 15


def test_opcheck_has_no_objections():
    assert registered.faults("cpp") == {}


def test_opcheck_objects_to_a_fake_of_another_shape():
    assert registered.control() != "not caught"


def test_no_operation_leaves_an_element_unwritten(impl):
    with poisoned():
        assert torch.empty(3).isnan().all()
        for name, arguments in registered.arguments(impl, side=5, dtype=torch.bfloat16).items():
            for found in registered.results(name, arguments):
                assert found.isfinite().all(), name


def test_a_kernel_that_leaves_a_tail_is_seen():
    assert unwritten(lambda: leaves_a_tail(torch.ones(4, 33))) == TAIL


def test_the_mode_is_on_where_it_is_asked_for(request):
    asked = request.config.getoption("--poison")
    assert torch.are_deterministic_algorithms_enabled() == asked
    assert not asked or torch.empty(3).isnan().all()


@pytest.mark.parametrize("name", list(repeating.calls(2)))
def test_bits_repeat_on_any_number_of_threads(name):
    assert repeating.different(repeating.calls()[name], 5) == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", list(repeating.products(2)))
def test_products_of_pytorch_repeat_on_one_number_of_threads(name, threads):
    assert repeating.different(repeating.products()[name], 5, (threads,)) == 0


@pytest.mark.parametrize("name", repeating.CONTROLS)
def test_sums_without_an_order_do_not_repeat(name):
    assert repeating.different(repeating.CONTROLS[name], 50) > 0
