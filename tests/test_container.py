"""The file format: what is written comes back, bit for bit, or is refused; what stood there before survives."""

import errno
import json
import os
import pickle
import subprocess
import sys
from functools import partial

import pytest
import torch
from patience import HUNG
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as library_load
from torch import _weights_only_unpickler

from fastlangevin.storage import container

DESCRIPTION = {"step": 2**63, "note": "Größe", "losses": [0.1, None, True, 1e-300], "nested": {"b": {}, "a": []}}


def tensors():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 7, generator=generator)
    return {
        "weights": weights,
        "bias": weights[0].double(),
        "half": weights[1].half(),
        "brain": weights[2].bfloat16(),
        "step": torch.tensor(3),
        "ids": torch.arange(-3, 4, dtype=torch.int32),
        "short": torch.arange(3, dtype=torch.int16),
        "tiny": torch.arange(3, dtype=torch.int8),
        "bytes": torch.arange(250, 256, dtype=torch.uint8),
        "mask": torch.tensor([True, False, True]),
        "empty": torch.empty(3, 0),
        'näme with "quotes"': torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
    }


def bits(tensor):
    return tensor.dtype, tensor.shape, bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy())


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "state.safetensors"
    container.write(path, tensors(), DESCRIPTION)
    return path


def test_every_bit_comes_back(path):
    loaded, description = container.read(path)
    assert description == DESCRIPTION
    assert loaded.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert bits(loaded[name]) == bits(tensor), name


def test_each_tensor_has_its_own_memory(path):
    loaded, _ = container.read(path)
    before = bits(loaded["bias"])
    loaded["weights"].fill_(7)
    assert bits(loaded["bias"]) == before
    assert len({tensor.untyped_storage().data_ptr() for tensor in loaded.values() if tensor.numel()}) == 11


def test_views_and_parameters_are_written_as_they_look(tmp_path):
    base = torch.arange(24.0).view(4, 6)
    views = {
        "transposed": base.t(),
        "stepped": base[::2, 1::3],
        "expanded": base[0].expand(3, 6),
        "parameter": torch.nn.Parameter(base[1]),
        "negative": torch.view_as_complex(base.view(-1, 2)).conj().imag,
    }
    container.write(tmp_path / "views", views, {})
    loaded, description = container.read(tmp_path / "views")
    assert description == {}
    for name, tensor in views.items():
        assert torch.equal(loaded[name], tensor.detach()), name
        assert not loaded[name].requires_grad


def test_nothing_is_enough(tmp_path):
    container.write(tmp_path / "nothing", {}, {})
    assert container.read(tmp_path / "nothing") == ({}, {})


def test_other_programs_can_read_it(path):
    loaded = library_load(path.read_bytes())
    assert loaded.keys() == tensors().keys()
    assert all(bits(loaded[name]) == bits(tensor) for name, tensor in tensors().items())
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["description"]) == DESCRIPTION


def test_equal_content_gives_equal_bytes(path, tmp_path):
    backwards = dict(reversed(tensors().items()))
    container.write(tmp_path / "again", backwards, dict(reversed(DESCRIPTION.items())))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    container.write(tmp_path / "again", *container.read(path))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_tensors_lie_at_multiples_of_their_elements(path):
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    assert start % 8 == 0
    header = json.loads(content[8:start])
    for name, tensor in tensors().items():
        assert header[name]["data_offsets"][0] % tensor.element_size() == 0, name


# Damage.


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small"
    container.write(path, {"w": torch.arange(1.0, 5.0), "m": torch.arange(4.0, 0.0, -1.0)}, {"step": 1})
    return path


def refuses(path, content, reads=container.read):
    path.write_bytes(content)
    try:
        reads(path)
    except (ValueError, SafetensorError):
        return True
    return False


def test_every_flipped_bit_is_refused(small):
    intact = small.read_bytes()
    passed, passed_by_the_library = 0, 0
    for position in range(len(intact)):
        for bit in range(8):
            damaged = bytearray(intact)
            damaged[position] ^= 1 << bit
            passed += not refuses(small, damaged)
            passed_by_the_library += not refuses(small, damaged, lambda path: library_load(path.read_bytes()))
    assert passed == 0
    # The twin: a reader of the same format that knows nothing of the digests passes all flips of the tensors, at least.
    assert passed_by_the_library >= 8 * 32
    assert not refuses(small, intact)


def test_every_truncation_and_addition_is_refused(small):
    intact = small.read_bytes()
    assert all(refuses(small, intact[:length]) for length in range(len(intact)))
    assert all(refuses(small, intact + bytes(more)) for more in (1, 8, 4096))
    assert refuses(small, intact + intact)
    assert refuses(small, intact[1:])


