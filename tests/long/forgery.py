"""Damage and forgery of files: what chance does to bytes, and a deliberate hand to JSON under right digests."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastlangevin.storage import container

__all__ = ["blind", "forged", "forged_json", "forged_state"]

# Integers where a check, a conversion or an allocation could give way; the first is 268 MB as fp32.
NUMBERS = (
    2**26,
    0,
    1,
    -1,
    2,
    2**15,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**53,
    2**56,
    2**62,
    2**63,
    2**64,
    2**70,
    -(2**63),
)
ODD = (
    None,
    True,
    False,
    0.5,
    1e308,
    -0.0,
    10**400,
    "",
    "..",
    "../x",
    "/x",
    "\0",
    "F32",
    "\ud800",
    "é" * 40,
    [],
    {},
    [[]],
)
LENGTHS = (0, 1, 7, 2**24, 2**24 + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)


def _flips(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 8))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def _noise(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randrange(len(content))
    length = min(chance.choice((1, 2, 8, 64)), len(content) - start)
    content[start : start + length] = chance.randbytes(length)


def _zeros(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randrange(len(content))
    length = min(chance.choice((8, 64, 512)), len(content) - start)
    content[start : start + length] = bytes(length)


def _truncation(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def _addition(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    content += chance.choice((b"\0", b"\n", bytes(64), chance.randbytes(8), bytes(content)))


def _gap(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randrange(len(content))
    del content[start : start + chance.choice((1, 4, 8, 64))]


def _repeat(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randrange(len(content))
    content[start:start] = content[start : start + chance.choice((1, 8, 64))]


def _splice(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    other = chance.choice(others)
    content[chance.randrange(len(content)) :] = other[chance.randrange(len(other)) :]


def _exchange(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    other = chance.choice(others)
    start = chance.randrange(min(len(content), len(other)))
    content[start:] = other[start:]


def _number(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    """Another number where the text has one."""
    found = list(re.finditer(rb"-?[0-9]+", bytes(content[:4096])))
    if found:
        place = chance.choice(found)
        content[place.start() : place.end()] = str(chance.choice(NUMBERS)).encode()


def _length(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    """Another length of the header."""
    length = chance.choice((*LENGTHS, max(0, len(content) - 8), max(0, len(content) - 9)))
    content[:8] = struct.pack("<Q", length)


def _word(content: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    """A piece of JSON in the header."""
    start = chance.randrange(min(len(content), 1024))
    piece = chance.choice((b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"NaN", b"1e999", b"\xff", b"\xed\xa0\x80"))
    content[start : start + chance.choice((0, 1))] = piece * chance.choice((1, 1, 1, 3000))


BLIND: tuple[Callable[[bytearray, Sequence[bytes], random.Random], None], ...] = (
    _flips, _flips, _noise, _zeros, _truncation, _addition, _gap, _repeat, _splice, _exchange, _number, _length, _word,
)  # fmt: skip


def blind(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Content damaged once, twice or three times, knowing nothing of digests; ``others`` are there to be spliced in."""
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if damaged:
            chance.choice(BLIND)(damaged, others, chance)
    return bytes(damaged)


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        found.append((value, key))
        _places(each, found)
    return found


def _value(old: Any, chance: random.Random) -> Any:
    if type(old) is int and chance.random() < 0.5:
        return old + chance.choice((-1, 1, 2**32))
    if isinstance(old, list) and old and chance.random() < 0.5:
        return chance.choice((old[:-1], old + old, old[::-1], [old], old * (100 if len(old) < 10 else 1)))
    deep: Any = []
    for _ in range(chance.choice((0, 0, 0, 200))):
        deep = [deep]
    return copy.deepcopy(chance.choice((chance.choice(NUMBERS), chance.choice(ODD), deep)))


def forged_json(value: Any, chance: random.Random) -> Any:
    """A JSON value of which one to three places were changed, removed, doubled or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = _places(value, [])
        if not places:
            break
        where, key = chance.choice(places)
        how = chance.randrange(6)
        if how == 0:
            del where[key]
        elif how == 1 and isinstance(where, dict):
            where[chance.choice(("x", "..", "sigmas", "step", ""))] = copy.deepcopy(where[key])
        elif how == 2 and isinstance(where, dict):
            where[chance.choice(("y", "seed", "shape"))] = where.pop(key)
        else:
            where[key] = _value(where[key], chance)
    return value


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def forged(content: bytes, chance: random.Random) -> bytes:
    """A file of :mod:`fastlangevin.container` whose header was changed, under a right digest of the header."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    metadata = header["__metadata__"]
    if chance.random() < 0.4:
        value = forged_json(json.loads(metadata["description"]), chance)
        description = json.dumps(value, sort_keys=chance.random() < 0.9, separators=(",", ":"))
        metadata["description"] = description
        if chance.random() < 0.9:
            metadata["sha256:description"] = hashlib.sha256(description.encode()).hexdigest()
    else:
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        header = {"__metadata__": metadata, **forged_json(tensors, chance)}
        if chance.random() < 0.2:
            header["__metadata__"] = {**metadata, **forged_json(metadata, chance)}
    text = _text(header)
    if chance.random() < 0.05:
        text = text[:-1] + chance.choice((b',"w":{}}', b"," + text[1:], b" }", b"\xff}", b"}" + b" " * 64))
    text += b" " * (-len(text) % 8)
    sealed = bytearray(len(text).to_bytes(8, "little") + text)
    if len(sealed) >= container._DIGEST.stop:
        sealed[container._DIGEST] = container._seal(sealed).encode()
    return bytes(sealed) + content[start:]


def forged_state(
    tensors: dict[str, Tensor], description: dict[str, Any], chance: random.Random
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and a description of which one or the other was changed, for a file with all digests right."""
    tensors = dict(tensors)
    if chance.random() < 0.5 or not tensors:
        return tensors, forged_json(description, chance)
    name = chance.choice(list(tensors))
    old = tensors.pop(name)
    how = chance.randrange(7)
    if how == 1:
        tensors[name + chance.choice((".x", "2", ""))] = old
    elif how == 2:
        tensors[name] = old.to(chance.choice((torch.float64, torch.int64, torch.uint8, torch.bool)))
    elif how == 3:
        tensors[name] = old.flatten()[: chance.randrange(old.numel() + 1)].clone()
    elif how == 4:
        tensors[name] = old[None]
    elif how == 5:
        tensors[name] = torch.full_like(old, chance.choice((0, 1, -1)))
    elif how == 6:
        tensors[name] = (old.double() * float("nan")).to(old.dtype) if old.is_floating_point() else old * 0 - 1
    return tensors, description
