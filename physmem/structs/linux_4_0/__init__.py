# SPDX-License-Identifier: GPL-2.0-only
"""The layout of Linux 4.0 on x86-64, for any configuration.

Each struct is a function of the configuration that returns a construct, with
the kernel's name (a struct that no configuration changes is the construct
itself)::

    >>> from physmem.structs.linux_4_0 import NUMA, page
    >>> page(NUMA).parse(bytes(64))._count.counter
    0

:func:`layout` derives everything else from them.
"""

from __future__ import annotations

from functools import cache

from physmem.structs.cdecl import Aggregate
from physmem.structs.compiler import compile_struct
from physmem.structs.layout import Layout
from physmem.structs.linux_4_0.basic import arch_spinlock, list_head, raw_spinlock, spinlock, wait_queue_head
from physmem.structs.linux_4_0.config import CONFIGS, MODELS, NUMA, SMP, UP, Config
from physmem.structs.linux_4_0.constants import constants
from physmem.structs.linux_4_0.enums import ENUMS
from physmem.structs.linux_4_0.mem_section import mem_section
from physmem.structs.linux_4_0.memblock import cma, memblock, memblock_region, memblock_type
from physmem.structs.linux_4_0.page import page
from physmem.structs.linux_4_0.page_ext import page_ext
from physmem.structs.linux_4_0.pglist_data import pglist_data, zonelist, zonelist_cache, zoneref
from physmem.structs.linux_4_0.resource import resource
from physmem.structs.linux_4_0.vmstat import vm_event_state
from physmem.structs.linux_4_0.zone import free_area, lruvec, per_cpu_pages, per_cpu_pageset, zone, zone_reclaim_stat

__all__ = ["CONFIGS", "MODELS", "NUMA", "SMP", "UP", "Config", "differs", "layout", "page", "recognise", "structs"]


@cache
def structs(c: Config) -> dict[str, Aggregate]:
    """Every declared struct that a kernel of this configuration has, by tag."""
    declared = [
        page(c),
        zone(c),
        pglist_data(c),
        free_area(c),
        list_head,
        per_cpu_pageset(c),
        per_cpu_pages(c),
        zonelist(c),
        zoneref,
        *([zonelist_cache(c)] if c.numa else []),
        *([mem_section(c)] if c.sparsemem else []),
        *([page_ext(c)] if c.page_extension else []),
        lruvec(c),
        zone_reclaim_stat,
        vm_event_state(c),
        wait_queue_head(c),
        spinlock(c),
        raw_spinlock(c),
        *([arch_spinlock(c)] if c.smp else []),
        memblock,
        memblock_type,
        memblock_region,
        *([cma(c)] if c.cma else []),
        resource,
    ]
    return {str(s.tag): s for s in declared}


@cache
def layout(c: Config) -> Layout:
    """The layout of a configuration."""
    declared = structs(c)
    sizes = {tag: s.size for tag, s in declared.items()}
    return Layout.of(
        [compile_struct(s) for s in declared.values()],
        {name: values for name, enum in ENUMS.items() if (values := enum(c))},
        constants(c, sizes),
        f"built in: {c.name}",
    )


def differs(declared: Layout, linked: Layout) -> str:
    """The first size, field or enumerator in which a declared layout is not a kernel's own; "" if there is none.

    What the kernel's has not is passed over: types that nothing in it uses, enums without a name.
    """
    for tag, struct in declared.structs.items():
        if not linked.has(tag):
            continue
        if linked.sizeof(tag) != struct.size:
            return f"sizeof({tag}) is {linked.sizeof(tag)}"
        for field in struct.fields:
            if not linked.has(tag, field) or linked.offsetof(tag, field) != declared.offsetof(tag, field):
                return f"{tag}.{field} is elsewhere"
    if linked.has("page", "shadow") and not declared.has("page", "shadow"):
        # Where struct page is padded, without CONFIG_KMEMCHECK.
        return "page.shadow is there"
    for name, values in declared.enums.items():
        own = linked.enums.get(name, values)
        for enumerator, value in values.items():
            if own.get(enumerator) != value:
                return f"{enumerator} is {own.get(enumerator, 'unknown')}"
    return ""


def recognise(linked: Layout, vmemmap: bool) -> Layout | None:
    """The layout, with all constants, of the configuration that has a kernel's own structs and enums.

    Debug information tells structs and enums, but no macros: what it leaves open is looked up here.

    :param vmemmap: whether the kernel has a virtual memory map, by which alone some configurations differ
    :returns: None if there is no such configuration
    """
    for config in CONFIGS.values():
        if config.sparsemem_vmemmap == vmemmap and not differs(layout(config), linked):
            return layout(config)
    return None
