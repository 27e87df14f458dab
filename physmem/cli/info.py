# SPDX-License-Identifier: GPL-2.0-only
"""``physmem info``: what an image is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from physmem.cli.common import DumpOptions, TableOptions, dump_options, echo_table, example, hex64, table_options

if TYPE_CHECKING:
    from physmem.inspect.info import Info

__all__ = ["command"]

#: Ranges that are listed one by one.
_MAX_RANGES = 12

_ZONE_COLUMNS = ("start_pfn", "end_pfn", "spanned", "present", "managed", "free")


@click.command(epilog=example("physmem info A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@table_options
def command(image: str, options: DumpOptions, table: TableOptions) -> None:
    """Say what IMAGE is: its format, its kernel, how it is understood, what is in it and what is absent."""
    from physmem.inspect.info import info

    with options.open(image) as dump:
        found = info(dump)
    table.give(
        ("node", "zone", *_ZONE_COLUMNS),
        rows=lambda: (list(zone.values()) for zone in _zones(found)),
        as_json=lambda: _json(found),
        text=lambda: _text(found),
    )


def _zones(found: Info) -> list[dict[str, object]]:
    return [
        {
            "node": zone.node,
            "zone": zone.name,
            "start_pfn": zone.start_pfn,
            "end_pfn": zone.end_pfn - 1,
            "spanned": zone.spanned,
            "present": zone.present,
            "managed": zone.managed,
            "free": zone.vm_stat["NR_FREE_PAGES"],
        }
        for node in found.nodes
        for zone in node.zones
        if zone.populated
    ]


def _json(found: Info) -> dict[str, object]:
    return {
        "path": click.format_filename(found.path),
        "format": found.format,
        "release": found.release,
        "layout": found.layout,
        "symbols": found.symbols,
        "memory_model": found.memory_model,
        "page_offset": hex64(found.page_offset),
        "vmemmap": hex64(found.vmemmap),
        "page_table_levels": found.levels,
        "kaslr_offset": None if found.kaslr is None else hex64(found.kaslr),
        "facts": [dict(zip(("fact", "value", "source"), fact, strict=True)) for fact in found.facts],
        "phys_base": hex64(found.phys_base),
        "ranges": [[hex64(start), hex64(end)] for start, end in found.ranges],
        "bytes": found.ranges.total(),
        "pages": found.pages,
        "absent_pages": found.absent,
        "struct_pages": found.struct_pages,
        "absent_struct_pages": found.absent_struct_pages,
        "cpus": found.cpus,
        "nodes": [
            {"node": n.id, "start_pfn": n.start_pfn, "spanned": n.spanned, "present": n.present} for n in found.nodes
        ],
        "zones": _zones(found),
    }


def _text(found: Info) -> None:
    cpus = "unknown" if found.cpus is None else ", ".join(map(str, found.cpus))
    for name, value in (
        ("image", click.format_filename(found.path)),
        ("format", found.format),
        ("kernel", found.release or "unknown"),
        ("layout", found.layout),
        ("symbols", found.symbols),
        ("memory model", found.memory_model),
        ("direct map", f"{found.page_offset:016x}, phys_base {found.phys_base:#x}"),
        ("page array", f"{found.vmemmap:016x}, page tables of {found.levels} levels"),
        ("CPUs online", cpus),
        ("nodes", ", ".join(str(node.id) for node in found.nodes)),
        ("pages", f"{found.pages}, of which {found.absent} are absent from the image"),
        ("struct pages", f"{found.struct_pages}, of which {found.absent_struct_pages} are absent from the image"),
        ("memory", f"{found.ranges.total()} bytes in {len(found.ranges)} ranges"),
    ):
        click.echo(f"{name + ':':14} {value}")
    for start, end in list(found.ranges)[:_MAX_RANGES]:
        click.echo(f"{'':14} {start:#011x}-{end - 1:#011x}")
    if len(found.ranges) > _MAX_RANGES:
        click.echo(f"{'':14} and {len(found.ranges) - _MAX_RANGES} more (--json lists all)")
    click.echo()
    zones = _zones(found)
    rows = [[zone[column] for column in ("node", "zone", *_ZONE_COLUMNS)] for zone in zones]
    echo_table(("node", "zone", *_ZONE_COLUMNS), rows, right=("node", *_ZONE_COLUMNS))
    click.echo()
    echo_table(("fact", "value", "source"), found.facts)
