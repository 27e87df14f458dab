# SPDX-License-Identifier: GPL-2.0-only
"""``physmem zoneinfo``: /proc/zoneinfo of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from physmem.cli.common import DumpOptions, TableOptions, dump_options, example, table_options

if TYPE_CHECKING:
    from physmem.dump import Dump
    from physmem.inspect.zones import Node, Zone

__all__ = ["command"]


@click.command(epilog=example("physmem zoneinfo A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@table_options
def command(image: str, options: DumpOptions, table: TableOptions) -> None:
    """Print what /proc/zoneinfo would: watermarks, statistics and pagesets of each zone of IMAGE.

    A question mark stands for a value that the image does not tell.
    """
    from physmem.inspect.zoneinfo import zoneinfo_file
    from physmem.inspect.zones import nodes

    with options.open(image) as dump:
        table.give(
            ("node", "zone", "item", "value"),
            rows=lambda: _rows(nodes(dump)),
            as_json=lambda: [_json(dump, node, zone) for node in nodes(dump) for zone in node.zones if zone.populated],
            text=lambda: zoneinfo_file(dump),
        )


def _json(dump: Dump, node: Node, zone: Zone) -> dict[str, object]:
    from physmem.inspect.zoneinfo import all_unreclaimable, node_unreclaimable, stat_name
    from physmem.inspect.zones import pagesets

    old = "NR_PAGES_SCANNED" in zone.vm_stat
    return {
        "node": zone.node,
        "zone": zone.name,
        "start_pfn": zone.start_pfn,
        "spanned": zone.spanned,
        "present": zone.present,
        "managed": zone.managed,
        "watermark": dict(zip(("min", "low", "high", "promo"), zone.watermark, strict=False)),
        "boost": zone.boost,
        "cma": zone.cma,
        "reserved_highatomic": zone.reserved_highatomic,
        "free_highatomic": zone.free_highatomic,
        "protection": zone.lowmem_reserve,
        "flags": zone.flags,
        "inactive_ratio": zone.inactive_ratio,
        "all_unreclaimable": all_unreclaimable(dump, zone) if old else None,
        "node_unreclaimable": node_unreclaimable(node),
        "node_stat": {stat_name(item): value for item, value in node.vm_stat.items()},
        "numa_stat": {stat_name(item): value for item, value in zone.numa_stat.items()},
        "stat": {stat_name(item): value for item, value in zone.vm_stat.items()},
        "pagesets": [
            {
                "cpu": pageset.cpu,
                "count": pageset.count,
                "high": pageset.high,
                "batch": pageset.batch,
                "high_min": pageset.high_min,
                "high_max": pageset.high_max,
                "stat_threshold": pageset.stat_threshold,
                "stat_diff": {stat_name(item): value for item, value in pageset.vm_stat_diff.items()},
                "numa_diff": {stat_name(item): value for item, value in pageset.numa_diff.items()},
            }
            for pageset in pagesets(dump, zone)
        ],
    }


def _rows(found: list[Node]) -> list[tuple[int, str, str, int]]:
    """A row for each number of a zone."""
    from physmem.inspect.zoneinfo import stat_name

    rows = []
    for zone in (zone for node in found for zone in node.zones if zone.populated):
        marks = zip(("min", "low", "high", "promo"), zone.watermark, strict=False)
        sizes = {name: getattr(zone, name) for name in ("start_pfn", "spanned", "present", "managed")}
        stats = {stat_name(item): value for item, value in {**zone.vm_stat, **zone.numa_stat}.items()}
        rows += [(zone.node, zone.name, item, value) for item, value in {**dict(marks), **sizes, **stats}.items()]
    return rows
