# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/meminfo``: what the machine's memory is used for (fs/proc/meminfo.c: meminfo_proc_show).

Rows have come with releases and options; a row is there if the kernel has what it shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from physmem.dump import Dump
from physmem.errors import AbsentError, AddressError, SymbolError
from physmem.inspect.counters import exact, page_stats, variable
from physmem.inspect.zoneinfo import page_state
from physmem.inspect.zones import Node, nodes

__all__ = ["Row", "meminfo", "meminfo_text"]

_PAGE_KB = 4
#: HPAGE_PMD_NR: pages of a huge page.
_HUGE = 512
#: THREAD_SIZE, by which stacks are counted until 4.7.
_STACK_KB = 16
_U64 = (1 << 64) - 1
#: Sizes that huge pages of hugetlbfs can have at most (HUGE_MAX_HSTATE is 2).
_MAX_HSTATES = 8


class Row(NamedTuple):
    """A row: its name, its value or None if the image does not tell it, and ``kB`` or nothing."""

    name: str
    value: int | None
    unit: str = "kB"


def meminfo(dump: Dump) -> list[Row]:
    """The file's rows in its order.

    :raises PhysmemError: what :func:`~physmem.inspect.zones.nodes` and ``pagesets`` raise
    """
    return list(_Meminfo(dump).rows())


def meminfo_text(rows: list[Row]) -> str:
    """The file, of the rows that are known."""
    lines = []
    for name, value, unit in rows:
        if value is not None:
            label = f"{name}:"
            lines.append(f"{label:16}{value:{8 - max(len(label) - 16, 0)}}{unit and ' '}{unit}\n")
    return "".join(lines)


def _pages(pages: int | None) -> int | None:
    """Pages in kB, modulo 2^64."""
    return None if pages is None else pages * _PAGE_KB & _U64


