"""On a CUDA device: updates captured and replayed, against the loop's own, bit for bit."""

import contextlib
import logging

import pytest
import torch

import fastlangevin as fl
from fastlangevin.samplers import cuda_graph, replaying

pytestmark = pytest.mark.gpu

LADDER = fl.geometric_sigmas(1.0, 0.1, 10)
OPTIONS = {"shape": (7, 3, 9, 9), "epsilon": 1e-3, "steps_per_level": 12, "seed": 4, "device": "cuda"}


def score(x, labels):
    scale = 0.1 + 0.1 * labels.to(x.dtype).view(-1, 1, 1, 1)
    return -torch.sin(3 * x) * scale


def replays_of(monkeypatch):
    """How often graphs were replayed."""
    count = []
    capture = cuda_graph.CudaGraphs.capture

    def counting(self, update):
        replay = capture(self, update)

        def counted():
            count.append(0)
            replay()

        return counted

    monkeypatch.setattr(cuda_graph.CudaGraphs, "capture", counting)
    replaying._tell.cache_clear()
    return count


def everything_works():
    """Kernels, allocator, streams and generators, as a failed capture may leave them unusable."""
    assert not torch.cuda.is_current_stream_capturing()
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    x = torch.randn(1000, 1000, device="cuda")
    torch.manual_seed(1)
    first = torch.rand(10, device="cuda")
    torch.manual_seed(1)
    assert torch.equal(torch.rand(10, device="cuda"), first)
    assert (x @ x).isfinite().all()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = torch.rand_like(first)
    graph.replay()
    assert y.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": "noise", "denoise": True},
        {"clamp": (0.0, 1.0), "corrector": "ou"},
        {"drift": lambda x, labels: 0.3 - x},
        {"seed": torch.arange(7), "sample_ids": [5, 2**50, 1, 0, 3, 9, 2]},
    ],
    ids=", ".join,
)
def test_annealed_langevin(dtype, options, monkeypatch):
    count = replays_of(monkeypatch)
    options = {**OPTIONS, "dtype": dtype, **options}
    want = fl.annealed_langevin(score, LADDER, **options, cuda_graph=False)
    assert not count
    for mode in ("auto", True):
        assert torch.equal(fl.annealed_langevin(score, LADDER, **options, cuda_graph=mode), want)
    assert len(count) == 2 * (120 + 1)


def test_every_state_of_a_chain():
    results = [
        fl.annealed_langevin(score, LADDER, **OPTIONS, trajectory=1, full_output=True, cuda_graph=mode)
        for mode in (False, True)
    ]
    assert torch.equal(results[0].trajectory, results[1].trajectory)


def test_the_other_samplers(monkeypatch):
    count = replays_of(monkeypatch)
    fine = fl.geometric_sigmas(1.0, 0.1, 150)
    options = {"shape": (5, 3, 8, 8), "seed": 3, "device": "cuda"}
    x = fl.randn((33, 5), seed=1, device="cuda")
    calls = [
        lambda mode: fl.langevin(lambda x: -torch.sin(x), x, epsilon=0.1, steps=110, seed=1, cuda_graph=mode),
        lambda mode: fl.consistent_annealed(score, fine, epsilon=0.019, cuda_graph=mode, **options),
    ]
    for norm in ("sample", "batch", "sqrt_d"):
        calls.append(
            lambda mode, norm=norm: fl.predictor_corrector(
                score, fine, snr=0.1, norm=norm, corrector_steps=2, denoise=True, cuda_graph=mode, **options
            )
        )
    for call in calls:
        want, before = call(False), len(count)
        assert torch.equal(call(True), want)
        assert torch.equal(call("auto"), want)
        assert len(count) > before + 200


def test_a_callback_changes_stops_and_resumes(monkeypatch):
    def meddle(info):
        if info.step == 50:
            info.x.mul_(0.5)
        return info.step == stop

    results = []
    for mode in (False, True):
        options = {**OPTIONS, "callback": meddle, "trajectory": 7, "full_output": True, "cuda_graph": mode}
        stop = 70
        half = fl.annealed_langevin(score, LADDER, **options)
        stop = None
        results.append(fl.annealed_langevin(score, LADDER, **{**options, "seed": None}, resume=half.state))
    assert torch.equal(results[0].samples, results[1].samples)
    assert torch.equal(results[0].trajectory, results[1].trajectory)


def reads_labels(x, labels):
    return score(x, labels) * (1.0 if labels[0].item() < 5 else 0.5)


def of_data_dependent_shape(x, labels):
    return score(x, labels) + x[x > 1e9].sum()


def with_a_cpu_tensor(x, labels):
    return score(x, labels) + torch.ones(9).cuda()


