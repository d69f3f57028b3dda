"""score_sde and score_sde_pytorch (Song et al. 2021): their names and signatures on this package's kernels.

``VESDE``, ``VPSDE``, ``subVPSDE``; the registries of predictors (``euler_maruyama``, ``reverse_diffusion``,
``ancestral_sampling``, ``none``) and correctors (``langevin``, ``ald``, ``none``); ``get_pc_sampler``,
``get_pc_inpainter``, ``get_pc_colorizer``; ``get_score_fn``; the losses. ``fastlangevin.patch("score_sde")`` puts them
into a checkout of the PyTorch one. Not here: the ODE sampler, likelihoods, ``reverse`` of a diffusion, configurations,
checkpoints (:mod:`fastlangevin.published` reads them).

Deviations, by name:

- *addresses*: noise is a function of (seed, sample, draw), a draw for each update, not of PyTorch's generator.
- *devices*: everything follows the tensors it is given. The published VESDE and ancestral predictor index a table on
  the CPU with a CUDA tensor, an error in current PyTorch. Coefficients come from fp64 tables.
- *known region* (``strict=True`` restores it): the mean of the inpainter and of the colouring keeps the update's mean
  in the sought region, where the published one is rebuilt from the noisy state, so that ``denoise`` does not denoise
  it; and the known region starts with the noise of T, where the published one starts without.
- *denoise without a predictor* (``strict=True`` restores it): with the predictor ``none`` the published ``denoise``
  does nothing; here it is the step to the posterior mean.
- *nfe* counts the calls of the network; the published number is N (n_steps + 1), whatever is left out.
- *rounding of times*: a time that fp32 puts a rounding below its place in the ladder counts as of that place.
- *options*: the samplers take those of :class:`fastlangevin.samplers.RunOptions`, an update being the corrector and
  the predictor of a time. ``resume`` and ``cuda_graph=True`` need predictors and correctors of this module;
  ``cuda_graph=True`` also that nothing of the data is known.
- *not finite*: a state that is NaN or infinite raises :class:`fastlangevin.NonFiniteError`, at the end or within 32
  times; the published samplers return it. It names the samples, and the place among the N times, from 0, as update and
  as level. A value that a known region replaces does not count, nor does what ``inverse_scaler`` makes.
- *N is fixed*: tables are made for it, and setting it is an error; make another diffusion.

As published, where one could wish otherwise:

- ``norm="batch"``, the default, couples samples: use ``"sample"`` or ``"sqrt_d"``.
- The corrector comes before the predictor, and the last sample has no corrector.
- The correctors' alpha for VP is 1 - beta_i, where the paper has the cumulative product.
- ``ald`` takes the standard deviation at the continuous time: at eps = 1e-5 the last sigma of 0.01 .. 50 is 1.000085
  sigma_min. The chain starts from N(0, sigma_max^2), not from NCSN's uniform.
- The place of a time is the floor of t (N - 1): where eps (N - 1) is 1 or more, such as VP with N = 2000 and
  eps = 1e-3, late steps take the place above theirs, and place 0 is not reached.
- A network that is a ``torch.nn.Module`` is put in evaluation mode by sampling, and left in it.
"""

from fastlangevin.compat.score_sde.controllable import get_pc_colorizer, get_pc_inpainter
from fastlangevin.compat.score_sde.correctors import (
    AnnealedLangevinDynamics,
    Corrector,
    LangevinCorrector,
    NoneCorrector,
)
from fastlangevin.compat.score_sde.draws import AddressedNoise
from fastlangevin.compat.score_sde.losses import get_ddpm_loss_fn, get_sde_loss_fn, get_smld_loss_fn
from fastlangevin.compat.score_sde.predictors import (
    AncestralSamplingPredictor,
    EulerMaruyamaPredictor,
    NonePredictor,
    Predictor,
    ReverseDiffusionPredictor,
)
from fastlangevin.compat.score_sde.registry import (
    get_corrector,
    get_predictor,
    register_corrector,
    register_predictor,
)
from fastlangevin.compat.score_sde.sampling import PCOptions, get_pc_sampler
from fastlangevin.compat.score_sde.scores import get_model_fn, get_score_fn
from fastlangevin.compat.score_sde.sde import SDE, VESDE, VPSDE, subVPSDE

__all__ = [
    "SDE",
    "VESDE",
    "VPSDE",
    "AddressedNoise",
    "AncestralSamplingPredictor",
    "AnnealedLangevinDynamics",
    "Corrector",
    "EulerMaruyamaPredictor",
    "LangevinCorrector",
    "NoneCorrector",
    "NonePredictor",
    "PCOptions",
    "Predictor",
    "ReverseDiffusionPredictor",
    "get_corrector",
    "get_ddpm_loss_fn",
    "get_model_fn",
    "get_pc_colorizer",
    "get_pc_inpainter",
    "get_pc_sampler",
    "get_predictor",
    "get_score_fn",
    "get_sde_loss_fn",
    "get_smld_loss_fn",
    "register_corrector",
    "register_predictor",
    "subVPSDE",
]
