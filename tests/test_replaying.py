"""Updates that read from tensors what changes: the bits of the loop's own, and what happens where there is no capture.

No graph is captured here: :class:`StandInGraphs` says what its tests show. ``test_cuda_graph.py`` has the rest.
"""

import itertools
import logging

import pytest
import torch

import fastlangevin as fl
from fastlangevin.samplers import device_steps, replaying

LADDER = fl.geometric_sigmas(1.0, 0.1, 4)
SHAPE = (5, 2, 3, 3)


class StandInGraphs:
    """Keeps the function that it is to capture, and calls it for a replay.

    It shows that updates read all that changes from tensors, that what is captured is replayed and nothing else, and
    what becomes of a chain when capturing fails. It does not show that an update can be captured, nor what freezes in
    a graph: a call runs the Python of the score again, which a replay does not, and its tensors are new, where those
    of a graph stay. That is what the tests marked gpu are for.
    """

    def __init__(self, fails=None):
        self.fails = fails
        self.captured = self.replayed = self.closed = 0

    def _fail(self, where):
        if self.fails == where:
            raise RuntimeError(f"the {where} fails")

    def warm(self, update):
        update()
        self._fail("warm-up")
        update()

    def capture(self, update):
        update()
        self._fail("capture")
        self.captured += 1

        def replay():
            self.replayed += 1
            update()

        return replay

    def close(self):
        self.closed += 1


def score(x, labels):
    scale = LADDER.to(x.dtype)[labels].reshape(-1, *(1,) * (x.ndim - 1))
    return -torch.sin(3 * x) / (scale**2 + 0.1)


def annealed(**options):
    fixed = {"epsilon": 2e-3, "steps_per_level": 5, "seed": 11}
    shape = {} if "init" in options else {"shape": SHAPE}
    return fl.annealed_langevin(score, LADDER, **{**fixed, **shape, **options})


def corrected(**options):
    return fl.predictor_corrector(score, LADDER, **{"snr": 0.1, "seed": 3, "shape": SHAPE[1:], **options})


def consistent(**options):
    return fl.consistent_annealed(score, LADDER, **{"epsilon": 0.012, "seed": 3, "shape": SHAPE, **options})


def unadjusted(**options):
    fixed = {"init": fl.randn(SHAPE, seed=1, dtype=options.pop("dtype", torch.float32)), "steps": 7, "seed": 5}
    return fl.langevin(lambda x: -torch.sin(x), **{"epsilon": 0.1, **fixed, **options})


CHAINS = {
    "annealed": (annealed, {}),
    "corrected steps": (annealed, {"corrector": "ou", "temperature": 0.5, "denoise": True}),
    "noise first": (annealed, {"order": "noise"}),
    "drift and clamp": (annealed, {"drift": lambda x, labels: labels.view(-1, 1, 1, 1) - x, "clamp": (0.1, 0.8)}),
    "seeds and ids": (annealed, {"seed": torch.tensor([-3, 5, 2, 2, 0]), "sample_ids": [7, 2**50, 1, 0, 3]}),
    "offset": (annealed, {"seed": 2**64 - 1, "sample_offset": 2**40}),
    "fp16": (annealed, {"dtype": torch.float16}),
    "fp64": (annealed, {"dtype": torch.float64, "shape": (3, 7)}),
    "langevin": (unadjusted, {"dtype": torch.bfloat16}),
    "noise first, one level": (unadjusted, {"order": "noise"}),
    "consistent": (consistent, {"denoise": True}),
    "predictor-corrector": (corrected, {"corrector_steps": 1}),
    "of a batch": (corrected, {"norm": "batch", "predictor": "ancestral", "denoise": True}),
    "of its size": (corrected, {"norm": "sqrt_d", "predictor": "none", "corrector_steps": 1}),
    "no noise": (corrected, {"predictor": "probability_flow", "corrector_steps": 0}),
}


@pytest.fixture
def graphs(monkeypatch):
    """Puts a stand-in in place of CUDA graphs, on CPU tensors."""

    def put(**options):
        stand_in = StandInGraphs(**options)
        monkeypatch.setattr(replaying, "graphs_for", lambda device: stand_in)
        return stand_in

    replaying._tell.cache_clear()
    return put


