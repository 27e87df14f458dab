# SPDX-License-Identifier: GPL-2.0-only
"""``physmem layout``: write down how a kernel's structs are laid out, and where its variables are."""

from __future__ import annotations

import json

import click

from physmem.cli.common import DumpOptions, dump_options, echo_json, example, hex64, json_option
from physmem.image.output import replacing

__all__ = ["command"]


@click.command(epilog=example("physmem layout A.vmcore.xz -o layout.json"))
@click.argument("image", type=click.Path())
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Where to write it; default: standard output.")
@dump_options
@json_option
def command(image: str, output: str | None, options: DumpOptions, as_json: bool) -> None:
    """Write the struct layouts, constants and symbols by which IMAGE is understood.

    The file is for --layout and for --symbols of images that say too little themselves.  With -o, --json says what was
    written.
    """
    with options.open(image) as dump:
        content = json.loads(dump.layout.to_json())
        content["addresses"] = {name: hex64(address) for name, address in sorted(dump.symbols.items())}
        summary = {
            "structs": len(dump.layout.structs),
            "enums": len(dump.layout.enums),
            "constants": len(dump.layout.constants),
            "symbols": len(dump.symbols),
            "layout_source": dump.layout.source,
            "symbols_source": dump.symbols.source,
        }
    if output is None:
        echo_json(content)
        return
    with replacing(output) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")
    if as_json:
        echo_json(summary)
    else:
        click.echo(
            f"{click.format_filename(output)}: {summary['structs']} structs, {summary['enums']} enums,"
            f" {summary['constants']} constants, {summary['symbols']} symbols"
        )
