"""Published checkpoints: every container is read, what was read is said, and nothing else gets in or is run."""

import functools
import os
import pickle
import re
from pathlib import Path

import pytest
import torch

import fastlangevin as fl
from fastlangevin.cli import main
from fastlangevin.models import NCSN, ConvConfig, NCSNConfig, NCSNv2, NCSNv2Config, NCSNv2Deeper, NCSNv2Deepest
from fastlangevin.storage import checkpoint
from fastlangevin.storage.published import load_published

LADDER = fl.geometric_sigmas(1.0, 0.01, 10)
LADDER_2 = fl.geometric_sigmas(50.0, 0.01, 12)
NETWORKS = pytest.mark.parametrize("network", [NCSN, NCSNv2, NCSNv2Deeper, NCSNv2Deepest])


pytestmark = pytest.mark.usefixtures("one_thread")


def make(network, seed=0, channels=1, width=4):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sigmas = LADDER if network is NCSN else LADDER_2
        return network(sigmas, network.CONFIG(channels=channels, width=width))


def wrapped(net):
    return {f"module.{key}": value for key, value in net.state_dict().items()}


@functools.cache
def adam(network):
    net = make(network)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    net(torch.full((1, net.config.channels, 16, 16), 0.5), torch.tensor([0])).sum().backward()
    optimiser.step()
    return optimiser.state_dict()


def parameters(net):
    return {key: value.detach() for key, value in net.named_parameters()}


def files(network):
    """Content of each container by name, with the network whose weights it is to give."""
    last, average = make(network, 0), make(network, 1)
    state = adam(network)
    shadow = list(parameters(average).values())
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": shadow}
    return {
        "NCSN list of 2": ([wrapped(last), state], last, "model state, entry 0", None),
        "NCSNv2 list of 4": ([wrapped(last), state, 3, 500], last, "model state, entry 0", 500),
        "NCSNv2 list of 5": ([wrapped(last), state, 3, 500, parameters(average)], average, "EMA weights, entry 4", 500),
        "score_sde dictionary": (
            {"model": wrapped(last), "ema": ema, "optimizer": state, "step": 90},
            average,
            "EMA weights, entry 'ema'",
            90,
        ),
        "state dictionary": (dict(last.state_dict()), last, "model state, the file itself", None),
    }


def saved(folder, content, **options):
    torch.save(content, folder / "checkpoint.pth", **options)
    return folder / "checkpoint.pth"


def assert_equal_nets(one, other):
    assert type(one) is type(other)
    assert one.config == other.config
    assert torch.equal(one.sigmas, other.sigmas)
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.long
@NETWORKS
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_every_container_is_read_and_named(network, zipped, tmp_path):
    for container, (content, net, entry, step) in files(network).items():
        path = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
        state = torch.get_rng_state()
        read = load_published(path)
        assert torch.equal(torch.get_rng_state(), state), "reading must not draw from the caller's generator"
        assert (read.container, read.entry, read.step) == (container, entry, step)
        assert_equal_nets(read.net, net)
        assert not read.net.training


def test_the_weights_of_the_last_step_are_read_where_they_are_wanted(tmp_path):
    for container in ("NCSNv2 list of 5", "score_sde dictionary"):
        content, average, _, _ = files(NCSNv2)[container]
        read = load_published(saved(tmp_path, content), ema=False)
        assert read.entry.startswith("model state")
        assert_equal_nets(read.net, make(NCSNv2, 0))
        assert not torch.equal(read.net.begin_conv.weight, average.begin_conv.weight)


def test_averages_in_order_go_to_the_parameters_in_order(tmp_path):
    content, _, _, _ = files(NCSNv2)["score_sde dictionary"]
    shadow = content["ema"]["shadow_params"]
    shadow[0], shadow[1] = shadow[1], shadow[0]
    with pytest.raises(ValueError, match=r"entry 'ema', 2 keys differ: begin_conv\.weight is \(4,\) where"):
        load_published(saved(tmp_path, content))
    content["ema"]["shadow_params"] = shadow[:-1]
    with pytest.raises(ValueError, match="have 152 tensors, NCSNv2 has 153 parameters; ema=False"):
        load_published(saved(tmp_path, content))


