"""The table of promises: what each has been held to, by which command, and what the same check refuses.

    python -m tests.long.promises                     print it
    python -m tests.long.promises --readme            write it into the README and docs/
    python -m tests.long.promises --check             fail where theirs is not that of the results
    python -m tests.long.promises --tests a.xml b.xml count the cases of runs of the tests (pytest --junitxml)

The long tests and the others run apart, so a count takes the reports of both; a case that is in several counts once.

Every figure is read from tests/long/results; a row whose results are not there, or are a record of an older form, says
"not tested". In a document the table stands between ``<!-- promises -->`` and ``<!-- end of promises -->``; a part of
it, between ``<!-- promises: PROMISE / PROMISE -->`` and the same end.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.documents import documents, rewrite
from benchmarks.timing import machine
from benchmarks.writing import write_record

__all__ = ["COMPILED_UPDATES", "FULL_SIZES", "PARTS", "ROWS", "STOPS", "Row", "table", "with_promises"]

RESULTS = Path(__file__).parent / "results"
BLOCK = re.compile(r"<!-- promises(?P<some>: [^>]*?)? -->\n.*?<!-- end of promises -->", re.DOTALL)
NOT_TESTED = "not tested"
KINDS = ("error", "failure", "skipped", "passed")  # of outcomes of a case, the worst first

# What one case of a test goes through: parts and stops of a sampler, sizes of a disk that is full, compiled updates.
PARTS = 125
STOPS = 25
FULL_SIZES = 60
COMPILED_UPDATES = 1000

# Of tests/bad_input/test_bad_calls.py: a row of its tables each.
BAD = ("bad_input.test_bad_calls::test_bad_call_is_refused_with_a_helpful_message_and_changes_nothing",)
MENDED = ("bad_input.test_bad_calls::test_the_same_call_mended_succeeds",)
FULL = "test_files::test_a_full_disk_leaves_the_old_file_and_nothing_else"
COMPILED = "test_ops::test_compiled_calls_are_few_and_have_the_same_bits"
MISTAKES = "test_sampler_mutants::test_a_mistake_is_caught"
RIGHT = "test_sampler_mutants::test_the_right_sampler_passes"
WORSE = "test_accuracy::test_a_worse_recipe_is_rejected"
ANY_PART = "test_exactness::test_any_part_of_a_run_has_the_bits_of_the_whole"
ANY_STOP = "test_exactness::test_a_chain_goes_on_from_any_point_with_the_same_bits"
ROUNDED = "test_faults::test_what_counts_is_the_rounded_result"
NOT_FINITE = (
    "test_faults::test_a_fault_is_found_wherever_it_is",
    "test_watching::test_the_first_bad_step_is_named_and_nothing_else_changes",
)

Record = dict[str, Any]
Tell = Callable[[Record], str]


class Row(NamedTuple):
    """A promise.

    Attributes:
        promise: what is promised.
        source: stem of its results; "tests" for what a run of the tests counts.
        figure: what it has been held to, from those results.
        control: what the same check must refuse, and did.
    """

    promise: str
    source: str
    figure: Tell
    control: Tell


def cases(record: Record, *names: str) -> int:
    """Passed cases of tests, by "file::function"."""
    missing = [name for name in names if name not in record["passed"]]
    if missing:
        raise KeyError(f"no case of {', '.join(missing)} passed; run the tests and --tests again")
    return sum(record["passed"][name] for name in names)


def counted(number: float) -> str:
    return f"{number:,.0f}"


def in_tests(*names: str) -> int:
    """Cases of tests that show the control of another harness."""
    path = RESULTS / "tests.json"
    return cases(json.loads(path.read_text()), *names) if path.exists() else 0


def _words(r: Record) -> str:
    interpreted = sum("interpreted" in name for name in r["differ"])
    return (
        f"{counted(r['addresses'])} addresses on each of {len(r['differ']) - interpreted} implementations, "
        f"{counted(r['addresses_interpreted'])} in Triton's interpreter: {sum(r['differ'].values())} differ"
    )


def _damage(r: Record) -> str:
    kinds = (("flips", "bit flips"), ("truncations", "truncations"), ("pages", "zeroed pages"))
    refused = all(r[key]["refused"] == r[key]["damaged"] for key, _ in kinds)
    return ", ".join(f"{counted(r[key]['damaged'])} {name}" for key, name in kinds) + (
        ": all refused" if refused else ": NOT all refused"
    )


def _law(r: Record) -> str:
    right = [row for name, row in r["laws"].items() if "too large" not in name]
    worst = max(max(abs(row["variance"]), row.get("mean", 0.0)) for row in right)
    return f"{counted(right[0]['elements'])} elements, every update: {worst:.1f} standard errors at most"


def _wrong_law(r: Record) -> str:
    wrong = [row["variance"] for name, row in r["laws"].items() if "too large" in name]
    return f"noise 0.1% too large: {min(wrong):.0f} standard errors"


def _seen(r: Record) -> str:
    caught = sum(fault["outcome"] == "caught" for fault in r["faults"])
    return f"{caught} of {len(r['faults'])} faults seeded into kernels and rules are caught"


def _fuzzed(r: Record) -> str:
    readers = r["figure"]
    lets_through = [name for name, each in readers.items() if each["changed"]]
    most = max(each["memory_beyond_the_file"] for each in readers.values())
    return (
        f"{counted(sum(each['inputs'] for each in readers.values()))} damaged or forged inputs of {len(readers)} "
        f"readers: {sum(each['findings'] for each in readers.values())} crashes, hangs or code run, at most "
        f"{most / 1e6:.0f} MB "
        f"beyond the file; changed numbers pass in a {' and a '.join(lets_through)} file only, which have no digest"
    )


def processor(record: Record) -> str:
    """The processor that a record was made on, with the best instruction set of the C++ kernels there."""
    if "machine" not in record:
        return "not recorded"
    sets = record["machine"].get("instruction_sets")
    return record["machine"]["processor"] + (f", {sets[0]}" if sets else "")


def told(promise: str, source: str) -> Row:
    """The row of a harness that writes its figure and its control in words."""

    def grouped(text: str) -> str:
        return re.sub(r"\d{5,}", lambda number: f"{int(number[0]):,}", text)

    return Row(
        promise,
        source,
        lambda r: grouped(r["figure"]) if "figure" in r else NOT_TESTED,
        lambda r: grouped(r.get("control", "").partition(", opcheck")[0]),
    )


ROWS: tuple[Row, ...] = (
    Row(
        "the stream's words",
        "words",
        _words,
        lambda r: f"nine rounds, swapped key words: {min(r['control'].values()) / r['control_addresses']:.0%} differ",
    ),
    Row(
        "words to normals",
        "accuracy",
        lambda r: (
            f"all {counted(r['words'])} words: at most {r['radius']['max_ulp_error']:.2f} ulp for the radius, "
            f"{r['cosine']['max_ulp_error']:.2f} for the angle, never NaN"
        ),
        lambda _: f"{in_tests(WORSE)} worse recipes, among them a clamp at 1e-7, are rejected (`pytest`)",
    ),
    Row(
        "normals are normal",
        "noise_statistics",
        lambda r: (
            f"{len(r['statistics'])} statistics of {counted(r['normals'])}, the smallest p {r['smallest_p']:.3f}; "
            f"the same bits on {len(r['same_bits'])} implementations"
        ),
        lambda r: f"{sum(each['p'] < 1e-6 for each in r['controls'].values())} of {len(r['controls'])} rejected",
    ),
    Row(
        "random words pass dieharder in five orders",
        "interleavings",
        lambda r: (
            f"{len(r['tests'])} tests, with seed, purpose, draw, sample or element changing fastest: "
            f"{sum(len(v['FAILED']) for v in r['interleavings'].values())} of "
            f"{sum(len(names) for v in r['interleavings'].values() for names in v.values())} failed, "
            f"{sum(len(v['WEAK']) for v in r['interleavings'].values())} weak (of the system's generator "
            f"{len(r['system']['WEAK'])} of {sum(map(len, r['system'].values()))})"
        ),
        lambda r: f"all draws alike: {len(r['control']['FAILED'])} of {sum(map(len, r['control'].values()))} failed",
    ),
    Row(
        "no noise is used twice",
        "uniqueness",
        lambda r: f"{counted(r['blocks'])} blocks, {r['repeated']} repeated",
        lambda r: f"{sum(c['repeated'] > 0 for c in r['controls'].values())} of {len(r['controls'])} found",
    ),
    Row(
        "an Arm processor has the same bits",
        "emulation",
        lambda r: (
            f"{counted(r['digests'])} digests by NEON, emulated: "
            f"{sum(count for name, count in r['differ'].items() if 'aarch64' in name)} differ"
        ),
        lambda r: "; ".join(
            f"{'contracted into fma' if 'contracted' in name else name}: {counted(count)} differ"
            for name, count in r["control"].items()
        ),
    ),
    Row("samplers follow their exact law", "law", _law, _wrong_law),
    told("the loss and its gradient follow theirs", "loss_law"),
    Row(
        "a save is never lost",
        "durability",
        lambda r: (
            f"{counted(r['generations']['kills'])} kills (-9): {r['generations']['unreadable']} unreadable, "
            f"{r['generations']['stepped_back']} stepped back"
        ),
        lambda r: f"`torch.save` to the final name: {r['direct_torch_save']['unreadable']} unreadable",
    ),
    Row(
        "damage is noticed",
        "durability",
        _damage,
        lambda r: f"`torch.load` refuses {r['flips']['refused_by_torch_load']} of the flips",
    ),
    told("a stop keeps its last step", "preemption"),
    told("a resumed run of training ends as an undisturbed one", "resuming"),
    Row(
        "untrusted files are safe",
        "fuzz",
        _fuzzed,
        lambda r: ", ".join(f"{name}: {each['findings']} of {each['inputs']}" for name, each in r["control"].items()),
    ),
    told("any layout and dtype", "layouts"),
    told("any size", "large"),
    told("the same bits in every run", "repeating"),
    told("no call has a silent wrong answer", "calls"),
    told("`torch.compile` sees what eager does", "registered"),
    told("nothing unwritten is read", "poison"),
    told("fork", "forking"),
    told("first import and build (here of the portable kernels, not optimised)", "building"),
    told("the process is left as it was", "untouched"),
    Row(
        "bad input is refused with the argument's name",
        "tests",
        lambda r: f"{cases(r, *BAD)} listed calls",
        lambda r: f"the same calls mended: {cases(r, *MENDED)} succeed",
    ),
    Row(
        "a part of a run has the bits of the whole",
        "tests",
        lambda r: f"{counted(PARTS * cases(r, ANY_PART))} random parts of {cases(r, ANY_PART)} samplers",
        lambda r: f"another seed differs: {cases(r, ANY_PART)} of {cases(r, ANY_PART)}",
    ),
    Row(
        "a stopped chain goes on with the same bits",
        "tests",
        lambda r: f"{STOPS * cases(r, ANY_STOP)} random stops of {cases(r, ANY_STOP)} samplers",
        lambda r: f"a resume with another seed differs: {cases(r, ANY_STOP)} of {cases(r, ANY_STOP)}",
    ),
    Row(
        "any number of processes has the samples of one, and killed ones go on",
        "sharding",
        lambda r: (
            f"{r['worlds']['worlds']} numbers of processes up to 8, {r['random_kills']['kills']} kills (-9) of two: "
            f"{r['worlds']['other_bits'] + r['random_kills']['other_bits']} folders differ"
        ),
        lambda r: f"a rank added to the seed {'is NOT seen' if r['seeding_by_rank']['same_bits'] else 'differs'}",
    ),
    Row(
        "a full disk leaves the old file",
        "tests",
        lambda r: f"{FULL_SIZES * cases(r, FULL)} sizes at which writing a state or a checkpoint fails",
        lambda r: f"with room the same write goes through: {cases(r, FULL)} of {cases(r, FULL)}",
    ),
    Row(
        "a compiled program follows seed and step",
        "tests",
        lambda r: (
            f"{counted(COMPILED_UPDATES * cases(r, COMPILED))} updates, each of its own seed and step: the bits of the "
            "eager calls, 4 compilations at most"
        ),
        lambda r: f"with the next step's noise {counted(COMPILED_UPDATES * cases(r, COMPILED))} differ",
    ),
    told("a captured graph follows them too", "replays"),
    Row(
        "a wrong sampler is noticed",
        "tests",
        lambda r: f"{cases(r, MISTAKES)} pairs of a mistake and a statistic that catches it",
        lambda r: f"the right sampler passes all {cases(r, RIGHT)}",
    ),
    Row(
        "without memory the batch is halved, with the same bits",
        "tests",
        lambda r: f"{cases(r, 'test_shards::test_running_out_of_memory_halves_the_batch_with_the_same_bits')} kinds",
        lambda r: f"other errors are raised: {cases(r, 'test_shards::test_other_errors_are_no_lack_of_memory')}",
    ),
    Row(
        "what is not finite is named by step, level and sample",
        "tests",
        lambda r: f"{cases(r, *NOT_FINITE)} cases, each with faults at all places of a sample or in a chain's updates",
        lambda r: f"results that round to the largest number are finite: {cases(r, ROUNDED)}",
    ),
    Row(
        "the tests themselves",
        "mutation",
        _seen,
        lambda r: (
            f"{sum(e['outcome'] == 'survived' for e in r['equivalent'])} changes that alter no result are not reported"
        ),
    ),
    told("work goes to the device and the stream of its tensors, with two GPUs", "devices"),
)


def table(promises: Sequence[str] | None = None) -> str:
    """The table as Markdown: all rows with their processors, or some promises without, in the order given."""
    named = {row.promise: row for row in ROWS}
    columns = ["promise", "held to", "by", "control", *(["processor"] if promises is None else [])]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for row in ROWS if promises is None else [named[promise] for promise in promises]:
        path = RESULTS / f"{row.source}.json"
        record = json.loads(path.read_text()) if path.exists() else None
        figure = NOT_TESTED if record is None else row.figure(record)
        if record is None or figure == NOT_TESTED:
            lines.append(f"| {row.promise} | {NOT_TESTED} |{' |' * (len(columns) - 2)}")
            continue
        by = "`pytest`" if row.source == "tests" else f"`python -m tests.long.{row.source}`"
        cells = [row.promise, figure, by, row.control(record), *([processor(record)] if promises is None else [])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_promises(text: str) -> str:
    """A document with its tables of promises written anew."""

    def renewed(found: re.Match[str]) -> str:
        some = found["some"]
        rows = table(None if some is None else some.removeprefix(": ").split(" / "))
        return f"<!-- promises{some or ''} -->\n{rows}\n<!-- end of promises -->"

    return BLOCK.sub(renewed, text)


def outcomes(path: Path) -> dict[str, str]:
    """What became of each case of a report of pytest: "passed", "skipped", "failure" or "error", by "file::case".

    A case has two entries where its test and what follows it both fail: the worse of them counts.
    """
    found: dict[str, str] = {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        kind = next((each for each in KINDS if each in kinds), "passed")
        name = f"{case.attrib['classname'].removeprefix('tests.')}::{case.attrib['name']}"
        found[name] = min(kind, found.get(name, kind), key=KINDS.index)
    return found


def count_cases(*paths: Path) -> Record:
    """Passed cases of runs of the tests, by "file::function"; where one failed in any run there are none.

    Args:
        paths: reports of pytest. Of a case in several of them one that passed counts, once; a run that leaves cases out
            may say that it skipped them.
    """
    reports = {path: outcomes(path) for path in paths}
    for path, found in reports.items():
        failed = sum(kind in ("error", "failure") for kind in found.values())
        if failed:
            raise ValueError(f"{path}: {failed} cases failed; mend them first")
    merged: dict[str, str] = {}
    for found in reports.values():
        merged |= {name: kind for name, kind in found.items() if kind == "passed" or name not in merged}
    totals = Counter(merged.values())
    passed = Counter(name.partition("[")[0] for name, kind in merged.items() if kind == "passed")
    ran_on = machine(torch.device("cpu"))
    return {"benchmark": "tests", "machine": ran_on, "totals": dict(totals), "passed": dict(sorted(passed.items()))}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", action="store_true", help="write the tables of the README and docs/")
    parser.add_argument("--check", action="store_true", help="only compare the documents' tables with the results")
    parser.add_argument("--tests", type=Path, nargs="+", metavar="XML", help="keep what runs of the tests counted")
    options = parser.parse_args(arguments)
    if options.tests:
        write_record(RESULTS / "tests.json", count_cases(*options.tests))
    if not options.check:
        print(table())
    if options.check or options.readme:
        return rewrite(documents(), with_promises, "python -m tests.long.promises --readme", check=options.check)
    return 0


if __name__ == "__main__":
    sys.exit(main())
