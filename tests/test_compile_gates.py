"""What the compilers make of every Triton kernel is what its budget says, for GPUs that need not be there.

Compilation needs Triton without its interpreter, so it is done in a process of its own, ``python -m tests.gates``.
There the text of every variant is compared with that of its record; to machine code go those whose text has changed, a
sample of one variant of each kernel, and what the gates must refuse. The rules hold for measured and recorded alike.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

from tests.gates import budgets, compiling
from tests.gates.variants import ARCHITECTURES, CONTROLS, VARIANTS, rules

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
TAMPERED = "rand-bf16", 80


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    return budgets.read()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, file: dict[str, Any]) -> dict[str, Any]:
    """The survey of all kernels, of a file in which one record has been tampered with."""
    folder = tmp_path_factory.mktemp("compiled")
    tampered = copy.deepcopy(file)
    budgets.record_of(tampered, *TAMPERED)["budget"]["registers"] += 1
    (folder / "budgets.json").write_text(budgets.written(tampered))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRITON_")}
    environment["TRITON_CACHE_DIR"] = str(folder / "cache")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tests.gates", "--file", folder / "budgets.json"]
    done = subprocess.run(
        [*command, "--survey", folder / "found.json"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return read


@pytest.fixture
def current(file: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The file, or with other compilers than its own what it would be."""
    return compiling.renew(file, found, "other compilers")[0]


@pytest.fixture
def known(current: dict[str, Any], found: dict[str, Any]) -> tuple[str, str, int]:
    """A measured variant with a figure of each kind but a chain's."""
    return next(
        (key, variant, architecture)
        for key, variant, architecture in budgets.cases()
        if key in found["drawn"] and rules(variant).vectors
        if "why" not in budgets.record_of(current, variant, architecture)
    )


def changed(file: dict[str, Any], variant: str, architecture: int, part: str, name: str, value: Any) -> dict[str, Any]:
    new = copy.deepcopy(file)
    budgets.record_of(new, variant, architecture)[part][name] = value
    return new


def test_kernels_are_what_their_budgets_say(file: dict[str, Any], found: dict[str, Any]) -> None:
    assert set(found["digests"]) == set(VARIANTS)
    assert set(found["drawn"]) <= set(found["measured"])
    wrong = compiling.complaints(file, found)
    assert not wrong, "\n".join(wrong)


def test_every_kernel_has_a_budget_and_is_in_the_sample(found: dict[str, Any]) -> None:
    kernels = {
        f"{path.stem}.{name}"
        for path in (ROOT / "kernels" / "triton").glob("*.py")
        for name in re.findall(r"^def (\w+_kernel)\(", path.read_text(), re.MULTILINE)
    }
    assert len(kernels) > 15
    assert {each["kernel"] for each in found["about"].values()} == kernels
    sample = {found["about"][key.split(" ")[0]]["kernel"] for key in found["drawn"]}
    assert sample == kernels
    assert len(found["drawn"]) == len(kernels)


def test_no_kernel_asks_for_the_architecture(found: dict[str, Any]) -> None:
    """So one text stands for all of them."""
    assert len(found["texts"]) == len(found["drawn"])
    for variant, texts in found["texts"].items():
        assert texts == [found["digests"][variant]] * len(ARCHITECTURES)


def test_a_tampered_record_is_compiled_again(current: dict[str, Any], found: dict[str, Any]) -> None:
    key = budgets.key_of(*TAMPERED)
    assert key in found["measured"]
    tampered = changed(current, *TAMPERED, "budget", "registers", 0)
    wrong = compiling.complaints(tampered, found)
    assert any(key in each and "over the budget of 0" in each for each in wrong), wrong


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("figure", [name for name in budgets.FIGURES if name != "update"])
def test_every_figure_is_held_to_its_budget(
    figure: str, by: int, current: dict[str, Any], found: dict[str, Any], known: tuple[str, str, int]
) -> None:
    key, variant, architecture = known
    value = budgets.record_of(current, variant, architecture)["budget"][figure]
    tampered = changed(current, variant, architecture, "budget", figure, value + by)
    assert budgets.stale(tampered, found["digests"]) == [key]
    wrong = "\n".join(compiling.complaints(tampered, found))
    assert f"{key}: {figure} of {value:g}, {'over' if by < 0 else 'under'} the budget of {value + by:g}" in wrong
    assert "python -m tests.gates --write" in wrong