def test_the_ladder_of_the_file_wins_and_is_cast(tmp_path):
    state = wrapped(make(NCSNv2))
    sigmas = fl.geometric_sigmas(33.0, 0.02, 5)
    assert sigmas.dtype == torch.float64
    path = saved(tmp_path, [{**state, "module.sigmas": sigmas}, {}])
    assert torch.equal(load_published(path).net.sigmas, sigmas.float())
    assert torch.equal(load_published(path, sigmas=sigmas * (1 + 1e-7)).net.sigmas, sigmas.float())
    with pytest.raises(ValueError, match="sigmas differ from the ladder in the file"):
        load_published(path, sigmas=sigmas * 1.001)


def test_the_ladder_of_ncsn_is_the_callers(tmp_path):
    path = saved(tmp_path, [wrapped(make(NCSN)), {}])
    assert torch.equal(load_published(path).net.sigmas, LADDER.float())
    other = fl.geometric_sigmas(2.0, 0.1, 10)
    assert torch.equal(load_published(path, sigmas=other).net.sigmas, other.float())
    net = NCSN(LADDER[:3], NCSNConfig(width=4))
    path = saved(tmp_path, [wrapped(net), {}])
    with pytest.raises(ValueError, match=r"it has 3 levels and does not say which; give sigmas=.*, 3\)"):
        load_published(path)
    assert_equal_nets(load_published(path, sigmas=LADDER[:3]).net, net)
    path = saved(tmp_path, {"model": {**wrapped(net), "module.sigmas": LADDER[:3]}})
    assert_equal_nets(load_published(path).net, net)


def test_weights_of_other_precisions_are_cast(tmp_path):
    net = make(NCSNv2)
    for dtype in (torch.float16, torch.float64):
        state = {key: value if key == "sigmas" else value.to(dtype) for key, value in net.state_dict().items()}
        read = load_published(saved(tmp_path, state)).net
        assert read.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[key].float()) for key, value in read.state_dict().items())


@NETWORKS
def test_all_keys_that_do_not_fit_are_named_at_once(network, tmp_path):
    path = saved(tmp_path, [wrapped(make(network)), {}])
    with pytest.raises(ValueError, match="keys differ") as caught:
        load_published(path, config=network.CONFIG(channels=1, width=8))
    message = str(caught.value)
    fits = {"sigmas", "end_conv.bias"}
    assert all(f"{key} is (" in message for key in make(network).state_dict().keys() - fits)
    assert not any(f" {key} is (" in message for key in fits)
    assert "begin_conv.weight is (4, 1, 3, 3) where (8, 1, 3, 3) is wanted" in message


@pytest.mark.parametrize("network", [NCSN, NCSNv2])
def test_another_number_of_levels_is_named(network, tmp_path):
    path = saved(tmp_path, [wrapped(make(network)), {}])
    with pytest.raises(ValueError, match="keys differ") as caught:
        load_published(path, sigmas=fl.geometric_sigmas(1.0, 0.01, 9))
    wanted = {"NCSN": (71, "res1.0.normalize1.embed.weight is (10, 12) where (9, 12) is wanted")}
    count, text = wanted.get(network.__name__, (1, "sigmas is (12,) where (9,) is wanted"))
    assert f"{count} keys differ" in str(caught.value)
    assert text in str(caught.value)


def test_missing_and_unknown_keys_are_named(tmp_path):
    state = make(NCSNv2).state_dict()
    del state["sigmas"], state["res4.1.conv2.bias"]
    state["res4.1.conv2.weight_orig"] = torch.ones(1)
    with pytest.raises(
        ValueError, match=r"3 keys differ: sigmas is missing; res4\.1\.conv2\.bias is missing; res4.* is unknown"
    ):
        load_published(saved(tmp_path, state))


