"""Samplers and the objective with the signatures and defaults of ermongroup/ncsnv2 (Song and Ermon 2020).

``scorenet(x, labels)`` returns the score, that is h(x)/sigma for the networks of that code, which divide inside; labels
are int64 ``(B,)``, 0 for the largest sigma. ``step_lr`` is x + step score + sqrt(2 step) z with step = step_lr
sigma_i^2/sigma_L^2. What is different from the published code, on purpose:

- The lists stay on the device of ``x_mod``, and ``keep_every=`` thins them; the published ones are copied to the host,
  after every update, also where only the last entry is wanted. ``final_only=True`` keeps nothing but that.
- Norms and the signal-to-noise ratio are computed with ``verbose=True`` alone.
- ``sigmas`` may be a list, an array or a tensor on any device. Step sizes are computed in fp64 from its values; the
  published code computes them in the ladder's own fp32, so that they may differ in the last bits.
- The noise has an address, see :mod:`fastlangevin.noise`: a sample does not depend on its batch. Without ``seed=`` and
  ``generator=`` its seed comes from PyTorch's default CPU generator.
- Inpainting returns the states after the updates, so that the last is the sample; ``strict=True`` gives those before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

from torch import Tensor

from fastlangevin.compat.addresses import samples_of
from fastlangevin.compat.lists import listed
from fastlangevin.compat.options import KEPT, OBJECTIVE, LadderListOptions, ObjectiveOptions, StrictLadderListOptions
from fastlangevin.compat.region import known_region
from fastlangevin.compat.verbose import Verbose
from fastlangevin.ladders import Sigmas, check_sigmas, geometric_sigmas, linear_sigmas, number
from fastlangevin.losses import dsm_labels, dsm_loss
from fastlangevin.noise import Purpose, integer, resolve, resolve_draw
from fastlangevin.ops.arguments import floating
from fastlangevin.samplers import SamplingResult, StepInfo, annealed_langevin, interpolation
from fastlangevin.samplers.options import check_callable, check_names, takes
from fastlangevin.samplers.rows import RowNoise

__all__ = [
    "anneal_Langevin_dynamics",
    "anneal_Langevin_dynamics_inpainting",
    "anneal_Langevin_dynamics_interpolation",
    "anneal_dsm_score_estimation",
    "get_sigmas",
]

Net = Callable[[Tensor, Tensor], Tensor]


@takes(LadderListOptions, KEPT)
def anneal_Langevin_dynamics(
    x_mod: Tensor,
    scorenet: Net,
    sigmas: Sigmas,
    n_steps_each: int = 200,
    step_lr: float = 0.000008,
    final_only: bool = False,
    verbose: bool = False,
    denoise: bool = True,
    **options: Unpack[LadderListOptions],
) -> list[Tensor] | SamplingResult:
    """Annealed Langevin dynamics from ``x_mod``, and the step to the posterior mean.

    Args:
        x_mod: initial states ``(B, ...)``, any float dtype; not changed.
        scorenet: ``scorenet(x, labels)`` returns the score.
        sigmas: ladder ``(L,)`` in units of the data, largest first.
        n_steps_each: updates for each noise level.
        step_lr: step size at the last level, half of the first paper's epsilon.
        final_only: return the samples alone, ``[x]``.
        verbose: print a line for each update, see :class:`fastlangevin.compat.verbose.Verbose`.
        denoise: end with x + sigma_L^2 score(x, L-1), a call more of the network.
        options: those of :class:`fastlangevin.compat.options.LadderListOptions`, such as ``seed``, ``keep_every`` and
            ``resume``.

    Returns:
        The states on the device of ``x_mod``: after the updates, then the denoised; the last is the sample. With
        ``full_output`` a :class:`fastlangevin.SamplingResult`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    floating("x_mod", x_mod)
    check_callable("scorenet", scorenet, "scorenet(x, labels)")
    sampler = partial(
        annealed_langevin,
        sigmas=sigmas,
        init=x_mod,
        step_lr=number("step_lr", step_lr),
        steps_per_level=integer("n_steps_each", n_steps_each, 1, 2**31),
        denoise=denoise,
    )
    shown = Verbose(scorenet, sigmas, step_lr) if verbose else None
    return listed(sampler, scorenet, LadderListOptions, options, final_only=final_only, verbose=shown, denoise=denoise)


