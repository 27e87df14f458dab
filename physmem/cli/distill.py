# SPDX-License-Identifier: GPL-2.0-only
"""``physmem distill``: an image without the contents of memory."""

from __future__ import annotations

import os

import click

from physmem.cli.common import (
    DumpOptions,
    dump_options,
    echo_json,
    echo_table,
    example,
    json_option,
    progress_bar,
    target_options,
    warn,
)

__all__ = ["command"]


@click.command(
    epilog=example(
        "physmem distill A.vmcore.xz -o A.kdump",
        "physmem distill A.vmcore.xz -o A.small.vmcore.xz",
    )
)
@click.argument("image", type=click.Path())
@click.option("-o", "--output", metavar="FILE", type=click.Path(), required=True, help="The file to write.")
@target_options
@dump_options
@json_option
def command(
    image: str, output: str, format_: str | None, compression: str | None, options: DumpOptions, as_json: bool
) -> None:
    """Write what describes the memory in IMAGE, and nothing of what is in it.

    Page array, nodes, zones, lists, counters, sections, page tables, the memory map, symbols and types are kept, byte
    by byte; the bytes beside them become zeros, and all other pages are absent.  The file is kdump-compressed with zstd
    unless its name or the options say otherwise, and opens with the same options as IMAGE does.
    """
    from physmem.distill import distill
    from physmem.image.save import Target

    target = Target.of(output, format_, compression, default="kdump")
    if target.format == "kdump" and compression is None:
        target = Target.of(output, "kdump", "zstd")
    with options.open(image) as dump, progress_bar("distilling", dump.max_pfn * dump.sizeof_page) as progress:
        found = distill(dump, target, progress)
    size = os.stat(output).st_size
    if as_json:
        echo_json(
            {
                "path": click.format_filename(output),
                "format": target.format,
                "size": size,
                "pages": found.pages,
                "kept": found.kept,
                "parts": found.parts,
                "refused": found.refused,
                "lost": found.lost,
            }
        )
        return
    for line in found.lost:
        warn(f"{output}: {line}")
    if found.refused:
        warn(f"{output}: left out what the kernel's pointers say is in pages of processes or files: {found.refused}")
    echo_table(("kept", "bytes"), found.parts.items(), right=("bytes",))
    click.echo(f"{click.format_filename(output)}: {found.kept} bytes of {found.pages} pages in {size}")
