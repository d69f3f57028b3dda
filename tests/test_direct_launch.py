"""Direct launches of compiled kernels: the same variants, grids and arguments as Triton's own.

No GPU is needed: the keys are Triton's own binder's, and a stub driver takes what would be launched. Triton must run
without its interpreter, so it is done in a process of its own: this file, run as a script. What the stub does not show,
that a GPU then computes the same bits, is in the test marked gpu.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastlangevin.kernels.address import Address, Draw, DrawTable, Term, Update

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parent.parent
FAULTS = ["aligned", "dtype", "width", "none", "device", "debug", "plain aligned", "plain layout", "plain record"]
FAULTS += ["plain order", "plain dtype"]

Arguments = dict[str, Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRITON_")}
    path = tmp_path_factory.mktemp("launches") / "found.json"
    done = subprocess.run([sys.executable, __file__, path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(path.read_text())
    return read


@pytest.mark.long
def test_the_key_separates_what_triton_separates(found: dict[str, Any]) -> None:
    assert found["kernels"] >= 10
    assert found["calls"] > 400
    assert found["variants"] > 80
    assert found["confused"] == 0
    # More keys than variants would only be launches that go through Triton once more than they must.
    assert found["keys"] == found["variants"]


def test_a_direct_launch_is_the_launch_that_triton_makes(found: dict[str, Any]) -> None:
    assert found["launches"] > 1000
    assert found["different"] == 0
    # All but the first of each variant, by device and debug setting, and but those of a shortcut's first key.
    assert found["through_triton"] < 0.4 * found["launches"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_key_is_seen(fault: str, found: dict[str, Any]) -> None:
    assert found["faults"][fault] > 0


def test_what_goes_through_triton(found: dict[str, Any]) -> None:
    assert found["unusual"] == {
        "turned off": "triton",
        "a hook before the binder": "triton",
        "a bool": "triton",
        "another version": "triton",
        "another back end": "triton",
        "usual": "direct",
    }
    assert found["hooks"] == {"triton": 1, "direct": 1}


@pytest.mark.long
def test_the_environment_turns_it_off() -> None:
    code = "from fastlangevin.kernels.triton import direct_launch; print(direct_launch._enabled)"
    for value, printed in (("0", "False"), ("1", "True"), (None, "True")):
        environment = {key: each for key, each in os.environ.items() if key != "FASTLANGEVIN_DIRECT_LAUNCH"}
        if value is not None:
            environment["FASTLANGEVIN_DIRECT_LAUNCH"] = value
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == printed


@pytest.mark.gpu
def test_bits_with_and_without() -> None:
    from fastlangevin.kernels.triton import direct_launch, step
    from fastlangevin.ops import group_norm

    def run() -> list[torch.Tensor]:
        results = []
        for out, given in updates("cuda"):
            step.step(out, given)
            results.append(out)
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            image = torch.arange(4 * 32 * 64, device="cuda").sin().to(dtype).view(4, 32, 8, 8)
            for x in (image, image.contiguous(memory_format=torch.channels_last), image[1:], image[:, :16].clone()):
                weight = torch.ones(x.shape[1], device="cuda", dtype=torch.float64 if dtype.itemsize == 8 else None)
                results.append(group_norm(x, 8, weight, weight, activation=True, impl="triton"))
        return results

    direct_launch.use_direct_launch(False)
    try:
        want = run()
    finally:
        direct_launch.use_direct_launch(True)
    for _ in range(3):
        for one, other in zip(run(), want, strict=True):
            assert torch.equal(one, other)


@pytest.mark.gpu
def test_another_device() -> None:
    import fastlangevin as fl

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    x = fl.randn((4, 64), seed=1)
    want = fl.step(x, x, a=0.1, b=0.2, seed=3, impl="cpp")
    for device in (0, 1, 0, 1):
        on = x.cuda(device)
        assert torch.equal(fl.step(on, on, a=0.1, b=0.2, seed=3).cpu(), want)


def updates(device: str = "cpu") -> Iterator[tuple[torch.Tensor, Update]]:
    """Arguments of the step kernel's launcher that differ in all that a variant may hang on."""

    def tensor(shape: tuple[int, ...], dtype: torch.dtype, offset: int = 0) -> torch.Tensor:
        """Small integers, ``offset`` elements after an address that 64 divides."""
        size = max(torch.Size(shape).numel(), 1) + 64 + offset
        flat = (torch.arange(size, device=device) % 11).to(dtype)
        begin = -flat.data_ptr() // flat.element_size() % (64 // flat.element_size()) + offset
        return flat[begin : begin + torch.Size(shape).numel()].view(shape)

    address = Address(seed=3, draw=5, sample_ids=None, sample_offset=0, purpose=1)

    def plain(x: torch.Tensor, score: torch.Tensor, c: Any = 1.0, a: Any = 0.5, **changes: Any) -> Update:
        at = address._replace(**{name: changes.pop(name) for name in Address._fields if name in changes})
        return Update((Term(c, x), Term(a, score)), 0.25, at, 9)._replace(**changes)

    floats = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    shapes = (1, 4), (4, 3), (16, 64), (2, 3, 5, 7), (3, 4, 8, 8), (1, 1)
    for dtype, shape in itertools.product(floats, shapes):
        x, score = tensor(shape, dtype), tensor(shape, dtype)
        yield x, plain(x, score)
        yield x, plain(x, score, b=None)
        yield x, plain(x, tensor(shape, torch.float32), a=0.75, seed=2**64 - 1)
        # By one element, misaligned; by eight, aligned again where an element has two bytes or more.
        for offsets in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (8, 8, 8)):
            out, x, score = (tensor(shape, dtype, offset) for offset in offsets)
            yield out, plain(x, score, draw=2**32 - 1)
    x, wide = tensor((16, 64), torch.float32), tensor((16, 64), torch.float64)
    for change in (
        {"draw": 0, "seed": 1},
        {"seed": 2**31, "draw": 2**31, "sample_offset": 2**40, "purpose": 255},
        {"seed": 2**63 + 1, "sample_offset": 1, "purpose": 16},
    ):
        yield x, plain(x, x, **change)
    for dtype, offset, freeze in itertools.product(floats, (0, 1), (False, True)):
        record, state = tensor((16,), torch.int64, offset), tensor((16, 64), dtype)
        number = 2**63 - 1 if offset else tensor((), torch.int64)
        for each in (9, number):
            yield state, plain(state, state, fault=record, freeze=freeze, number=each)
    for dtype, count in itertools.product(floats[::2] + floats[-1:], (1, 3, 6)):
        # The last slot may be of another dtype, and lies elsewhere.
        offset = count % 2
        state, last = tensor((16, 64), dtype), tensor((16, 64), torch.float32, offset)
        terms = tuple(Term(0.5, each) for each in (*[state] * (count - 1), state if count == 1 else last))
        yield state, Update(terms, 0.25, address, 9)
        weights = tensor((5,), torch.float64 if dtype == torch.float64 else torch.float32, offset)
        table = DrawTable(weights, tensor((5,), torch.int64, offset))
        for draws in (table, *(tuple(Draw(0.5, 3 * place) for place in range(size)) for size in (1, 4))):
            yield state, Update(terms, 0.25, address, 9, draws)
            yield state, Update(terms, None, address, 9, draws)
            yield state, Update(terms, 0.25, address, 9, draws, noise=last)
        yield state, Update(terms, 0.25, address, 9, (Draw(1.0, 2**31),), fault=tensor((16,), torch.int64))
        spread = tensor((), weights.dtype).expand(16, 64)
        yield state, Update(tuple(Term(spread, slot) for _, slot in terms), spread, address, 9)
    # As integers these are 0, the smallest above it, 16, and far out.
    for number in (0.0, 5e-324, 8e-323, -1.5):
        yield wide, plain(wide, wide, c=number, a=-number)
    word, words = tensor((), torch.int64), tensor((16,), torch.int64, 1)
    sample = tensor((16,), torch.float32, 1)
    own = {
        "numbers in tensors": {"c": tensor((), torch.float32), "b": tensor((), torch.float32, 1)},
        "each sample": {"a": sample.view(16, 1)},
        "each element": {"a": tensor((16, 64), torch.float32, 1), "b": sample.view(16, 1)},
        "words": {"seed": word, "draw": word},
        "seeds": {"seed": words, "sample_ids": words},
        "noise": {"noise": x},
        "misaligned noise": {"noise": tensor((16, 64), torch.float32, 1)},
        "mask": {"mask": x > 0, "known": x},
    }
    for change in own.values():
        spread = {name: value.expand(16, 64) if name in "cab" else value for name, value in change.items()}
        yield x, plain(x, x, **spread)
    for strided in (x.t().contiguous().t(), tensor((16, 128), torch.float32)[:, ::2]):
        yield strided, plain(strided, x)
        yield x, plain(x, strided)


