"""The compile gates: what the compilers make of every Triton kernel, beside its budget.

    python -m tests.gates                         the budgets and the times that they predict, as a table
    python -m tests.gates --check                 compile what changed, and compare
    python -m tests.gates --write                 lower the budgets to what is measured
    python -m tests.gates --write --why REASON    and raise those that have risen, for that reason

No GPU is needed: the code is made for each architecture and read with the tools in Triton's wheel. Only what changed is
compiled to machine code, unless ``--all`` is given or the versions of the compilers are not those of the file.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.writing import write_text
from tests.gates import budgets
from tests.gates.budgets import FILE, File, record_of
from tests.gates.variants import ARCHITECTURES, CONTROLS, VARIANTS, calls, controls, rules

__all__ = ["complaints", "main", "renew", "survey"]

PROCESSES = 2

Survey = dict[str, Any]
Case = tuple[str, int]

variants = functools.cache(calls)


def digest_of(variant: str, *architecture: int) -> str:
    from tests.gates.machine_code import digest

    return digest(variants()[variant], *architecture)


def measured(case: Case) -> dict[str, Any]:
    from tests.gates.machine_code import measure

    return measure(variants()[case[0]], case[1], rules(case[0]))


def refused(name: str) -> dict[str, Any]:
    """A control for sm_90, by its variant's rules."""
    from tests.gates.machine_code import digest, measure

    variant = controls(variants())[name]
    return {**measure(variant, 90, rules(CONTROLS[name])), "digest": digest(variant)}


def roots(architecture: int) -> dict[str, str]:
    from tests.gates.machine_code import square_root

    return {"own": square_root(True, architecture), "ptxas": square_root(False, architecture)}


def drawn(kernels: dict[str, str], digests: dict[str, str]) -> list[str]:
    """One variant and architecture of each kernel, others whenever the text of any kernel has changed."""
    salt = "".join(digests[variant] for variant in sorted(digests))
    first: dict[str, tuple[str, str]] = {}
    for key, variant, _ in budgets.cases():
        if variant in digests:
            rank = hashlib.sha256((salt + key).encode()).hexdigest(), key
            first[kernels[variant]] = min(first.get(kernels[variant], rank), rank)
    return [key for _, key in first.values()]


def survey(file: File, names: Iterable[str] = VARIANTS, everything: bool = False, proofs: bool = False) -> Survey:
    """What the compilers make of the kernels as they are.

    Args:
        file: the budgets.
        names: variants.
        everything: whether to measure what the seals say is known.
        proofs: whether to measure a sample of that, what must be refused, and the square root besides.

    Returns:
        ``toolchain``; ``digests`` of the variants; what was ``measured``; ``about``, a variant's kernel and bytes; and
        with ``proofs`` the ``drawn`` sample, its digests by way of each architecture as ``texts``, ``controls`` and
        ``roots``.
    """
    if os.environ.get("TRITON_INTERPRET"):
        raise RuntimeError("TRITON_INTERPRET is set, and the gates compile: unset it")
    from tests.gates.machine_code import bytes_of, toolchain

    made = variants()
    names = [name for name in VARIANTS if name in set(names)]
    about = {}
    for name in names:
        kernel = made[name].kernel.fn
        counted = bytes_of(made[name]) if rules(name).is_elementwise else None
        about[name] = {"kernel": f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}", "bytes": counted}
    found: Survey = {"toolchain": toolchain(), "about": about}
    cases = {key: case for key, *case in budgets.cases() if case[0] in about}
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        found["digests"] = dict(zip(about, pool.map(digest_of, about, chunksize=8), strict=True))
        kernels = {name: each["kernel"] for name, each in about.items()}
        found["drawn"] = drawn(kernels, found["digests"]) if proofs else []
        known = is_exact(file, found) and not everything
        wanted = dict.fromkeys([*(budgets.stale(file, found["digests"]) if known else cases), *found["drawn"]])
        found["measured"] = dict(zip(wanted, pool.map(measured, [cases[key] for key in wanted]), strict=True))
        if proofs:
            found["controls"] = dict(zip(CONTROLS, pool.map(refused, CONTROLS), strict=True))
            sample = [cases[key][0] for key in found["drawn"]]
            texts = [pool.map(digest_of, sample, [each] * len(sample)) for each in ARCHITECTURES]
            found["texts"] = dict(zip(sample, zip(*texts, strict=True), strict=True))
            shown = pool.map(roots, ARCHITECTURES)
            found["roots"] = {f"sm_{each}": made for each, made in zip(ARCHITECTURES, shown, strict=True)}
    return found


