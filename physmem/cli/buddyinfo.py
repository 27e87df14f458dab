# SPDX-License-Identifier: GPL-2.0-only
"""``physmem buddyinfo``: /proc/buddyinfo of an image."""

from __future__ import annotations

import click

from physmem.cli.common import DumpOptions, dump_options, echo_json, example, json_option

__all__ = ["command"]


@click.command(epilog=example("physmem buddyinfo A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@json_option
def command(image: str, options: DumpOptions, as_json: bool) -> None:
    """Print what /proc/buddyinfo would: free blocks of each order in each zone of IMAGE."""
    from physmem.inspect.buddyinfo import buddyinfo
    from physmem.inspect.zones import populated_zones

    with options.open(image) as dump:
        zones = list(populated_zones(dump))
        if as_json:
            echo_json([{"node": zone.node, "zone": zone.name, "free": zone.nr_free} for zone in zones])
        else:
            click.echo(buddyinfo(zones), nl=False)
