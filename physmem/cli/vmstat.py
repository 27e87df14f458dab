# SPDX-License-Identifier: GPL-2.0-only
"""``physmem vmstat``: /proc/vmstat of an image."""

from __future__ import annotations

import click

from physmem.cli.common import DumpOptions, TableOptions, dump_options, example, signed64, table_options

__all__ = ["command"]


@click.command(epilog=example("physmem vmstat A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@table_options
def command(image: str, options: DumpOptions, table: TableOptions) -> None:
    """Print what /proc/vmstat would: pages of each kind and events of the whole machine of IMAGE.

    Rows that the image does not tell are left out; --json names them as unknown.
    """
    from physmem.inspect.vmstat import vmstat

    with options.open(image) as dump:
        rows = vmstat(dump)
    known = {name: value for name, value in rows.items() if value is not None}
    table.give(
        ("item", "value"),
        rows=lambda: ((name, signed64(value)) for name, value in known.items()),
        as_json=lambda: {"values": known, "unknown": [name for name in rows if name not in known]},
        text=lambda: "".join(f"{name} {value}\n" for name, value in known.items()),
    )