def test_every_zeroed_page_is_refused(tmp_path):
    path = tmp_path / "large"
    container.write(path, {f"t{n}": torch.arange(1, 3000) + n for n in range(5)}, {"text": "x" * 10_000})
    intact = path.read_bytes()
    for start in range(0, len(intact), 4096):
        length = len(intact[start : start + 4096])
        assert refuses(path, intact[:start] + bytes(length) + intact[start + length :]), start


def test_tensors_that_change_places_are_refused(small):
    intact = small.read_bytes()
    one, other = intact[-32:-16], intact[-16:]
    assert one != other
    assert refuses(small, intact[:-32] + other + one)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda content: content[:5], "it ends before its header does"),
        (lambda content: content[:100], "it ends before its header does"),
        (lambda content: content[:-1], r"it has \d+ bytes, its header speaks of \d+"),
        (lambda content: content[:8] + b"[" + content[9:], "does not begin with the __metadata__"),
        (lambda content: content.replace(b"step", b"stop"), "its header does not have the SHA-256"),
        (lambda content: content[:-1] + b"\1", "its tensor 'w' does not have the SHA-256"),
    ],
)
def test_what_is_wrong_is_said(small, change, why):
    small.write_bytes(change(small.read_bytes()))
    with pytest.raises(
        container.DamagedError, match=rf"small is damaged, or no file of this package: .*{why}"
    ) as caught:
        container.read(small)
    assert caught.value.path == small
    assert caught.value.why in str(caught.value)


# Deliberate files: the digest of the header is right, and only the rules of the format are left.


