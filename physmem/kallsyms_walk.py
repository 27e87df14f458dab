# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""One walk over the compressed names of kallsyms: where each is, and a number that equal names have in common.

The number is a polynomial of the name's bytes modulo 2^64.  That of two strings in a row follows from the numbers of
both and the length of the second, so that each token counts as a whole, and no name is expanded.
"""

from __future__ import annotations

from physmem.ctype import u8_const_view, u32, u32_view, u64, u64_const_view, u64_view

__all__ = ["walk"]


def walk(
    data: u8_const_view,
    count: u64,
    lengths: u8_const_view,
    scales: u64_const_view,
    sums: u64_const_view,
    tails: u64_const_view,
    heads: u32_view,
    numbers: u64_view,
    total: u64_view,
) -> u64:
    """Walk over ``count`` names.

    :param lengths: of each token, its bytes
    :param scales: of each token, what the number of the string before it is multiplied by
    :param sums: the number of each token
    :param tails: the same without its first byte, which in a name is the kind of the symbol
    :param heads: where the length of each name is
    :param numbers: the number of each name
    :param total: its first becomes the bytes of all names
    :returns: where the names end; one more than there is data if they leave it
    """
    size: u64 = len(data)
    at: u64 = 0
    i: u64
    j: u64
    length: u64
    token: u32
    number: u64
    letters: u64 = 0
    begun: bool
    mask: u64 = 0xFFFFFFFFFFFFFFFF
    for i in range(count):
        if at >= size:
            return size + 1
        heads[i] = at
        length = data[at]
        at += 1
        if length & 0x80:
            if at >= size:
                return size + 1
            length = (length & 0x7F) | data[at] << 7
            at += 1
        if length > size - at:
            return size + 1
        number = 0
        begun = False
        for j in range(at, at + length):
            token = data[j]
            letters += lengths[token]
            if begun:
                number = (number * scales[token] + sums[token]) & mask
            elif lengths[token] != 0:
                number = tails[token]
                begun = True
        numbers[i] = number
        at += length
    total[0] = letters
    return at
