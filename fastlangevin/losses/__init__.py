"""Score matching objectives: one calling style, addressed noise, and on a Gaussian one minimiser.

=======================================  =======================================================================
objective                                value of a sample; J is the Jacobian of s, v a projection
=======================================  =======================================================================
dsm_loss, DenoisingScoreMatching         1/2 ||sigma_i s(x + sigma_i z, i) + z||^2, of a ladder
controlled_dsm_loss                      the same, less sigma z.s(x) + 1/2 (||z||^2 - D) where sigma < ``below``
single_dsm_loss                          1/2 ||sigma s + z||^2, or 1/2 ||s + z/sigma||^2, of one sigma
annealed_ssm_loss                        sigma^2 times ssm_loss at x + sigma z, of a ladder
ssm_loss, ism_loss(trace="hutchinson")   1/2 ||s||^2 + v^T J v
ssm_loss(variance_reduced=False)         1/2 (v.s)^2 + v^T J v
ism_loss                                 1/2 ||s||^2 + tr J
esm_loss                                 1/2 ||s - s*||^2, s* being the true score
=======================================  =======================================================================

Denoising ones take one forward pass, two where the control variate is; the sliced and implicit ones need second
derivatives, K backward passes for K projections, as many as there are elements for the exact trace.
"""

from fastlangevin.losses.controlled import controlled_dsm_loss
from fastlangevin.losses.dsm import DenoisingScoreMatching, PerLevel, dsm_labels, dsm_loss
from fastlangevin.losses.explicit import esm_loss
from fastlangevin.losses.implicit import ism_loss
from fastlangevin.losses.projections import projection_vectors
from fastlangevin.losses.single import single_dsm_loss
from fastlangevin.losses.sliced import annealed_ssm_loss, ssm_loss

__all__ = [
    "DenoisingScoreMatching",
    "PerLevel",
    "annealed_ssm_loss",
    "controlled_dsm_loss",
    "dsm_labels",
    "dsm_loss",
    "esm_loss",
    "ism_loss",
    "projection_vectors",
    "single_dsm_loss",
    "ssm_loss",
]