@pytest.mark.parametrize("figure", ["instructions", "update"])
def test_a_chains_loop_is_held_to_its_budget(figure: str, current: dict[str, Any], found: dict[str, Any]) -> None:
    chains = [case for case in budgets.cases() if case[0] in found["drawn"] and rules(case[1]).loop is not None]
    assert {rules(variant).loop for _, variant, _ in chains} == {0, 1}
    for key, variant, architecture in chains:
        value = budgets.record_of(current, variant, architecture)["budget"][figure]
        tampered = changed(current, variant, architecture, "budget", figure, value - 1)
        assert any(key in each and f"{figure} of" in each for each in compiling.complaints(tampered, found))


def test_a_record_of_other_code_is_refused(
    current: dict[str, Any], found: dict[str, Any], known: tuple[str, str, int]
) -> None:
    _, variant, architecture = known
    tampered = changed(current, variant, architecture, "code", "accesses", {"128": 99})
    assert any("not that of the record" in each for each in compiling.complaints(tampered, found))
    # A kernel whose text is another, with the same figures: the record must be renewed, or every run compiles it.
    moved = {**found, "digests": {**found["digests"], variant: "another"}}
    assert any("renews the record" in each for each in compiling.complaints(current, moved))


@pytest.mark.parametrize("figure", ["registers", "instructions"])
def test_with_other_compilers_only_much_more_is_refused(
    figure: str, current: dict[str, Any], found: dict[str, Any], known: tuple[str, str, int]
) -> None:
    key, variant, architecture = known
    other = {**found, "toolchain": {**found["toolchain"], "triton": "3.0.0"}}
    value = budgets.record_of(current, variant, architecture)["budget"][figure]
    for factor, refused in ((0.5, False), (1.2, False), (1.6, True)):
        measured = copy.deepcopy(found["measured"])
        measured[key]["figures"][figure] = value * factor
        assert bool(compiling.complaints(current, {**other, "measured": measured})) == refused


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("contracted", "contract|FFMA"),
        ("spills", "spills"),
        ("library", "stack"),
        ("misaligned", "narrower"),
        ("scattered", "narrower"),
        ("chain contracted", "contract|FFMA"),
        ("chain spills", "spills"),
    ],
)
def test_the_gate_closes(name: str, fault: str, file: dict[str, Any], found: dict[str, Any]) -> None:
    variant = CONTROLS[name]
    budget = budgets.record_of(file, variant, 90)["budget"]
    wrong = " ".join(budgets.faults(found["controls"][name], rules(variant), budget))
    assert re.search(fault, wrong), wrong
    # Nor would a seal let it through.
    assert found["controls"][name]["digest"] != found["digests"][variant]


@pytest.mark.parametrize("variant", [each for each in VARIANTS if rules(each).matmul])
def test_matrix_units_and_shared_memory_are_those_of_the_chain(variant: str, file: dict[str, Any]) -> None:
    for architecture in ARCHITECTURES:
        record = budgets.record_of(file, variant, architecture)
        own = {"figures": record["budget"], "code": record["code"]}
        assert not budgets.faults(own, rules(variant), record["budget"])
        other = "bf16" if rules(variant).matmul == "fp32" else "fp32"
        assert budgets.faults(own, rules(variant)._replace(matmul=other), record["budget"])
        less = {**record["budget"], "shared": record["budget"]["shared"] - 1}
        assert budgets.faults(own, rules(variant), less)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_square_root_is_the_compilers_own(architecture: int, found: dict[str, Any]) -> None:
    """As far as IEEE's sqrt.rn is rounded to nearest, so is the one without its rare cases."""
    root = "(rsq(x)*x)"
    roots = found["roots"][f"sm_{architecture}"]
    assert roots["own"] == f"((-{root}*{root} + x)*(0.5*rsq(x)) + {root})"
    assert roots["ptxas"] == roots["own"]


