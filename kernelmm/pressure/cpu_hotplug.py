# SPDX-License-Identifier: GPL-2.0-only
"""CPUs that go and come (kernel/cpu.c, mm/page_alloc.c, mm/vmstat.c): nothing of theirs is lost."""

from __future__ import annotations

from kernelmm.bringup import watermarks
from kernelmm.bringup.kernel import N_CPU, Kernel
from kernelmm.bringup.rounding import div_round_up
from kernelmm.core import pcp
from kernelmm.pressure import lru, stat
from kernelmm.pressure.hotplug import fold_diffs, node_clear_state
from kernelmm.pressure.reclaim import node_of_cpu
from physmem import address
from physmem.errors import UsageError

__all__ = ["cpu_down", "cpu_up"]


def set_mask(kernel: Kernel, name: str, first: int, cpu: int, on: bool) -> None:
    """Set or clear a CPU's bit in a mask that begins at element ``first`` of a variable."""
    at, bit = first + cpu // 64, 1 << cpu % 64
    before = kernel.var(name, at)
    kernel.set_var(name, before | bit if on else before & ~bit, at)


def numa_set_cpu(kernel: Kernel, cpu: int, on: bool) -> None:
    """``numa_add_cpu``, ``numa_remove_cpu``."""
    if kernel.numa and "node_to_cpumask_map" in kernel.symbols:
        words = div_round_up(kernel.layout.constant("NR_CPUS"), 64)
        set_mask(kernel, "node_to_cpumask_map", node_of_cpu(kernel.mm, cpu) * words, cpu, on)


def page_alloc_cpu_dead(kernel: Kernel, cpu: int) -> None:
    """``page_alloc_cpu_notify(CPU_DEAD)``: its pages are free, its events and statistics others'."""
    mm = kernel.mm
    lru.lru_add_drain_cpu(mm, cpu)
    pcp.drain_pages(mm, cpu)
    dead = address.off(mm, mm.percpu_vm_event_states + mm.per_cpu_offset(cpu)) >> 3
    for event in range(kernel.layout.enumerator("NR_VM_EVENT_ITEMS")):
        stat.count(mm, event, mm.as_u64[dead + event])
        mm.as_u64[dead + event] = 0
    for z in stat.populated_zones(mm):
        fold_diffs(mm, z, cpu)


def cpu_down(kernel: Kernel, cpu: int) -> None:
    """``cpu_down``: take a CPU offline; whoever runs on it goes on elsewhere.

    :raises UsageError: it is not online, or the last one that is
    """
    mm, online = kernel.mm, kernel.online_cpus()
    if cpu not in online:
        raise UsageError(f"CPU {cpu} is not online")
    if len(online) == 1:
        raise UsageError(f"CPU {cpu} is the last one online")
    if mm.cpu == cpu:
        mm.set_cpu(next(each for each in online if each != cpu))
    set_mask(kernel, "cpu_online_bits", 0, cpu, False)
    numa_set_cpu(kernel, cpu, False)
    page_alloc_cpu_dead(kernel, cpu)
    watermarks.refresh_zone_stat_thresholds(kernel)
    nid = node_of_cpu(mm, cpu) if mm.numa else 0
    if not any(node_of_cpu(mm, each) == nid for each in kernel.online_cpus() if mm.numa):
        node_clear_state(kernel, nid, N_CPU)


def cpu_up(kernel: Kernel, cpu: int) -> None:
    """``cpu_up``: bring a CPU online that the machine has.

    :raises UsageError: there is no such CPU, or it is online
    """
    mm = kernel.mm
    if cpu not in kernel.possible_cpus():
        raise UsageError(f"the machine has no CPU {cpu}")
    if cpu in kernel.online_cpus():
        raise UsageError(f"CPU {cpu} is online")
    set_mask(kernel, "cpu_online_bits", 0, cpu, True)
    numa_set_cpu(kernel, cpu, True)
    watermarks.refresh_zone_stat_thresholds(kernel)
    kernel.node_set_state(node_of_cpu(mm, cpu) if mm.numa else 0, N_CPU)
