"""Other code bases' names and signatures, over this package's kernels and addressed noise.

======================  ====================================================================================
module                  stands in for
======================  ====================================================================================
``compat.diffusers``    diffusers: schedulers for annealed Langevin dynamics and the variance exploding SDE
``compat.ncsn``         ermongroup/ncsn: samplers and objectives, with ``fastlangevin.patch("ncsn")``
``compat.ncsnv2``       ermongroup/ncsnv2: samplers and the objective, with ``fastlangevin.patch("ncsnv2")``
======================  ====================================================================================

Each module is imported by its name and says in its docstring where it deviates from what it stands in for; one that
needs another library is the only part of the package that imports it.
"""
