# SPDX-License-Identifier: GPL-2.0-only
"""Somebody to use the memory: tasks that map anonymous memory and files, and files that are read and written.

A :class:`Workload` plays the part of the rest of the kernel (mm/memory.c, mm/filemap.c, mm/mmap.c) as far as
the allocator and reclaim can see it.  Everything that it creates lives in pages which it allocates
from the machine itself (:mod:`kernelmm.pressure.owners`)::

    w = Workload(machine.mm)
    file = w.open()
    file.read(0, 100)                       # a hundred clean page cache pages
    task = w.fork("eater")
    task.mmap_anon(50)                      # fifty anonymous pages, mapped

A request for a page that fails ends the operation with :class:`~physmem.errors.UsageError`; pages got until
then stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kernelmm import gfp
from kernelmm.core import compound, entry, free, mmzone, page, task
from kernelmm.core.mm import Mm
from kernelmm.pressure import compaction, exit, kswapd, lru, oom, owners, rmap, shrink, stat, writeback
from physmem import abi, address, word
from physmem.errors import UsageError
from physmem.ranges import Ranges

__all__ = ["File", "Task", "Workload"]

_free_pages = vars(free)["__free_pages"]
_ZERO = gfp.__GFP_ZERO
_WRITE = gfp.__GFP_WRITE
_COLD = gfp.__GFP_COLD
_NOTRACK = gfp.__GFP_NOTRACK


class Workload:
    """What uses a machine's memory.

    :param mm: the machine; a workload that is in its memory already is gone on with
    :raises UsageError: there is no memory to begin with
    """

    def __init__(self, mm: Mm) -> None:
        self.mm = mm
        if not owners.find_root(mm):
            root = self.owner_page(owners.ROOT_MAGIC)
            page.set_private(mm, address.page_off(mm, address.virt_to_page(mm, root)), owners.ROOT_MAGIC)
            mm.owners_root = root
            mm.as_u64[(address.off(mm, root) + owners.ROOT_NEXT_PID) >> 3] = 2
        self.root = owners.find_root(mm)

    # -- pages for the owners themselves ---------------------------------------------

    def new_page(self, gfp_mask: int) -> int:
        """``alloc_page``, or UsageError."""
        pg = entry.alloc_pages(self.mm, gfp_mask, 0)
        if not pg:
            raise UsageError(f"the machine has no page left for the workload (gfp_mask {gfp_mask:#x})")
        return pg

    def table_page(self) -> int:
        """Direct-map address of a page of zeros whose contents are known from now on.

        It is read and written past the page tables, which kmemcheck could not see.
        """
        pg = self.new_page(gfp.GFP_KERNEL | (_NOTRACK if self.mm.kmemcheck else 0))
        fill(self.mm, pg, bytes(abi.PAGE_SIZE))
        return address.page_address(self.mm, pg)

    def owner_page(self, magic: int) -> int:
        """Kernel address of a new owner's page."""
        owner = self.table_page()
        self.mm.as_u64[address.off(self.mm, owner) >> 3] = magic
        return owner

    def enlist(self, table: int, count: int, owner: int) -> None:
        """Put an owner on the root's list."""
        at = (address.off(self.mm, self.root) + table) >> 3
        for i in range(count):
            if self.mm.as_u64[at + i] == 0:
                self.mm.as_u64[at + i] = owner
                return
        raise UsageError(f"a workload has at most {count} of these")

    def slot(self, owner: int, index: int) -> tuple[int, bool]:
        """Physical address of a table's word, with a new leaf page if need be; whether there was need."""
        mm = self.mm
        if not 0 <= index < owners.MAX_PAGES:
            raise UsageError(f"page {index}: a task or file has pages 0 to {owners.MAX_PAGES - 1}")
        at = owners.leaf(mm, owner, index)
        fresh = mm.as_u64[at >> 3] == 0
        if fresh:
            mm.as_u64[at >> 3] = self.table_page()
        return owners.slot(mm, owner, index), fresh

    # -- tasks and files ---------------------------------------------------------------

    def fork(
        self, comm: str, *, oom_score_adj: int = 0, uid: int = 1000, parent: Task | None = None, flags: int = 0
    ) -> Task:
        """A new task without memory.

        :param oom_score_adj: -1000 (never kill) to 1000, in thousandths of all memory
        :param uid: 0 is the superuser, who gets 3 % off
        :param flags: PF_*
        """
        mm = self.mm
        if not -1000 <= oom_score_adj <= 1000:
            raise UsageError(f"oom_score_adj {oom_score_adj}: must be from -1000 to 1000")
        va = self.owner_page(owners.TASK_MAGIC)
        self.enlist(owners.ROOT_TASKS, owners.MAX_TASKS, va)
        at = address.off(mm, va)
        next_pid = (address.off(mm, self.root) + owners.ROOT_NEXT_PID) >> 3
        mm.as_s32[(at + owners.TASK_PID) >> 2] = mm.as_u64[next_pid]
        mm.as_u64[next_pid] += 1
        mm.as_s32[(at + owners.TASK_PARENT) >> 2] = parent.pid if parent else 1
        name = comm.encode("ascii", "replace")[:15]
        mm.as_u8[at + owners.TASK_COMM : at + owners.TASK_COMM + len(name)] = name
        mm.as_u32[(at + owners.TASK_FLAGS) >> 2] = flags
        mm.as_s32[(at + owners.TASK_OOM_SCORE_ADJ) >> 2] = oom_score_adj
        mm.as_u32[(at + owners.TASK_UID) >> 2] = uid
        mm.as_u64[(at + owners.TASK_MEMS_ALLOWED) >> 3] = mm.mems_allowed
        mm.as_u64[(at + owners.TASK_HARDWALL_MEMS) >> 3] = mm.hardwall_mems
        mm.as_u64[(at + owners.TASK_ANON_VMA) >> 3] = va
        return Task(self, va)

    def open(self, *, writepage: bool = True, migratepage: bool = True) -> File:
        """A new file without pages.

        :param writepage: its file system can write pages (``a_ops->writepage``)
        :param migratepage: its file system lets dirty pages move (``a_ops->migratepage``)
        """
        va = self.owner_page(owners.FILE_MAGIC)
        self.enlist(owners.ROOT_FILES, owners.MAX_FILES, va)
        a_ops = owners.A_OPS_WRITEPAGE * writepage | owners.A_OPS_MIGRATEPAGE * migratepage
        self.mm.as_u64[(address.off(self.mm, va) + owners.FILE_A_OPS) >> 3] = a_ops
        return File(self, va)

    @property
    def tasks(self) -> list[Task]:
        """The tasks, oldest first."""
        return [Task(self, va) for va in owners.tasks(self.mm)]

    @property
    def files(self) -> list[File]:
        """The files, oldest first."""
        return [File(self, va) for va in owners.files(self.mm)]

    def switch_to(self, task: Task | None) -> None:
        """Allocations are this task's from now on; None: those of a task without a record here."""
        mm = self.mm
        mm.set_task(task.va if task else 0)
        if task:
            mm.comm, mm.pid = task.comm, task.pid

    # -- the rest of the world -----------------------------------------------------------

    def set_congested(self, congested: bool) -> None:
        """The backing device has (or no longer has) more to write than it can take."""
        self.mm.as_u64[(address.off(self.mm, self.root) + owners.ROOT_CONGESTED) >> 3] = congested

    def sync(self) -> int:
        """Write every dirty page and wait for the device; pages written."""
        owners.add(self.mm, self.root, owners.ROOT_NR_TO_WRITE, owners.MAX_PAGES * owners.MAX_FILES)
        writeback.flush(self.mm)
        return writeback.complete_writeback(self.mm)

    def run_kswapd(self, nid: int = 0) -> bool:
        """Let a node's kswapd run, whether or not somebody woke it; False if it got nowhere and is still awake."""
        self.mm.steps_left = self.mm.step_budget
        return kswapd.run_kswapd(self.mm, nid)

    def compact(self, nid: int = 0) -> None:
        """Compact a node as a whole, as ``echo 1 > /proc/sys/vm/compact_memory`` does."""
        self.mm.steps_left = self.mm.step_budget
        lru.lru_add_drain_all(self.mm)
        compaction.compact_node(self.mm, nid)