def test_a_budget_is_raised_with_a_reason_only(
    tmp_path: Path, current: dict[str, Any], found: dict[str, Any], known: tuple[str, str, int], capsys: Any
) -> None:
    key, variant, architecture = known
    path = tmp_path / "budgets.json"
    text = budgets.written(current)
    assert json.loads(text) == current
    path.write_text(text)
    value = found["measured"][key]["figures"]["registers"]
    best = budgets.record_of(current, variant, architecture)["best"]["registers"]
    records = {each: budgets.record_of(current, variant, each) for each in ARCHITECTURES}
    same = {
        budgets.key_of(variant, each): {"figures": record["budget"], "code": record["code"]}
        for each, record in records.items()
    }
    better = {**found, "measured": copy.deepcopy({**found["measured"], **same})}
    worse = copy.deepcopy(better)
    worse["measured"][key]["figures"]["registers"] = value + 8
    worse["digests"][variant] = "of another kernel"

    def run(*arguments: str, of: dict[str, Any]) -> int:
        return compiling.main([*arguments, "--file", str(path)], look=lambda *given: of)

    assert run("--check", of=worse) == 1
    assert f"{key}: registers of {value + 8}, over the budget of {value}" in capsys.readouterr().err
    assert run("--write", of=worse) == 1
    assert f"{key}: registers would rise from {value} to {value + 8}" in capsys.readouterr().err
    assert path.read_text() == text
    assert run("--write", "--why", "  ", of=worse) == 1
    assert path.read_text() == text

    assert run("--write", "--why", "a wider tile", of=worse) == 0
    raised = budgets.read(path)
    record = budgets.record_of(raised, variant, architecture)
    assert record["why"] == {"registers": "a wider tile"}
    assert (record["budget"]["registers"], record["best"]["registers"]) == (value + 8, best)
    assert run("--check", of=worse) == 0
    # Written again without a reason it keeps the one it has.
    assert run("--write", of=worse) == 0
    assert budgets.read(path) == raised
    for why in ({}, {"registers": " "}):
        silent = copy.deepcopy(raised)
        budgets.record_of(silent, variant, architecture)["why"] = why
        assert any("does not say why" in each for each in budgets.check(silent))
    forgotten = changed(raised, variant, architecture, "best", "registers", value + 9)
    assert any("the lowest registers is" in each for each in budgets.check(forgotten))

    # Once it is mended the reason goes, and the file is the first again.
    capsys.readouterr()
    assert run("--check", of=better) == 1
    assert f"under the budget of {value + 8}" in capsys.readouterr().err
    assert run("--write", of=better) == 0
    assert path.read_text() == text


def test_a_variant_without_a_budget_and_a_budget_without_a_variant_are_refused(
    current: dict[str, Any], found: dict[str, Any]
) -> None:
    less = copy.deepcopy(current)
    less["variants"]["gone-fp32"] = less["variants"].pop("step-fp32")
    wrong = compiling.complaints(less, found)
    assert any("gone-fp32 is no variant" in each for each in wrong)
    assert any("step-fp32 sm_90 has no budget" in each for each in wrong)


def test_a_reason_alone_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        compiling.main(["--why", "because"])
    assert "--why is for --write" in capsys.readouterr().err


def test_predictions_follow_from_the_figures(file: dict[str, Any]) -> None:
    about = {"bytes": 12, "sm_90": {"budget": {"instructions": 50.0}}}
    assert budgets.predicted(about) == (round(12 / 4.3, 3), "memory")
    about["sm_90"]["budget"]["instructions"] = 80.0
    assert budgets.predicted(about) == (round(80 / 25.8, 3), "compute")
    assert budgets.predicted({**about, "bytes": None}) is None
    off = copy.deepcopy(file)
    off["variants"]["step-fp32"]["predicted_ps"] += 0.1
    assert any("step-fp32: vector or predicted_ps" in each for each in budgets.check(off))


def test_what_is_not_measured_is_said_to_be(file: dict[str, Any]) -> None:
    assert len(budgets.table(file).splitlines()) == 2 + len(VARIANTS)
    timed = copy.deepcopy(file)
    timed["variants"]["step-fp32"].pop("measured_ps", None)
    assert budgets.table(timed, ["step-fp32"]).endswith(" | not measured |")
    timed["variants"]["step-fp32"]["measured_ps"] = 3.21
    assert budgets.table(timed, ["step-fp32"]).endswith(" | 3.21 |")
    # Rewriting keeps it.
    about = {"step-fp32": {name: timed["variants"]["step-fp32"][name] for name in ("kernel", "bytes")}}
    nothing = {"toolchain": {}, "about": about, "digests": {}, "measured": {}}
    assert compiling.renew(timed, nothing)[0]["variants"] == timed["variants"]
