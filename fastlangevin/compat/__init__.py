"""Samplers and objectives with the names, signatures and defaults of other code bases, one module for each.

They are thin: each calls what :mod:`fastlangevin` has, says how it differs from what was published, and leaves the
caller's tensors alone. :func:`fastlangevin.patch` puts them into a checkout of such a code base.
"""
