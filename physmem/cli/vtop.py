# SPDX-License-Identifier: GPL-2.0-only
"""``physmem vtop``: translate a virtual address, step by step."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from physmem.cli.common import (
    FOUND,
    DumpOptions,
    console,
    dump_options,
    echo_json,
    echo_table,
    example,
    hex64,
    json_option,
)
from physmem.errors import AddressError

if TYPE_CHECKING:
    from physmem.dump import Dump
    from physmem.inspect.translate import Translation

__all__ = ["command"]

#: Bytes that an entry maps, by their log2; only these three sizes of pages exist.
_SIZES = {12: "4 KiB", 21: "2 MiB", 30: "1 GiB"}


@click.command(
    epilog=example(
        "physmem vtop A.vmcore.xz ffff880005000000",
        "physmem vtop A.vmcore.xz ffff880005000123 --explain",
    )
)
@click.argument("image", type=click.Path())
@click.argument("vaddr")
@click.option("--explain", "explained", is_flag=True, help="Explain it bit by bit, to the struct page and back.")
@dump_options
@json_option
def command(image: str, vaddr: str, explained: bool, options: DumpOptions, as_json: bool) -> int:
    """Translate the kernel address VADDR (hexadecimal) of IMAGE, with the page table entry read at every level.

    Where the address lies in a region that has a fixed place, what that gives stands beside it.  With --explain
    any 64-bit number will do: one that leads nowhere is told why, and the exit status is 1.
    """
    from physmem.inspect.translate import translate
    from physmem.inspect.what import parse_address

    va = parse_address(vaddr)
    with options.open(image) as dump:
        if explained:
            from physmem.inspect.explain import explain_address

            explanation = explain_address(dump, va)
            if as_json:
                echo_json(explanation.to_json())
            elif sys.stdout.isatty():
                console().print(explanation)
            else:
                click.echo(str(explanation))
            return FOUND if explanation.frame is None else 0
        found = translate(dump, va)
        if as_json:
            echo_json(_json(dump, found))
        else:
            _text(dump, found)
        if found.phys is None:
            raise AddressError(va, found.problem or "not mapped")
    return 0


def _json(dump: Dump, found: Translation) -> dict[str, object]:
    return {
        "va": hex64(found.va),
        "region": found.region.value,
        "by_region": _hex(found.by_region),
        "steps": [
            {
                "level": step.level,
                "table": hex64(step.table),
                "index": step.index,
                "at": hex64(step.at),
                "entry": hex64(step.entry),
                "flags": step.flags,
            }
            for step in found.steps
        ],
        "problem": found.problem,
        "page_size": found.page_size,
        "phys": _hex(found.phys),
        "pfn": found.pfn,
        "page": _hex(found.page),
        "present": found.phys is not None and found.phys in dump.memory.ranges,
    }


def _hex(value: int | None) -> str | None:
    return None if value is None else hex64(value)


def _text(dump: Dump, found: Translation) -> None:
    click.echo(f"{found.va:016x}")
    rows = []
    for step in found.steps:
        if not step.is_present:
            leads = "nothing"
        elif step.is_leaf:
            leads = f"page of {_SIZES[step.shift]}"
        else:
            leads = "next table"
        rows.append(
            (
                step.level,
                f"{step.table:#x}",
                step.index,
                f"{step.at:#x}",
                f"{step.entry:016x}",
                leads,
                "|".join(step.flags),
            )
        )
    echo_table(("level", "table", "index", "entry at", "entry", "leads to", "flags"), rows, right=("index",))
    if found.problem:
        click.echo(f"page tables:  {found.problem}")
    if found.walked is not None:
        click.echo(f"page tables:  physical {found.walked:#x}")
    if found.by_region is not None:
        click.echo(f"{found.region.value + ':':13} physical {found.by_region:#x}")
    if found.phys is not None:
        presence = "in" if found.phys in dump.memory.ranges else "absent from"
        click.echo(f"{'pfn:':13} {found.pfn} ({found.pfn:#x}), {presence} the image")
        click.echo(f"{'struct page:':13} {found.page:016x}")
