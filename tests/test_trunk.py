"""The way from a user's call to a kernel: how many functions it calls, and how often it comes back to a file."""

import cProfile
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fastlangevin as fl
from fastlangevin import runtime

ROOT = Path(__file__).parents[1]
FOLDERS = tuple(f"{folder}/" for folder in (ROOT / "fastlangevin", ROOT / "kernels", Path(fl.__file__).parent))
# What PyTorch calls inside of itself differs between versions, and what Python counts.
PINNED = platform.python_version_tuple()[:2] == ("3", "11") and torch.__version__.startswith("2.13.")

X, SCORE = torch.zeros(4, 8), torch.ones(4, 8)
HALF = X.bfloat16()
IDS, LABELS = torch.arange(4), torch.tensor([0, 1, 1, 0])
SIGMAS = torch.tensor([1.0, 0.5])
UPDATE = {"a": 0.1, "b": 0.2, "seed": 1}
OUTPUT = torch.ones(4, 8, requires_grad=True)
NET, POINTS = fl.models.MLP([1.0, 0.5], fl.models.MLPConfig(width=8, depth=2)), torch.ones(4, 2)
OBJECTIVE = fl.DenoisingScoreMatching([1.0, 0.5])


def objective() -> torch.Tensor:
    return OBJECTIVE(lambda x, labels: OUTPUT, X, seed=1, step=0)


# By name: the call, the most function calls it may make, built-in functions among them.
CALLS: dict[str, tuple[Callable[[], object], int]] = {
    "step_": (lambda: fl.step_(X, SCORE, **UPDATE), 20),
    "step_ with sample_ids": (lambda: fl.step_(X, SCORE, **UPDATE, sample_ids=IDS), 27),
    # Whether operands overlap is asked one or two times more, as their addresses follow each other.
    "step_ of bf16 with sample_ids": (lambda: fl.step_(HALF, SCORE, **UPDATE, sample_ids=IDS), 64),
    "randn": (lambda: fl.randn((4, 8), seed=1), 14),
    "perturb": (lambda: fl.perturb(X, SIGMAS, seed=1), 24),
    "perturb with labels": (lambda: fl.perturb(X, SIGMAS, labels=LABELS, seed=1), 27),
    "a perceptron of two layers": (lambda: NET(POINTS, LABELS), 50),
    "objective": (torch.no_grad()(objective), 80),
    "objective and its gradient": (lambda: objective().backward(), 132),
}

# Calls that go the quick way, each with one of its kind that does not.
QUICK = {
    "step": (lambda: fl.step(X, SCORE, **UPDATE), lambda: fl.step(HALF, SCORE, **UPDATE)),
    "randn": (lambda: fl.randn((4, 8), seed=1), lambda: fl.randn((4, 8), seed=1, dtype=torch.float64)),
    "perturb": (lambda: fl.perturb(X, SIGMAS, seed=1), lambda: fl.perturb(X.double(), SIGMAS, seed=1)),
    "dsm": (
        lambda: objective().backward(),
        lambda: OBJECTIVE(lambda x, labels: OUTPUT.double(), X, seed=1, step=0).backward(),
    ),
}


def calls(function: Callable[[], object]) -> int:
    """The functions that a call calls; the two more that are counted are the function itself and the end."""
    for _ in range(2):
        function()
    profile = cProfile.Profile()
    profile.enable()
    function()
    profile.disable()
    return sum(entry.callcount for entry in profile.getstats()) - 2


def returns(function: Callable[[], object], folders: tuple[str, ...] = FOLDERS) -> list[str]:
    """The files that control comes back to, having left them, while a call is made; each as often as it does."""
    for _ in range(2):
        function()
    seen: list[str] = []

    def trace(frame, event, argument):
        path = frame.f_code.co_filename
        if not path.startswith(folders):
            return None
        if event == "line" and (not seen or seen[-1] != path):
            seen.append(path)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return [path for place, path in enumerate(seen) if path in seen[:place]]