def test_an_average_alone_is_not_taken_for_the_network(tmp_path):
    with pytest.raises(ValueError, match=r"1 keys differ: sigmas is missing.*averages of weights.*alone; give sigmas="):
        load_published(saved(tmp_path, parameters(make(NCSNv2))))


@pytest.mark.parametrize("network", [NCSNv2, NCSNv2Deeper])
def test_an_average_alone_is_read_with_its_ladder(network, tmp_path):
    net = make(network)
    named = {f"module.{key}": value for key, value in parameters(net).items()}
    read = load_published(saved(tmp_path, named), sigmas=LADDER_2)
    assert_equal_nets(read.net, net)
    assert read.entry == "model state, the file itself"


def test_an_average_of_score_sde_alone_says_what_it_is(tmp_path):
    shadow = list(parameters(make(NCSNv2)).values())
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": shadow}
    with pytest.raises(
        ValueError, match=r"averaged weights alone, .*EMA.* with the keys 'decay', 'num_updates', 'shadow_params'"
    ):
        load_published(saved(tmp_path, ema))
    with pytest.raises(ValueError, match=f"a list of {len(shadow)} tensors without names, as averages of weights"):
        load_published(saved(tmp_path, shadow))


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        ({"sigmas": LADDER_2[:3]}, "Leave sigmas out to have it read off the file"),
        ({"config": NCSNv2Config(channels=1, width=8)}, "Leave network, config and sigmas out"),
        ({}, "fetch the file again"),
    ],
)
def test_what_may_be_wrong_is_what_was_given(options, mend, tmp_path):
    state = make(NCSNv2).state_dict()
    if not options:
        del state["res4.1.conv2.bias"]
    with pytest.raises(ValueError, match=f"keys? differ.*{mend}") as caught:
        load_published(saved(tmp_path, state), **options)
    assert ("Leave" in str(caught.value)) == bool(options)


def test_the_ladder_is_not_rounded_to_the_default_dtype(tmp_path):
    path = saved(tmp_path, parameters(make(NCSNv2)))
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float16)
        read = load_published(path, sigmas=LADDER_2)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(read.net.sigmas, LADDER_2.float())


@pytest.mark.parametrize(
    ("network", "options"),
    [(NCSN, {"network": NCSNv2}), (NCSNv2, {"network": NCSNv2Deeper}), (NCSNv2Deepest, {"network": NCSN})],
)
def test_another_class_is_refused(network, options, tmp_path):
    with pytest.raises(ValueError, match=f"does not fit {options['network'].__name__} with"):
        load_published(saved(tmp_path, [wrapped(make(network)), {}]), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": torch.nn.Linear}, "network must be one of NCSN, NCSNv2, .*, got 'Linear'"),
        ({"config": ConvConfig()}, "config must be a NCSNv2Config, got ConvConfig"),
        ({"sigmas": 3}, "sigmas must be a ladder"),
    ],
)
def test_wrong_arguments(options, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        load_published(saved(tmp_path, [wrapped(make(NCSNv2)), {}]), **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (5, "holds a int; known are"),
        ([], "holds a list of 0; known are"),
        ([{}, {}, 1], "holds a list of 3"),
        ([{}, {}, 1, 2, {}, 3], "holds a list of 6"),
        ({}, "holds a dictionary"),
        ({"state": {}, "epoch": 3}, "dictionary with the keys 'state', 'epoch'; known are"),
        ([5, {}], r"entry 0 must be a dictionary of tensors by name, got int"),
        ([{3: torch.ones(1)}, {}], "must be a dictionary of tensors by name"),
        ([{"weight": 3.0}, {}], "weight of its model state, entry 0 must be a dense tensor .* got float"),
        ([{"weight": torch.ones(2).int()}, {}], r"got torch\.int32"),
        ([{"weight": torch.tensor([float("nan")])}, {}], "values that are not finite"),
        ([{}, {}], "has no weight of begin_conv"),
        ({"weight": torch.ones(1), "bias": torch.ones(1)}, "has no weight of begin_conv, but weight, bias"),
        ({"begin_conv.weight": torch.ones(1, 1, 3, 3)}, "width must be an integer of at least 2, got 1"),
        ({"begin_conv.weight": torch.ones(2, 1, 3, 3), "sigmas": torch.ones(2)}, "sigmas must decrease strictly"),
        ({"begin_conv.weight": torch.ones(2, 1, 3, 3), "sigmas": torch.ones(1, 2)}, "sigmas must be one-dimensional"),
    ],
)
def test_other_contents_are_refused_by_name(content, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        load_published(saved(tmp_path, content))
    assert str(tmp_path) in str(caught.value)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("write", ["zip", "before 1.6", "pickle"])
def test_pickles_of_objects_are_refused_and_not_run(write, tmp_path):
    path, sprung = tmp_path / "checkpoint.pth", tmp_path / "sprung"
    content = [{"module.begin_conv.weight": Trap(str(sprung))}, {}]
    if write == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=write == "zip")
    # torch.save writes no pickles of protocol 4, and its reader does not get as far as the object in them.
    why = (
        "no file of torch.save" if write == "pickle" else r"holds Python objects \(posix\.mkdir\).*would run code from"
    )
    with pytest.raises(ValueError, match=why) as caught:
        load_published(path)
    assert "\n" not in str(caught.value)
    assert not sprung.exists()
    # The twin: what weights_only=False does with it.
    if write != "pickle":
        torch.load(path, weights_only=False)
        assert sprung.exists()


