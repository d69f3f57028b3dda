"""The harness of seeded faults in a short form: table and results fit the tree and each other, and one fault runs."""

import json
from dataclasses import replace

import pytest

from tests.long import mutation
from tests.long.faults import EQUIVALENT, FAULTS
from tests.long.faults.fault import StaleTableError, apply

TABLE = (*FAULTS, *EQUIVALENT)
RECORD = json.loads(mutation.RESULTS.read_text())
CHEAP = "geometric ladder without its last level"
SAME = "equivalent: the factors of a ladder's times in another order"


def named(name):
    return next(fault for fault in TABLE if fault.name == name)


@pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)
def test_the_table_fits_the_tree(fault):
    assert apply(fault, mutation.ROOT) != (mutation.ROOT / fault.file).read_text()
    for test in fault.tests:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (mutation.ROOT / path).read_text() or not name


@pytest.mark.parametrize(
    "change",
    [{"old": "a text that is nowhere"}, {"old": "import"}, {"file": "not/there.py"}, {"new": "{old}"}],
    ids=str,
)
def test_a_stale_table_is_refused(change):
    fault = named(CHEAP)
    change = {name: text.format(old=fault.old) for name, text in change.items()}
    with pytest.raises(StaleTableError, match="bring tests/long/faults up to date"):
        apply(replace(fault, **change), mutation.ROOT)


def test_names_are_unique_and_kernels_and_rules_are_in_the_table():
    assert len({fault.name for fault in TABLE}) == len(TABLE)
    assert len(FAULTS) >= 40
    folders = {fault.file.rpartition("/")[0] for fault in FAULTS}
    assert folders >= {
        "kernels/triton",
        "kernels/cpp/csrc",
        *(f"fastlangevin/{name}" for name in ("reference", "rules", "samplers")),
    }


def test_the_results_are_of_this_table_and_every_fault_was_caught():
    found = [(row["name"], row["digest"], row["outcome"]) for row in RECORD["faults"]]
    assert found == [(fault.name, fault.digest, "caught") for fault in FAULTS]
    assert all(row["caught_by"].startswith("tests/") for row in RECORD["faults"])
    found = [(row["name"], row["digest"], row["outcome"]) for row in RECORD["equivalent"]]
    assert found == [(fault.name, fault.digest, "survived") for fault in EQUIVALENT]
    assert not mutation.wrong([*RECORD["faults"], *RECORD["equivalent"]])


@pytest.mark.parametrize("outcome", ["survived", "invalid"])
def test_a_fault_that_is_not_caught_fails_the_harness(outcome):
    row = {**RECORD["faults"][0], "outcome": outcome, "caught_by": "", "how": ""}
    assert mutation.wrong([row]) == [f"{row['name']} ({row['file']}): {outcome}"]
    same = {**RECORD["equivalent"][0], "outcome": "caught", "caught_by": "tests/test_a.py::test_b", "how": "assert 0"}
    assert mutation.wrong([same]) == [f"{same['name']} ({same['file']}): caught tests/test_a.py::test_b assert 0"]


@pytest.mark.long
def test_one_fault_is_caught_and_its_equivalent_is_not(tmp_path):
    # One that needs no C++ library, which the harness would build.
    test = "tests/test_ladders.py::test_a_ladder_descends_from_end_to_end_in_fp64"
    fault, same = (replace(named(name), tests=(test,)) for name in (CHEAP, SAME))
    caught = mutation.run_fault(fault, tmp_path, 120.0, whole=False)
    assert (caught.outcome, caught.caught_by) == ("caught", f"{test}[geometric]")
    survived = mutation.run_fault(same, tmp_path, 120.0, whole=False)
    assert (survived.outcome, survived.caught_by) == ("survived", "")
    assert not list(tmp_path.glob("tree-*"))


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (["survived", "survived"], "survived"),
        (["survived", "caught", "survived"], "caught"),
        (["survived", "caught", "caught"], "invalid"),  # by a test that fails without the fault
        (["caught"], "caught"),
    ],
    ids=str,
)
def test_where_the_named_tests_pass_the_rest_is_asked(tmp_path, monkeypatch, said, outcome):
    asked = []

    def test(tree, tests, seconds):
        asked.append((tree.folder.name, list(tests)))
        node = "tests/test_a.py::test_b"
        return said[len(asked) - 1], node if said[len(asked) - 1] == "caught" else "", ""

    monkeypatch.setattr(mutation.Tree, "test", test)
    assert mutation.run_fault(named(CHEAP), tmp_path, 1.0).outcome == outcome
    assert [name for name, _ in asked] == ["tree", "tree", "clean"][: len(said)]
    if len(said) > 1:
        rest = asked[1][1]
        assert rest[-1] == "tests/test_compile_gates.py"
        assert {*rest, *named(CHEAP).tests, "tests/test_mutation.py"} >= {
            f"tests/{path.name}" for path in (mutation.ROOT / "tests").glob("test_*.py")
        }


def test_what_does_not_import_is_invalid(tmp_path):
    fault = named(CHEAP)
    broken = mutation.run_fault(replace(fault, new=fault.new + " +"), tmp_path, 60.0, whole=False)
    assert (broken.outcome, broken.caught_by) == ("invalid", "")


REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_right" file="tests/test_a.py"/>
<testcase classname="tests.test_a" name="test_b[1]" file="tests/test_a.py"><{tag} message="{said}"/></testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("tag", "said", "outcome"),
    [
        ("failure", "assert 1 == 2", "caught"),
        ("failure", "AssertionError: Tensor-likes are not equal!", "caught"),
        ("failure", "Failed: DID NOT RAISE ValueError", "caught"),
        ("failure", "ValueError: the sample is not finite", "caught"),
        ("failure", "NameError: name 'x' is not defined", "invalid"),
        ("failure", "triton.compiler.errors.CompilationError: at 1:0:", "invalid"),
        ("error", "collection failure", "invalid"),
        ("error", "failed on setup with RuntimeError", "invalid"),
    ],
)
def test_only_a_test_that_fails_has_caught_a_fault(tmp_path, tag, said, outcome):
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(tag=tag, said=said))
    assert mutation._verdict(report) == (outcome, "tests/test_a.py::test_b[1]", said)
