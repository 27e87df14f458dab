# SPDX-License-Identifier: GPL-2.0-only
"""``physmem pages``: page frames by their flags, and /proc/kpageflags and /proc/kpagecount of an image."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from physmem.cli.common import DumpOptions, TableOptions, dump_options, example, hex64, table_options, warn

if TYPE_CHECKING:
    from physmem.inspect.pagetypes import Histogram

__all__ = ["command"]

_COLUMNS = ("flags", "pages", "symbolic_flags", "names")


@click.command(
    epilog=example(
        "physmem pages A.vmcore.xz",
        "physmem pages A.vmcore.xz --where anonymous,~lru --raw",
        "physmem pages A.vmcore.xz --kpageflags kpageflags --kpagecount kpagecount",
    )
)
@click.argument("image", type=click.Path())
@click.option(
    "--where",
    "wheres",
    multiple=True,
    metavar="WHICH",
    help="Count only pages with any of the flags a,b; none of ~a; exactly =a,b; of a,b just the one: a,b=a; pfn:N-M.",
)
@click.option("--raw", is_flag=True, help="Tell all flags apart, also those for people who work on the kernel.")
@click.option("--kpageflags", metavar="FILE", type=click.Path(), help="Write the binary form of /proc/kpageflags.")
@click.option("--kpagecount", metavar="FILE", type=click.Path(), help="Write the binary form of /proc/kpagecount.")
@dump_options
@table_options
def command(
    image: str,
    wheres: tuple[str, ...],
    raw: bool,
    kpageflags: str | None,
    kpagecount: str | None,
    options: DumpOptions,
    table: TableOptions,
) -> None:
    """Count the page frames of IMAGE by what the kernel says of them, as its own tool page-types does.

    The files have eight bytes for each page frame, as the kernel of IMAGE would have written them; page frames that
    fail a --where are in them all the same.
    """
    from physmem.image.output import replacing
    from physmem.inspect.kpage import KPages
    from physmem.inspect.pagetypes import Filter, Histogram

    found = Histogram([Filter.parse(text) for text in wheres], raw)
    with options.open(image) as dump, contextlib.ExitStack() as files:
        flags_file, count_file = (
            files.enter_context(replacing(path)) if path is not None else None for path in (kpageflags, kpagecount)
        )
        pages = KPages(dump, reuse=True)
        for piece in pages:
            found.add(piece)
            if flags_file is not None:
                flags_file.write(piece.flag_words.tobytes())
            if count_file is not None:
                count_file.write(piece.count_words.tobytes())
        if pages.end < pages.claimed:
            warn(f"the nodes reach up to pfn {pages.claimed:#x}, the page array to {pages.end:#x}: no more is told")
        if pages.absent:
            which = f"{pages.absent.total()} struct pages, from pfn {next(iter(pages.absent))[0]} on"
            warn(f"{which}, are not in the image: counted as without flags")
    table.give(_COLUMNS, rows=lambda: _rows(found), text=found.text)


def _rows(found: Histogram) -> list[tuple[str, int, str, str]]:
    from physmem.inspect.pagetypes import long_flags, symbolic_flags

    return [(hex64(flags), count, symbolic_flags(flags), long_flags(flags)) for flags, count in found.rows()]
