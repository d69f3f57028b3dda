"""Fusing networks of other classes: whole networks, their gradients, copies, dtypes, compilers, and the way back."""

import copy
import io
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from foreign_networks import OtherNames, Residual, ScoreNet, TableNorm, TimeBlock, TimeNet, VectorNorm, conv
from fusing import LABELS, error, everything, of, output, seeded
from torch import nn

import fastlangevin as fl
from fastlangevin.fusion import formulas

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


pytestmark = pytest.mark.usefixtures("one_thread")


def small(name):
    """A network of the table, and arguments of a call."""
    net = seeded(NETWORKS[name][0]).eval()
    x = fl.rand((2, 3, 8, 8), seed=1)
    return net, (x, fl.rand((2,), seed=2) if isinstance(net, TimeNet) else LABELS)


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
