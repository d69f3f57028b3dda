"""The variants of the Triton kernels that the compile gates know: launches as the launchers make them, and rules.

Nothing is compiled here. :func:`calls` needs Triton without its interpreter; the names and the rules need no Triton.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from fastlangevin.kernels.address import MAX_DRAWS, Address, Draw, DrawTable, Term, Update
from fastlangevin.kernels.operands import (
    ChainNetwork,
    ChainUpdates,
    GroupNorm,
    GroupNormGradients,
    InstanceNorm,
    InstanceNormGradients,
    Objective,
    Perturbation,
    Run,
    SampleNorms,
    Segment,
    Statistics,
    Sums,
    Tables,
)

__all__ = ["ARCHITECTURES", "CONTROLS", "VARIANTS", "Rules", "Variant", "calls", "controls", "rules"]

ARCHITECTURES = (80, 90, 100)
STATES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}
# The kernels of the objective: with the levels drawn or given; with what is wanted, or from the clean data.
OBJECTIVE = ("perturb_levels", "perturb_given", "dsm_both", "dsm_values", "dsm_gradient", "dsm_clean", "norms")
FAST = [f"{kind}-{name}" for kind in ("step", "watched", "randn", "rand", *OBJECTIVE) for name in STATES]
# Moves of several terms, of draws that are arguments and of a table of draws; fp32 where no other state is named.
FAST += ["move-terms3", "move-terms6", "move-draws4", "move-draws4-bf16", "move-draws4-fp64"]
FAST += ["move-table", "move-table6", "move-table6-bf16", "move-table6-fp64"]
# InstanceNorm++ ("added": of a sum) and GroupNorm, whose first kernel is the same, in either memory format: their
# arithmetic is nobody's stream and may be contracted.
NORM = ("statistics", "apply", "added", "sums", "gradient")
KINDS = (*(f"norm_{kind}" for kind in NORM), "group_apply", "group_sums", "group_gradient")
NORMS = [f"{kind}{last}-{name}" for kind in KINDS for last in ("", "_last") for name in ("fp32", "bf16", "fp64")]
NORMS += [f"elu-{name}" for name in ("fp32", "bf16", "fp64")]
RESCALES = [f"rescale-{name}" for name in STATES]
# Whatever width their accesses have: it hangs on what they are given. "all6" is six terms with all that an update
# may have; it and "deep" layouts take the most registers.
OTHERS = ["step-autocast", "step-tensors", "step-inpainting", "step-known-noise", "step-strided", "randn-strided"]
OTHERS += ["perturb-short", "perturb-strided", "dsm-short", "dsm-known-noise", "dsm-strided"]
OTHERS += ["norms-strided", "roots-fp32", "values-fp64", "levels-fp64", "watched-freezing", "watched-strided"]
OTHERS += ["move-elements6", "move-strided3", "move-strided6", "move-all6", "move-deep2", "move-deep6"]
OTHERS += ["move-deep-all6"]
OTHERS += [f"move-all6-table-{name}" for name in STATES]
# Chains of a perceptron: how its matrices are multiplied, its width, depth and features. The largest of each that is
# taken, and the usual one.
MLPS = ["mlp-fp32-64-2-2", "mlp-fp32-64-4-32", "mlp-fp32-128-3-16", "mlp-tf32-128-2-16", "mlp-bf16-64-4-32"]
MLPS += ["mlp-bf16-128-4-16", "mlp-tf32-64-2-2"]
# Chains of a mixture: features, and whether its components are diagonal. Then one that keeps frames, two second
# launches, and scores alone.
CHAINS = {
    f"mixture-{features}-{'diagonal' if diagonal else 'isotropic'}": (features, diagonal)
    for features in (1, 2, 3, 4, 8, 16, 64)
    for diagonal in (False, True)
}
SCORES = {f"score-{features}": features for features in (2, 16)}
SECONDS = {"mixture-second-2": "mixture-2-isotropic", "mixture-second-64": "mixture-64-diagonal"}
MIXTURES = [*CHAINS, "mixture-frames", *SECONDS, *SCORES]
VARIANTS = [*FAST, *NORMS, *RESCALES, *OTHERS, *MLPS, *MIXTURES]
# What the gates must refuse, compiled for sm_90, and the variant whose rules and budget it breaks.
CONTROLS = {
    "contracted": "step-fp32",
    "spills": "step-fp32",
    "library": "randn-fp32",
    "misaligned": "step-fp32",
    "scattered": "dsm_both-bf16",
    "chain contracted": "mixture-2-isotropic",
    "chain spills": "mixture-2-isotropic",
}
ADDRESS = Address(1, 2, None, 0, 1)


class Variant(NamedTuple):
    """A kernel, its launch and the compiler's options.

    Attributes:
        kernel, call, options: these.
        aligned: whether pointers and sizes are multiples of 16 bytes and of 16.
        accesses: how often each element of an operand is read or written.
    """

    kernel: Any
    call: Any
    options: dict[str, Any]
    aligned: bool = True
    accesses: int = 1


class Rules(NamedTuple):
    """What a variant must keep, whatever its budget.

    Attributes:
        vectors: bits of the accesses that move its bulk; 0 for any.
        is_stream: whether its bits are the stream's, so that nothing may be approximate, contracted or done twice.
        own: operations of PTX, rounded once, that the compiler makes of fused instructions of its own.
        matmul: how a perceptron's matrices are multiplied.
        loop: for chains, how many loops are around that of the updates.
        is_elementwise: whether instructions and bytes are counted for each element of the state.
    """

    vectors: int = 0
    is_stream: bool = True
    own: tuple[str, ...] = ()
    matmul: str = ""
    loop: int | None = None
    is_elementwise: bool = True


def rules(variant: str) -> Rules:
    """The rules of a variant, by its name."""
    kind, name = variant.split("-")[:2]
    if kind == "mlp":
        return Rules(is_stream=False, matmul=name, loop=0, is_elementwise=False)
    if kind == "mixture":
        return Rules(own=("div.rn.f32", "div.rn.f64"), loop=1, is_elementwise=False)
    if kind == "score":
        return Rules(own=("div.rn.f32", "div.rn.f64"), is_elementwise=False)
    if kind == "roots":
        # A norm's root is of any number, so it is the compiler's own, rare cases included.
        return Rules(own=("sqrt.rn.f32",), is_elementwise=False)
    if kind in ("values", "levels"):
        return Rules(is_elementwise=False)
    if variant in OTHERS:
        return Rules()
    if variant in NORMS or variant in RESCALES:
        return Rules(vectors=128, is_stream=False)
    # Four 16-bit elements make 8 bytes.
    narrow = kind.startswith(("dsm", "norms")) and name in ("fp16", "bf16")
    return Rules(vectors=64 if narrow else 128)


def calls() -> dict[str, Variant]:
    """Every variant by its name: the launches are those that the launchers make."""
    from fastlangevin.kernels.triton import randn, step

    made: dict[str, Variant] = {}

    def add_step(name: str, x: torch.Tensor, *slots: torch.Tensor, factors: Sequence[Any] = (), **changes: Any) -> None:
        given = (x, *(slots or (x,)))
        terms = tuple(map(Term, factors or (1.0, *[0.5] * (len(given) - 1)), given))
        update = Update(terms, 0.5, ADDRESS, ADDRESS.draw)._replace(**changes)
        call = step.prepare(x, update)
        made[name] = Variant(step.step_kernel, call, step.options(call.launch))

    for name, dtype in STATES.items():
        x = torch.zeros(4, 3, 64, 64, dtype=dtype)
        add_step(f"step-{name}", x)
        add_step(f"watched-{name}", x, fault=torch.zeros(4, dtype=torch.int64))
        made[f"randn-{name}"] = Variant(randn.randn_kernel, randn.prepare(x, uniform=False, address=ADDRESS), {})
        made[f"rand-{name}"] = Variant(randn.randn_kernel, randn.prepare(x, uniform=True, address=ADDRESS), {})

    x = torch.zeros(4, 3, 64, 64)
    add_step("step-autocast", x, x.bfloat16())
    sample, whole = torch.zeros(4, dtype=torch.int64), torch.zeros((), dtype=torch.int64)
    scale = torch.ones(4, 1, 1, 1).expand_as(x)
    tensors = Address(sample, whole, sample, 0, 1)
    add_step("step-tensors", x, x, factors=(torch.ones(()).expand_as(x), scale), b=x, address=tensors)
    add_step("watched-freezing", x, fault=sample, freeze=True, mask=x.bool(), known=x)
    add_step("watched-strided", x.contiguous(memory_format=torch.channels_last), x, fault=sample)
    add_step("step-inpainting", x, mask=x.bool(), known=x)
    add_step("step-known-noise", x, noise=x)
    add_step("step-strided", x.contiguous(memory_format=torch.channels_last), x)
    made["randn-strided"] = Variant(
        randn.randn_kernel, randn.prepare(x.transpose(1, 2), uniform=False, address=ADDRESS), {}
    )

    last = x.contiguous(memory_format=torch.channels_last)
    several = tuple(Draw(0.5, place) for place in range(MAX_DRAWS))
    watch: dict[str, Any] = {"mask": x.bool(), "fault": sample, "freeze": True}
    add_step("move-terms3", *[x] * 3)
    add_step("move-terms6", *[x] * 6)
    add_step("move-elements6", *[x] * 6, factors=[x] * 6, b=x)
    add_step("move-strided3", last, *[x] * 2)
    add_step("move-strided6", last, *[x] * 5)
    add_step("move-all6", last, *[x] * 5, factors=[x] * 6, b=x, known=x, draws=several, **watch)
    # No two of five dimensions merge, and a program's rows are no power of two.
    deep = torch.zeros(4, 3, 2, 2, 3, 3)
    turned = torch.zeros(4, 3, 3, 2, 2, 3).permute(0, 5, 4, 3, 2, 1)
    own = {"mask": turned.bool(), "fault": sample, "freeze": True, "address": tensors}
    add_step("move-deep2", turned, deep, draws=several)
    add_step("move-deep6", turned, *[deep] * 5, known=deep, draws=several, **own)
    add_step("move-deep-all6", turned, *[deep] * 5, factors=[deep] * 6, b=deep, known=deep, draws=several, **own)
    for name, dtype in STATES.items():
        # Histories and factors of a 16-bit state are fp32.
        state, wide = x.to(dtype), x.double() if dtype == torch.float64 else x
        table = DrawTable(torch.zeros(32, dtype=wide.dtype), torch.zeros(32, dtype=torch.int64))
        own = {"factors": [wide] * 6, "b": wide, "known": state, "draws": table, **watch}
        add_step(f"move-all6-table-{name}", last.to(dtype), *[wide] * 5, **own)
        suffix = "" if name == "fp32" else f"-{name}"
        add_step(f"move-draws4{suffix}", state, draws=several)
        add_step(f"move-table{suffix}", state, draws=table)
        add_step(f"move-table6{suffix}", state, *[wide] * 5, draws=table)

    made |= objective_calls() | norm_calls() | rescale_calls() | mlp_calls() | mixture_calls()
    return {name: made[name] for name in VARIANTS}


def objective_calls() -> dict[str, Variant]:
    """As :func:`calls`, for the kernels of the denoising objective."""
    from fastlangevin.kernels.triton import dsm, perturb, sample_norms, sums

    made: dict[str, Variant] = {}
    labels = torch.zeros(4, dtype=torch.int64)

    def add(name: str, x: torch.Tensor, segment: int, noise: torch.Tensor | None = None) -> None:
        """Every variant of an operand's dtype and layout."""
        compute = torch.float64 if x.dtype == torch.float64 else torch.float32
        table, partial = torch.zeros(10, dtype=compute), torch.zeros(4, 12, dtype=compute)
        for kind, drawn, own in (("levels", labels, None), ("given", None, labels)):
            call = perturb.prepare(x, drawn, Perturbation(x, table, own, ADDRESS, 2, noise))
            made[f"perturb_{kind}-{name}"] = Variant(perturb.perturb_kernel, call, {})
        for kind, gradient, into, clean in (
            ("both", x, partial, None),
            ("values", None, partial, None),
            ("gradient", x, None, None),
            ("clean", x, partial, x),
        ):
            given = Objective(x, labels, Tables(table, table, table), ADDRESS, noise, clean)
            call = dsm.prepare(gradient, into, given, table[0], segment)
            made[f"dsm_{kind}-{name}"] = Variant(dsm.dsm_kernel, call, {})
        result, scratch = torch.zeros(2, 4, dtype=compute), torch.zeros(2, 4, 12, dtype=compute)
        first, second = sample_norms.prepare(result, scratch, SampleNorms(x, ADDRESS, True, True, noise), segment)
        made[f"norms-{name}"] = Variant(sample_norms.norms_kernel, first, {})
        made[f"roots-{name}"] = Variant(sample_norms.roots_kernel, second, {})

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
    both = sums.prepare(Sums(result, result, labels, result[0]), result.new_zeros(4, 300), labels, result)
    made["values-fp64"] = Variant(sums.values_kernel, both[0], {})
    made["levels-fp64"] = Variant(sums.levels_kernel, both[1], {})
    return made