@pytest.mark.skipif(not PINNED, reason="counted with Python 3.11 and PyTorch 2.13")
@pytest.mark.parametrize("name", CALLS)
def test_small_calls_call_few_functions(name):
    function, most = CALLS[name]
    found = calls(function)
    print(f"{name}: {found} function calls")
    assert found <= most


def test_the_general_way_comes_back_to_few_files():
    found = returns(lambda: fl.step(HALF, SCORE, **UPDATE, draw=3, sample_ids=IDS))
    print(f"step of bf16 with sample_ids: back to {', '.join(Path(each).name for each in found)}")
    assert 1 <= len(found) <= 4


@pytest.mark.parametrize("name", QUICK)
def test_small_plain_calls_go_the_quick_way(monkeypatch, name):
    def fails(*arguments, **options):
        raise AssertionError(f"{name} went the general way")

    quick, general = QUICK[name]
    chosen, launchers = runtime.choose("auto", torch.device("cpu"))
    if chosen != "cpp":
        pytest.skip("the quick ways are those of the C++ kernels")
    monkeypatch.setattr(runtime, "_automatic", lambda kind: (chosen, launchers._replace(**{name: fails})))
    quick()
    with pytest.raises(AssertionError, match="went the general way"):
        general()


LADDER = [1.0, 0.1]
SAMPLERS: dict[str, Callable[[Callable[..., torch.Tensor], int], object]] = {
    "annealed_langevin": lambda score, steps: fl.annealed_langevin(
        score, LADDER, init=X, epsilon=0.01, steps_per_level=steps // 2, seed=1
    ),
    "langevin": lambda score, steps: fl.langevin(score, X, epsilon=0.01, steps=steps, seed=1),
}


@pytest.mark.skipif(not PINNED, reason="counted with Python 3.11 and PyTorch 2.13")
@pytest.mark.parametrize("name", SAMPLERS)
def test_an_update_of_a_chain_calls_few_functions(name):
    sampler = SAMPLERS[name]
    few, many = (calls(lambda steps=steps: sampler(lambda *given: SCORE, steps)) for steps in (20, 40))
    print(f"an update of {name}: {(many - few) / 20} function calls")
    assert (many - few) / 20 <= 36


def frames() -> list[str]:
    """The files of the package that are being run, the innermost last; one for each function."""
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame.f_code.co_filename)
        frame = frame.f_back
    return [path for path in reversed(found) if path.startswith(FOLDERS)]


def test_a_state_passes_few_files(monkeypatch):
    stacks = []
    chosen, launchers = runtime.choose("auto", torch.device("cpu"))
    if chosen != "cpp":
        pytest.skip("the quick ways are those of the C++ kernels")

    def quick_step(*arguments):
        stacks.append(frames())
        return launchers.quick_step(*arguments)

    def score(x, labels):
        stacks.append(frames())
        return SCORE

    monkeypatch.setattr(runtime, "_automatic", lambda kind: (chosen, launchers._replace(quick_step=quick_step)))
    SAMPLERS["annealed_langevin"](score, 4)
    asked, updated = stacks[:2]
    files = {Path(path).name for path in (*asked, *updated)} | {"native.py"}
    print(f"from annealed_langevin to the first update: {', '.join(sorted(files))}")
    assert len(files) <= 8
    # From the loop to the kernel's launcher, which is one more.
    loop = max(place for place, path in enumerate(updated) if path.endswith("sample.py"))
    assert len(updated) - loop <= 5


def test_calls_and_returns_are_counted(tmp_path):
    names = {}
    (tmp_path / "one.py").write_text("def first(other):\n    other()\n    other()\n    return len([])\n")
    (tmp_path / "two.py").write_text("def second():\n    return 1\n")
    for name in ("one", "two"):
        path = tmp_path / f"{name}.py"
        exec(compile(path.read_text(), str(path), "exec"), names)
    assert calls(lambda: names["first"](names["second"])) == 4
    # Twice into the second file, of which once again, and back to the first after each.
    found = returns(lambda: names["first"](names["second"]), (str(tmp_path),))
    assert [Path(each).name for each in found] == ["one.py", "two.py", "one.py"]
