# SPDX-License-Identifier: GPL-2.0-only
"""``physmem pagetypeinfo``: /proc/pagetypeinfo of an image."""

from __future__ import annotations

import click

from physmem.cli.common import FOUND, DumpOptions, dump_options, echo_json, example, json_option, warn

__all__ = ["command"]


@click.command(epilog=example("physmem pagetypeinfo A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@json_option
def command(image: str, options: DumpOptions, as_json: bool) -> int:
    """Print what /proc/pagetypeinfo would: free blocks and pageblocks of IMAGE by mobility.

    Where a free list is corrupt, its blocks are counted as far as they are found, and the exit status is 1.
    """
    from physmem.inspect.pagetypeinfo import pagetypeinfo

    with options.open(image) as dump:
        found = pagetypeinfo(dump)
        if as_json:
            echo_json(
                {
                    "pageblock_order": found.pageblock_order,
                    "zones": [
                        {
                            "node": each.zone.node,
                            "zone": each.zone.name,
                            "free": dict(zip(found.migratetypes, each.free.tolist(), strict=True)),
                            "pageblocks": dict(zip(found.migratetypes, each.pageblocks.tolist(), strict=True)),
                        }
                        for each in found.zones
                    ],
                }
            )
        else:
            click.echo(found.text(), nl=False)
        for each in found.breaks:
            warn(each.detail)
        return FOUND if found.breaks else 0
