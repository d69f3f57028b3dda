"""tests.long.untouched: public calls leave the settings of the process alone. Imports are for test_environment."""

import pytest

from tests.long import untouched

KINDS = [
    *("randn and rand", "step on each implementation", "step_ on large tensors", "perturb", "loss and gradient"),
    *("annealed_langevin", "annealed_langevin of a network", "annealed_langevin of a mixture", "consistent_annealed"),
    *("predictor_corrector", "langevin", "fuse", "plan", "diagnostics", "checkpoints", "shards", "a refused call"),
]


def test_public_calls_change_no_setting_of_the_process(tmp_path):
    calls = untouched.public_calls(tmp_path)
    assert list(calls) == KINDS
    assert {name: untouched.changed(call) for name, call in calls.items()} == {name: [] for name in KINDS}


def test_every_setting_has_a_call_that_changes_it_and_is_seen():
    assert set(untouched.controls()) == set(untouched.settings())
    assert untouched.unseen() == []


def test_a_call_that_takes_a_seed_from_the_generator_is_seen():
    fl = pytest.importorskip("fastlangevin")
    assert untouched.changed(lambda: fl.randn((2, 3))) == ["generator of PyTorch"]