def is_exact(file: File, found: Survey) -> bool:
    """Whether the compilers are those of the file."""
    return found["toolchain"] == {name: each for name, each in file["toolchain"].items() if name != "python"}


def complaints(file: File, found: Survey) -> list[str]:
    """All that is wrong with the kernels and the file."""
    wrong = budgets.check(file)
    exact = is_exact(file, found)
    renewable = exact and file["toolchain"].get("python") == python()
    outdated = set(budgets.stale(file, found["digests"]))
    for key, variant, architecture in budgets.cases():
        record = record_of(file, variant, architecture)
        if variant not in found["digests"] or record is None:
            continue
        own = {"figures": record["budget"], "code": record["code"]}
        each = budgets.problems(variant, architecture, record, found["measured"].get(key, own), exact)
        if not each and renewable and key in outdated:
            each = [f"{key}: the kernel has changed, its figures have not: {budgets.WRITE} renews the record"]
        wrong += each
    return wrong


def python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def renew(file: File, found: Survey, why: str = "") -> tuple[File, list[str]]:
    """The file with what was measured, and what it may not be because it raises budgets without a reason."""
    new: File = {"toolchain": {**found["toolchain"], "python": python()}, "variants": {}}
    refused = []
    for variant in VARIANTS:
        before = file["variants"].get(variant, {})
        if variant not in found["about"]:
            new["variants"] |= {variant: before} if before else {}
            continue
        about = {**found["about"][variant], "vector": rules(variant).vectors, "predicted_ps": None}
        if "measured_ps" in before:
            about["measured_ps"] = before["measured_ps"]
        for architecture in ARCHITECTURES:
            key = budgets.key_of(variant, architecture)
            record = record_of(file, variant, architecture)
            if key in found["measured"]:
                digest = found["digests"][variant]
                record, risen = budgets.renewed(key, record, found["measured"][key], digest, why)
                refused += risen
            about[f"sm_{architecture}"] = record
        told = budgets.predicted(about)
        about["predicted_ps"] = told and told[0]
        new["variants"][variant] = about
    return new, refused


def main(arguments: Sequence[str] | None = None, look: Callable[..., Survey] = survey) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail where a kernel is not what its budget says")
    parser.add_argument("--write", action="store_true", help="rewrite the file; refuses to raise a budget")
    parser.add_argument("--why", default="", metavar="REASON", help="with --write: why budgets are raised")
    parser.add_argument("--all", action="store_true", help="compile also what has not changed")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME", help="only these")
    parser.add_argument("--file", type=Path, default=FILE, help="of the budgets")
    parser.add_argument("--survey", type=Path, metavar="FILE", help="write what was measured, and the proofs, as JSON")
    options = parser.parse_args(arguments)
    if options.why.strip() and not options.write:
        parser.error("--why is for --write")
    file = budgets.read(options.file)
    if not (options.check or options.write or options.survey):
        print(budgets.table(file, [name for name in options.variants if name in file["variants"]]))
        return 0
    found = look(file, options.variants, options.all, options.survey is not None)
    print(f"{len(found['digests'])} variants, {len(found['measured'])} compilations to machine code")
    if options.survey:
        write_text(options.survey, json.dumps(found))
    wrong: list[str] = []
    if options.write:
        if file["variants"] and not is_exact(file, found) and len(found["about"]) < len(VARIANTS):
            parser.error("other compilers make other code of all variants: leave out --variants")
        new, wrong = renew(file, found, options.why.strip())
        if not wrong:
            write_text(options.file, budgets.written(new))
            print(options.file)
        else:
            wrong.append("nothing was written: make the code smaller, or give --why REASON")
    elif options.check:
        wrong = complaints(file, found)
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    return int(bool(wrong))
