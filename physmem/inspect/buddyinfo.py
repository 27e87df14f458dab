# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/buddyinfo``: how many free blocks of each order each zone has (mm/vmstat.c: frag_show_print)."""

from __future__ import annotations

from collections.abc import Iterable

from physmem.inspect.zones import Zone

__all__ = ["buddyinfo"]


def buddyinfo(zones: Iterable[Zone]) -> str:
    """The text of the file, byte for byte, given the populated zones."""
    return "".join(
        f"Node {zone.node}, zone {zone.name:>8} {''.join(f'{blocks:6} ' for blocks in zone.nr_free)}\n"
        for zone in zones
    )
