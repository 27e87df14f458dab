# SPDX-License-Identifier: GPL-2.0-only
"""``physmem convert``: an image in another format."""

from __future__ import annotations

import os

import click

from physmem.cli.common import (
    DumpOptions,
    dump_options,
    echo_json,
    example,
    json_option,
    progress_bar,
    target_options,
    warn,
)

__all__ = ["command"]


@click.command(
    epilog=example(
        "physmem convert A.vmcore.xz -o A.kdump",
        "physmem convert A.vmcore.xz -o A.dump --format kdump --compression zstd",
        "physmem convert A.vmcore.xz -o A.vmcore.zst",
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
    """Write the memory in IMAGE to another file, in the format that its name or --format says.

    A name in .kdump or .dump is a kdump-compressed file, .lime is LiME, .raw or .bin is raw memory, and any other an
    ELF core; .gz, .xz and .zst behind it compress the whole.  What the new format cannot hold is said.
    """
    from physmem.convert import convert, opened
    from physmem.image.save import Target

    target = Target.of(output, format_, compression)
    with opened(image, options.layout, options.symbols, options.vmlinux) as source:
        total = source.image.ranges.total()
        with progress_bar("converting", total) as progress:
            lost = convert(source, target, progress)
        size = os.stat(output).st_size
        if as_json:
            names = [note.name for note in source.notes]
            echo_json(
                {
                    "path": click.format_filename(output),
                    "format": target.format,
                    "size": size,
                    "memory": total,
                    "notes": names,
                    "lost": lost,
                }
            )
            return
        for line in lost:
            warn(f"{output}: {line}")
        click.echo(f"{click.format_filename(output)}: {target.format}, {total} bytes of memory in {size}")
