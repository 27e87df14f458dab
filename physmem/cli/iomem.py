# SPDX-License-Identifier: GPL-2.0-only
"""``physmem iomem``: /proc/iomem of an image."""

from __future__ import annotations

import click

from physmem.cli.common import DumpOptions, TableOptions, dump_options, example, hex64, table_options

__all__ = ["command"]


@click.command(epilog=example("physmem iomem image.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@table_options
def command(image: str, options: DumpOptions, table: TableOptions) -> None:
    """Print what /proc/iomem would: the tree of IMAGE's physical addresses and what is at them.

    In JSON each has its depth in the tree, and those inside it come after it.
    """
    from physmem.inspect.iomem import Resource, iomem, resources

    with options.open(image) as dump:
        # Unsigned addresses of 64 bits are not integers of 64 bits, neither in Parquet nor in JSON.
        table.give(
            Resource._fields,
            rows=lambda: ((each.depth, hex64(each.start), hex64(each.end), each.name) for each in resources(dump)),
            text=lambda: iomem(dump),
        )
