"""What all registered operations promise: opcheck has no objections, nothing is left unwritten, the bits repeat."""

import math

import pytest
import torch

from tests.long import registered, repeating
from tests.long.poison import TAIL, leaves_a_tail, poisoned, unwritten


def test_every_registered_operation_has_arguments_to_check_it_with():
    assert set(registered.names()) == set(map(registered.operation, registered.arguments("reference")))
    assert len(registered.names()) >= 15


TABLES = ("1 term", "6 terms")


def test_opcheck_has_no_objections():
    assert registered.faults("cpp") == {}


def test_opcheck_objects_to_a_fake_of_another_shape():
    assert registered.control() != "not caught"


def test_every_set_of_an_update_has_the_bits_of_the_reference(impl):
    assert registered.of_other_bits(impl) == []


@pytest.mark.parametrize(("mistake", "kinds"), [("factors", ("", "1 term", "4 terms", "6 terms")), ("weights", TABLES)])
def test_arguments_of_updates_that_change_places_are_seen(mistake, kinds):
    updates = [name for name in registered.arguments("cpp") if "step" in name]
    caught = registered.of_other_bits("cpp", registered.MISTAKES[mistake])
    assert caught == [name for name in updates if name.partition(": ")[2].partition(",")[0] in kinds]


def test_no_operation_leaves_an_element_unwritten(impl):
    with poisoned():
        assert torch.empty(3).isnan().all()
        for name, arguments in registered.arguments(impl, side=5, dtype=torch.bfloat16).items():
            for found in registered.results(name, arguments):
                assert found.isfinite().all(), name


SPECIAL = torch.tensor([math.inf, -math.inf, math.nan])


def with_specials(value, first):
    """Every seventh number of an operand infinite or NaN; tables of few numbers as they are."""
    if isinstance(value, list):
        return [with_specials(each, first) for each in value]
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.numel() < 14:
        return value
    flat = value.reshape(-1).clone()
    places = torch.arange(first, len(flat), 7)
    flat[places] = SPECIAL[places % 3].to(value.dtype)
    return flat.view(value.shape)


def are_alike(one, other):
    """NaN in the same places, and the same bits elsewhere."""
    missing = one.isnan()
    kept = [each[~missing].view(torch.uint8) for each in (one, other)]
    return torch.equal(missing, other.isnan()) and torch.equal(*kept)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")  # of Triton's interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_results_that_are_not_finite_are_so_in_the_same_places(impl, dtype):
    """Bits are promised of all results but NaN, whose sign and payload are the processor's."""
    made = [registered.arguments(each, dtype=dtype) for each in (impl, "reference")]
    seen = 0
    for name in made[0]:
        if dtype == torch.float64 and "step" not in name:
            continue  # the tables and parameters of these arguments are fp32, as fp64 images have none
        for first in (0, 3):
            found, want = (
                registered.results(name, tuple(with_specials(value, first) for value in arguments[name]))
                for arguments in made
            )
            seen += int(want[0].isnan().any())
            if "norm" in name or name in ("add_elu", "mlp_chain_"):
                # No bits are promised, nor which sums of an infinite channel are infinite and which NaN.
                assert torch.equal(found[0].isnan(), want[0].isnan()), name
                continue
            for one, other in zip(found, want, strict=True):
                assert are_alike(one, other) if one.is_floating_point() else torch.equal(one, other), name
    assert seen >= 8


def test_a_nan_elsewhere_and_another_infinity_are_seen():
    x = torch.tensor([1.0, math.inf, math.nan, -0.0])
    assert are_alike(x, torch.tensor([1.0, math.inf, -math.nan, -0.0]))
    for other in ([1.0, -math.inf, math.nan, -0.0], [math.nan, math.inf, 1.0, -0.0], [1.0, math.inf, math.nan, 0.0]):
        assert not are_alike(x, torch.tensor(other))


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
