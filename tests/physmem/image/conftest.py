# SPDX-License-Identifier: GPL-2.0-only
"""A maker of small ELF cores, and the real images."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from physmem.image import elf_format as elf


def _build(segments: Sequence[tuple[int, bytes]], notes: bytes | None = None, *, phoff: int = 64) -> bytearray:
    """An ELF core as other tools write it: headers at ``phoff``, then the notes, then data without alignment.

    If there are notes, they are program header 0 and the segments follow.
    """
    count = len(segments) + (notes is not None)
    image = bytearray(phoff)
    ident = b"\x7fELF\x02\x01\x01"
    struct.pack_into("<16sHHIQQQIHHHHHH", image, 0, ident, 4, 62, 1, 0, phoff, 0, 0, 8, 56, count, 0, 0, 0)
    image += bytes(count * elf.PHDR.size)
    blobs = [(elf.PT_NOTE, 0, notes)] if notes is not None else []
    blobs += [(elf.PT_LOAD, phys, data) for phys, data in segments]
    for number, (kind, phys, data) in enumerate(blobs):
        at = phoff + number * elf.PHDR.size
        elf.PHDR.pack_into(image, at, kind, 7, len(image), phys, phys, len(data), len(data), 0)
        image += data
    return image


@pytest.fixture(scope="session")
def build_elf() -> Callable[..., bytearray]:
    return _build


@pytest.fixture(scope="session")
def oracle_case() -> Path:
    """The folder of a real Linux 4.0's two images."""
    return Path(__file__).parents[2] / "data" / "oracle" / "n128_s0_one"
