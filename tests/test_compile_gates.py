"""What the compiler makes of the Triton kernels, for GPUs that need not be there.

Every variant that matters is compiled to machine code for each architecture and disassembled with the tools in
Triton's wheel. Checked are what would break the stream (contracted or approximate arithmetic) and what would cost its
speed (spills, local and shared memory, narrow accesses, instructions and registers over the budgets that stand beside
the kernels). Compilation needs Triton without its interpreter, so it is done in a process of its own: this file, run
as a script.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = (80, 90, 100)
PARTS = 2  # processes that compile
STATES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}
# The kernels of the objective: with the levels drawn or given; with what is wanted, or from the clean data.
OBJECTIVE = ("perturb_levels", "perturb_given", "dsm_both", "dsm_values", "dsm_gradient", "dsm_clean", "norms")
FAST = [f"{kind}-{name}" for kind in ("step", "watched", "randn", "rand", *OBJECTIVE) for name in STATES]
# InstanceNorm++ ("added": of a sum) and GroupNorm, whose first kernel is the same, in either memory format: their
# arithmetic is nobody's stream and may be contracted.
NORM = ("statistics", "apply", "added", "sums", "gradient")
KINDS = (*(f"norm_{kind}" for kind in NORM), "group_apply", "group_sums", "group_gradient")
NORMS = [f"{kind}{last}-{name}" for kind in KINDS for last in ("", "_last") for name in ("fp32", "bf16", "fp64")]
NORMS += [f"elu-{name}" for name in ("fp32", "bf16", "fp64")]
# Correct and free of spills, but without a budget: their cost hangs on what they are given.
OTHERS = ["step-autocast", "step-tensors", "step-inpainting", "step-known-noise", "step-strided", "randn-strided"]
OTHERS += ["perturb-short", "perturb-strided", "dsm-short", "dsm-known-noise", "dsm-strided"]
OTHERS += ["norms-strided", "roots-fp32", "values-fp64", "levels-fp64", "watched-freezing", "watched-strided"]
# Chains of a perceptron: how its matrices are multiplied, its width, depth and features. The largest of each that is
# taken, and the usual one.
CHAINS = ["chain-fp32-64-2-2", "chain-fp32-64-4-32", "chain-fp32-128-3-16", "chain-tf32-128-2-16", "chain-bf16-64-4-32"]
CHAINS += ["chain-bf16-128-4-16", "chain-tf32-64-2-2"]
CONTROLS = ["control-contracted", "control-spills", "control-library", "control-misaligned", "control-scattered"]


def calls() -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """Kernel, launch and compiler options for every variant: the launches are those that the launchers make."""
    from fastlangevin.kernels import randn, step

    address: dict[str, Any] = {"seed": 1, "draw": 2, "sample_ids": None, "sample_offset": 0, "purpose": 1}
    plain: dict[str, Any] = {"c": 1.0, "a": 0.5, "b": 0.5, "noise": None, "mask": None, "known": None, **address}
    made: dict[str, tuple[Any, Any, dict[str, Any]]] = {}

    def add_step(name: str, x: torch.Tensor, score: torch.Tensor | None = None, **changes: Any) -> None:
        call = step.prepare(x, x, x if score is None else score, **{**plain, **changes})
        made[name] = step.step_kernel, call, {}

    for name, dtype in STATES.items():
        x = torch.zeros(4, 3, 64, 64, dtype=dtype)
        add_step(f"step-{name}", x)
        add_step(f"watched-{name}", x, fault=torch.zeros(4, dtype=torch.int64))
        made[f"randn-{name}"] = randn.randn_kernel, randn.prepare(x, uniform=False, **address), {}
        made[f"rand-{name}"] = randn.randn_kernel, randn.prepare(x, uniform=True, **address), {}

    x = torch.zeros(4, 3, 64, 64)
    add_step("step-autocast", x, x.bfloat16())
    sample, whole = torch.zeros(4, dtype=torch.int64), torch.zeros((), dtype=torch.int64)
    scale = torch.ones(4, 1, 1, 1).expand_as(x)
    add_step("step-tensors", x, c=torch.ones(()).expand_as(x), a=scale, b=x, seed=sample, draw=whole, sample_ids=sample)
    add_step("watched-freezing", x, fault=sample, freeze=True, mask=x.bool(), known=x)
    add_step("watched-strided", x.contiguous(memory_format=torch.channels_last), x, fault=sample)
    add_step("step-inpainting", x, mask=x.bool(), known=x)
    add_step("step-known-noise", x, noise=x)
    add_step("step-strided", x.contiguous(memory_format=torch.channels_last), x)
    made["randn-strided"] = randn.randn_kernel, randn.prepare(x.transpose(1, 2), uniform=False, **address), {}

    made.update(objective_calls())
    made.update(norm_calls())
    made.update(chain_calls())
    kernel, call, _ = made["step-fp32"]
    made["control-contracted"] = kernel, call, {"enable_fp_fusion": True}
    made["control-spills"] = kernel, call, {"maxnreg": 32}
    made["control-misaligned"] = kernel, call, {"aligned": False}
    kernel, call, _ = made["dsm_both-bf16"]
    made["control-scattered"] = kernel, call, {"aligned": False}
    return made


def objective_calls() -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """As :func:`calls`, for the kernels of the denoising objective."""
    from fastlangevin.kernels import dsm, norms, perturb, sums

    made: dict[str, tuple[Any, Any, dict[str, Any]]] = {}
    address: dict[str, Any] = {"seed": 1, "draw": 2, "sample_ids": None, "sample_offset": 0, "purpose": 1}
    labels = torch.zeros(4, dtype=torch.int64)

    def add(name: str, x: torch.Tensor, segment: int, noise: torch.Tensor | None = None) -> None:
        """Every variant of an operand's dtype and layout."""
        compute = torch.float64 if x.dtype == torch.float64 else torch.float32
        table, partial = torch.zeros(10, dtype=compute), torch.zeros(4, 12, dtype=compute)
        for kind, drawn in (("levels", True), ("given", False)):
            call = perturb.prepare(
                x, x, sigmas=table, labels=labels, draws_labels=drawn, level_purpose=2, noise=noise, **address
            )
            made[f"perturb_{kind}-{name}"] = perturb.perturb_kernel, call, {}
        for kind, gradient, into, clean in (
            ("both", x, partial, None),
            ("values", None, partial, None),
            ("gradient", x, None, None),
            ("clean", x, partial, x),
        ):
            tables = {"scale": table, "slope": table, "upstream": table[0]}
            operands = {"labels": labels, "clean": clean, "noise": noise, "segment": segment}
            call = dsm.prepare(gradient, into, x, **tables, **operands, **address)
            made[f"dsm_{kind}-{name}"] = dsm.dsm_kernel, call, {}
        result, scratch = torch.zeros(2, 4, dtype=compute), torch.zeros(2, 4, 12, dtype=compute)
        wanted = {"of_x": True, "of_noise": True, "noise": noise, "segment": segment}
        first, second = norms.prepare(result, scratch, x, **wanted, **address)
        made[f"norms-{name}"], made[f"roots-{name}"] = (norms.norms_kernel, first, {}), (norms.roots_kernel, second, {})

    for name, dtype in STATES.items():
        add(name, torch.zeros(4, 3, 64, 64, dtype=dtype), 1024)
    x = torch.zeros(4, 3, 64, 64)
    for name, state, segment, noise in (
        ("short", torch.zeros(4, 784), 128, None),
        ("known-noise", x, 1024, x),
        ("strided", x.contiguous(memory_format=torch.channels_last), 1024, None),
    ):
        add(name, state, segment, noise)
        made[f"perturb-{name}"], made[f"dsm-{name}"] = made[f"perturb_levels-{name}"], made[f"dsm_both-{name}"]
    result = torch.zeros(4, dtype=torch.float64)
    tables = {"partial": result.new_zeros(4, 300), "labels": labels, "weight": result}
    both = sums.prepare(result, result, labels, result[0], **tables)
    made["values-fp64"] = sums.values_kernel, both[0], {}
    made["levels-fp64"] = sums.levels_kernel, both[1], {}
    return made