@pytest.mark.parametrize("waiting", [reads_labels, of_data_dependent_shape, with_a_cpu_tensor])
def test_a_score_that_waits_for_the_device(waiting, monkeypatch, caplog):
    count = replays_of(monkeypatch)
    want = fl.annealed_langevin(waiting, LADDER, **OPTIONS, cuda_graph=False)
    assert torch.equal(fl.annealed_langevin(waiting, LADDER, **OPTIONS), want)
    assert "it waits for the device" in caplog.text
    assert "test_cuda_graph.py" in caplog.text
    with pytest.raises(RuntimeError, match="waits for the device"):
        fl.annealed_langevin(waiting, LADDER, **OPTIONS, cuda_graph=True)
    assert not count
    everything_works()


@pytest.mark.parametrize("fault", ["waits", "raises", "draws and waits"])
def test_a_capture_that_fails(fault, monkeypatch, caplog):
    """What the warm-up did not find: here it does not look."""
    monkeypatch.setattr(cuda_graph.CudaGraphs, "_watch", lambda self, update: update())
    count = replays_of(monkeypatch)

    def failing(x, labels):
        result = score(x, labels)
        if torch.cuda.is_current_stream_capturing():
            if fault == "raises":
                raise LookupError("not while captured")
            if fault == "draws and waits":
                result = result + torch.rand_like(x)
            result.sum().item()
        return result

    want = fl.annealed_langevin(score, LADDER, **OPTIONS, cuda_graph=False)
    for _ in range(3):
        assert torch.equal(fl.annealed_langevin(failing, LADDER, **OPTIONS), want)
        everything_works()
    assert caplog.text.count("cannot be captured") == 1
    assert not count
    # A capture after failed ones.
    assert torch.equal(fl.annealed_langevin(score, LADDER, **OPTIONS, cuda_graph=True), want)


def test_a_choice_made_in_python_is_found(caplog, monkeypatch):
    replays_of(monkeypatch)
    calls = []

    def choosing(x, labels):
        calls.append(0)
        return score(x, labels) * (1.0 + len(calls) % 7)

    with pytest.raises(RuntimeError, match="in Python differs from call to call"):
        fl.annealed_langevin(choosing, LADDER, **OPTIONS, cuda_graph=True)
    everything_works()


def test_inpainting_is_done_by_the_loop(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    count = replays_of(monkeypatch)
    known = torch.zeros(OPTIONS["shape"], device="cuda")
    region = fl.Inpainting(known == 0, known)
    for _ in range(2):
        fl.annealed_langevin(score, LADDER, **OPTIONS, inpainting=region)
    assert caplog.text.count("with inpainting=") == 1
    assert not count


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_networks(compiled, cast, monkeypatch):
    count = replays_of(monkeypatch)
    torch.manual_seed(0)
    net = fl.models.NCSN(LADDER, fl.models.NCSNConfig(width=16)).cuda().eval()
    if compiled:
        torch._dynamo.reset()
        net = torch.compile(net)
    options = {**OPTIONS, "shape": (4, 3, 16, 16)}
    context = torch.autocast("cuda", torch.bfloat16) if cast else contextlib.nullcontext()
    with context:
        want = fl.annealed_langevin(net, LADDER, **options, cuda_graph=False)
        got = fl.annealed_langevin(net, LADDER, **options)
        again = fl.annealed_langevin(net, LADDER, **options, cuda_graph=False)
    assert torch.equal(want, again)
    assert torch.equal(got, want)
    assert len(count) == 121


def test_dropout_draws_anew_in_every_replay(monkeypatch):
    count = replays_of(monkeypatch)
    dropout = torch.nn.Dropout(0.5)

    def net(x, labels):
        return dropout(score(x, labels))

    results = []
    for mode in (False, True):
        torch.manual_seed(5)
        results.append((fl.annealed_langevin(net, LADDER, **OPTIONS, cuda_graph=mode), torch.rand(3, device="cuda")))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert count


def test_an_energy_s_gradient(monkeypatch):
    count = replays_of(monkeypatch)

    def gradient(x, labels):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (result,) = torch.autograd.grad(torch.cos(leaf).sum(), leaf)
        return result

    want = fl.annealed_langevin(gradient, LADDER, **OPTIONS, cuda_graph=False)
    assert torch.equal(fl.annealed_langevin(gradient, LADDER, **OPTIONS), want)
    assert count


def test_another_stream_and_inference_mode():
    want = fl.annealed_langevin(score, LADDER, **OPTIONS, cuda_graph=False)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.inference_mode():
        got = fl.annealed_langevin(score, LADDER, **OPTIONS, cuda_graph=True)
    stream.synchronize()
    assert torch.equal(got, want)


def test_memory_comes_back():
    taken = []
    for _ in range(5):
        fl.annealed_langevin(score, LADDER, **{**OPTIONS, "shape": (64, 3, 64, 64)}, cuda_graph=True)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        taken.append(torch.cuda.memory_reserved())
    assert taken[-1] <= taken[0]
