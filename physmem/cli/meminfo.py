# SPDX-License-Identifier: GPL-2.0-only
"""``physmem meminfo``: /proc/meminfo of an image."""

from __future__ import annotations

import click

from physmem.cli.common import (
    DumpOptions,
    dump_options,
    echo_json,
    example,
    json_option,
    parquet_option,
    signed64,
    write_parquet,
)

__all__ = ["command"]


@click.command(epilog=example("physmem meminfo A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@parquet_option
@json_option
def command(image: str, options: DumpOptions, parquet: str | None, as_json: bool) -> None:
    """Print what /proc/meminfo would: what the memory of IMAGE is used for, in kB.

    Rows that the image does not tell are left out; --json names them as unknown.
    """
    from physmem.inspect.meminfo import meminfo, meminfo_text

    with options.open(image) as dump:
        rows = meminfo(dump)
        known = [row for row in rows if row.value is not None]
        if parquet is not None:
            cells = ((row.name, signed64(row.value or 0), row.unit) for row in known)
            write_parquet(parquet, ("item", "value", "unit"), cells)
        elif as_json:
            values = {row.name: row.value for row in known}
            echo_json({"values": values, "unknown": [row.name for row in rows if row.value is None]})
        else:
            click.echo(meminfo_text(rows), nl=False)
