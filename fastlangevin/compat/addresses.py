"""Addresses for functions that take a user's options."""

from __future__ import annotations

from fastlangevin.noise import Address, SampleOptions

__all__ = ["samples_of"]


def samples_of(address: Address) -> SampleOptions:
    """The seed and the samples of an address, as options: whoever takes them checks them for its own batch."""
    return {"seed": address.seed, "sample_ids": address.sample_ids, "sample_offset": address.sample_offset}
