# SPDX-License-Identifier: GPL-2.0-only
"""Out of memory: which task has to go (mm/oom_kill.c).

Tasks are those of a workload (:mod:`~kernelmm.pressure.owners`).  A killed task exits while its killer
sleeps, and its pages are free then; the task that allocates itself, if it is the victim, gets
access to the reserves instead and has to come to its end by itself.  On a machine whose tasks
are not known, nobody can be killed: it is as if the OOM killer were disabled.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core import cpuset, mmzone
from kernelmm.core.mm import AllocContext, Mm
from kernelmm.core.task import OOM_FLAG_ORIGIN
from kernelmm.pressure import codes, exit, owners, stat
from kernelmm.pressure.fields import Fields
from kernelmm.pressure.zonelist import for_each_zone_zonelist
from physmem import address, word
from physmem.errors import PanicError

__all__ = ["OOM_SCORE_ADJ_MIN", "oom_badness", "oom_zonelist_trylock", "oom_zonelist_unlock", "out_of_memory"]

OOM_SCORE_ADJ_MIN = -1000
_INIT = 1
_ULONG_MAX = (1 << 64) - 1

# enum oom_constraint
CONSTRAINT_NONE = 0
CONSTRAINT_CPUSET = 1
CONSTRAINT_MEMORY_POLICY = 2

#: Leave out of the report the nodes that the caller may not use.
SHOW_MEM_FILTER_NODES = 1


def field(mm: Mm, task: int, offset: int) -> int:
    """A 64-bit field of a task."""
    return mm.as_u64[(address.off(mm, task) + offset) >> 3]


def signed(mm: Mm, task: int, offset: int) -> int:
    """A 32-bit signed field of a task."""
    return mm.as_s32[(address.off(mm, task) + offset) >> 2]


def comm(mm: Mm, task: int) -> str:
    """The task's name."""
    at = address.off(mm, task) + owners.TASK_COMM
    return bytes(mm.as_u8[at : at + 16]).split(b"\0")[0].decode("ascii", "replace")


def sysctl(mm: Mm, address_of: int, default: int) -> int:
    """One of the OOM killer's settings in /proc/sys/vm; ``default`` if the image does not tell where it is."""
    return mm.as_s32[address_of >> 2] if address_of else default


def has_intersects_mems_allowed(mm: Mm, task: int, nodemask: int) -> bool:
    """``has_intersects_mems_allowed``: killing the task can help.

    If a mempolicy binds the request (``nodemask``), the task's own mempolicy decides, and tasks here have the default
    one, which is no obstacle; if not, the nodes of the two tasks' cpusets.
    """
    return not mm.numa or bool(nodemask) or bool(mm.mems_allowed & field(mm, task, owners.TASK_MEMS_ALLOWED))


def oom_unkillable_task(mm: Mm, task: int, nodemask: int) -> bool:
    """``oom_unkillable_task``: init, kernel threads, and who has no memory where it is short."""
    if signed(mm, task, owners.TASK_PID) == _INIT or task_flags(mm, task) & codes.PF_KTHREAD:
        return True
    return not has_intersects_mems_allowed(mm, task, nodemask)


def task_flags(mm: Mm, task: int) -> int:
    """PF_* of a task."""
    return mm.as_u32[(address.off(mm, task) + owners.TASK_FLAGS) >> 2]


