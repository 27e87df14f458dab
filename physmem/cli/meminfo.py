# SPDX-License-Identifier: GPL-2.0-only
"""``physmem meminfo``: /proc/meminfo of an image."""

from __future__ import annotations

import click

from physmem.cli.common import DumpOptions, TableOptions, dump_options, example, signed64, table_options

__all__ = ["command"]


@click.command(epilog=example("physmem meminfo A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@table_options
def command(image: str, options: DumpOptions, table: TableOptions) -> None:
    """Print what /proc/meminfo would: what the memory of IMAGE is used for, in kB.

    Rows that the image does not tell are left out; --json names them as unknown.
    """
    from physmem.inspect.meminfo import meminfo, meminfo_text

    with options.open(image) as dump:
        rows = meminfo(dump)
    known = [row for row in rows if row.value is not None]
    table.give(
        ("item", "value", "unit"),
        rows=lambda: ((row.name, signed64(row.value or 0), row.unit) for row in known),
        as_json=lambda: {
            "values": {row.name: row.value for row in known},
            "unknown": [row.name for row in rows if row.value is None],
        },
        text=lambda: meminfo_text(rows),
    )
