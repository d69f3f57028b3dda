"""What a process had before an import or a call of this package, it has after it.

    python -m tests.long.untouched --json results.json

Looked at: subnormals, the global generators of PyTorch, NumPy and Python, numbers of threads, the default dtype and
device, warning filters, environment variables, the deterministic flag, gradient mode, locale, working folder, signal
handlers, the path of modules, float32 precision, floating-point errors of NumPy, the switch interval and the recursion
limit. Imports are those of a fresh process. The controls are calls that change one of these each.
"""

from __future__ import annotations

import json
import locale
import os
import random
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.long.record import finish, parser

__all__ = ["changed", "controls", "public_calls", "settings", "unseen"]


def _subnormal() -> bool:
    return bool((torch.tensor([2.0], device="cpu") ** -140 * torch.ones(1, device="cpu")).item() > 0)


def settings() -> dict[str, str]:
    """The settings of this process by name, as text that can be compared and printed."""
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals() if number < 32}
    state: Any = np.random.get_state()
    values: dict[str, Any] = {
        "subnormals": _subnormal(),
        "generator of PyTorch": torch.get_rng_state().tolist(),
        "generator of NumPy": (state[0], state[1].tolist(), *state[2:]),
        "generator of Python": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "warning filters": warnings.filters,
        "environment": dict(os.environ),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "gradient mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "precision": torch.get_float32_matmul_precision(),
        "locale": locale.setlocale(locale.LC_ALL),
        "working folder": os.getcwd(),
        "signal handlers": handlers,
        "module path": sys.path,
        "errors of NumPy": np.geterr(),
        "interpreter": (sys.getswitchinterval(), sys.getrecursionlimit()),
    }
    return {name: repr(value) for name, value in values.items()}


def changed(call: Callable[[], object]) -> list[str]:
    """Which settings are not as they were, after a call."""
    before = settings()
    call()
    after = settings()
    return [name for name in before if before[name] != after[name]]


