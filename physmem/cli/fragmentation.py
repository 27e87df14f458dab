# SPDX-License-Identifier: GPL-2.0-only
"""``physmem fragmentation``: how broken up free memory is."""

from __future__ import annotations

import click

from physmem.cli.common import DumpOptions, TableOptions, dump_options, example, table_options

__all__ = ["command"]

_COLUMNS = ("node", "zone", "order", "free_blocks", "unusable_index", "extfrag_index")


@click.command(epilog=example("physmem fragmentation A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@table_options
def command(image: str, options: DumpOptions, table: TableOptions) -> None:
    """Print both indexes of fragmentation of each zone of IMAGE, by order, as /sys/kernel/debug/extfrag has them.

    unusable_index: which part of the free memory is in blocks that are too small (0 to 1).  extfrag_index: why an
    allocation would fail: for want of memory (0), or because memory is broken up (1); -1 if it would not.
    """
    from physmem.inspect.fragmentation import extfrag_text, fragmentation_index, unusable_index, unusable_text
    from physmem.inspect.zones import populated_zones

    with options.open(image) as dump:
        zones = list(populated_zones(dump))
    rows = [
        (
            zone.node,
            zone.name,
            order,
            blocks,
            unusable_index(zone.nr_free, order) / 1000,
            fragmentation_index(zone.nr_free, order) / 1000,
        )
        for zone in zones
        for order, blocks in enumerate(zone.nr_free)
    ]
    table.give(
        _COLUMNS,
        rows=lambda: rows,
        text=lambda: f"unusable_index\n{unusable_text(zones)}extfrag_index\n{extfrag_text(zones)}",
    )
