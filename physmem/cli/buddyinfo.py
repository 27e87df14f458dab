# SPDX-License-Identifier: GPL-2.0-only
"""``physmem buddyinfo``: /proc/buddyinfo of an image."""

from __future__ import annotations

import click

from physmem.cli.common import DumpOptions, TableOptions, dump_options, example, table_options

__all__ = ["command"]


@click.command(epilog=example("physmem buddyinfo A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@table_options
def command(image: str, options: DumpOptions, table: TableOptions) -> None:
    """Print what /proc/buddyinfo would: free blocks of each order in each zone of IMAGE."""
    from physmem.inspect.buddyinfo import buddyinfo
    from physmem.inspect.zones import populated_zones

    with options.open(image) as dump:
        zones = list(populated_zones(dump))
    table.give(
        ("node", "zone", "order", "free_blocks"),
        rows=lambda: ((zone.node, zone.name, order, n) for zone in zones for order, n in enumerate(zone.nr_free)),
        as_json=lambda: [{"node": zone.node, "zone": zone.name, "free": zone.nr_free} for zone in zones],
        text=lambda: buddyinfo(zones),
    )
