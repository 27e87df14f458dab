# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel says of a page in /proc/kpageflags and /proc/kpagecount: the rules of its version, for kinds of pages.

Pages that are alike are told of alike (:mod:`physmem.inspect.rows`): so a rule is applied to each kind of page once,
to each run of tails that lead to the same head, and to each head of a compound page: by :mod:`physmem.inspect.saying`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from physmem.derived import sublevel_of
from physmem.dump import Dump
from physmem.errors import LayoutError, PhysmemError
from physmem.inspect.hugetlb import HugetlbFormat
from physmem.inspect.kpf import KPF, copied_flags
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.rows import Found, Said, fits
from physmem.inspect.saying import Saying
from physmem.memory_model import Linear

__all__ = ["Rules"]

_NOWHERE = (1 << 32) - 1
#: Below every mapcount.
_NO_LIMIT = -(1 << 62)


class Rules:
    """How a kernel fills the files.

    :ivar zero_page: the PFN of the page of zeros; -1 if it is not known
    :raises LayoutError: the fields of a ``struct page`` lie as no compiler puts them
    """

    def __init__(self, dump: Dump, form: PageFormat, pages: PageArray) -> None:
        if not fits(dump, form):
            raise LayoutError(f"{dump.layout.source}: struct page has fields that are not at multiples of their size")
        self._pages = pages
        self._page_map = dump.page_map
        self._stride = dump.sizeof_page // 8
        self._form = form
        self._release = dump.release
        self._saying = _saying(dump, form)
        self.zero_page = _pfn(dump, "zero_pfn", "zero_page_pfn", struct="empty_zero_page")

    def of(self, found: Found) -> Said:
        """What is said of each kind, run and head; since 4.6, pages in free blocks are KPF_BUDDY too."""
        runs, heads = len(found.run_begin), len(found.head_at)
        kinds, of_runs, of_heads = _words(4 * len(found.keys)), _words(3 * runs), _words(3 * heads)
        self._saying.kinds(found.keys, kinds)
        if runs or heads:
            self._compound(found, of_runs, of_heads)
        return Said(kinds, of_runs, of_heads, int(KPF.BUDDY) if self._release >= (4, 6) else 0)

    def _compound(self, found: Found, of_runs: memoryview, of_heads: memoryview) -> None:
        """What heads say of their pages, in both tables."""
        saying, stride = self._saying, self._stride
        runs, heads = len(found.run_begin), len(found.head_at)
        lead, numbers = memoryview(bytearray(8 * runs)).cast("q"), memoryview(bytearray(4 * runs)).cast("I")
        self._lead(found, lead)
        others: dict[int, int] = {}
        if saying.heads_of(found.start, lead, found.head_at, numbers):
            # Their heads are in another piece, or damaged.
            for run, number in enumerate(numbers):
                if number == _NOWHERE:
                    numbers[run] = heads + others.setdefault(lead[run], len(others))
        mapped = memoryview(bytearray(heads + len(others)))
        saying.parts(found.run_high, numbers, found.rows, heads, mapped)
        table = _words(4 * (heads + len(others)))
        pfns, known, rows = array("q", [found.start + at for at in found.head_at]), bytearray(found.seconds), found.rows
        for number, is_known in enumerate(known):
            if not is_known:
                # The page behind it was not among those that were looked at.
                rows[2 * number * stride : 2 * (number + 1) * stride] = self._both(pfns[number], known, number)
        saying.whole(rows, memoryview(known), memoryview(pfns), mapped, 0, table[: 4 * heads])
        if others:
            pfns, known, rows = array("q", others), bytearray(len(others)), _words(2 * stride * len(others))
            for number, pfn in enumerate(pfns):
                rows[2 * number * stride : 2 * (number + 1) * stride] = self._both(pfn, known, number)
            saying.whole(rows, memoryview(known), memoryview(pfns), mapped, heads, table[4 * heads :])
        saying.spread(numbers, table, 1, of_runs)
        saying.spread(memoryview(array("I", range(heads))), table, 0, of_heads)

    def _lead(self, found: Found, lead: memoryview) -> None:
        """The PFN of the head of each run, -1 where what should lead to it leads nowhere."""
        if isinstance(self._page_map, Linear):
            base, size, end, start = self._page_map.places()
            self._saying.lead(found.start, found.run_begin, found.run_word, base, size, end, start, lead)
            return
        for run, (begin, word) in enumerate(zip(found.run_begin, found.run_word, strict=True)):
            pfn = found.start + begin
            head = self._page_map.pfn(self._form.head_address(self._page_map.page(pfn), word))
            lead[run] = head if head < pfn else -1

    def _both(self, pfn: int, known: bytearray, number: int) -> memoryview:
        """The words of a head and of the page behind it; zeros if one of them is not in the image."""
        data = self._pages.both(pfn)
        known[number] = data is not None
        return memoryview(bytes(16 * self._stride) if data is None else data).cast("Q")


