"""Requests of the C++ library are declared as it reads them, and a library that reads them otherwise is refused."""

from __future__ import annotations

import ctypes
import re
import struct
import typing
from collections.abc import Sequence
from pathlib import Path

import pytest

from fastlangevin.kernels.cpp import native, requests
from fastlangevin.kernels.cpp.requests import DECLARED, ENTRIES, Declared, packer

KERNELS = Path(native.__file__).parent
PLAN, LIBRARY = ((KERNELS / "csrc" / name).read_text(encoding="utf-8") for name in ("plan.h", "library.cpp"))
COMMENT = re.compile(r"//.*")
ENTRY = re.compile(r"FL_EXPORT int (\w+)\(const (\w+)\* request\)")
MEMBER = re.compile(r"(\w+)(?:\[\w+\])?(?:,|$)")


@pytest.fixture(scope="module")
def path() -> Path:
    """The library that is in use."""
    try:
        return Path(native.location())
    except RuntimeError as error:
        if "reads requests otherwise" in str(error):  # then the tests of these kernels are skipped
            pytest.fail(str(error))
        pytest.skip(f"no C++ kernels: {error}")


def told(path: Path) -> list[str]:
    """What the library says of its structs."""
    return list(native._layouts(native._open(path)))


def copy(declared: type[Declared], fields: Sequence[tuple[str, typing.Any]]) -> type[Declared]:
    """A declaration of the same name with other fields."""
    return type(declared.__name__, (Declared,), {"_fields_": list(fields)})


def instead(changed: type[Declared]) -> tuple[type[Declared], ...]:
    """All declarations, with one in the place of that of its name."""
    return tuple(changed if each.__name__ == changed.__name__ else each for each in DECLARED)


