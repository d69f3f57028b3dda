"""The law of the noise by statistics: the harness in a short form, what it must reject, and its own pieces."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from patience import HUNG
from scipy import special, stats

from fastlangevin import reference
from fastlangevin.kernels.cpp import native
from fastlangevin.runtime import explain
from tests.long import interleavings, noise_statistics, pvalues, tallies, uniforms

pytestmark = pytest.mark.long

if explain("cpu")["cpp"] != "available":
    pytest.skip("the normals tried are those of the C++ kernels", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
LONG_RUN = ROOT / "tests" / "long" / "results" / "noise_statistics.json"


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    out = tmp_path_factory.mktemp("statistics") / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.long.noise_statistics", "--short", "--quiet", "--json", out],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


def p_values(figures):
    return {each["name"]: each["p"] for each in figures["statistics"]}


def test_every_statistic_of_ten_million_normals_is_accepted(figures):
    found = p_values(figures)
    assert figures["normals"] > 10**7
    assert len(found) == len(figures["statistics"]) >= 100  # every name once
    assert {name: p for name, p in found.items() if not p > 1e-6} == {}


def test_p_values_are_not_all_alike(figures):
    """120 of them, some of which go together: none is below 10^-6, and no law is so wide that they crowd at 1.

    Counts of events that 10^7 normals do not have are left out: they are what is expected, with p = 1.
    """
    p = np.array([each["p"] for each in figures["statistics"] if each["value"] > 10 or "Poisson" not in each["law"]])
    assert len(p) > 90
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_every_implementation_has_these_bits(figures):
    assert figures["same_bits"] == dict.fromkeys(["reference", *native.instruction_sets()], True)


def test_every_mistake_is_rejected(figures):
    assert len(figures["controls"]) == 12
    accepted = p_values(figures)
    for name, control in figures["controls"].items():
        assert control["p"] < 1e-6, name
        assert accepted[control["name"]] > 1e-6, name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f["statistics"][0].update(p=1e-6), "moment 1: p = 1e-06"),
        (lambda f: f["statistics"][0].update(p=math.nan), "moment 1: p = nan"),
        (lambda f: next(iter(f["controls"].values())).update(p=1e-6), "not rejected: uniform clamped at 0.0001"),
        (lambda f: f["same_bits"].update(reference=False), "reference has other bits"),
    ],
)
def test_the_harness_tells_what_went_wrong(figures, change, says):
    changed = json.loads(json.dumps(figures))
    assert noise_statistics.failures(changed) == []
    change(changed)
    (line,) = noise_statistics.failures(changed)
    assert says in line


def test_the_long_run_that_is_told_of():
    told = json.loads(LONG_RUN.read_text())
    assert told["normals"] >= 10**9
    assert noise_statistics.failures(told) == []
    pairs = [each["n"] for each in told["statistics"] if each["name"].startswith(("z z'", "H2 H2'"))]
    assert min(pairs) >= 10**8
    assert set(told["controls"]) >= {"uniform clamped at 1e-07", "radius of 24 bits", "1.0002 times too large"}


# The statistics themselves, on NumPy's numbers.

ROUNDS = 200


def has_a_variance(law):
    return law == "N(0, 1)" or law.startswith("chi-square")


@pytest.fixture(scope="module")
def rounds():
    """Every statistic of independent numbers that are not ours, ``ROUNDS`` times.

    Of 12,288 normals and 65,536 uniforms at a time: variances are exact for any number.
    """
    random = np.random.default_rng(0)
    found: dict[str, list[pvalues.Statistic]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tallies, "SHAPE", (3, 2, 2, 2, 8, 64))
        patch.setattr(tallies, "BLOCK", 2**12)
        patch.setattr(uniforms, "GAPS", 1000)
        n = math.prod(tallies.SHAPE)
        for _ in range(ROUNDS):
            z = torch.from_numpy(random.standard_normal(tallies.SHAPE, np.float32))
            words = torch.from_numpy(random.integers(0, 2**32, 2**16))
            every = [each for group in tallies.GROUPS.values() for each in group.statistics(group.tally(z), n)]
            every += uniforms.statistics(uniforms.tally(((words >> 9) + 0.5) * 2.0**-23))
            every += uniforms.words(uniforms.tally_words(words))
            for each in every:
                found.setdefault(each.name, []).append(each)
    return found


def of_another_law(found):
    """Statistics whose values do not have the second moment, or the mean, of the law that they name.

    The bounds are 3 standard deviations of a mean of ``ROUNDS`` or wider, and narrower than a variance wrong by two.
    """
    wrong = set()
    for name, every in found.items():
        value, law = np.array([each.value for each in every]), every[0].law
        if law == "N(0, 1)":
            right = 0.65 < (value**2).mean() < 1.5
        elif law.startswith("chi-square"):
            right = abs(value.mean() / int(law[11:-1]) - 1) < 0.1
        elif law.startswith("Poisson"):
            expected = float(law[8:-1]) * ROUNDS
            right = abs(value.sum() - expected) <= 4 * math.sqrt(expected) + 1
        else:
            right = abs(value.mean() / {"Kolmogorov": 0.8687, "A^2": 1.0, "W^2": 1 / 6}[law] - 1) < 0.25
        if not right:
            wrong.add(name)
    return wrong


def test_statistics_have_the_laws_that_they_name(rounds, figures):
    assert len(rounds) == len(figures["statistics"]) - 1  # all but the birthdays
    assert of_another_law(rounds) == set()


@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_variance_wrong_by_two_is_found(rounds, factor):
    changed = {
        name: [
            each._replace(value=each.value * (math.sqrt(factor) if each.law == "N(0, 1)" else factor)) for each in every
        ]
        for name, every in rounds.items()
        if has_a_variance(every[0].law)
    }
    assert len(changed) > 90
    assert of_another_law(changed) == set(changed)


# The pieces.


def test_quadratic_forms_have_their_published_quantiles():
    """Marsaglia and Marsaglia (2004); Csorgo and Faraway (1996)."""
    for kind, quantiles, error in (
        ("Anderson-Darling", {0.1: 1.9329578327, 0.05: 2.4923671600, 0.01: 3.8781250216}, 1e-6),
        ("Cramer-von Mises", {0.1: 0.34730, 0.05: 0.46136, 0.025: 0.58061, 0.01: 0.74346}, 2e-4),
    ):
        for above, x in quantiles.items():
            assert pvalues.quadratic(kind, 1, x).p == pytest.approx(2 * above, rel=error)


def test_the_far_tail_of_a_quadratic_form():
    """Zolotarev (1961): P(A^2 > x) goes to 2 sqrt(3) (1 - Phi(sqrt(2 x))), the further eigenvalues being sqrt(3).

    Their product's slope, 11/18, is the next term: 1 + 11 / (36 x), with an error of 1/x^2.
    """
    for x in (10.0, 15.0, 20.0):
        expected = 2 * math.sqrt(3) * special.ndtr(-math.sqrt(2 * x)) * (1 + 11 / (36 * x))
        assert pvalues.quadratic("Anderson-Darling", 1, x).p / 2 == pytest.approx(expected, rel=1e-3)
    assert pvalues.quadratic("Anderson-Darling", 1, 1e6).p == pvalues.SMALLEST


def test_distances_of_blocks_have_their_law():
    n = tallies.BLOCK
    distances = np.array([0.45, 0.6, 0.8, 1.0, 1.5, 2.0]) / math.sqrt(n)
    exact = stats.kstwo.sf(distances, n)
    np.testing.assert_allclose(pvalues.kolmogorov_of_rows(distances, n), exact, rtol=0, atol=1e-6)
    # What the limit alone would be off by: a shift that 15,360 blocks might show.
    assert np.abs(special.kolmogorov(math.sqrt(n) * distances) - exact).max() > 1e-3


@pytest.mark.parametrize("lack", [0.8, 1.2])
def test_p_values_are_two_sided(lack):
    """Too good a fit is rejected as too bad a one is."""
    expected = np.full(2000, 1000.0)
    away = np.where(np.arange(2000) % 2 == 0, 1, -1) * math.sqrt(1000 * lack)
    assert pvalues.chi_square("", expected + away, expected).p < 1e-6
    assert pvalues.chi_square("", expected + away / math.sqrt(lack), expected).p > 0.1


def test_the_law_near_zero_is_that_of_the_kernels_angles():
    """From the nearest 2^17 cosines to zero, as computed; the others add 2^-17 of the sum, in proportion."""
    words = 2**30 + 128 * torch.arange(-(2**16), 2**16)
    nearest = native.polar(words.int())[1].double()
    for power in (-25, -26):
        limit = 2.0**power
        found = 2 * float(-torch.expm1(-0.5 * (limit / nearest) ** 2).sum()) * 2.0**-25
        assert tallies.near_zero_of_the_angles(limit) == pytest.approx(found, rel=1e-4)
        assert found < 0.4 * special.erf(limit / math.sqrt(2))
    assert tallies.near_zero_of_the_angles(2.0**-20) == pytest.approx(special.erf(2.0**-20 / math.sqrt(2)), rel=1e-5)


def test_chunks_do_not_overlap():
    assert len({tuple(noise_statistics.chunk(index)[0, 0, 0, 0, 0, :4].tolist()) for index in (0, 1, 31, 32, 33)}) == 5
    z = noise_statistics.chunk(33)
    at = torch.tensor([2**32 + 16 + 5])
    expected = reference.randn(tallies.SHAPE[-1], at, seed=2**32, draw=3, purpose=noise_statistics.PURPOSES[1])
    assert torch.equal(z[2, 1, 1, 1, 5], expected[0])


@pytest.mark.parametrize("side", list(interleavings.SIDES))
def test_streams_let_one_side_change_fastest(side):
    words = np.frombuffer(next(interleavings.stream(side)), np.uint32)
    place = dict.fromkeys(interleavings.SIDES, 0)
    for index in (0, 1, interleavings.SIDES[side] - 1):
        place[side] = index
        expected = reference.words(
            4 * (place["element"] // 4 + 1),
            torch.tensor([place["sample"]]),
            seed=place["seed"],
            draw=place["draw"],
            purpose=place["purpose"],
        )
        assert words[index] == int(expected[place["element"] % 4][0, -1])


# What the program is taken to print; it is not installed everywhere. It fails what repeats a word four times.
PROGRAM = """#!{python}
import sys
assert sys.argv[1:5] == ["-g", "200", "-d", "0"], sys.argv
words = sys.stdin.buffer.read(1_500_000)
assert len(words) == 1_500_000
verdict = "FAILED" if words[:4] == words[4:8] == words[8:12] else "PASSED"
print("#    a heading    |  of no meaning")
print("   diehard_birthdays|   0|       100|     " + sys.argv[6] + "|0.51|  " + verdict + "  ")
"""


def test_dieharder_is_judged_by_what_it_prints(tmp_path, monkeypatch, capsys):
    program = tmp_path / "dieharder"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "verdicts.json"
    assert interleavings.main(["--tests", "0", "--samples", "20", "--json", str(path)]) == 0
    told = json.loads(path.read_text())
    passed = {"PASSED": ["diehard_birthdays 0"], "WEAK": [], "FAILED": []}
    assert told["interleavings"] == {f"{side} by {side}": passed for side in interleavings.SIDES}
    assert told["control"]["FAILED"] == ["diehard_birthdays 0"]
    right = interleavings.stream
    monkeypatch.setattr(interleavings, "stream", lambda side, draws_alike=False: right("draw", not draws_alike))
    assert interleavings.main(["--tests", "0"]) == 1
    with pytest.raises(SystemExit):
        interleavings.main(["--samples", "5"])
    assert "--samples must be 20 or more, got 5" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="judged nothing"):
        interleavings.judge(str(program), ["2"], 3, right("draw"))
    program.unlink()
    assert interleavings.main(["--tests", "0"]) == 2
    assert "dieharder is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gaps between visits to [0, 1/32)", lambda u: u.repeat_interleave(2)[: len(u)]),
        ("upper 12 bits", lambda u: u * 0.999),
        ("lower 11 bits", lambda u: (u * 2.0**13).floor() * 2.0**-13),
        ("birthday spacings, 2^46 days", lambda u: ((u * 2.0**16).floor() + 0.5) * 2.0**-16),
        ("birthday spacings, 2^46 days", lambda u: torch.cat([u[:1000]] * (len(u) // 1000 + 1))[: len(u)]),
    ],
)
def test_uniforms_with_a_flaw_are_rejected(name, change):
    u = uniforms.chunk(0).flatten()

    def p(u):
        every = [*uniforms.statistics(uniforms.tally(u)), uniforms.birthday_spacings(u)]
        return next(each.p for each in every if each.name == name)

    assert p(u) > 1e-6
    assert p(change(u)) < 1e-6


def test_gaps_are_all_counted():
    total = uniforms.tally(uniforms.chunk(0))
    assert total[-uniforms.LONGEST_GAP :].sum() == uniforms.GAPS
