"""The budgets of the Triton kernels' machine code: the file, what must hold of it, and what it predicts.

``budgets.json`` has for every variant and architecture its figures, which are its budget; the lowest value that each
figure ever had; why it is above that, where it is; what the rules ask of the code; and a seal: a digest of the figures
and of what determines the machine code. While the seal holds, the figures need not be measured again.

An H200 issues 132 multiprocessors x 128 lanes x 1.98 GHz = 33.5 instructions of a thread a picosecond. Kernels of this
kind, which mix random words, arithmetic and accesses, reach 0.77 of that, a factor calibrated on published times of
Philox normals on H100 and H20; and a copy moves 4.3 of the 4.8 TB/s of the data sheet. So an element takes

    compute = instructions / 25.8        memory = bytes / 4.3        predicted = the larger, in ps

on a device that is full; of a small tensor the launch takes longer. Nothing here is measured on a GPU, and where the
file has no ``measured_ps`` the table says so. Whoever times a kernel on an H200 writes it there; rewriting keeps it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.gates.variants import ARCHITECTURES, VARIANTS, Rules, rules

__all__ = ["FILE", "check", "faults", "predicted", "problems", "read", "renewed", "seal", "stale", "table", "written"]

FILE = Path(__file__).with_name("budgets.json")
WRITE = "python -m tests.gates --write"
FIGURES = {
    "registers": "registers of a thread",
    "spills": "bytes of stack and local memory",
    "shared": "bytes of shared memory",
    "narrow": "accesses narrower than those of the bulk",
    "instructions": "instructions an element, of a chain all",
    "update": "instructions of the loop of updates",
}
INSTRUCTIONS_PER_PS = 25.8
BYTES_PER_PS = 4.3
# What a budget is multiplied by for other compilers than the file's. With Triton 3.6.0 registers are up to 1.5 of those
# with 3.7.1, instructions up to 1.18 and narrow accesses up to 1.33.
HEADROOM = {"registers": 1.5, "instructions": 1.25, "update": 1.25, "narrow": 1.5}
# What ptxas makes of an operation of PTX that is rounded once, its rare cases included, alike on all architectures.
OWN_FFMA = {"div.rn.f32": 16, "div.rn.f64": 1}
OWN_DFMA = {"div.rn.f64": 16}
OWN_RSQ = {"div.rn.f32": 1}

File = dict[str, Any]
Record = dict[str, Any]


def key_of(variant: str, architecture: int) -> str:
    return f"{variant} sm_{architecture}"


def cases() -> Iterator[tuple[str, str, int]]:
    for variant in VARIANTS:
        for architecture in ARCHITECTURES:
            yield key_of(variant, architecture), variant, architecture


def record_of(file: File, variant: str, architecture: int) -> Record | None:
    found: Record | None = file["variants"].get(variant, {}).get(f"sm_{architecture}")
    return found


def read(path: Path = FILE) -> File:
    if not path.exists():
        return {"toolchain": {}, "variants": {}}
    file: File = json.loads(path.read_text(encoding="utf-8"))
    return file


def written(file: File) -> str:
    """The file as text: a line for each variant and architecture."""
    lines = [f'"toolchain": {json.dumps(file["toolchain"])},', '"variants": {']
    for variant in file["variants"]:
        about = file["variants"][variant]
        fields = [f"{json.dumps(name)}: {json.dumps(about[name])}" for name in about if not name.startswith("sm_")]
        fields = [", ".join(fields)]
        fields += [f"{json.dumps(name)}: {json.dumps(about[name])}" for name in about if name.startswith("sm_")]
        end = "" if variant == list(file["variants"])[-1] else ","
        lines += [f"{json.dumps(variant)}: {{", ",\n".join(fields), f"}}{end}"]
    return "\n".join(["{", *lines, "}", "}"]) + "\n"


def predicted(about: dict[str, Any]) -> tuple[float, str] | None:
    """Picoseconds an element on an H200, and what it is bound by; None where nothing is counted an element."""
    if about["bytes"] is None:
        return None
    compute = about["sm_90"]["budget"]["instructions"] / INSTRUCTIONS_PER_PS
    memory = about["bytes"] / BYTES_PER_PS
    return (round(memory, 3), "memory") if memory > compute else (round(compute, 3), "compute")


def seal(key: str, digest: str, budget: dict[str, float], code: dict[str, Any]) -> str:
    """Binds a record to the code that it is of: whatever of it is changed by hand must be measured again."""
    return hashlib.sha256(json.dumps([key, digest, budget, code], sort_keys=True).encode()).hexdigest()[:16]


def stale(file: File, digests: dict[str, str]) -> list[str]:
    """The variants and architectures, of the variants in ``digests``, whose record may not be that of the code."""
    found = []
    for key, variant, architecture in cases():
        if variant in digests:
            record = record_of(file, variant, architecture)
            if record is None or record["seal"] != seal(key, digests[variant], record["budget"], record["code"]):
                found.append(key)
    return found


def faults(found: Record, kept: Rules, budget: dict[str, float]) -> list[str]:
    """What is wrong with a compiled kernel, whatever it costs.

    Args:
        found: ``figures`` and ``code`` as measured.
        kept: the rules of the variant.
        budget: its figures, of which ``shared`` and ``narrow`` are allowed.
    """
    figures, code = found["figures"], found["code"]
    wrong = []
    if figures["spills"]:
        wrong.append(f"stack and local memory of {figures['spills']} bytes")
    if code.get("local"):
        wrong.append(f"{code['local']} accesses to local memory: spills")
    if figures["shared"] > budget["shared"] or (not budget["shared"] and code.get("exchanges")):
        wrong.append(f"shared memory of {figures['shared']} bytes, {code.get('exchanges', 0)} accesses to it")
    special, roots, contractible = code.get("special", []), code.get("roots", 0), code.get("contractible", 0)
    if (kept.is_stream or kept.matmul) and contractible:
        wrong.append(f"{contractible} operations that the assembler may contract")
    if kept.is_stream:
        if set(special) - set(kept.own):
            wrong.append(f"arithmetic that is not the stream's: {special}")
        if code.get("unwritten"):
            wrong.append(f"fused operations for {roots} square roots that are not those written: {code['unwritten']}")
        # The machine code has as many as the PTX: nothing was contracted, and nothing done twice.
        own = [each for each in kept.own if each in special]
        ffma = roots * code.get("fused_per_root", 0) + sum(OWN_FFMA.get(each, 0) for each in own)
        rsq = roots + sum(OWN_RSQ.get(each, 0) for each in own)
        counted = code.get("ffma", 0) != ffma or code.get("rsq", 0) != rsq
        dfma = code.get("dfma", 0) != sum(OWN_DFMA.get(each, 0) for each in own)
        if dfma or (counted and own != ["sqrt.rn.f32"]):
            wrong.append(f"{code.get('ffma', 0)} FFMA and {code.get('dfma', 0)} DFMA for {roots} square roots")
    if kept.own == ("sqrt.rn.f32",) and special != [*kept.own]:
        wrong.append(f"no root of the compiler's own: {special}")
    if kept.matmul:
        # Noise and update are the stream's; with matrix units only the square roots are left to fuse anything.
        if (code.get("units", 0) == 0) != (kept.matmul == "fp32"):
            wrong.append(f"{code.get('units', 0)} operations of the matrix units for {kept.matmul}")
        if (code.get("ffma", 0) > 100) != (kept.matmul == "fp32"):
            wrong.append(f"{code.get('ffma', 0)} FFMA for {kept.matmul}")
    if kept.vectors:
        accesses = code.get("accesses", {})
        wide = sum(number for bits, number in accesses.items() if int(bits) >= kept.vectors)
        if figures["narrow"] > budget["narrow"] or not wide:
            wrong.append(f"accesses narrower than {kept.vectors // 8} bytes: {accesses}, in bits")
    return wrong


def problems(variant: str, architecture: int, record: Record | None, found: Record, exact: bool) -> list[str]:
    """What is wrong with a variant: its faults, and figures over the budget.

    Args:
        variant, architecture: which.
        record: its record in the file.
        found: ``figures`` and ``code`` as measured.
        exact: whether the versions of the compilers are those of the file, so that all must be as recorded.
    """
    name = key_of(variant, architecture)
    if record is None:
        return [f"{name} has no budget: {WRITE}"]
    budget = record["budget"]
    if not exact:
        budget = {figure: value * HEADROOM.get(figure, 1) for figure, value in budget.items()}
    wrong = [f"{name}: {each}" for each in faults(found, rules(variant), budget)]
    for figure, value in found["figures"].items():
        allowed = budget[figure]
        if value > allowed:
            wrong.append(
                f"{name}: {figure} of {value:g}, over the budget of {allowed:g} ({FIGURES[figure]}); "
                f"make it smaller, or {WRITE} --why REASON"
            )
        elif exact and value < allowed:
            wrong.append(f"{name}: {figure} of {value:g}, under the budget of {allowed:g}: {WRITE} lowers it")
    if exact and not wrong and found["code"] != record["code"]:
        wrong.append(f"{name}: the code is not that of the record: {WRITE}")
    return wrong


def check(file: File) -> list[str]:
    """What is wrong with the file itself: above all, a budget above its lowest value that does not say why."""
    wrong = [f"{variant} is no variant: {WRITE}" for variant in file["variants"] if variant not in VARIANTS]
    for name, variant, architecture in cases():
        record = record_of(file, variant, architecture)
        if record is None:
            wrong.append(f"{name} has no budget: {WRITE}")
            continue
        for figure, value in record["budget"].items():
            best = record["best"].get(figure)
            if best is None or best > value:
                wrong.append(f"{name}: the lowest {figure} is {best}, and its budget {value:g}: {WRITE}")
            elif value > best and not record.get("why", {}).get(figure, "").strip():
                wrong.append(
                    f"{name}: {figure} may be {value:g}, was {best:g}, and the file does not say why: "
                    f"{WRITE} --why REASON"
                )
    for variant, about in file["variants"].items():
        if variant in VARIANTS and all(f"sm_{each}" in about for each in ARCHITECTURES):
            told = predicted(about)
            if about["vector"] != rules(variant).vectors or about["predicted_ps"] != (told and told[0]):
                wrong.append(f"{variant}: vector or predicted_ps are not what follows: {WRITE}")
    return wrong


def renewed(name: str, record: Record | None, found: Record, digest: str, why: str = "") -> tuple[Record, list[str]]:
    """The record of what was measured, and what it may not be because it raises a budget without a reason."""
    figures = found["figures"]
    new: Record = {"seal": seal(name, digest, figures, found["code"]), "budget": figures, "best": dict(figures)}
    refused = []
    reasons: dict[str, str] = {}
    for figure, value in figures.items() if record is not None else ():
        before, best = record["budget"].get(figure, value), record["best"].get(figure, value)
        new["best"][figure] = min(best, value)
        if value > before and not why:
            refused.append(f"{name}: {figure} would rise from {before:g} to {value:g} ({FIGURES[figure]})")
        if value > best:
            reasons[figure] = why if value > before else record.get("why", {}).get(figure, "") or why
    if reasons:
        new["why"] = reasons
    return {**new, "code": found["code"]}, refused


def table(file: File, names: Iterable[str] = VARIANTS) -> str:
    """Budgets as markdown; of figures that differ, those of sm_80, sm_90 and sm_100."""
    header = ["kernel", "access, bits", *FIGURES, "bytes per element", "predicted, ps per element", "measured"]
    lines = [header, ["---"] * len(header)]
    for variant in names:
        about = file["variants"][variant]
        cells = []
        for figure in FIGURES:
            values = [f"{about[f'sm_{each}']['budget'].get(figure, '')}" for each in ARCHITECTURES]
            shown = [f"{float(each):.4g}" if each and figure == "instructions" else each for each in values]
            cells.append(shown[0] if len(set(shown)) == 1 else " / ".join(shown))
        told = predicted(about)
        measured = about.get("measured_ps")
        lines.append(
            [
                variant,
                str(about["vector"] or "any"),
                *cells,
                str(about["bytes"] if about["bytes"] is not None else ""),
                f"{told[0]:.2f} ({told[1]})" if told else "",
                "not measured" if measured is None else f"{measured:.2f}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
