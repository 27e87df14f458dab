# SPDX-License-Identifier: GPL-2.0-only
"""The workload: its state is bytes, its pages are conserved."""

from __future__ import annotations

import pytest

from kernelmm import gfp
from kernelmm.core.mm import Mm
from kernelmm.pressure import hooks, owners, writeback
from kernelmm.pressure.workload import Workload
from physmem.errors import UsageError
from physmem.ram import Ram

#: What Mm reads in the running task's record.
OF_THE_TASK = ("task_flags", "rt_task", "memdie", "fatal_signal", "mems_allowed", "mems_allowed_seq", "hardwall_mems")


def copy_of(lab):
    """Another machine with the same bytes, as a process that opens a saved image has."""
    source = lab.mm
    ram = Ram(source.ram.size, source.ram.ranges)
    ram.as_u8[:] = source.ram.as_u8
    dump = lab.dump
    values = {
        name: getattr(source, name)
        for name in dir(source)
        if not name.startswith("__")
        and isinstance(getattr(source, name, None), int)
        and name not in ("owners_root", "current", *OF_THE_TASK)
    }
    mm = Mm(ram, dump.over(ram).space(ram), values)
    mm.stack, mm.cold, mm.pressure = source.stack, source.cold, hooks
    return mm


def test_everything_is_found_again_in_a_copy_of_the_memory(lab):
    file = lab.work.open()
    file.read(0, 20)
    task = lab.work.fork("survivor", oom_score_adj=-7)
    task.mmap_anon(5, first=600, data=b"kept")
    task.mmap_file(file, 3, first=2000)
    again = Workload(copy_of(lab))
    assert again.root == lab.work.root
    assert [(each.va, each.pid, each.comm, each.rss) for each in again.tasks] == [(task.va, task.pid, "survivor", 8)]
    assert again.files[0].pages() == file.pages()
    assert again.tasks[0].page(602) == task.page(602)
    again.tasks[0].exit()
    assert (again.tasks, [each.comm for each in lab.work.tasks]) == ([], ["survivor"])


def test_all_pages_come_back(lab):
    free, lists = lab.free_pages(), lab.on_lists()
    names = (
        "NR_ANON_PAGES",
        "NR_FILE_PAGES",
        "NR_FILE_MAPPED",
        "NR_FILE_DIRTY",
        "NR_WRITEBACK",
        "NR_PAGETABLE",
        "NR_MLOCK",
    )
    counts = [lab.stat(name) for name in names]
    task = lab.work.fork("t")
    task.mmap_anon(700)
    task.mmap_anon(10, first=5000, locked=True)
    file = lab.work.open()
    file.write(0, 40)
    task.mmap_file(file, 20, first=8000)
    task.munmap(100, 50)
    task.exit()
    file.truncate()
    # The file's record and the page of its radix tree remain.
    assert lab.free_pages() == free - 2
    assert lab.on_lists() == lists
    assert [lab.stat(name) for name in names] == counts


def test_owners_of_the_image_are_not_mistaken_for_ours(lab):
    for which in range(5):
        for page in lab.list(lab.mm.mem_map + 64 * 5000, which):
            assert owners.task_of(lab.mm, page) == owners.file_of(lab.mm, page) == 0


def test_limits_are_said(lab):
    file = lab.work.open()
    task = lab.work.fork("t")
    with pytest.raises(UsageError, match="pages 0 to"):
        file.read(owners.MAX_PAGES)
    with pytest.raises(UsageError, match="oom_score_adj 1001"):
        lab.work.fork("x", oom_score_adj=1001)
    with pytest.raises(UsageError, match="not in memory"):
        file.pin(3)
    task.mmap_anon(1)
    with pytest.raises(UsageError, match="mapped already"):
        task.mmap_anon(1)
    with pytest.raises(UsageError, match="at or above"):
        task.mmap_file(file, 1, first=2, pgoff=9)


def test_no_memory_left_is_said(lab):
    lab.exhaust()
    while lab.alloc(gfp.GFP_KERNEL):
        pass
    with pytest.raises(UsageError, match="no page left"):
        lab.work.open()


def test_truncating_waits_for_writeback(lab):
    file = lab.work.open()
    file.write(0, 10)
    writeback.wakeup_flusher_threads(lab.mm, 10)
    writeback.flush(lab.mm)
    assert lab.stat("NR_WRITEBACK") == 10
    free = lab.free_pages()
    file.truncate()
    assert (lab.stat("NR_WRITEBACK"), file.nrpages, lab.free_pages()) == (0, 0, free + 10)
