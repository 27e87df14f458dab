# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm boot``: a machine of our own, and its memory as an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kernelmm.cli.common import engine_option, save
from physmem.cli.common import echo_json, example, json_option, target_options
from physmem.e820 import MemoryMap, parse_size

if TYPE_CHECKING:
    from kernelmm.machine import Machine


@click.command(
    epilog=example(
        "kernelmm boot --mem 256M --nodes 2 -o m.vmcore",
        "kernelmm boot --e820 /proc/iomem --cpus 4",
        "kernelmm boot --mem 4G -o m.kdump --compression zstd",
        "kernelmm boot --mem 1T",
    )
)
@click.option("--mem", metavar="SIZE", help="How much memory: 256M, 1T.  [default: 256M]")
@click.option("--e820", metavar="FILE", type=click.Path(), help="The firmware's memory map, or /proc/iomem.")
@click.option("--nodes", type=int, metavar="N", help="Split the memory evenly into NUMA nodes.  [default: 1]")
@click.option("--cpus", type=int, metavar="N", default=1, show_default=True, help="How many CPUs.")
@click.option("--limit", metavar="SIZE", help="Use no memory above this address (the kernel's mem=).")
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
    "--fail-page-alloc", metavar="I,P,S,T", default="", help="Make allocations fail: interval,probability,space,times."
)
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Write the memory, as an image.")
@target_options
@engine_option
@json_option
def command(
    mem: str | None,
    e820: str | None,
    nodes: int | None,
    cpus: int,
    limit: str | None,
    kernelcore: str | None,
    movablecore: str | None,
    cma: str | None,
    zonelist_order: str,
    debug_pagealloc: bool,
    guardpage_minorder: int,
    page_poisoning: bool,
    page_owner: bool,
    fail_page_alloc: str,
    output: str | None,
    format_: str | None,
    compression: str | None,
    as_json: bool,
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
    sizes = {"mem": limit, "kernelcore": kernelcore, "movablecore": movablecore, "cma": cma}
    options: dict[str, Any] = {name: parse_size(size) for name, size in sizes.items() if size is not None}
    debug = Debug(debug_pagealloc, guardpage_minorder, page_poisoning, page_owner)
    options |= {"zonelist_order": zonelist_order, "fail_page_alloc": fail_page_alloc, "debug": debug}
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
