"""Tables and pictures of the results, and the numbers of the README.

    python -m benchmarks.report                    every machine's folder under benchmarks/results
    python -m benchmarks.report FOLDER             one of them
    python -m benchmarks.report --readme           also write the README's tables anew
    python -m benchmarks.report --check            fail where the README's tables are not those of the results

A folder gets report.md, with a table for each case, and time.png, speedup.png and roofline.png. In the README a table
stands between ``<!-- table: FOLDER / BENCHMARK / CASE / THREADS -->`` and ``<!-- end of table -->``; with ``across``
for the case, all cases of the benchmark stand side by side. Between ``<!-- table: budgets / VARIANT VARIANT -->`` and
the same end stand budgets of ``benchmarks.gates``, and the times that they predict beside those measured.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import budgets
from benchmarks.harness import Case, duration
from benchmarks.pictures import draw
from benchmarks.suite import BENCHMARKS, RESULTS

__all__ = ["markdown", "readme_with_tables", "report"]

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"<!-- table: (?P<what>[^>]*?) -->\n.*?<!-- end of table -->", re.DOTALL)

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
        "us_per_update": ("us an update", significant),
        "ns_per_element": ("ns an element", significant),
        "GB_per_s": ("GB/s", significant),
        "of_copy": ("of a copy's speed", lambda value: f"{value:.0%}"),
        "extra_results": ("extra memory, in results", lambda value: f"{value:.2f}"),
    }
    shown = [key for key in columns if any(key in row for row in measured.values())]
    header = ["", "median", "quartiles", f"relative to {case['base']}", *(columns[key][0] for key in shown)]
    rows = []
    for provider, row in measured.items():
        cells = [columns[key][1](row[key]) if key in row else "" for key in shown]
        ratio = f"{row['median'] / base['median']:.2f}" if base else ""
        quartiles = f"{duration(row['lower'])} to {duration(row['upper'])}"
        rows.append([label(name, provider), duration(row["median"]), quartiles, ratio, *cells])
    rows += [[label(name, provider), f"not timed: {why}"] for provider, why in case["failures"].items()]
    return rows_of(header, [row + [""] * (len(header) - len(row)) for row in rows])


def across_table(name: str, cases: Sequence[Case]) -> str:
    """Providers by cases: the median, and how many times faster than the eager one."""
    providers = list(dict.fromkeys(provider for case in cases for provider in case["providers"]))
    rows = []
    for provider in providers:
        cells = []
        for case in cases:
            measured = case["providers"]
            if provider not in measured:
                cells.append("")
                continue
            gain = measured["eager"]["median"] / measured[provider]["median"]
            cells.append(f"{duration(measured[provider]['median'])} ({gain:.2f})")
        rows.append([label(name, provider), *cells])
    return rows_of(["times faster than eager in brackets", *(case["case"] for case in cases)], rows)


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


def one_table(what: str) -> str:
    """The table that a marker of the README asks for, and the conditions under it."""
    if what.startswith("budgets / "):
        file = budgets.read()
        chain = ", ".join(f"{name} {version}" for name, version in file["toolchain"].items())
        return f"{budgets.table(file, what.split()[2:])}\n\n{chain}: `python -m benchmarks.gates`"
    folder, name, title, threads = (part.strip() for part in what.split(" / "))
    record = json.loads((RESULTS / folder / f"{name}.json").read_text())
    cases = [case for case in record["cases"] if threads_of(case) == threads]
    if title != "across":
        cases = [case for case in cases if case["case"] == title]
        if len(cases) != 1:
            raise ValueError(f"{len(cases)} cases of {name} are called {title!r} with {threads}")
    table = across_table(name, cases) if title == "across" else case_table(name, cases[0])
    return f"{table}\n\n{threads}, {conditions(record)}"


def readme_with_tables(text: str) -> str:
    """A README with its tables written anew."""
    return BLOCK.sub(
        lambda found: f"<!-- table: {found['what']} -->\n{one_table(found['what'])}\n<!-- end of table -->", text
    )


def report(folder: Path) -> None:
    """Writes a machine's report and pictures."""
    found = records(folder)
    draw(folder, {name: record["cases"] for name, record in found.items()}, conditions(next(iter(found.values()))))
    (folder / "report.md").write_text(markdown(folder))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of results")
    parser.add_argument("--readme", action="store_true", help="write the README's tables")
    parser.add_argument("--check", action="store_true", help="only compare the README's tables with the results")
    options = parser.parse_args(arguments)
    text = README.read_text(encoding="utf-8")
    if options.check:
        same = readme_with_tables(text) == text
        print("the README's tables are those of the results" if same else "run python -m benchmarks.report --readme")
        return int(not same)
    for folder in options.folders or folders():
        if not list(folder.glob("*.json")):
            parser.error(f"{folder} has no results; python -m benchmarks.suite writes them")
        report(folder)
        print(folder / "report.md")
    if options.readme:
        README.write_text(readme_with_tables(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
