"""How deep bytes are nested, found without recursion.

The C decoder calls itself for each level, and stops where the interpreter would: at `sys.getrecursionlimit()` on
CPython 3.11, elsewhere at what the C stack bears. Programs that raise that limit to a million (some do, for a deep
graph of their own) leave 3.11 without a floor: at 30,000 levels it crashes. Only there, bytes are counted first.
"""

from __future__ import annotations

import sys

__all__ = ["unbounded"]

_SAFE = 5_000  # levels; the default stack of a thread bears four times as many
_FLOORLESS = sys.version_info < (3, 12)

_CONTAINERS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_WIDTHS = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # bin, str
_COUNTS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}  # array, map
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}  # and those of fixed length


def unbounded(payload: bytes | memoryview) -> bool:
    """True if decoding these bytes could overrun the C stack, which nothing else would stop."""
    if not _FLOORLESS or sys.getrecursionlimit() <= _SAFE:
        return False
    data = bytes(payload)
    if len(data) - len(data.translate(None, _CONTAINERS)) <= _SAFE:
        return False
    return _deeper(data, _SAFE)


def _deeper(data: bytes, levels: int) -> bool:
    """Whether values are nested deeper than that before the bytes end or make no sense to a decoder either."""
    at, size, left = 0, len(data), [1]  # values still to come on each level
    while left and at < size:
        if not left[-1]:
            left.pop()
            continue
        left[-1] -= 1
        head, at = data[at], at + 1
        if head < 0x80 or head >= 0xE0 or 0xC0 <= head <= 0xC3:
            continue
        if head < 0x90:
            left.append(2 * (head & 0x0F))
        elif head < 0xA0:
            left.append(head & 0x0F)
        elif head < 0xC0:
            at += head & 0x1F
        elif head in _WIDTHS:
            at += _WIDTHS[head]
        elif head in _LENGTHS:
            width = _LENGTHS[head]
            at += width + int.from_bytes(data[at : at + width], "big")
        elif head in _COUNTS:
            width, each = _COUNTS[head]
            left.append(each * int.from_bytes(data[at : at + width], "big"))
            at += width
        else:
            width = _EXTENSIONS.get(head, 0)
            length = int.from_bytes(data[at : at + width], "big") if width else 1 << (head - 0xD4)
            at += width + 1
            if data[at - 1 : at] == b"\xff":  # the format's own timestamp: nothing inside
                at += length
            else:
                left.append(1)
        if len(left) > levels:
            return True
    return False
