# SPDX-License-Identifier: GPL-2.0-only
"""``physmem fragmentation``: how broken up free memory is."""

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

_COLUMNS = ("node", "zone", "order", "free_blocks", "unusable_index", "extfrag_index")


@click.command(epilog=example("physmem fragmentation A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@parquet_option
@json_option
def command(image: str, options: DumpOptions, parquet: str | None, as_json: bool) -> None:
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
    if parquet is not None:
        write_parquet(parquet, _COLUMNS, rows)
    elif as_json:
        echo_json([dict(zip(_COLUMNS, row, strict=True)) for row in rows])
    else:
        click.echo(f"unusable_index\n{unusable_text(zones)}extfrag_index\n{extfrag_text(zones)}", nl=False)
