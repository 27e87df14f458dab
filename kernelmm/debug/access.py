# SPDX-License-Identifier: GPL-2.0-only
"""Memory by kernel address, as the processor sees it: through the page tables.

A machine that hides what is free (debug_pagealloc) catches who goes on using it: here it is that the
access is caught.  One that has kmemcheck hides what is in use, and looks at each access.
"""

from __future__ import annotations

from kernelmm.bringup.kernel import Kernel
from kernelmm.study.reporter import Reporter
from physmem import paging
from physmem.errors import PhysmemError, UsageError

__all__ = ["PageFault", "read", "write"]

_PAGE = 4096
#: Error code of a page fault: a write.
_WRITE = 2


class PageFault(PhysmemError):
    """The kernel has touched an address that is not mapped; a real one would have killed the task.

    :ivar address: which
    :ivar text: what the kernel prints, several lines
    """

    def __init__(self, address: int, text: str) -> None:
        super().__init__(text.split("\n", 1)[0])
        self.address = address
        self.text = text


def read(kernel: Kernel, addr: int, size: int) -> bytes:
    """``size`` bytes at a kernel address; PageFault."""
    return b"".join(kernel.ram.read(phys, part) for phys, part in _pieces(kernel, addr, size, 0))


def write(kernel: Kernel, addr: int, data: bytes) -> None:
    """Store at a kernel address; nothing is stored if part of it is not mapped; PageFault."""
    done = 0
    for phys, part in _pieces(kernel, addr, len(data), _WRITE):
        kernel.ram.write(phys, data[done : done + part])
        done += part


def _pieces(kernel: Kernel, addr: int, size: int, error: int) -> list[tuple[int, int]]:
    """Physical address and bytes of each part of [addr, addr + size) in one page, once nothing is in the way."""
    if not 0 <= addr < 1 << 64 or size < 0 or addr + size > 1 << 64 or not paging.is_canonical(addr):
        raise UsageError(f"{size} bytes at {addr:#x}: no addresses of a kernel")
    pgd = kernel.phys(kernel.symbols["init_level4_pgt"])
    mm = kernel.mm
    end = addr + size
    pieces, watched = [], []
    while addr < end:
        part = min(end - addr, _PAGE - addr % _PAGE)
        steps = list(paging.steps(kernel.ram, pgd, addr))
        if mm.kmemcheck and mm.aids.kmemcheck.hidden(steps[-1]):
            watched.append((addr, part))
        elif not steps[-1].is_present:
            reporter: Reporter | None = mm.reporter
            raise PageFault(
                addr, reporter.oops(addr, steps, error) if reporter is not None else f"page fault at {addr:#x}"
            )
        pieces.append((steps[-1].physical(addr), part))
        addr += part
    for va, part in watched:
        mm.aids.kmemcheck.access(mm, va, part, error == _WRITE)
    return pieces
