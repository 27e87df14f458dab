# SPDX-License-Identifier: GPL-2.0-only
"""Who owns pages: tasks with page tables, and files with a page cache, in emulated memory.

The kernel finds a page's owner through ``page->mapping``: of a file page it is the
``struct address_space``, of an anonymous one the ``struct anon_vma`` plus 1.  The real structures
are spread over slabs that an image of memory-management metadata does not contain, so the owners
that a workload creates (:mod:`kernelmm.pressure.workload`) have simpler ones, each in a page of
its own that was allocated from this very machine.  Everything about them is in those pages:
save the machine, open it elsewhere, and they are still there.

* the *root* page lists tasks and files.  It is found by its ``page->private``, :data:`ROOT_MAGIC`;
* a *task* page: credentials, memory counters, and its page table;
* a *file* page: its ``struct address_space``, the mappings of it (``i_mmap``), and its radix tree.

Page table and radix tree have the same shape: 448 pointers in the second part of the owner's page
to leaf pages of 512 words.  A word of a page table is an x86-64 page table entry, a word of a
radix tree a ``struct page *`` or, after the page was reclaimed, a shadow entry (mm/workingset.c).

What an image brought along has owners that are not known here; :func:`task_of` and
:func:`file_of` say so, and such a page is treated as one that somebody is using.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kernelmm.core import page, task
from kernelmm.core.mm import Mm
from physmem import abi, address
from physmem.space import UNMAPPED

__all__ = [
    "MAX_PAGES",
    "file_of",
    "files",
    "find_root",
    "first_task",
    "known",
    "leaf",
    "page_mapping",
    "slot",
    "task_of",
    "tasks",
]

ROOT_MAGIC = 0x746F6F722D6D6D6B  # "kmm-root"
TASK_MAGIC = 0x6B7361742D6D6D6B  # "kmm-task"
FIRST_TASK_MAGIC = 0x74696E692D6D6D6B  # "kmm-init"
FILE_MAGIC = 0x656C69662D6D6D6B  # "kmm-file"

# the root page
ROOT_NEXT_PID = 8
ROOT_NR_TO_WRITE = 16
ROOT_CONGESTED = 24
ROOT_TASKS = 64
ROOT_FILES = 64 + 8 * 256
MAX_TASKS = 256
MAX_FILES = 240

# a task page
TASK_PID = task.PID
TASK_PARENT = task.PARENT
TASK_COMM = task.COMM
TASK_FLAGS = task.FLAGS
TASK_TIF = task.TIF
TASK_OOM_SCORE_ADJ = task.OOM_SCORE_ADJ
TASK_OOM_FLAGS = task.OOM_FLAGS
TASK_UID = task.UID
TASK_TOTAL_VM = task.TOTAL_VM
TASK_ANON_RSS = task.ANON_RSS
TASK_FILE_RSS = task.FILE_RSS
TASK_NR_PTES = task.NR_PTES
TASK_MEMS_ALLOWED = task.MEMS_ALLOWED
TASK_HARDWALL_MEMS = task.HARDWALL_MEMS
TASK_ANON_VMA = 256

#: Where the first task's record is in init_thread_union, far from the end that is used as a stack.
FIRST_TASK = 1024

TIF_MEMDIE = task.TIF_MEMDIE
TIF_SIGKILL = task.TIF_SIGKILL

# a file page
FILE_NRPAGES = 8
FILE_FLAGS = 16
FILE_A_OPS = 24
FILE_NR_VMAS = 32
FILE_VMAS = 64
SIZEOF_VMA = 32
MAX_VMAS = 14

AS_UNEVICTABLE = 1 << 28
#: What the file's ``a_ops`` has, besides reading.
A_OPS_WRITEPAGE = 1
A_OPS_MIGRATEPAGE = 2

# a task's or file's two-level table
TABLE = 512
NR_LEAVES = 448
LEAF_WORDS = 512
#: Pages that one task can map, or one file have.
MAX_PAGES = NR_LEAVES * LEAF_WORDS

# page table entries (arch/x86/include/asm/pgtable_types.h)
PTE_PRESENT = 1 << 0
PTE_RW = 1 << 1
PTE_USER = 1 << 2
PTE_ACCESSED = 1 << 5
PTE_DIRTY = 1 << 6
#: Bits that hardware leaves to software: what the kernel keeps in ``vma->vm_flags``.
PTE_LOCKED = 1 << 9
PTE_EXEC = 1 << 10
PTE_PFN_SHIFT = 12
PTE_PFN_MASK = (1 << 52) - (1 << 12)
#: Not present, one of the two migration swap types in bits 1 to 5; the rest as before.
SWP_MIGRATION_READ = 30 << 1
SWP_MIGRATION_WRITE = 31 << 1
SWP_TYPE_MASK = 31 << 1


def known(mm: Mm, owner: int, magic: int) -> bool:
    """Whether a kernel address is that of a root, task or file page of ours."""
    if owner & (abi.PAGE_SIZE - 1):
        return False
    at = address.lookup(mm, owner)
    return at < mm.size and mm.as_u64[at >> 3] == magic


def file_of(mm: Mm, pg: int) -> int:
    """Kernel address of the file whose page cache the page is in, or 0: none, or none that is known."""
    mapping = page_mapping(mm, pg)
    return mapping if mapping and known(mm, mapping, FILE_MAGIC) else 0


def task_of(mm: Mm, pg: int) -> int:
    """Kernel address of the task whose anonymous page this is, or 0: none, or none that is known."""
    mapping = mm.as_u64[(address.page_off(mm, pg) + abi.PAGE_MAPPING) >> 3]
    if mapping & 3 != 1:
        return 0
    task = mapping - 1 - TASK_ANON_VMA
    return task if known(mm, task, TASK_MAGIC) else 0


def page_mapping(mm: Mm, pg: int) -> int:
    """``page_mapping``: the ``struct address_space *`` of a page cache page; 0 of any other."""
    at = address.page_off(mm, pg)
    mapping = mm.as_u64[(at + abi.PAGE_MAPPING) >> 3]
    if page.test_flag(mm, at, abi.PG_slab) or mapping & 3:
        return 0
    return mapping


def page_anon(mm: Mm, pg: int) -> bool:
    """``PageAnon``."""
    return bool(mm.as_u64[(address.page_off(mm, pg) + abi.PAGE_MAPPING) >> 3] & 1)


def leaf(mm: Mm, owner: int, index: int) -> int:
    """Physical address of the word that points to the leaf page for ``index``."""
    return address.off(mm, owner) + TABLE + 8 * (index // LEAF_WORDS)


def slot(mm: Mm, owner: int, index: int) -> int:
    """Physical address of word ``index`` of a task's page table or a file's radix tree; 0 if it has no leaf page."""
    if not 0 <= index < MAX_PAGES:
        return 0
    table = mm.as_u64[leaf(mm, owner, index) >> 3]
    return address.off(mm, table) + 8 * (index % LEAF_WORDS) if table else 0


def words(mm: Mm, owner: int) -> Iterator[tuple[int, int]]:
    """The words of a table that are not 0: index, physical address."""
    for number in range(NR_LEAVES):
        table = mm.as_u64[leaf(mm, owner, number * LEAF_WORDS) >> 3]
        if table:
            at = address.off(mm, table)
            for i in range(LEAF_WORDS):
                if mm.as_u64[(at >> 3) + i]:
                    yield number * LEAF_WORDS + i, at + 8 * i


def add(mm: Mm, owner: int, field: int, delta: int) -> None:
    """Change a 64-bit counter of an owner."""
    at = (address.off(mm, owner) + field) >> 3
    mm.as_u64[at] = (mm.as_u64[at] + delta) % (1 << 64)


def vmas(mm: Mm, file: int) -> Iterator[tuple[int, int, int]]:
    """The mappings of a file (``i_mmap``): task, first page of its address space less first page of the file, pages."""
    at = address.off(mm, file)
    for i in range(min(mm.as_u64[(at + FILE_NR_VMAS) >> 3], MAX_VMAS)):
        vma = (at + FILE_VMAS + SIZEOF_VMA * i) >> 3
        if mm.as_u64[vma] and known(mm, mm.as_u64[vma], TASK_MAGIC):
            yield mm.as_u64[vma], mm.as_u64[vma + 1], mm.as_u64[vma + 2]


# -- the first task ---------------------------------------------------------------


def first_task(mm: Mm, stack_area: int, fallback: int) -> None:
    """Let the first task run: the one that is there before anybody forks, with a record outside the pages of others.

    :param stack_area: kernel address of the first task's stack, at whose far end the record of a machine of our
        own is; 0 if the image does not tell
    :param fallback: kernel address for the record of a task that we know nothing about
    """
    at = address.lookup(mm, stack_area + FIRST_TASK) if stack_area else mm.size
    if at > mm.size - task.SIZE or mm.as_u64[at >> 3] != FIRST_TASK_MAGIC:
        at = address.struct_off(mm, fallback, task.SIZE)
        mm.as_u64[at >> 3] = FIRST_TASK_MAGIC
        for nodes in (task.MEMS_ALLOWED, task.HARDWALL_MEMS):
            mm.as_u64[(at + nodes) >> 3] = (1 << 64) - 1
    mm.first_task = at
    mm.cpusets_enabled = mm.as_s32[(at + task.NR_CPUSETS) >> 2] > 0
    mm.set_task(0)


# -- the root --------------------------------------------------------------------


def find_root(mm: Mm) -> int:
    """Kernel address of the root page, or 0: looks through the whole page array if it has to."""
    if mm.owners_root == 0:
        step = abi.SIZEOF_PAGE // 8
        for chunk, phys in enumerate(mm.memmap):
            if phys == UNMAPPED or phys >= mm.size:
                continue
            count = min(1 << mm.memmap_shift, mm.size - phys) // 8
            private = np.frombuffer(mm.ram.as_u64, np.uint64, count, phys)[abi.PAGE_PRIVATE // 8 :: step]
            for i in np.flatnonzero(private == ROOT_MAGIC):
                pfn = (chunk << mm.memmap_shift) // abi.SIZEOF_PAGE + int(i)
                root = address.phys_to_virt(mm, pfn << abi.PAGE_SHIFT)
                if known(mm, root, ROOT_MAGIC):
                    mm.owners_root = root
                    return root
    return mm.owners_root


def listed(mm: Mm, table: int, count: int, magic: int) -> Iterator[int]:
    """The owners of one kind that the root lists."""
    root = find_root(mm)
    if root:
        at = (address.off(mm, root) + table) >> 3
        for i in range(count):
            owner = mm.as_u64[at + i]
            if owner and known(mm, owner, magic):
                yield owner


def tasks(mm: Mm) -> Iterator[int]:
    """Kernel addresses of the tasks, oldest first."""
    return listed(mm, ROOT_TASKS, MAX_TASKS, TASK_MAGIC)


def files(mm: Mm) -> Iterator[int]:
    """Kernel addresses of the files, oldest first."""
    return listed(mm, ROOT_FILES, MAX_FILES, FILE_MAGIC)
