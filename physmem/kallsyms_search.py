# SPDX-License-Identifier: GPL-2.0-only
"""Finding the tables of kallsyms in a kernel whose VMCOREINFO does not say where they are (before 6.0).

In memory, one after the other and each aligned to 8 bytes::

    offsets | relative_base | num_syms | names | markers | ... | token_table | token_index

(until 4.5, whole addresses in place of offsets and base).  The token table cannot
be missed: token n is the character n if any name has that character, and all
digits occur in names.  Behind it, its index confirms it.  Some way before it is
the number of symbols: in front of that the base, which is the address of the
kernel's first byte, or the last of the addresses; and behind it so many names.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from physmem.kallsyms import MAX_SYMBOLS, Tables
from physmem.kallsyms_names import TOKENS
from physmem.memory import PhysicalMemory

if TYPE_CHECKING:
    import numpy as np
else:
    from physmem.later import np

__all__ = ["find_tables"]

_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
#: How far from its first byte a kernel is searched, and how far before the tokens the number of symbols is.
_SEARCHED = 256 << 20
_BEFORE = 16 << 20
_PIECE = 1 << 20
# Names between two markers: a kernel has many times that.
_MARKED = 256
# No token table is longer.
_MAX_TABLE = 1 << 14
_START_KERNEL_MAP = 0xFFFFFFFF80000000
# What is looked at before the search is given up: memory can be made to look like tables everywhere.
_MAX_TABLES = 8
_MAX_NUMBERS = 1 << 14
_MAX_STEPS = 1 << 23
_MAX_FOUND = 16


def find_tables(memory: PhysicalMemory, start: int, virtual: int) -> Iterator[Tables]:
    """What may be the tables of the kernel whose image begins at physical ``start`` and kernel address ``virtual``.

    The first that :func:`physmem.kallsyms.read_kallsyms` can read is right.
    """
    candidates = (
        tables.moved(virtual - start)
        for table, index in islice(_token_tables(memory, start), _MAX_TABLES)
        for tables in _before(memory, table, index, virtual)
    )
    return islice(candidates, _MAX_FOUND)


def _aligned(size: int) -> int:
    return (size + 7) & ~7


def _token_tables(memory: PhysicalMemory, start: int) -> Iterator[tuple[int, int]]:
    """Physical addresses of token tables and of their indices."""
    for first, last in memory.ranges.clip(start, start + _SEARCHED):
        for phys in range(first, last, _PIECE):
            # Of a table that reaches into a neighbour, one of the two has the digits.
            begin = max(first, phys - _MAX_TABLE)
            data = memory.read(begin, min(last, phys + _PIECE + _MAX_TABLE) - begin)
            at = data.find(_DIGITS, phys - begin)
            while 0 <= at < phys - begin + _PIECE:
                found = _token_table(data, at, begin % 8)
                if found is not None:
                    yield begin + found[0], begin + found[1]
                at = data.find(_DIGITS, at + 1)


def _token_table(data: bytes, digits: int, skew: int) -> tuple[int, int] | None:
    """Where the table begins whose token "0" is at ``digits``, and where its index; None if there is no index.

    :param skew: what is to be added to a place to know whether it is aligned
    """
    second = digits
    for _ in range(ord("0") - 1):
        second = data.rfind(b"\0", 0, max(second - 1, 0)) + 1
    end = digits
    for _ in range(TOKENS - ord("0")):
        end = data.find(b"\0", end) + 1
        if end == 0:
            return None
    index = _aligned(end + skew) - skew
    # What is in front of the first token may be anything: where it begins, the index says.
    table = second - int.from_bytes(data[index + 2 : index + 4], "little")
    if table < 0 or (table + skew) % 8 or end - table >= 1 << 16:
        return None
    firsts = [0]
    for _ in range(TOKENS - 1):
        firsts.append(data.find(b"\0", table + firsts[-1]) + 1 - table)
    if data[index : index + 2 * TOKENS] != np.array(firsts, "<u2").tobytes():
        return None
    return table, index


def _before(memory: PhysicalMemory, table: int, index: int, virtual: int) -> Iterator[Tables]:
    """What may be the tables before the token table, by their physical addresses."""
    here = memory.ranges.find(table - 8)
    if here is None:
        return
    first = max(here[0] + 7 & ~7, table - _BEFORE)
    data = memory.read(first, table - first)
    values = np.frombuffer(data, "<u8", len(data) // 8)
    counts, before = values[1:], values[:-1]
    may_be = (counts >= _MARKED) & (counts <= MAX_SYMBOLS) & (before >= np.uint64(_START_KERNEL_MAP))
    steps = _MAX_STEPS
    for place in np.flatnonzero(may_be)[:_MAX_NUMBERS].tolist():
        num_syms = first + 8 * (place + 1)
        names, count = num_syms + 8, int(counts[place])
        taken, good = _are_names(data, names - first, min(count, steps))
        steps -= taken
        if not good:
            continue
        if int(before[place]) == virtual:
            base = num_syms - 8
            yield Tables(num_syms, names, table, index, base - _aligned(4 * count), base)
        yield Tables(num_syms, names, table, index, num_syms - 8 * count, None, wide=True)


def _are_names(data: bytes, at: int, count: int) -> tuple[int, bool]:
    """How many names were looked at, and whether ``count`` begin at ``at`` and the rest leads up to the end."""
    end = len(data)
    for number in range(count):
        if at >= end or data[at] == 0:
            return number, False
        at += data[at] + 1
    # A marker of 32 or 64 bits for every 256th; from 6.2 on, and in some older ones, 3 bytes a name: their order.
    return count, 0 <= end - at <= 8 * (count // _MARKED) + 3 * count + 32