@pytest.mark.parametrize("name", CHAINS)
def test_updates_of_tensors_have_the_bits_of_the_loop(name, impl, graphs):
    chain, options = CHAINS[name]
    options = {**options, "impl": impl}
    if chain is annealed:
        options["steps_per_level"] = 2
    want = chain(**options, cuda_graph=False)
    stand_in = graphs()
    assert torch.equal(chain(**options, cuda_graph=True), want)
    assert stand_in.captured in (1, 2)
    assert stand_in.replayed >= 3
    assert stand_in.closed == 1


@pytest.mark.parametrize("fault", ["draw", "place", "narrow", "level"])
def test_a_fault_in_the_tables_is_seen(fault, graphs, monkeypatch, caplog):
    seek, fill = device_steps.DeviceSteps.seek, device_steps.DeviceSteps._fill

    def wrong_seek(self, index, counters=None):
        seek(self, index, counters)
        counters = self.counters if counters is None else counters
        counters[0 if fault == "draw" else slice(1, None)] += 1

    def wrong_fill(self, index):
        fill(self, index)
        if fault == "narrow":
            self.table.copy_(self.table.half())
        else:
            self.levels.zero_()

    if fault in ("draw", "place"):
        # At the last update of all the next place is past the table.
        monkeypatch.setattr(device_steps.DeviceSteps, "last", lambda self, kind: 7)
        monkeypatch.setattr(device_steps.DeviceSteps, "seek", wrong_seek)
    else:
        monkeypatch.setattr(device_steps.DeviceSteps, "_fill", wrong_fill)
    graphs()
    with pytest.raises(RuntimeError, match="other bits than the loop's"):
        annealed(cuda_graph=True, steps_per_level=4)
    monkeypatch.setattr(replaying, "WORTH", 5)
    assert torch.equal(annealed(steps_per_level=4), annealed(steps_per_level=4, cuda_graph=False))
    assert "other bits than the loop's" in caplog.text


def test_a_chain_longer_than_a_table(graphs, monkeypatch):
    want = corrected(cuda_graph=False, corrector_steps=3)
    monkeypatch.setattr(device_steps, "WINDOW", 6)
    stand_in = graphs()
    assert torch.equal(corrected(cuda_graph=True, corrector_steps=3), want)
    # Of the six updates of a table one or two are the predictor's: two captures, each compared once.
    assert stand_in.captured == 2
    assert 12 <= stand_in.replayed <= 16 + 2


def test_callbacks_frames_stops_and_resumes(graphs):
    def meddle(info):
        levels.append(info.level)
        if info.step == 7:
            info.x.mul_(0.5)
        return info.step == stop

    results = []
    for mode in (False, True):
        levels, stop = [], 12
        stand_in = graphs()
        half = annealed(cuda_graph=mode, callback=meddle, trajectory=3, full_output=True)
        stop = None
        whole = annealed(
            cuda_graph=mode,
            callback=meddle,
            trajectory=3,
            full_output=True,
            seed=None,
            resume=half.state,
            denoise=False,
        )
        assert stand_in.closed == (2 if mode else 0)
        results.append((half, whole, levels))
    (half, whole, levels), (replayed_half, replayed_whole, replayed_levels) = results
    assert levels == replayed_levels
    for one, other in ((half, replayed_half), (whole, replayed_whole)):
        assert torch.equal(one.samples, other.samples)
        assert torch.equal(one.trajectory, other.trajectory)
        assert one.evaluations == other.evaluations
        assert one.state.step == other.state.step


def test_autograd_sees_the_writes_of_replays(graphs):
    versions = []
    graphs()
    annealed(cuda_graph=True, callback=lambda info: versions.append(info.x._version))
    assert all(later > earlier for earlier, later in itertools.pairwise(versions))


@pytest.mark.parametrize("where", ["warm-up", "capture"])
def test_a_failure_leaves_no_trace(where, graphs, monkeypatch, caplog):
    monkeypatch.setattr(replaying, "WORTH", 5)

    def noisy(x, labels):
        return score(x, labels) + torch.rand_like(x)

    options = {"epsilon": 2e-3, "steps_per_level": 5, "seed": 11, "shape": SHAPE}
    torch.manual_seed(0)
    want = fl.annealed_langevin(noisy, LADDER, **options, cuda_graph=False)
    after = torch.get_rng_state()
    stand_in = graphs(fails=where)
    for _ in range(2):
        torch.manual_seed(0)
        assert torch.equal(fl.annealed_langevin(noisy, LADDER, **options), want)
        assert torch.equal(torch.get_rng_state(), after)
    assert caplog.text.count(f"the {where} fails") == 1
    assert (stand_in.replayed, stand_in.closed) == (0, 2)
    assert torch.is_autocast_cache_enabled()
    with pytest.raises(RuntimeError, match=f"cuda_graph=True cannot be done.*the {where} fails"):
        fl.annealed_langevin(noisy, LADDER, **options, cuda_graph=True)


