# SPDX-License-Identifier: GPL-2.0-only
"""``physmem iomem``: /proc/iomem of an image."""

from __future__ import annotations

import click

from physmem.cli.common import (
    DumpOptions,
    dump_options,
    echo_json,
    example,
    hex64,
    json_option,
    parquet_option,
    write_parquet,
)

__all__ = ["command"]


@click.command(epilog=example("physmem iomem image.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@parquet_option
@json_option
def command(image: str, options: DumpOptions, parquet: str | None, as_json: bool) -> None:
    """Print what /proc/iomem would: the tree of IMAGE's physical addresses and what is at them.

    In JSON each has its depth in the tree, and those inside it come after it.
    """
    from physmem.inspect.iomem import Resource, iomem, resources

    with options.open(image) as dump:
        if parquet is not None:
            # Unsigned addresses of 64 bits are not integers of 64 bits.
            rows = ((each.depth, hex64(each.start), hex64(each.end), each.name) for each in resources(dump))
            write_parquet(parquet, Resource._fields, rows)
        elif as_json:
            echo_json(
                [each._asdict() | {"start": hex64(each.start), "end": hex64(each.end)} for each in resources(dump)]
            )
        else:
            click.echo(iomem(dump), nl=False)