def test_pickled_modules_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"Python objects \(fastlangevin\.models\.ncsnv2\.NCSNv2\).*net\.state_dict\(\)"
    ):
        load_published(saved(tmp_path, make(NCSNv2)))


def test_no_damaged_file_gets_past_with_another_error(tmp_path):
    intact = saved(tmp_path, files(NCSN)["NCSN list of 2"][0]).read_bytes()
    path = tmp_path / "damaged.pth"
    for content in (b"", b"weights", intact[:-100], intact[: len(intact) // 2], b"\x80\x02" + bytes(50)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged\.pth is no file of torch\.save, or it is damaged"):
            load_published(path)


def test_unreadable_paths(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, tmp_path / "none.pth", pipe):
        with pytest.raises(RuntimeError, match=r"cannot read .*check the path"):
            load_published(path)


def convert(*arguments):
    return main(["convert", *map(str, arguments)])


@NETWORKS
def test_convert_makes_a_checkpoint_of_this_package(network, tmp_path, capsys):
    content, net, entry, _ = files(network)["NCSNv2 list of 5"]
    path, out = saved(tmp_path, content), tmp_path / "net.safetensors"
    arguments = ("--size", 16, 32, "--epsilon", 6.2e-6, "--steps-per-level", 5)
    assert convert(path, out, *arguments) == 0
    said = capsys.readouterr().out
    assert f"{network.__name__} of width 4 for 1 channels, {net.sigmas.numel()} levels from" in said
    assert f"{entry} of {path} (NCSNv2 list of 5)" in said
    loaded = checkpoint.load(out)
    assert_equal_nets(loaded.net, net)
    assert torch.equal(loaded.sigmas, net.sigmas)
    assert loaded.metadata == {
        "published": {"file": path.name, "container": "NCSNv2 list of 5", "entry": entry, "step": 500},
        "data": {"shape": [1, 16, 32], "range": [0.0, 1.0]},
        "sampling": {"epsilon": 6.2e-6, "steps_per_level": 5},
    }
    first = out.read_bytes()
    convert(path, out, *arguments)
    assert out.read_bytes() == first


def test_what_convert_made_is_sampled_from(tmp_path, capsys):
    path, out = saved(tmp_path, files(NCSN)["NCSN list of 2"][0]), tmp_path / "net.safetensors"
    assert convert(path, out, "--size", 8, "--epsilon", 1e-6, "--steps-per-level", 1) == 0
    picture = tmp_path / "samples.png"
    assert main(["sample", "--checkpoint", str(out), "--n", "2", "--out", str(picture), "--quiet"]) == 0
    assert picture.exists()
    assert "--size" not in capsys.readouterr().out


def test_convert_takes_the_weights_and_the_ladder_it_is_told_to(tmp_path, capsys):
    out = tmp_path / "net.safetensors"
    assert convert(saved(tmp_path, files(NCSNv2)["NCSNv2 list of 5"][0]), out, "--no-ema") == 0
    assert_equal_nets(checkpoint.load(out).net, make(NCSNv2, 0))
    assert "convert with --size" in capsys.readouterr().out
    three = NCSN(LADDER[:3], NCSNConfig(width=4))
    assert convert(saved(tmp_path, [wrapped(three), {}]), out, "--sigmas", *LADDER[:3].tolist()) == 0
    assert_equal_nets(checkpoint.load(out).net, three)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{in}", "{in}"), "IN and OUT both name"),
        (("{in}", "{folder}/none/net"), "the folder .*none does not exist"),
        (("{folder}/none.pth", "{out}"), "cannot read .*none.pth"),
        (("{in}", "{out}", "--size", "15"), r"multiples of 2 and one of them at least 4, got \(1, 1, 15, 15\)"),
        (("{in}", "{out}", "--size", "0"), "--size must be positive"),
        (("{in}", "{out}", "--size", "8", "8", "8"), "--size takes one side, or height and width, got 3"),
        (
            ("{in}", "{out}", "--sigmas", "1", "0.5"),
            "sigmas is .12,. where .2,. is wanted.*Leave sigmas out to have it read off the file .on the .*: --sigmas",
        ),
        (
            ("{in}", "{out}", "--sigmas", "0.5", "1"),
            "network of class NCSNv2: sigmas must decrease strictly.*: --sigmas.$",
        ),
        (
            ("{in}", "{out}", "--sigmas", *("1", "0.5", "0.5")),
            "sigmas.1. = 0.5 and sigmas.2. = 0.5 are equal; leave one of them out .*: --sigmas.$",
        ),
        (
            ("{in}", "{out}", "--sigmas", *map(str, range(12, 0, -1))),
            "sigmas differ from the ladder in the file.*: --sigmas.$",
        ),
        (("{levels}", "{out}"), "3 levels and does not say which; give sigmas=, .*: --sigmas.$"),
        (("{average}", "{out}"), "averages of weights .EMA. are saved alone; give sigmas=, .*: --sigmas.$"),
        (("{short}", "{out}"), "have 3 tensors, NCSNv2 has 153 parameters; ema=False .*: --no-ema.$"),
    ],
)
def test_convert_refuses_and_writes_nothing(arguments, message, tmp_path, capsys):
    path, out = saved(tmp_path, [wrapped(make(NCSNv2)), {}]), tmp_path / "net.safetensors"
    before = path.read_bytes()
    names = {"in": path, "out": out, "folder": tmp_path}
    net = make(NCSNv2)
    ema = {"shadow_params": list(parameters(net).values())[:3]}
    others = {
        "levels": NCSN(LADDER[:3], NCSNConfig(width=4)).state_dict(),
        "average": parameters(net),
        "short": {"model": wrapped(net), "ema": ema},
    }
    for name, content in others.items():
        if f"{{{name}}}" in arguments:
            names[name] = tmp_path / name
            torch.save(content, names[name])
    assert convert(*(argument.format_map(names) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastlangevin convert: error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert path.read_bytes() == before
    assert not out.exists()
    assert all(each == path or each.name in others for each in tmp_path.iterdir())


def test_a_network_trained_on_other_scales_says_so_in_its_sizes(tmp_path):
    path = saved(tmp_path, [wrapped(make(NCSNv2)), {}])
    assert load_published(path).net.config.rescale
    assert not load_published(path, config=NCSNv2Config(channels=1, width=4, rescale=False)).net.config.rescale


def test_paths_may_be_strings(tmp_path):
    assert_equal_nets(load_published(str(Path(saved(tmp_path, [wrapped(make(NCSN)), {}])))).net, make(NCSN))
