# SPDX-License-Identifier: GPL-2.0-only
"""CPUs and their per-cpu areas (include/asm-generic/percpu.h).

A per-cpu variable, or a pointer marked ``__percpu``, is an address to which a CPU's entry of
``__per_cpu_offset`` is added.  A kernel without SMP has one CPU and plain addresses.
"""

from __future__ import annotations

import numpy as np

from physmem.dump import Dump
from physmem.errors import CorruptionError

__all__ = ["online_cpus", "per_cpu_offset"]

_U64 = (1 << 64) - 1
#: More CPUs than any x86-64 kernel is built for (CONFIG_NR_CPUS is at most 8192).
_MAX_CPUS = 8192


def is_smp(dump: Dump) -> bool:
    """Whether the kernel keeps statistics per CPU, as those with CONFIG_SMP do."""
    return dump.layout.has("per_cpu_pageset", "stat_threshold")


def online_cpus(dump: Dump) -> list[int]:
    """The CPUs that are online (``cpu_online_bits``).

    :raises CorruptionError: there is none
    """
    if not is_smp(dump):
        return [0]
    count = min(dump.layout.constant("NR_CPUS"), _MAX_CPUS)
    words = dump.memory.array(dump.virt_to_phys(dump.symbols["cpu_online_bits"]), np.uint64, -(-count // 64))
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[:count]
    online: list[int] = np.flatnonzero(bits).tolist()
    if not online:
        raise CorruptionError("cpu_online", "no CPU is")
    return online


def per_cpu_offset(dump: Dump, cpu: int) -> int:
    """``__per_cpu_offset[cpu]``: what to add to a per-cpu address, modulo 2^64."""
    if not is_smp(dump):
        return 0
    return dump.u64(dump.symbols["__per_cpu_offset"] + 8 * cpu)


def per_cpu(dump: Dump, pointer: int, cpu: int) -> int:
    """``per_cpu_ptr``: kernel address of a CPU's copy of what a per-cpu pointer points to."""
    return (pointer + per_cpu_offset(dump, cpu)) & _U64
