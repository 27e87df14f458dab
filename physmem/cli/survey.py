# SPDX-License-Identifier: GPL-2.0-only
"""``physmem survey``: many images at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from physmem.cli.common import (
    FOUND,
    DumpOptions,
    dump_options,
    echo_json,
    echo_table,
    example,
    json_option,
    progress_bar,
    read_parquet,
    require_parquet,
    warn,
    write_parquet,
)
from physmem.errors import ImageError, UsageError

if TYPE_CHECKING:
    from physmem.fleet import Found, Record

__all__ = ["command"]

#: Records between two writings of the output: at least so many, and an eighth of those in it, which keeps the cost
#: of all writings in proportion to the size of the last.
_CHECKPOINT = 16
_SHARE = 8
_PARQUET = "-o"


@click.command(epilog=example("physmem survey A.vmcore.xz B.vmcore.xz", "physmem survey . -o fleet.parquet"))
@click.argument("paths", metavar="PATH...", type=click.Path(), nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Write a table to FILE as Parquet.")
@click.option("--resume", is_flag=True, help="Look only at images that are not in FILE as they are now.")
@click.option("--workers", metavar="N", type=click.IntRange(1), help="Images at a time.  [default: one a core]")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(0, min_open=True), help="Give up an image then.")
@click.option("--scheduler", metavar="ADDRESS", help="Use the Dask cluster of this scheduler (extra: fleet).")
@click.option(
    "--findings",
    metavar="N",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="Findings of each rule to keep; all are counted.",
)
@dump_options
@json_option
def command(
    paths: tuple[str, ...],
    output: str | None,
    resume: bool,
    workers: int | None,
    timeout: float | None,
    scheduler: str | None,
    findings: int,
    options: DumpOptions,
    as_json: bool,
) -> int:
    """Look at many images: zones, free memory, its fragmentation, and what `physmem check` finds.

    A PATH is an image, or a directory: then the images in it and below it, told by their first bytes.  An image that
    cannot be read is one more line, with the reason.  The exit status is 1 if anything was found in any image, or any
    could not be read.

    FILE, whose columns docs/fleets.md explains, is written again and again while the work goes on, each time as a
    whole, so that --resume has little to repeat when this was interrupted.
    """
    from physmem.fleet import Options, find, locally, on_cluster

    images = find(paths)
    if not images:
        raise UsageError(f"{', '.join(paths)}: no memory image in it")
    if output is None and resume:
        raise UsageError("--resume: there is no -o FILE to look into")
    if scheduler is not None and (workers or timeout):
        raise UsageError("--workers and --timeout are for this machine, not for the cluster of --scheduler")
    known = {} if output is None else _known(output, resume, images)
    results = {each.path: known[each.path] for each in images if _is_done(known.get(each.path), each)}
    todo = [each for each in images if each.path not in results]
    how = Options(_absolute(options.layout), _absolute(options.symbols), findings, _absolute(options.vmlinux))
    stream = locally(todo, how, workers, timeout) if scheduler is None else on_cluster(todo, how, scheduler)
    fresh = 0
    try:
        with progress_bar("surveying", len(todo)) as progress:
            for record in stream:
                results[record.path] = record
                progress(1)
                fresh += 1
                if output is not None and fresh >= max(_CHECKPOINT, len(known) // _SHARE):
                    known |= results
                    _write(output, known)
                    fresh = 0
    finally:
        if output is not None and fresh:
            _write(output, known | results)
    ordered = [results[each.path] for each in images]
    if as_json:
        echo_json([_json(record) for record in ordered])
    else:
        _text(ordered, output, len(images) - len(todo))
    return 0 if all(record.clean for record in ordered) else FOUND


def _absolute(path: str | None) -> str | None:
    # A worker may be at home in another directory.
    return None if path is None else os.path.abspath(path)


def _known(output: str, resume: bool, images: Sequence[Found]) -> dict[str, Record]:
    """What is in the output file already, if that counts; refuses what could not be written to when all is done."""
    from physmem.fleet.rows import COLUMNS, records

    where = os.path.realpath(output)
    if any(where == os.path.realpath(each.path) for each in images):
        raise UsageError(f"{output}: is one of the images")
    if not os.access(os.path.dirname(where), os.W_OK | os.X_OK):
        raise ImageError(output, "cannot be written: no such directory, or no permission to write there")
    require_parquet(_PARQUET)
    if not resume or not os.path.exists(output):
        return {}
    try:
        return records(read_parquet(output, COLUMNS, _PARQUET))
    except (KeyError, ValueError, TypeError):
        raise ImageError(output, "not a table that physmem survey wrote") from None


def _is_done(record: Record | None, image: Found) -> bool:
    """Whether an image need not be looked at again; what failed may go better now."""
    if record is None or record.error is not None:
        return False
    return (record.size, record.mtime_ns) == (image.size, image.mtime_ns)


def _write(output: str, known: dict[str, Record]) -> None:
    from physmem.fleet.rows import COLUMNS, TYPES, rows

    table = [row for record in known.values() for row in rows(record)]
    write_parquet(output, COLUMNS, table, TYPES, _PARQUET)


def _json(record: Record) -> dict[str, object]:
    import dataclasses

    found = dataclasses.asdict(record)
    found["path"] = click.format_filename(record.path)
    found["findings"] = [dict(zip(("rule", "pfn", "detail"), each, strict=True)) for each in record.findings]
    return found


def _text(found: Sequence[Record], output: str | None, skipped: int) -> None:
    names = _short([record.path for record in found])
    if output is None:
        _tables(found, names)
    for record in found:
        if record.error is not None:
            warn(f"{names[record.path]}: {record.error}")
    failed = sum(record.error is not None for record in found)
    broken = sum(bool(record.counts) for record in found)
    clean = sum(record.clean for record in found)
    earlier = f", {skipped} of them looked at before" if skipped else ""
    click.echo(f"{len(found)} images{earlier}: {clean} clean, {broken} with findings, {failed} failed")


def _short(paths: Sequence[str]) -> dict[str, str]:
    """Names without what all have in common."""
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return {path: click.format_filename(os.path.relpath(path, common) if "," not in path else path) for path in paths}


def _tables(found: Sequence[Record], names: dict[str, str]) -> None:
    columns = ("image", "kernel", "format", "cpus", "nodes", "pages", "free", "found", "not checked")
    cells = [
        (
            names[record.path],
            *map(_cell, (record.release, record.format, record.cpus, record.nodes, record.pages)),
            _cell(sum(zone.free for zone in record.zones) if record.zones else None),
            _cell(None if record.counts is None else sum(record.counts.values())),
            _cell(None if record.counts is None else len(record.not_checked)),
        )
        for record in found
    ]
    echo_table(columns, cells, right=columns[3:])
    click.echo()
    orders = max((len(zone.nr_free) for record in found for zone in record.zones), default=0)
    by_order = ("image", "node", "zone", "managed", "free", "index", *map(str, range(orders)))
    zones = [
        (names[record.path], zone.node, zone.zone, zone.managed, zone.free, name, *(f"{each:.3f}" for each in index))
        for record in found
        for zone in record.zones
        for name, index in (("unusable", zone.unusable_index), ("extfrag", zone.extfrag_index))
        # It has something to say where an allocation would fail.
        if name != "extfrag" or any(each != -1 for each in index)
    ]
    zones = [(*row, *[""] * (len(by_order) - len(row))) for row in zones]
    if zones:
        echo_table(by_order, zones, right=set(by_order) - {"image", "zone", "index"})
        click.echo()
    broken = [(names[record.path], rule, n) for record in found for rule, n in (record.counts or {}).items()]
    if broken:
        echo_table(("image", "rule", "found"), broken, right=("found",))
        click.echo()


def _cell(value: object) -> object:
    return "-" if value is None else value
