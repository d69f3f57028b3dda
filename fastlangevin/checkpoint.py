"""Checkpoints of networks: the public name of :mod:`fastlangevin.storage.checkpoint`."""

from fastlangevin.storage.checkpoint import Checkpoint, load, save

__all__ = ["Checkpoint", "load", "save"]
