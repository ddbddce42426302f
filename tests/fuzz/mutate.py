"""Bad inputs from good ones: structure-aware where the structure is lines, words or JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

# What parsers stumble over: terminals' and Unicode's oddities, numbers at their edges,
# the marks of the formats at hand.
POISON: tuple[bytes, ...] = (
    b"", b"\0", b"\n", b"\r\n", b"\r", b"\t", b" ", b"\x1b]0;x\x07", b"\x1b[2J", b"\xff", b"\xe9",
    b"\xc3\xa9", b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\xc2\x85", b"\xed\xb3\xa9", b"\x0b", b"\x1c",
    b"0", b"-1", b"1e999", b"NaN", b"4294967296", b"9" * 400, b"9" * 5000, b"0x10", b"\xc2\xb2",
    b"\xd9\xa3", b"%s", b"%n", b"%(x)s", b"$(reboot)", b"`id`", b"../../etc/passwd", b"/",
    b"//", b"\\", b"\\134", b"\\999", b"\\", b"'", b'"', b";", b"#", b"=", b":", b",", b"{", b"}",
    b"[", b"]", b"[]", b"{}", b"(", b")", b"<", b">", b"&", b"&lt;", b"null", b"true", b"A" * 3000,
    b"[" * 3000, b"{" * 3000, b"(" * 3000, b"\n" * 2000, b" " * 3000,
)
LARGEST = 1 << 16


def some(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """A sample with a few changes; now and then something that is none at all."""
    if rng.random() < 0.02:
        return rng.randbytes(rng.randrange(200))
    data = rng.choice(samples)
    if rng.random() < 0.4 and (changed := _json(rng, data)) is not None:
        data = changed
        if rng.random() < 0.7:
            return data[:LARGEST]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice(CHANGES)(rng, data, rng.choice(samples))
    return data[:LARGEST]


def name(rng: random.Random) -> bytes:
    """A file's name: any bytes but the slash and zero."""
    parts = [rng.choice(POISON)[:40] if rng.random() < 0.5 else rng.randbytes(rng.randrange(6))
             for _ in range(rng.randrange(1, 4))]
    made = b"x".join(parts).replace(b"/", b"_").replace(b"\0", b"_")[:200]
    return made if made not in (b"", b".", b"..") else b"name"


def _cut(rng: random.Random, data: bytes, other: bytes) -> bytes:
    begin, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:begin] + data[end:]


def _end_early(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flip(rng: random.Random, data: bytes, other: bytes) -> bytes:
    if not data:
        return data
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1:]


def _poison(rng: random.Random, data: bytes, other: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice(POISON) + data[place:]


def _splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1):]


def _lines(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A line doubled, moved, taken out, indented or replaced."""
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    line = lines.pop(place)
    what = rng.randrange(6)
    if what == 0:
        lines[place:place] = [line] * rng.choice((2, 3, 200))
    elif what == 1:
        lines.insert(rng.randrange(len(lines) + 1), line)
    elif what == 2:
        lines.insert(place, b"    " + line)
    elif what == 3:
        lines.insert(place, rng.choice(POISON))
    elif what == 4:
        lines.insert(place, rng.choice(other.split(b"\n")))
    return b"\n".join(lines)


def _word(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A word, or what stands behind a mark, replaced."""
    mark = rng.choice((b" ", b" ", b"=", b":", b'"', b"/", b","))
    words = data.split(mark)
    words[rng.randrange(len(words))] = rng.choice(
        (rng.choice(POISON), rng.choice(other.split(mark)))
    )
    return mark.join(words)


def _number(rng: random.Random, data: bytes, other: bytes) -> bytes:
    places = [place for place, one in enumerate(data) if chr(one).isdigit()]
    if not places:
        return data
    place = rng.choice(places)
    return data[:place] + rng.choice((b"-", b"", b"99999999999999999999", b"0", b"x", b"\xc2\xb2")
                                     ) + data[place + 1:]


CHANGES: tuple[Callable[[random.Random, bytes, bytes], bytes], ...] = (
    _cut, _end_early, _flip, _poison, _poison, _splice, _lines, _lines, _word, _word, _number,
)

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**70, 1.5, float("inf"), "", "x", "\udce9\x1b\n", [], [[]], [None],
    {}, {"x": 1}, "9" * 400, ["a"] * 50,
)


def value(rng: random.Random, whole: Any) -> Any:
    """JSON of the same shape, with one place in it that is something else."""
    if isinstance(whole, dict) and whole and rng.random() < 0.9:
        key = rng.choice(list(whole))
        if rng.random() < 0.15:
            return {one: inside for one, inside in whole.items() if one != key}
        return {**whole, key: value(rng, whole[key])}
    if isinstance(whole, list) and whole and rng.random() < 0.9:
        place = rng.randrange(len(whole))
        if rng.random() < 0.15:
            return whole[:place] + whole[place + 1:]
        return [*whole[:place], value(rng, whole[place]), *whole[place + 1:]]
    return rng.choice(VALUES)


def _json(rng: random.Random, data: bytes) -> bytes | None:
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        return None
    for _ in range(rng.choice((1, 1, 2))):
        whole = value(rng, whole)
    return json.dumps(whole).encode()
