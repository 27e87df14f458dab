# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm demo``: a real kernel's memory opened, shown, allocated from and checked, on one screen."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from importlib import resources
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING

import click

from kernelmm.cli.common import attach
from physmem import engine
from physmem.cli.common import FOUND, DumpOptions, dump_options, example

if TYPE_CHECKING:
    from kernelmm.machine import Machine
    from physmem.dump import Dump

#: The image that ships with the package: a guest of 128 MiB, halted in the middle of its work.
SHIPPED = "linux-4.0-128M.vmcore.xz"

#: Orders of the block that is taken and given back, and of the one that is taken then and kept.
ORDER, KEPT = 3, 2
#: PFN whose ``struct page`` is looked for.
PFN = 5000
#: Said of calls that took the same path, at greater length than a column has room for.
_MORE = re.compile(r"  \(and (\d+) more like this\)$")
#: Findings that the screen has room for.
_ROOM = 6


@click.command(epilog=example("kernelmm demo", "kernelmm demo A.vmcore.xz", "kernelmm demo --pressure"))
@click.argument("image", type=click.Path(), required=False)
@click.option("--pressure", is_flag=True, help="Show kswapd, reclaim, compaction and the OOM killer at work instead.")
@dump_options
def command(image: str | None, pressure: bool, options: DumpOptions) -> int:
    """Open a real kernel's memory, show it, and allocate and free in it as that kernel would have done.

    IMAGE is by default a small one that ships with the package.  The interpreted engine runs, whose path can be
    watched.
    """
    engine.select("interpreted")
    with resources.as_file(resources.files("kernelmm") / "data" / SHIPPED) as shipped:
        machine = attach(image or str(shipped), options)
    if pressure:
        from kernelmm.study.pressure_demo import show_pressure

        with machine:
            show_pressure(machine)
        return 0
    with machine:
        show("What it is", describe(machine))
        show("Its free lists: blocks of 2^order pages, as /proc/buddyinfo has them", buddy_lists(machine.dump))
        show(f"An address, translated: the struct page of pfn {PFN}", translation(machine.dump))
        show_calls(machine)
        clean, lines = checked(machine.dump)
        show("Is its memory still in order?", lines)
        show("The difference it made", difference(machine))
    show_own_machine()
    return 0 if clean else FOUND


def show_own_machine() -> None:
    """A machine that is booted here, with the same allocator on the same kind of bytes."""
    from kernelmm.gfp import GFP_KERNEL
    from kernelmm.machine import Machine
    from physmem.inspect.zones import populated_zones

    with Machine.boot("64M", nodes=2, cpus=2) as machine:
        before = sum(zone.vm_stat["NR_FREE_PAGES"] for zone in populated_zones(machine.dump))
        with machine.on_cpu(1):
            page = machine.alloc_pages(GFP_KERNEL, ORDER)
        pfn = None if page is None else machine.page_to_pfn(page)
        lines = [*buddy_lists(machine.dump)[1:], f"CPU 1: alloc_pages(GFP_KERNEL, {ORDER}) = pfn {pfn}"]
        _, order = checked(machine.dump)
        show(f"A machine of our own: 64 MiB, two nodes, two CPUs, {before} pages free", [*lines, *order])


def show(title: str, lines: Iterable[str]) -> None:
    """A section of the screen."""
    click.secho(title, bold=True)
    for line in lines:
        click.echo(f"  {line}")


def describe(machine: Machine) -> Iterator[str]:
    """Format, kernel, size, and what of it is in the file."""
    from physmem.inspect.info import info

    found = info(machine.dump)
    cpus = "?" if found.cpus is None else len(found.cpus)
    yield f"{found.path.rpartition('/')[2]}: {found.format} of Linux {found.release}"
    yield (
        f"{found.pages} pages, of which {found.pages - found.absent} are in the file; "
        f"{len(found.nodes)} node(s), {cpus} CPU(s)"
    )


