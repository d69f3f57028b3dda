"""The benchmark suite: what is wrong is never timed, what cannot be is a row, tables say what was measured."""

import json
import re

import pytest
import torch

from benchmarks import command, harness, report, suite
from benchmarks.documents import documents, rewrite
from benchmarks.harness import Benchmark, Trial

# torch.compile imports what PyTorch itself warns of.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

CPU = torch.device("cpu")
SMALL = {"step": 3072, "perturb": 3072, "dsm": 3072, "sample_norms": 3072, "normalisation": 1}


def trial(kind, size, dtype, device):
    if size == 13:
        raise ValueError("the size must not be 13, got 13")

    def fails():
        raise RuntimeError("no compiler\nand a long story")

    calls = {"good": lambda: torch.zeros(size), "wrong": lambda: torch.ones(size), "fails": fails}
    return Trial(
        f"{kind} of {size}",
        calls,
        lambda name: None if not calls[name]().any() else "is not zero",
        base="good",
        elements=size,
        touched={"good": 4 * size},
    )


FAKE = Benchmark(
    "fake", "what is told", sizes={"cpu": (4,), "cuda": (4,)}, trial=trial, providers=("good",), kinds=("a", "b")
)


def test_what_is_wrong_or_fails_is_a_row_and_the_others_are_timed(tmp_path, capsys):
    path = tmp_path / "new" / "fake.json"
    assert command.command(FAKE, ["--budget", "0.01", "--threads", "1", "--json", str(path)]) == 1
    record = json.loads(path.read_text())
    assert record["machine"]["torch"] == torch.__version__
    assert [case["kind"] for case in record["cases"]] == ["a", "b"]
    for case in record["cases"]:
        assert list(case["providers"]) == ["good"]
        assert case["failures"] == {"wrong": "is not zero", "fails": "RuntimeError: no compiler"}
        assert case["providers"]["good"]["ns_per_element"] == pytest.approx(
            case["providers"]["good"]["median"] / 4 * 1e9
        )
    shown = capsys.readouterr().out
    assert "wrong  not timed: is not zero" in shown
    assert "fails  not timed: RuntimeError: no compiler" in shown


def test_all_good_is_exit_status_zero():
    assert command.command(FAKE, ["--budget", "0.01", "--threads", "1", "--providers", "good"]) == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--providers", "good", "nothing"], "nothing  not timed: no such provider; there are good, wrong, fails"),
        (["--sizes", "13", "4", "--providers", "good"], "all  not timed: the size must not be 13, got 13"),
        pytest.param(
            ["--device", "cuda"],
            "all  not timed: there is no CUDA device here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
    ],
)
def test_what_is_not_there_is_a_row_and_the_run_goes_on(arguments, why, capsys):
    assert command.command(FAKE, ["--budget", "0.01", "--threads", "1", *arguments]) == 1
    shown = capsys.readouterr().out
    assert why in shown
    if "cuda" not in arguments:
        assert "b of 4" in shown


@pytest.mark.parametrize("arguments", [["--sizes", "0"], ["--threads", "-1"], ["--dtypes", "int8"]])
def test_bad_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        command.command(FAKE, arguments)
    assert arguments[0] in capsys.readouterr().err


def test_the_suite_knows_its_benchmarks(capsys):
    with pytest.raises(SystemExit):
        suite.main(["nothing"])
    assert "there is no benchmark 'nothing'; there are step, perturb" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_suite_on_a_gpu_that_is_not_there(capsys):
    assert suite.main(["step", "--device", "cuda"]) == 2
    assert "there is no CUDA device here" in capsys.readouterr().err


@pytest.mark.parametrize("name", SMALL)
def test_the_providers_of_a_benchmark_are_right(name):
    """Every one but the compiled; that a wrong one is refused is in the next test."""
    benchmark = suite.BENCHMARKS[name]
    for kind in benchmark.kinds:
        torch.manual_seed(0)
        made = benchmark.trial(kind, SMALL[name], torch.float32, CPU)
        assert set(made.calls) <= set(benchmark.providers)
        wanted = [each for each in made.calls if "compile" not in each]
        calls, failures = harness.kept(made, wanted)
        assert not failures
        assert list(calls) == wanted


def test_a_wrong_update_is_not_timed(monkeypatch):
    from benchmarks import step

    right = step.fl.step

    def off(*args, impl="auto", **options):
        out = right(*args, impl=impl, **options)
        return out if impl == "reference" else torch.nextafter(out, torch.full_like(out, torch.inf))

    monkeypatch.setattr(step.fl, "step", off)
    made = step.trial("", 3072, torch.float32, CPU)
    _, failures = harness.kept(made, ["fused", "fused out=", "eager"])
    assert failures == {"fused": "differs from the reference", "fused out=": "differs from the reference"}