def _words(count: int) -> memoryview:
    return memoryview(bytearray(8 * count)).cast("Q")


def _longs(values: Iterable[int]) -> memoryview:
    return memoryview(array("Q", values))


def _saying(dump: Dump, form: PageFormat) -> Saying:
    """The rules of the kernel's version, and where it has its fields."""
    layout, release = dump.layout, dump.release
    saying = Saying()
    saying.stride = dump.sizeof_page // 8
    saying.direct = not form.compound
    saying.flags_at, saying.mapping_at = (layout.offsetof("page", name) // 8 for name in ("flags", "mapping"))
    saying.mapcount_at, saying.mapcount_shift = _place(layout.offsetof("page", form.mapcount))
    by_head = saying.by_head = release >= (6, 10)
    copied = copied_flags(layout)
    saying.bits = memoryview(array("I", [bit for bit, _ in copied]))
    saying.copies = _longs(flag for _, flag in copied)
    saying.head_mask, saying.lru, saying.idle = (form.mask(f"PG_{name}") for name in ("head", "lru", "idle"))
    saying.backed, saying.cached = form.mask("PG_swapbacked"), form.mask("PG_swapcache")
    saying.both_swap = saying.backed | saying.cached if by_head else 0
    saying.cached_if_backed = release >= (4, 10)
    saying.slab_flag, saying.poison = form.mask("PG_slab"), form.mask("PG_hwpoison")
    saying.double_map, saying.rmappable = form.mask("PG_double_map"), form.mask("PG_large_rmappable")
    saying.all_ksm = _all_ksm(release, sublevel_of(dump.info))
    saying.slab_type = form.slab_type
    saying.slab_mask, saying.slab_value = form.types.get("slab", (0, 1))
    saying.buddy_mask, saying.buddy_value = form.types["buddy"]
    types = [
        (*form.types[name], int(bit))
        for name, bit in (("table", KPF.PGTABLE), ("offline", KPF.OFFLINE), ("balloon", KPF.OFFLINE))
        if name in form.types and (name != "table" or release >= (4, 18))
    ]
    saying.type_masks, saying.type_values, saying.type_flags = (_longs(each[i] for each in types) for i in range(3))
    # Since 4.18 what has a type has no count: since 6.10 that is whatever is less than -2^24, before, than -128.
    saying.least = (-(1 << 24) if by_head else -128) if release >= (4, 18) else _NO_LIMIT
    saying.thp = "transparent_hugepage_flags" in dump.symbols
    saying.types_of_all = release >= (6, 16)
    saying.own = int(KPF.OFFLINE | KPF.PGTABLE) if release < (6, 16) else 0
    saying.one_owner = release >= (4, 6)
    saying.idle_of_all = release >= (5, 16)
    saying.swap_of_all = release >= (4, 10)
    saying.whole_counts = release >= (4, 5)
    saying.drop = int(_dropped(saying))
    saying.huge_zero = _huge_zero(dump)
    hugetlb = HugetlbFormat(dump, form)
    saying.huge_first, at, saying.huge_mask, saying.huge_value = hugetlb.mark()
    saying.huge_word, saying.huge_shift = _place(at)
    entire = _offset(dump, "_entire_mapcount", "compound_mapcount", "_compound_mapcount", "_total_mapcount")
    large = _offset(dump, "_large_mapcount")
    saying.has_entire, saying.has_large = entire >= 0, large >= 0
    saying.entire_word, saying.entire_shift = _place(max(entire, 0))
    saying.large_word, saying.large_shift = _place(max(large, 0))
    saying.kpf_slab, saying.kpf_buddy, saying.kpf_mmap = int(KPF.SLAB), int(KPF.BUDDY), int(KPF.MMAP)
    saying.kpf_anon, saying.kpf_swapcache, saying.kpf_idle = int(KPF.ANON), int(KPF.SWAPCACHE), int(KPF.IDLE)
    saying.kpf_head, saying.kpf_tail, saying.kpf_huge = (
        int(flag) for flag in (KPF.COMPOUND_HEAD, KPF.COMPOUND_TAIL, KPF.HUGE)
    )
    saying.kpf_hwpoison, saying.kpf_ksm, saying.kpf_thp = int(KPF.HWPOISON), int(KPF.KSM), int(KPF.THP)
    saying.kpf_zero = int(KPF.ZERO_PAGE)
    return saying


def _dropped(saying: Saying) -> KPF:
    """The flags that parts of compound pages do not have of themselves."""
    if saying.by_head:
        return KPF.MMAP
    dropped = KPF(0)
    if saying.one_owner:
        dropped |= KPF.ANON | KPF.KSM | KPF.MMAP
        if saying.idle_of_all and saying.idle:
            dropped |= KPF.IDLE
    return dropped | KPF.SWAPCACHE if saying.swap_of_all else dropped


def _all_ksm(release: tuple[int, int], sublevel: int) -> bool:
    """Whether a kernel asks if either of the two bits is set, which of anonymous memory one always is.

    From dee3d0bef2b0 (6.10) to 81401cebfc15 (7.2), which the stable releases 6.18.40 and 7.1.5 have too.
    """
    mended = {(6, 18): 40, (7, 1): 5}
    return (6, 10) <= release < (7, 2) and not sublevel >= mended.get(release, 1 << 16)


def _place(offset: int) -> tuple[int, int]:
    """Where a field is: in which word, and how far from its lowest bit."""
    return offset // 8, 8 * (offset % 8)


def _offset(dump: Dump, *names: str) -> int:
    """Where in the second page one of these fields is, of the folio or of the page; -1 if it is nowhere."""
    layout, size = dump.layout, dump.sizeof_page
    for name in names:
        if layout.has("page", name):
            return layout.offsetof("page", name)
        if layout.has("folio", name) and size <= layout.offsetof("folio", name) < 2 * size - 3:
            return layout.offsetof("folio", name) - size
    return -1


def _pfn(dump: Dump, *names: str, struct: str = "") -> int:
    """A PFN that the kernel keeps in a variable, or that of a variable itself; -1 if neither is known."""
    try:
        for name in names:
            if name in dump.symbols:
                value = dump.u64(dump.symbols[name])
                return value if value < 1 << 52 else -1
        return dump.virt_to_phys(dump.symbols[struct]) >> 12 if struct and struct in dump.symbols else -1
    except PhysmemError:
        return -1


def _huge_zero(dump: Dump) -> int:
    """The first PFN of the huge page of zeros; -1 if there is none."""
    found = _pfn(dump, "huge_zero_pfn")
    if found >= 0 or not any(name in dump.symbols for name in ("huge_zero_page", "huge_zero_folio")):
        return found
    page = _pfn(dump, "huge_zero_folio", "huge_zero_page")
    return dump.page_map.pfn(page)