def norm_calls() -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """As :func:`calls`, for the kernels of InstanceNorm++, of GroupNorm in groups of 4, and of ELU."""
    from fastlangevin.kernels import add_elu, group_norm, group_norm_backward, instance_norm, instance_norm_backward

    kernels = (
        instance_norm.statistics_kernel,
        instance_norm.apply_kernel,
        instance_norm.statistics_kernel,
        instance_norm_backward.sums_kernel,
        instance_norm_backward.gradient_kernel,
        group_norm.apply_kernel,
        group_norm_backward.sums_kernel,
        group_norm_backward.gradient_kernel,
    )
    made = {}
    for name in ("fp32", "bf16", "fp64"):
        for last, memory_format in (("", torch.contiguous_format), ("_last", torch.channels_last)):
            x = torch.zeros(4, 128, 32, 32, dtype=STATES[name]).contiguous(memory_format=memory_format)
            rows = torch.zeros(4, 128, dtype=torch.float64 if name == "fp64" else torch.float32)
            found = instance_norm.prepare(x, x, None, None, *[rows] * 5, activation=True)
            added = instance_norm.prepare(x, x, x, x, *[rows] * 5, activation=True)[:1]
            back = instance_norm_backward.prepare(x, *[rows] * 3, x, x, *[rows] * 5, activation=True)
            weight, statistics = rows[0], rows[:, :32].contiguous()
            own = weight, weight, statistics, statistics
            grouped = group_norm.prepare(x, x, *own, groups=32, eps=1e-5, activation=True)[1:]
            grouped += group_norm_backward.prepare(x, rows, rows, x, x, *own, groups=32, activation=True)
            for kind, kernel, call in zip(KINDS, kernels, found + added + back + grouped, strict=True):
                made[f"{kind}{last}-{name}"] = kernel, call, {"enable_fp_fusion": True}
        made[f"elu-{name}"] = add_elu.add_elu_kernel, add_elu.prepare(x, x, [x, x]), {"enable_fp_fusion": True}
    return made


