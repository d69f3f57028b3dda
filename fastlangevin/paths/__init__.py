"""Weights of Brownian increments as sums of addressed normals. Pure numbers, no tensors.

No sampler uses a path yet, so that this package has no module.
"""
