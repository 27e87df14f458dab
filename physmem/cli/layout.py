# SPDX-License-Identifier: GPL-2.0-only
"""``physmem layout``: write down how a kernel's structs are laid out, and where its variables are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from physmem.cli.common import DumpOptions, dump_options, echo_json, example, hex64, json_option
from physmem.image.output import replacing

if TYPE_CHECKING:
    from physmem.dump import Dump
    from physmem.structs.layout import Layout

__all__ = ["command"]

#: Of a kernel that tells everything, what reading its memory needs.
_STRUCTS = """
    page folio slab ptdesc zone pglist_data free_area per_cpu_pages per_cpu_zonestat per_cpu_nodestat per_cpu_pageset
    mem_section mem_section_usage list_head zonelist zoneref lruvec hstate vm_event_state uts_namespace new_utsname
    resource cpumask
"""
_ENUMS = """
    pageflags pagetype zone_type zone_stat_item node_stat_item numa_stat_item migratetype lru_list zone_flags
    pgdat_flags zone_watermarks vm_event_item pageblock_bits compound_dtor_id node_states
"""
_SYMBOLS = """
    _text _stext _etext _sdata _edata _end init_uts_ns swapper_pg_dir init_top_pgt init_level4_pgt phys_base
    page_offset_base vmemmap_base vmalloc_base mem_section node_data contig_page_data mem_map max_pfn nr_cpu_ids
    __per_cpu_offset __cpu_online_mask cpu_online_bits vm_stat vm_zone_stat vm_node_stat vm_numa_stat vm_numa_event
    vm_event_states zero_pfn zero_page_pfn empty_zero_page huge_zero_pfn huge_zero_page huge_zero_folio
    transparent_hugepage_flags hugetlb_max_hstate free_huge_page iomem_resource boot_pageset boot_zonestats
    nr_swap_pages
"""


@click.command(epilog=example("physmem layout A.vmcore.xz -o layout.json"))
@click.argument("image", type=click.Path())
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Where to write it; default: standard output.")
@dump_options
@json_option
def command(image: str, output: str | None, options: DumpOptions, as_json: bool) -> None:
    """Write the struct layouts, constants and symbols by which IMAGE is understood, or those of a vmlinux.

    The file is for --layout and for --symbols of images that say too little themselves.  Of a kernel that carries all
    its types and symbols, those are written that its memory management needs.  With -o, --json says what was written.
    """
    from physmem.vmlinux import Vmlinux, is_vmlinux

    if is_vmlinux(image):
        linked = Vmlinux(image)
        layout, symbols = _needed(linked.layout), _needed_symbols(linked.symbols)
        symbols_source = linked.path
    else:
        with options.open(image) as dump:
            layout, symbols = _found(dump)
            symbols_source = dump.symbols.source
    content = json.loads(layout.to_json())
    content["addresses"] = {name: hex64(address) for name, address in sorted(symbols.items())}
    summary = {
        "structs": len(layout.structs),
        "enums": len(layout.enums),
        "constants": len(layout.constants),
        "symbols": len(symbols),
        "layout_source": layout.source,
        "symbols_source": symbols_source,
    }
    if output is None:
        echo_json(content)
        return
    with replacing(output) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")
    if as_json:
        echo_json(summary)
    else:
        click.echo(
            f"{click.format_filename(output)}: {summary['structs']} structs, {summary['enums']} enums,"
            f" {summary['constants']} constants, {summary['symbols']} symbols"
        )


def _found(dump: Dump) -> tuple[Layout, dict[str, int]]:
    """The layout and the symbols that are written."""
    from physmem.kallsyms import KernelSymbols

    symbols = dump.symbols
    return _needed(dump.layout), _needed_symbols(symbols) if isinstance(symbols, KernelSymbols) else dict(symbols)


def _needed(layout: Layout) -> Layout:
    """Of a layout that is read piece by piece, what memory management needs."""
    from physmem.structs.btf_layout import LazyLayout
    from physmem.structs.layout import Layout

    if not isinstance(layout, LazyLayout):
        return layout
    structs = [layout.structs[tag] for tag in _STRUCTS.split() if tag in layout.structs]
    enums = {name: layout.enums[name] for name in _ENUMS.split() if name in layout.enums}
    return Layout.of(structs, enums, dict(layout.constants), layout.source)


def _needed_symbols(symbols: Mapping[str, int]) -> dict[str, int]:
    return {name: symbols[name] for name in _SYMBOLS.split() if name in symbols}