def test_a_report_says_what_was_measured(tmp_path):
    path = tmp_path / "fake.json"
    command.command(FAKE, ["--budget", "0.01", "--threads", "1", "--json", str(path)])
    record = json.loads(path.read_text())
    median = record["cases"][0]["providers"]["good"]["median"]
    text = report.markdown(tmp_path)
    assert harness.duration(median) in text
    assert "| wrong | not timed: is not zero |" in text
    assert record["machine"]["commit"] in text


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_the_documents_have_the_tables_of_the_results(path):
    text = path.read_text(encoding="utf-8")
    assert report.with_results(text) == text
    for found in [*report.BLOCK.finditer(text), *report.INLINE.finditer(text)]:
        number = re.search(r"(?<= -->)[^<]*\d[^<]*", found.group())
        assert number, found.group()
        wrong = found.group().replace(number.group(), "\n| old |\n" if "table" in found.group() else "old")
        assert report.with_results(text.replace(found.group(), wrong)) == text


def test_many_tables_and_figures_are_generated():
    texts = [path.read_text(encoding="utf-8") for path in documents()]
    assert sum(len(report.BLOCK.findall(text)) for text in texts) > 10
    assert sum(len(report.INLINE.findall(text)) for text in texts) > 15


def test_stale_documents_are_told_of_and_written(tmp_path, capsys):
    made, other = tmp_path / "made.md", tmp_path / "other.md"
    made.write_text("old")
    other.write_text("new")
    assert rewrite([made, other], lambda text: "new", "make", check=True) == 1
    assert capsys.readouterr().out == "made.md: run make\n"
    assert made.read_text() == "old"
    assert rewrite([made, other], lambda text: "new", "make", check=False) == 0
    assert made.read_text() == "new"
    assert rewrite([made, other], lambda text: "new", "make", check=True) == 0


RECORD = {
    "benchmark": "fake",
    "machine": {"processor": "P", "instruction_sets": ["s"], "torch": "2", "date": "d", "commit": "c"},
    "cases": [
        {
            "case": f"norm {size}",
            "device": "cpu",
            "threads": 2,
            "base": "fused",
            "failures": {},
            "providers": {
                name: {"median": seconds * size, "lower": seconds, "upper": seconds}
                for name, seconds in {"eager": 6.0, "slow": 8.0 * size, "fused": 2.0}.items()
            },
        }
        for size in (1, 2)
    ],
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "fake.json").write_text(json.dumps(RECORD))
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "ROOT", tmp_path)


def made(what, kind="table", end="end of table"):
    return report.with_results(f"<!-- {kind}: {what} -->{chr(10) * (kind == 'table')}<!-- {end} -->")


def test_a_table_of_some_providers_keeps_what_they_are_compared_with(results):
    text = made("m / fake / norm 2 / 2 threads / slow; eager")
    assert [line.split(" | ")[0] for line in text.splitlines()[3:5]] == ["| slow", "| eager"]
    assert "| slow | 32 s | 16 s to 16 s | 8.00 |" in text
    assert "| fused" not in text.splitlines()[3:]
    assert "| slow | 8 s (0.75) | 32 s (0.38) |" in made("m / fake / norm* / 2 threads / slow")


def test_figures_in_the_text(results):
    ratio = {"kind": "times", "end": "end"}
    assert "-->3<!--" in made("m / fake / norm 1 / 2 threads / eager; fused", **ratio)
    assert "-->4 to 8<!--" in made("m / fake / norm* / 2 threads / slow; fused", **ratio)
    assert "-->fake<!--" in made("m/fake / benchmark / s", kind="value", end="end")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("m / fake / norm 3 / 2 threads", "0 cases of fake are called 'norm 3'"),
        ("m / fake / norm 1 / 1 thread", "0 cases"),
        ("m / fake / norm 1 / 2 threads / fastest", "norm 1 has no fastest; it has eager, slow, fused"),
    ],
)
def test_a_table_of_what_was_not_measured_is_refused(results, what, words):
    with pytest.raises(ValueError, match=words):
        made(what)


def test_a_table_of_budgets_stands_in_a_readme():
    text = report.with_results("<!-- table: budgets / step-fp32 rand-bf16 -->\nold\n<!-- end of table -->")
    assert "old" not in text
    assert [line.split(" | ")[0] for line in text.splitlines() if "-fp32 |" in line or "-bf16 |" in line] == [
        "| step-fp32",
        "| rand-bf16",
    ]
