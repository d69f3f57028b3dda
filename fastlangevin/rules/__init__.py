"""Rules: the coefficients (c, a, b) of one update x <- c*x + a*s + b*z. Pure numbers, no tensors.

s is the true score of the perturbed data, whatever the network returns (:func:`fastlangevin.adapt`), and z ~ N(0, I).
Level i is sigma, the next one sigma' (0 after the last), gamma = sigma'/sigma; alpha_i = epsilon sigma^2/sigma_L^2 with
the paper's epsilon = 2 step_lr, eta = alpha/(2 sigma^2); T is a temperature. beta and alpha_bar are those of
:mod:`fastlangevin.rules.beta_schedules`, beta(t)/N for the Euler steps. A list has one rule for each level or step, in
the order of sampling: the most noise first.

======================  ==================  ================================  =====================================
rule                    c                   a                                 b
======================  ==================  ================================  =====================================
langevin                1                   alpha/2                           sqrt(T alpha)
ornstein_uhlenbeck      1                   eta sigma^2 = alpha/2             sigma sqrt(T (1 - (1 - eta)^2))
annealed                as either of the two, alpha = alpha_i
consistent              1                   eta sigma^2                       sigma' sqrt(1 - ((1 - eta)/gamma)^2)
signal_to_noise         1                   2 alpha (snr ||z||/||s||)^2       sqrt(2 a)
annealed_corrector      1                   2 alpha (snr std)^2               sqrt(2 a)
ve_reverse_diffusion    1                   sigma^2 - sigma'^2                sqrt(a)
ve_ancestral            1                   sigma^2 - sigma'^2                sigma' sqrt(a)/sigma
ve_euler_maruyama       1                   2 sigma^2 ln(sigma_1/sigma_L)/L   sqrt(a)
ve_probability_flow     1                   (sigma^2 - sigma'^2)/2            none
euler_ancestral         1                   sigma (sigma - sigma_down)        s_noise sigma_up
vp_reverse_diffusion    2 - sqrt(1 - beta)  beta                              sqrt(beta)
vp_ancestral            1/sqrt(1 - beta)    beta/sqrt(1 - beta)               sqrt(beta)
vp_euler_maruyama       1 + beta/2          beta                              sqrt(beta)
vp_probability_flow     2 - sqrt(1 - beta)  beta/2                            none
subvp_euler_maruyama    1 + beta/2          beta (1 - alpha_bar^2)            sqrt(a)
subvp_probability_flow  1 + beta/2          beta/2 (1 - alpha_bar^2)          none
ddpm_ancestral          1/sqrt(1 - beta)    beta/sqrt(1 - beta)               as named; none in the last
denoise                 1                   sigma^2                           none
vp_denoise              1/sqrt(alpha_bar)   (1 - alpha_bar)/sqrt(alpha_bar)   none
======================  ==================  ================================  =====================================

======================  ======================================================================================
rule                    source
======================  ======================================================================================
langevin, annealed      Song and Ermon 2019, Algorithm 1. Published as step = alpha/2 and sqrt(2 step) by NCSN, NCSNv2,
                        sbi, deepinv, blackjax, SGMCMCJax's sgld, torchebm (with sqrt(T) as ``noise_scale``)
ornstein_uhlenbeck      exact step; azula's corrector, eta = 1 - sqrt(1 - delta)
consistent              Jolicoeur-Martineau et al. 2021; AdversarialConsistentScoreMatching, eta = step_lr/sigma_L^2
signal_to_noise         Song et al. 2021, Algorithms 4 and 5; score_sde ``langevin``, diffusers ``step_correct``
annealed_corrector      score_sde ``ald``
``ve_*``                Song et al. 2021; score_sde VESDE, diffusers ``step_pred``
euler_ancestral         k-diffusion ``sample_euler_ancestral``; Karras et al. 2022 for eta = 0
``vp_*``, ``subvp_*``   Song et al. 2021; score_sde VPSDE and subVPSDE
ddpm_ancestral          Ho et al. 2020
denoise, vp_denoise     Tweedie's formula; the last step of NCSNv2
======================  ======================================================================================
"""

from fastlangevin.rules.beta_schedules import Betas, LinearBeta, alpha_bars
from fastlangevin.rules.coefficients import Coefficients
from fastlangevin.rules.consistent_sampling import consistent
from fastlangevin.rules.correctors import SignalNorm, annealed_corrector, signal_to_noise
from fastlangevin.rules.ddpm import PosteriorVariance, ddpm_ancestral
from fastlangevin.rules.langevin_dynamics import Corrector, annealed, langevin, ornstein_uhlenbeck, step_size
from fastlangevin.rules.tweedie import denoise, vp_denoise
from fastlangevin.rules.variance_exploding import (
    euler_ancestral,
    ve_ancestral,
    ve_euler_maruyama,
    ve_probability_flow,
    ve_reverse_diffusion,
)
from fastlangevin.rules.variance_preserving import (
    subvp_euler_maruyama,
    subvp_probability_flow,
    vp_ancestral,
    vp_euler_maruyama,
    vp_probability_flow,
    vp_reverse_diffusion,
)

__all__ = [
    "Betas",
    "Coefficients",
    "Corrector",
    "LinearBeta",
    "PosteriorVariance",
    "SignalNorm",
    "alpha_bars",
    "annealed",
    "annealed_corrector",
    "consistent",
    "ddpm_ancestral",
    "denoise",
    "euler_ancestral",
    "langevin",
    "ornstein_uhlenbeck",
    "signal_to_noise",
    "step_size",
    "subvp_euler_maruyama",
    "subvp_probability_flow",
    "ve_ancestral",
    "ve_euler_maruyama",
    "ve_probability_flow",
    "ve_reverse_diffusion",
    "vp_ancestral",
    "vp_denoise",
    "vp_euler_maruyama",
    "vp_probability_flow",
    "vp_reverse_diffusion",
]
