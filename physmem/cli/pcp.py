# SPDX-License-Identifier: GPL-2.0-only
"""``physmem pcp``: the free pages that each CPU keeps for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from physmem.cli.common import FOUND, DumpOptions, TableOptions, dump_options, echo_table, example, table_options, warn

if TYPE_CHECKING:
    from physmem.dump import Dump
    from physmem.inspect.freelist import FreeLists
    from physmem.inspect.zones import Pageset, Zone

__all__ = ["command"]

_COLUMNS = ("node", "zone", "cpu", "order", "migratetype", "blocks", "pages")


@click.command(epilog=example("physmem pcp A.vmcore.xz", "physmem pcp A.vmcore.xz --pfns"))
@click.argument("image", type=click.Path())
@click.option("--pfns", "list_pfns", is_flag=True, help="List the first PFN of every block, in the list's order.")
@dump_options
@table_options
def command(image: str, list_pfns: bool, options: DumpOptions, table: TableOptions) -> int:
    """Print what is on the per-cpu lists of each zone of IMAGE: by CPU, order and mobility.

    Where a list is corrupt, what is found of it is counted, and the exit status is 1.
    """
    with options.open(image) as dump:
        found, lists = _read(dump)
        breaks = [each for each in lists.breaks if each.list.cpu is not None]
    table.give(
        _COLUMNS,
        rows=lambda: (row[:7] for _, _, rows in found for row in rows),
        as_json=lambda: [_json(zone, pageset, rows) for zone, pageset, rows in found],
        text=lambda: _text(found, list_pfns),
    )
    for each in breaks:
        warn(each.detail)
    return FOUND if breaks else 0


_Row = tuple[int, str, int, int, str, int, int, list[int]]


def _text(found: list[tuple[Zone, Pageset, list[_Row]]], list_pfns: bool) -> None:
    for zone, pageset, of_set in found:
        tuned = "" if pageset.high_min is None else f" (from {pageset.high_min} to {pageset.high_max})"
        limits = f"high {pageset.high}{tuned}, batch {pageset.batch}"
        click.echo(f"{zone} CPU {pageset.cpu}: count {pageset.count}, {limits}")
        shown = [row[3:7] for row in of_set if row[5]]
        if shown:
            echo_table(_COLUMNS[3:], shown, right=("order", "blocks", "pages"))
        if list_pfns:
            for row in of_set:
                if row[5]:
                    click.echo(f"order {row[3]} {row[4]}: {' '.join(map(str, row[7]))}")


def _read(dump: Dump) -> tuple[list[tuple[Zone, Pageset, list[_Row]]], FreeLists]:
    from physmem.inspect.freelist import FreeLists, free_lists, pcp_lists
    from physmem.inspect.pageformat import PageFormat
    from physmem.inspect.zones import pagesets, populated_zones

    zones = list(populated_zones(dump))
    names = PageFormat(dump.layout).migratetypes
    sets = [(zone, pageset) for zone in zones for pageset in pagesets(dump, zone)]
    lists = [each for zone, pageset in sets for each in pcp_lists(zone, pageset)]
    # The zones' own lists besides: a page that is on one of them too is on two lists.
    walked = FreeLists(dump, [*lists, *(each for zone in zones for each in free_lists(zone, names))])
    found = []
    number = 0
    for zone, pageset in sets:
        rows: list[_Row] = []
        for kind in pageset.kinds:
            pfns = walked.pfns(number).tolist()
            blocks = len(pfns)
            rows.append((zone.node, zone.name, pageset.cpu, kind.order, kind.name, blocks, blocks << kind.order, pfns))
            number += 1
        found.append((zone, pageset, rows))
    return found, walked


def _json(zone: Zone, pageset: Pageset, rows: list[_Row]) -> dict[str, object]:
    return {
        "node": zone.node,
        "zone": zone.name,
        "cpu": pageset.cpu,
        "count": pageset.count,
        "high": pageset.high,
        "high_min": pageset.high_min,
        "high_max": pageset.high_max,
        "batch": pageset.batch,
        "lists": [
            {"order": order, "migratetype": name, "blocks": blocks, "pages": pages, "pfns": pfns}
            for _, _, _, order, name, blocks, pages, pfns in rows
        ],
    }
