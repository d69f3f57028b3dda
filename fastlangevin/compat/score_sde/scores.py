"""Networks of score_sde as scores at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastlangevin.compat.score_sde.predictors import ScoreAtTime
from fastlangevin.compat.score_sde.sde import SDE, VESDE, VPSDE, per_sample
from fastlangevin.losses.arguments import check_returned
from fastlangevin.scores import check_ladder

__all__ = ["get_model_fn", "get_score_fn"]

Network = Callable[[Tensor, Tensor], Tensor]


def check_sde(sde: object) -> SDE:
    if not isinstance(sde, SDE):
        raise TypeError(
            f"sde must be a VESDE, VPSDE or subVPSDE of fastlangevin.compat.score_sde, got {type(sde).__qualname__} of "
            f"{type(sde).__module__}; one that was made before fastlangevin.patch() must be made anew"
        )
    return sde


def get_model_fn(model: Network, train: bool = False) -> Network:
    """The network in training mode or, as for sampling, in evaluation mode, in which it is left.

    Args:
        model: called as ``model(x, labels)`` with ``x`` ``(B, ...)`` and labels ``(B,)``.
        train: whether a ``torch.nn.Module`` is put in training mode.

    Returns:
        ``model_fn(x, labels)``.

    Raises:
        TypeError: ``model`` cannot be called.
    """
    if not callable(model):
        raise TypeError(f"model must be callable as model(x, labels), got {type(model).__name__}")

    def model_fn(x: Tensor, labels: Tensor) -> Tensor:
        if isinstance(model, nn.Module) and model.training != train:
            model.train(train)
        return check_returned("model", model(x, labels), x)

    return model_fn


def get_score_fn(
    sde: SDE, model: Network, train: bool = False, continuous: bool = False, *, strict_ladder: bool = True
) -> ScoreAtTime:
    """The score at a time, ``score_fn(x, t)``, of a network ``model(x, labels)``.

    ==================  ====================================================  ==============================
    diffusion           the network's second argument, ``(B,)``               the score, of the output h
    ==================  ====================================================  ==============================
    VE                  int64 level, 0 = most noise: round((T - t)(N - 1))    h
    VE, continuous      sigma(t)                                              h
    VP                  t (N - 1)                                             -h/std after so many steps
    VP, continuous      999 t                                                 -h/std(t)
    sub-VP              999 t                                                 -h/std(t)
    ==================  ====================================================  ==============================

    Args:
        sde: the diffusion.
        model: the network.
        train: whether a ``torch.nn.Module`` is put in training or in evaluation mode.
        continuous: whether it was trained on continuous times.
        strict_ladder: for a VE diffusion of levels, refuse a network that was built with another ladder than the
            diffusion's, where it has that as ``sigmas``.

    Returns:
        ``score_fn(x, t)`` with times ``(B,)``, of the shape of ``x``.

    Raises:
        TypeError: ``sde`` is not one of the three, or ``model`` cannot be called.
        ValueError: the network was built with another ladder.
    """
    check_sde(sde)
    model_fn = get_model_fn(model, train)
    if strict_ladder and isinstance(sde, VESDE) and not continuous:
        check_ladder(model, sde.ladder.tolist(), True, name="model", ladder="the noise levels of sde")

    def labels_and_std(t: Tensor) -> tuple[Tensor, Tensor | None]:
        if isinstance(sde, VESDE):
            if continuous:
                return sde.scales(t)[1].to(t.dtype), None
            return torch.round((sde.T - t.double()) * (sde.N - 1)).long(), None
        if isinstance(sde, VPSDE) and not continuous:
            return t * (sde.N - 1), sde.stds_by_place.at(sde.place(t))[0]
        return t * 999, sde.scales(t)[1]

    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        labels, std = labels_and_std(t)
        h = model_fn(x, labels)
        return h if std is None else h * per_sample(-1 / std, h)

    return score_fn
