# SPDX-License-Identifier: GPL-2.0-only
"""The types that the others are made of: atomics, lists, locks, wait queues.

From include/linux/types.h, spinlock_types.h, wait.h and mutex.h, and
arch/x86/include/asm/spinlock_types.h, without lock debugging.  A spinlock is a
pair of tickets, the one being served and the next to be drawn; on a kernel for
one CPU it is a struct of no bytes.
"""

from __future__ import annotations

from functools import cache

from physmem.structs.cdecl import Aggregate, int_, long, ptr, struct, typedef, u8, u16, union, unsigned_int, when
from physmem.structs.linux_4_0.config import Config

__all__ = [
    "arch_spinlock",
    "atomic_long_t",
    "atomic_t",
    "list_head",
    "mutex",
    "raw_spinlock",
    "seqlock_t",
    "spinlock",
    "spinlock_t",
    "wait_queue_head",
    "wait_queue_head_t",
]

atomic_t = typedef("atomic_t", struct(None, "counter" / int_))
atomic_long_t = typedef("atomic_long_t", struct(None, "counter" / long))

list_head = struct(
    "list_head",
    "next" / ptr("struct list_head"),
    "prev" / ptr("struct list_head"),
)


@cache
def arch_spinlock(c: Config) -> Aggregate:
    """``arch_spinlock_t``."""
    if not c.smp:
        return typedef("arch_spinlock_t", struct(None))
    ticket = typedef("__ticket_t", u8 if c.nr_cpus < 256 else u16)
    pair = typedef("__ticketpair_t", u16 if c.nr_cpus < 256 else unsigned_int)
    tickets = struct(
        "__raw_tickets",
        "head" / ticket * "the ticket that holds the lock",
        "tail" / ticket * "the next to be drawn; equal to head: unlocked",
    )
    lock = struct("arch_spinlock", union(None, "head_tail" / pair, "tickets" / tickets))
    return typedef("arch_spinlock_t", lock)


@cache
def raw_spinlock(c: Config) -> Aggregate:
    """``struct raw_spinlock``."""
    return struct("raw_spinlock", "raw_lock" / arch_spinlock(c))


@cache
def spinlock(c: Config) -> Aggregate:
    """``struct spinlock``: the union has a second member only where locks are debugged."""
    return struct("spinlock", union(None, "rlock" / raw_spinlock(c)))


@cache
def spinlock_t(c: Config) -> Aggregate:
    """``spinlock_t``."""
    return typedef("spinlock_t", spinlock(c))


@cache
def seqlock_t(c: Config) -> Aggregate:
    """``seqlock_t``: a counter that is odd while a writer is at work."""
    seqcount = struct("seqcount", "sequence" / unsigned_int)
    return typedef("seqlock_t", struct(None, "seqcount" / seqcount, "lock" / spinlock_t(c)))


@cache
def wait_queue_head(c: Config) -> Aggregate:
    """``struct __wait_queue_head``."""
    return struct("__wait_queue_head", "lock" / spinlock_t(c), "task_list" / list_head)


@cache
def wait_queue_head_t(c: Config) -> Aggregate:
    """``wait_queue_head_t``."""
    return typedef("wait_queue_head_t", wait_queue_head(c))


@cache
def mutex(c: Config) -> Aggregate:
    """``struct mutex``; where there are other CPUs, a waiter first spins on the owner."""
    return struct(
        "mutex",
        "count" / atomic_t * "1 unlocked, 0 locked, below 0 locked with waiters",
        "wait_lock" / spinlock_t(c),
        "wait_list" / list_head,
        *when(
            c.smp,
            "owner" / ptr("struct task_struct"),
            "osq" / struct("optimistic_spin_queue", "tail" / atomic_t),
        ),
    )
