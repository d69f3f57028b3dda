"""Readers for published checkpoints: the public name of :mod:`fastlangevin.storage.published`."""

from fastlangevin.storage.published import Published, load_published

__all__ = ["Published", "load_published"]
