# SPDX-License-Identifier: GPL-2.0-only
"""Lockdep: locks that are held while memory is reclaimed, and also taken by reclaim itself (kernel/locking/lockdep.c).

An allocation with __GFP_FS that may wait can end in reclaim, so each lock that its caller holds is marked as held
over reclaim (``lockdep_trace_alloc``).  A lock that is taken in reclaim is marked as well.  One that has both marks
can deadlock, and is reported the first time, wherever that is; then lockdep is silent.

Each task has its own held locks and its own state of reclaim, and kswapd of each node is a task.  The emulation's
direct reclaim, kswapd and zone_reclaim are in that state, and take locks of the kernel's in it: ``zone->lru_lock``,
and to find the mappings of a page the lock of its file or anonymous mapping.

Locks are classes with names; the same is done with hard and soft interrupts.  Dependencies of one lock on another
(chains, recursion) are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kernelmm import gfp
from kernelmm.core.mm import Mm
from kernelmm.debug.callers import ULONG_MAX, Callers
from kernelmm.pressure import codes
from kernelmm.study.reporter import Reporter, pointer
from physmem import abi

__all__ = ["Lockdep"]

# Inside a class Python would mangle a name with two underscores.
WAIT, FS, NOMEMALLOC = gfp.__GFP_WAIT, gfp.__GFP_FS, gfp.__GFP_NOMEMALLOC
#: Where __lockdep_trace_alloc warns, in Linux 4.0.
_WARN_LINE = 2744

#: enum lock_usage_bit: four for each state: used in it, used in it to read, enabled, enabled while reading.
_STATES = ("HARDIRQ", "SOFTIRQ", "RECLAIM_FS")
HARDIRQ, SOFTIRQ, RECLAIM_FS = 0, 4, 8
READ, ENABLED = 1, 2
_ENTRIES = 32


@dataclass
class LockClass:
    """All locks of one name: how they have been used, and who first used them so (``struct lock_class``)."""

    name: str
    usage: int = 0
    traces: dict[int, list[int]] = field(default_factory=dict)


@dataclass
class HeldLock:
    """``struct held_lock``: a lock that a task holds, and where it took it."""

    lock: LockClass
    read: bool
    ip: int


@dataclass
class TaskLocks:
    """What ``struct task_struct`` has for lockdep.

    :ivar held: ``held_locks``
    :ivar reclaim_gfp: ``lockdep_reclaim_gfp``: for whose request the task is reclaiming memory; 0: it is not
    """

    held: list[HeldLock] = field(default_factory=list)
    reclaim_gfp: int = 0


class Lockdep:
    """The lock validator of one kernel.

    :ivar debug_locks: nothing has been reported yet
    """

    def __init__(self, callers: Callers, reporter: Reporter) -> None:
        self.callers = callers
        self.reporter = reporter
        self.debug_locks = True
        self.classes: dict[str, LockClass] = {}
        self.tasks: dict[int | str, TaskLocks] = {}

    def current(self, mm: Mm) -> TaskLocks:
        """The running task's locks: a task is known by its record, a kernel thread by its name."""
        key = mm.comm if mm.task_flags & codes.PF_KSWAPD else mm.current
        return self.tasks.setdefault(key, TaskLocks())

    @contextmanager
    def holding(self, mm: Mm, name: str, read: bool, trylock: bool) -> Iterator[None]:
        """``lock_acquire``, and ``lock_release`` at the end."""
        lock = self.classes.setdefault(name, LockClass(name))
        held = HeldLock(lock, read, self.stack()[0])
        if self.debug_locks:
            self.mark_irqflags(mm, held, trylock)
        task = self.current(mm)
        task.held.append(held)
        try:
            yield
        finally:
            task.held.remove(held)

    def acquired(self, mm: Mm, name: str, read: bool = False, irqs_off: bool = False) -> None:
        """A lock that the emulation takes and releases at once."""
        if self.debug_locks:
            before, mm.irqs_off = mm.irqs_off, mm.irqs_off or irqs_off
            with self.holding(mm, name, read, False):
                mm.irqs_off = before

    @contextmanager
    def reclaiming(self, mm: Mm, gfp_mask: int) -> Iterator[None]:
        """Be in reclaim, as ``__perform_reclaim`` is: PF_MEMALLOC, and ``lockdep_set_current_reclaim_state``."""
        flags, mm.task_flags = mm.task_flags, mm.task_flags | abi.PF_MEMALLOC
        try:
            with self.reclaim_state(mm, gfp_mask):
                yield
        finally:
            mm.task_flags = flags

    @contextmanager
    def reclaim_state(self, mm: Mm, gfp_mask: int) -> Iterator[None]:
        """``lockdep_set_current_reclaim_state``, and ``lockdep_clear_current_reclaim_state`` at the end."""
        task = self.current(mm)
        before, task.reclaim_gfp = task.reclaim_gfp, gfp_mask
        try:
            yield
        finally:
            task.reclaim_gfp = before

    def trace_alloc(self, mm: Mm, gfp_mask: int) -> None:
        """``lockdep_trace_alloc``: an allocation begins that may have to reclaim."""
        if not self.debug_locks or not gfp_mask & WAIT or not gfp_mask & FS:
            return
        if mm.task_flags & abi.PF_MEMALLOC and not gfp_mask & NOMEMALLOC:
            return
        if mm.irqs_off:
            self.debug_locks = False
            message = "DEBUG_LOCKS_WARN_ON(irqs_disabled_flags(flags))"
            self.reporter.warn(mm, "kernel/locking/lockdep.c", _WARN_LINE, "lockdep_trace_alloc", message)
            return
        for held in self.current(mm).held:
            if not self.mark_lock(mm, held, RECLAIM_FS | ENABLED | held.read):
                return

    def mark_irqflags(self, mm: Mm, held: HeldLock, trylock: bool) -> None:
        """``mark_irqflags``: in which of the three states a lock is taken, and which could come while it is held."""
        hardirq = mm.in_interrupt and not mm.serving_softirq
        bits = []
        if not trylock:
            bits += [HARDIRQ] * hardirq + [SOFTIRQ] * mm.serving_softirq
        if not mm.irqs_off and not hardirq:
            bits += [HARDIRQ | ENABLED] + [SOFTIRQ | ENABLED] * (not mm.serving_softirq)
        if not trylock and self.current(mm).reclaim_gfp & FS:
            bits.append(RECLAIM_FS)
        for bit in bits:
            if not self.mark_lock(mm, held, bit | held.read):
                return

    def mark_lock(self, mm: Mm, held: HeldLock, bit: int) -> bool:
        """``mark_lock``: note a use; False if it contradicts an earlier one, which is reported."""
        lock = held.lock
        if lock.usage >> bit & 1:
            return True
        lock.usage |= 1 << bit
        lock.traces[bit] = self.stack()
        # A writer excludes readers too; readers only writers.
        excluded = (bit ^ ENABLED) & ~READ
        for bad in (excluded,) if bit & READ else (excluded, excluded | READ):
            if lock.usage >> bad & 1:
                self.print_usage_bug(mm, held, bad, bit)
                return False
        return True

    def stack(self) -> list[int]:
        """Return addresses of the callers, innermost first."""
        return [ip for ip in self.callers.save_stack_trace(_ENTRIES) if ip != ULONG_MAX] or [0]

    # -- text ----------------------------------------------------------------

    def ip_sym(self, ip: int) -> str:
        """``print_ip_sym``."""
        return f"[<{pointer(ip)}>] {self.callers.symbol(ip) if ip else pointer(0)}"

    def lock_text(self, held: HeldLock) -> str:
        """``print_lock``: name, the six characters of its uses, and where it was taken."""
        usage = held.lock.usage
        pairs = ((usage >> bit & 1, usage >> (bit | ENABLED) & 1) for bit in (0, 1, 4, 5, 8, 9))
        marks = "".join(".-+?"[used + 2 * enabled] for used, enabled in pairs)
        return f" ({held.lock.name}){{{marks}}}, at: {self.ip_sym(held.ip)}"

    def print_usage_bug(self, mm: Mm, held: HeldLock, prev: int, new: int) -> None:
        """``print_usage_bug``: two uses that contradict each other; the last report that there is."""
        self.debug_locks = False
        out, name, who = self.reporter.printk, held.lock.name, f"{mm.comm}/{mm.pid}"
        hardirq = mm.in_interrupt and not mm.serving_softirq
        context = f"HC{hardirq:d}[{hardirq:d}]:SC{mm.serving_softirq:d}[{mm.serving_softirq:d}]"
        enabled = f"HE{not (mm.irqs_off or hardirq):d}:SE{not mm.serving_softirq:d}"
        never = self.ip_sym(0)
        for line in (
            "",
            "=" * 33,
            "[ INFO: inconsistent lock state ]",
            f"{self.reporter.release()} {self.reporter.print_tainted()}",
            "-" * 33,
            f"inconsistent {{{usage_name(prev)}}} -> {{{usage_name(new)}}} usage.",
            f"{who} [{context}:{enabled}] takes:",
            self.lock_text(held),
            f"{{{usage_name(prev)}}} state was registered at:",
            *(f"  {self.ip_sym(ip)}" for ip in held.lock.traces[prev]),
            "irq event stamp: 0",
            f"hardirqs last  enabled at (0): {never}",
            f"hardirqs last disabled at (0): {never}",
            f"softirqs last  enabled at (0): {never}",
            f"softirqs last disabled at (0): {never}",
            "",
            "other info that might help us debug this:",
            " Possible unsafe locking scenario:",
            "",
            "       CPU0",
            "       ----",
            f"  lock({name});",
            "  <Interrupt>",
            f"    lock({name});",
            "",
            " *** DEADLOCK ***",
            "",
        ):
            out(line)
        locks = self.current(mm).held
        count = len(locks)
        if not count:
            out(f"no locks held by {who}.")
        else:
            out(f"{count} lock{'s' * (count > 1)} held by {who}:")
            for i, each in enumerate(locks):
                out(f" #{i}: {self.lock_text(each)}")
        out("")
        out("stack backtrace:")
        self.reporter.dump_stack(mm)


def usage_name(bit: int) -> str:
    """``usage_str``: IN-RECLAIM_FS-W, RECLAIM_FS-ON-R and the like."""
    state, access = _STATES[bit >> 2], "R" if bit & READ else "W"
    return f"{state}-ON-{access}" if bit & ENABLED else f"IN-{state}-{access}"
