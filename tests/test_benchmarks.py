"""The benchmark suite: what is wrong is never timed, what cannot be is a row, tables say what was measured."""

import json

import pytest
import torch

from benchmarks import command, harness, report, suite
from benchmarks.harness import Benchmark, Trial

# torch.compile imports what PyTorch itself warns of.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

CPU = torch.device("cpu")
SMALL = {"step": 3072, "perturb": 3072, "dsm": 3072, "norms": 3072, "normalisation": 1}


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


def test_the_readme_has_the_tables_of_the_results():
    text = report.README.read_text(encoding="utf-8")
    assert len(report.BLOCK.findall(text)) >= 4
    assert report.readme_with_tables(text) == text
    number = next(found for found in report.BLOCK.finditer(text)).group().split("|")[5]
    assert report.readme_with_tables(text.replace(number, " 0.1 ms ", 1)) == text


def test_a_table_of_budgets_stands_in_a_readme():
    text = report.readme_with_tables("<!-- table: budgets / step-fp32 rand-bf16 -->\nold\n<!-- end of table -->")
    assert "old" not in text
    assert [line.split(" | ")[0] for line in text.splitlines() if "-fp32 |" in line or "-bf16 |" in line] == [
        "| step-fp32",
        "| rand-bf16",
    ]
