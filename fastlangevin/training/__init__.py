"""Training a score network by score matching."""

from fastlangevin.training.average import Average
from fastlangevin.training.config import TrainConfig
from fastlangevin.training.trainer import Places, train

__all__ = ["Average", "Places", "TrainConfig", "train"]
