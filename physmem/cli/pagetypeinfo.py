# SPDX-License-Identifier: GPL-2.0-only
"""``physmem pagetypeinfo``: /proc/pagetypeinfo of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from physmem.cli.common import FOUND, DumpOptions, TableOptions, dump_options, example, table_options, warn

if TYPE_CHECKING:
    from physmem.inspect.pagetypeinfo import PageTypeInfo

__all__ = ["command"]

_COLUMNS = ("node", "zone", "migratetype", "order", "free_blocks", "pageblocks")


@click.command(epilog=example("physmem pagetypeinfo A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@table_options
def command(image: str, options: DumpOptions, table: TableOptions) -> int:
    """Print what /proc/pagetypeinfo would: free blocks and pageblocks of IMAGE by mobility.

    Where a free list is corrupt, its blocks are counted as far as they are found, and the exit status is 1.
    """
    from physmem.inspect.pagetypeinfo import pagetypeinfo

    with options.open(image) as dump:
        found = pagetypeinfo(dump)
    table.give(_COLUMNS, rows=lambda: _rows(found), as_json=lambda: _json(found), text=found.text)
    for each in found.breaks:
        warn(each.detail)
    return FOUND if found.breaks else 0


def _json(found: PageTypeInfo) -> dict[str, object]:
    return {
        "pageblock_order": found.pageblock_order,
        "zones": [
            {
                "node": each.zone.node,
                "zone": each.zone.name,
                "free": dict(zip(found.migratetypes, each.free, strict=True)),
                "pageblocks": dict(zip(found.migratetypes, each.pageblocks, strict=True)),
            }
            for each in found.zones
        ],
    }


def _rows(found: PageTypeInfo) -> list[tuple[object, ...]]:
    """A row for each order of each type, and one without order that has the pageblocks."""
    rows: list[tuple[object, ...]] = []
    for each in found.zones:
        for i, name in enumerate(found.migratetypes):
            where = (each.zone.node, each.zone.name, name)
            rows += [(*where, order, blocks, None) for order, blocks in enumerate(each.free[i])]
            rows.append((*where, None, None, each.pageblocks[i]))
    return rows
