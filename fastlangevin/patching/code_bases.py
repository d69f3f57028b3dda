"""The names that are replaced in each code base: :data:`CODE_BASES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CODE_BASES", "CodeBase", "Function"]

Function = Callable[..., Any]


@dataclass(frozen=True)
class CodeBase:
    """The names that are replaced in a code base, and the modules that define them.

    Attributes:
        functions: by the name of the module that defines them, ours for each name; classes too.
        methods: by the name of a class, ours for each name; they take no ``self``.
        classes_in: modules and packages in which the classes are looked for.
        options: by the name of a module, keyword arguments that its callers need, unless others are given.
    """

    functions: Mapping[str, Mapping[str, Function]]
    methods: Mapping[str, Mapping[str, Function]] = field(default_factory=dict)
    classes_in: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def ours(self) -> list[Function]:
        tables = [*self.functions.values(), *self.methods.values()]
        return [function for table in tables for function in table.values()]


def _ncsn() -> CodeBase:
    from fastlangevin.compat import ncsn

    defined = {
        "losses.dsm": ("dsm", "dsm_score_estimation", "anneal_dsm_score_estimation"),
        "losses.sliced_sm": (
            "single_sliced_score_matching",
            "partial_sliced_score_matching",
            "sliced_score_matching",
            "sliced_score_matching_vr",
            "sliced_score_estimation",
            "sliced_score_estimation_vr",
            "anneal_sliced_score_estimation_vr",
        ),
    }
    annealed = ("anneal_Langevin_dynamics", "Langevin_dynamics", "anneal_Langevin_dynamics_inpainting")
    return CodeBase(
        {module: {name: getattr(ncsn, name) for name in names} for module, names in defined.items()},
        {
            "AnnealRunner": {name: getattr(ncsn, name) for name in annealed},
            "BaselineRunner": {"Langevin_dynamics": ncsn.baseline_Langevin_dynamics},
            "ToyRunner": {
                "langevin_dynamics": ncsn.toy_langevin_dynamics,
                "anneal_langevin_dynamics": ncsn.toy_anneal_langevin_dynamics,
            },
        },
        ("runners",),
        # The published trainers unpack what these return.
        {"losses.sliced_sm": {"strict": True}},
    )


def _ncsnv2() -> CodeBase:
    from fastlangevin.compat import ncsnv2

    names = [name for name in ncsnv2.__all__ if name != "anneal_dsm_score_estimation"]
    return CodeBase(
        {
            "models": {name: getattr(ncsnv2, name) for name in names},
            "losses.dsm": {"anneal_dsm_score_estimation": ncsnv2.anneal_dsm_score_estimation},
        }
    )


def _score_sde() -> CodeBase:
    from fastlangevin.compat import score_sde

    defined = {
        "sde_lib": ("SDE", "VESDE", "VPSDE", "subVPSDE"),
        "sampling": (
            "Predictor",
            "EulerMaruyamaPredictor",
            "ReverseDiffusionPredictor",
            "AncestralSamplingPredictor",
            "NonePredictor",
            "Corrector",
            "LangevinCorrector",
            "AnnealedLangevinDynamics",
            "NoneCorrector",
            "register_predictor",
            "register_corrector",
            "get_predictor",
            "get_corrector",
            "get_pc_sampler",
        ),
        "controllable_generation": ("get_pc_inpainter", "get_pc_colorizer"),
        "losses": ("get_sde_loss_fn", "get_smld_loss_fn", "get_ddpm_loss_fn"),
        "models.utils": ("get_model_fn", "get_score_fn"),
    }
    return CodeBase({module: {name: getattr(score_sde, name) for name in names} for module, names in defined.items()})


CODE_BASES: dict[str, Callable[[], CodeBase]] = {"ncsn": _ncsn, "ncsnv2": _ncsnv2, "score_sde": _score_sde}
"""What makes the :class:`CodeBase` of a name, when it is asked for."""
