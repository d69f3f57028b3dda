"""Fusing networks of other classes: what is recognised, what is left, and that nothing else changes."""

import copy
import io
import random
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_networks import OtherNames, Residual, ScoreNet, TableNorm, TimeBlock, TimeNet, VectorNorm, conv, plus_plus
from torch import nn

import fastlangevin as fl
from fastlangevin.fusion import formulas

LABELS = torch.tensor([2, 9])
UNITS = [f"{unit}.1_{stage}_norm" for unit in ("adapt.0", "adapt.1", "output") for stage in (1, 2)]
BLOCKS = [f"res{stage}.0.normalize{place}" for stage in (1, 2) for place in (2, 1)]
PLAIN = [f"{block}.norms.{place}" for block in ("msf", "crp") for place in (0, 1)]
TIMED = [
    "all_modules.2.norm_0",
    "all_modules.2.norm_1",
    "all_modules.3.norm_0",
    "all_modules.3.norm_1",
    "all_modules.4",
]
# A network, the norms that take their activation, and those that stand alone.
NETWORKS = {
    "tables": (ScoreNet, [*BLOCKS, *UNITS, "normalizer"], PLAIN),
    "tables without beta": (
        partial(ScoreNet, norm=partial(TableNorm, bias=False), refine_norm=partial(TableNorm, bias=False)),
        [*BLOCKS, *UNITS, "normalizer"],
        PLAIN,
    ),
    "vectors": (partial(ScoreNet, norm=VectorNorm, refine_norm=None), [*BLOCKS, "normalizer"], []),
    "vectors without beta": (
        partial(ScoreNet, norm=partial(VectorNorm, bias=False), refine_norm=partial(VectorNorm, bias=False)),
        [*BLOCKS, *UNITS, "normalizer"],
        PLAIN,
    ),
    "names that say nothing": (partial(ScoreNet, norm=OtherNames, refine_norm=None), [*BLOCKS, "normalizer"], []),
    "in place": (partial(ScoreNet, act=nn.ELU(inplace=True)), [*BLOCKS, *UNITS, "normalizer"], PLAIN),
    "groups": (TimeNet, TIMED, []),
    "groups in place": (partial(TimeNet, act=nn.SiLU(inplace=True)), TIMED, []),
}
ALL = pytest.mark.parametrize("name", NETWORKS)
ONE_OF_EACH = pytest.mark.parametrize("name", ["tables", "vectors", "groups"])


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The tensors are tiny: on a busy machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def small(name):
    """A network of the table, and arguments of a call."""
    net = seeded(NETWORKS[name][0]).eval()
    x = fl.rand((2, 3, 8, 8), seed=1)
    return net, (x, fl.rand((2,), seed=2) if isinstance(net, TimeNet) else LABELS)


def output(net, *inputs):
    with torch.no_grad():
        return net(*inputs)


def error(got, wanted):
    """Largest error of each sample relative to its largest output."""
    got, wanted = got.double().flatten(1), wanted.double().flatten(1)
    return ((got - wanted).abs().amax(1) / wanted.abs().amax(1)).max().item()


def everything(net):
    """Who stands where, of which class, with which attributes, parameters, buffers and hooks."""
    return [
        (name, id(module), type(module), {key: str(value) for key, value in vars(module).items()}, module.training)
        for name, module in net.named_modules(remove_duplicate=False)
    ]


def weights(net):
    return [(key, value.shape, value.data_ptr()) for key, value in net.state_dict().items()]


@ALL
def test_norms_and_the_activations_behind_them_are_fused_and_given_back(name):
    net, inputs = small(name)
    _, with_activation, alone = NETWORKS[name]
    before, found = output(net, *inputs), everything(net)
    state, parameters = weights(net), dict(net.named_parameters())
    with fl.fuse(net, *inputs) as report:
        assert {each.name for each in report.replaced if each.activation} == set(with_activation)
        assert {each.name for each in report.replaced if not each.activation} == set(alone)
        assert report.left == report.already == []
        assert {each.note for each in report.replaced} == {""}
        after = output(net, *inputs)
        # Rounding, with 16 pixels or more on the coarsest grid, stays below this.
        assert 0 < error(after, before) < 1e-5
        assert report.difference <= report.allowed < 1e-5
        assert weights(net) == state
        assert all(parameters[key] is value for key, value in net.named_parameters())
        assert everything(net) != found
        assert all(isinstance(module, nn.ELU) for key, module in net.named_modules() if key.endswith("crp.act"))
    assert everything(net) == found
    assert torch.equal(output(net, *inputs), before)
    report.undo()
    assert everything(net) == found


