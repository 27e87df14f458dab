# SPDX-License-Identifier: GPL-2.0-only
"""The C integer types, as annotations.

Interpreted they are all ``int`` (and mypy sees ``int``).  ``tools/pxd.py`` reads
them from the source of the hot rooms and writes the same types into the
``.pxd`` beside each, so that a variable's C type is declared once.
"""

from __future__ import annotations

from typing import TypeAlias

__all__ = [
    "s8",
    "s8_view",
    "s32",
    "s32_view",
    "s64",
    "s64_view",
    "u8",
    "u8_const_view",
    "u8_view",
    "u32",
    "u32_const_view",
    "u32_view",
    "u64",
    "u64_const_view",
    "u64_view",
]

u8: TypeAlias = int
u32: TypeAlias = int
u64: TypeAlias = int
s8: TypeAlias = int
s32: TypeAlias = int
s64: TypeAlias = int

# Memory seen as an array of one of them; a word's index is its byte offset divided by its size.
u8_view: TypeAlias = "memoryview[int]"
u32_view: TypeAlias = "memoryview[int]"
u64_view: TypeAlias = "memoryview[int]"
s8_view: TypeAlias = "memoryview[int]"
s32_view: TypeAlias = "memoryview[int]"
s64_view: TypeAlias = "memoryview[int]"
# Some that are only read, and may be of memory that cannot be written to.
u8_const_view: TypeAlias = "memoryview[int]"
u32_const_view: TypeAlias = "memoryview[int]"
u64_const_view: TypeAlias = "memoryview[int]"
