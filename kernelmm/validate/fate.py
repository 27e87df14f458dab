# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel does with a free: the path from ``free_pages`` to the free lists, followed on paper.

The order of events is that of mm/page_alloc.c: the reference is dropped, the assertions of
``free_pages_prepare`` come, then ``free_pages_check`` for every page, then for what goes to the free lists those
of ``__free_one_page`` (what goes to a CPU's list meets them when that is drained).  What is particular to a release
is in :mod:`kernelmm.validate.freepath`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from kernelmm.validate.freepath import FreePath, When, path_of
from kernelmm.validate.history import Allocation
from kernelmm.validate.surroundings import Kernel, Window
from kernelmm.validate.verdict import Fate, Outcome
from physmem.dump import Dump
from physmem.inspect.zones import Zone

__all__ = ["Block", "address_fault", "predict"]

_PAGE_ALLOC_C = "mm/page_alloc.c"
#: Bad pages whose future is told one by one.
_MAX_TOLD = 4
_MAX_PFN_BITS = 52
_WORD = (1 << 64) - 1
#: What assertions that were reworded since 4.0 say now.
_TEXTS = {"VM_BUG_ON_PAGE(page_idx & ((1 << order) - 1))": "VM_BUG_ON_PAGE(pfn & ((1 << order) - 1))"}


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
        """The pages that ``free_pages_check`` would report, if it looked at all of them; and why."""
        return tuple(self.window.bad_pages(self.pfn, self.order, put=self.put)) if self.pages else ()

    def on_pcp_list(self) -> bool:
        """Whether the block goes to its CPU's list when it is freed."""
        named = self.window.kernel.named(self.window.flags(self.pfn))
        return named is not None and self.window.kernel.on_pcp(named, self.order)

    def reported(self, *, debug: bool) -> tuple[tuple[int, str], ...]:
        """Those of the bad pages that are looked at right away."""
        kernel = self.window.kernel
        if debug or kernel.path.when is When.ALWAYS:
            return self.bad
        if kernel.path.when is When.BY_KEY:
            return self.bad if kernel.checks_pages else ()
        return tuple(each for each in self.bad if each[0] != self.pfn) if self.on_pcp_list() else self.bad

    @cached_property
    def on_pcp(self) -> dict[int, str]:
        """The pages that are on a CPU's list of free pages, and the name of that list."""
        found = {}
        for page in self.pages:
            if self.window.count(page) == 0 and not self.window.free_block(page):
                place = self.window.pcp_list(page)
                if place is not None:
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
        return _bug(path_of(dump.release), "VM_BUG_ON(!virt_addr_valid((void *)addr))", f"{_PAGE_ALLOC_C}:2922")
    regions = dump.regions
    phys = dump.regions.linear(addr)
    if phys is None:
        in_image = addr >= regions.start_kernel_map
        phys = addr - regions.start_kernel_map + regions.phys_base if in_image else addr - regions.page_offset
    page = dump.page_of((phys & _WORD) >> 12) & _WORD
    if not page:
        what = "looks for the struct page in a section that has no page array"
        return Outcome(Fate.FAULT, f"{what}, and dies of the page fault (an oops)")
    return Outcome(Fate.FAULT, f"reads a struct page at {page:#x}, where none is, and dies of the page fault (an oops)")


def predict(block: Block, *, debug: bool) -> Outcome:
    """What the kernel does, built with or without CONFIG_DEBUG_VM."""
    kernel, count = block.window.kernel, block.window.count(block.pfn)
    if debug and count == 0:
        counter = "atomic_read(&page->_count)" if kernel.format.count == "_count" else "page_ref_count(page)"
        return _bug(kernel.path, f"VM_BUG_ON_PAGE({counter} == 0)", "include/linux/mm.h:340")
    if count > 1:
        kept = f"takes one reference off, {count - 1} remain{'s' if count == 2 else ''}, and frees"
        rest = _rest(block)
        return Outcome(Fate.KEPT, f"{kept} {rest or 'nothing'}", later=_shared(block, block.pages[1:]) if rest else ())
    if count < 1:
        return _miscounted(block, count)
    if debug:
        return _assertions(block) or _checked(block, debug=True)
    return _checked(block, debug=False)


def _rest(block: Block) -> str:
    """What of a block is freed though its first page is in use: all the rest, unless it is a compound page."""
    window = block.window
    is_kept = not window.kernel.path.frees_rest or block.put or not block.order or window.has(block.pfn, "PG_head")
    return "" if is_kept else f"the {block.end - block.pfn - 1} pages behind it all the same"


def _bug(path: FreePath, text: str, where: str) -> Outcome:
    """An assertion.  The text and line are 4.0's; later ones say the same elsewhere."""
    if not path.has_lines:
        text, where = _TEXTS.get(text, text), where.partition(":")[0]
    return Outcome(Fate.BUG, f"stops: kernel BUG at {where}! {text}", text, where)


def _miscounted(block: Block, count: int) -> Outcome:
    window, pfn = block.window, block.pfn
    kernel = window.kernel
    bad = f"'nonzero {kernel.format.count}'"
    is_checked = kernel.path.when is not When.BY_KEY or kernel.checks_pages
    if kernel.spanning(pfn) is None:
        later = "nobody notices: no allocation ever comes to this page"
    elif window.free_block(pfn) or pfn in block.on_pcp:
        later = f"when pfn {pfn} is to be handed out, "
        if is_checked:
            later += f"check_new_page reports {bad}, and its block is lost"
        else:
            later += "its count is set anew: nobody notices (with DEBUG_VM, check_new_page does)"
    elif count < 0:
        later = f"pfn {pfn} is lost: no further free brings its count to 0"
    else:
        reports = f"{kernel.path.check} reports {bad}: it is lost"
        later = f"when the block that has pfn {pfn} is freed, {reports if is_checked else 'nobody notices'}"
    rest = _rest(block)
    effect = f"counts the page's references from {count} down to {count - 1}, and frees {rest or 'nothing'}"
    return Outcome(Fate.MISCOUNTED, effect, later=(later, *(_shared(block, block.pages[1:]) if rest else ())))


def _assertions(block: Block) -> Outcome | None:
    """Those of ``free_pages_prepare``."""
    window, pfn = block.window, block.pfn
    path = window.kernel.path
    if window.is_tail(pfn):
        return _bug(path, "VM_BUG_ON_PAGE(PageTail(page))", f"{_PAGE_ALLOC_C}:786")
    compound = window.compound(pfn)
    if compound is not None and compound[1] != block.order and (block.order or path.asserts_single):
        return _bug(path, "VM_BUG_ON_PAGE(compound && compound_order(page) != order)", f"{_PAGE_ALLOC_C}:787")
    return None


def _checked(block: Block, *, debug: bool) -> Outcome:
    """From ``free_pages_check`` on."""
    kernel, pfn = block.window.kernel, block.pfn
    path = kernel.path
    if not path.has_lines and not block.order and block.window.has(pfn, "PG_hwpoison"):
        return Outcome(Fate.NOTHING, "keeps the page, which the hardware has spoilt, from being used again")
    bad = block.reported(debug=debug)
    if bad:
        return _refused(block, bad)
    if not block.complete:
        return Outcome(Fate.FAULT, "runs off the page array, and dies of a page fault (an oops)")
    named = kernel.named(block.window.flags(pfn))
    if named is None:
        if debug:
            return _bug(path, "VM_BUG_ON(!zone_is_initialized(zone))", f"{_PAGE_ALLOC_C}:584")
        return Outcome(Fate.FAULT, "follows the links of a zone that was never set up, and dies of it (an oops)")
    if block.order >= kernel.format.max_order:
        return Outcome(
            Fate.FAULT, f"writes beyond the zone's {kernel.format.max_order} free lists: anything may follow"
        )
    is_inside = named.start_pfn <= pfn < named.end_pfn
    if debug and not kernel.on_pcp(named, block.order):
        if pfn % (block.end - block.pfn):
            return _bug(path, "VM_BUG_ON_PAGE(page_idx & ((1 << order) - 1))", f"{_PAGE_ALLOC_C}:602")
        if not is_inside:
            return _bug(path, "VM_BUG_ON_PAGE(bad_range(zone, page))", f"{_PAGE_ALLOC_C}:603")
    return _freed(block, named, debug=debug)


def _refused(block: Block, bad: tuple[tuple[int, str], ...]) -> Outcome:
    """Some page is in a bad state: it is reported, its _mapcount reset, and the whole block leaks."""
    window, (pfn, reason) = block.window, bad[0]
    form = window.kernel.format
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    later = [f"{block.size} at pfn {block.pfn} is lost: nobody gets it again"]
    for page, _ in bad[:_MAX_TOLD]:
        if window.is_head(page):
            later.append(f"the free block at pfn {page} has lost its mark, and is on its list all the same")
        elif window.field(page, form.mapcount) != -1 and window.type_of(page) is None:
            later.append(f"pfn {page} counts as mapped by nobody now: the unmap to come counts below that")
    taken = [page for page in block.pages[1:] if block.is_foreign(page) and window.count(page) == 0]
    if taken and not any(window.is_head(page) for page in taken):
        later.append(f"pfn {taken[0]} and others that are not of this allocation have lost their flags")
    effect = f"reports a bad page, '{reason}' (pfn {pfn}{more}), and loses the block"
    return Outcome(Fate.REFUSED, effect, reason, bad=bad, later=tuple(later))


def _shared(block: Block, pages: list[int]) -> tuple[str, ...]:
    """What comes of pages being freed that are free already, or somebody else's."""
    window, later = block.window, []
    overlap = [page for page in pages if window.free_block(page) or page in block.on_pcp]
    if overlap:
        later.append(
            f"pfn {overlap[0]} is free twice over: it comes up for two owners, and the lists that it is on break"
        )
    taken = [page for page in pages if page != block.pfn and block.is_foreign(page) and page not in overlap]
    if taken:
        later.append(f"pfn {taken[0]} is free while its owner still uses it: the next one to get it shares it")
    return tuple(later)


def _freed(block: Block, named: Zone, *, debug: bool) -> Outcome:
    """Nobody objects."""
    window, pfn, kernel = block.window, block.pfn, block.window.kernel
    later = [*_unseen(block, kernel, debug=debug), *_shared(block, block.pages)]
    compound = window.compound(pfn)
    if compound is not None and compound[0] != pfn:
        later.append(f"the compound page at pfn {compound[0]} still has it: freed in its turn, that frees it again")
    lost = block.own - (block.end - pfn)
    if lost > 0:
        later.append(f"the {lost} pages behind are lost: they are never handed out again")
    if pfn % (block.end - block.pfn):
        later.append("the block begins where none of its size can: it joins with what is not its buddy")
        if kernel.on_pcp(named, block.order):
            later.append(f"with DEBUG_VM, __free_one_page stops the kernel when the list is drained ({_PAGE_ALLOC_C})")
    if not named.start_pfn <= pfn < named.end_pfn:
        later.append(f"it goes to {named}, where it does not belong: both zones count wrong from now on")
        if kernel.on_pcp(named, block.order):
            where = f"{_PAGE_ALLOC_C}:603" if kernel.path.has_lines else _PAGE_ALLOC_C
            later.append(f"with DEBUG_VM, bad_range stops the kernel when the list is drained ({where})")
    to = "to its CPU's list" if kernel.on_pcp(named, block.order) else "to the free lists"
    silent = " without a word" if later else ""
    return Outcome(Fate.FREED, f"frees {block.size}{silent}, {to}", later=tuple(later))


def _unseen(block: Block, kernel: Kernel, *, debug: bool) -> Iterator[str]:
    """What is wrong with the pages, and not looked at."""
    window = block.window
    kind = window.type_of(block.pfn) if kernel.path.wipes_type else None
    if kind is not None and kind != "buddy":
        yield f"pfn {block.pfn} is handed out again, while those who have it as '{kind}' still use it"
    if not block.bad or debug:
        return
    page, reason = block.bad[0]
    if kernel.path.when is When.BY_KEY:
        yield f"nobody checks pages on this kernel: pfn {page} is handed out again, '{reason}' or not"
        return
    if window.checked_flags(page, page, put=block.put):
        yield f"the flags of pfn {page} are wiped off unseen, whatever they stood for"
    reason = window.later_reason(page, put=block.put)
    if reason:
        yield f"when the list is drained, {kernel.path.at_drain} reports pfn {page}, '{reason}': {block.size} is lost"
