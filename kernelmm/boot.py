# SPDX-License-Identifier: GPL-2.0-only
"""Booting a machine of our own: every step of bring-up, in the order of Linux 4.0.

The order is that of ``setup_arch`` (arch/x86/kernel/setup.c), ``start_kernel`` (init/main.c) and the
initcalls.  What is left out has no part in memory management, or takes memory that nobody looks at: a
real kernel has some megabytes less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kernelmm import gfp
from kernelmm.attach import come_alive, numbers, task_stack
from kernelmm.bringup import host, pagesets, tables, zonelists
from kernelmm.bringup.cmdline import parse_early_param
from kernelmm.bringup.deferred import DeferredRam
from kernelmm.bringup.kernel import N_CPU, N_MEMORY, N_ONLINE, N_POSSIBLE, Kernel, Zone
from kernelmm.bringup.linker import LOW_START, PHYSICAL_START, LinkMap, link, linux_banner, load
from kernelmm.bringup.live import LiveImage
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.meminit import mem_init_print_info
from kernelmm.bringup.memmap import memmap_init_zone
from kernelmm.bringup.printk import printk
from kernelmm.bringup.release import dma_contiguous_reserve, free_all_bootmem, init_cma_reserved_areas
from kernelmm.bringup.resource import e820_reserve_resources
from kernelmm.bringup.rounding import div_round_up, round_down, round_up
from kernelmm.bringup.sections import sparse_init, sparse_memory_present_with_active_regions
from kernelmm.bringup.sysctl import ZONELIST_ORDERS
from kernelmm.bringup.variables import KERNEL_STACK_OFFSET, THREAD_SIZE
from kernelmm.bringup.vmcoreinfo import crash_save_vmcoreinfo_init, vmcoreinfo
from kernelmm.bringup.watermarks import init_per_zone_wmark_min
from kernelmm.bringup.zones import memblock_find_dma_reserve, zone_sizes_init
from kernelmm.core.mm import Mm
from kernelmm.debug.aids import (
    install,
    invoke_init_callbacks,
    invoke_need_callbacks,
    page_ext_init,
    page_ext_init_flatmem,
)
from kernelmm.debug.options import NO_DEBUG, Debug, early_params
from kernelmm.pressure import kswapd, owners
from physmem.dump import Dump
from physmem.e820 import MemoryMap
from physmem.errors import UsageError
from physmem.image import VmcoreInfo
from physmem.image.vmcoreinfo import encode
from physmem.memory_model import MemoryModel
from physmem.ram import Ram
from physmem.ranges import Ranges
from physmem.structs.linux_4_0 import NUMA, Config

__all__ = ["BootConfig", "Booted", "boot"]

PAGE_SIZE = 4096
_BIOS = (640 << 10, 1 << 20)
#: What firmware is known to scribble over (CONFIG_X86_RESERVE_LOW).
_RESERVE_LOW = 64 << 10
#: A node with less memory than this is none (NODE_MIN_SIZE).
_NODE_MIN_SIZE = 4 << 20


@dataclass(frozen=True)
class BootConfig:
    """The machine, and the kernel's command line.

    :ivar memory: the firmware's memory map, with its nodes
    :ivar cpus: number of CPUs
    :ivar kernel: the kernel's build
    :ivar mem: RAM at and above this physical address is not used (``mem=``); 0: all is
    :ivar kernelcore: bytes for the kernel, the rest of each node becomes ZONE_MOVABLE (``kernelcore=``); 0: all
    :ivar movablecore: bytes for ZONE_MOVABLE (``movablecore=``)
    :ivar cma: bytes for contiguous allocations (``cma=``)
    :ivar cma_base: the lowest physical address of these; with ``cma_limit`` right behind them, their very address
    :ivar cma_limit: the highest they end at; 0: anywhere
    :ivar reserved: physical ranges to leave alone
    :ivar zonelist_order: ``default``, ``node`` or ``zone`` (``numa_zonelist_order=``)
    :ivar fail_page_alloc: allocations to fail from boot on (``fail_page_alloc=interval,probability,space,times``)
    :ivar debug: debugging aids of the page allocator
    :ivar gbpages: the CPU has pages of 1 GiB
    :ivar hashdist: spread large hash tables over the nodes (``hashdist=``); told to the kernel, which has none here
    :ivar deferred: write a page's ``struct page`` when its block is first used, not at boot
    :ivar cmdline: the kernel's command line, which overrides the above (:mod:`kernelmm.bringup.cmdline`)
    """

    memory: MemoryMap
    cpus: int = 1
    kernel: Config = NUMA
    mem: int = 0
    kernelcore: int = 0
    movablecore: int = 0
    cma: int = 0
    cma_base: int = 0
    cma_limit: int = 0
    reserved: tuple[tuple[int, int], ...] = ()
    zonelist_order: str = "default"
    fail_page_alloc: str = ""
    debug: Debug = NO_DEBUG
    gbpages: bool = True
    hashdist: int = 1
    deferred: bool = True
    cmdline: str = ""


@dataclass(frozen=True)
class Booted:
    """A machine that is up.

    :ivar kernel: its structures by name
    :ivar mm: what the functions of :mod:`kernelmm.core` are given first
    :ivar dump: its memory as an inspector sees it, always up to date
    """

    kernel: Kernel
    mm: Mm
    dump: Dump


def boot(config: BootConfig) -> Booted:
    """Bring a machine up until its pages are free.

    :raises UsageError: there cannot be such a machine, or it has too little memory to boot
    """
    config, unknown = parse_early_param(config, config.cmdline)
    config = replace(config, kernel=config.debug.build(config.kernel))
    _check(config)
    if config.mem:
        config = replace(config, memory=config.memory.limited(config.mem), mem=0)
    _check_nodes(config)
    frames = whole_frames(config.memory)
    if not config.deferred or config.debug:
        # Who debugs looks at each page that is freed.
        host.check(frames.total())
    image = link(config.kernel, _load_address(frames, config.kernel))
    ram = (DeferredRam if config.deferred else Ram)(frames.end, frames)
    kernel = Kernel(ram, image.layout, image.symbols)
    load(kernel, image)
    tables.setup_kernel_mapping(kernel, image.start, image.end)
    memblock = Memblock()
    printk(kernel, linux_banner(image.release))
    if config.cmdline:
        printk(kernel, f"Command line: {config.cmdline}")
    for region in config.memory.regions:
        printk(kernel, f"BIOS-e820: {region}")
    setup_arch(kernel, memblock, config, image)
    dump = start_kernel(kernel, memblock, config, image)
    if unknown:
        printk(kernel, f"Unknown kernel command line parameters {' '.join(unknown)!r}, passed to user space.")
    return Booted(kernel, kernel.mm, dump)


def _check(config: BootConfig) -> None:
    for name in ("mem", "kernelcore", "movablecore", "cma", "cma_base", "cma_limit"):
        if getattr(config, name) < 0:
            raise UsageError(f"{name}={getattr(config, name)}: less than nothing")
    if config.zonelist_order not in ZONELIST_ORDERS:
        raise UsageError(f"zonelist order {config.zonelist_order!r}: there are {', '.join(ZONELIST_ORDERS)}")
    most, nodes = config.kernel.nr_cpus, config.kernel.max_numnodes
    if not 1 <= config.cpus <= most:
        raise UsageError(f"{config.cpus} CPUs: the kernel is built for 1 to {most}")
    if len(config.memory.nodes) > nodes:
        raise UsageError(f"{len(config.memory.nodes)} nodes: the kernel is built for at most {nodes}")


def _check_nodes(config: BootConfig) -> None:
    online = online_nodes(config.memory)
    for nid, node in enumerate(config.memory.nodes):
        size = (config.memory.usable & node).total()
        if size and nid not in online:
            # Linux 4.0 would free it to a zone that it is not in.
            raise UsageError(f"node {nid} has {size:#x} bytes of memory: a node has at least {_NODE_MIN_SIZE:#x}")


def online_nodes(memory: MemoryMap) -> list[int]:
    """The nodes that ``numa_register_memblks`` brings up: whose addresses, as far as memory goes, are not too few.

    Whether there is memory at these addresses does not matter.
    """
    if len(memory.nodes) == 1:
        return [0]
    below = Ranges([(0, round_down(memory.end, PAGE_SIZE))])
    spans = ((nid, node & below) for nid, node in enumerate(memory.nodes))
    return [nid for nid, near in spans if near and near.end - min(near)[0] >= _NODE_MIN_SIZE]


def whole_frames(memory: MemoryMap) -> Ranges:
    """The page frames that are RAM throughout, as physical ranges."""
    rounded = ((round_up(start, PAGE_SIZE), round_down(end, PAGE_SIZE)) for start, end in memory.usable)
    return Ranges((start, end) for start, end in rounded if start < end)


def _load_address(frames: Ranges, config: Config) -> int:
    """Where the kernel is loaded: at 16 MiB, or at 2 MiB if there is no memory there."""
    for start in (PHYSICAL_START, LOW_START):
        if frames.covers(start, link(config, start).end):
            return start
    raise UsageError("too little memory to boot: the kernel image fits neither at 16 MiB nor at 2 MiB")


# -- setup_arch -------------------------------------------------------------------


def setup_arch(kernel: Kernel, memblock: Memblock, config: BootConfig, image: LinkMap) -> None:
    """``setup_arch``: from the memory map to empty zones."""
    early_params(kernel, config.debug)
    memblock.reserve(image.start, image.end)
    # e820 and memblock_x86_fill: page 0 and the BIOS are not to be used, nor what is not a whole page.
    usable = kernel.ram.ranges - Ranges([(0, PAGE_SIZE), _BIOS])
    kernel.set_var("max_pfn", usable.end // PAGE_SIZE)
    kernel.set_var("max_low_pfn", usable.end // PAGE_SIZE)
    for start, end in usable:
        memblock.add(start, end)
    memblock.reserve(0, _RESERVE_LOW)
    for start, end in config.reserved:
        memblock.reserve(start, end)
    largest = 12 if config.kernel.small_pages else 30 if config.gbpages else 21
    tables.init_mem_mapping(kernel, memblock, usable.end, largest)
    memblock.current_limit = usable.end
    initmem_init(kernel, memblock, config)
    if config.cma:
        dma_contiguous_reserve(kernel, memblock, config.cma, config.cma_base, config.cma_limit)
    memblock_find_dma_reserve(kernel, memblock)
    paging_init(kernel, memblock, config)
    e820_reserve_resources(kernel, memblock, config.memory)


def initmem_init(kernel: Kernel, memblock: Memblock, config: BootConfig) -> None:
    """``initmem_init``: which memory is whose node's; a ``struct pglist_data`` for each node, and the distances."""
    nodes = config.memory.nodes
    online = online_nodes(config.memory)
    for nid, node in enumerate(nodes):
        for start, end in node:
            memblock.set_node(start, end, nid)
        kernel.node_set_state(nid, N_POSSIBLE)
    for nid in online:
        kernel.node_set_state(nid, N_ONLINE)
    if not kernel.numa:
        return
    table = b"".join(bytes(row) for row in config.memory.distances)
    at = memblock.alloc(len(table), PAGE_SIZE, what="the table of distances")
    kernel.ram.write(at, table)
    kernel.set_var("numa_distance", kernel.va(at))
    kernel.set_var("numa_distance_cnt", len(nodes))
    size = round_up(kernel.layout.sizeof("pglist_data"), PAGE_SIZE)
    for nid in online:
        pgdat = memblock.alloc(size, nid=nid, what=f"node {nid}")
        kernel.set_var("node_data", kernel.va(pgdat), nid)
    kernel.set_var("nr_online_nodes", len(online))


