# SPDX-License-Identifier: GPL-2.0-only
"""``physmem buddyinfo``: /proc/buddyinfo of an image."""

from __future__ import annotations

import click

from physmem.cli.common import (
    DumpOptions,
    dump_options,
    echo_json,
    example,
    json_option,
    parquet_option,
    write_parquet,
)

__all__ = ["command"]


@click.command(epilog=example("physmem buddyinfo A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@parquet_option
@json_option
def command(image: str, options: DumpOptions, parquet: str | None, as_json: bool) -> None:
    """Print what /proc/buddyinfo would: free blocks of each order in each zone of IMAGE."""
    from physmem.inspect.buddyinfo import buddyinfo
    from physmem.inspect.zones import populated_zones

    with options.open(image) as dump:
        zones = list(populated_zones(dump))
        if parquet is not None:
            rows = [(zone.node, zone.name, order, n) for zone in zones for order, n in enumerate(zone.nr_free)]
            write_parquet(parquet, ("node", "zone", "order", "free_blocks"), rows)
        elif as_json:
            echo_json([{"node": zone.node, "zone": zone.name, "free": zone.nr_free} for zone in zones])
        else:
            click.echo(buddyinfo(zones), nl=False)
