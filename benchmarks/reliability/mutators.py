"""Mutations of a file: of its bytes, of the fields of its format, of what an archive holds."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import struct
import zipfile
from typing import Any

ODD: tuple[Any, ...] = (None, True, -1, 0, 2**31, 2**63, 10**400, 0.5, 1e308, float("nan"), "", "x")
ODD += ("\x00", "../../x", "/", "\ud800", "1", "é" * 300, [], [[]], [None], {}, {"x": 1}, [2**40])
"""Values that a field may hold and should not."""

WORDS: tuple[bytes, ...] = (
    b"",
    b"nan",
    b"inf",
    b"-1",
    b"99999999999999999999",
    b"\xff\xfe",
    b"\x00",
    b'"',
    b"[",
    b"{",
)
WORDS += (
    b"=1+1",
    b"../../x",
    b"true",
    b"1e999",
    b"\xf0\x9f\x98\x80",
    b"\n",
    b"\t,;",
    b"1979-01-01",
)

_TEXTS = {".toml", ".csv", ".tsv", ".jsonl"}
_ZIPS = {".zip", ".npz", ".pth"}
_HEADER = struct.Struct("<Q")


def mutate(data: bytes, suffix: str, chance: random.Random) -> bytes:
    """Return the content of a file, damaged.

    Args:
        data: it.
        suffix: ending of the file's name; half of the files of a known format are changed in its terms.
        chance: where all that is drawn comes from.
    """
    if chance.random() < 0.5:
        return _bytes(data, chance)
    try:
        if suffix == ".json":
            return _json(data, chance)
        if suffix == ".safetensors":
            return _safetensors(data, chance)
        if suffix in _TEXTS:
            return _text(data, chance)
        if suffix in _ZIPS:
            return _zip(data, chance)
    except (ValueError, KeyError, zipfile.BadZipFile):  # damaged by an earlier mutation
        pass
    return _bytes(data, chance)


def _bytes(data: bytes, chance: random.Random) -> bytes:
    held = bytearray(data)
    place, length = chance.randrange(len(held) + 1), chance.choice((1, 2, 4, 16, 200))
    kind = chance.choice(
        ("flip", "flip", "flip", "cut", "insert", "remove", "fill", "repeat", "empty")
    )
    if kind == "flip":
        # Heads hold what formats say of themselves.
        end = len(held) if chance.random() < 0.5 else min(200, len(held))
        for _ in range(chance.choice((1, 1, 3, 20))):
            if end:
                held[chance.randrange(end)] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del held[place:]
    elif kind == "insert":
        held[place:place] = chance.randbytes(length)
    elif kind == "remove":
        del held[place : place + length]
    elif kind == "fill":
        held[place : place + length] = chance.choice((b"\x00", b"\xff", b"\x7f")) * length
    elif kind == "repeat":
        held[place:place] = held[max(0, place - length) : place]
    elif chance.random() < 0.2:
        held.clear()
    else:
        held += chance.randbytes(length)
    return bytes(held)


def _json(data: bytes, chance: random.Random) -> bytes:
    content = json.loads(data)
    if chance.random() < 0.03:
        return b"[" * 100_000
    for _ in range(chance.choice((1, 1, 2))):
        content = _changed(content, chance)
    return json.dumps(content).encode()


def _changed(content: Any, chance: random.Random) -> Any:
    """One field of a JSON value, wherever it is, holds something else, is gone, or is there twice."""
    places = [*_places(content)]
    if not places:
        return chance.choice(ODD)
    holder, key = chance.choice(places)
    kind = chance.choice(("odd", "odd", "odd", "remove", "other", "add"))
    if kind == "odd":
        holder[key] = copy.deepcopy(chance.choice(ODD))
    elif kind == "remove":
        del holder[key]
    elif kind == "other":
        other, place = chance.choice(places)
        if place in range(len(other)) if isinstance(other, list) else place in other:
            holder[key] = copy.deepcopy(other[place])
    elif isinstance(holder, dict):
        holder[chance.choice(("x", "__class__", ""))] = copy.deepcopy(chance.choice(ODD))
    else:
        holder.append(copy.deepcopy(holder[key]))
    return content


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every holder and key within a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [content]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    return found


def _safetensors(data: bytes, chance: random.Random) -> bytes:
    (length,) = _HEADER.unpack(data[:8])
    if chance.random() < 0.1:
        return _HEADER.pack(chance.choice((0, 1, 2**20, 2**40, 2**64 - 1))) + data[8:]
    header = json.loads(data[8 : 8 + length])
    if chance.random() < 0.3:
        entry = header[chance.choice(sorted(header))]
        if "dtype" in entry:
            entry["dtype"] = chance.choice(("F16", "BF16", "I32", "U8", "F64", "BOOL", "F8_E4M3"))
    elif chance.random() < 0.3:
        names = sorted(header)
        one, two = chance.choice(names), chance.choice(names)
        header[one], header[two] = header[two], header[one]
    elif chance.random() < 0.3 and data[8 + length :]:
        # Numbers that are none: NaN or infinity, in float32 and float64 alike.
        rest = bytearray(data[8 + length :])
        place = chance.randrange(len(rest)) // 8 * 8
        rest[place : place + 8] = chance.choice((b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f")) * 2
        return data[: 8 + length] + bytes(rest)
    else:
        header = _changed(header, chance)
    text = json.dumps(header).encode()
    return _HEADER.pack(len(text)) + text + data[8 + length :]


def _text(data: bytes, chance: random.Random) -> bytes:
    parts = re.split(rb"([\n\t,;=\[\] ]+)", data)
    for _ in range(chance.choice((1, 1, 3))):
        place = chance.randrange(len(parts))
        parts[place] = chance.choice((*WORDS, chance.choice(parts)))
    return b"".join(parts)


def _zip(data: bytes, chance: random.Random) -> bytes:
    """One entry is damaged, and the archive whole again around it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(sorted(held))
    kind = chance.choice(("content", "content", "content", "remove", "name"))
    content = held.pop(name)
    if kind == "content":
        held[name] = _bytes(content, chance)
    elif kind == "name":
        odd = ("../x", "/x", "x" * 300, "a\\b", "con", "", "./", f"{name}/x", "\x01")
        held[chance.choice(odd)] = content
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for entry, value in held.items():
            archive.writestr(zipfile.ZipInfo(entry), value)
    return packed.getvalue()
