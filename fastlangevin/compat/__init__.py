"""Other code bases' names and signatures, over this package's kernels and addressed noise.

======================  ====================================================================================
module                  stands in for
======================  ====================================================================================
``compat.diffusers``    diffusers: schedulers for annealed Langevin dynamics and the variance exploding SDE
``compat.score_sde``    score_sde(_pytorch): the SDEs, predictors and correctors, the predictor-corrector
                        sampler, inpainting, colouring, the losses, with ``fastlangevin.patch("score_sde")``
``compat.k_diffusion``  k-diffusion: ``noise_sampler`` for its samplers, and ``sample_euler_ancestral``
``compat.ncsn``         ermongroup/ncsn: samplers and objectives, with ``fastlangevin.patch("ncsn")``
``compat.ncsnv2``       ermongroup/ncsnv2: samplers and the objective, with ``fastlangevin.patch("ncsnv2")``
======================  ====================================================================================

Each module is imported by its name, ``from fastlangevin.compat import score_sde``, and says in its docstring where it
deviates from what it stands in for; one that needs another library is the only part of the package that imports it.
They have no mathematics of their own: the coefficients are those of :mod:`fastlangevin.rules`, the update is
:func:`fastlangevin.step`. What is new is keyword-only: ``seed=`` or ``generator=``, ``sample_ids=`` and
``sample_offset=``. A state that is NaN or infinite, which the code bases return without a word, raises
:class:`fastlangevin.NonFiniteError`. No tensor of the caller's is changed.
"""