def norm_calls() -> dict[str, Variant]:
    """As :func:`calls`, for the kernels of InstanceNorm++, of GroupNorm in groups of 4, and of ELU."""
    from fastlangevin.kernels.triton import (
        add_elu,
        group_norm,
        group_norm_backward,
        instance_norm,
        instance_norm_backward,
    )

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
            given, statistics = InstanceNorm(x, rows, rows, rows, True), Statistics(rows, rows)
            found = instance_norm.prepare(x, None, statistics, given)
            added = instance_norm.prepare(x, x, statistics, given._replace(residual=x))[:1]
            back = instance_norm_backward.prepare(InstanceNormGradients(x, rows, rows, rows), x, given, statistics)
            columns = rows[:, :32].contiguous()
            in_groups, statistics = GroupNorm(x, rows[0], rows[0], 32, True), Statistics(columns, columns)
            grouped = group_norm.prepare(x, statistics, in_groups, 1e-5)[1:]
            grouped += group_norm_backward.prepare(GroupNormGradients(x, rows, rows), x, in_groups, statistics)
            for kind, kernel, call in zip(KINDS, kernels, found + added + back + grouped, strict=True):
                made[f"{kind}{last}-{name}"] = Variant(kernel, call, {"enable_fp_fusion": True})
        made[f"elu-{name}"] = Variant(add_elu.add_elu_kernel, add_elu.prepare(x, x, [x, x]), {"enable_fp_fusion": True})
    return made