def buddy_lists(dump: Dump) -> list[str]:
    """The file's lines, under a line of orders."""
    from physmem.inspect.buddyinfo import buddyinfo
    from physmem.inspect.zones import populated_zones

    lines = buddyinfo(populated_zones(dump)).splitlines()
    return [f"{'order':20}" + "".join(f"{order:>5}" for order in range(11)), *(narrow(line) for line in lines)]


def narrow(line: str) -> str:
    """A line of buddyinfo for a screen of 80 columns."""
    words = line.replace(",", "").split()
    return f"{' '.join(words[:4]):20}" + "".join(f"{blocks:>5}" for blocks in words[4:])


def translation(dump: Dump) -> Iterator[str]:
    """The page table entries read on the way, and where it ends."""
    from physmem.inspect.translate import translate

    found = translate(dump, dump.mem_map + PFN * dump.sizeof_page)
    for step in found.steps:
        flags = "|".join(step.flags)
        yield f"{step.level} {step.index:3} at {step.at:7x}: {step.entry:016x} {flags}"
    yield f"{found.va:016x} is physical {found.phys or 0:#x}, in a page of {found.page_size >> 10} KiB"


def show_calls(machine: Machine) -> None:
    """Allocate a block and free it again: results, path through the allocator, tracepoints.  And take one to keep."""
    from kernelmm.gfp import GFP_KERNEL
    from kernelmm.study.explain import watch
    from kernelmm.study.explain_text import call_lines

    with machine.trace() as tracer:
        page, taken = watch(machine, lambda: machine.alloc_pages(GFP_KERNEL, ORDER))
        if page is None:
            show(f"alloc_pages(GFP_KERNEL, {ORDER}) gives NULL: there is no such block", call_lines(taken, 0))
            return
        addr = machine.page_address(page)
        _, given = watch(machine, lambda: machine.free_pages(addr, ORDER))
    events = (f"{event.name}: {event.text.partition(f'page={event.page:016x} ')[2]}" for event in tracer.events)
    show(
        f"alloc_pages(GFP_KERNEL, {ORDER}) = pfn {machine.page_to_pfn(page)}, free_pages({addr:#x}, {ORDER})",
        [*side_by_side(call_lines(taken, 0), call_lines(given, 0)), *events],
    )
    kept = machine.alloc_pages(GFP_KERNEL, KEPT)
    result = "NULL" if kept is None else f"pfn {machine.page_to_pfn(kept)}, to keep"
    show(f"alloc_pages(GFP_KERNEL, {KEPT}) = {result}", ())


def side_by_side(left: Iterable[str], right: Iterable[str]) -> Iterator[str]:
    """Two call paths in two columns."""
    paths = [
        [f"{line} x {times}" if (times := len([*same])) > 1 else line for line, same in groupby(map(_brief, path))]
        for path in (left, right)
    ]
    width = max(map(len, paths[0])) + 3
    for one, other in zip_longest(*paths, fillvalue=""):
        yield f"{one:{width}}{other}".rstrip()


def _brief(line: str) -> str:
    return _MORE.sub(lambda more: f" x {int(more[1]) + 1}", line)


def checked(dump: Dump) -> tuple[bool, list[str]]:
    """Whether nothing is wrong, and what is."""
    from physmem.inspect.check import RULES, check

    report = check(dump)
    rules = len(RULES) - len(report.not_checked)
    if report.clean:
        return True, [f"clean: nothing found by {rules} rules"]
    return False, [str(finding) for finding in report.findings[:_ROOM]]


def difference(machine: Machine) -> Iterator[str]:
    """What changed from the image to the machine's memory."""
    from physmem.inspect.diff import diff

    found = diff(machine.dump.over(machine.dump.image), machine.dump)
    for each in found.objects:
        fields = [f"{f.name} {f.old} -> {f.new}" for f in each.fields if not f.name.endswith((".next", ".prev"))]
        yield from textwrap.wrap(f"{each.name}: {', '.join(fields)}", 76, subsequent_indent="  ")
    for (old, new), count in found.pages.transitions.most_common():
        yield f"struct pages: {count} {f'{old.value} -> {new.value}' if old is not new else f'still {old.value}'}"
