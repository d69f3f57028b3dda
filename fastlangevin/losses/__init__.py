"""Score matching objectives."""

from fastlangevin.losses.controlled import controlled_dsm_loss
from fastlangevin.losses.denoising import DenoisingScoreMatching, PerLevel, dsm_labels, dsm_loss
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
