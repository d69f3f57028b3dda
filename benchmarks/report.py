"""Tables and pictures of the results, and the numbers of the README and docs/.

    python -m benchmarks.report                    every machine's folder under benchmarks/results
    python -m benchmarks.report FOLDER             one of them
    python -m benchmarks.report --readme           also write the tables and figures of the README and docs/ anew
    python -m benchmarks.report --check            fail where theirs are not those of the results

A folder gets report.md, with a table for each case, and time.png, speedup.png and roofline.png. In a document stand

- a table, between ``<!-- table: FOLDER / BENCHMARK / CASE / THREADS -->`` and ``<!-- end of table -->``, of all
  providers or of those that a fifth part names, with semicolons between them; where the case ends in ``*``, the cases
  that begin alike stand side by side;
- budgets of ``tests.gates`` and the times that they predict beside those measured, between
  ``<!-- table: budgets / VARIANT VARIANT -->`` and the same end;
- in the text, between ``<!-- times: FOLDER / BENCHMARK / CASE / THREADS / PROVIDER; OTHER -->`` and ``<!-- end -->``,
  how many times as long one provider takes as another, from the least to the most where there are several cases;
- between ``<!-- value: FILE / KEY : KEY / FORMAT -->`` and the same end, a number of FILE.json, a path from the
  root of the tree, as Python formats it, or with ``time`` for the format, seconds with their unit.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.documents import ROOT, documents, rewrite
from benchmarks.harness import Case, duration
from benchmarks.pictures import draw
from benchmarks.suite import BENCHMARKS, RESULTS
from benchmarks.writing import write_text
from tests.gates import budgets

__all__ = ["markdown", "report", "with_results"]

BLOCK = re.compile(r"<!-- table: (?P<what>[^>]*?) -->\n.*?<!-- end of table -->", re.DOTALL)
INLINE = re.compile(r"<!-- (?P<kind>times|value): (?P<what>[^>]*?) -->.*?<!-- end -->")

Record = dict[str, Any]


def records(folder: Path) -> dict[str, Record]:
    """The results of a machine, by benchmark, in the suite's order."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: found[name] for name in [*BENCHMARKS, *found] if name in found}


def folders() -> list[Path]:
    return sorted(path.parent for path in RESULTS.glob("*/step.json"))


def conditions(record: Record) -> str:
    """What a table must be read with."""
    machine = record["machine"]
    where = machine["gpu"]["name"] if "gpu" in machine else f"{machine['processor']} ({machine['instruction_sets'][0]})"
    versions = f"torch {machine['torch']}"
    if "gpu" in machine:
        versions += f", Triton {machine['triton']}, CUDA {machine['gpu']['cuda']}"
    name = record["benchmark"]
    return f"{where}, {versions}, {machine['date']}, commit {machine['commit']}: `python -m benchmarks.{name}`"


def label(benchmark: str, provider: str) -> str:
    known = BENCHMARKS[benchmark].labels if benchmark in BENCHMARKS else {}
    return known.get(provider, provider)


