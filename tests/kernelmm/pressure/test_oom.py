# SPDX-License-Identifier: GPL-2.0-only
"""The OOM killer (mm/oom_kill.c): who is killed, for whom, and what is printed."""

from __future__ import annotations

import pytest

from kernelmm import gfp
from kernelmm.core.mm import AllocContext
from kernelmm.pressure import codes, oom, owners
from physmem import address
from physmem.errors import PanicError

THISNODE = vars(gfp)["__GFP_THISNODE"]


@pytest.fixture
def tasks(lab):
    """Three tasks of 300, 800 and 500 pages, on a machine with nothing left."""
    tasks = {}
    for name, pages in (("small", 300), ("big", 800), ("middle", 500)):
        tasks[name] = lab.work.fork(name)
        tasks[name].mmap_anon(pages)
    lab.exhaust()
    return tasks


def test_the_biggest_is_killed_and_its_pages_serve_the_request(lab, tasks):
    free, lists = lab.free_pages(), lab.on_lists()
    assert lab.alloc(gfp.GFP_KERNEL)
    assert {name: task.alive for name, task in tasks.items()} == {"small": True, "big": False, "middle": True}
    # 800 pages, its page tables (800 pages need two) and its own record, less the one that was wanted.
    assert lab.free_pages() == free + 800 + 2 + 1 - 1
    assert lab.on_lists() == lists - 800
    assert lab.console.lines == [
        "swapper/0 invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0",
        "Mem-Info:",
        "[ pid ]   uid  tgid total_vm      rss nr_ptes nr_pmds swapents oom_score_adj name",
        "[    2]  1000     2      300      300       1       0        0             0 small",
        "[    3]  1000     3      800      800       2       0        0             0 big",
        "[    4]  1000     4      500      500       1       0        0             0 middle",
        f"Out of memory: Kill process 3 (big) score {802 * 1000 // 31122} or sacrifice child",
        "Killed process 3 (big) total-vm:3200kB, anon-rss:3200kB, file-rss:0kB",
    ]


def test_locks_of_all_zones_are_released(lab, tasks):
    lab.alloc(gfp.GFP_KERNEL)
    for z in lab.zones:
        assert not lab.mm.as_u64[(z + lab.mm.zone_flags) >> 3] >> lab.mm.cold.ZONE_OOM_LOCKED & 1


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ({}, 802),
        ({"uid": 0}, 802 - 802 * 3 // 100),
        ({"oom_score_adj": 100}, 802 + 100 * 31),
        ({"oom_score_adj": -999}, 1),
        ({"oom_score_adj": -1000}, 0),
        ({"flags": codes.PF_KTHREAD}, 0),
    ],
)
def test_badness(lab, changes, points):
    """rss + page tables, less 3 % for root, plus oom_score_adj thousandths of 31122 pages."""
    task = lab.work.fork("t", **changes)
    task.mmap_anon(800)
    assert oom.oom_badness(lab.mm, task.va, 0, 31122) == points


def test_task_without_memory_where_it_is_short_is_not_killed(lab):
    task = lab.work.fork("t")
    lab.mm.as_u64[(address.off(lab.mm, task.va) + owners.TASK_MEMS_ALLOWED) >> 3] = 1 << 1
    assert oom.oom_badness(lab.mm, task.va, 1 << 0, 31122) == 0
    assert oom.oom_badness(lab.mm, task.va, 1 << 1, 31122) > 0


def test_worst_child_is_sacrificed(lab):
    parent = lab.work.fork("parent")
    parent.mmap_anon(900)
    children = [lab.work.fork(f"child{i}", parent=parent) for i in range(2)]
    children[0].mmap_anon(100)
    children[1].mmap_anon(200)
    lab.exhaust()
    assert lab.alloc(gfp.GFP_KERNEL)
    assert [parent.alive, *(child.alive for child in children)] == [True, True, False]


@pytest.mark.parametrize(
    ("mask", "order", "flags"),
    [
        (gfp.GFP_KERNEL, codes.PAGE_ALLOC_COSTLY_ORDER + 1, 0),
        (gfp.GFP_KERNEL | gfp.GFP_DMA32, 0, 0),
        (gfp.GFP_KERNEL | THISNODE, 0, 0),
        (gfp.GFP_KERNEL, 0, codes.PF_DUMPCORE),
    ],
)
def test_for_whom_nobody_is_killed(lab, tasks, mask, order, flags):
    """Large blocks, low memory, one node only, and core dumps fail instead."""
    lab.mm.task_flags = flags
    assert lab.alloc(mask, order) == 0
    assert all(task.alive for task in tasks.values())


def test_nobody_left_to_kill_is_a_panic(lab):
    lab.work.fork("protected", oom_score_adj=oom.OOM_SCORE_ADJ_MIN).mmap_anon(100)
    lab.exhaust()
    with pytest.raises(PanicError, match="no killable processes"):
        lab.alloc(gfp.GFP_KERNEL)
    assert lab.console.lines[-1].startswith("Kernel panic - not syncing: Out of memory")
    for z in lab.zones:
        assert not lab.mm.as_u64[(z + lab.mm.zone_flags) >> 3] >> lab.mm.cold.ZONE_OOM_LOCKED & 1


def test_the_allocating_task_itself_gets_the_reserves(lab, tasks):
    lab.work.switch_to(tasks["big"])
    page = lab.alloc(gfp.GFP_KERNEL)
    assert page
    assert lab.mm.memdie
    assert tasks["big"].alive
    assert lab.console.lines[0].startswith("big invoked oom-killer")


def test_somebody_who_is_dying_already_is_waited_for(lab, tasks):
    oom.mark_victim(lab.mm, tasks["small"].va)
    ac = AllocContext()
    ac.nodemask, ac.high_zoneidx, ac.zonelist = 0, 2, lab.mm.ac.zonelist
    assert oom.out_of_memory(lab.mm, gfp.GFP_KERNEL, 0, ac)
    assert [task.alive for task in tasks.values()] == [False, True, True]
    assert lab.console.lines == []


def test_only_one_killer_at_a_time(lab):
    lab.alloc(gfp.GFP_KERNEL)
    zonelist = lab.mm.ac.zonelist
    assert oom.oom_zonelist_trylock(lab.mm, zonelist, gfp.GFP_KERNEL)
    assert not oom.oom_zonelist_trylock(lab.mm, zonelist, gfp.GFP_KERNEL)
    oom.oom_zonelist_unlock(lab.mm, zonelist, gfp.GFP_KERNEL)
    assert oom.oom_zonelist_trylock(lab.mm, zonelist, gfp.GFP_KERNEL)


def test_page_cache_of_a_victim_stays_dirty(lab):
    file = lab.work.open()
    task = lab.work.fork("t")
    task.mmap_file(file, 4)
    task.touch(range(4), write=True)
    task.exit()
    assert lab.stat("NR_FILE_DIRTY") == 4
    assert (file.nrpages, lab.stat("NR_FILE_MAPPED")) == (4, 416)