def harness(path: str) -> Any:
    """A module of the checkout by its path: this file runs as a program too, without pytest's modules."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def launches() -> list[tuple[Any, tuple[int, ...], Arguments, Arguments]]:
    """Kernel, grid, arguments and options of many launches of all kernels."""
    from fastlangevin.kernels.triton import step

    made = []
    for out, update in updates():
        call = step.prepare(out, update)
        made.append((step.step_kernel, call.grid, call.arguments, {"num_warps": call.launch.num_warps}))
    for kernel, call, *_ in harness("tests/gates/variants.py").calls().values():
        made.append((kernel, call.grid, call.arguments, {"num_warps": call.launch.num_warps}))
        for name, value in call.arguments.items():
            # The same with another pointer, with 16 times the size, and without.
            if isinstance(value, torch.Tensor) and value.numel() > 1 and value.is_contiguous():
                moved = torch.zeros(value.numel() + 1, dtype=value.dtype)[1:].view(value.shape)
                made.append((kernel, call.grid, {**call.arguments, name: moved}, {"num_warps": 4}))
            elif type(value) is int and name.islower():
                made.extend(
                    (kernel, call.grid, {**call.arguments, name: other}, {"num_warps": 4}) for other in (1, 48, 2**33)
                )
    return made


def confusions(made: list[Any]) -> dict[str, int]:
    """How the keys of launches stand to Triton's."""
    from fastlangevin.kernels.triton import direct_launch

    ours: dict[Any, Any] = {}
    triton_s: dict[Any, Any] = {}
    confused = 0
    for kernel, _, arguments, options in made:
        binder = kernel.device_caches[0][-1]
        _, specialization, _ = binder(**arguments, **options)
        wanted = id(kernel), tuple(specialization), str(options)
        bound = direct_launch._variants_of(kernel).bind(arguments)
        key = id(kernel), tuple(bound[0]), str(options)
        confused += ours.setdefault(key, wanted) != wanted
        triton_s.setdefault(wanted, key)
    return {
        "kernels": len({id(kernel) for kernel, *_ in made}),
        "calls": len(made),
        "keys": len(ours),
        "variants": len(triton_s),
        "confused": confused,
    }


