# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm explain``: what an operation does on the memory of an image, as it does it."""

from __future__ import annotations

import re

import click

from kernelmm.cli.common import attach, text_output
from physmem import engine
from physmem.cli.common import FOUND, DumpOptions, dump_options, echo_json, example, json_option

#: A function and its arguments; code, and what it came to.
_CALL = re.compile(r"( +)(\w+)((?:\(.*\).*)?(?: +\(and \d+ more like this\))?)")
_WORKED = re.compile(r"( +.*?(?:\?|:) )(.*)")


@click.command(
    epilog=example(
        'kernelmm explain A.vmcore.xz "alloc GFP_KERNEL 3"',
        'kernelmm explain A.vmcore.xz "alloc GFP_KERNEL 3; free $ 3" --detail 2',
        'kernelmm explain A.vmcore.xz "free ffff880006b80000 3" --html free.html',
    )
)
@click.argument("image", type=click.Path())
@click.argument("operations", nargs=-1, required=True)
@click.option("--detail", type=click.IntRange(0, 3), default=1, show_default=True, help="0: functions only; 3: all.")
@click.option("--html", metavar="FILE", type=click.Path(), help="Write a page to step through it, back and forth.")
@click.option("--cpu", type=click.IntRange(0, 8191), default=0, show_default=True, help="The CPU that calls.")
@click.option("--debug-vm", is_flag=True, help="Check the kernel's assertions (CONFIG_DEBUG_VM).")
@dump_options
@json_option
def command(
    image: str,
    operations: tuple[str, ...],
    detail: int,
    html: str | None,
    cpu: int,
    debug_vm: bool,
    options: DumpOptions,
    as_json: bool,
) -> int:
    """Perform OPERATIONS on a copy of the memory in IMAGE, and show the path that each of them takes.

    \b
    alloc GFP ORDER [NID]      alloc_pages_node; GFP as GFP_KERNEL|__GFP_ZERO or hexadecimal
    free ADDR ORDER            free_pages; with a struct page's address or pfn:N, __free_pages
    get WHAT, put WHAT         get_page, put_page
    drain, drain_all           drain_local_pages, drain_all_pages
    reclaim [GFP [ORDER]]      direct reclaim
    kswapd [NID]               a waking period of kswapd, if it has been woken
    compact [ORDER]            compaction

    An address is hexadecimal; $ is what the last allocation gave, $2 what the second operation gave.  The exit
    status is 1 if an operation was stopped by an error.
    """
    engine.select("interpreted")  # the one that can be watched
    from kernelmm.study.explain import explain
    from kernelmm.study.explain_calls import parse_requests
    from kernelmm.study.explain_text import text

    parse_requests(operations)
    with attach(image, options) as machine:
        machine.debug_vm = debug_vm
        with machine.on_cpu(cpu):
            found = explain(machine, operations)
        if html is not None:
            from kernelmm.study.explain_html import page

            with text_output(html) as write:
                write(page(found, machine))
    if as_json:
        echo_json(found.to_json())
    else:
        for line in text(found, detail):
            click.echo(coloured(line))
    return FOUND if found.failed else 0


def coloured(line: str) -> str:
    """A line with the function that runs, or what a decision came to, standing out; colours are for terminals only."""
    if call := _CALL.fullmatch(line):
        return call[1] + click.style(call[2], bold=True, fg="cyan") + call[3]
    if worked := _WORKED.fullmatch(line):
        return worked[1] + click.style(worked[2], bold=True)
    if line[:1] not in ("", " "):
        return click.style(line, bold=True)
    return click.style(line, fg="yellow") if line.lstrip().startswith("* ") else line
