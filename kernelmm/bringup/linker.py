# SPDX-License-Identifier: GPL-2.0-only
"""The image of our own kernel: where its variables are, and what is in it when it is loaded.

A kernel image is mapped at __START_KERNEL_map and lies in memory in one piece.  Ours has what memory
management needs of it: the names of zones, the variables, the initial page tables, and functions of
which nothing but the addresses matters.  Its parts follow arch/x86/kernel/vmlinux.lds.S: text, constants,
data, bss and brk; the per-CPU variables have addresses of their own, from 0 on, which are offsets into
each CPU's area.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.rounding import div_round_up, round_up
from kernelmm.bringup.variables import SCALARS, VARIABLES, initial_jiffies
from physmem.structs.layout import Layout
from physmem.structs.linux_4_0 import Config, layout
from physmem.symbols import Symbols

__all__ = [
    "EARLY_PGT_PAGES",
    "LOG_BUF_LEN",
    "LOW_START",
    "PHYSICAL_START",
    "RELEASE",
    "RESOURCE_NAMES",
    "LinkMap",
    "link",
    "linux_banner",
    "load",
]

#: What ``uname -s``, ``-n``, ``-r``, ``-v``, ``-m`` and ``domainname`` say.
RELEASE = "4.0.0-kernelmm"
_VERSION = "#1 SMP"

#: CONFIG_PHYSICAL_START: just above ZONE_DMA.
PHYSICAL_START = 16 << 20
#: The same of the kernel for machines with hardly more memory than that.
LOW_START = 2 << 20

PAGE_SIZE = 4096
#: Pages for the first page tables, while there is no allocator (INIT_PGT_BUF_SIZE).
EARLY_PGT_PAGES = 6
#: CONFIG_LOG_BUF_SHIFT is 17.
LOG_BUF_LEN = 1 << 17

_FUNCTIONS = ("free_compound_page", "free_huge_page")
_FUNCTION_SIZE = 16
#: ud2, for as long as a function is: none ever runs here.
_FUNCTION_BODY = b"\x0f\x0b" * (_FUNCTION_SIZE // 2)
#: The tables of the first mapping (arch/x86/kernel/head_64.S).
_TABLES = ("init_level4_pgt", "level3_kernel_pgt", "level2_kernel_pgt", "level2_fixmap_pgt")
#: By enum zone_type.
_ZONE_NAMES = {"ZONE_DMA": "DMA", "ZONE_DMA32": "DMA32", "ZONE_NORMAL": "Normal", "ZONE_MOVABLE": "Movable"}
_ZONELIST_ORDERS = ("Default", "Node", "Zone")
#: What resources are called, and the symbols of these strings.
RESOURCE_NAMES = {
    name: f"resource_name.{name.replace(' ', '_')}"
    for name in (
        *("PCI mem", "Kernel code", "Kernel data", "Kernel bss", "System RAM", "reserved", "ACPI Tables"),
        *("ACPI Non-volatile Storage", "Unusable memory"),
    )
}
_RESOURCES = ("iomem_resource", "code_resource", "data_resource", "bss_resource")
_ALIASES = {"swapper_pg_dir": "init_level4_pgt", "jiffies": "jiffies_64"}


@dataclass(frozen=True)
class LinkMap:
    """A linked kernel.

    :ivar layout: its structs
    :ivar start: physical address of its first byte, where it is loaded
    :ivar end: physical address behind its last byte (``_end``)
    :ivar symbols: address of every symbol; of a per-CPU variable its offset
    :ivar release: what ``uname -r`` says: with the memory model, if that is not today's, and whether it has kmemcheck
        (CONFIG_LOCALVERSION)
    """

    layout: Layout
    start: int
    end: int
    symbols: Symbols
    release: str = RELEASE


class _Cursor:
    """Where the next variable goes."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.symbols: dict[str, int] = {}

    def mark(self, name: str, align: int = 1) -> None:
        """Give a name to this place."""
        self.align(align)
        self.symbols[name] = self.address

    def place(self, name: str, size: int, align: int = 8) -> None:
        """Put something here."""
        self.mark(name, align)
        self.address += size

    def align(self, align: int) -> None:
        self.address = round_up(self.address, align)


