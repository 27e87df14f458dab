# SPDX-License-Identifier: GPL-2.0-only
"""The attributes of ``fail_page_alloc``, to look at and to set (lib/fault-inject.c, mm/page_alloc.c).

In Linux they are files in debugfs, and four of them a boot parameter.  Here as there they are a variable
in the kernel's memory; :mod:`kernelmm.core.fault` acts on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from kernelmm.core import fault
from kernelmm.core.mm import Mm
from physmem.errors import UnsupportedError, UsageError

__all__ = ["FaultAttr", "fail_page_alloc_debugfs", "read_fault_attr", "setup_fail_page_alloc"]

#: Of each attribute: its offset, bytes, and whether it has a sign.
_FIELDS = {
    "probability": (fault.PROBABILITY, 8, False),
    "interval": (fault.INTERVAL, 8, False),
    "times": (fault.TIMES, 4, True),
    "space": (fault.SPACE, 4, True),
    "verbose": (fault.VERBOSE, 8, False),
    "task_filter": (fault.TASK_FILTER, 4, False),
    "min_order": (fault.MIN_ORDER, 4, False),
    "ignore_gfp_wait": (fault.IGNORE_GFP_WAIT, 4, False),
    "ignore_gfp_highmem": (fault.IGNORE_GFP_HIGHMEM, 4, False),
    "count": (fault.COUNT, 8, False),
}
_PARAMETER = re.compile(r"\s*(\d+),\s*(\d+),\s*([+-]?\d+),\s*([+-]?\d+)")


@dataclass(frozen=True)
class FaultAttr:
    """What is to fail.

    :ivar probability: percent of the candidates
    :ivar interval: every how many requests there is a candidate
    :ivar times: failures still to come; -1: no limit
    :ivar space: pages still to be allocated before the first failure
    :ivar verbose: 0: silently; 1: with a message; 2: and who was running
    :ivar task_filter: only tasks that are marked to fail (``mm.make_it_fail``), and not in interrupts
    :ivar min_order: smaller requests are left alone
    :ivar ignore_gfp_wait: so are those that may wait
    :ivar ignore_gfp_highmem: and those for high memory
    :ivar count: requests since the first, while there is an interval
    """

    probability: int
    interval: int
    times: int
    space: int
    verbose: int
    task_filter: int
    min_order: int
    ignore_gfp_wait: int
    ignore_gfp_highmem: int
    count: int


def read_fault_attr(mm: Mm) -> FaultAttr:
    """The attributes as they are in memory.

    :raises UnsupportedError: the kernel has no fault injection
    """
    return FaultAttr(**{name: _read(mm, name) for name in _FIELDS})


def fail_page_alloc_debugfs(mm: Mm, **values: int) -> FaultAttr:
    """Write to files in /sys/kernel/debug/fail_page_alloc; the attributes then.

    :param values: fields of :class:`FaultAttr`
    :raises UsageError: there is no such file, or the value does not fit
    :raises UnsupportedError: the kernel has no fault injection
    """
    known = [field.name for field in fields(FaultAttr)]
    for name, value in values.items():
        if name not in known or name == "count":
            raise UsageError(f"fail_page_alloc: no attribute {name!r}: there are {', '.join(known[:-1])}")
        _, size, signed = _FIELDS[name]
        bits = 8 * size - signed
        if not -signed << bits <= value < 1 << bits:
            raise UsageError(f"fail_page_alloc: {name} {value} does not fit into {8 * size} bits")
    for name, value in values.items():
        at, size, _ = _place(mm, name)
        mm.ram.write(at, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
    return read_fault_attr(mm)


def setup_fail_page_alloc(mm: Mm, text: str) -> FaultAttr:
    """``fail_page_alloc=<interval>,<probability>,<space>,<times>``, as on the kernel's command line.

    :raises UsageError: it is malformed
    """
    match = _PARAMETER.match(text)
    if match is None:
        raise UsageError(f"fail_page_alloc={text[:40]}: expected <interval>,<probability>,<space>,<times>")
    names = ("interval", "probability", "space", "times")
    return fail_page_alloc_debugfs(mm, **dict(zip(names, map(int, match.groups()), strict=True)))


def _place(mm: Mm, name: str) -> tuple[int, int, bool]:
    """Physical address, bytes and signedness of an attribute."""
    if not mm.var_fail_page_alloc:
        raise UnsupportedError("this kernel has no fail_page_alloc (CONFIG_FAIL_PAGE_ALLOC)")
    offset, size, signed = _FIELDS[name]
    # Without SMP there are no bytes for the lock in the middle.
    shift = 8 if not mm.smp and offset >= fault.DNAME else 0
    return mm.var_fail_page_alloc + offset - shift, size, signed


def _read(mm: Mm, name: str) -> int:
    at, size, signed = _place(mm, name)
    return int.from_bytes(mm.ram.read(at, size), "little", signed=signed)
