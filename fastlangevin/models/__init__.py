"""Score networks: called as ``net(x, labels)``, they return the score of the level that each label names."""

from fastlangevin.models.conv import ConvConfig, ConvScore
from fastlangevin.models.inference import for_sampling
from fastlangevin.models.mlp import MLP, MLPConfig
from fastlangevin.models.ncsn import NCSN, NCSNConfig
from fastlangevin.models.ncsnv2 import NCSNv2, NCSNv2Config, NCSNv2Deeper, NCSNv2Deepest

__all__ = [
    "MLP",
    "NCSN",
    "ConvConfig",
    "ConvScore",
    "MLPConfig",
    "NCSNConfig",
    "NCSNv2",
    "NCSNv2Config",
    "NCSNv2Deeper",
    "NCSNv2Deepest",
    "for_sampling",
]
