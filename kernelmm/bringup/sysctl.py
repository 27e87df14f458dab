# SPDX-License-Identifier: GPL-2.0-only
"""What writing to /proc/sys/vm, or /proc/sys/kernel, does to a machine that runs (the handlers in mm/page_alloc.c)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.pagesets import pageset_set_high_and_batch
from kernelmm.bringup.watermarks import setup_per_zone_lowmem_reserve, setup_per_zone_wmarks
from kernelmm.bringup.zonelists import (
    ZONELIST_ORDER_DEFAULT,
    ZONELIST_ORDER_NODE,
    ZONELIST_ORDER_ZONE,
    build_all_zonelists,
)
from physmem.errors import UsageError

__all__ = [
    "SYSCTLS",
    "ZONELIST_ORDERS",
    "lowmem_reserve_ratio_sysctl_handler",
    "min_free_kbytes_sysctl_handler",
    "numa_zonelist_order_handler",
    "percpu_pagelist_fraction_sysctl_handler",
    "sysctl_min_slab_ratio_sysctl_handler",
    "sysctl_min_unmapped_ratio_sysctl_handler",
]

#: What ``numa_zonelist_order`` may be.
ZONELIST_ORDERS = {"default": ZONELIST_ORDER_DEFAULT, "node": ZONELIST_ORDER_NODE, "zone": ZONELIST_ORDER_ZONE}
#: The smallest percpu_pagelist_fraction but 0.
MIN_PERCPU_PAGELIST_FRACTION = 8


def min_free_kbytes_sysctl_handler(kernel: Kernel, kbytes: int) -> None:
    """``min_free_kbytes``: what all zones together keep free; all watermarks follow."""
    _within("min_free_kbytes", kbytes, 0, (1 << 31) - 1)
    kernel.set_var("min_free_kbytes", kbytes)
    kernel.set_var("user_min_free_kbytes", kbytes)
    setup_per_zone_wmarks(kernel)


def lowmem_reserve_ratio_sysctl_handler(kernel: Kernel, ratios: Sequence[int]) -> None:
    """``lowmem_reserve_ratio``: for each zone but the highest; a larger ratio is a smaller reserve."""
    if len(ratios) >= kernel.max_nr_zones:
        raise UsageError(f"lowmem_reserve_ratio: {len(ratios)} values, there are {kernel.max_nr_zones - 1}")
    for idx, ratio in enumerate(ratios):
        kernel.set_var("sysctl_lowmem_reserve_ratio", _within("lowmem_reserve_ratio", ratio, 0, (1 << 31) - 1), idx)
    setup_per_zone_lowmem_reserve(kernel)


def percpu_pagelist_fraction_sysctl_handler(kernel: Kernel, fraction: int) -> None:
    """``percpu_pagelist_fraction``: a CPU keeps up to this fraction of each zone at hand; 0 is the default."""
    if fraction:
        _within("percpu_pagelist_fraction", fraction, MIN_PERCPU_PAGELIST_FRACTION, (1 << 31) - 1)
    if fraction != kernel.var("percpu_pagelist_fraction"):
        kernel.set_var("percpu_pagelist_fraction", fraction)
        for zone in kernel.populated_zones():
            for cpu in kernel.possible_cpus():
                pageset = kernel.per_cpu_ptr(kernel.get(zone.at, "zone.pageset"), cpu)
                pageset_set_high_and_batch(kernel, zone, pageset)


def parse_numa_zonelist_order(order: str) -> int:
    """``__parse_numa_zonelist_order``: ``default``, ``node`` or ``zone``, or their first letters, small or large."""
    for name, value in ZONELIST_ORDERS.items():
        if order[:1].lower() == name[0] and (len(order) == 1 or order.lower() == name):
            return value
    raise UsageError(f"zonelist order {order[:20]!r}: there are {', '.join(ZONELIST_ORDERS)}")


def numa_zonelist_order_handler(kernel: Kernel, order: str) -> None:
    """``numa_zonelist_order``: ``default``, ``node`` or ``zone``; the zonelists are built anew if it changes."""
    value = parse_numa_zonelist_order(order)
    if kernel.numa and value != kernel.var("user_zonelist_order"):
        kernel.set_var("user_zonelist_order", value)
        build_all_zonelists(kernel)


def sysctl_min_unmapped_ratio_sysctl_handler(kernel: Kernel, percent: int) -> None:
    """``min_unmapped_ratio``: page cache that zone_reclaim leaves, percent of each zone."""
    kernel.set_var("sysctl_min_unmapped_ratio", _within("min_unmapped_ratio", percent, 0, 100))
    for zone in kernel.zones():
        managed = kernel.get(zone.at, "zone.managed_pages")
        kernel.set(zone.at, "zone.min_unmapped_pages", managed * percent // 100)


def sysctl_min_slab_ratio_sysctl_handler(kernel: Kernel, percent: int) -> None:
    """``min_slab_ratio``: slab pages that zone_reclaim leaves, percent of each zone."""
    kernel.set_var("sysctl_min_slab_ratio", _within("min_slab_ratio", percent, 0, 100))
    for zone in kernel.zones():
        managed = kernel.get(zone.at, "zone.managed_pages")
        kernel.set(zone.at, "zone.min_slab_pages", managed * percent // 100)


def _setting(name: str, low: int, high: int) -> Callable[[Kernel, Any], None]:
    """A file that is a variable and nothing else (kernel/sysctl.c)."""

    def handler(kernel: Kernel, value: int) -> None:
        kernel.set_var(f"sysctl_{name}", _within(name, value, low, high))

    return handler


def kmemcheck_sysctl_handler(kernel: Kernel, value: int) -> None:
    """``kmemcheck``, which is in /proc/sys/kernel: on, off, or on until the first error (2)."""
    if not kernel.has("page.shadow"):
        raise UsageError("kmemcheck: the kernel was built without it")
    kernel.set_var("kmemcheck_enabled", _within("kmemcheck", value, -(1 << 31), (1 << 31) - 1))


#: The files, by name.
SYSCTLS: dict[str, Callable[[Kernel, Any], None]] = {
    "kmemcheck": kmemcheck_sysctl_handler,
    "lowmem_reserve_ratio": lowmem_reserve_ratio_sysctl_handler,
    "min_free_kbytes": min_free_kbytes_sysctl_handler,
    "min_slab_ratio": sysctl_min_slab_ratio_sysctl_handler,
    "min_unmapped_ratio": sysctl_min_unmapped_ratio_sysctl_handler,
    "numa_zonelist_order": numa_zonelist_order_handler,
    "oom_dump_tasks": _setting("oom_dump_tasks", -(1 << 31), (1 << 31) - 1),
    "oom_kill_allocating_task": _setting("oom_kill_allocating_task", -(1 << 31), (1 << 31) - 1),
    "panic_on_oom": _setting("panic_on_oom", 0, 2),
    "percpu_pagelist_fraction": percpu_pagelist_fraction_sysctl_handler,
}


def _within(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise UsageError(f"{name} {value}: must be from {low} to {high}")
    return value