def structs() -> dict[str, list[tuple[str, str]]]:
    """Name and type of every field of each struct of plan.h, pointers as P; a tail is no field."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, body in re.findall(r"^struct (\w+) \{$(.*?)^\};$", COMMENT.sub("", PLAN), re.MULTILINE | re.DOTALL):
        found[name] = []
        for line in map(str.strip, body.split(";")):
            if line and not line.endswith("[]"):
                kind = "P" if "*" in line else line.partition(" ")[0]
                found[name] += [(field, kind) for field in MEMBER.findall(line)]
    return found


def test_the_library_confirms_the_declarations(path: Path) -> None:
    assert requests.difference(told(path)) is None


def variants(declared: type[Declared]) -> dict[str, list[tuple[str, typing.Any]]]:
    """One mistake in a declaration, of each kind, by the name of the first field that is then another."""
    fields = list(declared._fields_)
    (first, kind), *rest = fields
    (last, kind_of_last) = fields[-1]
    found = {
        f"{first}, another type": [(first, ctypes.c_double if kind is not ctypes.c_double else ctypes.c_int64), *rest],
        f"{last}, narrower": [*fields[:-1], (last, ctypes.c_int32)],
        f"{first}, left out": rest,
        f"{last}, left out": fields[:-1],
        f"{first}, another name": [(f"{first}_", kind), *rest],
        f"{last}, twice as many": [*fields[:-1], (last, kind_of_last * 2)],
    }
    if len(fields) > 1:
        found[f"{first}, later"] = [rest[0], (first, kind), *rest[1:]]
    return found


@pytest.mark.parametrize("declared", DECLARED, ids=lambda each: each.__name__)
def test_a_declaration_with_a_mistake_is_refused(declared: type[Declared], path: Path) -> None:
    texts = told(path)
    for mistake, fields in variants(declared).items():
        message = requests.difference(texts, instead(copy(declared, fields)))
        assert message is not None, mistake
        assert f"of {declared.__name__} " in message, mistake
        field = mistake.partition(",")[0]
        assert field in message or "twice" in mistake, (mistake, message)
    assert requests.difference(texts, instead(copy(declared, list(declared._fields_)))) is None


def test_a_struct_that_one_side_alone_knows_is_refused(path: Path) -> None:
    texts = told(path)
    assert "MlpRequest" in str(requests.difference(texts, DECLARED[:-1]))
    assert "MlpRequest" in str(requests.difference(texts[:-1]))


def test_a_library_that_reads_requests_otherwise_is_not_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [(name, ctypes.c_int64 if name == "b" else kind) for name, kind in requests.Update._fields_]
    wrong = instead(copy(requests.Update, fields))
    right = requests.difference
    monkeypatch.setattr(native, "difference", lambda texts: right(texts, wrong))
    with pytest.raises(OSError, match=r"reads requests otherwise: of Update Python has b:64:q .* library has b:64:d"):
        native._open(path)
    monkeypatch.setattr(native, "_library", None)
    monkeypatch.setenv("FASTLANGEVIN_NO_BUILD", "1")
    monkeypatch.setattr(native, "refusal_beside", lambda *arguments: None)
    monkeypatch.setattr(native, "__file__", str(path.with_name("native.py")))
    with pytest.raises(RuntimeError, match=r"are not built \(.*: of Update Python has b:64:q"):
        native.load()


def test_every_entry_and_what_it_takes_is_declared() -> None:
    entries = dict(ENTRY.findall(LIBRARY))
    assert entries == {name: request.__name__ for name, request in ENTRIES.items()}
    assert len(entries) == LIBRARY.count("* request) {")
    declared = {each.__name__ for each in DECLARED}
    found = structs()
    for name in declared:
        assert {kind for _, kind in found[name]} - {"int64_t", "uint64_t", "double", "P"} <= declared, name
    # What is in plan.h and is not declared, the kernels make themselves.
    assert found.keys() - declared == {"Operand", "Plan", "Kernels"}
    assert declared <= found.keys()


def test_the_fields_are_those_of_the_structs() -> None:
    """Without a library, so that a field which both lists of it lack is missed."""
    found = structs()
    letters = {"int64_t": "q", "uint64_t": "Q", "double": "d"}
    for each in DECLARED:
        words = [word.split(":") for word in requests.layout(each).split()[1:-1]]
        assert [(name, letter) for name, _, letter in words] == [
            (name, letters.get(kind, kind)) for name, kind in found[each.__name__]
        ], each.__name__


def scalars(value: object) -> list[object]:
    """The numbers of a structure, in the order of its fields."""
    if isinstance(value, ctypes.Array):
        return [number for each in value for number in scalars(each)]
    if isinstance(value, ctypes.Structure):
        return [number for name, *_ in value._fields_ for number in scalars(getattr(value, name))]
    return [value or 0]


@pytest.mark.parametrize("declared", DECLARED, ids=lambda each: each.__name__)
@pytest.mark.parametrize("tail", [0, 2])
def test_a_packed_request_has_the_bytes_of_the_structure(declared: type[Declared], tail: int) -> None:
    size = ctypes.sizeof(declared)
    numbers = list(range(3, 3 + size // 8))
    packed = packer(declared, tail)(*numbers, *[-1] * tail)
    assert scalars(declared.from_buffer_copy(packed)) == numbers
    assert packed[size:] == b"\xff" * 8 * tail
    with pytest.raises(struct.error):
        packer(declared, tail)(*numbers[1:], *[-1] * tail)


def test_a_structure_takes_all_its_fields_by_name_and_no_others() -> None:
    whole = {"rows": 1, "components": 2, "features": 3, "diagonal": True}
    assert scalars(requests.MixtureTable(**whole)) == [1, 2, 3, 1]
    for wrong in ({**whole, "labels": 4}, {"rows": 1}, {}):
        with pytest.raises(TypeError, match="MixtureTable has the fields rows, components, features, diagonal"):
            requests.MixtureTable(**wrong)


def test_no_format_is_written_by_hand() -> None:
    for path in KERNELS.glob("*.py"):
        if path.name != "requests.py":
            assert not re.search(r"\bstruct\.|\bimport struct\b", path.read_text(encoding="utf-8")), path.name
