# SPDX-License-Identifier: GPL-2.0-only
"""kmemcheck: which bytes of a page were written (mm/kmemcheck.c, arch/x86/mm/kmemcheck).

A page that is allocated for the kernel's own use gets a second one, its *shadow*, with a byte for each of its bytes,
and loses its mapping: each access faults, and the fault's handler looks into the shadow, or marks what is written.
``page->shadow`` is where it is; that the page is tracked is said by its entry in the page tables, which has a bit for
it and keeps the frame's address.
"""

from __future__ import annotations

from typing import Any

from kernelmm import gfp
from kernelmm.bringup.kernel import Kernel
from kernelmm.core import entry, free
from kernelmm.core.mm import Mm
from kernelmm.debug.callers import Callers
from kernelmm.debug.pagealloc import pte_table
from kernelmm.study.reporter import RATELIMIT_BURST, RATELIMIT_INTERVAL, RateLimit, Reporter, pointer
from physmem import abi, address, word
from physmem.paging import PRESENT

__all__ = ["FREED", "HIDDEN", "INITIALIZED", "UNALLOCATED", "UNINITIALIZED", "Kmemcheck"]

#: _PAGE_HIDDEN, a bit of page table entries that processors leave to software.
HIDDEN = 1 << 11
#: enum kmemcheck_shadow: what a byte of a shadow says of the byte it is for.
UNALLOCATED, UNINITIALIZED, INITIALIZED, FREED = range(4)

_STATES = ("unallocated", "uninitialized", "initialized", "freed")
_LETTERS = "auif"
#: 1 << CONFIG_KMEMCHECK_SHADOW_COPY_SHIFT: bytes around an error that its report shows.
_SHADOW_COPY_SIZE = 32
#: Entries of a report's stack trace.
_ENTRIES = 32
#: The longest access of one instruction.
_LARGEST = 8

# Inside a class Python would mangle a name with two underscores.
HIGHMEM, NOTRACK, ZERO = gfp.__GFP_HIGHMEM, gfp.__GFP_NOTRACK, gfp.__GFP_ZERO
_free_pages = vars(free)["__free_pages"]