def rescale_calls() -> dict[str, Variant]:
    """As :func:`calls`, for the product of a gradient and a number of the device."""
    from fastlangevin.kernels.triton import rescale
    from fastlangevin.kernels.triton.layout import Call, Launch

    made = {}
    for name, dtype in STATES.items():
        values = torch.zeros(4, 3, 64, 64, dtype=dtype)
        factor = torch.ones((), dtype=torch.float64 if name == "fp64" else torch.float32)
        block = rescale.BLOCK
        arguments = {"values_ptr": values, "factor_ptr": factor, "count": values.numel(), "BLOCK": block}
        call = Call((values.numel() // block, 1, 1), arguments, Launch(1, block, 4))
        made[f"rescale-{name}"] = Variant(rescale.rescale_kernel, call, {}, accesses=2)
    return made


def mlp_calls() -> dict[str, Variant]:
    """As :func:`calls`, for the chains of a perceptron."""
    from fastlangevin.kernels.triton import mlp_chain

    made = {}
    for variant in MLPS:
        matmul, *sizes = variant.split("-")[1:]
        width, depth, features = map(int, sizes)
        weights = [
            torch.zeros(width, features),
            *[torch.zeros(width, width)] * (depth - 1),
            torch.zeros(features, width),
        ]
        tables = torch.zeros(10, depth, width), torch.zeros(features), torch.zeros(10, 3)
        network = ChainNetwork(tuple(weights), *tables, 0.5, "silu")
        moves = torch.zeros(8, dtype=torch.int64), torch.zeros(8, 3), torch.zeros(8, dtype=torch.bool)
        updates = ChainUpdates(*moves, ADDRESS, 3, torch.zeros(2, 256, features))
        call = mlp_chain.prepare(torch.zeros(256, features), network, updates, matmul)
        # The registers that the launcher asks for on a device; here it stands before the interpreter.
        options = {**mlp_chain.options(call.launch), "maxnreg": min(255, 65536 // (32 * call.launch.num_warps))}
        made[variant] = Variant(mlp_chain.chain_kernel, call, options)
    return made


def mixture_calls() -> dict[str, Variant]:
    """As :func:`calls`, for chains of a mixture and its scores."""
    from fastlangevin.kernels.triton import mixture, mixture_chain

    made = {}
    for name, (features, diagonal) in CHAINS.items():
        table = torch.zeros(1, 8, 3 + 4 * features if diagonal else 7 + 2 * features)
        x = torch.zeros(1024, features)
        segment = Segment(ADDRESS, [Run((1.0, 0.5, 0.5), 0, 9)], 0, None)
        call = mixture_chain.prepare(x, table, segment, diagonal=diagonal)
        made[name] = Variant(mixture_chain.chain_kernel, call, {})
    call = made["mixture-2-isotropic"].call
    frames = {**call.arguments, "frames_ptr": call.arguments["x_ptr"], "ids_ptr": torch.zeros(1, dtype=torch.int64)}
    made["mixture-frames"] = Variant(mixture_chain.chain_kernel, call._replace(arguments=frames), {})
    for name, first in SECONDS.items():
        call = made[first].call
        second = call._replace(arguments={**call.arguments, "IS_SECOND": True})
        made[name] = Variant(mixture_chain.chain_kernel, second, {})
    labels = torch.zeros(1024, dtype=torch.int64)
    for name, features in SCORES.items():
        x = torch.zeros(1024, features)
        call = mixture.prepare(x, x, torch.zeros(1, 8, 7 + 2 * features), labels, diagonal=False)
        made[name] = Variant(mixture.score_kernel, call, {})
    return made


def controls(made: dict[str, Variant]) -> dict[str, Variant]:
    """What the gates must refuse, made of :func:`calls`."""
    step, chain = made["step-fp32"], made["mixture-2-isotropic"]
    return {
        "contracted": step._replace(options={"enable_fp_fusion": True}),
        "spills": step._replace(options={"maxnreg": 32}),
        "library": library_call(made["randn-fp32"].call),
        "misaligned": step._replace(aligned=False),
        "scattered": made["dsm_both-bf16"]._replace(aligned=False),
        "chain contracted": chain._replace(options={"enable_fp_fusion": True}),
        "chain spills": chain._replace(options={"maxnreg": 24}),
    }


def library_call(call: Any) -> Variant:
    """A kernel with Triton's own normals, which bring a stack, launched as ``call`` is."""
    import triton
    import triton.language as tl

    @triton.jit
    def library_kernel(out_ptr, seed, N: tl.constexpr):
        offs = tl.program_id(0) * N + tl.arange(0, N)
        tl.store(out_ptr + offs, tl.randn(seed, offs))

    arguments = {"out_ptr": call.arguments["out_ptr"], "seed": 1, "N": call.launch.width * call.launch.groups}
    return Variant(library_kernel, call._replace(arguments=arguments), {})
