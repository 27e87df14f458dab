# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm page-owner``: who has allocated which page."""

from __future__ import annotations

import click

from kernelmm.cli.common import attach, engine_option
from physmem.cli.common import DumpOptions, dump_options, echo_json, example, json_option

__all__ = ["command"]


@click.command(epilog=example("kernelmm boot --mem 64M --page-owner -o m.vmcore", "kernelmm page-owner m.vmcore"))
@click.argument("image", type=click.Path())
@engine_option
@dump_options
@json_option
def command(image: str, options: DumpOptions, as_json: bool) -> None:
    """Who has allocated which page, as /sys/kernel/debug/page_owner says it.

    The machine in IMAGE must have been booted with page_owner.
    """
    with attach(image, options) as machine:
        text = machine.page_owner()
    if as_json:
        echo_json([parse(record) for record in text.split("\n\n") if record])
    else:
        click.echo(text, nl=False)


def parse(record: str) -> dict[str, object]:
    """One record, in parts."""
    first, second, *stack = record.strip("\n").split("\n")
    order, mask = (word.rstrip(",") for word in (first.split()[4], first.split()[6]))
    words = second.split()
    return {
        "pfn": int(words[1]),
        "block": int(words[3]),
        "migratetype": int(words[5]),
        "fallback": "Fallback" in words,
        "order": int(order),
        "gfp_mask": int(mask, 16),
        "stack": [line.split("] ", 1)[1] for line in stack if "0xffffffffffffffff" not in line],
    }