@ONE_OF_EACH
def test_gradients_are_those_of_the_network_before(name):
    net, inputs = small(name)
    net, inputs = net.double(), [each.double() if each.is_floating_point() else each for each in inputs]
    parameters = list(net.parameters())

    def gradients():
        x = inputs[0].clone().requires_grad_()
        return torch.autograd.grad(net(x, *inputs[1:]).square().sum(), [x, *parameters])

    before = gradients()
    with fl.fuse(net, *inputs):
        for got, wanted in zip(gradients(), before, strict=True):
            assert (got - wanted).abs().max() <= 1e-11 * max(each.abs().max() for each in before)


def test_training_goes_on_with_the_same_optimizer():
    net, inputs = small("tables")
    optimizer = torch.optim.Adam(net.train().parameters(), lr=1e-3)
    losses = []
    for step in range(4):
        if step == 1:
            fl.fuse(net, *inputs)
            assert net.training
        loss = fl.dsm_loss(net, inputs[0], fl.geometric_sigmas(1.0, 0.1, 10), labels=LABELS, seed=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert all(parameter.grad.abs().max() > 0 for name, parameter in net.named_parameters() if "embed" in name)


class Path(nn.Module):
    """Does something in training only, and in evaluation lets through what it is given."""

    def forward(self, x):
        return x * (torch.rand(()) < 0.5) if self.training else x


class Block(nn.Module):
    """One norm between two convolutions, what stands behind it to be chosen."""

    def __init__(self, norm, behind=None, act=None):
        super().__init__()
        self.first, self.norm, self.last = conv(3, 8), norm, conv(8, 3)
        self.act = nn.ELU() if act is None else act
        self.drop, self.path, self.same = nn.Dropout(0.5), Path(), nn.Identity()
        self.behind = behind or (lambda self, h: self.act(h))

    def forward(self, x):
        return self.last(self.behind(self, self.norm(self.first(x))))


class Wrong(nn.Module):
    """Three vectors, and a formula of its own."""

    def __init__(self, formula, channels=8):
        super().__init__()
        self.alpha, self.gamma, self.beta = (nn.Parameter(torch.ones(channels)) for _ in range(3))
        self.formula = formula

    def forward(self, x, *rest):
        return self.formula(self, x, *rest)


def of(**slips):
    return Wrong(lambda self, x: plus_plus(x, self.gamma, self.alpha, self.beta, **slips))


def overwriting(self, x):
    return x.copy_(plus_plus(x, self.gamma, self.alpha, self.beta))


def leaving_less(self, x):
    out = plus_plus(x, self.gamma, self.alpha, self.beta)
    x *= 0.5
    return out


def clamped(self, x):
    return plus_plus(x.clamp(-0.5, 0.5), self.gamma, self.alpha, self.beta)


def training_only(self, x):
    return plus_plus(x, self.gamma, self.alpha, self.beta) + 0.1 * self.training


class Doubled(nn.GroupNorm):
    def forward(self, x):
        return 2 * super().forward(x)


# The vectors are all ones, so that some slips change nothing here and only show by themselves.
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: of(correction=0), "is not InstanceNorm"),
        (lambda: of(alpha_inside=False), "is not InstanceNorm"),
        (lambda: of(eps=1e-6), "epsilon 1e-06; the fused operation has 1e-05"),
        (lambda: of(eps=1e-3), "epsilon 0.001"),
        (lambda: Wrong(lambda self, x: F.elu(plus_plus(x, self.gamma, self.alpha, self.beta))), "is not InstanceNorm"),
        (lambda: Wrong(lambda self, x: self.gamma[:, None, None] * F.instance_norm(x)), "is not InstanceNorm"),
        (lambda: Wrong(lambda self, x: plus_plus(x, self.gamma, self.alpha, self.beta)[:, :, :4, :4]), "another kind"),
        (lambda: Wrong(training_only), "is not InstanceNorm"),
        (lambda: Wrong(overwriting), "in place on its input"),
        (lambda: Wrong(leaving_less), "in place on its input"),
        (lambda: Wrong(clamped), "differs from InstanceNorm++ by"),
        (lambda: Doubled(2, 8), "is not GroupNorm"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_only_looks_like_such_a_norm_is_left(make, why):
    net, x = seeded(lambda: Block(make())).eval(), fl.randn((2, 3, 8, 8), seed=1)
    before, found = output(net, x), everything(net)
    report = fl.fuse(net, x)
    assert report.replaced == []
    (left,) = report.left
    assert left.name == "norm"
    assert why in left.why
    assert everything(net) == found
    assert torch.equal(output(net, x), before)
    # The same without the slip.
    assert len(fl.fuse(seeded(lambda: Block(of())), x).replaced) == 1


def doubly(self, h):
    return self.act(h) + 0.1 * h


def earlier(self, h):
    return 0.1 * h + self.act(h)


def mixed(self, h):
    return self.act(h) + self.act(0.5 - h.detach().roll(1))


def again(self, h):
    return self.act(self.norm(self.act(h))) + self.norm(h)


def kept(self, h):
    self.seen = h
    return self.act(h)


def through_numpy(self, h):
    return self.act(h) + float(h.numpy().mean())


def viewed(self, h):
    return self.act(h.view(h.shape)) + h.sum()


def hooked(name, hook=lambda module, args, out: None):
    block = Block(VectorNorm(8))
    getattr(block, name).register_forward_hook(hook)
    return block


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "note"),
    [
        (lambda: Block(VectorNorm(8), doubly), "used by mul, too"),
        (lambda: Block(VectorNorm(8), earlier), "used by mul, too"),
        # What comes behind an activation in place sees its result, fused or not.
        (lambda: Block(VectorNorm(8), doubly, nn.ELU(inplace=True)), "ELU"),
        (lambda: Block(VectorNorm(8), earlier, nn.ELU(inplace=True)), "used by mul, too"),
        (lambda: Block(VectorNorm(8), mixed), "used by detach, too"),
        (lambda: Block(VectorNorm(8), lambda self, h: self.act(self.drop(h))), "used by dropout, too"),
        (lambda: Block(VectorNorm(8), lambda self, h: self.act(self.path(h))), "used by Path, too"),
        (lambda: Block(VectorNorm(8), lambda self, h: self.act(self.same(h))), "ELU"),
        (lambda: Block(VectorNorm(8), again), "used by"),
        (lambda: Block(VectorNorm(8), kept), "kept beyond the call"),
        (lambda: Block(VectorNorm(8), through_numpy), "used by"),
        (lambda: Block(VectorNorm(8), viewed), ""),
        # Inside of vmap Python's calls are of other tensors; what runs below is of this one.
        (lambda: Block(VectorNorm(8), lambda self, h: self.act(h) + torch.vmap(torch.sin)(h)), "used by sin, too"),
        (lambda: Block(VectorNorm(8), lambda self, h: F.elu(h)), "called as a function: make it an nn.ELU"),
        (lambda: Block(VectorNorm(8), act=nn.ELU(alpha=0.5)), "act has alpha 0.5"),
        (lambda: Block(VectorNorm(8), act=nn.LeakyReLU()), ""),
        (lambda: Block(VectorNorm(8), act=nn.SiLU()), "has ELU behind InstanceNorm++"),
        (lambda: Block(nn.GroupNorm(2, 8)), "has SiLU behind GroupNorm"),
        (lambda: Block(nn.GroupNorm(2, 8), lambda self, h: F.silu(h)), "make it an nn.SiLU"),
        (lambda: hooked("norm"), "the norm has hooks"),
        (lambda: hooked("norm", lambda module, args, out: 2 * out), ""),
        (lambda: hooked("act"), "act has hooks"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_an_activation_that_cannot_move_stays_and_the_norm_is_fused_alone(make, note):
    net, x = seeded(make).eval(), fl.randn((2, 3, 8, 8), seed=1)
    before = output(net, x)
    if hasattr(net, "seen"):
        del net.seen
    report = fl.fuse(net, x)
    (replaced,) = report.replaced
    assert (replaced.activation, replaced.note) == ("ELU", "") if note == "ELU" else replaced.activation == ""
    assert note == "ELU" or (note in replaced.note if note else replaced.note == "")
    assert 0 < error(output(net, x), before) < 1e-5
    (control,) = fl.fuse(seeded(lambda: Block(VectorNorm(8))), x).replaced
    assert control.activation == "ELU"


def test_the_dropout_between_norm_and_activation_works_in_training():
    net, x = (
        seeded(lambda: Block(VectorNorm(8), lambda self, h: self.act(self.drop(h)))),
        fl.randn((2, 3, 8, 8), seed=1),
    )
    net.train()
    before = seeded(lambda: output(net, x))
    fl.fuse(net, x)
    assert error(seeded(lambda: output(net, x)), before) < 1e-5


def test_an_activation_with_norms_of_both_kinds_serves_neither_wrongly():
    # One reference, two norms in front of it: one is used twice, so neither can take the activation.
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.begin, self.one, self.other, self.act = conv(3, 8), VectorNorm(8), VectorNorm(8), nn.ELU()

        def forward(self, x):
            h = self.begin(x)
            other = self.other(h)
            return self.act(self.one(h)) + self.act(other) + other

    net, x = seeded(Two), fl.randn((2, 3, 8, 8), seed=1)
    before = output(net, x)
    notes = {each.name: each.note for each in fl.fuse(net, x).replaced}
    assert notes == {
        "one": "act also acts on other tensors of 4 dimensions",
        "other": "the norm's result is used by add, too",
    }
    assert error(output(net, x), before) < 1e-5


def test_one_activation_of_two_parents_is_told_apart_by_the_reference():
    # The outer block calls the inner one's activation, too: it must not lose it.
    class Outer(nn.Module):
        def __init__(self, borrowing):
            super().__init__()
            self.begin, self.inner, self.borrowing = conv(3, 3), Block(VectorNorm(8)), borrowing
            self.act = self.inner.act

        def forward(self, x):
            return (self.inner.act if self.borrowing else self.act)(self.inner(self.begin(x)))

    x = fl.randn((2, 3, 8, 8), seed=1)
    for borrowing, activation in ((True, ""), (False, "ELU")):
        net = seeded(lambda borrowing=borrowing: Outer(borrowing)).eval()
        before = output(net, x)
        (replaced,) = fl.fuse(net, x).replaced
        assert replaced.activation == activation
        assert error(output(net, x), before) < 1e-5


@pytest.mark.parametrize("how", ["position", "name", "scalar", "one"])
def test_labels_are_taken_as_the_norm_takes_them(how):
    class Labelled(nn.Module):
        def __init__(self):
            super().__init__()
            self.begin, self.norm, self.act = conv(3, 8), TableNorm(8), nn.ELU()

        def forward(self, x, y):
            h = self.begin(x)
            return self.act(self.norm(h, y=y) if how == "name" else self.norm(h, y))

    labels = {"scalar": torch.tensor(3), "one": torch.tensor([3])}.get(how, LABELS)
    net, x = seeded(Labelled).eval(), fl.randn((2, 3, 8, 8), seed=1)
    before = output(net, x, labels)
    assert fl.fuse(net, x, labels).replaced[0].activation == "ELU"
    assert error(output(net, x, labels), before) < 1e-5


def test_a_norm_that_cannot_be_tried_or_changed_is_left():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.begin, self.unused, self.patched, self.act = conv(3, 8), VectorNorm(8), VectorNorm(8), nn.ELU()
            self.patched.forward = lambda x: 2 * x
            self.reweighted = nn.GroupNorm(2, 8)
            nn.utils.parametrize.register_parametrization(self.reweighted, "weight", nn.Identity())
            self.counting = nn.GroupNorm(2, 8)
            self.counting.register_buffer("calls", torch.zeros(()))
            self.extra = Wrong(lambda self, x, mask: plus_plus(x, self.gamma, self.alpha, self.beta))

        def forward(self, x):
            return self.act(self.extra(self.patched(self.reweighted(self.counting(self.begin(x)))), x))

    report = fl.fuse(seeded(Odd), fl.randn((2, 3, 8, 8), seed=1))
    assert {each.name: each.why for each in report.left} == {
        "unused": "it is not called on the probe",
        "patched": "its forward is replaced on the instance",
        "reweighted": "it is parametrized, which changes its class, too: fuse after removing the parametrizations",
        "counting": "it has buffers",
        "extra": "it is called with (Tensor, Tensor)",
    }


def dropping(self, x):
    return F.dropout(plus_plus(x, self.gamma, self.alpha, self.beta), training=self.training)


def test_an_undoing_that_would_leave_half_a_fused_network_is_refused():
    net, x = seeded(lambda: Block(VectorNorm(8))), fl.randn((2, 3, 8, 8), seed=1)
    report = fl.fuse(net, x)
    fused = output(net, x)
    nn.utils.parametrize.register_parametrization(net.norm, "alpha", nn.Identity())
    with pytest.raises(RuntimeError, match="another class since, ParametrizedFusedVectorNorm"):
        report.undo()
    assert torch.equal(output(net, x), fused)
    nn.utils.parametrize.remove_parametrizations(net.norm, "alpha")
    report.undo()
    assert type(net.norm) is VectorNorm
    assert type(net.act) is nn.ELU


def test_a_score_that_is_the_gradient_of_an_energy_is_fused_whole():
    class Energy(Block):
        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad(super().forward(x).square().sum(), x)[0]

    net, x = seeded(lambda: Energy(VectorNorm(8))).eval(), fl.randn((2, 3, 8, 8), seed=1)
    before = output(net, x)
    with torch.inference_mode():
        (replaced,) = fl.fuse(net, x).replaced
    # The derivative of the activation reads the norm's result, which is no use of its own.
    assert replaced.activation == "ELU"
    assert 0 < error(output(net, x), before) < 1e-5


class Moody(nn.Module):
    """Changes whatever a network can change as it runs."""

    def __init__(self):
        super().__init__()
        self.begin, self.norm, self.act, self.drop = conv(3, 8), VectorNorm(8), nn.ELU(), nn.Dropout(0.5)
        self.odd, self.table = Wrong(dropping, 3), TableNorm(3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("largest", torch.zeros(8), persistent=False)

    def forward(self, x):
        self.calls += 1
        x = self.table(self.odd(x.add_(0.1)), LABELS)
        noise = torch.randn(3, 1, 1) + random.random() + np.random.standard_normal()
        h = self.act(self.norm(self.begin(x + 0.1 * noise)))
        self.largest = h.amax((0, 2, 3))
        return self.drop(h)


def generators():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def test_all_else_is_left_as_it_was_found():
    net, x = seeded(Moody).train(), fl.randn((2, 3, 8, 8), seed=1).requires_grad_()
    net.drop.eval()
    net.norm.alpha.requires_grad_(False)
    calls, lookups = [], []
    net.begin.register_forward_hook(lambda module, args, out: calls.append(module))
    net.table.embed.register_forward_hook(lambda module, args, out: lookups.append(module))
    buffers, states, kept = dict(net.named_buffers()), generators(), x.detach().clone()
    found = everything(net)
    report = fl.fuse(net, x)
    assert [(each.name, each.activation) for each in report.replaced] == [("norm", "ELU"), ("table", "")]
    assert [each.name for each in report.left] == ["odd"]
    assert generators() == states
    assert torch.is_grad_enabled()
    assert torch.equal(x, kept)
    assert x.grad is None
    assert len(calls) == len(lookups) == 5
    assert all(buffers[name] is buffer for name, buffer in net.named_buffers())
    assert net.calls == 0
    assert net.largest.eq(0).all()
    assert net.training
    assert not net.drop.training
    assert [(name, parameter.requires_grad) for name, parameter in net.norm.named_parameters()] == [
        ("alpha", False),
        ("gamma", True),
        ("beta", True),
    ]
    # The activation that comes back has gone through what its stand-in has.
    net.eval()
    report.undo()
    assert not net.act.training
    net.train().drop.eval()
    assert everything(net) == found


def test_a_fused_network_that_is_off_is_put_back(monkeypatch):
    net, inputs = small("tables")
    found, norm = everything(net), formulas.instance_norm

    def off(x, *numbers, activation, impl):
        out = norm(x, *numbers, activation=activation, impl=impl)
        return out + 1e-3 * (activation and x.shape[-1] == 4)

    # The norm is right by itself, and with its activation on the coarse grid it is not.
    monkeypatch.setattr(formulas, "instance_norm", off)
    with pytest.raises(RuntimeError, match=r"rounding explains .* is put back\. Fusing res2\.0\.norm") as e:
        fl.fuse(net, *inputs)
    assert "changes it by" in str(e.value)
    assert everything(net) == found
    monkeypatch.setattr(formulas, "instance_norm", lambda x, *rest, **options: norm(x, *rest, **options) + 1e-3)
    report = fl.fuse(net, *inputs)
    assert report.replaced == []
    assert {each.why[:30] for each in report.left} == {"it is not conditional InstanceNorm"[:30]}


def test_a_network_that_looks_at_its_activations_is_put_back():
    class Suspicious(Block):
        def forward(self, x):
            h = self.norm(self.first(x))
            return self.last(self.act(h) if type(self.act) is nn.ELU else F.elu(h))

    net, x = seeded(lambda: Suspicious(VectorNorm(8))).eval(), fl.randn((2, 3, 8, 8), seed=1)
    found = everything(net)
    with pytest.raises(RuntimeError, match=r"everything is put back\. Fusing norm alone changes it by"):
        fl.fuse(net, x)
    assert everything(net) == found


def test_a_probe_on_which_rounding_hides_everything_is_refused():
    class Magnifying(Block):
        def forward(self, x):
            return (1e5 * super().forward(x)).sin()

    with pytest.raises(RuntimeError, match="magnifies roundings on this probe so much"):
        fl.fuse(seeded(lambda: Magnifying(VectorNorm(8))), fl.randn((2, 3, 8, 8), seed=1))


def test_a_network_that_differs_from_run_to_run_may_differ_as_much():
    class Unsteady(Block):
        runs = 0

        def forward(self, x):
            self.runs += 1
            return super().forward(x) + 1e-3 * (self.runs in (2, 5))

    # As sums by atomic additions do: seen in the second of five runs, and met again in the last.
    net, x = seeded(lambda: Unsteady(VectorNorm(8))).eval(), fl.randn((2, 3, 8, 8), seed=1)
    report = fl.fuse(net, x)
    assert net.runs == 5
    assert 1e-4 < report.difference <= report.allowed


@ONE_OF_EACH
def test_copies_files_and_parallel_wrappers_take_the_fused_network(name):
    net, inputs = small(name)
    wrapped = nn.DataParallel(net)
    before = weights(wrapped)
    report = fl.fuse(wrapped, *inputs)
    assert all(each.name.startswith("module.") for each in report.replaced)
    assert weights(wrapped) == before
    want = output(net, *inputs)
    assert torch.equal(output(wrapped, *inputs), want)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    for other in (copy.deepcopy(net), torch.load(file, weights_only=False)):
        assert torch.equal(output(other, *inputs), want)
        assert [type(module) for module in other.modules()] == [type(module) for module in net.modules()]
        assert fl.fuse(other, *inputs).replaced == []
    report.undo()
    assert all(isinstance(module, torch.nn.Module) for module in other.modules())
    assert torch.equal(output(other, *inputs), want)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("make", [TableNorm, VectorNorm, None], ids=["table", "vectors", "groups"])
def test_it_compiles_whole(make):
    net = seeded(lambda: Residual(8, make, nn.ELU()) if make else TimeBlock(8, nn.SiLU())).eval()
    x, embedding = fl.randn((2, 8, 8, 8), seed=1), fl.randn((2, 16), seed=2)
    inputs = (x, LABELS) if make is TableNorm else (x,) if make else (x, embedding)
    before = output(net, *inputs)
    assert len(fl.fuse(net, *inputs).replaced) == 2
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    got, want = compiled(*inputs), net(*inputs)
    assert torch.equal(got, want)
    assert error(got.detach(), before) < 1e-5
    pairs = (torch.autograd.grad(each.sum(), list(net.parameters())) for each in (got, want))
    assert all(map(torch.equal, *pairs))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("tables", torch.float16), ("vectors", torch.bfloat16), ("groups", torch.bfloat16), ("vectors", torch.float64)],
    ids=str,
)
def test_other_dtypes_are_taken_before_and_after(name, dtype):
    net, inputs = small(name)
    wide = output(
        copy.deepcopy(net).double(), *[each.double() if each.is_floating_point() else each for each in inputs]
    )
    cast = [each.to(dtype) if each.is_floating_point() else each for each in inputs]
    plain = output(copy.deepcopy(net).to(dtype), *cast)
    late = copy.deepcopy(net).to(dtype)
    assert fl.fuse(late, *cast).replaced
    early = copy.deepcopy(net)
    fl.fuse(early, *inputs)
    got = output(early.to(dtype), *cast)
    assert got.dtype == dtype
    assert torch.equal(got, output(late, *cast))
    # The fused norms round once where plain ones round at each step, so that they come nearer or, by luck, as near.
    assert error(got, wide) <= max(2 * error(plain, wide), 1e-13)


@pytest.mark.parametrize("name", ["vectors", "groups"])
def test_autocast_is_followed(name):
    net, inputs = small(name)
    wide = output(net, *inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = output(net, *inputs)
        report = fl.fuse(net, *inputs)
        got = output(net, *inputs)
    # The probe runs without it, so that more can be seen.
    assert report.allowed < 1e-5
    assert got.dtype == plain.dtype == torch.bfloat16
    assert error(got, wide) <= 2 * error(plain, wide)


def test_a_second_time_nothing_is_found():
    net, inputs = small("tables")
    first = fl.fuse(net, *inputs)
    found = everything(net)
    second = fl.fuse(net, *inputs)
    assert second.replaced == second.left == []
    assert set(second.already) == {each.name for each in first.replaced}
    second.undo()
    assert everything(net) == found


@pytest.mark.parametrize(("network", "count"), [(fl.models.NCSN, 71), (fl.models.NCSNv2, 17)])
def test_the_standard_networks_are_fused_already(network, count):
    net = seeded(lambda: network(fl.geometric_sigmas(1.0, 0.01, 10), network.CONFIG(channels=3, width=4)))
    report = fl.fuse(net, fl.rand((2, 3, 8, 8), seed=1), LABELS)
    assert report.replaced == report.left == []
    assert len(report.already) == count
    assert str(report) == f"nothing to fuse; {count} were fused already"


def test_the_report_is_a_table():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.block = Residual(8, VectorNorm, nn.ELU()), TimeBlock(8, nn.SiLU())
            self.norm, self.begin = of(eps=1e-4), conv(3, 8)

        def forward(self, x, embedding):
            return self.norm(F.elu(self.block(self.net(self.begin(x)), embedding)))

    text = str(fl.fuse(seeded(Both), fl.randn((2, 3, 8, 8), seed=1), fl.randn((2, 16), seed=2)))
    lines = text.splitlines()
    assert lines[0].startswith("4 norms fused, 4 of them with the activation behind; the output changed by ")
    assert [line.split() for line in lines if "norm_1" in line or "normalize1" in line] == [
        ["net.normalize1", "InstanceNorm++", "8", "ELU"],
        ["block.norm_1", "GroupNorm", "8", "SiLU"],
    ]
    assert lines[-1] == "norm  it is InstanceNorm++ with epsilon 0.0001; the fused operation has 1e-05"


@pytest.mark.parametrize("shift", ["default", "scale_shift"])
def test_networks_of_diffusers_are_fused(shift, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    net = seeded(
        lambda: diffusers.UNet2DModel(
            sample_size=8,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            attention_head_dim=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            resnet_time_scale_shift=shift,
        )
    ).eval()
    inputs = fl.randn((2, 3, 8, 8), seed=1), torch.tensor([3, 700])
    before = output(net, *inputs).sample
    net.save_pretrained(tmp_path / "before")
    gradients = torch.autograd.grad(net(*inputs).sample.square().sum(), list(net.parameters()))
    found = everything(net)
    report = fl.fuse(net, *inputs)
    norms = {name for name, module in net.named_modules() if isinstance(module, nn.GroupNorm)}
    assert {each.name for each in report.replaced} == norms
    # Behind the norms of attention there is no activation. With scale and shift, one stands between the second norm of
    # a block and the activation, which serves for the first norm, too.
    expected = {"conv_norm_out"}
    if shift == "default":
        expected |= {name for name in norms if name.endswith(("norm1", "norm2"))}
    assert {each.name for each in report.replaced if each.activation} == expected
    assert 0 < error(output(net, *inputs).sample, before) < 1e-5
    fused = torch.autograd.grad(net(*inputs).sample.square().sum(), list(net.parameters()))
    largest = max(gradient.abs().max() for gradient in gradients)
    assert all((got - want).abs().max() < 1e-5 * largest for got, want in zip(fused, gradients, strict=True))
    report.undo()
    assert everything(net) == found
    with fl.fuse(net, *inputs):
        net.save_pretrained(tmp_path / "after")
    for file in (tmp_path / "before").iterdir():
        assert (tmp_path / "after" / file.name).read_bytes() == file.read_bytes()
    assert torch.equal(output(net, *inputs).sample, before)