def crafted(small, change):
    """The file with a changed header under a right digest."""
    content = small.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    changed = change(header)
    text = changed if isinstance(changed, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    sealed = bytearray(len(text).to_bytes(8, "little") + text)
    sealed[container._DIGEST] = container._seal(sealed).encode()
    return bytes(sealed) + content[start:]


def entry(**changes):
    return lambda header: header["w"].update(changes)


def metadata(**changes):
    return lambda header: header["__metadata__"].update(changes)


def described(header, text):
    """Another description, under its own digest."""
    digest = container.hashlib.sha256(text.encode()).hexdigest()
    metadata(**{"description": text, "sha256:description": digest})(header)


def compact(header):
    return json.dumps(header, separators=(",", ":")).encode()


def boolean_under_its_own_digest(header):
    values = torch.arange(1.0, 5.0).numpy().tobytes()
    entry(shape=[True, 4])(header)
    metadata(**{"sha256:tensor:w": container.hashlib.sha256(b"F32 [True, 4] " + values).hexdigest()})(header)


CRAFTED = {
    "boolean under its own digest": boolean_under_its_own_digest,
    "claims a terabyte": entry(shape=[2**38], data_offsets=[0, 2**40]),
    "negative": entry(shape=[-4]),
    "twice negative": entry(shape=[-2, -2]),
    "boolean": entry(shape=[True, 4]),
    "fraction": entry(shape=[4.0]),
    "number": entry(shape=4),
    "text": entry(shape="4"),
    "dict": entry(shape={"4": 4}),
    "impossible": entry(shape=[0, 2**62, 2**62], data_offsets=[0, 0]),
    "beyond 64 bits": entry(shape=[0, 2**70], data_offsets=[0, 0]),
    "other dtype": entry(dtype="I32"),
    "unknown dtype": entry(dtype="F4"),
    "dtype that is a list": entry(dtype=["F32"]),
    "overlap": entry(data_offsets=[0, 16]),
    "beyond the end": entry(data_offsets=[16, 2**40]),
    "another key": entry(extra=1),
    "no shape": lambda header: header["w"].pop("shape"),
    "list for a tensor": lambda header: header.update(w=[]),
    "no such digest": lambda header: header["__metadata__"].pop("sha256:tensor:w"),
    "digest that is a number": metadata(**{"sha256:tensor:w": 5}),
    "digest of no tensor": metadata(**{"sha256:tensor:x": "0" * 64}),
    "wrong digest of the description": metadata(**{"sha256:description": "0" * 64}),
    "description of another": metadata(description='{"step":2}'),
    "description that is a number": metadata(description=5),
    "description that is a list": metadata(description="[]"),
    "a tensor more": lambda header: header.update(x=header["w"]),
    "a tensor less": lambda header: header.pop("w"),
    "other order": lambda header: header.update(m=header.pop("m")),
    "spaces": lambda header: json.dumps(header).encode().replace(b" ", b"", 2),
    "doubled key": lambda header: compact(header)[:-1] + b',"w":' + compact(header["w"]) + b"}",
    "padding": lambda header: compact(header) + b" " * 64,
    "not JSON": lambda header: compact(header)[:-1],
    "not UTF-8": lambda header: compact(header) + b"\xff",
    "deep": lambda header: compact(header)[:-1] + b',"x":' + b"[" * 100_000 + b"}",
    "a hole": entry(data_offsets=[20, 36]),
    "backwards": entry(data_offsets=[16, 0]),
    "negative offset": entry(data_offsets=[-16, 0]),
    "offsets that are fractions": entry(data_offsets=[0.0, 16.0]),
    "three offsets": entry(data_offsets=[0, 16, 16]),
    "two tensors in one place": lambda header: header["m"].update(data_offsets=header["w"]["data_offsets"]),
    "places exchanged": lambda header: (entry(data_offsets=[0, 16])(header), header["m"].update(data_offsets=[16, 32])),
    "product beyond 64 bits": entry(shape=[2**33, 2**33], data_offsets=[0, 2**68]),
    "product that wraps to 4": entry(shape=[2**62 + 1, 4], data_offsets=[0, 16]),
    "a thousand digits": lambda header: compact(header).replace(b'"shape":[4]', b'"shape":[' + b"9" * 1000 + b"]"),
    "more digits than Python converts": lambda header: compact(header).replace(
        b'"shape":[4]', b'"shape":[' + b"9" * 10_000 + b"]"
    ),
    "infinite": lambda header: compact(header).replace(b'"shape":[4]', b'"shape":[Infinity]'),
    "doubled metadata": lambda header: compact(header)[:-1] + b',"__metadata__":{}}',
    "doubled key inside": lambda header: compact(header).replace(b'{"dtype":', b'{"dtype":"F32","dtype":'),
    "key written by an escape": lambda header: compact(header).replace(b'"m":{', b'"\\u006d":{'),
    "half a surrogate": lambda header: header["__metadata__"].update(description='{"step":"\ud800 "}'),
    "description of NaN": lambda header: described(header, '{"step":NaN}'),
    "description of infinity": lambda header: described(header, '{"step":1e999}'),
    "description with a doubled key": lambda header: described(header, '{"step":1,"step":1}'),
    "description out of order": lambda header: described(header, '{"b":1,"a":1}'),
    "description with spaces": lambda header: described(header, '{"step": 1}'),
    "deep description": lambda header: described(header, '{"step":' + "[" * 5000 + "]" * 5000 + "}"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_deliberate_files_are_refused(small, name):
    small.write_bytes(crafted(small, CRAFTED[name]))
    with pytest.raises(container.DamagedError, match="small is damaged"):
        container.read(small)


def test_the_craft_itself_is_accepted(small):
    # The twin: with no change, or with one that is right, the crafted file is read.
    small.write_bytes(crafted(small, lambda header: None))
    container.read(small)
    text = '{"step":2}'
    digest = container.hashlib.sha256(text.encode()).hexdigest()
    small.write_bytes(crafted(small, metadata(**{"description": text, "sha256:description": digest})))
    assert container.read(small)[1] == {"step": 2}


def test_a_header_is_not_read_beyond_its_limit(tmp_path):
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.write((container.MAX_HEADER + 8).to_bytes(8, "little"))
        file.truncate(2**34)
    with pytest.raises(ValueError, match=r"its header claims 8388616 bytes, more than 8388608"):
        container.read(path)


def empty(count, length=1):
    return {f"{index:0{length}}": torch.zeros(0) for index in range(count)}


@pytest.mark.parametrize(
    ("tensors", "description", "message"),
    [
        ({}, {"text": "x" * container.MAX_DESCRIPTION}, "the description takes .* make tensors of what is long"),
        (empty(container.MAX_TENSORS + 1), {}, "there are 32769 tensors, a file has room for 32768"),
        (empty(8000, 500), {}, "description and names take .* give the tensors shorter names"),
    ],
)
def test_what_a_file_has_no_room_for_is_refused_before_it_is_written(tmp_path, tensors, description, message):
    for refuse in (partial(container.write, tmp_path / "long"), container.check_room):
        with pytest.raises(ValueError, match=message):
            refuse(tensors, description)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_state_of_five_thousand_parameters_has_room(path):
    names = [f"{part}.encoder.3.blocks.{index}.norm.affine.weight" for part in "abcde" for index in range(5000)]
    container.write(path, dict.fromkeys(names, torch.ones(1)), {"a": 1})
    tensors, description = container.read(path)
    assert tensors.keys() == set(names)
    assert description == {"a": 1}
    container.check_room(tensors, description)


def test_a_description_is_not_parsed_beyond_its_limit(small):
    text = '{"step":"' + "x" * container.MAX_DESCRIPTION + '"}'
    small.write_bytes(crafted(small, lambda header: described(header, text)))
    with pytest.raises(container.DamagedError, match="the description takes 1048587 bytes"):
        container.read(small)


FULLEST = """
import json, sys
import torch
from fastlangevin.storage import container
from pathlib import Path

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024

path = sys.argv[1]
peaks = {}
for text in ("{}", "[0]", "[" * 200 + "]" * 200, "1000"):
    room = (container.MAX_DESCRIPTION - 1000) // (len(text) + 1)
    shape = (0, 300, 300, 300, 300, 300, *[1] * 20)
    tensors = {f"{number:x}": torch.zeros(0).reshape(shape) for number in range(container.MAX_TENSORS)}
    container.write(path, tensors, {"a": [json.loads(text)] * room})
    # What writing took does not count.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    container.read(path)
    peaks[text] = peak() - before - Path(path).stat().st_size
print(json.dumps(peaks))
"""


@pytest.mark.long
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="the peak of memory is read from Linux's /proc")
def test_the_longest_headers_take_no_more_than_a_hundred_megabytes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULLEST, str(tmp_path / "file")],
        capture_output=True,
        text=True,
        check=True,
        timeout=HUNG,
    )
    peaks = json.loads(done.stdout)
    assert max(peaks.values()) < 10**8, peaks
    # The twin: it is the limit that keeps them there, and the measure sees what it is to see.
    assert max(peaks.values()) > 10 * container.MAX_DESCRIPTION, peaks


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_pickles_are_not_run(write, path, monkeypatch):
    write(Trap(str(path.with_name("sprung"))), path)
    with pytest.raises(container.DamagedError):
        container.read(path)
    assert not path.with_name("sprung").exists()


