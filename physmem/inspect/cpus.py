# SPDX-License-Identifier: GPL-2.0-only
"""CPUs and their per-cpu areas (include/asm-generic/percpu.h).

A per-cpu variable, or a pointer marked ``__percpu``, is an address to which a CPU's entry of
``__per_cpu_offset`` is added.  A kernel without SMP has one CPU and plain addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physmem.dump import Dump
from physmem.errors import CorruptionError

if TYPE_CHECKING:
    pass
else:
    pass

__all__ = ["is_smp", "online_cpus", "per_cpu", "per_cpu_offset"]

_U64 = (1 << 64) - 1
#: More CPUs than any x86-64 kernel is built for (CONFIG_NR_CPUS is at most 8192).
_MAX_CPUS = 8192


#: Structs that only a kernel with SMP has a threshold in.
_COUNTERS = ("per_cpu_pageset", "per_cpu_zonestat")


def is_smp(dump: Dump) -> bool:
    """Whether the kernel keeps statistics per CPU, as those with CONFIG_SMP do."""
    return any(dump.layout.has(tag, "stat_threshold") for tag in _COUNTERS)


def online_cpus(dump: Dump) -> list[int]:
    """The CPUs that are online (``cpu_online_bits``, since 4.5 ``__cpu_online_mask``).

    :raises CorruptionError: there is none
    """
    if not is_smp(dump):
        return [0]
    count = min(_nr_cpus(dump), _MAX_CPUS)
    mask = "__cpu_online_mask" if "__cpu_online_mask" in dump.symbols else "cpu_online_bits"
    words = dump.read(dump.symbols[mask], -(-count // 64) * 8)
    bits = int.from_bytes(words, "little")
    online = [cpu for cpu in range(count) if bits >> cpu & 1]
    if not online:
        raise CorruptionError("cpu_online", "no CPU is")
    return online


def _nr_cpus(dump: Dump) -> int:
    """CPUs that the masks have bits for: what the kernel was built for, or no more than it found."""
    if "NR_CPUS" in dump.layout.constants:
        return dump.layout.constant("NR_CPUS")
    return max(dump.s32(dump.symbols["nr_cpu_ids"]), 1)


def per_cpu_offset(dump: Dump, cpu: int) -> int:
    """``__per_cpu_offset[cpu]``: what to add to a per-cpu address, modulo 2^64."""
    if not is_smp(dump):
        return 0
    return dump.u64(dump.symbols["__per_cpu_offset"] + 8 * cpu)


def per_cpu(dump: Dump, pointer: int, cpu: int) -> int:
    """``per_cpu_ptr``: kernel address of a CPU's copy of what a per-cpu pointer points to."""
    return (pointer + per_cpu_offset(dump, cpu)) & _U64
