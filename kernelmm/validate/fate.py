# SPDX-License-Identifier: GPL-2.0-only
"""What Linux 4.0 does with a free: the path from ``free_pages`` to the free lists, followed on paper.

The order of events is that of mm/page_alloc.c: the reference is dropped, the assertions of
``free_pages_prepare`` come, then ``free_pages_check`` for every page, then for a block of more than one page those
of ``__free_one_page`` (a single page meets them when its CPU's list is drained).
"""

from __future__ import annotations

from functools import cached_property

from kernelmm.validate.history import Allocation
from kernelmm.validate.surroundings import Window
from kernelmm.validate.verdict import Fate, Outcome
from physmem.dump import Dump
from physmem.inspect.zones import Zone

__all__ = ["Block", "address_fault", "predict"]

_PAGE_ALLOC_C = "mm/page_alloc.c"
#: Bad pages whose future is told one by one.
_MAX_TOLD = 4
_MAX_PFN_BITS = 52
_WORD = (1 << 64) - 1


class Block:
    """The pages that a call would free.

    :param put: freed by ``put_page``, which takes the page off its LRU list and knows a compound page's order
    """

    def __init__(self, window: Window, pfn: int, order: int, *, put: bool = False) -> None:
        self.window = window
        self.pfn = pfn
        self.order = order
        self.put = put
        #: An order may be any unsigned int; no memory has that many pages.
        self.end = pfn + (1 << min(order, _MAX_PFN_BITS))
        #: Those that have a struct page.
        self.pages = [page for page in range(pfn, min(self.end, window.stop)) if page in window]

    @property
    def complete(self) -> bool:
        """Whether all of its pages have a struct page that can be read."""
        return len(self.pages) == self.end - self.pfn

    @cached_property
    def bad(self) -> tuple[tuple[int, str], ...]:
        """The pages that ``free_pages_check`` would report, and why."""
        found = self.window.bad_pages(self.pfn, self.order) if self.pages else ()
        lru = self.window.kernel.format.bit("PG_lru")
        checked = self.window.kernel.format.layout.constant("PAGE_FLAGS_CHECK_AT_FREE")
        return tuple(
            (page, reason)
            for page, reason in found
            if not (self.put and page == self.pfn and self.window.flags(page) & checked == lru)
        )

    @cached_property
    def on_pcp(self) -> dict[int, str]:
        """The pages that are on a CPU's list of free pages, and the name of that list."""
        found = {}
        for page in self.pages:
            if self.window.count(page) == 0 and not self.window.free_block(page):
                place = self.window.list_of(page)
                if place is not None and place.cpu is not None:
                    found[page] = place.name
        return found

    @cached_property
    def own(self) -> int:
        """How many pages from the first on look to be one allocation."""
        compound = self.window.compound(self.pfn)
        if compound is not None:
            return 1 if compound[1] is None or compound[0] != self.pfn else 1 << compound[1]
        return 1 << self.window.block_order(self.pfn)

    def is_foreign(self, page: int) -> bool:
        """Whether a page of the block is not of the allocation that the first page begins."""
        return page - self.pfn >= self.own

    def is_split(self, known: Allocation) -> bool:
        """Whether a block that was allocated as one has been split: its pages are counted singly."""
        window = self.window
        others = [page for page in range(known.pfn, known.end) if page != known.pfn and page in window]
        return window.count(self.pfn) > 0 and (self.pfn != known.pfn or any(window.count(page) > 0 for page in others))

    @property
    def size(self) -> str:
        """In words."""
        return "the page" if self.order == 0 else f"the block of {self.end - self.pfn} pages"


def address_fault(dump: Dump, addr: int, *, debug: bool = False) -> Outcome:
    """What comes of an address without a struct page."""
    if debug:
        return _bug("VM_BUG_ON(!virt_addr_valid((void *)addr))", f"{_PAGE_ALLOC_C}:2922")
    regions = dump.regions
    phys = dump.regions.linear(addr)
    if phys is None:
        in_image = addr >= regions.start_kernel_map
        phys = addr - regions.start_kernel_map + regions.phys_base if in_image else addr - regions.page_offset
    page = (dump.mem_map + ((phys & _WORD) >> 12) * dump.sizeof_page) & _WORD
    return Outcome(Fate.FAULT, f"reads a struct page at {page:#x}, where none is, and dies of the page fault (an oops)")


def predict(block: Block, *, debug: bool) -> Outcome:
    """What the kernel does, built with or without CONFIG_DEBUG_VM."""
    count = block.window.count(block.pfn)
    if debug and count == 0:
        return _bug("VM_BUG_ON_PAGE(atomic_read(&page->_count) == 0)", "include/linux/mm.h:340")
    if count > 1:
        return Outcome(Fate.KEPT, f"takes one reference off, {count - 1} remain, and frees nothing")
    if count < 1:
        return _miscounted(block, count)
    return _assertions(block) or _checked(block, debug=True) if debug else _checked(block, debug=False)


def _bug(text: str, where: str) -> Outcome:
    return Outcome(Fate.BUG, f"stops: kernel BUG at {where}! {text}", text, where)


