# SPDX-License-Identifier: GPL-2.0-only
"""Machines that were booted, and kernels that were attached, to repeat steps of bring-up on."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from kernelmm.attach import attach
from kernelmm.boot import BootConfig, Booted, boot
from kernelmm.bringup.kernel import Kernel, Zone
from physmem.dump import Dump, open_dump
from physmem.e820 import MemoryMap
from physmem.ram import Ram

PAGE_SIZE = 4096


@dataclass
class Attached:
    """A real kernel's memory at the beginning of a recording.

    :ivar init_pages: pages of initialisation code, which the kernel released only after its zones were set up
    """

    kernel: Kernel
    dump: Dump
    iomem: str
    init_pages: int

    @property
    def init_zone(self) -> Zone:
        """The zone that the kernel's image is in: at 16 MiB, just above ZONE_DMA."""
        return self.kernel.zone(0, 1)

    def snapshot(self) -> dict[int, bytes]:
        """All its memory."""
        return {start: bytes(self.kernel.ram.as_u8[start:end]) for start, end in self.kernel.ram.ranges}

    def changed(self, before: dict[int, bytes]) -> list[int]:
        """Physical addresses of the bytes that differ from a snapshot."""
        found: list[int] = []
        for start, old in before.items():
            new = np.frombuffer(self.kernel.ram.as_u8, np.uint8, len(old), start)
            found += (np.flatnonzero(new != np.frombuffer(old, np.uint8)) + start).tolist()
        return found


@pytest.fixture
def attached(oracle: Callable[[str], Any]) -> Callable[[str], Attached]:
    """Attach to a recording by its name."""

    def make(name: str) -> Attached:
        case = oracle(name)
        dump = open_dump(case.a, symbols=case.file("symbols.json"))
        iomem = case.file("proc.txt").read_text().split("### /proc/iomem (before A)\n")[1].split("\n\n")[0]
        data = re.search(r"-([0-9a-f]+) : Kernel data", iomem)
        bss = re.search(r"([0-9a-f]+)-[0-9a-f]+ : Kernel bss", iomem)
        assert data is not None
        assert bss is not None
        # Between them lies what is needed during initialisation only.
        init_pages = int(bss[1], 16) // PAGE_SIZE - (-(-(int(data[1], 16) + 1) // PAGE_SIZE))
        return Attached(Kernel.attached(attach(dump), dump), dump, iomem, init_pages)

    return make


@pytest.fixture
def booted() -> Callable[..., Booted]:
    """Boot a machine by size and number of nodes."""

    def make(size: str = "64M", nodes: int = 1, **options: Any) -> Booted:
        return boot(BootConfig(MemoryMap.from_size(size, nodes), **options))

    return make


@pytest.fixture
def contents() -> Callable[[Ram], bytes]:
    """All the bytes of a memory, as whoever saves it sees them."""

    def read(ram: Ram) -> bytes:
        return b"".join(ram.read(start, end - start) for start, end in ram.ranges)

    return read