class Recorder:
    """What reaches the device of a stub driver."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, x: int, y: int, z: int, stream: int, function: int, *rest: Any) -> None:
        _, _, enter, leave, *arguments = rest
        values = [each.data_ptr() if isinstance(each, torch.Tensor) else each for each in arguments]
        self.seen.append((x, y, z, stream, function, id(enter), id(leave), values))

    def of(self, call: Callable[[], object]) -> list[Any]:
        self.seen = []
        call()
        return self.seen


def forget() -> None:
    from fastlangevin.kernels.triton import direct_launch, step

    direct_launch._variants.clear()
    step.shortcut.kept.clear()


def changed(update: Update, generator: random.Random) -> Update:
    """The same with other plain numbers."""
    at, draws = update.address, update.draws
    terms = tuple(Term(generator.random() if type(a) is float else a, slot) for a, slot in update.terms)
    if type(at.seed) is int:
        at = at._replace(seed=generator.getrandbits(64))
    if type(draws) is tuple and draws != (Draw(1.0, draws[0].offset),):
        draws = tuple(Draw(generator.random(), generator.getrandbits(32)) for _ in draws)
    return update._replace(terms=terms, address=at, draws=draws)


def differences(recorder: Recorder, driver: Any, count: int) -> dict[str, int]:
    """Launches by Triton and direct ones, of the same arguments in a mixed order."""
    import triton

    from fastlangevin.kernels.triton import direct_launch, step

    forget()
    generator = random.Random(0)
    sets, bare = list(updates()), launches()[-150:]
    through = 0
    original = triton.runtime.jit.JITFunction.run

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal through
        through += direct_launch._enabled
        return original(self, *arguments, **options)

    triton.runtime.jit.JITFunction.run = counted
    different = 0
    for _ in range(count):
        driver.device = generator.choice((0, 1))
        driver.stream = generator.randrange(100)
        triton.knobs.runtime.debug = generator.random() < 0.2
        if generator.random() < 0.7:
            out, given = generator.choice(sets)
            # Numbers change from call to call, and must reach the kernel.
            given = changed(given, generator)

            def call(out: torch.Tensor = out, given: Update = given) -> None:
                step.step(out, given)
        else:
            kernel, grid, arguments, options = generator.choice(bare)

            def call(
                kernel: Any = kernel, grid: Any = grid, arguments: Any = arguments, options: Any = options
            ) -> None:
                direct_launch.launch(kernel, grid, arguments, **options)

        direct_launch.use_direct_launch(False)
        wanted = recorder.of(call)
        direct_launch.use_direct_launch(True)
        different += recorder.of(call) != wanted
    triton.runtime.jit.JITFunction.run = original
    triton.knobs.runtime.debug = False
    driver.device = 0
    return {"launches": count, "different": different, "through_triton": through}


def with_fault(fault: str) -> Callable[[], None]:
    """Makes a key blind to what a variant hangs on; returns what makes it see again."""
    from fastlangevin.kernels.triton import direct_launch, plain

    kept = direct_launch._Variants.bind, direct_launch._circumstances, plain.update, direct_launch.Shortcut.launch

    def undo() -> None:
        direct_launch._Variants.bind, direct_launch._circumstances, plain.update, direct_launch.Shortcut.launch = kept

    def blind(self: Any, arguments: Arguments) -> Any:
        key, values = kept[0](self, arguments)
        for place, each in enumerate(key):
            if fault == "aligned" and each is True:
                key[place] = False
            if fault == "dtype" and each in (torch.float16, torch.bfloat16):
                key[place] = torch.float32
            if fault == "width" and type(each) is int and each in (32, 64):
                key[place] = 32
            if fault == "none" and each is None:
                key[place] = torch.float32
        if fault == "none":
            # What only a tensor or an integer has in its key goes with it.
            key = [each for each in key if type(each) is not bool]
        return key, values

    def around(kernel: Any) -> Any:
        found = kept[1](kernel)
        return found and (found[:-1] if fault == "device" else (found[0], *found[2:]))

    def plainly(shortcut: Any, out: torch.Tensor, update: Update) -> Any:
        known = kept[2](shortcut, out, update)
        if known is None:
            return None
        (begun, *key), *rest = known
        slots = range(6, 6 + 3 * len(update.terms), 3)
        if fault == "plain aligned":
            for place in (5, *(first + 2 for first in slots)):
                key[place] = None
        if fault == "plain layout":
            sized = [each.numel() if isinstance(each, torch.Size) else each for each in key]
            key = [None if type(each) is tuple else each for each in sized]
        if fault == "plain dtype":
            key = [None if isinstance(each, torch.dtype) else each for each in key]
        if fault == "plain record":
            key[slots.stop] = None
        return (begun, *key), *rest

    def swapped(self: Any, key: Any, *changing: Any) -> Any:
        return kept[3](self, key, changing[1], changing[2], changing[0], *changing[3:])

    if fault == "plain order":
        direct_launch.Shortcut.launch = swapped
    elif fault.startswith("plain"):
        plain.update = plainly
    elif fault in ("device", "debug"):
        direct_launch._circumstances = around
    else:
        direct_launch._Variants.bind = blind
    return undo


def unusual(recorder: Recorder) -> tuple[dict[str, str], dict[str, int]]:
    """What is launched by whom, and whether hooks are called."""
    import triton

    from fastlangevin.kernels.triton import direct_launch, step

    out, update = next(updates())
    call = step.prepare(out, update._replace(address=update.address._replace(sample_offset=3)))
    kernel = step.step_kernel
    found = {}
    original = triton.runtime.jit.JITFunction.run
    asked = []

    def counted(self: Any, *given: Any, **options: Any) -> Any:
        asked.append(0)
        return original(self, *given, **options)

    def by_whom(given: Arguments) -> str:
        direct_launch.launch(kernel, call.grid, given, num_warps=2)
        asked.clear()
        direct_launch.launch(kernel, call.grid, given, num_warps=2)
        return "triton" if asked else "direct"

    triton.runtime.jit.JITFunction.run = counted
    found["usual"] = by_whom(call.arguments)
    found["a bool"] = by_whom({**call.arguments, "purpose": True})
    direct_launch.use_direct_launch(False)
    found["turned off"] = by_whom(call.arguments)
    direct_launch.use_direct_launch(True)
    kernel.add_pre_run_hook(lambda *given, **options: None)
    found["a hook before the binder"] = by_whom(call.arguments)
    kernel.pre_run_hooks.clear()
    version, backend = triton.__version__, triton.runtime.driver.active.get_current_target
    for name in ("another version", "another back end"):
        direct_launch._is_known.cache_clear()
        direct_launch._variants.clear()
        if name == "another version":
            triton.__version__ = "3.10.0"
        else:
            triton.runtime.driver.active.get_current_target = lambda: triton.backends.compiler.GPUTarget("hip", 942, 64)
        found[name] = by_whom(call.arguments)
        triton.__version__, triton.runtime.driver.active.get_current_target = version, backend
    direct_launch._is_known.cache_clear()
    direct_launch._variants.clear()
    hooks = {}
    for name in ("triton", "direct"):
        direct_launch.use_direct_launch(name == "direct")
        by_whom(call.arguments)
        own = object()
        kept, triton.knobs.runtime.launch_enter_hook = triton.knobs.runtime.launch_enter_hook, own
        (seen,) = recorder.of(lambda: direct_launch.launch(kernel, call.grid, call.arguments, num_warps=2))
        hooks[name] = int(seen[5] == id(own))
        triton.knobs.runtime.launch_enter_hook = kept
    triton.runtime.jit.JITFunction.run = original
    return found, hooks


def main(path: str) -> None:
    recorder = Recorder()
    driver = harness("benchmarks/stub_driver.py").install(recorder)
    made = launches()
    result: dict[str, Any] = {**confusions(made), **differences(recorder, driver, 2000), "faults": {}}
    for fault in FAULTS:
        forget()
        undo = with_fault(fault)
        seen = differences(recorder, driver, 600)["different"]
        if fault in ("aligned", "dtype", "width", "none"):
            seen += confusions(made)["confused"]
        result["faults"][fault] = seen
        undo()
    forget()
    result["unusual"], result["hooks"] = unusual(recorder)
    Path(path).write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