def rows_of(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def significant(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}"


def case_table(name: str, case: Case) -> str:
    """One case: median, quartiles, the ratio to its base and what else was measured."""
    measured = case["providers"]
    base = measured.get(case["base"])
    columns = {
        "us_per_update": ("µs per update", significant),
        "ns_per_element": ("ns per element", significant),
        "GB_per_s": ("GB/s", significant),
        "of_copy": ("of a copy's speed", lambda value: f"{value:.0%}"),
        "extra_results": ("extra memory, in results", lambda value: f"{value:.2f}"),
    }
    shown = [key for key in columns if any(key in row for row in measured.values())]
    header = ["Provider", "median", "quartiles", f"time / {case['base']}", *(columns[key][0] for key in shown)]
    rows = []
    for provider in case.get("rows", measured):
        row = measured[provider]
        cells = [columns[key][1](row[key]) if key in row else "" for key in shown]
        ratio = f"{row['median'] / base['median']:.2f}" if base else ""
        quartiles = f"{duration(row['lower'])} to {duration(row['upper'])}"
        rows.append([label(name, provider), duration(row["median"]), quartiles, ratio, *cells])
    rows += [[label(name, provider), f"not timed: {why}"] for provider, why in case["failures"].items()]
    return rows_of(header, [row + [""] * (len(header) - len(row)) for row in rows])


def across_table(name: str, cases: Sequence[Case]) -> str:
    """Providers by cases: the median, and how many times faster it is than the eager one of the same work."""
    providers = list(dict.fromkeys(provider for case in cases for provider in case.get("rows", case["providers"])))
    rows = []
    for provider in providers:
        cells = []
        for case in cases:
            measured = case["providers"]
            if provider not in measured:
                cells.append("")
                continue
            work = " + backward" * provider.endswith(" + backward")
            gain = measured[f"eager{work}"]["median"] / measured[provider]["median"]
            # A copy is other work, of which no gain is told.
            told = "" if provider == "copy" else f" ({gain:.2f})"
            cells.append(duration(measured[provider]["median"]) + told)
        rows.append([label(name, provider), *cells])
    return rows_of(["Provider", *(case["case"] for case in cases)], rows)


def threads_of(case: Case) -> str:
    return case["device"] if case["device"] != "cpu" else f"{case['threads']} thread{'s' * (case['threads'] > 1)}"


def markdown(folder: Path) -> str:
    """The report of a machine."""
    lines = [f"# {folder.name}", "", "Medians of interleaved rounds. Written by `python -m benchmarks.report`.", ""]
    lines += [f"![{name}]({name}.png)" for name in ("time", "speedup", "roofline") if (folder / f"{name}.png").exists()]
    for name, record in records(folder).items():
        lines += ["", f"## {name}", "", conditions(record)]
        for case in record["cases"]:
            lines += ["", f"{case['case']}, {case['dtype']}, {threads_of(case)}", "", case_table(name, case)]
    return "\n".join(lines) + "\n"


def found_cases(folder: str, name: str, title: str, threads: str) -> tuple[Record, list[Case]]:
    """A record, and its cases of a title, or of all titles that begin with what stands before ``*``."""
    record = json.loads((RESULTS / folder / f"{name}.json").read_text())
    cases = [case for case in record["cases"] if threads_of(case) == threads]
    if title.endswith("*"):
        cases = [case for case in cases if case["case"].startswith(title[:-1])]
    else:
        cases = [case for case in cases if case["case"] == title]
    if not cases or (len(cases) > 1 and not title.endswith("*")):
        raise ValueError(f"{len(cases)} cases of {name} are called {title!r} with {threads}")
    return record, cases


def of_providers(case: Case, names: Sequence[str]) -> Case:
    """A case whose tables have rows for some of its providers alone; the one that ratios are relative to stays."""
    missing = [name for name in names if name not in case["providers"]]
    if missing:
        raise ValueError(f"{case['case']} has no {', '.join(missing)}; it has {', '.join(case['providers'])}")
    return {**case, "rows": list(names), "failures": {}}


def one_table(what: str) -> str:
    """The table that a marker of a document asks for, and the conditions under it."""
    if what.startswith("budgets / "):
        file = budgets.read()
        chain = ", ".join(f"{name} {version}" for name, version in file["toolchain"].items())
        return f"{budgets.table(file, what.split()[2:])}\n\n{chain}: `python -m tests.gates`"
    folder, name, title, threads, *some = (part.strip() for part in what.split(" / "))
    record, cases = found_cases(folder, name, title, threads)
    if some:
        cases = [of_providers(case, some[0].split("; ")) for case in cases]
    table = across_table(name, cases) if title.endswith("*") else case_table(name, cases[0])
    return f"{table}\n\n{threads}, {conditions(record)}"


def times(what: str) -> str:
    """How many times as long the first of two providers takes as the second, or from the least to the most."""
    folder, name, title, threads, pair = (part.strip() for part in what.split(" / "))
    slow, fast = pair.split("; ")
    _, cases = found_cases(folder, name, title, threads)
    measured = [of_providers(case, [slow, fast])["providers"] for case in cases]
    ratios = sorted({f"{rows[slow]['median'] / rows[fast]['median']:.2g}" for rows in measured}, key=float)
    return ratios[0] if len(ratios) == 1 else f"{ratios[0]} to {ratios[-1]}"


def value(what: str) -> str:
    """A number of a file of results."""
    name, keys, form = (part.strip() for part in what.split(" / "))
    found = json.loads((ROOT / f"{name}.json").read_text())
    for key in keys.split(" : "):
        found = found[key]
    return duration(found) if form == "time" else format(found, form)


def with_results(text: str) -> str:
    """A document with its tables and figures written anew."""
    text = BLOCK.sub(
        lambda found: f"<!-- table: {found['what']} -->\n{one_table(found['what'])}\n<!-- end of table -->", text
    )
    made = {"times": times, "value": value}
    return INLINE.sub(
        lambda found: f"<!-- {found['kind']}: {found['what']} -->{made[found['kind']](found['what'])}<!-- end -->", text
    )


def report(folder: Path) -> None:
    """Writes a machine's report and pictures."""
    found = records(folder)
    draw(folder, {name: record["cases"] for name, record in found.items()}, conditions(next(iter(found.values()))))
    write_text(folder / "report.md", markdown(folder))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of results")
    parser.add_argument("--readme", action="store_true", help="write the tables of the README and docs/")
    parser.add_argument("--check", action="store_true", help="only compare the documents' tables with the results")
    options = parser.parse_args(arguments)
    for folder in () if options.check else options.folders or folders():
        if not list(folder.glob("*.json")):
            parser.error(f"{folder} has no results; python -m benchmarks.suite writes them")
        report(folder)
        print(folder / "report.md")
    if options.check or options.readme:
        return rewrite(documents(), with_results, "python -m benchmarks.report --readme", check=options.check)
    return 0


if __name__ == "__main__":
    sys.exit(main())