def fill(mm: Mm, pg: int, data: bytes) -> None:
    """Give a frame contents; what was absent from the image is present from then on."""
    phys = address.page_to_phys(mm, pg)
    if not mm.ram.ranges.covers(phys, phys + abi.PAGE_SIZE):
        mm.ram.ranges = mm.ram.ranges.union(Ranges([(phys, phys + abi.PAGE_SIZE)]))
        mm.ram.clear(phys, abi.PAGE_SIZE)
    mm.ram.write(phys, data[: abi.PAGE_SIZE])


@dataclass(frozen=True)
class File:
    """A file and its page cache; ``va`` is the kernel address of its record."""

    workload: Workload
    va: int

    @property
    def nrpages(self) -> int:
        """Pages in the page cache."""
        return self.workload.mm.as_u64[(address.off(self.workload.mm, self.va) + owners.FILE_NRPAGES) >> 3]

    def page(self, index: int) -> int | None:
        """``find_get_page`` without the reference: ``struct page *``, or None."""
        mm = self.workload.mm
        at = owners.slot(mm, self.va, index)
        entry_ = mm.as_u64[at >> 3] if at else 0
        return entry_ if entry_ and not entry_ & 2 else None

    def pages(self) -> dict[int, int]:
        """All cached pages: index to ``struct page *``."""
        mm = self.workload.mm
        return {i: mm.as_u64[at >> 3] for i, at in owners.words(mm, self.va) if not mm.as_u64[at >> 3] & 2}

    def read(self, first: int, count: int = 1, gfp_mask: int = gfp.GFP_HIGHUSER_MOVABLE) -> None:
        """Read pages: those not cached are allocated (``__page_cache_alloc``, cold) and cached, clean."""
        for index in range(first, first + count):
            pg = self.page(index)
            if pg is None:
                self._add(index, gfp_mask | _COLD)
            else:
                lru.mark_page_accessed(self.workload.mm, pg)

    def write(self, first: int, count: int = 1, data: bytes | None = None) -> None:
        """Write pages: they are cached and dirty afterwards, with ``data`` at their start if it is given."""
        for index in range(first, first + count):
            pg = self.page(index)
            if pg is None:
                pg = self._add(index, gfp.GFP_HIGHUSER_MOVABLE | _WRITE)
            if data is not None:
                fill(self.workload.mm, pg, data)
            writeback.set_page_dirty(self.workload.mm, pg)

    def _add(self, index: int, gfp_mask: int) -> int:
        """A new page of the file."""
        self.workload.slot(self.va, index)
        pg = self.workload.new_page(gfp_mask)
        self.add(pg, index)
        return pg

    def add(self, pg: int, index: int) -> None:
        """``add_to_page_cache_lru`` of an allocated page; active at once if it was evicted only a short while ago."""
        mm = self.workload.mm
        at, _ = self.workload.slot(self.va, index)
        shadow = mm.as_u64[at >> 3]
        page_at = address.page_off(mm, pg)
        word.add_s32(mm, page_at + abi.PAGE_COUNT, 1)
        mm.as_u64[(page_at + abi.PAGE_MAPPING) >> 3] = self.va
        mm.as_u64[(page_at + abi.PAGE_INDEX) >> 3] = index
        mm.as_u64[at >> 3] = pg
        owners.add(mm, self.va, owners.FILE_NRPAGES, 1)
        stat.inc_page_state(mm, pg, mm.cold.NR_FILE_PAGES)
        if shadow and workingset_refault(mm, shadow):
            lru.set_flag(mm, pg, abi.PG_active)
            word.add_u64(mm, stat.zone_of(mm, pg) + mm.cold.zone_inactive_age, 1)
        lru.lru_cache_add(mm, pg)
        lru.set_flag(mm, pg, abi.PG_uptodate)
        # The reader is done with it; the page cache's reference remains.
        lru.put_page(mm, pg)
        lru.lru_add_drain(mm)

    def touch(self, index: int) -> None:
        """``mark_page_accessed``: somebody has used the page."""
        lru.mark_page_accessed(self.workload.mm, self._cached(index))

    def pin(self, index: int) -> None:
        """``get_page``: a reference that reclaim and migration have to respect."""
        compound.get_page(self.workload.mm, self._cached(index))

    def unpin(self, index: int) -> None:
        """``put_page``."""
        lru.put_page(self.workload.mm, self._cached(index))

    def set_unevictable(self) -> None:
        """``mapping_set_unevictable``: the file's pages must stay in memory (ramfs, locked shared memory)."""
        at = address.off(self.workload.mm, self.va) + owners.FILE_FLAGS
        word.set_bits(self.workload.mm, at, owners.AS_UNEVICTABLE)

    def truncate(self) -> None:
        """``truncate_inode_pages``: drop every page that is not mapped, dirty or not."""
        mm = self.workload.mm
        for pg in self.pages().values():
            if not lru.page_mapped(mm, pg):
                if lru.has(mm, pg, mm.cold.PG_writeback):
                    # wait_on_page_writeback
                    writeback.complete_writeback(mm)
                writeback.clear_page_dirty_for_io(mm, pg)
                shrink.delete_from_page_cache(mm, pg, self.va, 0)
                lru.put_page(mm, pg)
        for _, at in owners.words(mm, self.va):
            if mm.as_u64[at >> 3] & 2:
                mm.as_u64[at >> 3] = 0

    def _cached(self, index: int) -> int:
        pg = self.page(index)
        if pg is None:
            raise UsageError(f"page {index} of the file is not in memory")
        return pg


