"""One call of a network at a time: ``advance``, for loops that are not ours, such as a diffusers pipeline's."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fastlangevin.memory import transforms
from fastlangevin.noise import MAX_SEED, integer
from fastlangevin.ops.arguments import like_state
from fastlangevin.samplers.chain import ChainState
from fastlangevin.samplers.options import DEFAULTS, ChainOptions
from fastlangevin.samplers.stepping import Noise, Stepper
from fastlangevin.schemes import Evaluate, Scheme, Step
from fastlangevin.schemes.scheme import check_scheme

__all__ = ["advance", "due", "watchable"]


def watchable(x: Tensor) -> bool:
    """Returns whether the values of a state can be read: not if they are traced, transformed or on ``meta``."""
    return not (transforms() or torch.compiler.is_compiling() or x.is_meta)


def _step(scheme: Scheme, state: ChainState) -> Step:
    """The step that a state is at."""
    check_scheme(scheme)
    if not isinstance(state, ChainState):
        raise TypeError(f"state must be a ChainState, got {type(state).__name__}")
    if scheme.region is not None:
        raise ValueError("a known region is put in by fastlangevin.sample alone; leave inpainted() out, and put it in")
    steps = scheme.total + (scheme.denoise is not None)
    if not 0 <= integer("state.step", state.step, 0, 2**62) < steps:
        raise ValueError(f"state.step must be below {steps}, the steps of the scheme {scheme.name}, got {state.step}")
    step = scheme.make(state.step) if state.step < scheme.total or scheme.denoise is None else scheme.denoise
    if not 0 <= state.row < len(step.rows):
        raise ValueError(f"state.row must be below {len(step.rows)}, the rows of step {state.step}, got {state.row}")
    return step


def due(scheme: Scheme, state: ChainState) -> Evaluate | None:
    """The next evaluation of the network that a chain needs.

    Args:
        scheme: the table.
        state: where the chain stands.

    Returns:
        The slot that the network reads, ``state.slots[due.slot]``, and its noise level; None if the next rows need no
        call, so that ``advance(scheme, state, None)`` makes them.

    Raises:
        TypeError, ValueError: ``state`` is none of the scheme's, as after the last step.
    """
    return _step(scheme, state).rows[state.row].evaluate


def advance(
    scheme: Scheme,
    state: ChainState,
    output: Tensor | None,
    *,
    noise: Tensor | None = None,
    impl: str = "auto",
    watch: bool = True,
) -> ChainState:
    """Makes the moves of a chain up to the next evaluation of the network, or to the end of the step.

    :func:`fastlangevin.sample` makes the same moves. A loop of your own, without the denoise step, is::

        state = fl.ChainState(x, step=0, seed=0)
        while state.step < scheme.total:
            at = due(scheme, state)
            output = None if at is None else net(state.slots[at.slot], labels_of(at.level))
            state = advance(scheme, state, output)

    Args:
        scheme: the table.
        state: where the chain stands. It is not changed, nor are its tensors.
        output: what the network returned for :func:`due`, with the shape of the state; or None if that is None.
        noise: the noise of the step itself, with the shape of the state, in place of that of its address.
        impl: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"reference"``.
        watch: whether values that are not finite are recorded in ``fault`` of the state that is returned; nothing is
            recorded inside of transforms and compiled programs.

    Returns:
        The state after the moves. Gradients of ``state.x`` and ``output`` are those of the moves.

    Raises:
        TypeError, ValueError: ``state`` is none of the scheme's, or ``output`` is of the wrong kind or shape, is
            missing, or is given where none is due.
    """
    step = _step(scheme, state)
    at = due(scheme, state)
    if (at is None) != (output is None):
        wanted = "None, since no call of the network is due" if at is None else f"the network's for the slot {at.slot}"
        raise ValueError(f"output must be {wanted}, at row {state.row} of step {state.step} of {scheme.name}")
    if output is not None:
        like_state("output", output, state.x)
    written = {*state.slots}
    for place, row in enumerate(step.rows[state.row :], state.row):
        lost = [name for name in row.reads if name not in written]
        if lost:
            raise ValueError(
                f"state.carried must hold the slot {lost[0]!r}, which row {place} of step {state.step} of "
                f"{scheme.name} reads"
            )
        written |= {row.out} if row.evaluate is None else {row.evaluate.into, row.out}
    if not isinstance(state.seed, Tensor):
        integer("state.seed", state.seed, 0, MAX_SEED)
    options: ChainOptions = {**DEFAULTS, "impl": impl, "non_finite": "report" if watch and watchable(state.x) else None}
    stepper = Stepper(None, scheme, state, options, None if noise is None else Noise(lambda step: noise))
    making = stepper.begin(step, state.step)
    making.row = state.row
    stepper.advance(making, output)
    slots = making.slots if not making.over else stepper.carried()
    carried = {name: slot for name, slot in slots.items() if name != "x"}
    made = replace(state, x=making.slots["x"], carried=carried, fault=stepper.watch.record(), row=making.row)
    return replace(made, step=state.step + 1, row=0) if making.over else made
