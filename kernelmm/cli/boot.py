# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm boot``: a machine of our own, and its memory as an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kernelmm.cli.common import engine_option, save
from physmem.cli.common import echo_json, example, json_option, target_options
from physmem.e820 import MAX_PHYSMEM, MemoryMap, parse_size
from physmem.errors import UsageError
from physmem.structs.linux_4_0.config import MODELS, NUMA, SMP, UP

if TYPE_CHECKING:
    from kernelmm.machine import Machine


KERNELS = {"numa": NUMA, "smp": SMP, "up": UP}


@click.command(
    epilog=example(
        "kernelmm boot --mem 256M --nodes 2 -o m.vmcore",
        "kernelmm boot --e820 /proc/iomem --cpus 4",
        "kernelmm boot --mem 4G -o m.kdump --compression zstd",
        "kernelmm boot --mem 1T",
        "kernelmm boot --mem 512M --model flatmem -o flat.vmcore",
        'kernelmm boot --mem 1G --nodes 2 --cmdline "mem=768M movablecore=25% numa_zonelist_order=zone"',
    )
)
@click.option("--mem", metavar="SIZE", help="How much memory: 256M, 1T.  [default: 256M]")
@click.option("--e820", metavar="FILE", type=click.Path(), help="The firmware's memory map, or /proc/iomem.")
@click.option("--nodes", type=int, metavar="N", help="Split the memory evenly into NUMA nodes.  [default: 1]")
@click.option(
    "--distance", "distances", type=int, nargs=3, multiple=True, metavar="I J D", help="Nodes I and J are D apart."
)
@click.option("--cpus", type=int, metavar="N", default=1, show_default=True, help="How many CPUs.")
@click.option(
    "--kernel", type=click.Choice(list(KERNELS)), help="The kernel's build.  [default: numa; smp with flatmem]"
)
@click.option(
    "--model", type=click.Choice(MODELS), default=MODELS[0], show_default=True, help="The kernel's memory model."
)
@click.option("--cmdline", metavar="TEXT", default="", help="The kernel's command line; overrides the options.")
@click.option("--limit", metavar="SIZE", help="Use no memory above this address (the kernel's mem=).")
@click.option("--reserve", "reserved", multiple=True, metavar="SIZE@START", help="Leave a range of memory alone.")
@click.option("--kernelcore", metavar="SIZE", help="Memory for the kernel; the rest is ZONE_MOVABLE.")
@click.option("--movablecore", metavar="SIZE", help="Memory for ZONE_MOVABLE.")
@click.option("--cma", metavar="SIZE", help="Memory for contiguous allocations.")
@click.option(
    "--zonelist-order", type=click.Choice(["default", "node", "zone"]), default="default", help="Which zones are next."
)
@click.option("--debug-pagealloc", is_flag=True, help="Hide what is free: it has no mapping.")
@click.option(
    "--guardpage-minorder", type=int, default=0, metavar="N", help="Leave smaller blocks idle beside used ones."
)
@click.option("--page-poisoning", is_flag=True, help="Fill what is free with a pattern, and see to it later.")
@click.option("--page-owner", is_flag=True, help="Note who allocates a page.")
@click.option(
    "--kmemcheck", type=click.IntRange(0, 2), metavar="N", help="See who reads what nobody wrote: 1, or 2 only once."
)
@click.option(
    "--fail-page-alloc", metavar="I,P,S,T", default="", help="Make allocations fail: interval,probability,space,times."
)
@click.option("--gbpages/--no-gbpages", default=True, help="Whether the CPU has pages of 1 GiB.")
@click.option("--deferred/--no-deferred", default=True, help="Write a struct page when its block is first used.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Write the memory, as an image.")
@target_options
@engine_option
@json_option
def command(
    mem: str | None,
    e820: str | None,
    nodes: int | None,
    distances: tuple[tuple[int, int, int], ...],
    cpus: int,
    kernel: str | None,
    model: str,
    reserved: tuple[str, ...],
    debug_pagealloc: bool,
    guardpage_minorder: int,
    page_poisoning: bool,
    page_owner: bool,
    kmemcheck: int | None,
    output: str | None,
    format_: str | None,
    compression: str | None,
    as_json: bool,
    limit: str | None,
    **others: Any,
) -> None:
    """Boot a machine, and say what it has; it is gone afterwards, but for its image."""
    from kernelmm.debug.options import Debug
    from kernelmm.machine import Machine

    if mem is not None and e820 is not None:
        raise click.UsageError("--mem and --e820 are two ways to say the same")
    if e820 is not None:
        memory = MemoryMap.from_file(e820, nodes)
    else:
        memory = MemoryMap.from_size(mem or "256M", 1 if nodes is None else nodes)
    memory = memory.with_distances({pair: d for i, j, d in distances for pair in ((i, j), (j, i))})
    sizes = {"mem": limit} | {name: others.pop(name) for name in ("kernelcore", "movablecore", "cma")}
    options = others | {name: parse_size(size) for name, size in sizes.items() if size is not None}
    options["reserved"] = tuple(parse_range(each) for each in reserved)
    options["debug"] = Debug(debug_pagealloc, guardpage_minorder, page_poisoning, page_owner, kmemcheck)
    if kernel is not None or model != MODELS[0]:
        options["kernel"] = KERNELS[kernel or ("smp" if model == "flatmem" else "numa")].with_model(model)
    with Machine.boot(memory, cpus=cpus, **options) as machine:
        if output is not None:
            save(machine, output, format_, compression)
        if as_json:
            variables = ("totalram_pages", "totalreserve_pages", "min_free_kbytes")
            echo_json({name: machine.kernel.var(name) for name in variables} | {"zones": zones(machine)})
            return
        click.echo(machine.dmesg(), nl=False)
        for zone in zones(machine):
            click.echo(
                "Node {node}, zone {zone:>8}: {present} pages from pfn {start_pfn}, {managed} managed, {free} free, "
                "watermarks {min} {low} {high}".format(**zone)
            )


def parse_range(text: str) -> tuple[int, int]:
    """The physical range that ``SIZE@START`` is.

    :raises UsageError: it is not one
    """
    size, at, start = text.partition("@")
    if not at:
        raise UsageError(f"range {text[:40]!r}: expected SIZE@START, as in 16M@64M")
    low, length = parse_size(start), parse_size(size)
    if not length or low + length > MAX_PHYSMEM:
        raise UsageError(f"range {text[:40]!r}: not from 1 byte to {MAX_PHYSMEM:#x}")
    return low, low + length


def zones(machine: Machine) -> list[dict[str, object]]:
    """The populated zones; sizes in pages."""
    kernel = machine.kernel
    found = []
    for zone in kernel.populated_zones():
        fields = ("start_pfn", "zone_start_pfn"), ("present", "present_pages"), ("managed", "managed_pages")
        row: dict[str, object] = {"node": zone.nid, "zone": kernel.string(kernel.get(zone.at, "zone.name"))}
        row |= {name: kernel.get(zone.at, f"zone.{field}") for name, field in fields}
        row["free"] = kernel.get(zone.at, "zone.vm_stat", kernel.layout.enumerator("NR_FREE_PAGES"))
        row |= {name: kernel.wmark(zone, which) for which, name in enumerate(("min", "low", "high"))}
        found.append(row)
    return found