def paging_init(kernel: Kernel, memblock: Memblock, config: BootConfig) -> None:
    """``paging_init``: sections with their page array, and zones."""
    if kernel.model is not MemoryModel.FLATMEM:
        sparse_memory_present_with_active_regions(kernel, memblock)
        sparse_init(kernel, memblock)
    kernel.set_var("required_kernelcore", config.kernelcore // PAGE_SIZE)
    kernel.set_var("required_movablecore", config.movablecore // PAGE_SIZE)

    def init_memmap(zone: Zone, start_pfn: int, size: int) -> None:
        memmap_init_zone(kernel, memblock, zone, start_pfn, size)

    zone_sizes_init(kernel, memblock, init_memmap)


# -- start_kernel -----------------------------------------------------------------


def start_kernel(kernel: Kernel, memblock: Memblock, config: BootConfig, image: LinkMap) -> Dump:
    """``start_kernel``, from ``setup_per_cpu_areas`` on."""
    # As the kernel does with CPUs of which the firmware tells no node: they take turns.
    nodes = kernel.nodes()
    node_of = [nodes[cpu % len(nodes)] for cpu in range(config.cpus)]
    set_cpus(kernel, config.cpus, ("possible", "present"))
    set_cpus(kernel, 1, ("online",))
    pagesets.setup_per_cpu_areas(kernel, memblock, node_of)
    top = kernel.symbols["init_thread_union"] + THREAD_SIZE - KERNEL_STACK_OFFSET
    kernel.set_var("kernel_stack", top, cpu=0)
    prandom_init(kernel)
    if kernel.numa:
        kernel.set_var("user_zonelist_order", ZONELIST_ORDERS[config.zonelist_order])
    zonelists.build_all_zonelists(kernel)
    order = "Node" if kernel.var("current_zonelist_order") == zonelists.ZONELIST_ORDER_NODE else "Zone"
    grouping = "off" if kernel.var("page_group_by_mobility_disabled") else "on"
    built = f"Built {len(kernel.nodes())} zonelists in {order} order, mobility grouping {grouping}"
    printk(kernel, f"{built}.  Total pages: {kernel.var('vm_total_pages')}")
    if kernel.numa:
        kernel.set_var("hashdist", config.hashdist)
    page_ext_init_flatmem(kernel, memblock)
    memblock.store(kernel)
    dump = start_mm(kernel, config.cpus, image.release)
    install(kernel)
    if kernel.model is MemoryModel.FLATMEM and invoke_need_callbacks(kernel):
        invoke_init_callbacks(kernel)
    free_all_bootmem(kernel, memblock)
    printk(kernel, mem_init_print_info(kernel))
    page_ext_init(kernel)
    pagesets.setup_per_cpu_pageset(kernel)
    kernel_init(kernel, config, node_of)
    return dump


def kernel_init(kernel: Kernel, config: BootConfig, node_of: list[int]) -> None:
    """``kernel_init``: the other CPUs, and the initcalls."""
    # From now on anybody may wait and do I/O.
    kernel.set_var("gfp_allowed_mask", gfp.__GFP_BITS_MASK)
    cpus = config.cpus
    if kernel.mm.kmemcheck:
        cpus = kmemcheck_init(kernel, cpus)
    set_cpus(kernel, cpus, ("online",))
    for cpu, nid in enumerate(node_of[:cpus]):
        kernel.node_set_state(nid, N_CPU)
        if kernel.numa:
            kernel.set_var("node_to_cpumask_map", kernel.var("node_to_cpumask_map", nid) | 1 << cpu, nid)
    if config.cma:
        init_cma_reserved_areas(kernel)
    init_per_zone_wmark_min(kernel)
    for nid in kernel.nodes(N_MEMORY):
        kswapd.kswapd_run(kernel.mm, nid)
    if config.fail_page_alloc:
        from kernelmm.study.faults import setup_fail_page_alloc

        setup_fail_page_alloc(kernel.mm, config.fail_page_alloc)


def kmemcheck_init(kernel: Kernel, cpus: int) -> int:
    """``kmemcheck_init``: the CPUs that may be brought up: one, for a page is shown to all of them or none."""
    if cpus > 1:
        printk(kernel, "kmemcheck: Limiting number of CPUs to 1.")
    printk(kernel, "kmemcheck: Initialized")
    return 1


def set_cpus(kernel: Kernel, count: int, masks: tuple[str, ...]) -> None:
    """The first ``count`` CPUs are possible, present, online."""
    if kernel.smp:
        kernel.set_var("nr_cpu_ids", max(count, kernel.var("nr_cpu_ids")))
    for mask in masks:
        for word in range(div_round_up(count, 64)):
            kernel.set_var(f"cpu_{mask}_bits", (1 << min(64, count - 64 * word)) - 1, word)


def prandom_init(kernel: Kernel) -> None:
    """``prandom_seed_early``: a generator of random numbers for each CPU, seeded by its number alone."""
    for cpu in kernel.possible_cpus():
        value = kernel.var("jiffies_64") + cpu
        for i, least in enumerate((2, 8, 16, 128)):
            value = value * 69069 & 0xFFFFFFFF
            value = value + least if value < least else value
            kernel.set_var("net_rand_state", value, i, cpu)


def start_mm(kernel: Kernel, cpus: int, release: str) -> Dump:
    """The page array and the zones are there: from now on the allocator's core can run."""
    # Since 4.10 Linux says phys_base itself, too; drgn counts on it.
    said = vmcoreinfo(kernel.layout, kernel.symbols, release) | {"NUMBER(phys_base)": str(kernel.phys_base)}
    text = encode(said)
    crash_save_vmcoreinfo_init(kernel, text)
    image = LiveImage(kernel.ram, cpus, text)
    dump = Dump(image, VmcoreInfo(image.vmcoreinfo), kernel.layout, kernel.symbols, kernel.ram)
    mm = Mm(kernel.ram, dump.space(kernel.ram), numbers(dump))
    mm.stack = task_stack(mm, dump)
    come_alive(mm, dump, kernel.symbols["init_thread_union"] + owners.FIRST_TASK)
    mm.deferred = kernel.ram if isinstance(kernel.ram, DeferredRam) else None
    kernel.start(mm)
    return dump
