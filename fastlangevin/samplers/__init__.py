"""Samplers: chains of updates on one kernel, each with its draw number.

annealed_langevin      Song and Ermon 2019, Algorithm 1, with inpainting, temperature, drift
consistent_annealed    Jolicoeur-Martineau et al. 2021
interpolation          annealed Langevin dynamics of samples that share their noise (Song and Ermon 2020)
langevin               unadjusted Langevin dynamics at one level
predictor_corrector    Song et al. 2021, Algorithm 1, variance exploding
sample                 any scheme: the others are a scheme and a call of it
Sampler                the same, run again and again
advance, due           a scheme in one's own loop, one call of the network at a time
"""

from fastlangevin.samplers.advancing import advance, due
from fastlangevin.samplers.annealed import annealed_langevin
from fastlangevin.samplers.chain import Callback, ChainState, Fault, SamplingResult, StepInfo, Telemetry
from fastlangevin.samplers.consistent import consistent_annealed
from fastlangevin.samplers.interpolation import interpolation
from fastlangevin.samplers.langevin import langevin
from fastlangevin.samplers.options import ChainOptions, RunOptions
from fastlangevin.samplers.predictor_corrector import predictor_corrector
from fastlangevin.samplers.sample import sample
from fastlangevin.samplers.sampler import Sampler
from fastlangevin.samplers.watching import NonFiniteError
from fastlangevin.schemes import Inpainting

__all__ = [
    "Callback",
    "ChainOptions",
    "ChainState",
    "Fault",
    "Inpainting",
    "NonFiniteError",
    "RunOptions",
    "Sampler",
    "SamplingResult",
    "StepInfo",
    "Telemetry",
    "advance",
    "annealed_langevin",
    "consistent_annealed",
    "due",
    "interpolation",
    "langevin",
    "predictor_corrector",
    "sample",
]
