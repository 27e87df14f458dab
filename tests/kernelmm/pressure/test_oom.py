# SPDX-License-Identifier: GPL-2.0-only
"""The OOM killer (mm/oom_kill.c): who is killed, for whom, and what is printed."""

from __future__ import annotations

import pytest

from kernelmm import Machine, gfp
from kernelmm.core import mmzone
from kernelmm.core.mm import AllocContext
from kernelmm.pressure import codes, cpusets, kswapd, oom, owners
from kernelmm.pressure.workload import Workload
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
        "swapper/0 cpuset=/ mems_allowed=0",
        "CPU: 0",
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


def test_cpusets_decide_whether_killing_can_help(lab):
    """has_intersects_mems_allowed: tasks whose nodes are others than the caller's are spared; if a mempolicy binds the
    request, their cpusets do not matter, and the default mempolicy is no obstacle.
    """
    task = lab.work.fork("t")
    cpusets.cpuset_change_task_nodemask(lab.mm, 1 << 0)
    lab.mm.as_u64[(address.off(lab.mm, task.va) + owners.TASK_MEMS_ALLOWED) >> 3] = 1 << 1
    assert oom.oom_badness(lab.mm, task.va, 0, 31122) == 0
    assert oom.oom_badness(lab.mm, task.va, 1 << 0, 31122) > 0
    lab.mm.as_u64[(address.off(lab.mm, task.va) + owners.TASK_MEMS_ALLOWED) >> 3] = 3
    assert oom.oom_badness(lab.mm, task.va, 0, 31122) > 0


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
    assert lab.console.lines[-3].startswith("[ pid ]")
    assert lab.console.lines[-2].endswith("-1000 protected")
    assert lab.console.lines[-1] == "Kernel panic - not syncing: Out of memory and no killable processes..."
    for z in lab.zones:
        assert not lab.mm.as_u64[(z + lab.mm.zone_flags) >> 3] >> lab.mm.cold.ZONE_OOM_LOCKED & 1


def test_the_allocating_task_itself_gets_the_reserves(lab, tasks):
    lab.work.switch_to(tasks["big"])
    page = lab.alloc(gfp.GFP_KERNEL)
    assert page
    assert lab.mm.memdie
    assert tasks["big"].alive
    assert lab.console.lines[0].startswith("big invoked oom-killer")


def request(lab, nodemask=0):
    """What an allocation of GFP_KERNEL is about."""
    ac = AllocContext()
    ac.nodemask, ac.high_zoneidx, ac.zonelist = nodemask, 2, mmzone.node_zonelist(lab.mm, 0, False)
    return gfp.GFP_KERNEL, 0, ac


def test_somebody_who_is_dying_already_is_waited_for(lab, tasks):
    """select_bad_process aborts: nobody is killed, nothing is printed, no time passes; the dying runs when the killer
    waits.
    """
    oom.mark_tsk_oom_victim(lab.mm, tasks["small"].va)
    jiffies = lab.mm.as_u64[lab.mm.var_jiffies >> 3]
    assert oom.out_of_memory(lab.mm, *request(lab))
    assert [task.alive for task in tasks.values()] == [True, True, True]
    assert lab.mm.as_u64[lab.mm.var_jiffies >> 3] == jiffies
    kswapd.let_others_run(lab.mm)
    assert [task.alive for task in tasks.values()] == [False, True, True]
    assert lab.console.lines == []


def test_a_dying_task_that_cannot_be_killed_stops_nobody(lab, tasks):
    """oom_scan_process_thread asks first whether a task is a candidate at all."""
    oom.mark_tsk_oom_victim(lab.mm, tasks["small"].va)
    lab.mm.as_u32[(address.off(lab.mm, tasks["small"].va) + owners.TASK_FLAGS) >> 2] = codes.PF_KTHREAD
    assert oom.select_bad_process(lab.mm, 0, 31122) == (tasks["big"].va, 802)


@pytest.mark.parametrize("state", ["fatal_signal", "exiting"])
def test_a_caller_on_its_way_to_the_end_gets_the_reserves(lab, tasks, state):
    """fatal_signal_pending or task_will_free_mem: TIF_MEMDIE, no report, nobody is killed."""
    lab.work.switch_to(tasks["small"])
    if state == "exiting":
        lab.mm.task_flags |= codes.PF_EXITING
    else:
        lab.mm.fatal_signal = True
    assert oom.out_of_memory(lab.mm, *request(lab))
    assert lab.mm.memdie
    assert all(task.alive for task in tasks.values())
    assert lab.console.lines == []


@pytest.fixture
def booted():
    """A machine of our own with tasks of 500 and no pages, and nothing left."""
    with Machine.boot("16M") as machine:
        work = Workload(machine.mm)
        task = work.fork("hog")
        task.mmap_anon(500)
        small = work.fork("small")
        while machine.alloc_page(gfp.GFP_NOWAIT | vars(gfp)["__GFP_NOWARN"]):
            pass
        yield machine, task, small