@takes(StrictLadderListOptions, KEPT)
def anneal_Langevin_dynamics_inpainting(
    x_mod: Tensor,
    refer_image: Tensor,
    scorenet: Net,
    sigmas: Sigmas,
    image_size: int,
    n_steps_each: int = 100,
    step_lr: float = 0.000008,
    *,
    mask: Tensor | None = None,
    **options: Unpack[StrictLadderListOptions],
) -> list[Tensor] | SamplingResult:
    """Annealed Langevin dynamics where the left half of every sample is known.

    Before each score refer_image + sigma_i z is put in place, with fresh noise; the last update is followed by none. In
    the list a state's known region is as the next score sees it (published: so on a CPU, where the history shares the
    memory of the state; as the update left it, on a GPU). There is no step to the posterior mean.

    Args:
        x_mod: initial states ``(B, ...)``; or ``(R, K, C, H, W)``, K for each of R images, which become R K samples.
        refer_image: the image, of the shape of ``x_mod``, or ``(R, C, H, W)``; in units of the data.
        scorenet, sigmas, n_steps_each, step_lr: as for :func:`anneal_Langevin_dynamics`.
        image_size: width of the samples: the first ``image_size // 2`` of their last dimension are known.
        mask: bool, broadcasts to the states, True where ``refer_image`` is known, in the place of the left half.
        options: those of :class:`fastlangevin.compat.options.StrictLadderListOptions`.

    Returns:
        The states ``(B, ...)``, as for :func:`anneal_Langevin_dynamics`.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or shape.
        NonFiniteError: a state is not finite.
    """
    check_callable("scorenet", scorenet, "scorenet(x, labels)")
    half = integer("image_size", image_size, 1, 2**31) // 2
    init, region = known_region(x_mod, refer_image, mask, half, "step")
    if mask is None and init.shape[-1] != image_size:
        raise ValueError(f"image_size must be the width of x_mod, {init.shape[-1]}, got {image_size}")
    sampler = partial(
        annealed_langevin,
        sigmas=sigmas,
        init=init,
        step_lr=number("step_lr", step_lr),
        steps_per_level=integer("n_steps_each", n_steps_each, 1, 2**31),
        inpainting=region,
    )
    return listed(sampler, scorenet, StrictLadderListOptions, options)


@takes(LadderListOptions, KEPT)
def anneal_Langevin_dynamics_interpolation(
    x_mod: Tensor,
    scorenet: Net,
    sigmas: Sigmas,
    n_interpolations: int,
    n_steps_each: int = 200,
    step_lr: float = 0.000008,
    final_only: bool = False,
    verbose: bool = False,
    **options: Unpack[LadderListOptions],
) -> list[Tensor] | SamplingResult:
    """Rows of samples that go over into each other, see :func:`fastlangevin.interpolation`. No denoise step.

    Args:
        x_mod: the state that each row begins in, ``(rows, ...)``, any float dtype; not changed.
        scorenet, sigmas, n_steps_each, step_lr, final_only, verbose: as for :func:`anneal_Langevin_dynamics`.
        n_interpolations: samples in each row, at least 2.
        options: those of :class:`fastlangevin.compat.options.LadderListOptions`, but for one seed or generator;
            ``sample_offset`` is the number of the first row, and neither ``sample_ids`` nor ``resume`` can be given.

    Returns:
        The states ``(rows * n_interpolations, ...)``, the samples of a row neighbours.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        NonFiniteError: a state is not finite.
    """
    floating("x_mod", x_mod)
    check_callable("scorenet", scorenet, "scorenet(x, labels)")
    points = integer("n_interpolations", n_interpolations, 2, 2**20)
    first_row = options.get("sample_offset", 0)

    def noise(info: StepInfo) -> Tensor:
        address = info.state().address._replace(sample_offset=first_row)
        return RowNoise(info.x, points, address)(info.step - 1)

    sampler = partial(
        interpolation,
        sigmas=sigmas,
        points=points,
        init=x_mod,
        step_lr=number("step_lr", step_lr),
        steps_per_level=integer("n_steps_each", n_steps_each, 1, 2**31),
    )
    shown = Verbose(scorenet, sigmas, step_lr, noise) if verbose else None
    return listed(sampler, scorenet, LadderListOptions, options, final_only=final_only, verbose=shown)


