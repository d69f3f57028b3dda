"""Bad calls of the rules: ladders and schedules they do not fit, numbers out of range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from bad_call_row import INF, NAN, Row
from rule_calls import BETAS, LADDER, RULE_CALLS
from well_formed_calls import Arguments


def _taking(name: str) -> list[str]:
    """The rules that have an argument of this name."""
    return [call for call, (_, make) in RULE_CALLS.items() if name in make(Path())]


def _every(argument: str, name: str, value: Any, error: type[Exception], *says: str) -> list[Row]:
    """A bad value is refused alike by every rule that takes it."""
    return [
        Row(f"{name} {argument}", call, lambda k: {argument: value}, error, (argument, *says))
        for call in _taking(argument)
    ]


def _one(call: str, argument: str, value: Any, error: type[Exception], *says: str, good: Any = None) -> Row:
    mended: Arguments = {} if good is None else {argument: good}
    return Row(
        f"{argument} {value!r}",
        f"rules.{call}",
        lambda k: {argument: value},
        error,
        (argument, *says),
        lambda k: mended,
    )


RULES = [
    *_every("ladder", "ascending", LADDER[::-1], ValueError, "decrease strictly", "largest first"),
    *_every("ladder", "constant", [0.5, 0.5], ValueError, "decrease strictly", "ladder[0] = 0.5"),
    *_every("ladder", "empty", [], ValueError, "at least one"),
    *_every("ladder", "negative", [1.0, -0.5], ValueError, "ladder[1]", "-0.5"),
    *_every("ladder", "scalar", 1.0, TypeError, "geometric_sigmas", "1.0"),
    *_every("ladder", "text", "1.0", TypeError, "geometric_sigmas", "'1.0'"),
    *_every("ladder", "nested", torch.ones(2, 2), ValueError, "one-dimensional", "ladder.flatten()"),
    *_every("betas", "descending", BETAS[::-1], ValueError, "beta_1", "descends from 0.3 to 0.1", "betas[::-1]"),
    *_every("betas", "one of one", [0.1, 1.0], ValueError, "betas[1]", "between 0 and 1", "1.0"),
    *_every("betas", "zero", [0.0, 0.1], ValueError, "betas[0]", "above zero", "0.0"),
    *_every("betas", "NaN", [0.1, NAN], ValueError, "betas[1]", "finite", "nan"),
    *_every("betas", "empty", [], ValueError, "at least one step"),
    *_every("betas", "scalar", 0.1, TypeError, "LinearBeta().betas()", "0.1"),
    *_every("betas", "text", "0.1", TypeError, "LinearBeta().betas()", "'0.1'"),
    *_every("schedule", "betas for a", BETAS, TypeError, "LinearBeta", "list", "vp_reverse_diffusion"),
    *_every("snr", "zero", 0.0, ValueError, "above zero", "0.0"),
    *_every("snr", "negative", -0.16, ValueError, "above zero", "-0.16"),
    *_every("snr", "text", "0.16", TypeError, "number", "'0.16'"),
    _one("signal_to_noise", "ratio", INF, ValueError, "finite", "inf", good=0.7),
    _one("signal_to_noise", "ratio", 0.0, ValueError, "above zero", good=0.7),
    _one("signal_to_noise", "ratio", torch.ones(1), TypeError, "number", "multiply", good=1.0),
    _one("signal_to_noise", "alpha", 1.5, ValueError, "1 - beta", "1.5", good=1.0),
    _one("annealed_corrector", "alpha", 0.0, ValueError, "above zero", good=0.98),
    _one("annealed_corrector", "std", -1.0, ValueError, "above zero", "-1.0", good=1.0),
    *(
        _one(call, "temperature", value, error, says, good=0.0)
        for call in ("langevin", "ornstein_uhlenbeck", "annealed")
        for value, error, says in (
            (-0.1, ValueError, "not be negative"),
            (NAN, ValueError, "finite"),
            (True, TypeError, "number"),
        )
    ),
    _one("langevin", "alpha", 0.0, ValueError, "above zero"),
    _one("ornstein_uhlenbeck", "alpha", 1.0, ValueError, "4 sigma^2", "smaller", good=0.99),
    _one("annealed", "corrector", "cas", ValueError, "langevin, ou", "'cas'", good="ou"),
    _one("annealed", "epsilon", 0.0, ValueError, "above zero", good=0.02),
    _one("consistent", "epsilon", 0.06, ValueError, "0.06", "from 0.5 to 1.5", "gamma = 0.5", "0.0625", good=0.063),
    _one("consistent", "epsilon", 0.2, ValueError, "does not fit the ladder", "0.1875", "more levels", good=0.187),
    _one("consistent", "epsilon", -0.1, ValueError, "above zero"),
    _one("consistent", "ladder", [0.5], ValueError, "two levels", "[0.5]", "langevin"),
    _one("ve_euler_maruyama", "ladder", [0.5], ValueError, "two levels", "[0.5]", "ve_reverse_diffusion"),
    _one("ve_euler_maruyama", "ladder", [1.0, 0.6, 0.25], ValueError, "geometric", "ladder[1] = 0.6", "is not 0.5"),
    _one("euler_ancestral", "ladder", [0.0], ValueError, "ladder[0]", "above zero"),
    _one("euler_ancestral", "ladder", [1.0, 0.0, 0.0], ValueError, "ladder[1]", "above zero", good=[1.0, 0.0]),
    _one("euler_ancestral", "eta", -0.1, ValueError, "not be negative", "-0.1", good=0.0),
    _one("euler_ancestral", "eta", INF, ValueError, "finite", "inf", good=1.5),
    _one("euler_ancestral", "eta", "1", TypeError, "number", "'1'"),
    _one("euler_ancestral", "s_noise", -1.0, ValueError, "not be negative", "-1.0", good=0.0),
    _one("ddpm_ancestral", "variance", "learned", ValueError, "fixed_small, fixed_large", "'learned'"),
    _one("LinearBeta", "beta_min", 0.0, ValueError, "above zero", good=0.01),
    _one("LinearBeta", "beta_max", 0.05, ValueError, "beta_min", "0.05", good=0.1),
    _one("LinearBeta", "beta_max", 1000.0, ValueError, "beta_max/steps", "below 1", "more steps", good=999.0),
    _one("LinearBeta", "steps", 1, ValueError, "from 2", good=21),
    _one("LinearBeta", "steps", 10**6 + 1, ValueError, "to 1000000", good=10**6),
    _one("LinearBeta", "steps", 20, ValueError, "beta_max/steps", "20.0/20", good=21),
    _one("LinearBeta", "steps", 100.0, TypeError, "integer", good=100),
    _one("LinearBeta", "t_end", 0.0, ValueError, "above zero", good=1e-5),
    _one("LinearBeta", "t_end", 1.0, ValueError, "between 0 and 1", good=0.5),
    _one("LinearBeta.integral", "t", -0.5, ValueError, "not be negative", "-0.5", good=1.0),
    _one("denoise", "sigma", 0.0, ValueError, "above zero"),
    _one("vp_denoise", "alpha_bar", 1.0, ValueError, "between 0 and 1", "1.0"),
    _one("vp_denoise", "alpha_bar", 0.0, ValueError, "above zero", "0.0"),
    _one("vp_denoise", "alpha_bar", None, TypeError, "number", "None"),
]
