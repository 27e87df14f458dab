# SPDX-License-Identifier: GPL-2.0-only
"""``physmem vmstat``: /proc/vmstat of an image."""

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


@click.command(epilog=example("physmem vmstat A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@parquet_option
@json_option
def command(image: str, options: DumpOptions, parquet: str | None, as_json: bool) -> None:
    """Print what /proc/vmstat would: pages of each kind and events of the whole machine of IMAGE.

    Rows that the image does not tell are left out; --json names them as unknown.
    """
    from physmem.inspect.vmstat import vmstat

    with options.open(image) as dump:
        rows = vmstat(dump)
        known = {name: value for name, value in rows.items() if value is not None}
        if parquet is not None:
            write_parquet(parquet, ("item", "value"), ((name, signed64(value)) for name, value in known.items()))
        elif as_json:
            echo_json({"values": known, "unknown": [name for name in rows if name not in known]})
        else:
            click.echo("".join(f"{name} {value}\n" for name, value in known.items()), nl=False)