def oom_badness(mm: Mm, task: int, nodemask: int, totalpages: int) -> int:
    """``oom_badness``: pages that killing the task would free, adjusted by its wishes; 0: it must not be killed.

    :param nodemask: the nodes that a mempolicy binds the request to, a bit each; 0: none does
    """
    adj = signed(mm, task, owners.TASK_OOM_SCORE_ADJ)
    if oom_unkillable_task(mm, task, nodemask) or adj == OOM_SCORE_ADJ_MIN:
        return 0
    points = sum(field(mm, task, each) for each in (owners.TASK_ANON_RSS, owners.TASK_FILE_RSS, owners.TASK_NR_PTES))
    if mm.as_u32[(address.off(mm, task) + owners.TASK_UID) >> 2] == 0:
        points -= points * 3 // 100
    points += adj * (totalpages // 1000)
    return max(points, 1)


def constrained_alloc(mm: Mm, gfp_mask: int, ac: AllocContext) -> tuple[int, int]:
    """``constrained_alloc``: the pages that the request could have had, and what keeps it from the others."""
    total = mm.as_u64[mm.cold.var_totalram_pages >> 3]
    memory = mm.as_u64[mm.var_node_states_memory >> 3]
    if not mm.numa or gfp_mask & gfp.__GFP_THISNODE:
        return total, CONSTRAINT_NONE
    if ac.nodemask and memory & ~ac.nodemask:
        return spanned(mm, ac.nodemask & memory), CONSTRAINT_MEMORY_POLICY
    for zone in for_each_zone_zonelist(mm, ac.zonelist, ac.high_zoneidx, ac.nodemask):
        if not cpuset.node_allowed(mm, mmzone.zone_nid(mm, mmzone.zone_off(mm, zone)), gfp_mask):
            return spanned(mm, mm.mems_allowed & memory), CONSTRAINT_CPUSET
    return total, CONSTRAINT_NONE


def spanned(mm: Mm, nodes: int) -> int:
    """``node_spanned_pages`` of several nodes."""
    at = mm.cold.pgdat_node_spanned_pages
    found = (mmzone.node_data(mm, nid) for nid in range(mm.nr_node_ids) if nodes >> nid & 1)
    return sum(mm.as_u64[(address.off(mm, pgdat) + at) >> 3] for pgdat in found)


def oom_task_origin(mm: Mm, task: int) -> bool:
    """``oom_task_origin``: the task asks for so much memory that it wants to be killed first."""
    return bool(mm.as_u32[(address.off(mm, task) + owners.TASK_OOM_FLAGS) >> 2] & OOM_FLAG_ORIGIN)


def select_bad_process(mm: Mm, nodemask: int, totalpages: int) -> tuple[int, int]:
    """``select_bad_process``: the task with the most points, and them; -1: one is dying already, 0: there is none.

    A task that is the origin of the trouble has ULONG_MAX points, whatever its wishes; the last of several is taken.
    """
    chosen = most = 0
    for task in owners.tasks(mm):
        if oom_unkillable_task(mm, task, nodemask):
            continue
        if mm.as_u32[(address.off(mm, task) + owners.TASK_TIF) >> 2] & owners.TIF_MEMDIE:
            return -1, 0
        if oom_task_origin(mm, task):
            chosen, most = task, _ULONG_MAX
            continue
        if task_flags(mm, task) & codes.PF_EXITING:
            return -1, 0
        points = oom_badness(mm, task, nodemask, totalpages)
        if points > most:
            chosen, most = task, points
    return chosen, most


def oom_kill_process(mm: Mm, task: int, points: int, totalpages: int, nodemask: int, message: str) -> int:
    """``oom_kill_process`` after its report: kill a task, or better the worst of its children; the victim.

    :param points: thousandths of all memory
    """
    pid = signed(mm, task, owners.TASK_PID)
    stat.printk(mm, f"{message}: Kill process {pid} ({comm(mm, task)}) score {points} or sacrifice child")
    victim, most = task, 0
    for child in owners.tasks(mm):
        if signed(mm, child, owners.TASK_PARENT) == pid:
            badness = oom_badness(mm, child, nodemask, totalpages)
            if badness > most:
                victim, most = child, badness
    counters = (owners.TASK_TOTAL_VM, owners.TASK_ANON_RSS, owners.TASK_FILE_RSS)
    kilobytes = [field(mm, victim, each) * 4 for each in counters]
    mark_tsk_oom_victim(mm, victim)
    stat.printk(
        mm,
        f"Killed process {signed(mm, victim, owners.TASK_PID)} ({comm(mm, victim)}) "
        f"total-vm:{kilobytes[0]}kB, anon-rss:{kilobytes[1]}kB, file-rss:{kilobytes[2]}kB",
    )
    tif = (address.off(mm, victim) + owners.TASK_TIF) >> 2
    mm.as_u32[tif] = mm.as_u32[tif] | owners.TIF_SIGKILL
    return victim


def mark_tsk_oom_victim(mm: Mm, task: int) -> None:
    """``mark_tsk_oom_victim``: the task may use the reserves, to come to its end."""
    at = (address.off(mm, task) + owners.TASK_TIF) >> 2
    mm.as_u32[at] = mm.as_u32[at] | owners.TIF_MEMDIE


def out_of_memory(mm: Mm, gfp_mask: int, order: int, ac: AllocContext) -> bool:
    """``out_of_memory``: kill somebody; False if there is no OOM killer.

    :raises PanicError: there is nobody who may be killed, or the system is to panic rather than kill
    """
    fields: Fields = mm.cold
    if not mm.task_flags & codes.PF_KTHREAD and (mm.fatal_signal or mm.task_flags & codes.PF_EXITING):
        # On its way to the end already: let it get there.
        mm.memdie = True
        return True
    if not any(True for _ in owners.tasks(mm)):
        return False
    totalpages, constraint = constrained_alloc(mm, gfp_mask, ac)
    nodemask = ac.nodemask if constraint == CONSTRAINT_MEMORY_POLICY else 0
    check_panic_on_oom(mm, constraint, gfp_mask, order, nodemask)
    current = mm.current
    if (
        sysctl(mm, fields.var_sysctl_oom_kill_allocating_task, 0)
        and current
        and not oom_unkillable_task(mm, current, ac.nodemask)
        and signed(mm, current, owners.TASK_OOM_SCORE_ADJ) != OOM_SCORE_ADJ_MIN
    ):
        report(mm, gfp_mask, order, ac.nodemask)
        oom_kill_process(mm, current, 0, totalpages, ac.nodemask, "Out of memory (oom_kill_allocating_task)")
        return True
    victim, points = select_bad_process(mm, nodemask, totalpages)
    if victim == 0:
        dump_header(mm, gfp_mask, order, nodemask)
        panic(mm, "Out of memory and no killable processes...")
    if victim != -1:
        report(mm, gfp_mask, order, ac.nodemask)
        # unsigned long first, then unsigned int
        score = (points * 1000 & _ULONG_MAX) // totalpages & 0xFFFFFFFF if totalpages else 0
        oom_kill_process(mm, victim, score, totalpages, ac.nodemask, "Out of memory")
        if not mm.fatal_signal:
            # schedule_timeout_killable(1): the killer sleeps, unless it is the victim itself.
            word.add_u64(mm, mm.var_jiffies, 1)
        exit.exit_dying(mm)
    return True


def check_panic_on_oom(mm: Mm, constraint: int, gfp_mask: int, order: int, nodemask: int) -> None:
    """``check_panic_on_oom``: 1: panic if memory is out everywhere; 2: in any case.

    :raises PanicError: so it is
    """
    mode = sysctl(mm, mm.cold.var_sysctl_panic_on_oom, 0)
    if mode == 0 or (mode != 2 and constraint != CONSTRAINT_NONE):
        return
    dump_header(mm, gfp_mask, order, nodemask)
    panic(mm, f"Out of memory: {'compulsory' if mode == 2 else 'system-wide'} panic_on_oom is enabled")


def panic(mm: Mm, message: str) -> None:
    """``panic``: always raises PanicError."""
    stat.printk(mm, f"Kernel panic - not syncing: {message}")
    raise PanicError(message)


def report(mm: Mm, gfp_mask: int, order: int, nodemask: int) -> None:
    """:func:`dump_header`, but not more often than ten times in five seconds."""
    if mm.reporter is None or mm.reporter.oom_ratelimit(mm):
        dump_header(mm, gfp_mask, order, nodemask)


def dump_header(mm: Mm, gfp_mask: int, order: int, nodemask: int) -> None:
    """``dump_header``: who wants memory, how memory is, and who could be killed."""
    adj = signed(mm, mm.current, owners.TASK_OOM_SCORE_ADJ) if mm.current else 0
    stat.printk(mm, f"{mm.comm} invoked oom-killer: gfp_mask=0x{gfp_mask:x}, order={order}, oom_score_adj={adj}")
    if mm.cold.var_cpusets_enabled_key or mm.cpusets_enabled:
        cpuset_print_task_mems_allowed(mm)
    if mm.reporter is not None:
        mm.reporter.dump_stack(mm)
        mm.reporter.show_mem(SHOW_MEM_FILTER_NODES)
    if sysctl(mm, mm.cold.var_sysctl_oom_dump_tasks, 1):
        dump_tasks(mm, nodemask)


def cpuset_print_task_mems_allowed(mm: Mm) -> None:
    """``cpuset_print_task_mems_allowed``: cpusets here have no names of their own: all are shown as the topmost."""
    nodes = mm.mems_allowed & mm.as_u64[mm.var_node_states_memory >> 3]
    allowed = [nid for nid in range(64) if nodes >> nid & 1]
    # Of each run of nodes the first and the last (%*pbl).
    runs = [
        (first, next(nid for nid in range(first, 65) if not nodes >> nid & 1) - 1)
        for first in allowed
        if first - 1 not in allowed
    ]
    text = ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)
    stat.printk(mm, f"{mm.comm} cpuset=/ mems_allowed={text}")


