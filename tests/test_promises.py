"""The table of promises and the harnesses behind it that the other tests do not run."""

import importlib.util
import json
import shutil

import pytest
import torch

from benchmarks import cycles
from benchmarks.documents import documents
from fastlangevin.kernels.cpp import native
from tests.long import emulation, promises, words

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")


def test_the_documents_have_the_table_of_the_results():
    texts = {path.name: path.read_text(encoding="utf-8") for path in documents()}
    assert {name for name, text in texts.items() if promises.BLOCK.search(text)} == {"README.md", "promises.md"}
    for text in texts.values():
        assert promises.with_promises(text) == text
    whole = texts["promises.md"]
    assert promises.with_promises(whole.replace("words to normals", "words to numbers")) == whole
    lines = promises.BLOCK.search(texts["README.md"]).group().splitlines()[3:-1]
    assert 5 <= len(lines) <= 8
    # There the rows have one column more, the processor.
    assert all(any(row.startswith(line) for row in whole.splitlines()) for line in lines)


def test_every_row_names_a_harness_that_there_is():
    for row in promises.ROWS:
        if (promises.RESULTS / f"{row.source}.json").exists() and row.source != "tests":
            assert importlib.util.find_spec(f"tests.long.{row.source}"), row


def test_a_record_of_an_older_form_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(promises, "RESULTS", tmp_path)
    (tmp_path / "forking.json").write_text('{"benchmark": "forking"}')
    assert promises.table(["fork"]).splitlines()[2] == "| fork | not tested | | |"
    (tmp_path / "forking.json").write_text('{"figure": "12345 forks", "control": "one hung"}')
    assert promises.table(["fork"]).splitlines()[2].startswith("| fork | 12,345 forks |")


def test_what_has_no_results_is_said_to_be_not_tested(tmp_path, monkeypatch):
    monkeypatch.setattr(promises, "RESULTS", tmp_path)
    lines = promises.table().splitlines()[2:]
    assert len(lines) == len(promises.ROWS)
    assert all(promises.NOT_TESTED in line for line in lines)


XML = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_one[x]"/><testcase classname="tests.test_a" name="test_one[y]"/>
<testcase classname="tests.test_a" name="test_two"><skipped/></testcase>{more}</testsuite></testsuites>"""
FAILED = '<testcase classname="tests.test_b" name="test_c"><failure/></testcase>'


def test_cases_are_counted_by_test(tmp_path):
    path = tmp_path / "junit.xml"
    path.write_text(XML.format(more=""))
    counted = promises.count_cases(path)
    assert counted["passed"] == {"test_a::test_one": 2}
    assert counted["totals"] == {"passed": 2, "skipped": 1}
    assert promises.cases(counted, "test_a::test_one") == 2
    with pytest.raises(KeyError, match="no case of test_a::test_two passed"):
        promises.cases(counted, "test_a::test_two")
    path.write_text(XML.format(more=FAILED))
    with pytest.raises(ValueError, match="1 cases failed"):
        promises.count_cases(path)


def test_a_case_of_several_reports_is_counted_once(tmp_path, monkeypatch):
    fast, long = tmp_path / "fast.xml", tmp_path / "long.xml"
    fast.write_text(XML.format(more=""))
    # One case of the other report, another value of its parameter, the case that was skipped there, a test of its own.
    names = ("test_one[y]", "test_one[z]", "test_two", "test_long[a::b[0]]")
    cases = "".join(f'<testcase classname="tests.test_a" name="{name}"/>' for name in names)
    long.write_text(f"<testsuite>{cases}</testsuite>")
    monkeypatch.setattr(promises, "RESULTS", tmp_path)
    monkeypatch.setattr(promises, "ROWS", ())
    for order in ((fast, long), (long, fast), (long, fast, long)):
        assert promises.main(["--tests", *map(str, order)]) == 0
        counted = json.loads((tmp_path / "tests.json").read_text())
        assert counted["passed"] == {"test_a::test_long": 1, "test_a::test_one": 3, "test_a::test_two": 1}
        assert counted["totals"] == {"passed": 5}
    apart = [sum(promises.count_cases(each)["totals"].values()) for each in (fast, long)]
    assert sum(apart) > 5, "reports that were only added up would pass"


def test_a_failure_in_any_report_is_named_by_its_file(tmp_path):
    fast, long = tmp_path / "fast.xml", tmp_path / "long.xml"
    fast.write_text(XML.format(more=""))
    long.write_text(XML.format(more=FAILED))
    for order in ((fast, long), (long, fast)):
        with pytest.raises(ValueError, match=r"long\.xml: 1 cases failed"):
            promises.count_cases(*order)
    # The test passed, what follows it did not: two entries of one case.
    twice = FAILED.replace("<failure/>", "") + FAILED.replace("failure", "error")
    long.write_text(XML.format(more=twice))
    with pytest.raises(ValueError, match="1 cases failed"):
        promises.count_cases(fast, long)


def test_words_at_random_addresses(monkeypatch):
    monkeypatch.setattr(words, "SAMPLES", 500)
    outcome = words.measure(1)
    assert outcome["addresses"] == 500
    assert not any(outcome["differ"].values())
    assert {"reference", "triton, interpreted", *native.instruction_sets()} == set(outcome["differ"])
    assert outcome["control"]["nine rounds"] == 500
    assert outcome["control"]["swapped key"] > 400


@needs_compiler
def test_every_instruction_set_prints_the_same_digests(tmp_path):
    program = str(emulation.program_here(tmp_path))
    found = [emulation.digests([program], number, 10_000_019) for number in emulation.places().values()]
    assert len(found[0]) > 390
    assert all(each == found[0] for each in found)
    swapped = emulation.digests([program], 0, 10_000_019, "swapped")
    differing = [one.rpartition(" ")[0] for one, other in zip(found[0], swapped, strict=True) if one != other]
    assert set(differing) - {"faults of moves"} == {f"move of {terms}" for terms in range(2, 7)}
    assert len(differing) > 70


def test_the_emulated_processor_that_is_told_of():
    told = json.loads((promises.RESULTS / "emulation.json").read_text())
    assert any("neon" in name for name in told["differ"])
    assert not any(told["differ"].values())
    assert all(told["control"].values())


@needs_compiler
def test_the_parts_that_are_timed_make_the_stream(tmp_path, monkeypatch):
    library = cycles.compiled(native.instruction_sets()[0], tmp_path)
    assert cycles.wrong(library) is None
    monkeypatch.setattr(cycles.fl, "randn", lambda *args, **options: torch.zeros(1, library.elements()))
    assert cycles.wrong(library) == "differs from the reference"
