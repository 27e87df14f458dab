# SPDX-License-Identifier: GPL-2.0-only
"""The reserves of those who free memory, and who waits for them (``pgdat->pfmemalloc_wait``, mm/vmscan.c).

While more than half of a node's reserves is gone, a task that would reclaim waits until kswapd has brought enough
back.  The queue is in the node; the entry of the one task that can wait here is on its stack.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core import mmzone, watermark
from kernelmm.core.mm import Mm
from kernelmm.pressure import stat, wakeup
from physmem import abi, address, list_head, word

__all__ = [
    "finish_wait",
    "init_wait",
    "pfmemalloc_reserve",
    "pfmemalloc_watermark_ok",
    "prepare_to_wait",
    "waitqueue_active",
    "wake_up_all",
]

#: Where on the stack the waiting task has its entry's ``task_list``.
_STACK_WAIT = 31


def pfmemalloc_reserve(mm: Mm, pgdat: int) -> tuple[int, int]:
    """What the node keeps for those who free memory, and what is free: pages of its zones up to ZONE_NORMAL."""
    zones = [
        mmzone.zone_off(mm, pgdat + mm.pgdat_node_zones + index * mm.sizeof_zone)
        for index in range(gfp.ZONE_NORMAL + 1)
    ]
    zones = [z for z in zones if mmzone.populated(mm, z)]
    reserve = sum(watermark.wmark_pages(mm, z, watermark.WMARK_MIN) for z in zones)
    return reserve, sum(stat.zone_state(mm, z, abi.NR_FREE_PAGES) for z in zones)


def pfmemalloc_watermark_ok(mm: Mm, pgdat: int) -> bool:
    """``pfmemalloc_watermark_ok``: more than half of the node's reserves is there; if not, its kswapd is woken."""
    reserve, free = pfmemalloc_reserve(mm, pgdat)
    if reserve == 0 or free > reserve // 2:
        return True
    at = address.off(mm, pgdat)
    head = pgdat + mm.pgdat_kswapd_wait_task_list
    if not list_head.list_empty(mm, head, address.off(mm, head)):
        index = mm.as_u32[(at + mm.pgdat_classzone_idx) >> 2]
        mm.as_u32[(at + mm.pgdat_classzone_idx) >> 2] = min(index, gfp.ZONE_NORMAL)
        wakeup.wait_lock(mm, at)
        list_head.init_list_head(mm, head, address.off(mm, head))
    return False


# -- the queue --------------------------------------------------------------------------


def queue(mm: Mm, pgdat: int) -> tuple[int, int]:
    """The head of the node's queue: kernel address, physical address."""
    head = pgdat + mm.cold.pgdat_pfmemalloc_wait_task_list
    return head, address.off(mm, head)


def entry(mm: Mm) -> tuple[int, int]:
    """The entry of the waiting task: kernel address, physical address."""
    at = mm.stack + 16 * _STACK_WAIT
    return at, address.off(mm, at)


def lock(mm: Mm, pgdat: int) -> None:
    """Take and release the queue's lock."""
    if mm.smp:
        at = address.off(mm, pgdat) + mm.cold.pgdat_pfmemalloc_wait_lock
        word.add_u8(mm, at + 1, mm.ticket_lock_inc)
        word.add_u8(mm, at, mm.ticket_lock_inc)


def waitqueue_active(mm: Mm, pgdat: int) -> bool:
    """``waitqueue_active``."""
    return not list_head.list_empty(mm, *queue(mm, pgdat))


def init_wait(mm: Mm) -> None:
    """The task is about to wait, and on no queue yet."""
    list_head.init_list_head(mm, *entry(mm))


def prepare_to_wait(mm: Mm, pgdat: int) -> None:
    """``prepare_to_wait_event``: the task is on the queue, off which whoever woke it last took it."""
    lock(mm, pgdat)
    if list_head.list_empty(mm, *entry(mm)):
        list_head.list_add(mm, *entry(mm), *queue(mm, pgdat))


def finish_wait(mm: Mm, pgdat: int) -> None:
    """``finish_wait``: the task is off the queue."""
    if not list_head.list_empty(mm, *entry(mm)):
        lock(mm, pgdat)
        list_head.unlink(mm, *entry(mm))
        init_wait(mm)


def wake_up_all(mm: Mm, pgdat: int) -> None:
    """``wake_up_all``: whoever waits is off the queue, and looks again when it has its turn.

    Those whom an image brought along have their entries on stacks that it need not contain: the queue is emptied from
    its head.
    """
    lock(mm, pgdat)
    list_head.init_list_head(mm, *queue(mm, pgdat))
    init_wait(mm)
