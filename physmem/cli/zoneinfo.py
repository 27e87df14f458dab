# SPDX-License-Identifier: GPL-2.0-only
"""``physmem zoneinfo``: /proc/zoneinfo of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from physmem.cli.common import DumpOptions, dump_options, echo_json, example, json_option

if TYPE_CHECKING:
    from physmem.dump import Dump
    from physmem.inspect.zones import Zone

__all__ = ["command"]


@click.command(epilog=example("physmem zoneinfo A.vmcore.xz"))
@click.argument("image", type=click.Path())
@dump_options
@json_option
def command(image: str, options: DumpOptions, as_json: bool) -> None:
    """Print what /proc/zoneinfo would: watermarks, statistics and pagesets of each zone of IMAGE.

    A question mark stands for a value that the image does not tell.
    """
    from physmem.inspect.zoneinfo import zoneinfo
    from physmem.inspect.zones import populated_zones

    with options.open(image) as dump:
        zones = list(populated_zones(dump))
        if as_json:
            echo_json([_json(dump, zone) for zone in zones])
        else:
            click.echo("".join(zoneinfo(dump, zone) for zone in zones), nl=False)


def _json(dump: Dump, zone: Zone) -> dict[str, object]:
    from physmem.inspect.zoneinfo import all_unreclaimable, stat_name
    from physmem.inspect.zones import pagesets

    return {
        "node": zone.node,
        "zone": zone.name,
        "start_pfn": zone.start_pfn,
        "spanned": zone.spanned,
        "present": zone.present,
        "managed": zone.managed,
        "watermark": dict(zip(("min", "low", "high"), zone.watermark, strict=False)),
        "protection": zone.lowmem_reserve,
        "flags": zone.flags,
        "inactive_ratio": zone.inactive_ratio,
        "all_unreclaimable": all_unreclaimable(dump, zone),
        "stat": {stat_name(item): value for item, value in zone.vm_stat.items()},
        "pagesets": [
            {
                "cpu": pageset.cpu,
                "count": pageset.count,
                "high": pageset.high,
                "batch": pageset.batch,
                "stat_threshold": pageset.stat_threshold,
                "stat_diff": {stat_name(item): value for item, value in pageset.vm_stat_diff.items()},
            }
            for pageset in pagesets(dump, zone)
        ],
    }
