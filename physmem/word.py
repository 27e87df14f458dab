# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Read, change and write back one word of memory, with C's wraparound.

Python's integers do not wrap, C's do: every sum that is stored goes through here, so that
both engines leave the same bytes even where a corrupt image makes a counter overflow.
``at`` is a physical address, aligned to the word.
"""

from __future__ import annotations

from physmem.ctype import s32, s64, u8, u32, u64
from physmem.space import AddressSpace

__all__ = ["add_s32", "add_u8", "add_u64", "assign_s32", "bit", "clear_bits", "set_bits"]


def add_u64(space: AddressSpace, at: u64, delta: s64) -> None:
    """``*(u64 *)at += delta``."""
    mask: u64 = 0xFFFFFFFFFFFFFFFF
    space.as_u64[at >> 3] = (space.as_u64[at >> 3] + delta) & mask


def add_s32(space: AddressSpace, at: u64, delta: s32) -> None:
    """``*(int *)at += delta``."""
    mask: u32 = 0xFFFFFFFF
    space.as_u32[at >> 2] = (space.as_u32[at >> 2] + delta) & mask


def assign_s32(space: AddressSpace, at: u64, value: s32) -> None:
    """``*(int *)at = value``."""
    space.as_s32[at >> 2] = value


def add_u8(space: AddressSpace, at: u64, delta: u8) -> None:
    """``*(u8 *)at += delta``."""
    space.as_u8[at] = (space.as_u8[at] + delta) & 0xFF


def set_bits(space: AddressSpace, at: u64, mask: u64) -> None:
    """``*(u64 *)at |= mask``."""
    space.as_u64[at >> 3] = space.as_u64[at >> 3] | mask


def clear_bits(space: AddressSpace, at: u64, mask: u64) -> None:
    """``*(u64 *)at &= ~mask``."""
    space.as_u64[at >> 3] ^= space.as_u64[at >> 3] & mask


def bit(nr: u32) -> u64:
    """``1UL << nr``, with ``nr`` modulo 64 as the CPU takes it; a shift of a literal would be 32 bits wide in C."""
    one: u64 = 1
    return one << (nr & 63)
