# SPDX-License-Identifier: GPL-2.0-only
"""``struct vm_event_state``: each CPU's event counters (include/linux/vmstat.h)."""

from __future__ import annotations

from functools import cache

from physmem.structs.cdecl import Aggregate, struct, unsigned_long
from physmem.structs.linux_4_0.config import Config
from physmem.structs.linux_4_0.enums import vm_event_item

__all__ = ["vm_event_state"]


@cache
def vm_event_state(c: Config) -> Aggregate:
    """``struct vm_event_state``."""
    return struct(
        "vm_event_state",
        "event" / unsigned_long[vm_event_item(c)["NR_VM_EVENT_ITEMS"]] * "by vm_event_item",
    )