def test_random_numbers_of_the_score_go_on_as_in_the_loop(graphs):
    def noisy(x, labels):
        return score(x, labels) + torch.rand_like(x)

    results = []
    for mode in (False, True):
        stand_in = graphs()
        torch.manual_seed(0)
        options = {"epsilon": 2e-3, "steps_per_level": 5, "seed": 11, "shape": SHAPE}
        results.append((fl.annealed_langevin(noisy, LADDER, **options, cuda_graph=mode), torch.get_rng_state()))
    assert stand_in.replayed
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_score_that_differs_from_call_to_call_is_found(graphs):
    calls = []

    def counting(x, labels):
        calls.append(0)
        return score(x, labels) * len(calls)

    graphs()
    with pytest.raises(RuntimeError, match="in Python differs from call to call"):
        fl.annealed_langevin(counting, LADDER, epsilon=2e-3, steps_per_level=5, shape=SHAPE, cuda_graph=True)


def test_the_casts_of_autocast_are_part_of_the_graph(graphs):
    weight = torch.nn.Linear(9, 9)
    seen = []

    def net(x, labels):
        seen.append(torch.is_autocast_cache_enabled())
        return weight(x.flatten(2)).view(x.shape)

    options = {"epsilon": 2e-3, "steps_per_level": 5, "seed": 11, "shape": (5, 2, 3, 3)}
    with torch.autocast("cpu", torch.bfloat16):
        want = fl.annealed_langevin(net, LADDER, **options, cuda_graph=False)
        assert all(seen)
        seen.clear()
        graphs()
        assert torch.equal(fl.annealed_langevin(net, LADDER, **options, cuda_graph=True), want)
        # Of the loop, for the comparison; the warm-up and the capture; then replays.
        assert seen[:4] == [True, False, False, False]
        assert all(seen[4:])


def test_only_what_is_worth_it_is_captured(graphs):
    for steps, captured in ((99, 0), (100, 1)):
        stand_in = graphs()
        unadjusted(steps=steps)
        assert (stand_in.captured, stand_in.replayed) == (captured, captured * (steps + 1))
    stand_in = graphs()
    half = unadjusted(steps=150, full_output=True, callback=lambda info: info.step == 60, cuda_graph=False)
    unadjusted(steps=150, resume=half.state, seed=None)
    assert not stand_in.captured
    stand_in = graphs()
    consistent(cuda_graph=True)
    # Its last update adds no noise and is the only one of its kind.
    assert (stand_in.captured, stand_in.replayed) == (1, 3 + 1)


def test_what_cannot_be_captured_says_so(graphs, caplog):
    caplog.set_level(logging.INFO)
    region = fl.Inpainting(torch.ones(SHAPE, dtype=torch.bool), torch.zeros(SHAPE))
    stand_in = graphs()
    with pytest.raises(ValueError, match=r"cuda_graph=True cannot be done: with inpainting="):
        annealed(inpainting=region, cuda_graph=True)
    with pytest.raises(ValueError, match="outside of the update"):
        fl.interpolation(score, LADDER, points=3, epsilon=2e-3, steps_per_level=2, shape=SHAPE, cuda_graph=True)
    annealed(inpainting=region, steps_per_level=30)
    assert not stand_in.captured
    # On a CPU nobody expects a CUDA graph: nothing is said.
    assert not caplog.records


def test_a_score_s_own_error_comes_through(graphs, monkeypatch):
    monkeypatch.setattr(replaying, "WORTH", 5)

    def broken(x, labels):
        raise LookupError("no such level")

    graphs()
    with pytest.raises(LookupError, match="no such level"):
        fl.annealed_langevin(broken, LADDER, epsilon=2e-3, steps_per_level=5, shape=SHAPE)


def test_states_without_elements(graphs):
    stand_in = graphs()
    assert annealed(shape=(0, 3), cuda_graph=True).shape == (0, 3)
    assert not stand_in.captured


def test_a_coefficient_out_of_range_is_refused_as_by_the_loop(graphs, monkeypatch):
    monkeypatch.setattr(replaying, "WORTH", 5)
    graphs()
    with pytest.raises(ValueError, match="a must be finite"):
        unadjusted(epsilon=1e39)