class _Meminfo:
    """What the rows are made of."""

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self.nodes: list[Node] = nodes(dump)
        by_zone, by_node = page_stats(dump, self.nodes)
        self.stats = {item: page_state(dump, value) for item, value in (by_zone | by_node).items()}
        events = dump.layout.enums.get("vm_event_item", {})
        self.has_thp, self.has_zswap = "THP_FAULT_ALLOC" in events, "ZSWPIN" in events

    def stat(self, *items: str) -> int:
        """The first of these statistics that the kernel has; 0 if it has none."""
        return next((self.stats[item] for item in items if item in self.stats), 0)

    def total_ram(self) -> int:
        name = next((n for n in ("_totalram_pages", "totalram_pages") if n in self.dump.symbols), "")
        told = variable(self.dump, name) if name else None
        # It is what the zones manage (managed pages and totalram_pages change together).
        return told if told is not None else sum(zone.managed for node in self.nodes for zone in node.zones)

    def rows(self) -> Iterator[Row]:
        """All of them."""
        dump, stat, since = self.dump, self.stat, self.dump.release
        yield Row("MemTotal", _pages(self.total_ram()))
        yield Row("MemFree", _pages(stat("NR_FREE_PAGES")))
        yield Row("MemAvailable", _pages(self.available()))
        yield from self.cached()
        anon = {kind: stat(f"NR_{kind}_ANON") for kind in ("ACTIVE", "INACTIVE")}
        file = {kind: stat(f"NR_{kind}_FILE") for kind in ("ACTIVE", "INACTIVE")}
        for kind in anon:
            yield Row(kind.capitalize(), _pages(anon[kind] + file[kind]))
        for what, pages in (("anon", anon), ("file", file)):
            yield from (Row(f"{kind.capitalize()}({what})", _pages(pages[kind])) for kind in pages)
        yield Row("Unevictable", _pages(stat("NR_UNEVICTABLE")))
        yield Row("Mlocked", _pages(stat("NR_MLOCK")))
        yield Row("SwapTotal", _pages(variable(dump, "total_swap_pages")))
        swap = variable(dump, "nr_swap_pages")
        yield Row("SwapFree", _pages(0 if swap is not None and swap >> 63 else swap))
        if self.has_zswap and since >= (5, 19):
            yield from (Row("Zswap", None), Row("Zswapped", None))
        yield Row("Dirty", _pages(stat("NR_FILE_DIRTY")))
        yield Row("Writeback", _pages(stat("NR_WRITEBACK")))
        yield Row("AnonPages", _pages(stat("NR_ANON_MAPPED", "NR_ANON_PAGES")))
        yield Row("Mapped", _pages(stat("NR_FILE_MAPPED")))
        yield Row("Shmem", _pages(stat("NR_SHMEM")))
        yield from self.kernel()
        yield from self.virtual()
        yield from self.special()
        yield from self.hugetlb()
        yield from self.direct_map()

    def reclaimable(self) -> int:
        return self.stat("NR_SLAB_RECLAIMABLE_B", "NR_SLAB_RECLAIMABLE")

    def available(self) -> int | None:
        """``si_mem_available``: what could be given to programs without swapping."""
        low = sum(zone.watermark[1] + (zone.boost or 0) for node in self.nodes for zone in node.zones)
        available = self.stat("NR_FREE_PAGES") - low
        if self.dump.release >= (4, 5):
            reserve = variable(self.dump, "totalreserve_pages")
            if reserve is None:
                return None
            available += low - reserve
        file = self.stat("NR_ACTIVE_FILE") + self.stat("NR_INACTIVE_FILE")
        slab = self.reclaimable() + self.stat("NR_KERNEL_MISC_RECLAIMABLE")
        available += sum(pages - min(pages // 2, low) for pages in (file, slab))
        return max(available + (self.stat("NR_INDIRECTLY_RECLAIMABLE_BYTES") >> 12), 0)

    def cached(self) -> Iterator[Row]:
        """Buffers are what the page cache has of block devices, which is counted nowhere.

        If shared memory is all that there is in the page cache, none of it is of block devices; and, in kernels that
        do not count it, none is for swapping.
        """
        counted = "NR_SWAPCACHE" in self.stats
        rest = exact(self.dump, "NR_FILE_PAGES") - exact(self.dump, "NR_SHMEM")
        swap: int | None = self.stats["NR_SWAPCACHE"] if counted else 0
        if rest != (exact(self.dump, "NR_SWAPCACHE") if counted else 0):
            yield from (Row("Buffers", None), Row("Cached", None))
            swap = swap if counted else None
        else:
            yield Row("Buffers", 0)
            yield Row("Cached", _pages(max(self.stats["NR_FILE_PAGES"] - (swap or 0), 0)))
        yield Row("SwapCached", _pages(swap))

    def kernel(self) -> Iterator[Row]:
        """What the kernel has for itself."""
        stat = self.stat
        slab, fixed = self.reclaimable(), stat("NR_SLAB_UNRECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE")
        if self.dump.release >= (4, 20):
            yield Row("KReclaimable", _pages(slab + stat("NR_KERNEL_MISC_RECLAIMABLE")))
        yield Row("Slab", _pages(slab + fixed))
        yield Row("SReclaimable", _pages(slab))
        yield Row("SUnreclaim", _pages(fixed))
        yield Row("KernelStack", stat("NR_KERNEL_STACK_KB") or stat("NR_KERNEL_STACK") * _STACK_KB)
        if "NR_KERNEL_SCS_KB" in self.stats:
            yield Row("ShadowCallStack", stat("NR_KERNEL_SCS_KB"))
        yield Row("PageTables", _pages(stat("NR_PAGETABLE")))
        if "NR_SECONDARY_PAGETABLE" in self.stats:
            yield Row("SecPageTables", _pages(stat("NR_SECONDARY_PAGETABLE")))
        yield Row("NFS_Unstable", _pages(stat("NR_UNSTABLE_NFS")))
        yield Row("Bounce", _pages(stat("NR_BOUNCE")))
        yield Row("WritebackTmp", _pages(stat("NR_WRITEBACK_TEMP")))

    def virtual(self) -> Iterator[Row]:
        """What is promised, and addresses."""
        dump, since = self.dump, self.dump.release
        yield Row("CommitLimit", self.commit_limit())
        yield Row("Committed_AS", None)
        total = 32 << 40 if dump.regions.levels == 4 else 12800 << 40
        yield Row("VmallocTotal", (total - 1) >> 10)
        if "NR_VMALLOC" in self.stats:
            used = _pages(self.stats["NR_VMALLOC"])
        elif since >= (5, 3):
            used = _pages(variable(dump, "nr_vmalloc_pages"))
        else:
            used = 0 if since >= (4, 4) else None
        yield Row("VmallocUsed", used)
        yield Row("VmallocChunk", 0 if since >= (4, 4) else None)
        if since >= (4, 19):
            populated, units = variable(dump, "pcpu_nr_populated"), variable(dump, "pcpu_nr_units", 4)
            yield Row("Percpu", None if populated is None or units is None else _pages(populated * units))

    def commit_limit(self) -> int | None:
        """``vm_commit_limit``, kB."""
        kbytes = variable(self.dump, "sysctl_overcommit_kbytes")
        ratio = variable(self.dump, "sysctl_overcommit_ratio", 4)
        swap, sizes = variable(self.dump, "total_swap_pages"), self.hstates()
        if kbytes is None or ratio is None or swap is None or sizes is None:
            return None
        allowed = kbytes // _PAGE_KB
        if not kbytes:
            allowed = (self.total_ram() - sum(pages << order for order, pages in sizes)) * ratio // 100
        return _pages(allowed + swap)

    def special(self) -> Iterator[Row]:
        """Broken, huge, contiguous pages, and those of guests and devices: as far as the kernel was built for them."""
        enums, stat = self.dump.layout.enums, self.stat
        if "PG_hwpoison" in enums.get("pageflags", {}):
            yield Row("HardwareCorrupted", _pages(variable(self.dump, "num_poisoned_pages")))
        if self.has_thp:
            each = 1 if self.dump.release >= (5, 11) else _HUGE
            yield Row("AnonHugePages", _pages(stat("NR_ANON_THPS", "NR_ANON_TRANSPARENT_HUGEPAGES") * each))
            names = {
                "NR_SHMEM_THPS": "ShmemHugePages",
                "NR_SHMEM_PMDMAPPED": "ShmemPmdMapped",
                "NR_FILE_THPS": "FileHugePages",
                "NR_FILE_PMDMAPPED": "FilePmdMapped",
            }
            yield from (Row(name, _pages(stat(item) * each)) for item, name in names.items() if item in self.stats)
        if "MIGRATE_CMA" in enums.get("migratetype", {}):
            yield Row("CmaTotal", _pages(variable(self.dump, "totalcma_pages")))
            yield Row("CmaFree", _pages(stat("NR_FREE_CMA_PAGES")))
        names = {
            "NR_UNACCEPTED": "Unaccepted",
            "NR_BALLOON_PAGES": "Balloon",
            "NR_GPU_ACTIVE": "GPUActive",
            "NR_GPU_RECLAIM": "GPUReclaim",
        }
        yield from (Row(name, _pages(stat(item))) for item, name in names.items() if item in self.stats)

    def hstates(self) -> list[tuple[int, int]] | None:
        """Order and number of the huge pages of each size that hugetlbfs has; None if the image does not tell."""
        dump = self.dump
        count = variable(dump, "hugetlb_max_hstate", 4)
        if count is None or count > _MAX_HSTATES or "hstates" not in dump.symbols or not dump.layout.has("hstate"):
            return None
        found = []
        try:
            for i in range(count):
                at = dump.symbols["hstates"] + i * dump.layout.sizeof("hstate")
                found.append((dump.field(at, "hstate", "order"), dump.field(at, "hstate", "nr_huge_pages")))
        except (AbsentError, AddressError):
            return None
        return found if all(order < 48 for order, _ in found) else None

    def hugetlb(self) -> Iterator[Row]:
        """``hugetlb_report_meminfo``."""
        dump, fields = self.dump, ("nr_huge_pages", "free_huge_pages", "resv_huge_pages", "surplus_huge_pages", "order")
        values: list[int | None] = [None] * len(fields)
        index = variable(dump, "default_hstate_idx", 4)
        if index is not None and index < _MAX_HSTATES and dump.layout.has("hstate"):
            try:
                at = dump.symbols["hstates"] + index * dump.layout.sizeof("hstate")
                values = [dump.field(at, "hstate", name) for name in fields]
            except (AbsentError, AddressError, SymbolError):
                values = [None] * len(fields)
        *counts, order = values
        for name, value in zip(("Total", "Free", "Rsvd", "Surp"), counts, strict=True):
            yield Row(f"HugePages_{name}", value, "")
        yield Row("Hugepagesize", None if order is None or order >= 48 else _PAGE_KB << order)
        if dump.release >= (4, 16):
            sizes = self.hstates()
            yield Row("Hugetlb", None if sizes is None else _pages(sum(pages << order for order, pages in sizes)))

    def direct_map(self) -> Iterator[Row]:
        """``arch_report_meminfo``: the direct map by the size of its entries."""
        dump = self.dump
        for level, (name, shift) in enumerate((("4k", 2), ("2M", 11), ("1G", 20)), 1):
            if level == 3 and variable(dump, "direct_gbpages", 4) == 0:
                return
            count = None
            if "direct_pages_count" in dump.symbols:
                try:
                    count = dump.u64(dump.symbols["direct_pages_count"] + 8 * level)
                except (AbsentError, AddressError):
                    count = None
            yield Row(f"DirectMap{name}", None if count is None else count << shift & _U64)
