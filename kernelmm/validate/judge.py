# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on a free without doing it: every check on its path, asked of memory as it is.

The questions are those of :mod:`kernelmm.validate.checks`; what a kernel would do follows from the same
reading in :mod:`kernelmm.validate.fate`.  Nothing in memory changes.
"""

from __future__ import annotations

from collections.abc import Mapping

from kernelmm.validate.checks import Check
from kernelmm.validate.fate import Block, address_fault, predict
from kernelmm.validate.history import Allocation, History
from kernelmm.validate.surroundings import Kernel, Window
from kernelmm.validate.verdict import Answer, Fate, Outcome, Status, Verdict
from physmem import paging
from physmem.dump import Dump
from physmem.errors import UsageError
from physmem.inspect.what import Region, region_of, struct_page
from physmem.memory_model import MemoryModel

__all__ = ["Judge"]

#: Blocks of larger orders than this are not looked at page by page.
_MAX_LOOKED = 14
#: An order is an unsigned int.
_MAX_ORDER = (1 << 32) - 1

_NOTHING = Outcome(Fate.NOTHING, "does nothing")
_UNKNOWN = Outcome(Fate.UNKNOWN, "would read a struct page that is not in the image: what it finds is unknown")


class Judge:
    """Judges frees on one machine.

    :param dump: its memory; a machine that runs is looked at as it is at each verdict
    :param history: what is known of its allocations besides
    :raises PhysmemError: its zones cannot be read
    """

    def __init__(self, dump: Dump, history: History | None = None) -> None:
        self.dump = dump
        self.kernel = Kernel(dump)
        self.history = history

    # -- the calls -----------------------------------------------------------

    def free_pages(self, addr: int, order: int = 0, call: str = "") -> Verdict:
        """``free_pages(addr, order)``; raises UsageError if an argument does not fit its C type."""
        _fits("address", addr, (1 << 64) - 1)
        call = call or f"free_pages({addr:#x}, {order})"
        case = self._case(call, order)
        if addr == 0:
            case.say("null", Status.NOTE, "address 0 is no memory: there is nothing to free")
            return case.verdict(None, _NOTHING, _NOTHING)
        case.fine("null")
        pfn, problem = self._frame(addr)
        if problem:
            case.say("address", Status.WRONG, problem)
        else:
            case.fine("address", region_of(self.dump, addr).value)
        if pfn is not None and addr & ((1 << self.kernel.shift) - 1):
            offset = addr & ((1 << self.kernel.shift) - 1)
            case.say("page_start", Status.SUSPECT, f"the address is {offset:#x} bytes into its page")
        elif pfn is not None:
            case.fine("page_start")
        if pfn is None:
            return case.verdict(None, address_fault(self.dump, addr), address_fault(self.dump, addr, debug=True))
        return self._judge(case, pfn, bad_address=addr if problem else None)

    def free_block(self, page: int, order: int = 0, call: str = "") -> Verdict:
        """``__free_pages(page, order)``; raises UsageError if ``page`` is not an address in the page array."""
        pfn = self._struct_page(page)
        return self._judge(self._case(call or f"__free_pages({page:#x}, {order})", order), pfn)

    def put_page(self, page: int, call: str = "") -> Verdict:
        """``put_page(page)``: of a compound page's tail, what its head is freed by."""
        pfn = self._struct_page(page)
        case = self._case(call or f"put_page({page:#x})", 0)
        case.put = True
        window = self._window(pfn, 0)
        compound = window.compound(pfn) if pfn in window else None
        if compound is not None and compound[1] is not None:
            case.order = compound[1]
            return self._judge(case, compound[0], tail=pfn)
        return self._judge(case, pfn)

    # -- addresses -----------------------------------------------------------

    def _frame(self, addr: int) -> tuple[int | None, str]:
        """The PFN that ``virt_to_page`` makes of an address (None: one far from any memory), and what is wrong."""
        regions = self.dump.regions
        phys = regions.linear(addr)
        if phys is None and addr >= regions.start_kernel_map:
            # The kernel subtracts all the same, and arrives at some frame.
            phys = addr - regions.start_kernel_map + regions.phys_base
            what = f"{addr:#x} is above the kernel image: modules and the fixmap are mapped there"
        elif phys is None:
            return None, f"{addr:#x} is {self._region(addr)}"
        else:
            what = ""
        pfn = phys >> self.kernel.shift
        if not self.kernel.has_struct_page(pfn):
            return None, what or f"{addr:#x} would be pfn {pfn}, which has no struct page"
        return pfn, what

    def _region(self, addr: int) -> str:
        levels = self.dump.regions.levels
        if not paging.is_canonical(addr, levels):
            return f"no address at all: not canonical with {levels} levels of page tables"
        if addr >> 63 == 0:
            return "a user address"
        if region_of(self.dump, addr) is Region.STRUCT_PAGE:
            pfn, _ = struct_page(self.dump, addr) or (0, 0)
            return f"the struct page of pfn {pfn}, not its memory: __free_pages takes a struct page"
        if addr < self.dump.page_offset:
            return "below the direct map: no memory is mapped there"
        return "above the direct map, where vmalloc and the page array have their places"

    def _struct_page(self, page: int) -> int:
        pfn = self.dump.page_map.pfn(page)
        if pfn < 0 or not self.kernel.has_struct_page(pfn):
            sectioned = self.dump.model is MemoryModel.SPARSEMEM
            where = "is in sections" if sectioned else f"begins at {self.dump.mem_map:#x}"
            raise UsageError(f"{page:#x}: not a struct page: the page array {where}")
        return pfn

    # -- the page and its block ----------------------------------------------

    def _case(self, call: str, order: int) -> _Case:
        _fits("order", order, _MAX_ORDER)
        return _Case(call, order, self.kernel.asked)

    def _window(self, pfn: int, order: int) -> Window:
        """The largest blocks that the block touches: every free block that could contain a page of it is inside."""
        largest = 1 << (self.kernel.format.max_order - 1)
        end = pfn + (1 << min(order, _MAX_LOOKED))
        return Window(self.kernel, pfn & -largest, -(-end // largest) * largest)

    def _judge(self, case: _Case, pfn: int, bad_address: int | None = None, tail: int | None = None) -> Verdict:
        window = self._window(pfn, case.order)
        if tail is not None and tail != pfn and tail in window:
            # put_page drops the tail's share, kept in its mapcount, together with the head's reference.
            window.drop_share(tail)
        max_order = self.kernel.format.max_order
        if pfn not in window:
            detail = "its struct page is not in the image"
            case.say("struct_page", Status.UNKNOWN, f"pfn {pfn}: {detail}")
            return case.verdict(pfn, _UNKNOWN, _UNKNOWN)
        case.fine("struct_page")
        zone = self.kernel.spanning(pfn)
        case.decide("span", zone is not None, f"pfn {pfn}: no zone spans this page", f"{zone}")
        is_order = case.order < max_order
        case.decide("order", is_order, f"order {case.order}: the largest block has order {max_order - 1}")
        block = Block(window, pfn, case.order, put=case.put)
        self._references(case, block)
        self._compound(case, block)
        if window.count(pfn) <= 1:
            # Else nothing is freed, and whoever has the other references may map the page, lock it, and so on.
            self._page_state(case, block)
            self._lists(case, block)
            self._place(case, block)
        elif window.has(pfn, "PG_reserved") and not case.put:
            detail = f"pfn {pfn}: PG_reserved is set: whoever has the other references, it was never the allocator's"
            case.say("reserved", Status.SUSPECT, detail)
        self._history(case, block)
        plain = predict(block, debug=False)
        debug = predict(block, debug=True)
        if bad_address is not None:
            debug = address_fault(self.dump, bad_address, debug=True)
        return case.verdict(pfn, plain, debug)

    def _references(self, case: _Case, block: Block) -> None:
        name, count = self.kernel.format.count, block.window.count(block.pfn)
        if count <= 0:
            detail = f"{name} is {count}: there is no reference to drop"
            inside = self._containing(block)
            case.say("refcount", Status.WRONG, f"{detail}; {inside}" if inside else detail)
        elif count > 1:
            case.say("refcount", Status.NOTE, f"{name} is {count}: somebody else uses it, and it stays allocated")
        else:
            case.fine("refcount", f"{name} is 1")

    def _containing(self, block: Block) -> str:
        """Whose page it is that has no reference of its own, if the pages before it tell."""
        window, pfn = block.window, block.pfn
        guard = window.guard_order(pfn) if window.count(pfn) == 0 else None
        if guard is not None:
            return f"it is a guard page of debug_guardpage_minorder, of order {guard}: free, and on no list"
        if not window.ownerless(pfn):
            return ""
        for order in range(1, self.kernel.format.max_order):
            head = pfn & -(1 << order)
            if head != pfn and head in window and window.count(head) > 0 and window.block_order(head) >= order:
                found = window.block_order(head)
                return f"the page looks to be part of an allocation of order {found} at pfn {head}"
        return "it is not free either: a page after the first of an allocation, or lost"

    def _compound(self, case: _Case, block: Block) -> None:
        window, pfn = block.window, block.pfn
        compound = window.compound(pfn)
        is_tail = window.is_tail(pfn)
        where = f", headed at pfn {compound[0]}" if compound else ""
        case.decide("tail", not is_tail, f"pfn {pfn} is a tail of a compound page{where}")
        if compound is None or is_tail:
            case.fine("compound_order", "not a compound page")
        elif compound[1] is None:
            case.say("compound_order", Status.UNKNOWN, "a compound page whose order cannot be read")
        else:
            wrong = f"freed with order {case.order}, the compound page has order {compound[1]}"
            case.decide("compound_order", compound[1] == case.order, wrong, f"order {compound[1]}")

    def _page_state(self, case: _Case, block: Block) -> None:
        """What ``free_pages_check`` looks at, page by page."""
        form, window = self.kernel.format, block.window
        # Pages of others are the check ``extent``'s; the first page is always meant.
        own = [page for page in block.pages if page == block.pfn or window.count(page) == 0]
        if form.compound and window.is_tail(block.pfn):
            # The words of a tail are those of its folio.
            own.remove(block.pfn)
        # Of free blocks, another check tells.
        marked = [page for page in own if window.field(page, form.mapcount) != -1 and not window.is_head(page)]
        types = {page: window.type_of(page) for page in marked} if "type" in case.asked else {}
        mapped = [page for page in marked if not types.get(page)]
        count = window.field(mapped[0], form.mapcount) + 1 if mapped else 0
        case.decide("mapcount", not mapped, f"{_some(mapped)}: mapped {count} times")
        cached = [page for page in own if self._is_cached(block, page)]
        pointer = window.field(cached[0], "mapping") if cached else 0
        case.decide("mapping", not cached, f"{_some(cached)}: mapping is {pointer:#x}")
        if not cached and window.field(block.pfn, "mapping") & self.kernel.path.let_mapping:
            case.say("mapping", Status.NOTE, "an anonymous page: the kernel lets its mapping stay to the end")
        self._page_flags(case, block, own)
        slabs = [page for page in own if window.is_slab(page)]
        mark = "its type is slab" if form.slab_type else "PG_slab is set"
        case.decide("slab", not slabs, f"{_some(slabs)}: {mark}")
        if "type" in case.asked:
            typed = [page for page in marked if types[page] not in (None, "slab", "kmemcg")]
            what = types[typed[0]] if typed else ""
            case.decide("type", not typed, f"{_some(typed)}: its type is {what}")
        if "charged" in case.asked:
            charged = [page for page in own if window.is_charged(page) and not (case.put and page == block.pfn)]
            case.decide("charged", not charged, f"{_some(charged)}: a cgroup is charged for it")
        if "pool" in case.asked:
            pooled = [page for page in own if window.in_pool(page)]
            case.decide("pool", not pooled, f"{_some(pooled)}: a page pool has it")

    def _is_cached(self, block: Block, page: int) -> bool:
        """Whether a page's mapping speaks against freeing it; what a slab or a tail has there is another thing."""
        window = block.window
        mapping = window.field(page, "mapping")
        if not mapping or (page == block.pfn and mapping & self.kernel.path.let_mapping):
            return False
        return not self.kernel.format.compound or not (window.is_slab(page) or window.is_tail(page))

    def _page_flags(self, case: _Case, block: Block, own: list[int]) -> None:
        """Reserved, on an LRU list, or busy."""
        form, window, checked = self.kernel.format, block.window, self.kernel.checked
        special = {"reserved": "PG_reserved", "lru": "PG_lru"}
        for check, flag in special.items():
            having = [page for page in own if window.flags(page) & checked & form.bit(flag)]
            if check == "lru" and case.put and having:
                case.say("lru", Status.NOTE, "on an LRU list: put_page takes it off")
                continue
            case.decide(check, not having, f"{_some(having)}: {flag} is set")
        rest = checked & ~form.mask("PG_slab", *special.values())
        busy = [page for page in own if window.checked_flags(block.pfn, page, put=case.put) & rest]
        flags = window.flags(busy[0]) & rest if busy else 0
        names = ", ".join(f"PG_{name}" for name in form.flag_names(flags))
        case.decide("flags", not busy, f"{_some(busy)}: {names} set")

    def _lists(self, case: _Case, block: Block) -> None:
        """Pages that the allocator has already, and pages that are somebody else's."""
        window = block.window
        free = [page for page in block.pages if window.free_block(page)]
        detail = ""
        if free:
            head, order = window.free_block(free[0]) or (0, 0)
            place = "the head of" if head == free[0] else "inside"
            detail = f"{_some(free)}: {place} a free block of order {order} at pfn {head}"
        case.decide("already_free", not free, detail)
        listed = [page for page in block.pages if page in block.on_pcp]
        where = block.on_pcp[listed[0]] if listed else ""
        case.decide("pcp", not listed, f"{_some(listed)}: free already, on the list {where}")
        # What is not allocated is nobody's: other checks have said it.
        others = [page for page in block.pages[1:] if block.is_foreign(page)] if window.count(block.pfn) > 0 else []
        if not others:
            case.fine("extent")
            return
        users = sum(window.count(page) > 0 for page in others)
        what = f"{users} of them in use" if users else "none of them in use"
        case.say("extent", Status.WRONG, f"{_some(others)}: not of this allocation, {what}")

    def _history(self, case: _Case, block: Block) -> None:
        """The order that the block was allocated with, as far as anything tells."""
        known = self.history.allocation(block.pfn) if self.history else None
        if known is not None:
            self._against(case, block, known)
            return
        if self.history is None:
            case.say("owner", Status.NOT_ASKED, "nothing is known of the page's history (--owner FILE)")
        else:
            case.say("owner", Status.NOTE, "its allocation is not on record")
        window, pfn = block.window, block.pfn
        if window.has(pfn, "PG_head") or window.is_tail(pfn) or window.count(pfn) <= 0 or window.free_block(pfn):
            case.say("allocated_order", Status.NOT_ASKED, "other checks have said it")
            return
        likely = window.block_order(pfn)
        if likely > case.order and not block.bad:
            size = f"{(1 << likely) - (1 << case.order)} pages behind the block have no owner"
            detail = f"{size}: it looks to be of order {likely}, and freeing order {case.order} would lose them"
            case.say("allocated_order", Status.SUSPECT, detail)
        elif likely < case.order:
            case.say("allocated_order", Status.WRONG, f"at most order {likely}: the pages behind have other owners")
        else:
            case.fine("allocated_order", f"the pages around it agree with order {likely}")

    def _against(self, case: _Case, block: Block, known: Allocation) -> None:
        """Compare with what is on record."""
        if known.freed:
            case.say("owner", Status.WRONG, f"already freed ({known.freed}); it was {known}")
            case.say("allocated_order", Status.NOT_ASKED, "it is not allocated")
            return
        case.fine("owner", f"allocated: {known}")
        if known.pfn == block.pfn and known.order == case.order:
            case.fine("allocated_order", f"order {known.order}")
        elif known.pfn <= block.pfn and block.end <= known.end and case.order == 0 and block.is_split(known):
            case.say("allocated_order", Status.NOTE, f"one page of a block that was split ({known})")
        elif known.pfn != block.pfn:
            case.say("allocated_order", Status.WRONG, f"not the first page of its allocation ({known})")
        else:
            case.say("allocated_order", Status.WRONG, f"freed with order {case.order}, allocated with {known}")

    def _place(self, case: _Case, block: Block) -> None:
        """Where the block would lie."""
        pfn, window, flags = block.pfn, block.window, block.window.flags(block.pfn)
        node, index = self.kernel.format.node(flags), self.kernel.format.zone(flags)
        named = self.kernel.named(flags)
        case.decide("zone_setup", named is not None, f"its flags name zone {index} of node {node}, which has no pages")
        size = block.end - pfn
        case.decide("alignment", pfn % size == 0, f"pfn {pfn} is no multiple of {size}")
        inside = named is None or named.start_pfn <= pfn < named.end_pfn
        if named is None:
            case.say("zone", Status.NOT_ASKED, "its flags name no zone with pages")
        else:
            case.decide("zone", inside, f"its flags name {named}, pfns {named.start_pfn} to {named.end_pfn - 1}")
        last = block.end - 1
        zone = self.kernel.spanning(pfn)
        fits = zone is None or last < zone.end_pfn
        case.decide("bounds", fits and last in window, f"the block ends at pfn {last}, beyond {zone}")


class _Case:
    """One call under judgement: the answers so far."""

    def __init__(self, call: str, order: int, asked: Mapping[str, Check]) -> None:
        self.call = call
        self.order = order
        self.asked = asked
        self.put = False
        self.answers: dict[str, Answer] = {}

    def say(self, check: str, status: Status, detail: str) -> None:
        self.answers[check] = Answer(check, status, detail)

    def fine(self, check: str, detail: str = "") -> None:
        self.say(check, Status.OK, detail)

    def decide(self, check: str, is_right: bool, wrong: str, right: str = "") -> None:
        self.say(check, Status.OK if is_right else Status.WRONG, right if is_right else wrong)

    def verdict(self, pfn: int | None, plain: Outcome, debug: Outcome) -> Verdict:
        missing = (Answer(name, Status.NOT_ASKED, "") for name in self.asked if name not in self.answers)
        answers = self.answers | {answer.check: answer for answer in missing}
        told = tuple(answers[name] for name in self.asked)
        return Verdict(self.call, pfn, self.order, told, plain, debug, self.asked)


def _fits(what: str, value: int, largest: int) -> None:
    if not 0 <= value <= largest:
        raise UsageError(f"{what} {value}: must be from 0 to {largest:#x}")


def _some(pages: list[int]) -> str:
    """Some pages, by the first of them."""
    if not pages:
        return ""
    return f"pfn {pages[0]}" if len(pages) == 1 else f"pfn {pages[0]} and {len(pages) - 1} more"