def test_the_error_itself_can_be_pickled(path):
    error = pickle.loads(pickle.dumps(container.DamagedError(path, "it ends")))
    assert (type(error), error.path, error.why) == (container.DamagedError, path, "it ends")
    assert str(error) == str(container.DamagedError(path, "it ends"))


def test_reading_uses_no_pickle(path, monkeypatch):
    class Forbidden:
        def __init__(self, *_, **__):
            raise AssertionError("unpickled")

    torch.save(torch.ones(1), path.with_name("pickled"))
    for module in (pickle, _weights_only_unpickler):
        for name in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(module, name, Forbidden, raising=False)
    read, description = container.read(path)
    assert description == DESCRIPTION
    assert {name: bits(value) for name, value in read.items()} == {
        name: bits(value) for name, value in tensors().items()
    }
    # The twin: what unpickles is found out.
    for weights_only in (True, False):
        with pytest.raises(AssertionError, match="unpickled"):
            torch.load(path.with_name("pickled"), weights_only=weights_only)


@pytest.mark.parametrize(
    ("tensors", "description", "message"),
    [
        ({"x": [1.0]}, {}, "'x' is a list, not a tensor"),
        ({"x": torch.zeros(2, dtype=torch.complex64)}, {}, "'x' is torch.complex64"),
        ({"x": torch.zeros(2).to_sparse()}, {}, "'x' is torch.float32, torch.sparse_coo"),
        ({"x": torch.zeros(2, device="meta")}, {}, "'x' is a tensor without data"),
        ({5: torch.zeros(2)}, {}, "a tensor is called 5; names are strings"),
        ({"__metadata__": torch.zeros(2)}, {}, "taken by the format"),
        ({}, [], "description must be made of dicts .* it is a list, not a dict"),
        ({}, {"x": torch.zeros(1)}, "description must be made of dicts .*Tensor"),
        ({}, {"x": float("nan")}, "description must be made of dicts"),
        ({}, {"state": [{0: 1}]}, "the key 0 is a int"),
        ({}, {"x": {None: 1}}, "the key None is a NoneType"),
    ],
)
def test_what_cannot_be_kept_is_refused(path, tensors, description, message):
    intact = path.read_bytes()
    with pytest.raises(TypeError, match=message):
        container.write(path, tensors, description)
    assert path.read_bytes() == intact


# Reading where nothing can be read.


def test_what_cannot_be_opened_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot read .*missing: No such file.*; check the path"):
        container.read(tmp_path / "missing")
    with pytest.raises(IsADirectoryError, match="cannot read"):
        container.read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a pipe"):
        container.read(tmp_path / "pipe")
    with pytest.raises(ValueError, match="cannot read /dev/zero: it is a device; check the path"):
        container.read("/dev/zero")


def test_a_bad_sector_is_damage(path, monkeypatch):
    def bad(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(container, "_read", bad)
    with pytest.raises(container.DamagedError, match="the disk cannot read it"):
        container.read(path)


def test_a_file_that_shrinks_while_it_is_read_is_refused(small, monkeypatch):
    container.write(small, {"w": torch.ones(10_000)}, {})
    real = container._parse

    def shrink(header):
        os.truncate(small, small.stat().st_size - 4)
        return real(header)

    monkeypatch.setattr(container, "_parse", shrink)
    with pytest.raises(ValueError, match="it ends inside its tensor 'w'"):
        container.read(small)
