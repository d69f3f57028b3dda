"""Short forms of tests.long.calls: generated calls of the public operations, and the packing of addresses."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.long import calls
from tests.long.generated_calls import generate


@st.composite
def generated(draw):
    return generate(lambda choices: draw(st.sampled_from(choices)))


def test_generated_calls_return_the_oracles_result_or_say_what_is_wrong():
    counts = Counter()

    @settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(generated())
    def every(call):
        counts[calls.check(call)] += 1

    every()
    assert min(counts["returned"], counts["refused"]) > 50


def test_calls_can_be_made_again_by_their_number():
    counts, broken = calls.run(500, start=10**6)
    assert broken == []
    assert {name.split()[0] for name in counts} == set(calls.PUBLIC)


def test_mistakes_are_caught():
    assert min(calls.controls(500).values()) > 0


def test_packing_an_address_is_injective_and_can_be_undone():
    faults = calls.address_faults(100_000)
    assert faults == {"pairs": 100_000, "alike": 0, "not undone": 0}


def test_a_packing_that_loses_a_bit_is_caught():
    faults = calls.address_faults(5000, lost_bits=1)
    assert faults["alike"] > 0
    assert faults["not undone"] > 0
