"""What Triton and ptxas make of a kernel, for GPUs that need not be there, read with the tools in Triton's wheel.

Triton must run without its interpreter.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from tests.gates.variants import ARCHITECTURES, Rules, Variant

__all__ = ["digest", "measure", "square_root", "toolchain"]

POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float64: "*fp64",
    torch.int64: "*i64",
    torch.bool: "*i1",
}
# What kernels/triton/ptx.py writes itself; everything else of PTX that is approximate or fused is named in the record.
WRITTEN = {"fma.rn.f32", "rsqrt.approx.ftz.f32"}
# An instruction of a listing: its address, its name, what follows.
INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);", re.MULTILINE)


class _Reached(Exception):  # noqa: N818  # not an error: how a compilation is left once its text is known
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def toolchain() -> dict[str, str]:
    """The versions that machine code depends on."""
    import triton
    from triton._C.libtriton import get_cache_invalidating_env_vars
    from triton.backends.nvidia import compiler

    assemblers = dict.fromkeys(re.findall(r"V[\d.]+", "".join(map(compiler.get_ptxas_version, (80, 100)))))
    found = {"triton": triton.__version__, "ptxas": " ".join(assemblers)}
    settings = get_cache_invalidating_env_vars()
    return {**found, "settings": json.dumps(settings)} if settings else found


def _compile(variant: Variant, architecture: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget

    return triton.compile(
        source(variant.kernel, variant.call.arguments, variant.aligned),
        target=GPUTarget("cuda", architecture, 32),
        options=_options(variant),
    )


def _options(variant: Variant) -> dict[str, Any]:
    return {"num_warps": variant.call.launch.num_warps, "enable_fp_fusion": False, **variant.options}


def digest(variant: Variant, architecture: int = ARCHITECTURES[0]) -> str:
    """A digest of what determines the machine code, but for architecture and versions of the compilers.

    That is the text of Triton's first representation, in which all functions are inlined and no line numbers stand,
    and the options. Kernels do not ask for the architecture, so the text is the same for all of them. All that comes
    after takes more than nine tenths of the compilations.
    """
    import triton

    def hook(*stage: Any) -> tuple[str, str] | None:
        if not stage:
            return "digest", "digest"

        def leave(module: Any, metadata: Any) -> None:
            raise _Reached(module.str_nodebug())

        stage[1]["ttgir"] = leave
        return None

    runtime = triton.knobs.runtime
    kept, runtime.add_stages_inspection_hook = runtime.add_stages_inspection_hook, hook
    try:
        _compile(variant, architecture)
    except _Reached as reached:
        known = [reached.text, sorted(_options(variant).items()), _elements(variant)]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()
    finally:
        runtime.add_stages_inspection_hook = kept
    raise RuntimeError("Triton compiled a kernel without asking for its stages")


def source(kernel: Any, arguments: dict[str, Any], aligned: bool) -> Any:
    """The specialisation that Triton's launcher would choose for these arguments."""
    from triton.compiler import ASTSource

    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for index, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = POINTERS[value.dtype]
            if aligned and not parameter.do_not_specialize_on_alignment:
                attributes[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            loose = parameter.do_not_specialize or parameter.do_not_specialize_on_alignment
            if aligned and value % 16 == 0 and not loose:
                attributes[(index,)] = [["tt.divisibility", 16]]
            signature[parameter.name] = parameter.annotation_type or ("i32" if -(2**31) <= value < 2**31 else "i64")
    return ASTSource(kernel, signature, constants, attributes)


def listing(cubin: bytes) -> str:
    """Machine code as text, and what ptxas says of registers, stack and the like."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return subprocess.run([tool, "-sass", "-res-usage", path], capture_output=True, text=True, check=True).stdout


def fused(text: str) -> Counter[str]:
    """The fused operations in PTX, or in the texts of kernels/triton/ptx.py; unnamed operands are left open."""
    return Counter(re.sub(r"\$\d|%\w+", "%", line) for line in re.findall(r"fma\.[^;]*", text))


def width(access: str) -> int:
    """The bits of a global access, by the name of its instruction."""
    found = re.search(r"\.[US]?(8|16|64|128)\b", access)
    return int(found[1]) if found else 32


def loop(code: list[tuple[str, str, str]], depth: int) -> int:
    """The instructions of the loop that ``depth`` others are around, loops inside it counted once."""
    spans = []
    for address, name, rest in code:
        target = re.search(r"0x([0-9a-f]+)", rest)
        if name.startswith("BRA") and target and int(target[1], 16) < int(address, 16):
            spans.append((int(target[1], 16), int(address, 16)))
    sizes = sorted((sum(first <= int(address, 16) <= last for address, *_ in code) for first, last in spans))
    return sizes[-1 - depth]


def _elements(variant: Variant) -> int:
    """Elements of a thread."""
    launch = variant.call.launch
    return launch.width * launch.groups // (32 * launch.num_warps)


def bytes_of(variant: Variant) -> int:
    """Bytes that the launch moves for each element: of its operands of the largest size."""
    operands = [each for each in variant.call.arguments.values() if isinstance(each, torch.Tensor)]
    size = max(each.numel() for each in operands)
    whole = [each for each in operands if each.numel() == size and 0 not in each.stride()]
    return variant.accesses * sum(each.element_size() for each in whole)


def _stream_s(assembly: str) -> dict[str, Any]:
    """What the stream asks of PTX: its square roots, and what is fused or approximate beside those as written."""
    from fastlangevin.kernels.triton import ptx

    # Fused is what kernels/triton/ptx.py fuses, four times for a pair of normals and its root.
    roots = len(re.findall(r"rsqrt\.approx\.ftz\.f32 ", assembly))
    written = fused(ptx.MULTIPLY_ADD.value + ptx.ADD_EXPONENT.value + ptx.SQUARE_ROOT.value)
    wanted = Counter({line: roots * number for line, number in written.items()})
    found = fused(assembly)
    operations = re.findall(r"\b(?:fma|mad|sqrt|rsqrt|sin|cos|lg2|ex2|rcp|div)\.[\w.]*f\d\d(?:x2)?\b", assembly)
    return {
        "roots": roots,
        "fused_per_root": written.total() if roots else 0,
        "special": sorted(set(operations) - WRITTEN),
        "unwritten": sorted((found - wanted) + (wanted - found)),
    }


def measure(variant: Variant, architecture: int, rules: Rules) -> dict[str, Any]:
    """Compiles one variant.

    Returns:
        ``figures``, which have budgets, and ``code``, what the rules ask of; of the latter only what is not zero.
    """
    compiled = _compile(variant, architecture)
    text, assembly = listing(compiled.asm["cubin"]), compiled.asm["ptx"]
    usage = {name: int(value) for name, value in re.findall(r"([A-Z]+):(\d+)", re.search(r"REG:.*", text)[0])}
    instructions = [each for each in INSTRUCTION.findall(text) if each[1] != "NOP"]
    counts = Counter(name for _, name, _ in instructions)

    def total(pattern: str) -> int:
        return sum(number for name, number in counts.items() if re.match(pattern, name))

    accesses: Counter[int] = Counter()
    for name, number in counts.items():
        if re.match(r"(LDG|STG)", name):
            accesses[width(name)] += number
    code: dict[str, Any] = {
        "local": total(r"(LDL|STL)\b"),
        "exchanges": total(r"(LDS|STS|LDSM|BAR)\b"),
        "accesses": {str(bits): accesses[bits] for bits in sorted(accesses)},
    }
    if rules.is_stream or rules.matmul:
        code["contractible"] = len(re.findall(r"\b(?:add|sub|mul)\.(?!rn)(?:ftz\.)?f\d\d(?:x2)?\b", assembly))
        code["ffma"] = total("FFMA")
    if rules.matmul:
        code["units"] = total(r"(HMMA|HGMMA|UTC\w*MMA)\b")
    if rules.is_stream:
        code |= _stream_s(assembly)
        code |= {"rsq": counts["MUFU.RSQ"], "dfma": total("DFMA")}
    figures: dict[str, float] = {
        "registers": usage["REG"],
        "spills": usage["STACK"] + usage.get("LOCAL", 0),
        "shared": int(compiled.metadata.shared),
        "narrow": sum(number for bits, number in accesses.items() if bits < rules.vectors),
        "instructions": len(instructions) / (_elements(variant) if rules.is_elementwise else 1),
    }
    if rules.loop is not None:
        figures["update"] = loop(instructions, rules.loop)
    return {"figures": figures, "code": {name: value for name, value in code.items() if value}}


def square_root(own: bool, architecture: int) -> str:
    """What the compiler makes of a square root, the kernels' or its own, but for the call for rare arguments."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fastlangevin.kernels.triton import ptx

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
