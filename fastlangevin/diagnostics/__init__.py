"""Diagnostics of chains: whether they agree, how many independent draws they are worth, how long they remember.

They take trajectories ``(F, B, ...)``, frame, chain, then the state, as ``trajectory=k, full_output=True`` keeps them,
and give one number for each element of the state, in fp64, on the trajectory's device. The figures are those of ArviZ.
There is no acceptance rate: unadjusted chains accept every move, and what that costs in bias no diagnostic of a chain
against itself can see; chains that agree may agree on the wrong law.
"""

from fastlangevin.diagnostics.autocorrelation import autocorrelation
from fastlangevin.diagnostics.drawing import picture
from fastlangevin.diagnostics.effective import ess, integrated_autocorrelation_time, mcse
from fastlangevin.diagnostics.inference_data import to_arviz
from fastlangevin.diagnostics.levels import LevelDiagnostics, by_level
from fastlangevin.diagnostics.rhat import split_rhat

__all__ = [
    "LevelDiagnostics",
    "autocorrelation",
    "by_level",
    "ess",
    "integrated_autocorrelation_time",
    "mcse",
    "picture",
    "split_rhat",
    "to_arviz",
]