def workingset_refault(mm: Mm, shadow: int) -> bool:
    """``workingset_refault``: count it; True if the page would still be there had the active list been shorter."""
    fields = mm.cold
    value = shadow >> 2
    index = value & (1 << gfp.ZONES_SHIFT) - 1
    value >>= gfp.ZONES_SHIFT
    nid = value & (1 << fields.nodes_shift) - 1
    eviction = value >> fields.nodes_shift
    zone = mmzone.node_data(mm, nid) + mm.pgdat_node_zones + index * mm.sizeof_zone
    z = mmzone.zone_off(mm, zone)
    bits = 64 - fields.nodes_shift - gfp.ZONES_SHIFT - 2
    distance = (mm.as_u64[(z + fields.zone_inactive_age) >> 3] - eviction) % (1 << bits)
    stat.inc_zone(mm, z, fields.WORKINGSET_REFAULT)
    if distance <= stat.zone_state(mm, z, fields.NR_ACTIVE_FILE):
        stat.inc_zone(mm, z, fields.WORKINGSET_ACTIVATE)
        return True
    return False


@dataclass(frozen=True)
class Task:
    """A task and its address space; ``va`` is the kernel address of its record."""

    workload: Workload
    va: int

    def _field(self, offset: int) -> int:
        return self.workload.mm.as_u64[(address.off(self.workload.mm, self.va) + offset) >> 3]

    @property
    def alive(self) -> bool:
        """Whether the task still exists."""
        return owners.known(self.workload.mm, self.va, owners.TASK_MAGIC)

    @property
    def pid(self) -> int:
        """Process id."""
        return self.workload.mm.as_s32[(address.off(self.workload.mm, self.va) + owners.TASK_PID) >> 2]

    @property
    def comm(self) -> str:
        """Name."""
        at = address.off(self.workload.mm, self.va) + owners.TASK_COMM
        return bytes(self.workload.mm.as_u8[at : at + 16]).split(b"\0")[0].decode("ascii", "replace")

    @property
    def oom_origin(self) -> bool:
        """``oom_task_origin``: to be killed first, as it uses a lot of memory (swapoff does)."""
        return oom.oom_task_origin(self.workload.mm, self.va)

    def set_oom_origin(self, on: bool) -> None:
        """``set_current_oom_origin``, ``clear_current_oom_origin``."""
        mm = self.workload.mm
        flags = (address.off(mm, self.va) + owners.TASK_OOM_FLAGS) >> 2
        mm.as_u32[flags] = mm.as_u32[flags] | task.OOM_FLAG_ORIGIN if on else mm.as_u32[flags] & ~task.OOM_FLAG_ORIGIN

    @property
    def rss(self) -> int:
        """Pages mapped, anonymous and of files."""
        return self._field(owners.TASK_ANON_RSS) + self._field(owners.TASK_FILE_RSS)

    def pte(self, vpn: int) -> int:
        """The page table entry for a page of the address space; 0: none."""
        at = owners.slot(self.workload.mm, self.va, vpn)
        return self.workload.mm.as_u64[at >> 3] if at else 0

    def page(self, vpn: int) -> int | None:
        """``struct page *`` that a page of the address space is mapped to, or None."""
        entry_ = self.pte(vpn)
        if not entry_ & owners.PTE_PRESENT:
            return None
        return address.pfn_to_page(self.workload.mm, (entry_ & owners.PTE_PFN_MASK) >> owners.PTE_PFN_SHIFT)

    def mmap_anon(
        self,
        count: int,
        first: int = 0,
        *,
        locked: bool = False,
        data: bytes | None = None,
        gfp_mask: int = gfp.GFP_HIGHUSER_MOVABLE,
    ) -> None:
        """Map ``count`` new anonymous pages from page ``first`` of the address space on, and touch them.

        :param locked: as mlock() does: they must stay in memory
        :param data: what each page begins with
        """
        mm = self.workload.mm
        for vpn in range(first, first + count):
            pte = self._pte_for(vpn)
            pg = self.workload.new_page(gfp_mask | _ZERO)
            if not self.alive:
                _free_pages(mm, pg, 0)
                raise UsageError(f"{self.comm or 'the task'} was killed while it allocated")
            at = address.page_off(mm, pg)
            if data is not None:
                fill(mm, pg, data)
            lru.set_flag(mm, pg, abi.PG_uptodate)
            lru.set_flag(mm, pg, mm.cold.PG_swapbacked)
            mm.as_u64[(at + abi.PAGE_MAPPING) >> 3] = self.va + owners.TASK_ANON_VMA + 1
            mm.as_u64[(at + abi.PAGE_INDEX) >> 3] = vpn
            rmap.page_add_anon_rmap(mm, pg)
            lru.lru_cache_add_active_or_unevictable(mm, pg, locked)
            lru.lru_add_drain(mm)
            self._map(pte, pg, owners.PTE_RW | owners.PTE_DIRTY, locked, owners.TASK_ANON_RSS)

    def mmap_file(
        self, file: File, count: int, first: int = 0, pgoff: int = 0, *, executable: bool = False, locked: bool = False
    ) -> None:
        """Map pages of a file, reading those that are not cached, and touch them."""
        w, mm = self.workload, self.workload.mm
        self._add_vma(file, first, pgoff, count)
        for i in range(count):
            file.read(pgoff + i)
            pg = file.page(pgoff + i)
            pte = self._pte_for(first + i)
            if pg is None:
                raise UsageError(f"page {pgoff + i} of the file was reclaimed before it could be mapped")
            compound.get_page(w.mm, pg)
            rmap.page_add_file_rmap(mm, pg)
            extra = owners.PTE_EXEC if executable else 0
            self._map(pte, pg, extra, locked, owners.TASK_FILE_RSS)
            if locked:
                rmap.mlock_page(mm, pg)

    def _add_vma(self, file: File, first: int, pgoff: int, count: int) -> None:
        mm = self.workload.mm
        at = address.off(mm, file.va)
        for i in range(owners.MAX_VMAS):
            vma = (at + owners.FILE_VMAS + owners.SIZEOF_VMA * i) >> 3
            if mm.as_u64[vma] == 0:
                if first < pgoff:
                    raise UsageError(f"page {first}: a file is mapped at or above its own page numbers ({pgoff})")
                mm.as_u64[vma], mm.as_u64[vma + 1], mm.as_u64[vma + 2] = self.va, first - pgoff, pgoff + count
                mm.as_u64[(at + owners.FILE_NR_VMAS) >> 3] = max(mm.as_u64[(at + owners.FILE_NR_VMAS) >> 3], i + 1)
                return
        raise UsageError(f"a file has at most {owners.MAX_VMAS} mappings")

    def _pte_for(self, vpn: int) -> int:
        """Physical address of the entry for a page that is not mapped yet; with a page table if need be."""
        w, mm = self.workload, self.workload.mm
        pte, fresh = w.slot(self.va, vpn)
        if fresh:
            owners.add(mm, self.va, owners.TASK_NR_PTES, 1)
            table = address.virt_to_page(mm, mm.as_u64[owners.leaf(mm, self.va, vpn) >> 3])
            stat.inc_page_state(mm, table, mm.cold.NR_PAGETABLE)
        if mm.as_u64[pte >> 3]:
            raise UsageError(f"page {vpn} of {self.comm} is mapped already")
        return pte

    def _map(self, pte: int, pg: int, bits: int, locked: bool, counter: int) -> None:
        mm = self.workload.mm
        bits |= owners.PTE_PRESENT | owners.PTE_USER | owners.PTE_ACCESSED | (owners.PTE_LOCKED if locked else 0)
        mm.as_u64[pte >> 3] = address.page_to_pfn(mm, pg) << owners.PTE_PFN_SHIFT | bits
        owners.add(mm, self.va, counter, 1)
        owners.add(mm, self.va, owners.TASK_TOTAL_VM, 1)

    def touch(self, vpns: Iterable[int], *, write: bool = False) -> None:
        """Use mapped pages, as the hardware notes it: the accessed bit, and the dirty bit for a write."""
        mm = self.workload.mm
        for vpn in vpns:
            at = owners.slot(mm, self.va, vpn)
            if at and mm.as_u64[at >> 3] & owners.PTE_PRESENT:
                mm.as_u64[at >> 3] |= owners.PTE_ACCESSED | (owners.PTE_DIRTY if write else 0)

    def munmap(self, first: int, count: int) -> None:
        """Unmap pages; anonymous ones are free then."""
        exit.unmap_page_range(self.workload.mm, self.va, first, count)

    def exit(self) -> None:
        """End the task: all its memory is given back."""
        exit.do_exit(self.workload.mm, self.va)
