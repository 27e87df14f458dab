# SPDX-License-Identifier: GPL-2.0-only
"""``physmem diff``: what changed between two images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from physmem.cli.common import FOUND, DumpOptions, TableOptions, dump_options, echo_table, example, hex64, table_options

if TYPE_CHECKING:
    from physmem.inspect.diff import Difference, FieldChange
    from physmem.ranges import Ranges

__all__ = ["command"]

#: Numbers from here on are addresses or sets of bits, and shown as such.
_LARGE = 1 << 32
#: So are these, however small.
_BITS = ("lock", "flags")


@click.command(epilog=example("physmem diff A.vmcore.xz B.vmcore.xz"))
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option("--pages", "list_pages", is_flag=True, help="List every page, and every link of a list, that changed.")
@dump_options
@table_options
def command(a: str, b: str, list_pages: bool, options: DumpOptions, table: TableOptions) -> int:
    """Say what changed from A to B, two images of one running kernel: zone by zone and page by page.

    Everything that the page allocator keeps is compared, byte by byte; the exit status is 1 if anything changed.
    Memory that only one image has is named, and is no difference.
    """
    from physmem.inspect.diff import diff

    with options.open(a) as before, options.open(b) as after:
        found = diff(before, after)
    table.give(
        ("pfn", "old", "new"),
        rows=lambda: ((page.pfn, page.old.value, page.new.value) for page in found.pages.listed),
        as_json=lambda: _json(found),
        text=lambda: _text(found, list_pages),
    )
    return FOUND if found else 0


def _json(found: Difference) -> dict[str, object]:
    pages = found.pages
    return {
        "differ": bool(found),
        "objects": [
            {"name": each.name, "fields": [_json_field(change) for change in each.fields]} for each in found.objects
        ],
        "pageblocks": [{"pfn": each.pfn, "old": each.old, "new": each.new} for each in found.pageblocks],
        "pages": {
            "changed": pages.count,
            "transitions": [
                {"old": old.value, "new": new.value, "pages": count}
                for (old, new), count in pages.transitions.most_common()
            ],
            "zones": [
                {"zone": zone, "old": old.value, "new": new.value, "pages": count}
                for (zone, old, new), count in pages.zones.most_common()
            ],
            "fields": dict(pages.fields.most_common()),
            "listed": [
                {
                    "pfn": page.pfn,
                    "old": page.old.value,
                    "new": page.new.value,
                    "fields": [_json_field(change) for change in page.fields],
                }
                for page in pages.listed
            ],
        },
        "free_blocks": {
            kind: [{"zone": zone, "order": order, "blocks": n} for (zone, order), n in sorted(counts.items())]
            for kind, counts in found.blocks.kinds().items()
        },
        "only_a": [[hex64(start), hex64(end)] for start, end in found.only_a],
        "only_b": [[hex64(start), hex64(end)] for start, end in found.only_b],
        "not_compared": found.not_compared,
    }


def _json_field(change: FieldChange) -> dict[str, object]:
    values = (change.old, change.new)
    old, new = map(hex64, values) if _is_bits(change) else values
    return {"name": change.name, "old": old, "new": new}


def _is_bits(change: FieldChange) -> bool:
    return change.name.endswith(_BITS) or max(change.old, change.new) >= _LARGE


def _show(change: FieldChange) -> str:
    values = (change.old, change.new)
    old, new = map(hex64, values) if _is_bits(change) else map(str, values)
    return f"{old} -> {new}"


def _text(found: Difference, list_pages: bool) -> None:
    for each in found.objects:
        click.echo(each.name)
        links = [change for change in each.fields if change.name.endswith((".next", ".prev"))]
        shown = each.fields if list_pages else [change for change in each.fields if change not in links]
        for change in shown:
            click.echo(f"  {change.name:32} {_show(change)}")
        if links and not list_pages:
            click.echo(f"  and {len(links)} link{'s' if len(links) > 1 else ''} of lists")
    if found.pageblocks:
        click.echo("pageblocks")
        for block in found.pageblocks:
            click.echo(f"  pfn {block.pfn:<10} {block.old} -> {block.new}")
    _text_blocks(found)
    _text_pages(found, list_pages)
    for name, only in (("first", found.only_a), ("second", found.only_b)):
        if only:
            click.echo(f"only in the {name} image: {_describe(only)}")
    for what in found.not_compared:
        click.echo(f"not compared: {what}")
    if not found:
        click.echo("no difference")


def _text_blocks(found: Difference) -> None:
    if found.blocks:
        click.echo("free blocks")
    for kind, counts in found.blocks.kinds().items():
        for zone in sorted({zone for zone, _ in counts}):
            orders = sorted((order, n) for (name, order), n in counts.items() if name == zone)
            click.echo(f"  {kind + ':':8} {zone}: {', '.join(f'{n} of order {order}' for order, n in orders)}")


def _text_pages(found: Difference, list_pages: bool) -> None:
    pages = found.pages
    if not pages.count:
        return
    click.echo(f"pages: {pages.count} changed")
    for (old, new), count in pages.transitions.most_common():
        what = f"{old.value} -> {new.value}" if old is not new else f"{old.value}, as before"
        click.echo(f"  {what:32} {count}")
    for zone in sorted({zone for zone, _, _ in pages.zones}):
        moved = {f"{old.value} -> {new.value}": n for (name, old, new), n in pages.zones.items() if name == zone}
        told = ", ".join(f"{what} {n}" for what, n in sorted(moved.items(), key=lambda row: (-row[1], row[0])))
        click.echo(f"  {zone}: {told}")
    click.echo(f"  fields: {', '.join(f'{name} {count}' for name, count in pages.fields.most_common())}")
    if list_pages:
        rows = [
            (page.pfn, page.old.value, page.new.value, ", ".join(f"{c.name} {_show(c)}" for c in page.fields))
            for page in pages.listed
        ]
        echo_table(("pfn", "old", "new", "fields"), rows, right=("pfn",))
        if pages.count > len(pages.listed):
            click.echo(f"and {pages.count - len(pages.listed)} more, not listed")


def _describe(memory: Ranges) -> str:
    start, end = next(iter(memory))
    more = f" and {len(memory) - 1} more ranges" if len(memory) > 1 else ""
    return f"{memory.total() / 4096:g} pages, {start:#x}-{end - 1:#x}{more}"