def dump_tasks(mm: Mm, nodemask: int) -> None:
    """``dump_tasks``: the candidates and what they use, in pages."""
    stat.printk(mm, "[ pid ]   uid  tgid total_vm      rss nr_ptes nr_pmds swapents oom_score_adj name")
    for task in owners.tasks(mm):
        if oom_unkillable_task(mm, task, nodemask):
            continue
        pid = signed(mm, task, owners.TASK_PID)
        rss = field(mm, task, owners.TASK_ANON_RSS) + field(mm, task, owners.TASK_FILE_RSS)
        stat.printk(
            mm,
            f"[{pid:5}] {signed(mm, task, owners.TASK_UID):5} {pid:5} "
            f"{field(mm, task, owners.TASK_TOTAL_VM):8} {rss:8} "
            f"{field(mm, task, owners.TASK_NR_PTES):7} {0:7} {0:8}         "
            f"{signed(mm, task, owners.TASK_OOM_SCORE_ADJ):5} {comm(mm, task)}",
        )


# -- one killer at a time --------------------------------------------------------------


def oom_zonelist_trylock(mm: Mm, zonelist: int, gfp_mask: int) -> bool:
    """``oom_zonelist_trylock``: mark all zones; False if one of them is marked: somebody else is at it."""
    zones = flags_of_zones(mm, zonelist, gfp_mask)
    locked = 1 << mm.cold.ZONE_OOM_LOCKED
    if any(mm.as_u64[at >> 3] & locked for at in zones):
        return False
    for at in zones:
        word.set_bits(mm, at, locked)
    return True


def oom_zonelist_unlock(mm: Mm, zonelist: int, gfp_mask: int) -> None:
    """``oom_zonelist_unlock``: take the marks off."""
    locked = 1 << mm.cold.ZONE_OOM_LOCKED
    for at in flags_of_zones(mm, zonelist, gfp_mask):
        word.clear_bits(mm, at, locked)


def flags_of_zones(mm: Mm, zonelist: int, gfp_mask: int) -> list[int]:
    """Physical addresses of ``zone->flags`` of the zones of a list."""
    zones = for_each_zone_zonelist(mm, zonelist, gfp.gfp_zone(gfp_mask))
    return [mmzone.zone_off(mm, zone) + mm.zone_flags for zone in zones]