def get_sigmas(config: Any) -> Tensor:
    """The ladder of a configuration, fp32 on its device.

    Args:
        config: has ``config.device`` and ``config.model`` with ``sigma_dist``, ``"geometric"`` or ``"uniform"``,
            ``sigma_begin``, ``sigma_end`` and ``num_classes``.

    Returns:
        ``(num_classes,)``, largest first, in units of the data.

    Raises:
        NotImplementedError: another ``sigma_dist``, as published.
    """
    model = config.model
    kinds = {"geometric": geometric_sigmas, "uniform": linear_sigmas}
    if model.sigma_dist not in kinds:
        raise NotImplementedError(
            f"config.model.sigma_dist must be one of {', '.join(kinds)}, got {model.sigma_dist!r}"
        )
    sigmas = kinds[model.sigma_dist](model.sigma_begin, model.sigma_end, model.num_classes)
    return sigmas.float().to(config.device)


@takes(ObjectiveOptions, OBJECTIVE)
def anneal_dsm_score_estimation(
    scorenet: Net,
    samples: Tensor,
    sigmas: Sigmas,
    labels: Tensor | None = None,
    anneal_power: float = 2.0,
    hook: Callable[[Tensor, Tensor], object] | None = None,
    **options: Unpack[ObjectiveOptions],
) -> Tensor:
    """Annealed denoising score matching: 1/2 sigma^anneal_power ||score + n / sigma^2||^2 with n = sigma z.

    Args:
        scorenet: ``scorenet(x, labels)`` returns the score.
        samples: clean samples ``(B, *)``, any float dtype.
        sigmas: ladder ``(L,)`` in units of the data; before ``labels``, the other way about than NCSN's.
        labels: int64 ``(B,)``, the level of each sample; by default drawn uniformly.
        anneal_power: power of sigma in the weight.
        hook: called as ``hook(loss, labels)`` with the loss of each sample ``(B,)`` and its level.
        options: those of :class:`fastlangevin.compat.options.ObjectiveOptions`, such as ``seed`` and ``step``.

    Returns:
        ``()``: elements are summed, the batch averaged.
    """
    floating("samples", samples)
    check_names(ObjectiveOptions, options)
    if hook is None:
        return dsm_loss(scorenet, samples, sigmas, labels=labels, anneal_power=anneal_power, **options)
    check_callable("hook", hook, "hook(loss, labels)")
    which: Any = dict(options)
    step = which.pop("step", 0)
    if labels is None:
        levels = len(sigmas) if isinstance(sigmas, Tensor) else len(sigmas := check_sigmas(sigmas))
        which = samples_of(resolve(samples, Purpose.DSM_LEVEL, resolve_draw(step, samples.device, "step"), **which))
        labels = dsm_labels(len(samples), levels, step=step, device=samples.device, **which)
    losses = dsm_loss(
        scorenet, samples, sigmas, labels=labels, anneal_power=anneal_power, reduction="none", step=step, **which
    )
    hook(losses, labels)
    return losses.mean()
