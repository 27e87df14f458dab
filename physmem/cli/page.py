# SPDX-License-Identifier: GPL-2.0-only
"""``physmem page``: what is this page?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from physmem.cli.common import DumpOptions, dump_options, echo_json, example, hex64, json_option

if TYPE_CHECKING:
    from physmem.inspect.page import Page

__all__ = ["command"]

#: Fields that are counts; the others are addresses and words of bits.
_SIGNED = ("_mapcount", "_count")


@click.command(
    epilog=example(
        "physmem page A.vmcore.xz ffffea0000140000",
        "physmem page A.vmcore.xz pfn:5000",
        "physmem page A.vmcore.xz phys:0x5000000",
    )
)
@click.argument("image", type=click.Path())
@click.argument("what")
@dump_options
@json_option
def command(image: str, what: str, options: DumpOptions, as_json: bool) -> None:
    """Say all about the page WHAT of IMAGE: where it is, what its struct page says, and whether it is free.

    WHAT is a kernel address (of a struct page, or of memory), pfn:NUMBER (decimal or 0x...) or phys:ADDRESS.
    """
    from physmem.inspect.page import inspect_page
    from physmem.inspect.what import locate, parse_what

    wanted = parse_what(what)
    with options.open(image) as dump:
        page = inspect_page(dump, locate(dump, wanted))
        if as_json:
            echo_json(_json(page))
        else:
            _text(page)


def _json(page: Page) -> dict[str, object]:
    verdict = page.verdict
    return {
        "asked": {
            "as": page.place.region.value,
            "value": hex64(page.place.value),
            "offset": page.place.offset,
        },
        "pfn": page.pfn,
        "phys": hex64(page.phys),
        "page": hex64(page.address),
        "present": page.present,
        "section": page.section,
        "pageblock": {"number": page.pageblock, "migratetype": page.migratetype},
        "node": page.zone.node if page.zone else None,
        "zone": page.zone.name if page.zone else None,
        "state": verdict.state.value,
        "summary": verdict.summary,
        "order": verdict.order,
        "head": verdict.head,
        "list": {
            "order": verdict.list.order,
            "migratetype": verdict.list.migratetype,
            "cpu": verdict.list.cpu,
        }
        if verdict.list
        else None,
        "flags": page.flags,
        "fields": {name: value if name in _SIGNED else hex64(value) for name, value in page.fields.items()},
    }


def _text(page: Page) -> None:
    offset = f", {page.place.offset:#x} bytes in" if page.place.offset else ""
    section = "" if page.section is None else f", section {page.section}"
    for name, value in (
        ("pfn", f"{page.pfn} ({page.pfn:#x})"),
        ("asked", f"{page.place.region.value} {page.place.value:#x}{offset}"),
        ("physical", f"{page.phys:#x}, {'in' if page.present else 'absent from'} the image"),
        ("struct page", f"{page.address:016x}"),
        ("zone", str(page.zone) if page.zone else "none"),
        ("pageblock", f"{page.pageblock}, {page.migratetype or 'of unknown type'}{section}"),
        ("state", page.verdict.summary),
    ):
        click.echo(f"{name + ':':12} {value}")
    for field, number in page.fields.items():
        shown = str(number) if field in _SIGNED else f"{number:#x}"
        names = f" ({'|'.join(page.flags)})" if field == "flags" else ""
        click.echo(f"  {field + ':':10} {shown}{names}")
