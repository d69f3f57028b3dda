"""Faults of tables and of what makes their rows."""

from tests.long.faults.fault import Fault

__all__ = ["TABLES"]

TABLE = "fastlangevin/schemes/table.py"
SCHEME = "fastlangevin/schemes/scheme.py"
LAW = "fastlangevin/schemes/law.py"
STEPPING = "fastlangevin/samplers/stepping.py"
SIGNAL = "fastlangevin/samplers/signal.py"
DEVICE_STEPS = "fastlangevin/samplers/device_steps.py"
CHAINS = "fastlangevin/compat/score_sde/chains.py"
SCHEMES = "tests/test_schemes.py"
ROWS = "tests/test_rows.py"
SCORE_SDE = "tests/test_score_sde_sampling.py"
STAND_INS = "tests/test_stand_ins.py"

TABLES = (
    Fault(
        "the law of a step's factor and not of its square",
        "formula",
        LAW,
        "step.matrix[0, 0], step.matrix[0, 0] ** 2, step.noise",
        "step.matrix[0, 0], step.matrix[0, 0], step.noise",
        (f"{SCHEMES}::test_laws_are_the_closed_forms",),
    ),
    Fault(
        "the law of several slots without their covariances",
        "formula",
        LAW,
        "step.matrix, covariance, step.matrix) + step.noise",
        "step.matrix, covariance * np.eye(carries).reshape(carries, carries, *[1] * len(shape)), step.matrix)"
        " + step.noise",
        (SCHEMES, "tests/test_advancing.py"),
    ),
    Fault(
        "a level's last step made with the next one's numbers",
        "levels",
        "fastlangevin/schemes/by_level.py",
        "bisect_right(self.ends, number)",
        "bisect_right(self.ends, number + 1)",
        (SCHEMES,),
    ),
    Fault(
        "noise first: the noise added again by the update",
        "order of operations",
        SCHEME,
        "row = row._replace(b=None)",
        "row = row._replace(b=row.b)",
        ("tests/test_moves.py", SCHEMES),
    ),
    Fault(
        "draws that begin at zero where the initial state has the first ones",
        "address",
        SCHEME,
        "self.draws_per_step == 1 and not self.first_draw and",
        "self.draws_per_step == 1 and",
        (f"{ROWS}::test_draws_may_begin_after_those_of_the_initial_state",),
    ),
    Fault(
        "a measured row with the first draw of its step",
        "address",
        STEPPING,
        'return Move("x", {"x": c, into: a}, b, row.draw)',
        'return Move("x", {"x": c, into: a}, b)',
        (SCORE_SDE,),
    ),
    Fault(
        "a result read after the next call is not kept",
        "address",
        TABLE,
        "return at is not None",
        "return False",
        (SCHEMES, ROWS),
    ),
    Fault(
        "a step with a function looked at as its moves are",
        "watching",
        STEPPING,
        "fault = None if making.step.applies else self.watch.fault",
        "fault = self.watch.fault",
        (f"{SCORE_SDE}::test_what_a_known_region_replaces_need_not_be_finite",),
    ),
    Fault(
        "a state that is finite again stays recorded",
        "watching",
        "fastlangevin/samplers/watching.py",
        "if mends and not self.freeze:",
        "if mends and self.freeze:",
        (f"{ROWS}::test_a_step_with_a_function_is_looked_at_when_it_ends",),
    ),
    Fault(
        "norms of a step's first evaluation kept beside those of its last",
        "watching",
        STEPPING,
        "if given.telemetry is not None and making.step.scores_last(making.row):",
        "if given.telemetry is not None:",
        (STAND_INS,),
    ),
    Fault(
        "a corrector's noise by alpha and not by its root",
        "power",
        SIGNAL,
        "root = alpha.sqrt() if isinstance(alpha, Tensor) else math.sqrt(alpha)",
        "root = alpha",
        ("tests/test_score_sde.py", SCORE_SDE, STAND_INS),
    ),
    Fault(
        "replays of the alpha of the first step",
        "levels",
        DEVICE_STEPS,
        "self.alphas[:, : len(steps)].copy_(alphas.T)",
        "self.alphas[:, : len(steps)].copy_(alphas.T[:, :1])",
        (STAND_INS,),
    ),
    Fault(
        "score_sde: the noise of the last update kept where its mean is asked for",
        "denoise step",
        CHAINS,
        "noisy = b is not None and not means",
        "noisy = b is not None",
        (f"{SCORE_SDE}::test_a_run_is_the_published_loop",),
    ),
    Fault(
        "score_sde: the posterior mean of the data by its factor twice",
        "power",
        CHAINS,
        '"score": a / factor}',
        '"score": a / factor**2}',
        (f"{SCORE_SDE}::test_without_a_predictor_denoise_is_the_step_to_the_posterior_mean_unless_strict",),
    ),
    Fault(
        "score_sde: a known region with the noise of the predictor",
        "address",
        "fastlangevin/compat/score_sde/known.py",
        "address._replace(purpose=int(Purpose.INPAINTING))",
        "address._replace(purpose=int(Purpose.LANGEVIN))",
        (f"{SCORE_SDE}::test_inpainting_is_the_published_loop_and_strict_its_errata",),
    ),
    Fault(
        "the gradient of an objective in memory of the perturbed samples",
        "workspace",
        "fastlangevin/ops/small_dsm.py",
        "if workspace is None else workspace.gradient",
        "if workspace is None else workspace.perturbed",
        ("tests/test_small_objective.py",),
    ),
    Fault(
        "a workspace that is given away before the backward pass",
        "workspace",
        "fastlangevin/ops/workspace.py",
        "if pending is not None and not pending.done:",
        "if pending is not None and pending.done:",
        ("tests/test_small_objective.py",),
    ),
    Fault(
        "labels that were written to are not checked again",
        "validation",
        "fastlangevin/models/base.py",
        "kept._version == self.version and",
        "True and",
        ("tests/test_kept_by_networks.py",),
    ),
    Fault(
        "the frame of a ladder that was written to since",
        "levels",
        "fastlangevin/models/frame.py",
        "and sigmas._version == self.version",
        "and True",
        ("tests/test_kept_by_networks.py",),
    ),
    Fault(
        "a resumed list counts the states before it from zero",
        "resume",
        "fastlangevin/compat/lists.py",
        "0 if resume is None else resume.step)",
        "0)",
        (f"{STAND_INS}::test_a_strict_list_goes_on_where_it_stopped",),
    ),
)