@pytest.mark.parametrize(("mode", "how"), [(1, "system-wide"), (2, "compulsory")])
def test_panic_on_oom(booted, mode, how):
    machine, task, _ = booted
    machine.sysctl("panic_on_oom", mode)
    with pytest.raises(PanicError, match=f"Out of memory: {how} panic_on_oom is enabled"):
        machine.alloc_page(gfp.GFP_KERNEL)
    assert task.alive
    assert machine.console.lines[-1] == f"Kernel panic - not syncing: Out of memory: {how} panic_on_oom is enabled"


def test_panic_on_oom_1_spares_a_cpuset_that_is_full(lab, tasks):
    """CONSTRAINT_CPUSET: memory is out for some only."""
    at = lab.mm.size - 4096 + 2048
    lab.mm.cold.var_sysctl_panic_on_oom = at
    lab.mm.as_s32[at >> 2] = 1
    oom.check_panic_on_oom(lab.mm, oom.CONSTRAINT_CPUSET, gfp.GFP_KERNEL, 0, 0)
    oom.check_panic_on_oom(lab.mm, oom.CONSTRAINT_MEMORY_POLICY, gfp.GFP_KERNEL, 0, 1)
    with pytest.raises(PanicError):
        oom.check_panic_on_oom(lab.mm, oom.CONSTRAINT_NONE, gfp.GFP_KERNEL, 0, 0)
    lab.mm.as_s32[at >> 2] = 2
    with pytest.raises(PanicError):
        oom.check_panic_on_oom(lab.mm, oom.CONSTRAINT_CPUSET, gfp.GFP_KERNEL, 0, 0)


def test_oom_kill_allocating_task_and_oom_dump_tasks(booted):
    """The caller is killed whatever its size, with a score of 0; without the table of tasks."""
    machine, task, small = booted
    task.workload.switch_to(small)
    machine.sysctl("oom_kill_allocating_task", 1)
    machine.sysctl("oom_dump_tasks", 0)
    start = len(machine.console.lines)
    assert machine.alloc_page(gfp.GFP_KERNEL)
    lines = machine.console.lines[start:]
    assert lines[0] == "small invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0"
    assert not any(line.startswith("[ pid ]") for line in lines)
    assert lines[-2:] == [
        f"Out of memory (oom_kill_allocating_task): Kill process {small.pid} (small) score 0 or sacrifice child",
        f"Killed process {small.pid} (small) total-vm:0kB, anon-rss:0kB, file-rss:0kB",
    ]
    assert machine.mm.memdie
    assert task.alive


def test_reports_of_the_oom_killer_are_limited_in_number(booted):
    """Ten in five seconds; those that were left out are counted, and told with the next."""
    machine, *_ = booted
    for _ in range(12):
        oom.report(machine.mm, gfp.GFP_KERNEL, 0, 0)
    assert sum("invoked oom-killer" in line for line in machine.console.lines) == 10
    machine.mm.as_u64[machine.mm.var_jiffies >> 3] += 5 * machine.mm.hz + 1
    oom.report(machine.mm, gfp.GFP_KERNEL, 0, 0)
    assert "oom_kill_process: 2 callbacks suppressed" in machine.console.lines
    assert sum("invoked oom-killer" in line for line in machine.console.lines) == 11


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


def test_a_task_that_is_the_origin_of_the_trouble_goes_first(lab, tasks):
    """oom_task_origin: the smallest, and one that must not be killed otherwise; its score is ULONG_MAX as printed."""
    tasks["small"].set_oom_origin(True)
    assert tasks["small"].oom_origin
    lab.mm.as_s32[(address.off(lab.mm, tasks["small"].va) + owners.TASK_OOM_SCORE_ADJ) >> 2] = -1000
    total = lab.mm.as_u64[lab.mm.cold.var_totalram_pages >> 3]
    assert oom.select_bad_process(lab.mm, 0, total) == (tasks["small"].va, (1 << 64) - 1)
    assert lab.alloc(gfp.GFP_KERNEL)
    assert {name: task.alive for name, task in tasks.items()} == {"small": False, "big": True, "middle": True}
    score = ((1 << 64) - 1000) // total % (1 << 32)
    assert f"Out of memory: Kill process 2 (small) score {score} or sacrifice child" in lab.console.lines
    tasks["middle"].set_oom_origin(True)
    tasks["middle"].set_oom_origin(False)
    assert oom.select_bad_process(lab.mm, 0, total)[0] == tasks["big"].va


@pytest.mark.parametrize(("nodes", "text"), [(0b1, "0"), (0b11, "0-1"), (0b101, "0,2"), (0b1110, "1-3")])
def test_the_report_names_the_nodes_of_the_cpuset(nodes, text):
    """The second line of dump_header with CONFIG_CPUSETS, as a 4.0.4 printed it: swapper/0 cpuset=/ mems_allowed=0."""
    with Machine.boot("128M", nodes=4) as machine, machine.task(mems_allowed=nodes):
        oom.dump_header(machine.mm, gfp.GFP_KERNEL, 0, 0)
        invoked = next(i for i, line in enumerate(machine.console.lines) if "invoked oom-killer" in line)
        assert machine.console.lines[invoked + 1] == f"{machine.mm.comm} cpuset=/ mems_allowed={text}"
