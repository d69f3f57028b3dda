"""``fuse``: the norms of a network of the user's own, computed by the fused operations."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from fastlangevin.fusion.decide import decide
from fastlangevin.fusion.listen import Norm, listen
from fastlangevin.fusion.modules import fused_class
from fastlangevin.fusion.probe import Probe, changes, magnitudes
from fastlangevin.fusion.recognise import is_fused, readings
from fastlangevin.fusion.replace import Replacement, replacements
from fastlangevin.fusion.report import FusionReport, Left, Replaced
from fastlangevin.fusion.verify import allowed_changes, worst
from fastlangevin.runtime import choose

__all__ = ["fuse"]


def fuse(net: nn.Module, /, *inputs: Any, impl: str = "auto", **kwargs: Any) -> FusionReport:
    """Replaces the norms of a network, and the activations behind them, by the fused operations of this package.

    InstanceNorm++ (Song and Ermon 2019, appendix A), with vectors or a table of levels, takes ELU with it
    (:func:`fastlangevin.ops.instance_norm`); GroupNorm takes SiLU (:func:`fastlangevin.ops.group_norm`). Norms are
    known by their parameters and by what they compute, not by names; activations by what passes through them while the
    network runs on the probe, so they must be modules. The network is changed in place: parameters, their names and
    order, buffers and hooks stay as they are, so that optimizers and files go on. A fused result has the dtype of the
    norm's input, under autocast too.

    What the probe does not show is not known: it must take the paths that are taken in use. Fuse before
    ``torch.compile``, not after.

    Args:
        net: the network. It runs five times, in evaluation mode, without gradients and autocast, on copies of the
            inputs; generators of random numbers are left as they are.
        *inputs: the probe, as the network is called: ``fuse(net, x, labels)``. A few samples of the usual size.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``: what the fused norms run on.
        **kwargs: the probe's arguments by name.

    Returns:
        What was replaced, what was left and why; its ``undo()`` gives the network back as it was.

    Raises:
        TypeError: ``net`` is no module, or compiled or scripted, or there is no probe.
        ValueError: ``impl`` is not known, or the network has no numbers yet.
        RuntimeError: the network fails on the probe, or rounding there hides everything, or the fused network's output
            is not the same: the network is then as it was.
    """
    _check(net, inputs, kwargs)
    inner = net.module if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel) else net
    probe = Probe(inner, inputs, kwargs)
    for device in {parameter.device for parameter in net.parameters()} or probe.devices:
        choose(impl, device)
    before = probe.run()
    report = FusionReport(already=[name for name, module in net.named_modules() if is_fused(module)])
    norms = [
        Norm(module, name or type(net).__name__, found, refused=_unusual(module))
        for name, module in net.named_modules()
        if (found := readings(module))
    ]
    if not norms:
        return report
    references, again = listen(probe, norms, impl)
    report.left = [Left(norm.name, norm.refused) for norm in norms if norm.refused]
    norms = [norm for norm in norms if not norm.refused]
    if not norms:
        return report
    decision = decide(norms, references)
    allowed = allowed_changes(probe, norms, before, again)
    changed = replacements(norms, decision, impl)
    _verify(probe, changed, before, allowed, report)
    for norm in norms:
        assert norm.formula is not None
        activation = norm.formula.follows.__name__ if norm in decision.taking else ""
        channels = norm.deviations[0].shape[1]
        report.replaced.append(Replaced(norm.name, norm.formula.kind, channels, activation, decision.stays[norm]))
    report._replacements = changed
    return report


def _check(net: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch.nn.Module, got {type(net).__name__}; pass the network itself")
    if isinstance(net, torch.jit.ScriptModule):
        raise TypeError(f"net must be a plain torch.nn.Module, got a {type(net).__name__}; fuse first, script after")
    # Importing the compiler takes seconds, and where nobody has, nothing is compiled.
    compiler = sys.modules.get("torch._dynamo")
    for name, module in net.named_modules():
        wrapped = compiler is not None and isinstance(module, compiler.OptimizedModule)
        if wrapped or module._compiled_call_impl is not None:
            raise TypeError(
                f"net must not be compiled yet, but {name or 'it'} is; fuse the network first and compile it after"
            )
    if not inputs and not kwargs:
        raise TypeError("fuse needs a probe, the arguments of a call of net: fuse(net, x, labels)")
    if any(parameter.is_meta for parameter in net.parameters()):
        raise ValueError("net must have numbers, got parameters on the meta device; load its weights first")


def _unusual(module: nn.Module) -> str:
    """Returns why a module cannot be changed, whatever it computes."""
    if "forward" in module.__dict__:
        return "its forward is replaced on the instance"
    if hasattr(module, "parametrizations"):
        return "it is parametrized, which changes its class, too: fuse after removing the parametrizations"
    if any(True for _ in module.buffers()):
        return "it has buffers"
    own = type(module)
    try:
        module.__class__ = fused_class(own)
    except TypeError as error:
        return f"its class cannot be changed: {error}"
    finally:
        module.__class__ = own
    return ""


def _verify(
    probe: Probe, changed: list[Replacement], before: list[Tensor], allowed: list[Tensor], report: FusionReport
) -> None:
    """Applies the replacements and notes the change of the output; puts everything back where that is too large."""
    try:
        for replacement in changed:
            replacement.apply()
        change = changes(before, probe.run())
    except BaseException as error:
        for replacement in changed:
            replacement.undo()
        if not isinstance(error, RuntimeError):
            raise
        raise RuntimeError(f"the fused network fails on the probe, and everything is put back: {error}") from error
    excess, (which, sample) = worst(change, allowed)
    largest = magnitudes(before)[which][sample].item()
    report.difference = change[which][sample].item() / largest if largest else 0.0
    report.allowed = allowed[which][sample].item() / largest if largest else 0.0
    if excess <= 1:
        return
    for replacement in changed:
        replacement.undo()
    raise RuntimeError(
        f"the fused network's output differs by {report.difference:.1e} of its largest value, where rounding explains "
        f"{report.allowed:.1e}; everything is put back. {_culprit(probe, changed, before, allowed)}"
    )


def _culprit(probe: Probe, changed: list[Replacement], before: list[Tensor], allowed: list[Tensor]) -> str:
    """Tries the replacements one by one."""
    for replacement in changed:
        names = ", ".join(replacement.names)
        try:
            replacement.apply()
            excess = worst(changes(before, probe.run()), allowed)[0]
        except RuntimeError as error:
            return f"Fusing {names} alone: {error}"
        finally:
            replacement.undo()
        if not excess <= 1:
            return f"Fusing {names} alone changes it by {excess:.1e} times what is allowed"
    return "None of the replacements changes it too much by itself"
