# SPDX-License-Identifier: GPL-2.0-only
"""Which CPUs there are, and where their data is."""

from __future__ import annotations

import pytest

from physmem.errors import CorruptionError
from physmem.inspect import cpus


def test_one_cpu_is_online(open_case):
    assert cpus.online_cpus(open_case("n128_s1")) == [0]
    assert cpus.online_cpus(open_case("u128_s1")) == [0]


def test_online_is_a_bitmap_of_as_many_bits_as_the_kernel_has_cpus(edit):
    editor = edit()
    editor.set_symbol("cpu_online_bits", 0b1000_0101 | 1 << 8)  # NR_CPUS is 8
    assert cpus.online_cpus(editor.dump) == [0, 2, 7]
    editor.set_symbol("cpu_online_bits", 0)
    with pytest.raises(CorruptionError, match="cpu_online: no CPU is"):
        cpus.online_cpus(editor.dump)


def test_per_cpu_addresses(open_case):
    smp, up = open_case("n128_s1"), open_case("u128_s1")
    assert cpus.per_cpu(smp, 0x12E50, 0) == 0xFFFF880007C12E50
    # Modulo 2^64, as pointers are.
    assert cpus.per_cpu(smp, (1 << 64) - 0x1000, 0) == cpus.per_cpu_offset(smp, 0) - 0x1000
    assert cpus.per_cpu(up, 0xFFFF880007CFB828, 0) == 0xFFFF880007CFB828
