# SPDX-License-Identifier: GPL-2.0-only
"""VMCOREINFO: what the kernel says of itself to those who read its memory when it is dead.

The lines and their order are those of ``crash_save_vmcoreinfo_init`` (kernel/kexec.c), with what printk
(``log_buf_kexec_setup``) and x86-64 (``arch_crash_save_vmcoreinfo``) add.
"""

from __future__ import annotations

from collections.abc import Iterator

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.rounding import div_round_up
from physmem.image import notes
from physmem.structs.layout import Layout
from physmem.symbols import Symbols

__all__ = ["crash_save_vmcoreinfo_init", "vmcoreinfo"]

PAGE_SIZE = 4096

# struct vmap_area and struct printk_log are not declared here otherwise.
_VMAP_AREA = {"va_start": 0, "list": 48}
_PRINTK_LOG = {"ts_nsec": 0, "len": 8, "text_len": 10, "dict_len": 12}
_SIZEOF_PRINTK_LOG = 16


def vmcoreinfo(layout: Layout, symbols: Symbols, release: str) -> dict[str, str]:
    """The entries, for a kernel with this layout and these symbols, where KASLR has not moved it.

    :param release: ``uname -r``
    """
    entries = {"OSRELEASE": release, "PAGESIZE": str(PAGE_SIZE)}
    entries |= {f"SYMBOL({name})": f"{symbols[name]:x}" for name in _symbols(layout)[0]}
    entries |= dict(_structs(layout))
    logs = ("log_buf", "log_buf_len", "log_first_idx", "log_next_idx")
    entries |= {f"SYMBOL({name})": f"{symbols[name]:x}" for name in logs}
    entries["SIZE(printk_log)"] = str(_SIZEOF_PRINTK_LOG)
    entries |= {f"OFFSET(printk_log.{name})": str(offset) for name, offset in _PRINTK_LOG.items()}
    entries["LENGTH(free_area.free_list)"] = str(layout.enumerator("MIGRATE_TYPES"))
    entries |= dict(_numbers(layout))
    entries |= {f"SYMBOL({name})": f"{symbols[name]:x}" for name in _symbols(layout)[1]}
    if layout.has("zone", "node"):
        entries["LENGTH(node_data)"] = str(layout.constant("MAX_NUMNODES"))
    return entries | {"KERNELOFFSET": "0"}


def _symbols(layout: Layout) -> tuple[list[str], list[str]]:
    """Symbols at the beginning, and at the end."""
    head = ["init_uts_ns", "node_online_map", "swapper_pg_dir", "_stext", "vmap_area_list"]
    if not layout.has("zone", "node"):
        head += ["mem_map", "contig_page_data"]
    if layout.has("mem_section"):
        head.append("mem_section")
    huge = ["free_huge_page"] if "PG_head" in layout.enum("pageflags") else []
    tail = [*huge, "phys_base", "init_level4_pgt"]
    return head, [*tail, "node_data"] if layout.has("zone", "node") else tail


def _structs(layout: Layout) -> Iterator[tuple[str, str]]:
    def offsets(tag: str, *names: str) -> Iterator[tuple[str, str]]:
        for name in names:
            yield f"OFFSET({tag}.{name})", str(layout.offsetof(tag, name))

    sparse = layout.has("mem_section")
    if sparse:
        yield "LENGTH(mem_section)", str(layout.constant("NR_SECTION_ROOTS"))
        yield "SIZE(mem_section)", str(layout.sizeof("mem_section"))
        yield from offsets("mem_section", "section_mem_map")
    for tag in ("page", "pglist_data", "zone", "free_area", "list_head"):
        yield f"SIZE({tag})", str(layout.sizeof(tag))
    yield "SIZE(nodemask_t)", str(div_round_up(layout.constant("MAX_NUMNODES"), 64) * 8)
    yield from offsets("page", "flags", "_count", "mapping", "lru", "_mapcount", "private")
    flat = () if sparse else ("node_mem_map",)
    yield from offsets(
        "pglist_data", "node_zones", "nr_zones", *flat, "node_start_pfn", "node_spanned_pages", "node_id"
    )
    yield from offsets("zone", "free_area", "vm_stat", "spanned_pages")
    yield from offsets("free_area", "free_list")
    yield from offsets("list_head", "next", "prev")
    for name, offset in _VMAP_AREA.items():
        yield f"OFFSET(vmap_area.{name})", str(offset)
    yield "LENGTH(zone.free_area)", str(layout.constant("MAX_ORDER"))


def _numbers(layout: Layout) -> Iterator[tuple[str, str]]:
    flags = layout.enum("pageflags")
    yield "NUMBER(NR_FREE_PAGES)", str(layout.enumerator("NR_FREE_PAGES"))
    for name in ("PG_lru", "PG_private", "PG_swapcache", "PG_slab"):
        yield f"NUMBER({name})", str(flags[name])
    if "PG_hwpoison" in flags:
        yield "NUMBER(PG_hwpoison)", str(flags["PG_hwpoison"])
    yield "NUMBER(PG_head_mask)", str(1 << flags["PG_head"])
    value = layout.constant("PAGE_BUDDY_MAPCOUNT_VALUE", signed=True)
    yield "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", str(value)


def crash_save_vmcoreinfo_init(kernel: Kernel, text: bytes) -> None:
    """Leave the text in memory, and the note around it that a dump will have."""
    kernel.ram.write(kernel.phys(kernel.symbols["vmcoreinfo_data"]), text)
    kernel.set_var("vmcoreinfo_size", len(text))
    note = notes.encode([notes.vmcoreinfo_note(text)])
    kernel.ram.write(kernel.phys(kernel.symbols["vmcoreinfo_note"]), note)
