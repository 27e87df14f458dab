# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""Passes over all the records of BTF: where each begins, its name and its kind; and the enumerators of all enums."""

from __future__ import annotations

from physmem.ctype import u8_const_view, u8_view, u32, u32_const_view, u32_view, u64, u64_view

__all__ = ["enumerators", "records"]


def records(
    words: u32_const_view,
    fixed: u32_const_view,
    each: u32_const_view,
    starts: u32_view,
    names: u32_view,
    kinds: u8_view,
) -> u64:
    """Find the records, as far as they are of known kinds and whole.

    :param fixed: of each kind, the words behind its record, which has three; all ones: it is not known
    :param each: and those of each of its elements
    :param starts: where each begins: an index of words
    :param names: the offset of its name
    :returns: how many are whole
    """
    count: u64 = len(words)
    at: u64 = 0
    found: u64 = 0
    info: u32
    kind: u32
    elements: u64
    unknown: u32 = 0xFFFFFFFF
    while at + 3 <= count:
        info = words[at + 1]
        kind = info >> 24 & 0x7F
        if fixed[kind] == unknown:
            break
        starts[found] = at
        names[found] = words[at]
        kinds[found] = kind
        elements = info & 0xFFFFFF
        at += 3 + fixed[kind] + elements * each[kind]
        if at > count:
            break
        found += 1
    return found


def enumerators(
    words: u32_const_view,
    starts: u32_const_view,
    kinds: u8_const_view,
    count: u64,
    of32: u32,
    of64: u32,
    names: u32_view,
    owners: u32_view,
    totals: u64_view,
) -> u64:
    """The offset of the name of every enumerator, and the number of its enum; as many as there is room for.

    :param count: records
    :param of32: the kind of enums of 32 bits; ``of64``: and of 64
    :param totals: its first becomes 1 if an enum of 32 bits says that it is signed
    :returns: how many there are
    """
    i: u64
    j: u64
    at: u64
    width: u64
    found: u64 = 0
    room: u64 = len(names)
    info: u32
    for i in range(count):
        if kinds[i] == of32:
            width = 2
        elif kinds[i] == of64:
            width = 3
        else:
            continue
        at = starts[i]
        info = words[at + 1]
        if width == 2 and info >> 31:
            totals[0] = 1
        at += 3
        for j in range(info & 0xFFFFFF):
            if found < room:
                names[found] = words[at + j * width]
                owners[found] = i + 1
            found += 1
    return found