def chain_calls() -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """As :func:`calls`, for the chains of a perceptron."""
    from fastlangevin.kernels import chain_mlp

    made = {}
    for variant in CHAINS:
        matmul, *sizes = variant.split("-")[1:]
        width, depth, features = map(int, sizes)
        weights = [
            torch.zeros(width, features),
            *[torch.zeros(width, width)] * (depth - 1),
            torch.zeros(features, width),
        ]
        tables = torch.zeros(10, depth, width), torch.zeros(features), torch.zeros(10, 3)
        moves = {"levels": torch.zeros(8, dtype=torch.int64), "coefficients": torch.zeros(8, 3)}
        call = chain_mlp.prepare(
            torch.zeros(256, features),
            weights,
            *tables,
            mean=0.5,
            activation="silu",
            **moves,
            noisy=torch.zeros(8, dtype=torch.bool),
            every=3,
            frames=torch.zeros(2, 256, features),
            matmul=matmul,
            **{"seed": 1, "draw": 2, "sample_ids": None, "sample_offset": 0, "purpose": 1},
        )
        # The registers that the launcher asks for on a device; here it stands before the interpreter.
        options = {**chain_mlp.options(call.launch), "maxnreg": min(255, 65536 // (32 * call.launch.num_warps))}
        made[variant] = chain_mlp.chain_kernel, call, options
    return made


def source(kernel: Any, arguments: dict[str, Any], aligned: bool) -> Any:
    """The specialisation that Triton's launcher would choose for these arguments."""
    from triton.compiler import ASTSource

    pointers = {
        torch.float32: "*fp32",
        torch.float16: "*fp16",
        torch.bfloat16: "*bf16",
        torch.float64: "*fp64",
        torch.int64: "*i64",
        torch.bool: "*i1",
    }
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for index, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = pointers[value.dtype]
            if aligned and not parameter.do_not_specialize_on_alignment:
                attributes[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = parameter.annotation_type or ("i32" if -(2**31) <= value < 2**31 else "i64")
    return ASTSource(kernel, signature, constants, attributes)


def listing(cubin: bytes, option: str = "-sass") -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return subprocess.run([tool, option, path], capture_output=True, text=True, check=True).stdout


def disassemble(cubin: bytes) -> tuple[Counter[str], dict[str, int]]:
    """How often each machine instruction stands in the code, and what ptxas says of registers, stack and the like."""
    text, usage = listing(cubin), listing(cubin, "-res-usage")
    found = re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", text, re.MULTILINE)
    return Counter(op for op in found if op != "NOP"), {k: int(v) for k, v in re.findall(r"\b([A-Z]+):(\d+)", usage)}


def fused(text: str) -> Counter[str]:
    """The fused operations in PTX, or in the texts of kernels/ptx.py, their operands that are not named left open."""
    return Counter(re.sub(r"\$\d|%\w+", "%", line) for line in re.findall(r"fma\.[^;]*", text))


def square_root(own: bool, architecture: int) -> str:
    """What the compiler makes of a square root, the kernels' or its own, but for the call for rare arguments."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fastlangevin.kernels import ptx

    root = ptx.square_root

    @triton.jit
    def root_kernel(x_ptr, OWN: tl.constexpr):
        ptrs = x_ptr + tl.arange(0, 32)
        x = tl.load(ptrs)
        tl.store(ptrs, root(x) if OWN else tl.sqrt_rn(x))

    described = ASTSource(root_kernel, {"x_ptr": "*fp32", "OWN": "constexpr"}, {"OWN": own})
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(described, target=target, options={"num_warps": 1, "enable_fp_fusion": False})
    known: dict[str, str] = {}
    result = ""

    def term(text: str) -> str:
        name = text.removesuffix(".reuse").lstrip("-")
        return ("-" if text.startswith("-") else "") + known.get(name, "x" if name.startswith("R") else name)

    code = listing(compiled.asm["cubin"]).partition("EXIT")[0]
    for operation, to, rest in re.findall(r"\*/\s+(MUFU|FMUL|FFMA)\S* (R\d+), ([^;]*) ;", code):
        first, *others = map(term, rest.split(", "))
        if operation == "MUFU":
            result = f"rsq({first})"
        else:
            # The sign of a product may stand at either factor.
            negative = first.startswith("-") != others[0].startswith("-")
            result = "-" * negative + "*".join(sorted(each.removeprefix("-") for each in (first, others[0])))
            result = f"({' + '.join([result, *others[1:]])})"
        known[to] = result
    return result


def measure(kernel: Any, call: Any, architecture: int, aligned: bool = True, **options: Any) -> dict[str, Any]:
    """Compile one variant and say what came out."""
    import triton
    from triton.backends.compiler import GPUTarget

    compiled = triton.compile(
        source(kernel, call.arguments, aligned),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": call.launch.num_warps, "enable_fp_fusion": False, **options},
    )
    ptx = compiled.asm["ptx"]
    counts, usage = disassemble(compiled.asm["cubin"])
    elements = call.launch.width * call.launch.groups // (32 * call.launch.num_warps)
    return {
        "counts": dict(counts),
        "elements": elements,
        "instructions": sum(counts.values()) / elements,
        "registers": usage["REG"],
        "stack": usage["STACK"],
        "local": usage.get("LOCAL", 0),
        "shared": int(compiled.metadata.shared),
        "special": sorted(
            set(re.findall(r"\b(?:fma|mad|sqrt|rsqrt|sin|cos|lg2|ex2|rcp|div)\.[\w.]*f\d\d(?:x2)?\b", ptx))
        ),
        "fused": fused(ptx),
        "roots": len(re.findall(r"rsqrt\.approx\.ftz\.f32 ", ptx)),
        "contractible": len(re.findall(r"\b(?:add|sub|mul)\.(?!rn)(?:ftz\.)?f\d\d(?:x2)?\b", ptx)),
    }


def library_call(call: Any) -> Any:
    """A kernel with Triton's own normals, which bring a stack, and the launch to compile it for."""
    import triton
    import triton.language as tl

    @triton.jit
    def library_kernel(out_ptr, seed, N: tl.constexpr):
        offs = tl.program_id(0) * N + tl.arange(0, N)
        tl.store(out_ptr + offs, tl.randn(seed, offs))

    arguments = {"out_ptr": call.arguments["out_ptr"], "seed": 1, "N": call.launch.width * call.launch.groups}
    return library_kernel, call._replace(arguments=arguments)


def faults(
    result: dict[str, Any], vectors: int = 128, narrow: int = 0, shared: int = 0, is_stream: bool = True
) -> list[str]:
    """What is wrong with a compiled kernel, whatever its budget.

    Allowed are ``shared`` bytes of shared memory and, beside accesses of ``vectors`` bits, ``narrow`` others; where the
    bits are not the stream's, any arithmetic.
    """
    from fastlangevin.kernels import ptx

    counts = Counter(result["counts"])

    def total(pattern: str) -> int:
        return sum(number for name, number in counts.items() if re.match(pattern, name))

    found = []
    if result["stack"] or result["local"]:
        found.append(f"stack of {result['stack']} bytes, local memory of {result['local']}")
    if total(r"(LDL|STL)\b"):
        found.append(f"{total(r'(LDL|STL)')} accesses to local memory: spills")
    if result["shared"] > shared or (not shared and total(r"(LDS|STS|LDSM|BAR)\b")):
        found.append(f"shared memory of {result['shared']} bytes")
    approximate = set(result["special"]) - {"fma.rn.f32", "rsqrt.approx.ftz.f32"}
    if is_stream and approximate:
        found.append(f"arithmetic that is not the stream's: {sorted(approximate)}")
    if is_stream and result["contractible"]:
        found.append(f"{result['contractible']} operations that the assembler may contract")
    # Fused is what kernels/ptx.py fuses, four times for a pair of normals and its root; approximate is what each root
    # begins with. The machine code has as many as the PTX: nothing was contracted, and nothing done twice.
    roots = result["roots"]
    written = fused(ptx.MULTIPLY_ADD.value + ptx.ADD_EXPONENT.value + ptx.SQUARE_ROOT.value)
    if is_stream and Counter(result["fused"]) != Counter({line: roots * number for line, number in written.items()}):
        found.append(f"fused operations for {roots} square roots: {result['fused']}")
    if is_stream and (counts["MUFU.RSQ"] != roots or total(r"FFMA") != roots * written.total() or total(r"DFMA")):
        found.append(f"{total(r'FFMA')} FFMA and {total(r'DFMA')} DFMA for {roots} square roots")
    if vectors:
        accesses = {name: number for name, number in counts.items() if re.match(r"(LDG|STG)", name)}
        others = {name: number for name, number in accesses.items() if f".{vectors}" not in name}
        if sum(others.values()) > narrow or len(others) == len(accesses):
            found.append(f"accesses narrower than {vectors // 8} bytes: {others}")
    return found


def allowances(variant: str) -> dict[str, int]:
    """What :func:`faults` allows a variant of the fast path.

    A program's row brings at most a label, three numbers of its level and a sum, each of one access; its sums are
    exchanged once between the two warps, one number a thread. Four 16-bit elements make 8 bytes.
    """
    kind, name = variant.split("-")
    if kind.startswith(("norm_", "group")):
        # The numbers of the channels, by tile and of the whole sample: measured, and fewer than the tile would bring
        # besides were it scattered. They change layout through shared memory, 16 KiB of it on sm_80.
        own = {"statistics": 2, "added": 2, "apply": 26, "sums": 43, "gradient": 59}[kind.split("_")[1]]
        return {"narrow": own, "shared": 16384, "is_stream": False}
    if kind == "elu":
        return {"is_stream": False}
    if kind.startswith("perturb"):
        return {"narrow": 2}
    if kind.startswith(("dsm", "norms")):
        return {"vectors": 64 if name in ("fp16", "bf16") else 128, "narrow": 5, "shared": 512}
    return {}


def budget_of(variant: str) -> tuple[float, int]:
    """Instructions an element and registers a thread."""
    from fastlangevin.kernels import (
        add_elu,
        dsm,
        group_norm,
        group_norm_backward,
        instance_norm,
        instance_norm_backward,
        norms,
        perturb,
        randn,
        step,
    )

    kind, name = variant.split("-")
    if kind == "step":
        return step.INSTRUCTION_BUDGET[STATES[name]], step.REGISTER_BUDGET[STATES[name]]
    if kind == "watched":
        return step.WATCHED_INSTRUCTION_BUDGET[STATES[name]], step.WATCHED_REGISTER_BUDGET
    if kind == "elu":
        return add_elu.INSTRUCTION_BUDGET[STATES[name]], add_elu.REGISTER_BUDGET[STATES[name]]
    family, _, wanted = kind.partition("_")
    if family in ("norm", "group"):
        wanted = wanted.removesuffix("_last")
        forward, backward = (
            (instance_norm, instance_norm_backward) if family == "norm" else (group_norm, group_norm_backward)
        )
        module = forward if wanted in forward.INSTRUCTION_BUDGET else backward
        registers = instance_norm.REGISTER_BUDGET_ADDED if wanted == "added" else module.REGISTER_BUDGET
        return module.INSTRUCTION_BUDGET[wanted][STATES[name]], registers[STATES[name]]
    if family == "norms":
        return norms.INSTRUCTION_BUDGET[STATES[name]], norms.REGISTER_BUDGET[STATES[name]]
    if family == "perturb":
        return perturb.INSTRUCTION_BUDGET[wanted][STATES[name]], perturb.REGISTER_BUDGET
    if family == "dsm":
        return dsm.INSTRUCTION_BUDGET[wanted][STATES[name]], dsm.REGISTER_BUDGET[STATES[name]]
    return randn.INSTRUCTION_BUDGET[kind == "rand"][STATES[name]], randn.REGISTER_BUDGET


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("compiled")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRITON_")}
    environment["TRITON_CACHE_DIR"] = str(folder / "cache")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    path = folder / "results.json"
    done = subprocess.run([sys.executable, __file__, path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return read


@pytest.fixture(scope="module", autouse=True)
def table(results: dict[str, dict[str, Any]], pytestconfig: pytest.Config) -> None:
    """Print what was measured beside its budget."""
    lines = [f"{'':<18}{'instructions/element, budget':<32}{'registers, budget':<22}elements/thread"]
    for architecture in ARCHITECTURES:
        for variant in (*FAST, *NORMS, *OTHERS):
            result = results[f"{variant}-{architecture}"]
            instructions, registers = budget_of(variant) if variant not in OTHERS else ("-", "-")
            lines.append(
                f"sm_{architecture:<5}{variant:<22}{result['instructions']:>8.1f} {instructions:>6} "
                f"{result['registers']:>10} {registers:>6} {result['elements']:>10}"
            )
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n" + "\n".join(lines))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("variant", [*FAST, *NORMS])
def test_fast_path(variant: str, architecture: int, results: dict[str, dict[str, Any]], record_property: Any) -> None:
    result = results[f"{variant}-{architecture}"]
    instructions, registers = budget_of(variant)
    record_property("instructions_per_element", result["instructions"])
    record_property("instruction_budget", instructions)
    record_property("registers", result["registers"])
    record_property("register_budget", registers)
    assert not faults(result, **allowances(variant))
    assert result["instructions"] <= instructions
    assert result["registers"] <= registers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("variant", OTHERS)
def test_other_paths(variant: str, architecture: int, results: dict[str, dict[str, Any]]) -> None:
    # Triton 3.7 gathers strided accesses through 2 KiB of shared memory where 3.6 uses none: no harm to a path that is
    # bound by its scattered accesses.
    sums = re.match("dsm|norms|roots|values|levels", variant)
    shared = 4096 if variant.endswith("strided") or sums else 0
    result = results[f"{variant}-{architecture}"]
    # A norm's root is of any number, so it is the compiler's own, rare cases included: nothing else may be fused.
    whole_root = variant.startswith("roots")
    if whole_root:
        assert result["special"] == ["sqrt.rn.f32"]
        assert not result["contractible"]
    assert not faults(result, vectors=0, shared=shared, is_stream=not whole_root)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("variant", CHAINS)
def test_chains(variant: str, architecture: int, results: dict[str, dict[str, Any]]) -> None:
    from fastlangevin.kernels import chain_mlp

    result = results[f"{variant}-{architecture}"]
    matmul, width = variant.split("-")[1], int(variant.split("-")[2])
    shared = chain_mlp.SHARED_BUDGET[width][matmul]
    assert not faults(result, vectors=0, shared=shared, is_stream=False)
    assert faults(result, vectors=0, shared=result["shared"] - 1, is_stream=False)
    assert result["registers"] <= chain_mlp.REGISTER_BUDGET[width][matmul]
    # Noise and update are the stream's; with matrix units only the square roots are left to fuse anything.
    assert not result["contractible"]
    counts = Counter(result["counts"])
    fused, units = (
        sum(number for name, number in counts.items() if re.match(pattern, name))
        for pattern in ("FFMA", r"(HMMA|HGMMA|UTC\w*MMA)\b")
    )
    assert (units == 0) == (matmul == "fp32")
    assert (fused > 100) == (matmul == "fp32")


@pytest.mark.parametrize(
    ("variant", "fault"),
    [
        ("control-contracted", "contract|FFMA"),
        ("control-spills", "spills"),
        ("control-library", "stack"),
        ("control-misaligned", "narrower"),
        ("control-scattered", "narrower"),
    ],
)
def test_the_gate_closes(variant: str, fault: str, results: dict[str, dict[str, Any]]) -> None:
    allowed = allowances("dsm_both-bf16") if variant == "control-scattered" else {}
    found = " ".join(faults(results[f"{variant}-90"], **allowed))
    assert re.search(fault, found), found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_square_root_is_the_compilers_own(architecture: int, results: dict[str, Any]) -> None:
    """As far as IEEE's sqrt.rn is rounded to nearest, so is the one without its rare cases."""
    root = "(rsq(x)*x)"
    assert results[f"root-own-{architecture}"] == f"((-{root}*{root} + x)*(0.5*rsq(x)) + {root})"
    assert results[f"root-ptxas-{architecture}"] == results[f"root-own-{architecture}"]


def part_of_variants(part: int) -> dict[str, Any]:
    """Every ``PARTS``-th variant compiled and measured, for each architecture."""
    made = calls()
    return {
        f"{variant}-{architecture}": measure(kernel, call, architecture, **options)
        for variant in (*FAST, *NORMS, *OTHERS, *CHAINS)[part::PARTS]
        for kernel, call, options in (made[variant],)
        for architecture in ARCHITECTURES
    }


def main(path: str) -> None:
    # Two minutes and a half of one core's time, most of it in the assembler and the disassembler.
    with ProcessPoolExecutor(PARTS, mp_context=multiprocessing.get_context("spawn")) as pool:
        measured: dict[str, Any] = {}
        for found in pool.map(part_of_variants, range(PARTS)):
            measured |= found
    made = calls()
    made["control-library"] = (*library_call(made["randn-fp32"][1]), {})
    for variant in CONTROLS:
        kernel, call, options = made[variant]
        measured[f"{variant}-90"] = measure(kernel, call, 90, **options)
    for architecture in ARCHITECTURES:
        for name, own in (("own", True), ("ptxas", False)):
            measured[f"root-{name}-{architecture}"] = square_root(own, architecture)
    Path(path).write_text(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1])
