# SPDX-License-Identifier: GPL-2.0-only
"""``physmem map``: a picture of physical memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from physmem.cli.common import DumpOptions, console, dump_options, echo_json, example, json_option, progress_bar

if TYPE_CHECKING:
    from physmem.inspect.map import Chart

__all__ = ["command"]

_SUFFIXES = (".png", ".svg", ".html")


@click.command(epilog=example("physmem map A.vmcore.xz", "physmem map A.vmcore.xz -o memory.html"))
@click.argument("image", type=click.Path())
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Write FILE.png, FILE.svg or FILE.html.")
@dump_options
@json_option
def command(image: str, output: str | None, options: DumpOptions, as_json: bool) -> None:
    """Draw the physical memory of IMAGE: what every page frame is used for, zone by zone.

    Without FILE it is drawn for a terminal.  A page of HTML can be zoomed, and tells of the page under the pointer;
    it needs nothing but itself.  PNG and SVG need the extra [plot].
    """
    from physmem.inspect.map import cells, terminal

    suffix = Path(output).suffix.lower() if output is not None else ""
    if output is not None and suffix not in _SUFFIXES:
        raise click.UsageError(f"{output}: a picture's name ends in {', '.join(_SUFFIXES)}")
    with options.open(image) as dump:
        limit = cells.MAX_CELLS if output is not None else terminal.CELLS
        with progress_bar("pages", dump.max_pfn) as progress:
            chart = cells.chart(dump, limit, progress)
    if output is not None:
        _write(chart, output, suffix)
    if as_json:
        echo_json(_json(chart))
    elif output is not None:
        pages = 1 << chart.shift
        click.echo(f"{output}: {chart.counts.sum()} page frames, a cell is {pages} page{'s' if pages > 1 else ''}")
    else:
        screen = console()
        for line in terminal.draw(chart, screen.width):
            screen.print(line, soft_wrap=True)


def _write(chart: Chart, output: str, suffix: str) -> None:
    from physmem.image.output import replacing

    if suffix == ".html":
        from physmem.inspect.map import html

        drawn = html.page(chart).encode()
    else:
        from physmem.inspect.map import figure

        drawn = figure.picture(chart, suffix[1:])
    with replacing(output) as file:
        file.write(drawn)


def _json(chart: Chart) -> dict[str, object]:
    from physmem.inspect.map import KINDS

    def named(counts: list[int]) -> dict[str, int]:
        return {kind.name: count for kind, count in zip(KINDS, counts, strict=True) if count}

    return {
        "pages_per_cell": 1 << chart.shift,
        "pages": named(chart.counts.tolist()),
        "zones": [
            {
                "node": zone.node,
                "zone": zone.name,
                "start_pfn": zone.start_pfn,
                "end_pfn": zone.end_pfn - 1,
                "pages": named(zone.counts.tolist()),
            }
            for zone in chart.zones
        ],
    }