class Kmemcheck:
    """kmemcheck of one kernel; whether it is on is in the kernel's memory (``kmemcheck_enabled``).

    1 is on, 2 until the first error (one-shot).  Pages that are tracked stay so when it is switched off, until they
    are freed, but are seen again as soon as they are touched.

    :param callers: where the functions are said to be that make errors
    """

    def __init__(self, kernel: Kernel, callers: Callers) -> None:
        self.kernel = kernel
        self.callers = callers
        self.shadow = kernel.layout.offsetof("page", "shadow")
        self.limit = RateLimit(RATELIMIT_INTERVAL * kernel.mm.hz, RATELIMIT_BURST)
        self.prev_ip = 0

    @property
    def enabled(self) -> int:
        """``kmemcheck_enabled``."""
        return self.kernel.var("kmemcheck_enabled")

    # -- pages come and go ---------------------------------------------------

    def pagealloc_alloc(self, mm: Mm, pg: int, order: int, gfpflags: int) -> None:
        """``kmemcheck_pagealloc_alloc``: track a block that has been allocated, unless its caller forbids it."""
        if not self.enabled or gfpflags & (HIGHMEM | NOTRACK):
            return
        self.alloc_shadow(mm, pg, order, gfpflags)
        status = INITIALIZED if gfpflags & ZERO else UNINITIALIZED
        for each in _pages(pg, order):
            self.mark(mm, address.page_address(mm, each), abi.PAGE_SIZE, status)

    def alloc_shadow(self, mm: Mm, pg: int, order: int, gfpflags: int) -> None:
        """``kmemcheck_alloc_shadow``: a shadow as large as the block, from the same request but not tracked itself;
        then hide the block.  Without a shadow it stays as it is.
        """
        shadow = entry.alloc_pages_node(mm, -1, gfpflags | NOTRACK, order)
        if not shadow:
            if self._printk_ratelimit(mm):
                mm.reporter.printk("kmemcheck: failed to allocate shadow bitmap")
            return
        for each, its in zip(_pages(pg, order), _pages(shadow, order), strict=True):
            self._set_shadow(mm, each, address.page_address(mm, its))
        for each in _pages(pg, order):
            # kmemcheck_hide_pages
            at = self._pte_of(mm, each)
            word.clear_bits(mm, at, PRESENT)
            word.set_bits(mm, at, HIDDEN)

    def free_shadow(self, mm: Mm, pg: int, order: int) -> None:
        """``kmemcheck_free_shadow``: a block is being freed: show it, and free the shadow, which is one block."""
        if not self.page_is_tracked(mm, pg):
            return
        shadow = self._shadow_page(mm, pg)
        for each in _pages(pg, order):
            # kmemcheck_show_pages
            at = self._pte_of(mm, each)
            word.set_bits(mm, at, PRESENT)
            word.clear_bits(mm, at, HIDDEN)
        for each in _pages(pg, order):
            self._set_shadow(mm, each, 0)
        _free_pages(mm, shadow, order)

    def split(self, mm: Mm, pg: int, order: int) -> None:
        """The part of ``split_page``: the pages of the block will be freed one by one, so their shadows will be."""
        if self.page_is_tracked(mm, pg):
            free.split_page(mm, self._shadow_page(mm, pg), order)

    def page_is_tracked(self, mm: Mm, pg: int) -> bool:
        """``kmemcheck_page_is_tracked``: by its page table entry."""
        return self.pte_lookup(mm, address.page_address(mm, pg)) != 0

    def pte_lookup(self, mm: Mm, va: int) -> int:
        """``kmemcheck_pte_lookup``: physical address of the entry that maps ``va``, if it has the bit; or 0."""
        at = self._pte(mm, va)
        return at if at and mm.as_u64[at >> 3] & HIDDEN else 0

    def _pte(self, mm: Mm, va: int) -> int:
        """``lookup_address``: physical address of the entry of 4 KiB around ``va`` in the direct map; or 0."""
        if not mm.page_offset <= va < mm.page_offset + mm.size:
            return 0
        table = pte_table(self.kernel, va)
        return table + 8 * (va >> abi.PAGE_SHIFT & 511) if table else 0

    def _pte_of(self, mm: Mm, pg: int) -> int:
        """Physical address of the entry of a page's frame; CorruptionError if there is none (a BUG_ON)."""
        at = self._pte(mm, address.page_address(mm, pg))
        if not at:
            mm.corrupt(pg, "kmemcheck_pte", "no entry of 4 KiB in the direct map")
        return at

    def _set_shadow(self, mm: Mm, pg: int, shadow: int) -> None:
        mm.as_u64[(address.page_off(mm, pg) + self.shadow) >> 3] = shadow

    def _shadow_page(self, mm: Mm, pg: int) -> int:
        """``virt_to_page(page->shadow)`` of a page that is tracked: a page that is not."""
        shadow = mm.as_u64[(address.page_off(mm, pg) + self.shadow) >> 3]
        if not address.virt_addr_valid(mm, shadow):
            mm.corrupt(pg, "kmemcheck_shadow", f"tracked, but its shadow is at {shadow:#x}")
        found: int = address.virt_to_page(mm, shadow)
        if self.page_is_tracked(mm, found):
            mm.corrupt(pg, "kmemcheck_shadow", f"its shadow at {shadow:#x} is tracked itself")
        return found

    def _printk_ratelimit(self, mm: Mm) -> bool:
        """``printk_ratelimit()``."""
        symbols, caller = self.kernel.symbols, "kmemcheck_alloc_shadow"
        if mm.reporter is None:
            return False
        if "printk_ratelimit_state" not in symbols:
            return bool(mm.reporter.ratelimit(mm, self.limit, caller))
        state = self.kernel.phys(symbols["printk_ratelimit_state"])
        return bool(mm.reporter.ratelimit_in_memory(mm, state, caller))

    # -- shadows -------------------------------------------------------------

    def shadow_lookup(self, mm: Mm, va: int) -> int | None:
        """``kmemcheck_shadow_lookup``: physical address of what is known of the byte at ``va``; None if it is not
        tracked.
        """
        if not address.virt_addr_valid(mm, va) or not self.pte_lookup(mm, va):
            return None
        shadow = mm.as_u64[(address.page_off(mm, address.virt_to_page(mm, va)) + self.shadow) >> 3]
        if not shadow:
            return None
        return int(address.struct_off(mm, shadow, abi.PAGE_SIZE)) + va % abi.PAGE_SIZE

    def mark(self, mm: Mm, va: int, size: int, status: int) -> None:
        """``mark_shadow``: say of ``size`` bytes what they are, as far as they are tracked and the image has frames
        for their shadows.
        """
        end = va + size
        while va < end:
            here = min(end - va, abi.PAGE_SIZE - va % abi.PAGE_SIZE)
            at = self.shadow_lookup(mm, va)
            if at is not None and mm.ram.ranges.covers(at, at + here):
                mm.ram.write(at, bytes([status]) * here)
            va += here

    def states(self, mm: Mm, va: int, size: int) -> bytes | None:
        """The shadow of bytes of one page, one for each; None if it is not tracked."""
        at = self.shadow_lookup(mm, va)
        return None if at is None else mm.ram.read(at, size)

    # -- accesses ------------------------------------------------------------

    def hidden(self, step: Any) -> bool:
        """Whether a page table's entry maps nothing because its page is tracked."""
        return step.level == "PTE" and bool(step.entry & HIDDEN)

    def access(self, mm: Mm, va: int, size: int, write: bool) -> None:
        """``kmemcheck_fault`` and ``kmemcheck_trap`` for each instruction of an access to a page that is hidden.

        The instructions are those with which a compiler touches ``size`` bytes: of 8 bytes, and where these would not
        be aligned, of 4, 2 and 1.  All are in one place (``regs->ip``), the innermost function on Python's stack.
        """
        end = va + size
        while va < end:
            here = _LARGEST
            while va % here or here > end - va:
                here //= 2
            self._fault(mm, va, here, write)
            va += here

    def copy_page(self, mm: Mm, new: int, old: int) -> None:
        """``kmemcheck_copy`` for each eight bytes of a frame: of the copy is known what was known of them.

        Only if it goes to a page that is not tracked, bytes that nobody wrote are an error.
        """
        src, dst = address.page_address(mm, old), address.page_address(mm, new)
        if not self._faults(mm, src) and not self._faults(mm, dst):
            return
        at, to = self.shadow_lookup(mm, src), self.shadow_lookup(mm, dst)
        known = bytes([INITIALIZED]) * abi.PAGE_SIZE
        if at is not None and mm.ram.ranges.covers(at, at + abi.PAGE_SIZE):
            known = mm.ram.read(at, abi.PAGE_SIZE)
        if to is None:
            for i in range(0, abi.PAGE_SIZE, _LARGEST):
                self._check(mm, known[i : i + _LARGEST], src + i)
        elif mm.ram.ranges.covers(to, to + abi.PAGE_SIZE):
            mm.ram.write(to, known)
        for va in (src, dst):
            self._hide_again(mm, va)

    def _faults(self, mm: Mm, va: int) -> bool:
        """Whether an access to ``va`` is ours to handle: its page is tracked and hidden."""
        at = self.pte_lookup(mm, va)
        return at != 0 and not mm.as_u64[at >> 3] & PRESENT

    def _hide_again(self, mm: Mm, va: int) -> None:
        """``kmemcheck_hide``, after an access to ``va``; a page that was shown stays so if we are off by now."""
        at = self.pte_lookup(mm, va)
        if at and not self.enabled:
            word.set_bits(mm, at, PRESENT)

    def _fault(self, mm: Mm, va: int, size: int, write: bool) -> None:
        """``kmemcheck_fault``, the instruction, and ``kmemcheck_trap``, which hides the page again if we are on."""
        if not self._faults(mm, va):
            return
        if self.shadow_lookup(mm, va) is None:
            # A real kernel would fault for ever: there is nothing to show.
            mm.corrupt(address.virt_to_page(mm, va), "kmemcheck_shadow", "tracked, but it has no shadow")
        if write:
            self.mark(mm, va, size, INITIALIZED)
        else:
            # kmemcheck_read_strict: do not warn about it again.
            if not self._check(mm, self.states(mm, va, size) or b"", va):
                self.mark(mm, va, size, INITIALIZED)
        self._hide_again(mm, va)

    def _check(self, mm: Mm, states: bytes, va: int) -> bool:
        """``kmemcheck_shadow_test``: whether one byte at least was written, of those that are read at ``va`` at once
        (CONFIG_KMEMCHECK_PARTIAL_OK); if not, it is an error.
        """
        if INITIALIZED in states:
            return True
        enabled = self.enabled
        if enabled:
            self._error(mm, states[0], va, len(states))
        if enabled == 2:
            self.kernel.set_var("kmemcheck_enabled", 0)
        return False

    def _error(self, mm: Mm, state: int, va: int, size: int) -> None:
        """``kmemcheck_error_save`` and ``kmemcheck_error_recall``: report a read, but no second one of the same
        instruction in a row.

        The tasklet that prints errors is run at once.
        """
        ip, *entries = self.callers.save_stack_trace(1 + _ENTRIES)
        if ip == self._prev_ip(ip) or mm.reporter is None:
            return
        reporter: Reporter = mm.reporter
        start = va & -_SHADOW_COPY_SIZE
        shadow = self.states(mm, start, _SHADOW_COPY_SIZE) or b""
        memory = mm.ram.read(address.virt_to_phys(mm, start), _SHADOW_COPY_SIZE)
        name = _STATES[state] if state < len(_STATES) else "(invalid shadow state)"
        reporter.printk(f"WARNING: kmemcheck: Caught {8 * size}-bit read from {name} memory ({pointer(va)})")
        reporter.printk(memory.hex())
        reporter.printk("".join(f" {_LETTERS[each] if each < len(_LETTERS) else '?'}" for each in shadow))
        reporter.printk("^".rjust(2 + 2 * (va - start)))
        reporter.printk(f"RIP: 0010:[<{ip:016x}>]  [<{ip:016x}>] {self.callers.symbol(ip)}")
        for each in entries:
            reporter.printk(f" [<{each:016x}>] {self.callers.symbol(each)}")

    def _prev_ip(self, ip: int) -> int:
        """The instruction that made the error before, and note the one that makes this; a static variable."""
        before = self.prev_ip
        if "prev_ip" in self.kernel.symbols:
            before = self.kernel.var("prev_ip")
            self.kernel.set_var("prev_ip", ip)
        self.prev_ip = ip
        return before


def _pages(pg: int, order: int) -> range:
    """The pages of a block."""
    return range(pg, pg + (abi.SIZEOF_PAGE << order), abi.SIZEOF_PAGE)
