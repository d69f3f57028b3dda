"""Score networks: called as ``net(x, labels)``, they return the score of the level that each label names."""

from fastlangevin.models.conv import ConvConfig, ConvScore
from fastlangevin.models.mlp import MLP, MLPConfig

__all__ = ["MLP", "ConvConfig", "ConvScore", "MLPConfig"]