@cache
def link(config: Config, start: int = PHYSICAL_START) -> LinkMap:
    """Give everything in the kernel its address.

    :param start: a multiple of 2 MiB; the page tables map the image by pages of that size
    """
    structs = layout(config)
    # VMCOREINFO does not tell memory models apart, nor what is in the last word of struct page.
    release = RELEASE if config.sparsemem_vmemmap else f"{RELEASE}-{config.model}"
    release += "-kmemcheck" if config.kmemcheck else ""
    here = _Cursor(structs.constant("__START_KERNEL_map") + start)
    here.mark("_text")
    here.mark("_stext")
    for name in _FUNCTIONS:
        here.place(name, _FUNCTION_SIZE, 16)
    here.mark("_etext")

    here.mark("__start_rodata", PAGE_SIZE)
    here.place("linux_banner", len(linux_banner(release)) + 2)
    for name in _zone_names(structs):
        here.place(f"zone_name.{name}", 8)
    here.place("zone_names", 8 * structs.constant("MAX_NR_ZONES"))
    here.place("zonelist_order_name", 8 * len(_ZONELIST_ORDERS))
    for text, name in RESOURCE_NAMES.items():
        here.place(name, len(text) + 1, 1)
    here.mark("__end_rodata")

    here.mark("_sdata", PAGE_SIZE)
    for name in _TABLES:
        here.place(name, PAGE_SIZE, PAGE_SIZE)
    here.place("log_buf", 8)
    here.place("log_buf_len", 4)
    own = [variable for variable in VARIABLES if variable.exists(structs)]
    plain = [variable for variable in own if not (variable.percpu and config.smp)]
    for variable in (v for v in plain if v.initial):
        here.place(variable.name, variable.size(structs), variable.align)
    for name in _RESOURCES:
        here.place(name, structs.sizeof("resource"))
    here.mark("_edata")

    here.mark("__bss_start", PAGE_SIZE)
    for variable in (v for v in plain if not v.initial):
        here.place(variable.name, variable.size(structs), variable.align)
    here.place("__log_buf", LOG_BUF_LEN)
    here.mark("__bss_stop", PAGE_SIZE)
    here.place("__brk_base", EARLY_PGT_PAGES * PAGE_SIZE, PAGE_SIZE)
    here.mark("__brk_limit")
    here.mark("_end")

    percpu = _Cursor(0)
    percpu.mark("__per_cpu_start")
    for variable in own:
        if variable not in plain:
            percpu.place(variable.name, variable.size(structs), max(8, variable.align))
    percpu.mark("__per_cpu_end", 64)

    symbols = here.symbols | (percpu.symbols if config.smp else {})
    symbols |= {alias: symbols[name] for alias, name in _ALIASES.items()}
    words = div_round_up(structs.constant("MAX_NUMNODES"), 64)
    symbols["node_online_map"] = symbols["node_states"] + 8 * words
    end = here.address - structs.constant("__START_KERNEL_map")
    return LinkMap(structs, start, end, Symbols(symbols, "link map"), release)


def load(kernel: Kernel, image: LinkMap) -> None:
    """Put the image into memory, as a boot loader does."""

    def write(name: str, data: bytes) -> None:
        kernel.ram.write(kernel.phys(image.symbols[name]), data)

    for name in _FUNCTIONS:
        write(name, _FUNCTION_BODY)
    write("linux_banner", linux_banner(image.release).encode() + b"\n")
    names = _zone_names(image.layout)
    for name in names:
        write(f"zone_name.{name}", name.encode())
    write("zone_names", struct.pack(f"<{len(names)}Q", *(image.symbols[f"zone_name.{name}"] for name in names)))
    write("zonelist_order_name", b"".join(name.encode().ljust(8, b"\0") for name in _ZONELIST_ORDERS))
    for text, name in RESOURCE_NAMES.items():
        write(name, text.encode())
    write("log_buf", struct.pack("<Q", image.symbols["__log_buf"]))
    write("log_buf_len", struct.pack("<I", LOG_BUF_LEN))
    # A kref of 2, then the strings, in 65 bytes each.
    utsname = ("Linux", "(none)", image.release, _VERSION, "x86_64", "(none)")
    write("init_uts_ns", struct.pack("<I", 2) + b"".join(s.encode().ljust(65, b"\0") for s in utsname))
    kernel.init_list_head(image.symbols["vmap_area_list"])
    for variable in VARIABLES:
        if variable.exists(image.layout) and variable.ctype in SCALARS:
            for index, value in enumerate(variable.initial):
                kernel.set_var(variable.name, value, index)
    hz = image.layout.constant("HZ")
    for index, value in enumerate((5 * hz, 10), 1 if kernel.smp else 0):
        kernel.set_var("nopage_rs", value, index)
        if "printk_ratelimit_state" in image.symbols:
            kernel.set_var("printk_ratelimit_state", value, index)
    kernel.set_var("jiffies_64", initial_jiffies(hz))


def linux_banner(release: str = RELEASE) -> str:
    """The first line of the kernel's log."""
    return f"Linux version {release} (kernelmm) {_VERSION}"


def _zone_names(structs: Layout) -> list[str]:
    zones = structs.enum("zone_type")
    return [text for name, text in _ZONE_NAMES.items() if name in zones]