def public_calls(folder: Path) -> dict[str, Callable[[], object]]:
    """Each kind of public call, with seeds, so that none of them may take one from a generator."""
    import sympy  # noqa: F401  # some functions of PyTorch do at their first use, which adds a filter of its own

    import fastlangevin as fl
    from fastlangevin.models import MLP, MLPConfig
    from fastlangevin.storage import checkpoint

    sigmas = fl.geometric_sigmas(1.0, 0.1, 3)
    with torch.random.fork_rng(devices=[]):
        net = MLP(sigmas, MLPConfig(features=3, width=8, depth=1))
        images = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.SiLU())
    x, many = fl.randn((8, 3), seed=0), torch.zeros(4, 50_000)
    toy = fl.GaussianMixture([0.5, 0.5], [[-1.0] * 3, [1.0] * 3], 1.0)
    chain: dict[str, Any] = {"epsilon": 1e-3, "steps_per_level": 2, "seed": 0}

    def score(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return -x

    def backward() -> None:
        fl.dsm_loss(net, x, sigmas, seed=1, step=2).backward()

    def refused() -> None:
        try:
            fl.step(x, x, a=float("nan"), b=0.1, seed=0)
        except ValueError:
            return
        raise RuntimeError("a wrong call was not refused")

    def files() -> None:
        checkpoint.save(folder / "net.safetensors", net)
        checkpoint.load(folder / "net.safetensors")

    def shards() -> None:
        made = {"shape": (20, 3), **chain, "network": "standard normal"}
        fl.shards.sample(score, sigmas, str(folder / "run"), shard_size=10, batch=5, **made)
        fl.shards.collect(str(folder / "run"))

    return {
        "randn and rand": lambda: (fl.randn((3, 5), seed=1), fl.rand((3, 5), seed=1)),
        "step on each implementation": lambda: [
            fl.step(x, x, a=0.1, b=0.2, seed=0, impl=impl) for impl in ("reference", "cpp", "auto")
        ],
        "step_ on large tensors": lambda: fl.step_(torch.zeros(4, 50_000), many, a=0.1, b=0.2, seed=0),
        "perturb": lambda: fl.perturb(x, sigmas.float(), seed=0),
        "loss and gradient": backward,
        "annealed_langevin": lambda: fl.annealed_langevin(score, sigmas, shape=(4, 3), **chain),
        "annealed_langevin of a network": lambda: fl.annealed_langevin(net.eval(), sigmas, shape=(4, 3), **chain),
        "annealed_langevin of a mixture": lambda: fl.annealed_langevin(toy, sigmas, shape=(4, 3), **chain),
        "consistent_annealed": lambda: fl.consistent_annealed(score, sigmas, shape=(4, 3), epsilon=0.018, seed=0),
        "predictor_corrector": lambda: fl.predictor_corrector(score, sigmas, shape=(4, 3), snr=0.1, seed=0),
        "langevin": lambda: fl.langevin(lambda x: -x, x, steps=3, epsilon=0.1, seed=0),
        "fuse": lambda: fl.fuse(images, torch.zeros(2, 3, 6, 6)),
        "plan": lambda: fl.plan(budget=60, sigma_1=5.0, shape=(3, 8, 8)),
        "diagnostics": lambda: fl.diagnostics.split_rhat(fl.randn((8, 40, 3), seed=2).transpose(0, 1)),
        "checkpoints": files,
        "shards": shards,
        "a refused call": refused,
    }


@contextmanager
def _restored(undo: Callable[[], object]) -> Any:
    try:
        yield
    finally:
        undo()


def controls() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """By setting, a call that changes it, and how it is undone."""
    state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    threads, here, kept = torch.get_num_threads(), os.getcwd(), list(warnings.filters)
    grad = torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    handler = signal.getsignal(signal.SIGUSR1)
    errors, interval, precision = np.geterr(), sys.getswitchinterval(), torch.get_float32_matmul_precision()
    text = locale.setlocale(locale.LC_ALL)

    def other_locale() -> None:
        locale.setlocale(locale.LC_CTYPE, "C" if locale.setlocale(locale.LC_CTYPE) != "C" else "C.UTF-8")

    return {
        "subnormals": (lambda: torch.set_flush_denormal(True), lambda: torch.set_flush_denormal(False)),
        "generator of PyTorch": (lambda: torch.randn(1), lambda: torch.set_rng_state(state)),
        "generator of NumPy": (lambda: np.random.rand(1), lambda: np.random.set_state(numpy_state)),
        "generator of Python": (random.random, lambda: random.setstate(python_state)),
        "threads": (lambda: torch.set_num_threads(threads + 1), lambda: torch.set_num_threads(threads)),
        "default dtype": (
            lambda: torch.set_default_dtype(torch.float64),
            lambda: torch.set_default_dtype(torch.float32),
        ),
        "default device": (lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
        "warning filters": (
            lambda: warnings.simplefilter("ignore", ResourceWarning),
            lambda: warnings.filters.__setitem__(slice(None), kept),  # type: ignore[attr-defined]
        ),
        "environment": (
            lambda: os.environ.update(FASTLANGEVIN_CHANGED="1"),
            lambda: os.environ.pop("FASTLANGEVIN_CHANGED"),
        ),
        "deterministic": (
            # Not by its public name, which imports PyTorch's compiler.
            lambda: torch._C._set_deterministic_algorithms(not deterministic),
            lambda: torch._C._set_deterministic_algorithms(deterministic),
        ),
        "gradient mode": (lambda: torch.set_grad_enabled(not grad), lambda: torch.set_grad_enabled(grad)),
        "precision": (
            lambda: torch.set_float32_matmul_precision("medium"),
            lambda: torch.set_float32_matmul_precision(precision),
        ),
        "locale": (other_locale, lambda: locale.setlocale(locale.LC_ALL, text)),
        "working folder": (lambda: os.chdir("/"), lambda: os.chdir(here)),
        "signal handlers": (
            lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
            lambda: signal.signal(signal.SIGUSR1, handler),
        ),
        "module path": (lambda: sys.path.append("/nowhere"), lambda: sys.path.remove("/nowhere")),
        "errors of NumPy": (lambda: np.seterr(over="ignore"), lambda: np.seterr(**errors)),
        "interpreter": (lambda: sys.setswitchinterval(0.123), lambda: sys.setswitchinterval(interval)),
    }


def unseen() -> list[str]:
    """The controls: settings whose change is not seen, or not as what it is."""
    missed = []
    for name, (change, undo) in controls().items():
        guard: AbstractContextManager[Any] = _restored(undo)
        with ExitStack() as stack:
            stack.enter_context(guard)
            if changed(change) != [name]:
                missed.append(name)
    return missed


def of_import() -> list[str]:
    """Which settings the import changes, in a fresh process."""
    script = (
        "import json, torch\n"
        "from tests.long.untouched import changed\n"
        "print(json.dumps(changed(lambda: __import__('fastlangevin'))))\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([root, *filter(None, sys.path)])
    # benchmarks.timing imports the package where it is needed and not before, so that it is not there yet.
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


def main() -> int:
    options = parser(__doc__).parse_args()
    found = {"import": of_import()}
    with tempfile.TemporaryDirectory() as folder:
        calls = public_calls(Path(folder))
        for name, call in calls.items():
            found[name] = changed(call)
    missed = unseen()
    count = len(settings())
    return finish(
        options.json,
        "the process's environment is untouched",
        "python -m tests.long.untouched",
        f"{count} settings around an import and {len(calls)} kinds of calls: {sum(map(len, found.values()))} changes",
        f"{count - len(missed)} of {count} calls that change one of them are seen",
        not any(found.values()) and not missed,
        changes=found,
    )


if __name__ == "__main__":
    sys.exit(main())