def _miscounted(block: Block, count: int) -> Outcome:
    window, pfn = block.window, block.pfn
    if window.kernel.spanning(pfn) is None:
        later = "nobody notices: no allocation ever comes to this page"
    elif window.free_block(pfn) or pfn in block.on_pcp:
        later = f"when pfn {pfn} is to be handed out, check_new_page reports 'nonzero _count', and its block is lost"
    elif count < 0:
        later = f"pfn {pfn} is lost: no further free brings its count to 0"
    else:
        later = f"when the block that has pfn {pfn} is freed, free_pages_check reports 'nonzero _count': it is lost"
    effect = f"counts the page's references from {count} down to {count - 1}, and frees nothing"
    return Outcome(Fate.MISCOUNTED, effect, later=(later,))


def _assertions(block: Block) -> Outcome | None:
    """Those of ``free_pages_prepare``."""
    window, pfn = block.window, block.pfn
    if window.has(pfn, "PG_tail"):
        return _bug("VM_BUG_ON_PAGE(PageTail(page))", f"{_PAGE_ALLOC_C}:786")
    compound = window.compound(pfn)
    if compound is not None and compound[1] != block.order:
        return _bug("VM_BUG_ON_PAGE(compound && compound_order(page) != order)", f"{_PAGE_ALLOC_C}:787")
    return None


def _checked(block: Block, *, debug: bool) -> Outcome:
    """From ``free_pages_check`` on."""
    kernel, pfn = block.window.kernel, block.pfn
    if block.bad:
        return _refused(block)
    if not block.complete:
        return Outcome(Fate.FAULT, "runs off the page array, and dies of a page fault (an oops)")
    named = kernel.named(block.window.flags(pfn))
    if named is None:
        if debug:
            return _bug("VM_BUG_ON(!zone_is_initialized(zone))", f"{_PAGE_ALLOC_C}:584")
        return Outcome(Fate.FAULT, "follows the links of a zone that was never set up, and dies of it (an oops)")
    if block.order >= kernel.format.max_order:
        return Outcome(
            Fate.FAULT, f"writes beyond the zone's {kernel.format.max_order} free lists: anything may follow"
        )
    is_inside = named.start_pfn <= pfn < named.end_pfn
    if debug and (block.order or named.address in kernel.unlisted):
        if pfn % (block.end - block.pfn):
            return _bug("VM_BUG_ON_PAGE(page_idx & ((1 << order) - 1))", f"{_PAGE_ALLOC_C}:602")
        if not is_inside:
            return _bug("VM_BUG_ON_PAGE(bad_range(zone, page))", f"{_PAGE_ALLOC_C}:603")
    return _freed(block, named)


def _refused(block: Block) -> Outcome:
    """Some page is in a bad state: it is reported, its _mapcount reset, and the whole block leaks."""
    window, (pfn, reason) = block.window, block.bad[0]
    form = window.kernel.format
    more = f" and {len(block.bad) - 1} more" if len(block.bad) > 1 else ""
    later = [f"{block.size} at pfn {block.pfn} is lost: nobody gets it again"]
    for page, _ in block.bad[:_MAX_TOLD]:
        if window.field(page, form.mapcount) == form.buddy_value:
            later.append(f"the free block at pfn {page} has lost its mark, and is on its list all the same")
        elif window.field(page, form.mapcount) != -1:
            later.append(f"pfn {page} counts as mapped by nobody now: the unmap to come counts below that")
    taken = [page for page in block.pages[1:] if block.is_foreign(page) and window.count(page) == 0]
    if taken and not any(window.is_head(page) for page in taken):
        later.append(f"pfn {taken[0]} and others that are not of this allocation have lost their flags")
    effect = f"reports a bad page, '{reason}' (pfn {pfn}{more}), and loses the block"
    return Outcome(Fate.REFUSED, effect, reason, bad=block.bad, later=tuple(later))


def _freed(block: Block, named: Zone) -> Outcome:
    """Nobody objects."""
    window, pfn = block.window, block.pfn
    later = []
    overlap = [page for page in block.pages if window.free_block(page) or page in block.on_pcp]
    if overlap:
        later.append(
            f"pfn {overlap[0]} is free twice over: it comes up for two owners, and the lists that it is on break"
        )
    compound = window.compound(pfn)
    if compound is not None and compound[0] != pfn:
        later.append(f"the compound page at pfn {compound[0]} still has it: freed in its turn, that frees it again")
    taken = [page for page in block.pages[1:] if block.is_foreign(page) and page not in overlap]
    if taken:
        later.append(f"pfn {taken[0]} is free while its owner still uses it: the next one to get it shares it")
    lost = block.own - (block.end - pfn)
    if lost > 0:
        later.append(f"the {lost} pages behind are lost: they are never handed out again")
    if pfn % (block.end - block.pfn):
        later.append("the block begins where none of its size can: it joins with what is not its buddy")
    if not named.start_pfn <= pfn < named.end_pfn:
        later.append(f"it goes to {named}, where it does not belong: both zones count wrong from now on")
        if not block.order and named.address not in window.kernel.unlisted:
            later.append("with DEBUG_VM, bad_range stops the kernel when the list is drained (mm/page_alloc.c:603)")
    to = "to the free lists" if block.order or named.address in window.kernel.unlisted else "to its CPU's list"
    silent = " without a word" if later else ""
    return Outcome(Fate.FREED, f"frees {block.size}{silent}, {to}", later=tuple(later))
